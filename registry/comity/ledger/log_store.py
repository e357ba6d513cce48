"""The lines of logs: checked and hashed outside of any transaction, then written, cut and read inside of one.

What a log costs to keep: its lines, and the side objects that they name, each once however often it is named.

`logs.weight` is the sum, moved in the transaction that moves the entries; `log_objects` has the objects that are in it,
and where each was named first. A row of it is charged to the quota of its log, with the bytes of the object.


Finding proven statements by subject, predicate and author, over every log that this node holds, in order of log and
index; and every place where a line stands, proven or not.

Whether what lies in the database is still the log that was committed: a quick look at the edge, and all of it.

How logs grow: own ones by appending, mirrored ones by following what the log has signed.

    append   own log: lines -> entries, tiles, root                                  one transaction
    compose  own log: as it stands -> lines made of that, appended                   one transaction
    stage    mirrored log: a step of a long stretch, durable and not yet visible      one transaction
    advance  mirrored log: the last step; visible iff the signed root comes out       one transaction
    set_note a checkpoint over a root that is already committed                       one transaction

Every move of `size` is a compare-and-swap in the database and only ever forward. The first write to a log after the
ledger was opened re-derives its root from the right edge, so that nothing is signed over a damaged one.


What the logs of a ledger say and how it is proven: entries, tiles, roots and proofs. Nothing here is written.

Entries and hashes below a log's size never change, so that answers given at different moments fit together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import Final

from sqlalchemy import Connection, Select, and_, delete, func, insert, or_, select, tuple_, update

from comity.content import fault
from comity.ledger import intake, schema, tree
from comity.ledger.database import Database, LogRow, all_logs, find_log
from comity.ledger.intake import KNOWN, OTHER, fact, write_facts
from comity.ledger.tree import SignedHead, all_heads, corrupt_ledger, keep_head, newest_head, root_mismatch, signed_head
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, Malformed, NotFound, Refused, Unavailable
from comity.trust.statement import Entry, SideObject, parse_entry
from comity.trust.tlog import merkle
from comity.trust.tlog.merkle import (
    EMPTY_ROOT,
    ENTRIES,
    HASH_SIZE,
    MAX_ENTRY,
    WIDTH,
    NodeReader,
    Tile,
    encode_entries,
    leaf_hash,
    tile_at,
    tile_node_reader,
)
from comity.trust.tlog.note import SignedNote, VerifierKey

MAX_LINES: Final = 8192
"""Lines in one call; a longer stretch is staged in steps."""

WINDOW: Final = 256
"""Rows that a read holds at a time."""

_ENTRY = schema.entries.c


@dataclass(frozen=True, slots=True)
class NewEntry:
    """A line on its way into a log. `entry` is what stands as proven at once: lines of this node's own log."""

    line: bytes
    digest: Digest
    hash: bytes
    entry: Entry | None


def own_leaves(lines: Sequence[bytes]) -> list[NewEntry]:
    """Lines for a log of this node, which has proven them: each must be a statement. Raises Malformed."""
    _check_bounds(lines)
    return [_leaf(line, parse_entry(line)) for line in lines]


def foreign_leaves(lines: Sequence[bytes]) -> list[NewEntry]:
    """Lines of another node's log, kept whatever they say. Raises Malformed beyond the bounds only."""
    _check_bounds(lines)
    return [_leaf(line, None) for line in lines]


def write_entries(connection: Connection, log: LogRow, start: int, leaves: Sequence[NewEntry]) -> None:
    """Put `leaves` at `start`, which must be free. Those of an own log stand as proven."""
    if not leaves:
        return
    connection.execute(
        insert(schema.entries),
        [
            {"log_id": log.id, "index": at, "line": leaf.line, "digest": leaf.digest}
            for at, leaf in enumerate(leaves, start)
        ],
    )
    if log.own:
        facts = (fact(at, leaf.entry) for at, leaf in enumerate(leaves, start) if leaf.entry is not None)
        write_facts(connection, log.id, [item for item in facts if item is not None])
        intake.move(connection, log, start, start + len(leaves))


def cut_entries(connection: Connection, log: LogRow, start: int) -> None:
    """Remove what was staged from `start` on."""
    connection.execute(delete(schema.entries).where(_ENTRY.log_id == log.id, _ENTRY.index >= start))


