"""How logs grow: own ones by appending, mirrored ones by following what the log has signed.

    append   own log: lines -> entries, tiles, root                                  one transaction
    compose  own log: as it stands -> lines made of that, appended                   one transaction
    stage    mirrored log: a step of a long stretch, durable and not yet visible      one transaction
    advance  mirrored log: the last step; visible iff the signed root comes out       one transaction
    set_note a checkpoint over a root that is already committed                       one transaction

Every move of `size` is a compare-and-swap in the database and only ever forward. The first write to a log after the
ledger was opened re-derives its root from the right edge, so that nothing is signed over a damaged one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, insert, update

from comity.content import fault
from comity.ledger import checkpoints, entries, index, schema, tree, weights
from comity.ledger.check import check_right_edge
from comity.ledger.checkpoints import signed_head
from comity.ledger.database import Database
from comity.ledger.entries import Leaf
from comity.ledger.rows import LogRow, all_logs, find_log
from comity.trust.digest import Digest
from comity.trust.errors import Conflict, Malformed, Refused
from comity.trust.tlog.merkle import EMPTY_ROOT, HASH_SIZE
from comity.trust.tlog.note import SignedNote, VerifierKey
from comity.trust.tlog.tiles import WIDTH, Tile

_LOG = schema.logs.c


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
class Standing:
    """An own log, inside the transaction that appends to it.

    `said(predicates, start, end)` are its entries of these predicates, as `Index.said` gives them.
    """

    size: int
    said: Callable[[Sequence[str], int, int], list[tuple[int, bytes]]]


class Logs:
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
        leaves = entries.own_leaves(lines)
        with self._database.writing("append") as connection:
            log = self._writable(connection, name)
            indexes, fresh = _placed(connection, log, leaves)
            self._append(connection, log, fresh)
            return indexes

    def compose(self, name: str, make: Callable[[Standing], Sequence[bytes]]) -> tuple[int, tuple[bytes, ...]]:
        """Add the statements that `make` makes of an own log as it stands; the index of the first, and the lines.

        What `make` reads is what they are appended to: nobody else adds anything between. It may make none, and what it
        raises leaves the log as it was. Raises what `append` raises, and Conflict(code="LOG-MOVED") where one of the
        statements stands in the log already: it was logged since the caller looked.
        """
        with self._database.writing("compose") as connection:
            log = self._writable(connection, name)
            lines = tuple(make(Standing(log.size, partial(index.said, connection, log))))
            leaves = entries.own_leaves(lines)
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
            return weights.cost(connection, find_log(connection, name).id, lines)

    def stage(self, name: str, start: int, lines: Sequence[bytes]) -> bytes:
        """Keep `lines` of a mirrored log at `start` and up, durable but not yet visible.

        Returns the root over all entries up to the last of `lines`: a consistency proof from it to a root that the
        log has signed shows at once whether the step was good. Whatever was staged from `start` on is replaced.
        Raises Conflict(code="LOG-MOVED") where `start` is not between the log's `size` and its `staged`, Malformed
        beyond 8,192 lines or 65,535 bytes a line, Refused for an own log, and Untrusted(code="LEDGER-CORRUPT").
        """
        leaves = entries.foreign_leaves(lines)
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
        leaves = entries.foreign_leaves(lines)
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
                checkpoints.keep(connection, log, head, root)
                self._move(connection, log, head.size, root)
            else:
                refusal = checkpoints.mismatch(connection, log, head, root)
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
            checkpoints.keep(connection, log, head, tree.root_at(connection, log, head.size))

    def _writable(self, connection: Connection, name: str) -> LogRow:
        log = find_log(connection, name)
        if log.id not in self._sound:
            check_right_edge(connection, log)
            self._sound.add(log.id)
        return log

    def _append(self, connection: Connection, log: LogRow, leaves: Sequence[Leaf]) -> None:
        if not log.own:
            raise Refused("not this node's log", why=f"{log.origin} is mirrored; its owner alone appends to it")
        self._put(connection, log, log.size, leaves)
        fault.point("ledger.append.grown")
        size = log.size + len(leaves)
        self._move(connection, log, size, tree.root_at(connection, log, size))

    def _stage(self, connection: Connection, log: LogRow, start: int, leaves: Sequence[Leaf]) -> None:
        if log.own:
            raise Refused("this node's own log", why=f"{log.origin} grows by appending, not by mirroring")
        if not log.size <= start <= log.staged:
            raise _moved(log, f"the next entry is {log.staged}, the first that can be replaced {log.size}, not {start}")
        self._put(connection, log, start, leaves)

    def _put(self, connection: Connection, log: LogRow, start: int, leaves: Sequence[Leaf]) -> None:
        """Make `leaves` all that is staged from `start` on."""
        less = weights.freed(connection, log.id, start)
        entries.cut(connection, log, start)
        entries.write(connection, log, start, leaves)
        more = weights.added(connection, log.id, start, [leaf.line for leaf in leaves])
        tree.extend(connection, log, start, [leaf.hash for leaf in leaves])
        moved = {"staged": start + len(leaves), "weight": _LOG.weight - less + more}
        connection.execute(update(schema.logs).where(_LOG.id == log.id).values(moved))

    def _move(self, connection: Connection, log: LogRow, size: int, root: bytes) -> None:
        """Make the log visible up to `size`: the one place where a root moves."""
        here = (_LOG.id == log.id, _LOG.size == log.size, _LOG.size <= size, _LOG.staged == size)
        moved = connection.execute(update(schema.logs).where(*here).values(size=size, root=root))
        if moved.rowcount != 1:
            raise _moved(log, f"it is no longer at size {log.size}")


def _placed(connection: Connection, log: LogRow, leaves: Sequence[Leaf]) -> tuple[list[int], list[Leaf]]:
    """The index of each statement, where it stands already or will stand, and those that are new, each once."""
    known: dict[Digest, int] = {}
    indexes, fresh = list[int](), list[Leaf]()
    for leaf in leaves:
        said = leaf.entry.statement_digest if leaf.entry else leaf.digest
        if said not in known:
            standing = index.first(connection, log, said)
            known[said] = log.size + len(fresh) if standing is None else standing
            fresh += [leaf] if standing is None else []
        indexes.append(known[said])
    return indexes, fresh


def _state(connection: Connection, log: LogRow) -> LogState:
    newest = checkpoints.newest(connection, log)
    note = None if newest is None else newest.note
    return LogState(log.origin, log.vkey, log.size, log.root, log.staged, note, log.weight, log.own)


def _moved(log: LogRow, why: str) -> Conflict:
    return Conflict(f"the log {log.origin} stands elsewhere", why=why, code="LOG-MOVED")
