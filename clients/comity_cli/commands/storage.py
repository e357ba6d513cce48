"""`comity storage migrate`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from comity.trust.frozen import frozen

from comity_cli.command import Group, agree, examples, output
from comity_cli.document import document
from comity_cli.node_home import node_file, node_installed, recorded_act
from comity_cli.nodes import home_option
from comity_cli.output import plural, size

if TYPE_CHECKING:
    from comity.node.maintenance.storage_move import MoveEstimate, MoveResult


@frozen
class LedgerItem:
    """A ledger. `rows` of its tables; `entries` whose root was computed again at the new place, 0 before the last
    step."""

    rows: int
    written: int
    entries: int


@frozen
class BlobsItem:
    """Blobs, and what was copied of them now. Sizes in bytes."""

    blobs: int
    size: int
    copied: int
    copied_size: int
    withheld: int


@document("storage-migrate")
class StorageMigrateDocument:
    """What `comity storage migrate --json` did.

    `moved`: the node has the new settings; false where the node runs, and the command is to be repeated when it is
    stopped. `ledger` and `blobs` are null where they stay, or were moved before.
    """

    moved: bool
    ledger: LedgerItem | None
    blobs: BlobsItem | None


@document("storage-estimate")
class StorageEstimateDocument:
    """What `comity storage migrate --dry-run --json` counts.

    `rows` of the ledger, `blobs` and `size` of the store, `missing` of them at the new place; null for what stays.
    `others`: blobs there that the node has not. `free`: bytes there, null if not known. Sizes in bytes.
    """

    rows: int | None
    blobs: int | None
    size: int | None
    missing: int | None
    missing_size: int | None
    others: int | None
    free: int | None


@examples("comity storage migrate /var/lib/comity/new.toml --node /var/lib/comity")
@click.group(cls=Group, name="storage", short_help="Move the ledger and the blobs of your node to another place.")
def command() -> None:
    """Move what your node stores: SQLite to PostgreSQL, a folder to a bucket, and back."""


@examples(
    "comity storage migrate /var/lib/comity/new.toml --node /var/lib/comity --dry-run",
    "comity storage migrate /var/lib/comity/new.toml --node /var/lib/comity",
    "comity storage migrate /var/lib/comity/new.toml --node /var/lib/comity --yes --json",
)
@command.command("migrate", short_help="Move the storage to where other settings say.")
@click.argument("settings", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Count what is to be copied, and copy nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before the last step.")
@home_option("Your node, by its home. Default: here.", exists=False)
def migrate(settings: Path, dry_run: bool, yes: bool, home: Path) -> None:
    """Move the storage of your node to where SETTINGS says: a copy of node.toml in the same home with other values of
    database, password_file, blobs or [storage.s3].

    While the node runs, this copies what it has, and moves nothing. Run the same command again when the node is
    stopped: it copies what is new, compares every row, entry and blob, and makes SETTINGS the node.toml; the old one is
    kept as node.toml.before-move. After an interruption, run the same command again: it goes on.

    The old ledger is marked and never opens again, so that no two processes sign for one log.
    """
    file, out = node_file(home), output()
    with node_installed():
        from comity.node.maintenance.storage_move import StorageMove
    move = StorageMove.read(file, settings)
    if move.is_empty:
        out.done(f"{file} names the places of {settings} already: there is nothing left to move")
        out.answer(StorageMigrateDocument(moved=True, ledger=None, blobs=None))
        return
    if dry_run:
        with out.waiting("counting"):
            found = move.estimate()
        _show_estimate(found)
        return
    agree(f"Move the storage of {home} to where {settings} says?", yes=yes)
    with recorded_act(home, "storage.migrate", str(settings)):
        result = move.run(_step, time.time)
    _show(result, file, f"comity storage migrate {shlex.quote(str(settings))} --node {shlex.quote(str(home))}")


@contextmanager
def _step(what: str, total: int) -> Iterator[Callable[[int], None]]:
    with output().progress(what, total) as bar:
        yield bar.advance


def _show(result: MoveResult, file: Path, again: str) -> None:
    out, ledger, blobs = output(), result.ledger, result.blobs
    if ledger is not None:
        compared = f", and the roots of {plural(ledger.entries, 'entry', 'entries')} computed again"
        out.fact("ledger", f"{plural(ledger.rows, 'row')}, {ledger.written} written{compared if result.moved else ''}")
    if blobs is not None:
        out.fact("blobs", f"{plural(blobs.blobs, 'blob')}, {size(blobs.size)}, {blobs.copied} copied now")
    if blobs is not None and blobs.withheld:
        out.fact("withheld", plural(blobs.withheld, "file"))
    if result.moved:
        out.done(f"the storage is moved; {file} has the new settings")
        out.hint(f"start the node: comity serve --node {shlex.quote(str(file.parent))}")
    else:
        out.done("what the node has now is copied; nothing is moved yet, because it runs")
        out.hint(f"stop the node, then: {again}")
    rows = LedgerItem(ledger.rows, ledger.written, ledger.entries) if ledger else None
    copied = BlobsItem(blobs.blobs, blobs.size, blobs.copied, blobs.copied_size, blobs.withheld) if blobs else None
    out.answer(StorageMigrateDocument(result.moved, rows, copied))


def _show_estimate(found: MoveEstimate) -> None:
    out, blobs = output(), found.blobs
    if found.rows is not None:
        out.fact("ledger", f"{plural(found.rows, 'row')} to copy and compare")
    if blobs is not None:
        missing = f"{blobs.missing} of them to copy, {size(blobs.missing_size)}"
        out.fact("blobs", f"{plural(blobs.blobs, 'blob')}, {size(blobs.size)}; {missing}")
    if found.free is not None:
        out.fact("free", size(found.free))
    if blobs is not None and blobs.others:
        out.warn(f"the new place has {plural(len(blobs.others), 'blob')} that the node has not")
    out.answer(
        StorageEstimateDocument(
            rows=found.rows,
            blobs=blobs.blobs if blobs else None,
            size=blobs.size if blobs else None,
            missing=blobs.missing if blobs else None,
            missing_size=blobs.missing_size if blobs else None,
            others=len(blobs.others) if blobs else None,
            free=found.free,
        )
    )
