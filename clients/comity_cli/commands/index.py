"""`comity index fetch|show|export|import`: the indexes of files of nodes, on this machine."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from comity.content import durable
from comity.trust.encoding import Digest, format_moment, format_time
from comity.trust.errors import NotFound
from comity.trust.frozen import frozen

from comity_cli.command import Group, client, examples, output
from comity_cli.document import document
from comity_cli.files import FILE, NEW_FILE
from comity_cli.nodes import nodes_option
from comity_cli.output import Output, plural, size

if TYPE_CHECKING:
    from comity_client.identify.index_fetch import FetchedIndex
    from comity_client.identify.kept_indexes import DamagedIndex, KeptIndex

MOMENT: Final = "%Y-%m-%d %H:%M"
HOUR, DAY = 3_600, 86_400


@frozen
class IndexItem:
    """An index of files that is here, as its node signed it. `as_of`: by the node's clock. `later` and `unread`: what
    it lacks: records of the node's index, and entries and statements that the node had not read. `logs`: how many the
    node names."""

    node: str
    id: Digest
    as_of: str
    records: int
    bytes: int
    later: int
    unread: int
    logs: int

    @classmethod
    def of(cls, index: KeptIndex) -> IndexItem:
        state = index.state
        counts = (state.records, index.size, state.later, state.unread, len(state.logs))
        return cls(index.node.name, index.node.node.id, format_time(state.time), *counts)


@frozen
class RefusedItem:
    """A damaged index of files. `problem`: which file, why, and what replaces it."""

    node: str
    id: Digest
    problem: str

    @classmethod
    def of(cls, index: DamagedIndex) -> RefusedItem:
        return cls(index.node.name, index.node.node.id, index.problem)


@document("indexes")
class IndexesDocument:
    """The indexes of files that are here, as `comity index show --json` prints them, and `comity index import --json`
    those that it took. `refused`: those that are damaged."""

    indexes: tuple[IndexItem, ...]
    refused: tuple[RefusedItem, ...]

    @classmethod
    def of(cls, found: Iterable[KeptIndex], damaged: Iterable[DamagedIndex] = ()) -> IndexesDocument:
        return cls(tuple(map(IndexItem.of, found)), tuple(map(RefusedItem.of, damaged)))


@frozen
class FetchedItem:
    """What came of a fetch from a node. `index` is what is here now. `replaced`: the node had computed its index again,
    so all of it was fetched. `problem` says why it is not what the node has."""

    node: str
    received: int
    index: IndexItem | None
    replaced: bool
    problem: str

    @classmethod
    def of(cls, each: FetchedIndex) -> FetchedItem:
        index = IndexItem.of(each.now) if each.now else None
        return cls(each.node, each.received, index, each.replaced, each.problem)


@document("index-fetched")
class IndexFetchedDocument:
    """What `comity index fetch --json` fetched."""

    fetched: tuple[FetchedItem, ...]


@document("index-exported")
class IndexExportedDocument:
    """The file that `comity index export --json` wrote. `refused`: those that are damaged, and
    not in it."""

    file: Path
    indexes: tuple[IndexItem, ...]
    refused: tuple[RefusedItem, ...]


@examples("comity index fetch", "comity index show", "comity index export index.bin")
@click.group(cls=Group, name="index", short_help="Keep indexes of files, to identify files without asking nodes.")
def command() -> None:
    """Keep on this machine which artifacts have which files, as nodes say, so that `comity identify --index` asks
    nobody. An index is signed by its node, and names artifacts; it proves nothing."""


@examples("comity index fetch", "comity index fetch --node node-ch.example --node node-sg.example")
@command.command("fetch", short_help="Fetch what is new in the indexes of nodes.")
@nodes_option("A node; repeatable. Default: those whose indexes are here, or three.")
@click.option("--again", is_flag=True, help="Fetch all, and take it even if it is older than what is here.")
def fetch(nodes: tuple[str, ...], again: bool) -> int:
    """Fetch the index of files of each node: at first all of it, later what is new, and all of it where the node has
    computed it again, as after a change of members. Continues after an interruption. Nodes learn that you keep their
    index, and no digest. Exit status: that of the first node that failed."""
    out = output()
    with out.progress("fetching", 0) as progress:
        found = client().fetch_indexes(nodes, again=again, on_bytes=progress.advance)
    for each in found:
        if each.now is not None:
            before = each.before.state.records if each.before and not (again or each.replaced) else 0
            more = f"{plural(each.now.state.records - before, 'new record')}, {size(each.received)} received"
            out.done(f"{each.node}: as of {format_moment(each.now.state.time, MOMENT)} UTC, {more}{_lacks(each.now)}")
        if each.now is not None and each.replaced and not each.problem:
            out.say("  fetched whole: the node computed its index again, as after a change of members")
        if each.problem:
            out.warn(f"{each.node}: {each.problem}")
    out.answer(IndexFetchedDocument(tuple(map(FetchedItem.of, found))))
    if all(each.now for each in found):
        out.hint("comity identify PATH --index")
    return next((each.exit_status for each in found if each.problem), 0)


@examples("comity index show", "comity index show --json")
@command.command("show", short_help="Show the indexes that are here: of whom, and how old.")
def show() -> int:
    """Show the indexes of files on this machine. Their signatures are checked now, their records when they are used.
    Exit status: 0, or that of the first damaged one."""
    out, found = output(), client().file_indexes().all()
    if found.kept or not found.damaged:
        _show(out, found.kept)
    status = _warn(out, found.damaged)
    out.answer(IndexesDocument.of(found.kept, found.damaged))
    if not found.kept:
        out.hint("comity index fetch")
    return status


@examples("comity index export /media/stick/index.bin")
@command.command("export", short_help="Write the indexes that are here to one file.")
@click.argument("file", type=NEW_FILE)
def export(file: Path) -> int:
    """Write all indexes that are here to FILE, for a machine without a network. Each is signed by its node, and was
    compared with that here; one that is damaged is left out. Exit status: 0, or that of the first damaged one."""
    out, found = output(), client().file_indexes().all().checked()
    if not found.nodes:
        raise NotFound(
            "no index of files is here", why="none was fetched", hint="comity index fetch", code="NO-FILE-INDEX"
        )
    if not found.kept:
        raise found.damaged[0].error
    durable.write_pieces(file, (block for index in found.kept for block in index.carried()), mode=0o644)
    out.done(f"{plural(len(found.kept), 'index', 'indexes')}, {size(file.stat().st_size)}: {file}")
    status = _warn(out, found.damaged)
    indexes, refused = tuple(map(IndexItem.of, found.kept)), tuple(map(RefusedItem.of, found.damaged))
    out.answer(IndexExportedDocument(file, indexes, refused))
    out.hint(f"on the other machine: comity index import {shlex.quote(file.name)}")
    return status


@examples("comity index import /media/stick/index.bin")
@command.command("import", short_help="Take the indexes in a file.")
@click.argument("file", type=FILE)
@click.option("--again", is_flag=True, help="Take also what is older than what is here.")
def import_(file: Path, again: bool) -> None:
    """Take the indexes in FILE, which `comity index export` wrote. Each must be signed by a node of a federation that
    you pinned, in all its parts, and not be older than the one that is here."""
    out = output()
    found = client().file_indexes().import_file(file, again=again)
    _show(out, found)
    out.answer(IndexesDocument.of(found))
    out.hint("comity identify PATH --index")


def _show(out: Output, found: Sequence[KeptIndex]) -> None:
    now = time.time()
    rows = [
        (
            each.node.name,
            format_moment(each.state.time, MOMENT),
            _age(now - each.state.time),
            size(each.size),
            _lacks(each).removeprefix("; lacks ") or "nothing",
        )
        for each in found
    ]
    if rows:
        out.table(("index of", "signed (UTC)", "age", "size", "lacks"), rows, shorten=("index of",))
    else:
        out.say("No index of files is here.")


def _warn(out: Output, damaged: Sequence[DamagedIndex]) -> int:
    """Tell which indexes are damaged. Returns the exit status."""
    for each in damaged:
        out.warn(each.problem)
    return damaged[0].error.exit_status if damaged else 0


def _age(seconds: float) -> str:
    return plural(int(seconds // DAY), "day") if seconds >= DAY else plural(max(0, int(seconds // HOUR)), "hour")


def _lacks(index: KeptIndex) -> str:
    state = index.state
    parts = [plural(state.later, "record")] * bool(state.later) + [plural(state.unread, "entry", "entries")] * bool(
        state.unread
    )
    return f"; lacks {' and '.join(parts)}" if parts else ""
