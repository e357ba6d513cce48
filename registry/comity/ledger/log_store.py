"""The logs of a ledger: writes (`LogStore`), reads and proofs (`History`), and searches (`EntryIndex`).

    append    own log: adds entries, tiles and the root                               one transaction
    compose   own log: adds entries that a callback makes from the current log        one transaction
    stage     mirrored log: stores entries durably, not yet visible                   one transaction
    advance   mirrored log: adds the last entries; visible iff the signed root fits   one transaction
    set_note  adds a checkpoint over a root that is already committed                 one transaction

`size` only grows, by compare-and-swap in the database. Entries and hashes below it never change, so results of
separate reads are consistent. The first write to a log after the ledger was opened recomputes the root from the right
edge of the tree, so a damaged log is never signed.

The weight of a log is its storage use: the bytes of its lines, of each side object that they name, counted once, and
`LINE_OVERHEAD` for each line. `logs.weight` has the first two, and changes in the same transaction as the entries.
`log_objects` has the counted objects and the entry that names each first. Its rows are charged to the quota of their
log, together with the bytes of the object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from typing import Final

from sqlalchemy import (
    Connection,
    LargeBinary,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    type_coerce,
    update,
)

from comity.content import fault
from comity.ledger import intake, schema, tree
from comity.ledger.database import Database, LogRow, all_logs, find_log
from comity.ledger.intake import KNOWN_PREDICATES, OTHER, insert_facts, statement_facts, statement_indexes
from comity.ledger.stored_lines import line_size
from comity.ledger.tree import (
    SignedHead,
    all_heads,
    corrupt_ledger,
    newest_head,
    root_mismatch,
    signed_head,
    store_head,
)
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Refused, Unavailable
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
"""Lines or entries in one call. Stage more in several steps."""

LINE_OVERHEAD: Final = 1024
"""Bytes that a line costs beside its own: at most 400 for its rows here, and 560 more for those of a verified
publication, measured in SQLite. Without it, short lines would use several times their quota."""

WINDOW: Final = 256
"""Rows that a read holds in memory."""

_ENTRY = schema.entries.c


@dataclass(frozen=True, slots=True)
class NewEntry:
    """A line to write, and the side objects that it names: found before the transaction, which others wait for.

    `parsed` is set for lines of an own log, which are verified already.
    """

    line: bytes
    digest: Digest
    hash: bytes
    parsed: Entry | None
    objects: tuple[SideObject, ...]


def parse_own_entries(lines: Sequence[bytes]) -> list[NewEntry]:
    """Parse lines for an own log, which the node has verified. Raises Malformed if a line is no statement."""
    _check_bounds(lines)
    return [_new_entry(line, parse_entry(line)) for line in lines]


def hash_mirrored_entries(lines: Sequence[bytes]) -> list[NewEntry]:
    """Hash lines for a mirrored log, which may be no statements. Raises Malformed above the size limits."""
    _check_bounds(lines)
    return [_new_entry(line, None) for line in lines]


def write_entries(connection: Connection, log: LogRow, start: int, entries: Sequence[NewEntry]) -> None:
    """Insert `entries` at `start`, which must be free. Entries of an own log are indexed as verified; their
    statements are new in it."""
    if not entries:
        return
    connection.execute(
        insert(schema.entries),
        [
            {"log_id": log.id, "index": at, "line": entry.line, "digest": entry.digest}
            for at, entry in enumerate(entries, start)
        ],
    )
    if log.own:
        parsed = ((at, entry.parsed) for at, entry in enumerate(entries, start))
        facts = (statement_facts(at, entry) for at, entry in parsed if entry is not None)
        insert_facts(connection, log.id, [item for item in facts if item is not None])
        intake.advance_position(connection, log, start, start + len(entries))


def delete_entries(connection: Connection, log: LogRow, start: int) -> None:
    """Delete the staged entries from `start`."""
    connection.execute(delete(schema.entries).where(_ENTRY.log_id == log.id, _ENTRY.index >= start))


def read_entries(connection: Connection, log: LogRow, start: int, end: int) -> Iterator[bytes]:
    """Yields the lines from `start` to before `end`. Raises Untrusted(code="LEDGER-CORRUPT") if a line is missing."""
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
    """Returns the lines at these indexes. Raises Untrusted(code="LEDGER-CORRUPT") if a line is missing."""
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


def _new_entry(line: bytes, entry: Entry | None) -> NewEntry:
    objects = _side_objects(line) if entry is None else entry.statement.objects
    return NewEntry(line, sha256(line), leaf_hash(line), entry, objects)


PAGE: Final = 500
"""Objects in one query."""

_OBJECT = schema.log_objects.c


def entries_weight(connection: Connection, log_id: int, start: int, entries: Sequence[NewEntry]) -> int:
    """Record the side objects of `entries`, which were written at `start`. Returns what they add to `logs.weight`."""
    first: dict[Digest, tuple[int, SideObject]] = {}
    for index, entry in enumerate(entries, start):
        for item in entry.objects:
            first.setdefault(item.digest, (index, item))
    fresh = _unknown(connection, log_id, {digest: item for digest, (_, item) in first.items()})
    if fresh:
        rows = [
            {"log_id": log_id, "digest": item.digest, "index": first[item.digest][0], "size": item.size}
            for item in fresh.values()
        ]
        connection.execute(insert(schema.log_objects), rows)
    return sum(len(entry.line) for entry in entries) + sum(item.size for item in fresh.values())


def freed_weight(connection: Connection, log_id: int, start: int) -> int:
    """Delete the side object rows of entries from `start`, which are deleted next. Returns what `logs.weight`
    loses by it."""
    stored = select(type_coerce(_ENTRY.line, LargeBinary)).where(_ENTRY.log_id == log_id, _ENTRY.index >= start)
    total = sum(line_size(line) for line in connection.execute(stored).yield_per(WINDOW).scalars())
    objects = select(func.coalesce(func.sum(_OBJECT.size), 0))
    later = (_OBJECT.log_id == log_id, _OBJECT.index >= start)
    total += connection.scalar(objects.where(*later)) or 0
    if total:
        connection.execute(delete(schema.log_objects).where(*later))
    return int(total)


def added_weight(connection: Connection, log_id: int, lines: Iterable[bytes]) -> int:
    """Returns the weight that `lines` would add."""
    lines = list(lines)
    named = {item.digest: item for line in lines for item in _side_objects(line)}
    fresh = _unknown(connection, log_id, named)
    return sum(len(line) + LINE_OVERHEAD for line in lines) + sum(item.size for item in fresh.values())


def _side_objects(line: bytes) -> tuple[SideObject, ...]:
    """Returns the side objects that a line names; none if the line is no statement."""
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

_LOG = schema.logs.c
_STATEMENT = schema.statements.c
_SUBJECT = schema.subjects.c


@dataclass(frozen=True, slots=True)
class IndexedEntry:
    """A log line and its position: `index` in the log with the verifier key `vkey`."""

    origin: str
    vkey: str
    index: int
    line: bytes


@dataclass(frozen=True, slots=True)
class EntryPosition:
    """The position of a line."""

    origin: str
    vkey: str
    index: int


@dataclass(frozen=True, slots=True)
class EntryQuery:
    """A search. An entry must match every field that is set.

    Attributes:
        subject: a statement's subject digest.
        predicate: the short name of a predicate (`published`).
        by: id of the identity or node that signed the statement.
        origin: the verifier key or the origin of the log.
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
        """Returns at most `limit` (1 to 1,000) verified entries that match, in order of log and index. `after` is the
        last position of the previous page: the verifier key of a log, and an index.

        With an `origin` in the query, new entries always come after all entries that were returned.
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

    def entries_with(self, log: str, predicates: Sequence[str], start: int, end: int) -> list[tuple[int, bytes]]:
        """Returns index and line of the verified statements of one log that have one of these predicates, in order,
        from `start` to before `end` (at most 8,192 entries).

        Raises Malformed for a longer range, NotFound(code="NO-SUCH-LOG"), and Unavailable(code="LOG-STARTING") if the
        intake has not reached `end`.
        """
        if not 0 <= end - start <= MAX_LINES:
            raise Malformed("bad range of entries", why=f"{end - start} entries, at most {MAX_LINES}")
        with self._database.reading() as connection:
            return entries_with_predicates(connection, find_log(connection, log), predicates, start, end)

    def next_with(self, log: str, predicates: Sequence[str], start: int, end: int) -> int:
        """Returns the index of the first verified statement of a log, from `start` to before `end`, that has one of
        these predicates; `end` if there is none. The cost depends on these statements only. Raises NotFound
        (NO-SUCH-LOG)."""
        with self._database.reading() as connection:
            log_id = find_log(connection, log).id
            # Written so that SQLite takes the index of predicates, not the primary key, which has every statement.
            place = _STATEMENT.index + 0
            inside = (_STATEMENT.log_id == log_id, _STATEMENT.number > 0, place >= start, place < end)
            first = select(func.min(place)).where(*inside)
            found = [connection.scalar(first.where(_STATEMENT.predicate == each)) for each in predicates]
        return min((index for index in found if index is not None), default=end)

    def first_index(self, log: str, statement: Digest) -> int | None:
        """Returns the first index in a log of a verified statement (`Entry.statement_digest`) with any signatures, or
        None. Raises NotFound(code="NO-SUCH-LOG")."""
        with self._database.reading() as connection:
            return first_index(connection, find_log(connection, log), statement)

    def positions(self, line_digest: Digest) -> list[EntryPosition]:
        """Returns the positions of the line with this SHA-256 in all logs, verified or not (at most 1,000)."""
        wanted = (
            select(_LOG.origin, _LOG.vkey, _ENTRY.index)
            .join(schema.entries, _ENTRY.log_id == _LOG.id)
            .where(_ENTRY.digest == line_digest, _ENTRY.index < _LOG.size)
            .order_by(_LOG.id, _ENTRY.index)
            .limit(MAX_FOUND)
        )
        with self._database.reading() as connection:
            return [EntryPosition(*row) for row in connection.execute(wanted)]


def first_index(connection: Connection, log: LogRow, statement: Digest) -> int | None:
    """`EntryIndex.first_index`, inside a transaction."""
    here = (_STATEMENT.log_id == log.id, _STATEMENT.statement == statement)
    return connection.execute(select(_STATEMENT.index).where(*here)).scalar_one_or_none()


def entries_with_predicates(
    connection: Connection, log: LogRow, predicates: Sequence[str], start: int, end: int
) -> list[tuple[int, bytes]]:
    """`EntryIndex.entries_with`, inside a transaction."""
    if intake.position(connection, log) < min(end, log.size):
        raise Unavailable(
            "this log is not indexed yet",
            why=f"the intake has not reached entry {end} of {log.origin}",
            hint="try again later",
            code="LOG-STARTING",
        )
    inside = (_STATEMENT.log_id == log.id, _STATEMENT.index >= start, _STATEMENT.index < min(end, log.size))
    found = (
        select(_ENTRY.index, _ENTRY.line)
        .select_from(schema.statements)
        .join(schema.entries, and_(_ENTRY.log_id == _STATEMENT.log_id, _ENTRY.index == _STATEMENT.index))
        .where(*inside, _STATEMENT.predicate.in_(predicates))
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
            places = places.where(_SUBJECT.kind == (query.predicate if query.predicate in KNOWN_PREDICATES else OTHER))
        found = found.where(tuple_(_STATEMENT.log_id, _STATEMENT.index).in_(places))
    return found


def check_right_edge(connection: Connection, log: LogRow) -> None:
    """Recompute the root from the tree's right edge, the last tile from its entries, and the newest checkpoint's root.

    O(log size) reads. Raises Untrusted(code="LEDGER-CORRUPT"). Not checked: entries and hashes left of the edge.
    """
    if tree.root_at(connection, log, log.size) != log.root:
        raise corrupt_ledger(log.origin, f"the root of its right edge is not the root of size {log.size}")
    if log.size:
        last = tile_at(log.size, 0, (log.size - 1) // WIDTH)
        hashes = map(leaf_hash, read_entries(connection, log, last.index * WIDTH, log.size))
        _check_tile(connection, log, last, list(hashes))
    newest = newest_head(connection, log)
    if newest is not None:
        _check_head(connection, log, newest)


def check_all(connection: Connection, log: LogRow) -> None:
    """Recompute every tile from the entries, and from the tiles the root and every root that the log signed.

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
    check_signed_roots(connection, log)


