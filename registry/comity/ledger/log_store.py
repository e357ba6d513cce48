"""Writes to the logs of a ledger.

    append    own log: adds entries, tiles and the root                               one transaction
    compose   own log: adds entries that a callback makes from the current log        one transaction
    stage     mirrored log: stores entries durably, not yet visible                   one transaction
    advance   mirrored log: adds the last entries; visible iff the signed root fits   one transaction
    set_note  adds a checkpoint over a root that is already committed                 one transaction

`size` only grows, by compare-and-swap in the database. Entries and hashes below it never change, so results of
separate reads are consistent. The first write to a log after the ledger was opened recomputes the root from the right
edge of the tree, so a damaged log is never signed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy import Connection, insert, update

from comity.content import fault
from comity.ledger import schema, tree
from comity.ledger.database import Database, LogRow, all_logs, find_log
from comity.ledger.entry_index import entries_with_predicates
from comity.ledger.entry_rows import (
    LINE_OVERHEAD,
    NewEntry,
    added_weight,
    delete_entries,
    entries_weight,
    freed_weight,
    hash_mirrored_entries,
    parse_own_entries,
    write_entries,
)
from comity.ledger.history import check_right_edge
from comity.ledger.intake import statement_indexes
from comity.ledger.tree import newest_head, root_mismatch, signed_head, store_head
from comity.rules.tiles import WIDTH, Tile
from comity.trust.errors import Conflict, Malformed, Refused
from comity.trust.frozen import frozen
from comity.trust.tlog.merkle import EMPTY_ROOT, HASH_SIZE
from comity.trust.tlog.note import SignedNote, VerifierKey

_LOG = schema.logs.c


@frozen
class LogState:
    """The state of a log.

    Attributes:
        vkey: the log's verifier key, in C2SP form; it never changes.
        size, root: of the visible entries.
        staged: the index of the next entry; more than `size` while a mirror catches up.
        note: the newest stored checkpoint, with the signature of the log only. Its size may be less than `size` in an
            own log that was not signed yet.
        weight: storage use in bytes (see `entry_rows`), staged entries included.
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


@frozen
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

    def heads(self) -> dict[str, tuple[int, bytes]]:
        """Returns the size and the root of each log, by its verifier key: one query, however many logs there are."""
        with self._database.reading() as connection:
            return {log.vkey: (log.size, log.root) for log in all_logs(connection)}

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