def read_entries(connection: Connection, log: LogRow, start: int, end: int) -> Iterator[bytes]:
    """The lines `start` up to `end`, in order. Raises Untrusted(code="LEDGER-CORRUPT") where one is missing."""
    inside = (_ENTRY.log_id == log.id, _ENTRY.index >= start, _ENTRY.index < end)
    found = connection.execute(select(_ENTRY.index, _ENTRY.line).where(*inside).order_by(_ENTRY.index))
    at = start
    for number, line in found.yield_per(WINDOW):
        if number != at:
            break
        yield line
        at += 1
    if at < end:
        raise corrupt_ledger(log.origin, f"entry {at} is missing")


def pick_entries(connection: Connection, log: LogRow, indexes: Sequence[int]) -> dict[int, bytes]:
    """The lines at these indexes. Raises Untrusted(code="LEDGER-CORRUPT") where one is missing."""
    wanted = select(_ENTRY.index, _ENTRY.line).where(_ENTRY.log_id == log.id, _ENTRY.index.in_(indexes))
    found: dict[int, bytes] = {at: line for at, line in connection.execute(wanted)}  # noqa: C416 (rows are no pairs)
    if missing := set(indexes) - found.keys():
        raise corrupt_ledger(log.origin, f"entry {min(missing)} is missing")
    return found


def _check_bounds(lines: Sequence[bytes]) -> None:
    if len(lines) > MAX_LINES:
        raise Malformed("too many entries", why=f"{len(lines)} in one call, at most {MAX_LINES}")
    longest = max(map(len, lines), default=0)
    if longest > MAX_ENTRY:
        raise Malformed("entry too large", why=f"{longest} bytes, at most {MAX_ENTRY}")


def _leaf(line: bytes, entry: Entry | None) -> NewEntry:
    return NewEntry(line, sha256(line), leaf_hash(line), entry)


PAGE: Final = 500
"""Objects asked about in one statement."""

_OBJECT = schema.log_objects.c


def entries_weight(connection: Connection, log_id: int, start: int, lines: Sequence[bytes]) -> int:
    """Count `lines`, which now stand at `start`; what they cost."""
    first: dict[Digest, tuple[int, SideObject]] = {}
    for index, line in enumerate(lines, start):
        for item in _named(line):
            first.setdefault(item.digest, (index, item))
    fresh = _unknown(connection, log_id, {digest: item for digest, (_, item) in first.items()})
    if fresh:
        rows = [
            {"log_id": log_id, "digest": item.digest, "index": first[item.digest][0], "size": item.size}
            for item in fresh.values()
        ]
        connection.execute(insert(schema.log_objects), rows)
    return sum(map(len, lines)) + sum(item.size for item in fresh.values())


def freed_weight(connection: Connection, log_id: int, start: int) -> int:
    """Take out of the count what stands from `start` on and is about to go; what it had cost."""
    lines = select(func.coalesce(func.sum(func.length(_ENTRY.line)), 0))
    objects = select(func.coalesce(func.sum(_OBJECT.size), 0))
    later = (_OBJECT.log_id == log_id, _OBJECT.index >= start)
    total = connection.scalar(lines.where(_ENTRY.log_id == log_id, _ENTRY.index >= start)) or 0
    total += connection.scalar(objects.where(*later)) or 0
    if total:
        connection.execute(delete(schema.log_objects).where(*later))
    return int(total)


def added_weight(connection: Connection, log_id: int, lines: Iterable[bytes]) -> int:
    """What `lines` would cost more than is counted."""
    lines = list(lines)
    named = {item.digest: item for line in lines for item in _named(line)}
    fresh = _unknown(connection, log_id, named)
    return sum(map(len, lines)) + sum(item.size for item in fresh.values())


def _named(line: bytes) -> tuple[SideObject, ...]:
    """The objects that a line of anybody's log names; it may say anything."""
    try:
        return parse_entry(line).statement.objects
    except Malformed:
        return ()


def _unknown(connection: Connection, log_id: int, named: Mapping[Digest, SideObject]) -> dict[Digest, SideObject]:
    known = set[Digest]()
    for page in _pages(named):
        found = select(_OBJECT.digest).where(_OBJECT.log_id == log_id, _OBJECT.digest.in_(page))
        known.update(connection.scalars(found))
    return {digest: item for digest, item in named.items() if digest not in known}