def check_signed_roots(connection: Connection, log: LogRow) -> None:
    """Compute from the tiles the root of the log and every root that it signed, and verify the signatures. Raises
    Untrusted(code="LEDGER-CORRUPT")."""
    if tree.root_at(connection, log, log.size) != log.root:
        raise corrupt_ledger(log.origin, f"the root of its entries is not the root of size {log.size}")
    for head in all_heads(connection, log):
        _check_head(connection, log, head)


def _check_tile(connection: Connection, log: LogRow, tile: Tile, hashes: list[bytes]) -> None:
    if b"".join(hashes) != tree.read_tile(connection, log, tile):
        raise corrupt_ledger(log.origin, f"tile {tile.path} does not have the hashes of its children")


def _check_head(connection: Connection, log: LogRow, head: SignedHead) -> None:
    try:
        signed = signed_head(log, SignedNote.parse(head.note))
    except ComityError as error:
        raise corrupt_ledger(log.origin, f"its checkpoint of size {head.size} is damaged: {error.what}") from error
    if (signed.size, signed.root) != (head.size, head.root):
        raise corrupt_ledger(log.origin, f"its checkpoint of size {head.size} is not the one that it signed")
    if head.size > log.size or tree.root_at(connection, log, head.size) != head.root:
        raise corrupt_ledger(log.origin, f"the tree does not have the signed root of size {head.size}")


