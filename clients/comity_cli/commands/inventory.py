"""`comity inventory take|diff`."""

from __future__ import annotations

import shlex
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from comity.trust.encoding import Digest, format_time
from comity.trust.errors import ComityError
from comity.trust.exit_statuses import FAILED, OK, PARTIAL, WARNED
from comity.trust.frozen import frozen

from comity_cli.command import Group, client, examples, options_as, output
from comity_cli.document import document
from comity_cli.files import FILE, NEW_FILE
from comity_cli.output import Output, plural

if TYPE_CHECKING:
    from comity_client.inventory.inventory import Inventory, InventoryDifference
    from comity_client.webhook_events import WebhookReceiver

SHOWN: Final = 20
"""Differences of one kind that are listed without --all."""
WORDS: Final = {"warned": "newly warned", "answer": "other answer", "unread": "not read"}
"""Kinds of differences, for people."""


@frozen
class DifferenceItem:
    """What is different: an artifact, a folder, or a file."""

    kind: str
    path: str
    text: str
    artifact: Digest | None


@document("inventory-differences")
class InventoryDifferencesDocument:
    """What is different between two inventories, as `comity inventory take --json` and `comity inventory diff --json`
    print it.

    `before` and `now` are when they were taken; `before` is null for the first one. `undelivered`: differences that the
    receiver of notifications did not take, and why.
    """

    machine: str
    before: str | None
    now: str
    differences: tuple[DifferenceItem, ...]
    files: int
    unread: int
    artifacts: int
    undelivered: int
    undelivered_because: str
    exit_status: int


@frozen
class Telling:
    """Who is told of differences, besides the person at the terminal."""

    notify: str | None
    secret: Path | None
    metrics: Path | None