def _pages(digests: Iterable[Digest]) -> Iterator[list[Digest]]:
    left = iter(digests)
    while page := list(islice(left, PAGE)):
        yield page


MAX_FOUND: Final = 1000
MAX_STRETCH: Final = 8192

_LOG = schema.logs.c
_STATEMENT = schema.statements.c
_SUBJECT = schema.subjects.c


@dataclass(frozen=True, slots=True)
class IndexedEntry:
    """A log line and where it stands: at `index` of the log that `vkey` names for ever."""

    origin: str
    vkey: str
    index: int
    line: bytes


@dataclass(frozen=True, slots=True)
class EntryPosition:
    """Where a line stands."""

    origin: str
    vkey: str
    index: int


@dataclass(frozen=True, slots=True)
class EntryQuery:
    """What to look for; every field that is given must hold.

    Attributes:
        subject: a statement's subject digest.
        predicate: the short name of a predicate (`published`).
        by: id of the identity or node that speaks.
        origin: the log to look in, by its verifier key, or its origin alone.
    """

    subject: Digest | None = None
    predicate: str | None = None
    by: Digest | None = None
    origin: str | None = None


class EntryIndex:
    """Searches over the visible entries of all logs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, query: EntryQuery, *, limit: int = 100, after: tuple[str, int] | None = None) -> list[IndexedEntry]:
        """At most `limit` (1 to 1,000) entries that match, in order of log and index; `after` is the last place had: a
        log's verifier key and an index.

        With an `origin` in the query this is a feed: entries that come later stand after all that were returned.
        Raises Malformed for a bad limit, and NotFound(code="NO-SUCH-LOG").
        """
        if not 1 <= limit <= MAX_FOUND:
            raise Malformed("bad limit", why=f"{limit} is not in 1 to {MAX_FOUND}")
        with self._database.reading() as connection:
            wanted = _matching(query)
            if query.origin is not None:
                wanted = wanted.where(_STATEMENT.log_id == find_log(connection, query.origin).id)
            if after is not None:
                last = find_log(connection, after[0]).id
                later = and_(_STATEMENT.log_id == last, _STATEMENT.index > after[1])
                wanted = wanted.where(or_(_STATEMENT.log_id > last, later))
            rows = connection.execute(wanted.limit(limit))
            return [IndexedEntry(*row) for row in rows]

    def said(self, log: str, predicates: Sequence[str], start: int, end: int) -> list[tuple[int, bytes]]:
        """Index and line of the proven statements of one log, from `start` up to `end` (at most 8,192), that have one
        of these predicates, in order.

        Raises Malformed for a longer stretch, NotFound(code="NO-SUCH-LOG"), and Unavailable(code="LOG-STARTING") where
        the intake has not come as far as `end`: what it has not seen may be anything.
        """
        if not 0 <= end - start <= MAX_STRETCH:
            raise Malformed("bad stretch", why=f"{end - start} entries, at most {MAX_STRETCH}")
        with self._database.reading() as connection:
            return said_between(connection, find_log(connection, log), predicates, start, end)

    def first(self, log: str, statement: Digest) -> int | None:
        """Where a log says this first, by the digest of what is said (`Entry.statement_digest`), whoever signed it;
        None where it is not proven to. Raises NotFound(code="NO-SUCH-LOG")."""
        with self._database.reading() as connection:
            return first_index(connection, find_log(connection, log), statement)

    def places(self, line_digest: Digest) -> list[EntryPosition]:
        """Everywhere that the line with this SHA-256 stands."""
        standing = (
            select(_LOG.origin, _LOG.vkey, _ENTRY.index)
            .join(schema.entries, _ENTRY.log_id == _LOG.id)
            .where(_ENTRY.digest == line_digest, _ENTRY.index < _LOG.size)
            .order_by(_LOG.id, _ENTRY.index)
            .limit(MAX_FOUND)
        )
        with self._database.reading() as connection:
            return [EntryPosition(*row) for row in connection.execute(standing)]


def first_index(connection: Connection, log: LogRow, statement: Digest) -> int | None:
    """What `Index.first` finds, inside a transaction."""
    here = (_STATEMENT.log_id == log.id, _STATEMENT.statement == statement)
    return connection.execute(select(_STATEMENT.index).where(*here)).scalar_one_or_none()


def said_between(
    connection: Connection, log: LogRow, predicates: Sequence[str], start: int, end: int
) -> list[tuple[int, bytes]]:
    """What `Index.said` finds, inside a transaction."""
    if intake.position(connection, log) < min(end, log.size):
        raise Unavailable(
            "this log was not read yet",
            why=f"the intake has not come to entry {end} of {log.origin}",
            hint="try again in a moment",
            code="LOG-STARTING",
        )
    stretch = (_STATEMENT.log_id == log.id, _STATEMENT.index >= start, _STATEMENT.index < min(end, log.size))
    found = (
        select(_ENTRY.index, _ENTRY.line)
        .select_from(schema.statements)
        .join(schema.entries, and_(_ENTRY.log_id == _STATEMENT.log_id, _ENTRY.index == _STATEMENT.index))
        .where(*stretch, _STATEMENT.predicate.in_(predicates))
        .order_by(_STATEMENT.index)
    )
    return [(index, line) for index, line in connection.execute(found)]


def _matching(query: EntryQuery) -> Select[str, str, int, bytes]:
    found = (
        select(_LOG.origin, _LOG.vkey, _ENTRY.index, _ENTRY.line)
        .select_from(schema.statements)
        .join(schema.entries, and_(_ENTRY.log_id == _STATEMENT.log_id, _ENTRY.index == _STATEMENT.index))
        .join(schema.logs, _LOG.id == _STATEMENT.log_id)
        .where(_STATEMENT.index < _LOG.size)
        .order_by(_STATEMENT.log_id, _STATEMENT.index)
    )
    if query.predicate is not None:
        found = found.where(_STATEMENT.predicate == query.predicate)
    if query.by is not None:
        found = found.where(_STATEMENT.by == query.by)
    if query.subject is not None:
        places = select(_SUBJECT.log_id, _SUBJECT.index).where(_SUBJECT.digest == query.subject)
        if query.predicate is not None:
            places = places.where(_SUBJECT.kind == (query.predicate if query.predicate in KNOWN else OTHER))
        found = found.where(tuple_(_STATEMENT.log_id, _STATEMENT.index).in_(places))
    return found


def check_right_edge(connection: Connection, log: LogRow) -> None:
    """Re-derive the root from the tree's right edge, the last tile from its entries, and the newest checkpoint's root.

    O(log size) reads. Raises Untrusted(code="LEDGER-CORRUPT"). Not checked: entries and hashes left of the edge.
    """
    if tree.root_at(connection, log, log.size) != log.root:
        raise corrupt_ledger(log.origin, f"its right edge does not give the root of size {log.size}")
    if log.size:
        last = tile_at(log.size, 0, (log.size - 1) // WIDTH)
        leaves = map(leaf_hash, read_entries(connection, log, last.index * WIDTH, log.size))
        _check_tile(connection, log, last, list(leaves))
    newest = newest_head(connection, log)
    if newest is not None:
        _check_head(connection, log, newest)


def check_all(connection: Connection, log: LogRow) -> None:
    """Re-derive every tile from the entries, and from the tiles the root and every root that the log has signed.

    Reads the whole log, holding one hash in 256 in memory. Raises Untrusted(code="LEDGER-CORRUPT").
    """
    level, count = 0, log.size
    hashes: Iterator[bytes] = map(leaf_hash, read_entries(connection, log, 0, log.size))
    while count:
        above = []
        for number in range(-(-count // WIDTH)):
            row = list(islice(hashes, WIDTH))
            _check_tile(connection, log, Tile(level, number, len(row)), row)
            if len(row) == WIDTH:
                above.append(merkle.root(row))
        level, count, hashes = level + 1, len(above), iter(above)
    if tree.root_at(connection, log, log.size) != log.root:
        raise corrupt_ledger(log.origin, f"its entries do not give the root of size {log.size}")
    for head in all_heads(connection, log):
        _check_head(connection, log, head)


def _check_tile(connection: Connection, log: LogRow, tile: Tile, hashes: list[bytes]) -> None:
    if b"".join(hashes) != tree.read_tile(connection, log, tile):
        raise corrupt_ledger(log.origin, f"{tile.path} does not hold the hashes of what is below it")


def _check_head(connection: Connection, log: LogRow, head: SignedHead) -> None:
    if head.size > log.size or tree.root_at(connection, log, head.size) != head.root:
        raise corrupt_ledger(log.origin, f"it does not contain the checkpoint of size {head.size} that was signed")


@dataclass(frozen=True, slots=True)
class LogState:
    """A log as it stands.

    Attributes:
        vkey: the log's verifier key, in C2SP form; one for ever.
        size, root: of the entries that are visible.
        staged: where the next entry goes; more than `size` while a mirror catches up.
        note: the newest checkpoint that the log has signed and that is kept here, with its signature only; its size
            may be less than `size` in an own log that was not signed yet.
        weight: what it costs to keep, staged entries included: `weights` says how that is counted.
        own: whether this node writes it.
    """

    origin: str
    vkey: str
    size: int
    root: bytes
    staged: int
    note: bytes | None
    weight: int
    own: bool


@dataclass(frozen=True, slots=True)
class OwnLogTransaction:
    """An own log, inside the transaction that appends to it.

    `said(predicates, start, end)` are its entries of these predicates, as `Index.said` gives them.
    """

    size: int
    said: Callable[[Sequence[str], int, int], list[tuple[int, bytes]]]


class LogStore:
    """The logs of a ledger and their growth. Thread-safe; durable when a call returns.

    A log is named by its verifier key, or by its origin alone, as `rows.find_log` says.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sound: set[int] = set()
        """Logs whose right edge was checked since the ledger was opened. Touched inside write transactions only."""

    def create(self, origin: str, vkey: str, *, own: bool = False) -> LogState:
        """Start an empty log; the same again changes nothing.

        A log is the pair of origin and key: another key under the same origin is another log. Raises Malformed where
        the key is not `origin`'s, and Conflict(code="ORIGIN-TAKEN") where an own log would be mirrored, or the reverse.
        """
        key = VerifierKey.parse(vkey)
        if key.name != origin:
            raise Malformed("not this log's key", why=f"the key is called {key.name}, the log {origin}")
        with self._database.writing("create") as connection:
            known = {log.vkey: log for log in all_logs(connection)}.get(vkey)
            if known is None:
                values = {
                    "origin": origin,
                    "vkey": vkey,
                    "own": own,
                    "size": 0,
                    "root": EMPTY_ROOT,
                    "staged": 0,
                    "weight": 0,
                }
                connection.execute(insert(schema.logs).values(values))
            elif known.own != own:
                why = "only one side of a log writes it"
                raise Conflict(f"the log {origin} is taken", why=why, code="ORIGIN-TAKEN")
            return _state(connection, find_log(connection, vkey))

    def all(self) -> list[LogState]:
        """In the order in which they were created."""
        with self._database.reading() as connection:
            return [_state(connection, log) for log in all_logs(connection)]

    def keys(self) -> list[VerifierKey]:
        """The keys of all logs, in the order in which they were created."""
        with self._database.reading() as connection:
            return [log.key for log in all_logs(connection)]

    def get(self, name: str) -> LogState:
        """Raises NotFound(code="NO-SUCH-LOG")."""
        with self._database.reading() as connection:
            return _state(connection, find_log(connection, name))

    def append(self, name: str, lines: Sequence[bytes]) -> list[int]:
        """Add statements to an own log; the index of each. All or none stand when the call returns.

        A statement that stands there already, under whatever signatures, is not added again: its first index is given.

        Raises Malformed where a line is no statement or there are more than 8,192, Refused for a mirrored log, and
        Untrusted(code="LEDGER-CORRUPT").
        """
        leaves = own_leaves(lines)
        with self._database.writing("append") as connection:
            log = self._writable(connection, name)
            indexes, fresh = _placed(connection, log, leaves)
            self._append(connection, log, fresh)
            return indexes

    def compose(self, name: str, make: Callable[[OwnLogTransaction], Sequence[bytes]]) -> tuple[int, tuple[bytes, ...]]:
        """Add the statements that `make` makes of an own log as it stands; the index of the first, and the lines.

        What `make` reads is what they are appended to: nobody else adds anything between. It may make none, and what it
        raises leaves the log as it was. Raises what `append` raises, and Conflict(code="LOG-MOVED") where one of the
        statements stands in the log already: it was logged since the caller looked.
        """
        with self._database.writing("compose") as connection:
            log = self._writable(connection, name)
            lines = tuple(make(OwnLogTransaction(log.size, partial(said_between, connection, log))))
            leaves = own_leaves(lines)
            if len(_placed(connection, log, leaves)[1]) != len(leaves):
                raise _moved(log, "a statement that was to be added stands in it already")
            if leaves:
                self._append(connection, log, leaves)
            return log.size, lines

    def weight(self, name: str) -> int:
        """What a log costs to keep, staged entries included: `weights` says how it is counted. Raises NotFound."""
        with self._database.reading() as connection:
            return find_log(connection, name).weight

    def cost(self, name: str, lines: Sequence[bytes]) -> int:
        """What `lines` would add to that. Raises NotFound(code="NO-SUCH-LOG")."""
        with self._database.reading() as connection:
            return added_weight(connection, find_log(connection, name).id, lines)

    def stage(self, name: str, start: int, lines: Sequence[bytes]) -> bytes:
        """Keep `lines` of a mirrored log at `start` and up, durable but not yet visible.

        Returns the root over all entries up to the last of `lines`: a consistency proof from it to a root that the
        log has signed shows at once whether the step was good. Whatever was staged from `start` on is replaced.
        Raises Conflict(code="LOG-MOVED") where `start` is not between the log's `size` and its `staged`, Malformed
        beyond 8,192 lines or 65,535 bytes a line, Refused for an own log, and Untrusted(code="LEDGER-CORRUPT").
        """
        leaves = foreign_leaves(lines)
        with self._database.writing("stage") as connection:
            log = self._writable(connection, name)
            self._stage(connection, log, start, leaves)
            return tree.root_at(connection, log, start + len(leaves))

    def staged_leaves(self, name: str, start: int, end: int) -> list[bytes]:
        """The leaf hashes of durable entries `start` up to `end`, visible or not, of one stretch of 256.

        Raises Untrusted(code="LEDGER-CORRUPT"), and Conflict(code="LOG-MOVED") where they are not all here.
        """
        with self._database.reading() as connection:
            log = find_log(connection, name)
            if end > log.staged:
                raise _moved(log, f"the next entry is {log.staged}")
            number, first = divmod(start, WIDTH)
            width = end - number * WIDTH
            hashes = tree.read_tile(connection, log, Tile(0, number, width)) if end > start else b""
            return [hashes[at * HASH_SIZE : (at + 1) * HASH_SIZE] for at in range(first, width)]

    def advance(self, name: str, old_size: int, lines: Sequence[bytes], note: SignedNote) -> None:
        """Let a mirrored log grow to what `note`, signed by the log, says.

        Args:
            old_size: where `lines` begin: the log's `staged` (its `size`, if nothing was staged). Whatever was staged
                from there on is replaced.
            lines: all that is missing up to the size in `note`.

        The root is computed from the lines. Where it is not the one in `note`, nothing becomes visible, and all that
        was staged is dropped, since no part of it is known to be good: Equivocation where a checkpoint of that size is
        kept, else Untrusted(code="ROOT-MISMATCH"). Also raises what `stage` raises, Malformed and Untrusted for a bad
        note, and Conflict(code="LOG-MOVED") where `note` is not as large as the lines make the log.
        """
        leaves = foreign_leaves(lines)
        with self._database.writing("advance") as connection:
            log = self._writable(connection, name)
            head = signed_head(log, note)
            if head.size != old_size + len(leaves):
                raise _moved(log, f"the note is for size {head.size}, the lines end at {old_size + len(leaves)}")
            self._stage(connection, log, old_size, leaves)
            fault.point("ledger.advance.grown")
            root = tree.root_at(connection, log, head.size)
            refusal = None
            if root == head.root:
                keep_head(connection, log, head, root)
                self._move(connection, log, head.size, root)
            else:
                refusal = root_mismatch(connection, log, head, root)
                self._put(connection, log, log.size, [])
        if refusal is not None:
            raise refusal

    def set_note(self, name: str, note: SignedNote) -> None:
        """Keep a checkpoint that the log signed over a size that is committed here; idempotent, kept for ever.

        Raises Malformed and Untrusted for a bad note, Conflict(code="LOG-MOVED") for a size beyond the log's, and
        where the log signed another root than its entries give, Equivocation if a checkpoint of that size is kept and
        else Untrusted(code="ROOT-MISMATCH").
        """
        with self._database.writing("note") as connection:
            log = self._writable(connection, name)
            head = signed_head(log, note)
            if head.size > log.size:
                raise _moved(log, f"the note is for size {head.size}, the log has {log.size}")
            keep_head(connection, log, head, tree.root_at(connection, log, head.size))

    def _writable(self, connection: Connection, name: str) -> LogRow:
        log = find_log(connection, name)
        if log.id not in self._sound:
            check_right_edge(connection, log)
            self._sound.add(log.id)
        return log

    def _append(self, connection: Connection, log: LogRow, leaves: Sequence[NewEntry]) -> None:
        if not log.own:
            raise Refused("not this node's log", why=f"{log.origin} is mirrored; its owner alone appends to it")
        self._put(connection, log, log.size, leaves)
        fault.point("ledger.append.grown")
        size = log.size + len(leaves)
        self._move(connection, log, size, tree.root_at(connection, log, size))

    def _stage(self, connection: Connection, log: LogRow, start: int, leaves: Sequence[NewEntry]) -> None:
        if log.own:
            raise Refused("this node's own log", why=f"{log.origin} grows by appending, not by mirroring")
        if not log.size <= start <= log.staged:
            raise _moved(log, f"the next entry is {log.staged}, the first that can be replaced {log.size}, not {start}")
        self._put(connection, log, start, leaves)

    def _put(self, connection: Connection, log: LogRow, start: int, leaves: Sequence[NewEntry]) -> None:
        """Make `leaves` all that is staged from `start` on."""
        less = freed_weight(connection, log.id, start)
        cut_entries(connection, log, start)
        write_entries(connection, log, start, leaves)
        more = entries_weight(connection, log.id, start, [leaf.line for leaf in leaves])
        tree.extend_tree(connection, log, start, [leaf.hash for leaf in leaves])
        moved = {"staged": start + len(leaves), "weight": _LOG.weight - less + more}
        connection.execute(update(schema.logs).where(_LOG.id == log.id).values(moved))

    def _move(self, connection: Connection, log: LogRow, size: int, root: bytes) -> None:
        """Make the log visible up to `size`: the one place where a root moves."""
        here = (_LOG.id == log.id, _LOG.size == log.size, _LOG.size <= size, _LOG.staged == size)
        moved = connection.execute(update(schema.logs).where(*here).values(size=size, root=root))
        if moved.rowcount != 1:
            raise _moved(log, f"it is no longer at size {log.size}")