@dataclass(frozen=True, slots=True)
class LogState:
    """The state of a log.

    Attributes:
        vkey: the log's verifier key, in C2SP form; it never changes.
        size, root: of the visible entries.
        staged: the index of the next entry; more than `size` while a mirror catches up.
        note: the newest stored checkpoint, with the signature of the log only. Its size may be less than `size` in an
            own log that was not signed yet.
        weight: storage use in bytes (see the module), staged entries included.
        own: whether this node writes the log.
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
    """An own log inside the transaction that appends to it.

    `entries_with(predicates, start, end)` is `EntryIndex.entries_with` for this log.
    """

    size: int
    entries_with: Callable[[Sequence[str], int, int], list[tuple[int, bytes]]]


class LogStore:
    """Writes to the logs of a ledger. Thread-safe; durable when a call returns.

    Methods take the verifier key of a log, or its origin (`database.find_log`).
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._checked: set[int] = set()
        """Ids of logs whose right edge was checked since the ledger was opened. Used inside write transactions only."""

    def create(self, origin: str, vkey: str, *, own: bool = False) -> LogState:
        """Create an empty log. Idempotent.

        A log is a pair of origin and key: another key with the same origin is another log. Raises Malformed if the key
        has another name than `origin`, and Conflict(code="ORIGIN-TAKEN") if the log exists with another value of `own`.
        """
        key = VerifierKey.parse(vkey)
        if key.name != origin:
            raise Malformed("not the key of this log", why=f"the name of the key is {key.name}, the log is {origin}")
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
                why = "a log is either written by this node or mirrored"
                raise Conflict(f"the log {origin} exists already", why=why, code="ORIGIN-TAKEN")
            return _state(connection, find_log(connection, vkey))

    def all(self) -> list[LogState]:
        """Returns all logs in the order of their creation."""
        with self._database.reading() as connection:
            return [_state(connection, log) for log in all_logs(connection)]

    def keys(self) -> list[VerifierKey]:
        """Returns the keys of all logs in the order of their creation."""
        with self._database.reading() as connection:
            return [log.key for log in all_logs(connection)]

    def get(self, name: str) -> LogState:
        """Raises NotFound(code="NO-SUCH-LOG")."""
        with self._database.reading() as connection:
            return _state(connection, find_log(connection, name))

    def append(self, name: str, lines: Sequence[bytes]) -> list[int]:
        """Add statements to an own log, all or none. Returns the index of each.

        A statement that the log has already, with any signatures, is not added again; its first index is returned.

        Raises Malformed if a line is no statement or there are more than 8,192, Refused for a mirrored log, and
        Untrusted(code="LEDGER-CORRUPT").
        """
        entries = parse_own_entries(lines)
        with self._database.writing("append") as connection:
            log = self._writable(connection, name)
            indexes, fresh = _assign_indexes(connection, log, entries)
            self._append(connection, log, fresh)
            return indexes

    def compose(self, name: str, make: Callable[[OwnLogTransaction], Sequence[bytes]]) -> tuple[int, tuple[bytes, ...]]:
        """Add the statements that `make` returns for the current log. Returns the index of the first, and the lines.

        No entry is added between the reads of `make` and the append. `make` may return no lines. If it raises, the log
        does not change. Raises the errors of `append`, and Conflict(code="LOG-MOVED") if a statement is in the log
        already: it was appended after the caller looked.
        """
        with self._database.writing("compose") as connection:
            log = self._writable(connection, name)
            lines = tuple(make(OwnLogTransaction(log.size, partial(entries_with_predicates, connection, log))))
            entries = parse_own_entries(lines)
            if len(_assign_indexes(connection, log, entries)[1]) != len(entries):
                raise _log_moved(log, "a statement to append is in the log already")
            if entries:
                self._append(connection, log, entries)
            return log.size, lines

    def weight(self, name: str) -> int:
        """Returns the storage use of a log in bytes, staged entries included. Raises NotFound(code="NO-SUCH-LOG")."""
        with self._database.reading() as connection:
            return _weight(find_log(connection, name))

    def added_weight(self, name: str, lines: Sequence[bytes]) -> int:
        """Returns the weight that `lines` would add. Raises NotFound(code="NO-SUCH-LOG")."""
        with self._database.reading() as connection:
            return added_weight(connection, find_log(connection, name).id, lines)

    def stage(self, name: str, start: int, lines: Sequence[bytes]) -> bytes:
        """Store `lines` of a mirrored log from `start`, durable, not yet visible. Replaces staged entries from there.

        Returns the root over all entries up to the last of `lines`. A consistency proof from that root to a root that
        the log signed proves that the entries are correct. Raises Conflict(code="LOG-MOVED") if `start` is not between
        the log's `size` and its `staged`, Malformed above 8,192 lines or 65,535 bytes per line, Refused for an own log,
        and Untrusted(code="LEDGER-CORRUPT").
        """
        entries = hash_mirrored_entries(lines)
        with self._database.writing("stage") as connection:
            log = self._writable(connection, name)
            self._stage(connection, log, start, entries)
            return tree.root_at(connection, log, start + len(entries))

    def staged_leaves(self, name: str, start: int, end: int) -> list[bytes]:
        """Returns the leaf hashes of entries from `start` to before `end`, visible or staged, all in one tile of 256.

        Raises Untrusted(code="LEDGER-CORRUPT"), and Conflict(code="LOG-MOVED") if the log has fewer entries.
        """
        with self._database.reading() as connection:
            log = find_log(connection, name)
            if end > log.staged:
                raise _log_moved(log, f"the next entry is {log.staged}")
            number, first = divmod(start, WIDTH)
            width = end - number * WIDTH
            hashes = tree.read_tile(connection, log, Tile(0, number, width)) if end > start else b""
            return [hashes[at * HASH_SIZE : (at + 1) * HASH_SIZE] for at in range(first, width)]

    def advance(self, name: str, old_size: int, lines: Sequence[bytes], note: SignedNote) -> None:
        """Extend a mirrored log to the size in `note`, which the log signed.

        Args:
            old_size: the index of the first of `lines`: the log's `staged` (its `size` if nothing is staged). Staged
                entries from there are replaced.
            lines: all missing entries up to the size in `note`.

        The root is computed from the entries. If it is not the root in `note`, nothing becomes visible and all staged
        entries are deleted, because none of them is verified: raises Equivocation if a checkpoint of that size is
        stored, else Untrusted(code="ROOT-MISMATCH"). Also raises the errors of `stage`, Malformed and Untrusted for a
        bad note, and Conflict(code="LOG-MOVED") if the size in `note` is not the size of the log with `lines`.
        """
        entries = hash_mirrored_entries(lines)
        with self._database.writing("advance") as connection:
            log = self._writable(connection, name)
            head = signed_head(log, note)
            if head.size != old_size + len(entries):
                raise _log_moved(log, f"the note is for size {head.size}, the lines end at {old_size + len(entries)}")
            self._stage(connection, log, old_size, entries)
            fault.point("ledger.advance.grown")
            root = tree.root_at(connection, log, head.size)
            refusal = None
            if root == head.root:
                store_head(connection, log, head, root)
                self._set_size(connection, log, head.size, root)
            else:
                refusal = root_mismatch(connection, log, head, root)
                self._replace_staged(connection, log, log.size, [])
        if refusal is not None:
            raise refusal

    def set_note(self, name: str, note: SignedNote) -> None:
        """Store, for ever, a checkpoint that the log signed over committed entries. Idempotent.

        Raises Malformed and Untrusted for a bad note, and Conflict(code="LOG-MOVED") for a size above the log's. If the
        signed root is not the root of the entries, raises Equivocation if a checkpoint of that size is stored, else
        Untrusted(code="ROOT-MISMATCH").
        """
        with self._database.writing("note") as connection:
            log = self._writable(connection, name)
            head = signed_head(log, note)
            if head.size > log.size:
                raise _log_moved(log, f"the note is for size {head.size}, the log has {log.size}")
            store_head(connection, log, head, tree.root_at(connection, log, head.size))

    def _writable(self, connection: Connection, name: str) -> LogRow:
        log = find_log(connection, name)
        if log.id not in self._checked:
            check_right_edge(connection, log)
            self._checked.add(log.id)
        return log

    def _append(self, connection: Connection, log: LogRow, entries: Sequence[NewEntry]) -> None:
        if not log.own:
            raise Refused("not this node's log", why=f"{log.origin} is mirrored; only its owner appends to it")
        self._replace_staged(connection, log, log.size, entries)
        fault.point("ledger.append.grown")
        size = log.size + len(entries)
        self._set_size(connection, log, size, tree.root_at(connection, log, size))

    def _stage(self, connection: Connection, log: LogRow, start: int, entries: Sequence[NewEntry]) -> None:
        if log.own:
            raise Refused("this node's own log", why=f"{log.origin} grows by appending, not by mirroring")
        if not log.size <= start <= log.staged:
            raise _log_moved(log, f"entries can be staged from {log.size} to {log.staged}, not at {start}")
        self._replace_staged(connection, log, start, entries)

    def _replace_staged(self, connection: Connection, log: LogRow, start: int, entries: Sequence[NewEntry]) -> None:
        """Replace the staged entries from `start` by `entries`."""
        less = freed_weight(connection, log.id, start)
        delete_entries(connection, log, start)
        write_entries(connection, log, start, entries)
        more = entries_weight(connection, log.id, start, entries)
        tree.extend_tree(connection, log, start, [entry.hash for entry in entries])
        moved = {"staged": start + len(entries), "weight": _LOG.weight - less + more}
        connection.execute(update(schema.logs).where(_LOG.id == log.id).values(moved))

    def _set_size(self, connection: Connection, log: LogRow, size: int, root: bytes) -> None:
        """Make the log visible up to `size`. Only this method changes a root."""
        here = (_LOG.id == log.id, _LOG.size == log.size, _LOG.size <= size, _LOG.staged == size)
        moved = connection.execute(update(schema.logs).where(*here).values(size=size, root=root))
        if moved.rowcount != 1:
            raise _log_moved(log, f"it is no longer at size {log.size}")


