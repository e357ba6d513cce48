"""Which artifacts this node claims to hold, and which it wants and lacks: what its copying keeps across restarts.

Both are computed from verified statements: the holds and withdrawals of this node in its own log, and the publications
in all logs. `damaged` is what this node has found on its disk.

`KeptState` has for each reader and log the number of the last statement that was read, so that a start goes on from
there. Rows and numbers change in one transaction: after a crash both are old or both are new. Beside a number stand the
size and the root that the log had then. If the log here has another root at this size, or fewer statements are
verified here, the rows were computed from another ledger: the reader computes them again. `basis` stands for everything
else on which the rows depend, such as settings; it is compared too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection, case, delete, func, insert, select, update

from comity.ledger import schema, tree
from comity.ledger.database import Database, LogRow, find_log
from comity.ledger.intake import last_number
from comity.trust.encoding import Digest

_KEPT, _LOG = schema.kept_positions.c, schema.logs.c
HOLDS: Final = "holds"
PUBLICATIONS: Final = "publications"
"""The readers whose positions stand beside the rows."""
_CHUNK: Final = 200

_REPLICA, _LACKING = schema.replicas.c, schema.lacking_replicas.c
_STANDS: Final = _REPLICA.held > _REPLICA.withdrawn


@dataclass(frozen=True, slots=True)
class KeptPositions:
    """The number of the last statement that a reader has read of each log (its verifier key). `why`: why kept rows
    cannot be used, empty if they can or if there are none."""

    numbers: Mapping[str, int]
    why: str = ""


class KeptState:
    """The positions of all readers. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, reader: str, basis: Digest) -> KeptPositions:
        """Returns the positions of a reader, checked against the logs. Without numbers, the reader must forget its
        rows and read every log from the beginning."""
        wanted = select(_KEPT.log_id, _KEPT.number, _KEPT.size, _KEPT.root, _KEPT.basis).where(_KEPT.reader == reader)
        numbers: dict[str, int] = {}
        with self._database.reading() as connection:
            last = last_number(connection)
            for row in connection.execute(wanted.order_by(_KEPT.log_id)).all():
                log = _log(connection, row.log_id)
                if row.basis != basis:
                    return KeptPositions({}, "the settings, or the nodes of the federation, have changed")
                if log is None or row.number > last or row.size > log.size:
                    return KeptPositions({}, "the ledger has fewer entries than were read")
                if tree.root_at(connection, log, row.size) != bytes(row.root):
                    return KeptPositions({}, f"{log.origin} has another root at size {row.size} than when it was read")
                numbers[log.vkey] = row.number
        return KeptPositions(numbers)


def write_positions(connection: Connection, reader: str, basis: Digest, numbers: Mapping[str, int]) -> None:
    """Set the positions of a reader in these logs, inside the transaction that writes its rows."""
    for vkey, number in numbers.items():
        log = find_log(connection, vkey)
        here = (_KEPT.reader == reader, _KEPT.log_id == log.id)
        connection.execute(delete(schema.kept_positions).where(*here))
        row = {"reader": reader, "log_id": log.id, "number": number, "size": log.size, "root": log.root, "basis": basis}
        connection.execute(insert(schema.kept_positions).values(row))


def forget_positions(connection: Connection, reader: str) -> None:
    """Forget the positions of a reader, inside the transaction that deletes its rows."""
    connection.execute(delete(schema.kept_positions).where(_KEPT.reader == reader))


def _log(connection: Connection, log_id: int) -> LogRow | None:
    row = connection.execute(select(schema.logs).where(_LOG.id == log_id)).mappings().one_or_none()
    return None if row is None else LogRow(**row)


@dataclass(frozen=True, slots=True)
class OwnCopy:
    """This node's claims about an artifact: the index of its last `hold` and of its last withdrawal in its own log, -1
    for none. `damaged`: a file of a held artifact is missing."""

    artifact: Digest
    held: int = -1
    withdrawn: int = -1
    damaged: bool = False

    @property
    def stands(self) -> bool:
        """Whether the hold was not withdrawn later."""
        return self.held > self.withdrawn


@dataclass(frozen=True, slots=True)
class OwnClaim:
    """A `hold` (or a withdrawal) by this node at `index` of its own log."""

    artifact: Digest
    index: int
    hold: bool


@dataclass(frozen=True, slots=True)
class CopyNumbers:
    """Holds that stand, and how many of these are damaged."""

    standing: int
    damaged: int


@dataclass(frozen=True, slots=True)
class CopyChange:
    """By how much the counts have changed, and the claims about the artifacts concerned after the change."""

    numbers: CopyNumbers
    copies: tuple[OwnCopy, ...]