def _placed(connection: Connection, log: LogRow, leaves: Sequence[NewEntry]) -> tuple[list[int], list[NewEntry]]:
    """The index of each statement, where it stands already or will stand, and those that are new, each once."""
    known: dict[Digest, int] = {}
    indexes, fresh = list[int](), list[NewEntry]()
    for leaf in leaves:
        said = leaf.entry.statement_digest if leaf.entry else leaf.digest
        if said not in known:
            standing = first_index(connection, log, said)
            known[said] = log.size + len(fresh) if standing is None else standing
            fresh += [leaf] if standing is None else []
        indexes.append(known[said])
    return indexes, fresh


def _state(connection: Connection, log: LogRow) -> LogState:
    newest = newest_head(connection, log)
    note = None if newest is None else newest.note
    return LogState(log.origin, log.vkey, log.size, log.root, log.staged, note, log.weight, log.own)


def _moved(log: LogRow, why: str) -> Conflict:
    return Conflict(f"the log {log.origin} stands elsewhere", why=why, code="LOG-MOVED")


MAX_READ: Final = 32 * 1024 * 1024
"""Bytes of entries that one call gathers; 256 entries of any size fit."""


class History:
    """Reads of committed entries. Thread-safe.

    Every method takes the verifier key of a log, or an origin alone (`rows.find_log`), and raises
    NotFound(code="NO-SUCH-LOG") for an unknown one, NotFound(code="BEYOND-LOG") for an index or
    a size that the log has not reached, and Malformed(code="RANGE") for numbers that no log has.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def entries(self, name: str, start: int, end: int) -> list[bytes]:
        """The entries `start` up to `end`, `end` not included.

        Complete for up to 256 entries. A longer answer ends early once it has 32 MiB or 8,192 entries: ask again from
        there.
        """
        if not 0 <= start <= end:
            raise Malformed("no such entries", why=f"from {start} to {end}", code="RANGE")
        with self._database.reading() as connection:
            log = _reaching(connection, name, end)
            lines: list[bytes] = []
            left = MAX_READ
            for line in islice(read_entries(connection, log, start, end), MAX_LINES):
                lines.append(line)
                left -= len(line)
                if left < 0:
                    break
            return lines

    def entry(self, name: str, index: int) -> bytes:
        (line,) = self.entries(name, index, index + 1)
        return line

    def at(self, places: Sequence[tuple[str, int]]) -> list[bytes]:
        """The entries at these places, a log and an index each, in their order: at most 256, in one look."""
        if len(places) > WIDTH:
            raise Malformed("no such entries", why=f"{len(places)} places, at most {WIDTH}", code="RANGE")
        wanted: dict[str, list[int]] = {}
        for name, index in places:
            wanted.setdefault(name, []).append(index)
        with self._database.reading() as connection:
            found = {name: _some(connection, name, indexes) for name, indexes in wanted.items()}
        return [found[name][index] for name, index in places]

    def tile(self, name: str, tile: Tile) -> bytes:
        """The contents of a hash tile or an entry bundle, as tlog-tiles serves them."""
        first = tile.index * WIDTH
        if tile.level == ENTRIES:
            return encode_entries(self.entries(name, first, first + tile.width))
        with self._database.reading() as connection:
            log = _reaching(connection, name, first + tile.width << 8 * tile.level)
            return tree.read_tile(connection, log, tile)

    def root(self, name: str, size: int) -> bytes:
        with self._database.reading() as connection:
            return tree.root_at(connection, _reaching(connection, name, size), size)

    def inclusion(self, name: str, index: int, size: int) -> tuple[bytes, ...]:
        """RFC 6962 audit path of entry `index` in the tree of `size`, from O(log size) tiles."""
        with self._database.reading() as connection:
            log = _reaching(connection, name, size)
            return merkle.inclusion_proof(index, size, tree.node_reader(connection, log, size))

    def consistency(self, name: str, old: int, new: int) -> tuple[bytes, ...]:
        """RFC 6962 consistency proof between two sizes, from O(log size) tiles."""
        with self._database.reading() as connection:
            log = _reaching(connection, name, new)
            return merkle.consistency_proof(old, new, tree.node_reader(connection, log, new))

    def node_reader(self, name: str, size: int) -> NodeReader:
        """Reads complete subtrees of the first `size` entries for as long as the ledger is open."""
        with self._database.reading() as connection:
            log = _reaching(connection, name, size)

        @lru_cache(maxsize=64)
        def load(tile: Tile) -> bytes:
            with self._database.reading() as connection:
                return tree.read_tile(connection, log, tile)

        return tile_node_reader(size, load)

    def verify_right_edge(self, name: str) -> None:
        """The check of start-up: O(log size). Raises Untrusted(code="LEDGER-CORRUPT"): do not sign for this log."""
        with self._database.reading() as connection:
            check_right_edge(connection, find_log(connection, name))

    def verify_all(self, name: str) -> None:
        """Re-derive every hash and signed root from the entries. Raises Untrusted(code="LEDGER-CORRUPT")."""
        with self._database.reading() as connection:
            check_all(connection, find_log(connection, name))


def _some(connection: Connection, name: str, indexes: Sequence[int]) -> dict[int, bytes]:
    if min(indexes) < 0:
        raise Malformed("no such entries", why=f"there is no entry {min(indexes)}", code="RANGE")
    log = _reaching(connection, name, max(indexes) + 1)
    return pick_entries(connection, log, indexes)


def _reaching(connection: Connection, name: str, size: int) -> LogRow:
    if size < 0:
        raise Malformed("no such size", why=str(size), code="RANGE")
    log = find_log(connection, name)
    if size > log.size:
        raise NotFound("not in the log", why=f"{log.origin} has {log.size} entries here, not {size}", code="BEYOND-LOG")
    return log