def _assign_indexes(
    connection: Connection, log: LogRow, entries: Sequence[NewEntry]
) -> tuple[list[int], list[NewEntry]]:
    """Returns the index of each statement, existing or new, and the new entries without duplicates."""
    statements = [entry.parsed.statement_digest if entry.parsed else entry.digest for entry in entries]
    known = statement_indexes(connection, log.id, list(dict.fromkeys(statements)))
    indexes, fresh = list[int](), list[NewEntry]()
    for statement, entry in zip(statements, entries, strict=True):
        if statement not in known:
            known[statement] = log.size + len(fresh)
            fresh.append(entry)
        indexes.append(known[statement])
    return indexes, fresh


def _state(connection: Connection, log: LogRow) -> LogState:
    newest = newest_head(connection, log)
    note = None if newest is None else newest.note
    return LogState(log.origin, log.vkey, log.size, log.root, log.staged, note, _weight(log), log.own)


def _weight(log: LogRow) -> int:
    return log.weight + log.staged * LINE_OVERHEAD


def _log_moved(log: LogRow, why: str) -> Conflict:
    return Conflict(f"the log {log.origin} has another size", why=why, code="LOG-MOVED")


MAX_READ: Final = 32 * 1024 * 1024
"""Bytes of entries that one call returns; 256 entries of any size fit."""