class ReplicaTable:
    """Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def numbers(self) -> CopyNumbers:
        """Counts all rows: for the start."""
        wanted = select(func.count(), func.coalesce(func.sum(case((_REPLICA.damaged, 1), else_=0)), 0)).where(_STANDS)
        with self._database.reading() as connection:
            return CopyNumbers(*connection.execute(wanted).one())

    def copies(self, artifacts: Iterable[Digest]) -> dict[Digest, OwnCopy]:
        """Returns the claims about those of these artifacts that have any."""
        with self._database.reading() as connection:
            return _copies(connection, artifacts)

    def standing(self, after: Digest | None, limit: int) -> list[Digest]:
        """Returns artifacts with a hold that stands, after `after`, in their order."""
        wanted = select(_REPLICA.artifact).where(_STANDS).order_by(_REPLICA.artifact).limit(limit)
        if after is not None:
            wanted = wanted.where(_REPLICA.artifact > after)
        with self._database.reading() as connection:
            return list(connection.execute(wanted).scalars())

    def add_claims(self, claims: Sequence[OwnClaim], basis: Digest, numbers: Mapping[str, int]) -> CopyChange:
        """Add claims of this node, and move the position."""
        with self._database.writing("holds") as connection:
            before = _copies(connection, {claim.artifact for claim in claims})
            after = dict(before)
            for claim in claims:
                copy = after.get(claim.artifact, OwnCopy(claim.artifact))
                after[claim.artifact] = (
                    replace(copy, held=max(copy.held, claim.index))
                    if claim.hold
                    else replace(copy, withdrawn=max(copy.withdrawn, claim.index), damaged=False)
                )
            _replace(connection, after.values())
            write_positions(connection, HOLDS, basis, numbers)
        return CopyChange(_difference(before.values(), after.values()), tuple(after.values()))

    def set_damaged(self, artifact: Digest, *, damaged: bool) -> CopyChange:
        """Mark a held artifact."""
        with self._database.writing("holds") as connection:
            changed = connection.execute(
                update(schema.replicas)
                .where(_REPLICA.artifact == artifact, _STANDS, _REPLICA.damaged != damaged)
                .values(damaged=damaged)
            ).rowcount
            copies = tuple(_copies(connection, [artifact]).values())
        return CopyChange(CopyNumbers(0, changed if damaged else -changed), copies)

    def forget_holds(self) -> None:
        """Delete the claims and their position: all are read again."""
        with self._database.writing("holds") as connection:
            connection.execute(delete(schema.replicas))
            forget_positions(connection, HOLDS)

    def lacking(self, after: Digest | None, limit: int) -> list[Digest]:
        """Returns wanted artifacts that were not complete, after `after`, in their order."""
        wanted = select(_LACKING.artifact).where(_LACKING.wanted).order_by(_LACKING.artifact).limit(limit)
        if after is not None:
            wanted = wanted.where(_LACKING.artifact > after)
        with self._database.reading() as connection:
            return list(connection.execute(wanted).scalars())

    def unlisted(self) -> set[Digest]:
        """Returns the published artifacts that the settings do not name, as far as they were kept."""
        with self._database.reading() as connection:
            return set(connection.execute(select(_LACKING.artifact).where(~_LACKING.wanted)).scalars())

    def publications_read(
        self, wanted: Collection[Digest], unlisted: Collection[Digest], basis: Digest, numbers: Mapping[str, int]
    ) -> None:
        """Keep what was read from publications, and move the positions."""
        rows = dict.fromkeys(unlisted, False) | dict.fromkeys(wanted, True)
        with self._database.writing("publications") as connection:
            _delete_lacking(connection, list(rows))
            if rows:
                values = [{"artifact": artifact, "wanted": is_wanted} for artifact, is_wanted in rows.items()]
                connection.execute(insert(schema.lacking_replicas), values)
            write_positions(connection, PUBLICATIONS, basis, numbers)

    def completed(self, artifact: Digest) -> None:
        """An artifact is complete."""
        with self._database.writing("publications") as connection:
            _delete_lacking(connection, [artifact])

    def forget_publications(self) -> None:
        """Delete what was read from publications, and the positions: all are read again."""
        with self._database.writing("publications") as connection:
            connection.execute(delete(schema.lacking_replicas))
            connection.execute(delete(schema.waiting_copies))
            connection.execute(update(schema.mirror_charges).values(waits=False))
            forget_positions(connection, PUBLICATIONS)


def _copies(connection: Connection, artifacts: Iterable[Digest]) -> dict[Digest, OwnCopy]:
    found: dict[Digest, OwnCopy] = {}
    for some in _chunks(list(artifacts)):
        rows = connection.execute(select(schema.replicas).where(_REPLICA.artifact.in_(some)))
        found |= {row.artifact: OwnCopy(row.artifact, row.held, row.withdrawn, bool(row.damaged)) for row in rows}
    return found


def _replace(connection: Connection, copies: Collection[OwnCopy]) -> None:
    for some in _chunks([copy.artifact for copy in copies]):
        connection.execute(delete(schema.replicas).where(_REPLICA.artifact.in_(some)))
    if copies:
        rows = [
            {"artifact": copy.artifact, "held": copy.held, "withdrawn": copy.withdrawn, "damaged": copy.damaged}
            for copy in copies
        ]
        connection.execute(insert(schema.replicas), rows)


def _difference(before: Iterable[OwnCopy], after: Iterable[OwnCopy]) -> CopyNumbers:
    def counted(copies: Iterable[OwnCopy]) -> tuple[int, int]:
        standing = [copy for copy in copies if copy.stands]
        return len(standing), sum(copy.damaged for copy in standing)

    (stood, were), (stand, are) = counted(before), counted(after)
    return CopyNumbers(stand - stood, are - were)


def _delete_lacking(connection: Connection, artifacts: Sequence[Digest]) -> None:
    for some in _chunks(artifacts):
        connection.execute(delete(schema.lacking_replicas).where(_LACKING.artifact.in_(some)))


def _chunks(items: Sequence[Digest]) -> Iterator[Sequence[Digest]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))
