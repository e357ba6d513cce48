"""`comity upgrade check|fetch`."""

from __future__ import annotations

import shlex
import time
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

import click
import comity
from comity.trust.encoding import Digest, printable
from comity.trust.frozen import frozen
from comity.trust.names import parse_id

from comity_cli.command import Group, client, examples, output
from comity_cli.commands.doctor import AllFindings, show_findings
from comity_cli.document import INLINE, document, named
from comity_cli.files import FILE, NEW_FOLDER
from comity_cli.following import follow
from comity_cli.node_home import node_file, node_installed
from comity_cli.nodes import home_option
from comity_cli.output import Output, plural

if TYPE_CHECKING:
    from comity_client.releases import FetchedRelease, JudgedRelease

LEAST_REBUILDS = 2
RELEASE_NAME = "comity/comity"


@document("upgrade")
class UpgradeDocument:
    """What a start of the installed version would change, as `comity upgrade check --json` prints it."""

    found: AllFindings = field(metadata=INLINE)


@frozen
class ChangeItem:
    """A distribution whose installed version the release would change; null: it is not installed."""

    name: str
    installed: str | None
    version: str


@document("upgrade-fetch")
class UpgradeFetchDocument:
    """A release, as `comity upgrade fetch --json` prints it.

    `claimed_commit`, of which its publisher says that it was built, and `folder` are null where the newest version is
    the installed one: then nothing was fetched. `rebuilt_by`: who says so and counts. `warnings`: advisories that
    refuse nothing. `install`: the words of the command that installs it, from the folder alone.
    """

    title: str
    artifact: Digest
    version: str
    installed: str
    publisher: str
    rebuilt_by: tuple[str, ...]
    warnings: tuple[str, ...]
    commit: str | None = field(metadata=named("claimed_commit"))
    folder: Path | None
    changes: tuple[ChangeItem, ...]
    install: tuple[str, ...]


@examples("comity upgrade check --node /var/lib/comity", "comity upgrade fetch --policy release.toml --rebuilt-by 2")
@click.group(cls=Group, name="upgrade", short_help="Fetch a release by policy; see what it would change.")
def command() -> None:
    """Fetch a release from your federation, and see what a start of the installed version would change in a home. A
    node never upgrades itself: you fetch, you install, you restart."""


@examples(
    "comity upgrade check --node /var/lib/comity",
    "/opt/comity-new/bin/comity upgrade check --node /var/lib/comity",
    "comity upgrade check --no-peers --json",
)
@command.command("check", short_help="Try the upgrade on a copy of the ledger.")
@click.option("--peers/--no-peers", default=True, help="Ask peers for their version.")
@home_option("Your node, by its home. Default: here.", exists=False)
def check(peers: bool, home: Path) -> int:
    """Check the settings with the installed version, copy the ledger into a temporary folder, migrate the copy, and
    compute the newest checkpoint of the node's log again. The home is only read, and the node may run. To try a version
    before you switch to it, run this with its own `comity`.

    Exit status: 0 nothing changes, 8 something changes: back up first, 1 a start would fail.
    """
    file = node_file(home)
    with node_installed():
        from comity.node.maintenance.upgrade_check import check_upgrade
    with output().waiting("checking"):
        found = tuple(check_upgrade(file, clock=time.time, ask_peers=peers))
    return show_findings(UpgradeDocument, found)


