"""`comity pull`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.trust.names import UPSTREAM

from comity_cli import verdicts
from comity_cli.command import Command, connected_client, examples, options_as, output
from comity_cli.document import document
from comity_cli.files import FILE, NEW_FOLDER
from comity_cli.following import follow, show_cache_basis
from comity_cli.nodes import SpelledOption
from comity_cli.output import Output, plural, size

if TYPE_CHECKING:
    from comity_client.cache_basis import CacheBasis
    from comity_client.pull.order import Pulled
    from comity_client.pull.pull import PullPlan


@frozen
class PulledArtifact:
    """An artifact that was pulled, verified by itself. `exit_status` of its verdict."""

    title: str
    artifact: Digest
    folder: Path
    files: int
    bytes: int
    exit_status: int

    @classmethod
    def of(cls, pulled: Pulled) -> PulledArtifact:
        status = pulled.verdict.exit_status
        return cls(pulled.title, pulled.artifact, pulled.folder, pulled.files, pulled.bytes, status)


@document("pull")
class PullDocument:
    """A pull, as `comity pull --json` prints it.

    `by_node`: bytes from each node. `cache`: no node gave it, and the copy here, verified again, is the answer;
    `answered`: nodes answered, and none of them knows it. `bases`: what `--with-base` pulled beside it;
    `bases_without_digest`: the names of those that it left out, because its publisher names no digest.
    """

    title: str
    artifact: Digest
    folder: Path
    files: int
    bytes: int
    by_node: Mapping[str, int]
    reused: int
    alarms: tuple[str, ...]
    cache: CacheBasis | None
    verdict: Annotated[Mapping[str, object], {"$ref": "../verdict.json"}]
    bases: tuple[PulledArtifact, ...]
    bases_without_digest: tuple[str, ...]


@frozen
class PlannedFile:
    """A file of a plan. `here`: it has the right size, and was not hashed."""

    path: str
    size: int
    here: bool


@document("pull-plan")
class PullPlanDocument:
    """What a pull would fetch, as `comity pull --dry-run --json` prints it.

    `free_bytes` of the disk of `folder`. Files that are `here` have the right size, and were not hashed; `here_bytes`
    is their size. `begun_bytes` of the others are there from an interrupted pull, and are not in `missing_bytes`.
    """

    title: str
    artifact: Digest
    folder: Path
    files: tuple[PlannedFile, ...]
    missing_bytes: int
    free_bytes: int
    here_bytes: int
    begun_bytes: int


@frozen
class PullOptions:
    """Where an artifact goes, which files and which others are pulled, and by which policy."""

    to: Path | None
    hub_cache: Path | None
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    dry_run: bool
    with_base: bool
    policy: Path | None


@examples(
    "comity pull swiss-ai/apertus-8b@v1",
    "comity pull swiss-ai/apertus-8b --out ./apertus-8b --include '*.safetensors'",
    "comity pull sha256:9f2c… --policy ministry.toml --json",
    "comity pull inst/tuned@v1 --with-base --out ./tuned",
)
@click.command(cls=Command, name="pull", short_help="Fetch an artifact from all reachable nodes, and verify it.")
@click.argument("reference", metavar="REF")
@click.option("--out", "--to", "to", cls=SpelledOption, type=NEW_FOLDER, help="Write into this plain folder.")
@click.option("--hub-cache", type=NEW_FOLDER, help="Write into this Hugging Face cache. Default: yours.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Only matching files; exit status 8, partial.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Not the matching files; exit status 8, partial.")
@click.option("--dry-run", is_flag=True, help="Show what would be fetched, and where to; write nothing.")
@click.option("--with-base", is_flag=True, help="Also pull the base of an adapter: into DIR-base, or into the cache.")
@click.option("--policy", type=FILE, help="Verify with this policy (TOML).")
@options_as("options", PullOptions)
def command(reference: str, options: PullOptions) -> int:
    """Fetch REF in parallel from all nodes that have it, verify every piece and file, check the evidence by the
    policy, and write it read-only into a Hugging Face cache or a folder. Run it again to continue after an
    interruption. With --with-base, each base that its publisher names by digest is pulled and verified by itself; the
    exit status is the highest one."""
    to, hub_cache, with_base = options.to, options.hub_cache, options.with_base
    if to is not None and hub_cache is not None:
        raise click.UsageError("give --out or --hub-cache, not both")
    if with_base and options.dry_run:
        raise click.UsageError("give --with-base or --dry-run, not both: a dry run is of one artifact")
    out, began = output(), time.monotonic()
    with follow(out, "pulling") as on_event, connected_client() as api:
        chosen = api.policy(options.policy) if options.policy else None
        what: dict[str, Any] = {
            "to": to,
            "hub_cache": hub_cache,
            "include": options.include,
            "exclude": options.exclude,
            "policy": chosen,
        }
        if options.dry_run:
            _show_plan(out, api.plan_pull(reference, **what, on_event=on_event))
            return 0
        pulled = api.pull(reference, **what, on_event=on_event)
        places: dict[str, Any] = {"to": to, "hub_cache": hub_cache, "policy": chosen}
        bases, failure = _all_until_failure(api.pull_bases(pulled, **places, on_event=on_event) if with_base else ())
    sources = sorted(pulled.tally.by_node.items(), key=lambda item: -item[1])
    verdict = pulled.verdict
    if pulled.cache is not None:
        show_cache_basis(out, pulled.cache, "hashed again with its evidence", time.time())
    out.done(f"{plural(pulled.files, 'file')}, {size(pulled.bytes)}, verified in {time.monotonic() - began:.1f} s")
    for name in ("signatures", "transparency", "cosigners"):
        out.fact(name, verdict.row(name).summary)
    if sources:
        out.fact("from", " · ".join(f"{node} {size(count)}" for node, count in sources))
    reused = pulled.here + pulled.tally.reused + pulled.tally.resumed
    verdicts.warn(out, verdict, kinds=("key-compromise",))  # the other kinds were printed as events
    if reused:
        out.fact("not fetched", f"{size(reused)} were here already")
    out.fact("path", str(pulled.folder))
    for base in bases:
        out.done(f"base {base.title}: {plural(base.files, 'file')}, {size(base.bytes)}, verified by itself")
        out.fact("path", str(base.folder))
    for name in pulled.bases.unknown if with_base else ():
        out.warn(f"{name} is its base, and its publisher names no digest of it, so it was not pulled")
    if with_base and not pulled.bases.named and not pulled.bases.unknown:
        out.fact("base", "its publisher names none")
    if failure is not None:
        raise failure
    out.answer(
        PullDocument(
            title=pulled.title,
            artifact=pulled.artifact,
            folder=pulled.folder,
            files=pulled.files,
            bytes=pulled.bytes,
            by_node=pulled.tally.by_node,
            reused=reused,
            alarms=tuple(pulled.alarms),
            cache=pulled.cache,
            verdict=verdict.to_json(),
            bases=tuple(map(PulledArtifact.of, bases)),
            bases_without_digest=pulled.bases.unknown if with_base else (),
        )
    )
    out.hint(_next_step(pulled.title, pulled.folder, to, hub_cache, options.policy))
    return max(verdict.exit_status, *(base.verdict.exit_status for base in bases), 0)


def _all_until_failure(pulls: Iterable[Pulled]) -> tuple[list[Pulled], ComityError | None]:
    """What was pulled, and the error that ended it: what was pulled before it is placed and verified."""
    found: list[Pulled] = []
    try:
        for pulled in pulls:
            found.append(pulled)
    except ComityError as error:
        return found, error
    return found, None


def _next_step(title: str, folder: Path, to: Path | None, hub_cache: Path | None, policy: Path | None = None) -> str:
    """How to load what was pulled into a cache, or how to verify again, by the same policy, what was pulled into the
    folder `to`."""
    repository, _, version = title.removeprefix(UPSTREAM).partition("@")
    if to is not None or not version:
        judged_by = f" --policy {shlex.quote(str(policy))}" if policy else ""
        return f"comity verify {shlex.quote(str(folder))}{judged_by}"
    elsewhere = f", cache_dir={str(hub_cache.absolute())!r}" if hub_cache else ""
    return f"HF_HUB_OFFLINE=1, then from_pretrained({repository!r}, revision={version!r}{elsewhere})"


def _show_plan(out: Output, plan: PullPlan) -> None:
    """Print what a pull would do; nothing was fetched but the manifest and the evidence."""
    rows = [(entry.path, size(entry.size), "here, not checked" if entry.path in plan.here else "to fetch")
            for entry in plan.files]  # fmt: skip
    out.table(("path", "size", "state"), rows, shorten=("path",))
    if plan.here or plan.begun_bytes:
        begun = f", and {size(plan.begun_bytes)} of an interrupted pull" if plan.begun_bytes else ""
        files_here = f"{len(plan.here)} of {plural(len(plan.files), 'file')}"
        out.fact("here already", f"{files_here}, {size(plan.here_bytes)}, not hashed{begun}")
    out.fact("to fetch", f"{size(plan.missing_bytes)}; {size(plan.free_bytes)} free on the disk")
    out.fact("path", str(plan.folder))
    if plan.missing_bytes > plan.free_bytes:
        out.warn(f"the disk lacks {size(plan.missing_bytes - plan.free_bytes)}")
    files = tuple(PlannedFile(entry.path, entry.size, entry.path in plan.here) for entry in plan.files)
    sizes = (plan.missing_bytes, plan.free_bytes, plan.here_bytes, plan.begun_bytes)
    out.answer(PullPlanDocument(plan.title, plan.artifact, plan.folder, files, *sizes))
    lacks = plan.missing_bytes > plan.free_bytes
    out.hint("free space, or name another disk with --out DIR" if lacks else "run the same command without --dry-run")