class History:
    """Reads of committed entries. Thread-safe.

    Every method takes the verifier key of a log, or its origin (`database.find_log`), and raises
    NotFound(code="NO-SUCH-LOG") for an unknown log, NotFound(code="BEYOND-LOG") for an index or size that the log has
    not reached, and Malformed(code="RANGE") for invalid numbers.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def entries(self, name: str, start: int, end: int) -> list[bytes]:
        """Returns the entries from `start` to before `end`.

        Up to 256 entries are always complete. A longer result ends at 32 MiB or 8,192 entries; read the rest with
        another call.
        """
        if not 0 <= start <= end:
            raise Malformed("no such entries", why=f"from {start} to {end}", code="RANGE")
        with self._database.reading() as connection:
            log = _find_log_of_size(connection, name, end)
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

    def entries_at(self, positions: Sequence[tuple[str, int]]) -> list[bytes]:
        """Returns the entries at these positions (log, index), in their order, from one snapshot. At most 256."""
        if len(positions) > WIDTH:
            raise Malformed("no such entries", why=f"{len(positions)} positions, at most {WIDTH}", code="RANGE")
        wanted: dict[str, list[int]] = {}
        for name, index in positions:
            wanted.setdefault(name, []).append(index)
        with self._database.reading() as connection:
            found = {name: _entries_at(connection, name, indexes) for name, indexes in wanted.items()}
        return [found[name][index] for name, index in positions]

    def tile(self, name: str, tile: Tile) -> bytes:
        """Returns a hash tile or an entry bundle in the format of tlog-tiles."""
        first = tile.index * WIDTH
        if tile.level == ENTRIES:
            return encode_entries(self.entries(name, first, first + tile.width))
        with self._database.reading() as connection:
            log = _find_log_of_size(connection, name, first + tile.width << 8 * tile.level)
            return tree.read_tile(connection, log, tile)

    def root(self, name: str, size: int) -> bytes:
        with self._database.reading() as connection:
            return tree.root_at(connection, _find_log_of_size(connection, name, size), size)

    def inclusion(self, name: str, index: int, size: int) -> tuple[bytes, ...]:
        """Returns the RFC 6962 audit path of entry `index` in the tree of `size`. Reads O(log size) tiles."""
        with self._database.reading() as connection:
            log = _find_log_of_size(connection, name, size)
            return merkle.inclusion_proof(index, size, tree.node_reader(connection, log, size))

    def consistency(self, name: str, old: int, new: int) -> tuple[bytes, ...]:
        """Returns the RFC 6962 consistency proof between two sizes. Reads O(log size) tiles."""
        with self._database.reading() as connection:
            log = _find_log_of_size(connection, name, new)
            return merkle.consistency_proof(old, new, tree.node_reader(connection, log, new))

    def node_reader(self, name: str, size: int) -> NodeReader:
        """Returns a reader of complete subtrees of the first `size` entries, usable while the ledger is open."""
        with self._database.reading() as connection:
            log = _find_log_of_size(connection, name, size)

        @lru_cache(maxsize=64)
        def load(tile: Tile) -> bytes:
            with self._database.reading() as connection:
                return tree.read_tile(connection, log, tile)

        return tile_node_reader(size, load)

    def verify_right_edge(self, name: str) -> None:
        """The check at start: O(log size). Raises Untrusted(code="LEDGER-CORRUPT"): do not sign a damaged log."""
        with self._database.reading() as connection:
            check_right_edge(connection, find_log(connection, name))

    def verify_all(self, name: str) -> None:
        """Recompute every hash and signed root from the entries. Raises Untrusted(code="LEDGER-CORRUPT")."""
        with self._database.reading() as connection:
            check_all(connection, find_log(connection, name))


def _entries_at(connection: Connection, name: str, indexes: Sequence[int]) -> dict[int, bytes]:
    if min(indexes) < 0:
        raise Malformed("no such entries", why=f"there is no entry {min(indexes)}", code="RANGE")
    log = _find_log_of_size(connection, name, max(indexes) + 1)
    return pick_entries(connection, log, indexes)


def _find_log_of_size(connection: Connection, name: str, size: int) -> LogRow:
    if size < 0:
        raise Malformed("no such size", why=str(size), code="RANGE")
    log = find_log(connection, name)
    if size > log.size:
        raise NotFound("not in the log", why=f"{log.origin} has {log.size} entries here, not {size}", code="BEYOND-LOG")
    return log