@examples(
    "comity upgrade fetch --policy release.toml --rebuilt-by 2",
    "comity upgrade fetch comity/comity@0.2.0 --policy release.toml --out /srv/comity-0.2.0",
    "comity upgrade fetch --policy release.toml --rebuilt-by 1 --rebuilder 51aa…",
)
@command.command("fetch", short_help="Fetch the newest release that others rebuilt; install nothing.")
@click.argument("name", metavar="[NAME]", default=RELEASE_NAME)
@click.option("--policy", type=FILE, required=True, help="The policy (TOML); it names the publisher of releases.")
@click.option(
    "--rebuilt-by",
    type=click.IntRange(0, 100),
    default=LEAST_REBUILDS,
    show_default=True,
    help="How many members, without the publisher, must say that they built the same bytes.",
)
@click.option("--rebuilder", "rebuilders", multiple=True, metavar="ID", help="Count only these, members or not.")
@click.option("--out", type=NEW_FOLDER, help="Write into this folder. Default: ./comity-VERSION.")
@click.option("--older", is_flag=True, help="Also a version older than the installed one.")
def fetch(name: str, policy: Path, rebuilt_by: int, rebuilders: tuple[str, ...], out: Path | None, older: bool) -> int:
    """Find the newest release under NAME (or the one NAME@VERSION) in your federation, verify it by the policy, and
    write it into a folder. It is refused if too few others say that they rebuilt it, if its publisher or an issuer
    in refuse_from of the policy warns of it, if it is older than this version, or if it has no wheels for this machine.

    Nothing is installed. The last lines are the command that installs it, which needs no network.

    Exit status 4: one of these refusals, but that of the wheels, which is 5.
    """
    from comity_client.releases import UpgradeOrder, fetch_release, judge_release, this_machine

    printed, api = output(), client()
    judged_by = api.policy(policy)
    order = UpgradeOrder(name, rebuilt_by, frozenset(map(parse_id, rebuilders)), older)
    with printed.waiting("asking"):
        judged = judge_release(api, order, judged_by, this_machine())
    if judged.installed:
        return _show_newest(printed, judged)
    with follow(printed, "fetching") as on_event:
        fetched = fetch_release(api, judged, out or Path(f"comity-{judged.version}"), judged_by, on_event=on_event)
    return _show_fetched(printed, fetched)


def _show_newest(out: Output, judged: JudgedRelease) -> int:
    out.say(f"{judged.title} is the newest release, and is installed")
    _show_warnings(out, judged)
    out.answer(_document(judged))
    return 0


def _show_fetched(out: Output, fetched: FetchedRelease) -> int:
    from comity_client.releases import install_words

    judged, folder = fetched.judged, fetched.folder.absolute()
    out.done(f"{judged.title}: verified, in {folder}")
    out.fact("publisher", printable(judged.publisher))
    out.fact("rebuilt by", printable(", ".join(judged.rebuilt)) or "nobody")
    out.fact("commit", f"{fetched.release.commit}, as its publisher says")
    _show_warnings(out, judged)
    rows = [(each.name, each.installed or "-", each.version) for each in fetched.changes]
    if rows:
        out.table(("distribution", "installed", "release"), rows)
    out.say(f"{plural(len(rows), 'distribution')} would change. Nothing was installed. To install it beside this one:")
    place = f"/opt/comity-{judged.version}"
    install = install_words(f"{place}/bin/python", folder)
    out.say(f"  python3 -m venv {place}")
    out.say(f"  {shlex.join(install)}")
    changes = tuple(ChangeItem(each.name, each.installed or None, each.version) for each in fetched.changes)
    out.answer(_document(judged, fetched.release.commit, folder, changes, install))
    out.hint(f"{place}/bin/comity upgrade check --node HOME   # before you restart the node with it")
    return 0


def _show_warnings(out: Output, judged: JudgedRelease) -> None:
    for text in judged.warnings:
        out.warn(printable(text))
    if judged.withdrawn:
        out.fact("withdrawn", f"by its publisher: {', '.join(judged.withdrawn)}")


def _document(
    judged: JudgedRelease,
    commit: str | None = None,
    folder: Path | None = None,
    changes: tuple[ChangeItem, ...] = (),
    install: tuple[str, ...] = (),
) -> UpgradeFetchDocument:
    return UpgradeFetchDocument(
        title=judged.title,
        artifact=judged.artifact,
        version=judged.version,
        installed=comity.__version__,
        publisher=judged.publisher,
        rebuilt_by=judged.rebuilt,
        warnings=judged.warnings,
        commit=commit,
        folder=folder,
        changes=changes,
        install=install,
    )