class InventoryGroup(Group):
    """Says which command takes an inventory where a path is given at once."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and Path(args[0]).exists():
            ctx.fail(f"Name what to do. Did you mean 'comity inventory take {shlex.join(args)}'?")
        return super().resolve_command(ctx, args)


@examples(
    "comity inventory take /srv/models --out site.json",
    "comity inventory diff monday.json site.json",
    "comity bom site.json --out site.cdx.json",
)
@click.group(cls=InventoryGroup, name="inventory", short_help="Record what lies on disks, and what has changed there.")
def command() -> None:
    """Write what lies on the disks of a machine to a file: which artifacts, where, since when, and what your policy
    says of them; and, each time, what is different from the time before."""


@examples(
    "comity inventory take /srv/models ~/.cache/huggingface --out site.json",
    "comity inventory take /srv --policy ministry.toml --metrics /var/lib/node-exporter/comity.prom",
    "comity inventory take /srv --notify https://alerts.example.org/comity --secret notify.secret",
)
@command.command("take", short_help="Record what lies at some paths, and print the differences.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", "target", type=NEW_FILE, default=Path("inventory.json"), show_default=True,
    help="The inventory. One that is there is compared, and replaced.",
)  # fmt: skip
@click.option("--policy", type=FILE, help="Judge with this policy (TOML).")
@click.option("--fresh", is_flag=True, help="Read every file again, also those whose hash is kept.")
@click.option("--all", "every", is_flag=True, help="List every difference.")
@click.option("--notify", metavar="URL", help="Post differences there, as a signed CloudEvent.")
@click.option("--secret", type=FILE, help="The secret of these signatures: whsec_ and base64, in a file of mode 0600.")
@click.option("--metrics", type=NEW_FILE, help="Write counts there, for the textfile collector of Prometheus.")
@options_as("telling", Telling)
def take(paths: tuple[Path, ...], target: Path, policy: Path | None, fresh: bool, every: bool, telling: Telling) -> int:
    """Find what the files at or below each PATH are, as `comity identify` does, and record it. Only what has changed
    since is read. What cannot be read is a line of the inventory; nothing at the paths is changed.

    Exit status: 0 nothing is different, or it is the first one; 8 something is different; 10 an artifact here is newly
    warned about or not accepted, or a folder has other bytes than its artifact; 1 nothing is different, and earlier
    differences were not delivered. If no node answers: 5, and the inventory stays as it was.
    """
    from comity_client.inventory.differences import differences
    from comity_client.inventory.inventory import read_inventory
    from comity_client.inventory.taking import TakenAt
    from comity_client.webhook_events import WebhookReceiver

    if (telling.notify is None) != (telling.secret is None):
        raise click.UsageError("--notify needs --secret, and --secret needs --notify")
    out, api = output(), client()
    receiver = WebhookReceiver.of(telling.notify, telling.secret) if telling.notify and telling.secret else None
    before = read_inventory(target) if target.exists() else None
    at = TakenAt(socket.gethostname(), int(time.time()), tuple(path.absolute() for path in paths))
    own = [path.absolute() for path in (target, telling.metrics) if path is not None]
    with out.progress("hashing", 0) as progress:
        judged_by = api.policy(policy) if policy else None
        now = api.take_inventory(at, before, policy=judged_by, fresh=fresh, leave_out=own, on_hashed=progress.advance)
    found = differences(before, now)
    now, problem = _tell(receiver, before, now, found)
    _write(target, telling.metrics, now, found)
    _show_differences(out, found, every)
    if before is not None and before.policy != now.policy:
        out.warn("judged by another policy than before")
    if problem:
        out.warn(f"{plural(len(now.undelivered), 'difference')} not delivered: {problem}")
    _show_contents(out, target, before, now)
    return _answer(out, before, now, found, problem)


@examples("comity inventory diff monday.json site.json", "comity inventory diff old.json new.json --json")
@command.command("diff", short_help="Show what is different between two inventories.")
@click.argument("before", metavar="OLD", type=FILE)
@click.argument("now", metavar="NEW", type=FILE)
@click.option("--all", "every", is_flag=True, help="List every difference.")
def diff(before: Path, now: Path, every: bool) -> int:
    """Compare two inventories, which may have been taken months apart. No disk and no node is asked.

    Exit status: 0 nothing is different; 8 something is; 10 an artifact is newly warned about or not accepted, or a
    folder has other bytes than its artifact.
    """
    from comity_client.inventory.differences import differences
    from comity_client.inventory.inventory import read_inventory

    old, new, out = read_inventory(before), read_inventory(now), output()
    found = differences(old, new)
    _show_differences(out, found, every)
    out.say(f"{plural(len(found), 'difference')} from {format_time(old.taken)} to {format_time(new.taken)}.")
    return _answer(out, old, new, found, "")


def _tell(
    receiver: WebhookReceiver | None, before: Inventory | None, now: Inventory, found: Sequence[InventoryDifference]
) -> tuple[Inventory, str]:
    """Post what is different, and what was not delivered before. Returns the inventory with what was not delivered, and
    why not."""
    from comity_client.inventory.differences import in_order
    from comity_client.inventory.inventory import MAX_LISTED
    from comity_client.inventory.results import event_of
    from comity_client.webhook_events import deliver

    told = in_order((*(before.undelivered if before else ()), *found))
    if receiver is None or not told:
        return now, ""
    try:
        deliver(receiver, event_of(now, told))
    except ComityError as error:
        return replace(now, undelivered=told[:MAX_LISTED]), str(error)
    return now, ""


def _write(target: Path, metrics: Path | None, now: Inventory, found: Sequence[InventoryDifference]) -> None:
    from comity.content import durable
    from comity_client.inventory.results import metrics_text

    durable.write_file(target, now.encode(), point="inventory")
    if metrics is not None:
        durable.write_file(metrics, metrics_text(now, found).encode(), mode=0o644, point="inventory.metrics")


def _show_differences(out: Output, found: Sequence[InventoryDifference], every: bool) -> None:
    kinds, rows = Counter[str](), list[tuple[str, str, str]]()
    for each in found:
        kinds[each.kind] += 1
        if every or kinds[each.kind] <= SHOWN:
            rows.append((WORDS.get(each.kind, each.kind), each.path, each.text))
    if rows:
        out.table(("different", "where", "what"), rows, shorten=("where",))
    if len(rows) < len(found):
        out.say(f"  and {plural(len(found) - len(rows), 'difference')} more; --all lists them")


def _show_contents(out: Output, target: Path, before: Inventory | None, now: Inventory) -> None:
    for problem, count in Counter(each.problem for each in now.unread).items():
        out.warn(f"{plural(count, 'path')} not read: {problem}")
    for node in now.nodes:
        if not node.said_all:
            out.warn(f"{node.name} did not say all that it knows")
    unknown = sum(file.known in ("unknown", "unsure") for file in now.files)
    artifacts = _counted("artifact", [each.verdict for each in now.artifacts])
    folders = _counted("folder", [each.state for each in now.folders])
    out.say(
        f"{plural(len(now.files), 'file')}: {artifacts}, {folders}, {plural(unknown, 'unknown file')};"
        f" recorded in {target}."
    )
    if before is None:
        out.hint(f"a bill of materials of it: comity bom {target} --out {target.stem}.cdx.json")


def _counted(noun: str, words: Sequence[str]) -> str:
    """`3 folders (1 changed, 2 complete)`."""
    counts = ", ".join(f"{count} {word}" for word, count in sorted(Counter(words).items()))
    return plural(len(words), noun) + (f" ({counts})" if counts else "")


def _answer(
    out: Output, before: Inventory | None, now: Inventory, found: Sequence[InventoryDifference], problem: str
) -> int:
    from comity_client.inventory.differences import urgent

    status = WARNED if urgent(found, now) else PARTIAL if found else FAILED if problem else OK
    out.answer(
        InventoryDifferencesDocument(
            now.machine,
            format_time(before.taken) if before else None,
            format_time(now.taken),
            tuple(DifferenceItem(each.kind, each.path, each.text, each.artifact) for each in found),
            len(now.files),
            len(now.unread),
            len(now.artifacts),
            len(now.undelivered),
            problem,
            status,
        )
    )
    return status
