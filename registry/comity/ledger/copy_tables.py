"""Tables of copies: what this node claims to hold, what it wants and lacks, pinned artifacts, those that wait for a
rule or for room, and charges to quotas.

What a node holds, and what it wants and lacks, is computed from verified statements: the holds and withdrawals of this
node in its own log, and the publications in all logs. `damaged` is what this node has found on its disk.

`ReaderPositions` has for each reader and log the number of the last statement that was read, so that a start goes on
from there. Rows and numbers change in one transaction: after a crash both are old or both are new. Beside a number
stand the size and the root that the log had then. If the log here has another root at this size, or fewer statements
are verified here, the rows were computed from another ledger: the reader computes them again. `basis` stands for
everything else on which the rows depend, such as settings; it is compared too.

`ProvenTimes` tells how long statements are known to this node. It has a mark about each hour: up to which number
statements were verified then. So an age costs no row for a statement, and nobody can claim another. What was verified
before the first mark is as old as that mark.

`MirrorCharges` has what each copied artifact is charged to the quotas of mirror rules and to the member that publishes
it, and which artifacts wait for room. The marks of `CHARGES` say that everything held is charged.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Final

from sqlalchemy import Connection, and_, case, delete, func, insert, select, update

from comity.ledger import schema, tree
from comity.ledger.database import Database, LogRow, find_log
from comity.ledger.intake import last_number
from comity.rules.artifact_pins import MAX_WANTED, Pin
from comity.rules.copy_counts import CopyPolicy
from comity.trust.encoding import Digest
from comity.trust.errors import OutOfSpace
from comity.trust.frozen import frozen
from comity.trust.statement_kinds import PUBLICATION_PREDICATES

_PIN, _WAITING, _TIMES, _CHARGE = schema.pins.c, schema.waiting_copies.c, schema.proven_times.c, schema.mirror_charges.c
_SUBJECT, _STATEMENT = schema.subjects.c, schema.statements.c
_LACKING, _REPLICA = schema.lacking_replicas.c, schema.replicas.c
_CHUNK: Final = 200


_FIRST_NAMED: Final = (
    select(_SUBJECT.digest, func.min(_STATEMENT.number))
    .join_from(
        schema.subjects,
        schema.statements,
        and_(_STATEMENT.log_id == _SUBJECT.log_id, _STATEMENT.index == _SUBJECT.index),
    )
    .where(_SUBJECT.kind.in_(PUBLICATION_PREDICATES), _SUBJECT.turn == 0)
    .group_by(_SUBJECT.digest)
)
"""Of each log only the oldest row of an artifact is read."""


@frozen
class VerifiedTimes:
    """When statements were verified, by their numbers: the marks of `ProvenTimes`, and the present time."""

    marks: tuple[tuple[int, int], ...]
    now: int

    def at(self, number: int) -> int:
        """As `ProvenTimes.verified_at`, of one statement."""
        place = bisect_left(self.marks, number, key=itemgetter(0))
        return self.marks[place][1] if place < len(self.marks) else self.now


class ProvenTimes:
    """Thread-safe; durable when a call returns.

    Args:
        clock: POSIX seconds.
    """

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._marks: tuple[tuple[int, int], ...] = ()
        """Those that were read: none is ever changed, and there is one more about each hour."""

    def mark(self, number: int, time: int) -> None:
        """Every statement up to `number` is verified at `time`, in POSIX seconds. A number is marked once."""
        with self._database.writing("times") as connection:
            last = connection.execute(select(func.max(_TIMES.number))).scalar()
            if last is None or last < number:
                connection.execute(insert(schema.proven_times).values(number=number, time=time))

    def all(self) -> list[tuple[int, int]]:
        """Returns each mark, a number and its time, in their order."""
        return list(self._read())

    def _read(self) -> tuple[tuple[int, int], ...]:
        known = self._marks
        later = select(_TIMES.number, _TIMES.time).where(_TIMES.number > (known[-1][0] if known else -1))
        with self._database.reading() as connection:
            rows = connection.execute(later.order_by(_TIMES.number)).all()
        if rows:
            self._marks = known = (*known, *((row.number, row.time) for row in rows))
        return known

    def times(self) -> VerifiedTimes:
        """Returns what answers `verified_at` for any number of statements, without a further look at the database."""
        return VerifiedTimes(self._read(), int(self._clock()))

    def verified_at(self, numbers: Iterable[int]) -> dict[int, int]:
        """Returns when this node had verified the statements with these numbers, by its own clock: in POSIX seconds, at
        most an hour late; the present time for what no mark covers yet."""
        times = self.times()
        return {number: times.at(number) for number in set(numbers)}

    def known_since(self, artifacts: Sequence[Digest]) -> dict[Digest, int]:
        """Returns when this node had verified the first publication or observation of each of these artifacts, by any
        author, as `verified_at`; of those that have one."""
        first: dict[Digest, int] = {}
        with self._database.reading() as connection:
            for start in range(0, len(artifacts), _CHUNK):
                some = _FIRST_NAMED.where(_SUBJECT.digest.in_(artifacts[start : start + _CHUNK]))
                first |= {digest: number for digest, number in connection.execute(some)}  # noqa: C416  # rows
        times = self.verified_at(first.values())
        return {artifact: times[number] for artifact, number in first.items()}


class WaitingCopies:
    """Artifacts that are copied from a POSIX second on. Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, due: Mapping[Digest, int]) -> None:
        """Add artifacts, or change when they are due."""
        with self._database.writing("waits") as connection:
            artifacts = list(due)
            for start in range(0, len(artifacts), _CHUNK):
                some = artifacts[start : start + _CHUNK]
                connection.execute(delete(schema.waiting_copies).where(_WAITING.artifact.in_(some)))
                rows = [{"artifact": artifact, "due": due[artifact]} for artifact in some]
                connection.execute(insert(schema.waiting_copies), rows)

    def due(self, now: int, limit: int) -> list[Digest]:
        """Returns artifacts that are due, those due first."""
        wanted = select(_WAITING.artifact).where(_WAITING.due <= now).order_by(_WAITING.due, _WAITING.artifact)
        with self._database.reading() as connection:
            return list(connection.execute(wanted.limit(limit)).scalars())

    def move_to_lacking(self, artifacts: Collection[Digest]) -> None:
        """These artifacts, at most a few hundred, wait no longer: they are wanted and not complete."""
        with self._database.writing("waits") as connection:
            connection.execute(delete(schema.waiting_copies).where(_WAITING.artifact.in_(artifacts)))
            connection.execute(delete(schema.lacking_replicas).where(_LACKING.artifact.in_(artifacts)))
            rows = [{"artifact": artifact, "wanted": True} for artifact in artifacts]
            connection.execute(insert(schema.lacking_replicas), rows)

    def count(self) -> int:
        with self._database.reading() as connection:
            return connection.execute(select(func.count()).select_from(schema.waiting_copies)).scalar_one()


class PinTable:
    """Thread-safe; durable when a call returns. At most MAX_WANTED pins."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Pin]:
        """Returns all pins, in the order of their artifacts."""
        with self._database.reading() as connection:
            rows = connection.execute(select(schema.pins).order_by(_PIN.artifact)).all()
        return [Pin(row.artifact, row.name, CopyPolicy(row.copies, row.jurisdictions, row.reaches)) for row in rows]

    def has(self, artifact: Digest) -> bool:
        with self._database.reading() as connection:
            return connection.execute(select(_PIN.artifact).where(_PIN.artifact == artifact)).first() is not None

    def put(self, pin: Pin) -> None:
        """Add a pin, or change its policy. Raises OutOfSpace (PINS)."""
        policy = pin.policy
        values = {
            "artifact": pin.artifact,
            "name": pin.name,
            "copies": policy.min_copies,
            "jurisdictions": policy.min_jurisdictions,
            "reaches": policy.min_reaches,
        }
        with self._database.writing("pins") as connection:
            connection.execute(delete(schema.pins).where(_PIN.artifact == pin.artifact))
            if (connection.scalar(select(func.count()).select_from(schema.pins)) or 0) >= MAX_WANTED:
                why = f"a node keeps at most {MAX_WANTED} pins"
                raise OutOfSpace("too many artifacts are pinned", why=why, hint="end another pin first", code="PINS")
            connection.execute(insert(schema.pins).values(values))

    def remove(self, artifact: Digest) -> bool:
        """Returns whether it was pinned."""
        with self._database.writing("pins") as connection:
            return connection.execute(delete(schema.pins).where(_PIN.artifact == artifact)).rowcount > 0


@frozen
class MirrorCharge:
    """Bytes charged for an artifact to a rule; `size` is that of all its files. One that waits is charged only what of
    it is stored.

    `new` bytes of its files were not stored when it was first copied: these are charged to `member`, as far as they are
    charged to the rule. `member` is empty for what the operator wants.
    """

    artifact: Digest
    rule: str
    name: str
    size: int
    charged: int
    waits: bool
    member: str
    new: int

    @property
    def space(self) -> int:
        """Bytes of the disk that are charged to the member."""
        return max(0, self.charged - (self.size - self.new))


class MirrorCharges:
    """Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def used(self) -> dict[str, int]:
        """Returns the bytes charged to each rule. Reads all rows: for the start."""
        wanted = select(_CHARGE.rule, func.sum(_CHARGE.charged)).where(_CHARGE.charged > 0).group_by(_CHARGE.rule)
        with self._database.reading() as connection:
            return {rule: int(used) for rule, used in connection.execute(wanted)}

    def spaces(self) -> dict[str, int]:
        """Returns the bytes of the disk charged to each member. Reads all rows: for the start."""
        space = _CHARGE.charged - _CHARGE.size + _CHARGE.new
        member = _CHARGE.member.concat("")  # no index: it would be left for the row of each artifact
        wanted = select(member, func.sum(space)).where(space > 0).group_by(member)
        with self._database.reading() as connection:
            return {member: int(used) for member, used in connection.execute(wanted)}

    def largest(self, member: str) -> MirrorCharge | None:
        """Returns the artifact for which a member uses most of the disk."""
        wanted = select(schema.mirror_charges).where(_CHARGE.member == member, ~_CHARGE.waits)
        with self._database.reading() as connection:
            row = connection.execute(wanted.order_by(_CHARGE.new.desc()).limit(1)).first()
        return None if row is None else MirrorCharge(*row)

    def find(self, artifacts: Sequence[Digest]) -> dict[Digest, MirrorCharge]:
        """Returns those of these artifacts that are charged or wait."""
        found: dict[Digest, MirrorCharge] = {}
        with self._database.reading() as connection:
            for start in range(0, len(artifacts), _CHUNK):
                some = select(schema.mirror_charges).where(_CHARGE.artifact.in_(artifacts[start : start + _CHUNK]))
                found |= {row.artifact: MirrorCharge(*row) for row in connection.execute(some)}
        return found

    def put(self, charge: MirrorCharge) -> None:
        """Add or replace a charge. An artifact that waits is no longer among those to copy at the next start."""
        with self._database.writing("charges") as connection:
            _put(connection, charge)
            if charge.waits:
                connection.execute(delete(schema.lacking_replicas).where(_LACKING.artifact == charge.artifact))

    def waiting(self, limit: int) -> list[MirrorCharge]:
        """Returns artifacts that wait for room."""
        wanted = select(schema.mirror_charges).where(_CHARGE.waits)
        wanted = wanted.order_by(_CHARGE.member, _CHARGE.rule, _CHARGE.new).limit(limit)
        with self._database.reading() as connection:
            return [MirrorCharge(*row) for row in connection.execute(wanted)]

    def waiting_counts(self) -> dict[tuple[str, str], int]:
        """Returns how many artifacts wait, by rule and member."""
        wanted = select(_CHARGE.rule, _CHARGE.member, func.count()).where(_CHARGE.waits)
        with self._database.reading() as connection:
            rows = connection.execute(wanted.group_by(_CHARGE.member, _CHARGE.rule))
            return {(rule, member): count for rule, member, count in rows}

    def fitting(self, rule: str, member: str, room: int, space: int, limit: int) -> list[MirrorCharge]:
        """Returns waiting artifacts of a rule and a member that fit into so many bytes of the rule and of the disk, the
        smallest first."""
        wanted = select(schema.mirror_charges).where(
            _CHARGE.waits, _CHARGE.member == member, _CHARGE.new <= space, _CHARGE.rule == rule, _CHARGE.size <= room
        )
        with self._database.reading() as connection:
            rows = connection.execute(wanted.order_by(_CHARGE.new).limit(limit))
            return [MirrorCharge(*row) for row in rows]

    def counted(self, basis: Digest) -> bool:
        """Whether everything held was charged under this basis."""
        wanted = select(_KEPT.basis).where(_KEPT.reader == CHARGES).limit(1)
        with self._database.reading() as connection:
            return bool(connection.execute(wanted).scalar() == basis)

    def set_counted(self, log: str, basis: Digest) -> None:
        """Everything held is charged. `log` is the own log."""
        with self._database.writing("charges") as connection:
            write_positions(connection, CHARGES, basis, {log: 0})

    def end_waiting(self, artifacts: Collection[Digest]) -> None:
        """These artifacts, at most a few hundred, wait no longer: they are wanted and not complete."""
        with self._database.writing("charges") as connection:
            connection.execute(update(schema.mirror_charges).where(_CHARGE.artifact.in_(artifacts)).values(waits=False))
            connection.execute(delete(schema.lacking_replicas).where(_LACKING.artifact.in_(artifacts)))
            rows = [{"artifact": artifact, "wanted": True} for artifact in artifacts]
            connection.execute(insert(schema.lacking_replicas), rows)

    def release(self, artifacts: Sequence[Digest]) -> list[MirrorCharge]:
        """Delete the charges of these artifacts, and return them."""
        released: list[MirrorCharge] = []
        with self._database.writing("charges") as connection:
            for start in range(0, len(artifacts), _CHUNK):
                some = _CHARGE.artifact.in_(artifacts[start : start + _CHUNK])
                released += [
                    MirrorCharge(*row) for row in connection.execute(select(schema.mirror_charges).where(some))
                ]
                connection.execute(delete(schema.mirror_charges).where(some))
        return released

    def release_withdrawn(self) -> None:
        """Delete the charges of all artifacts whose hold this node withdrew, except of those that wait to be copied
        again. Reads all rows: for the start."""
        withdrawn = select(_REPLICA.artifact).where(_REPLICA.held <= _REPLICA.withdrawn)
        with self._database.writing("charges") as connection:
            connection.execute(delete(schema.mirror_charges).where(~_CHARGE.waits, _CHARGE.artifact.in_(withdrawn)))

    def release_unwanted(self) -> None:
        """Delete the charges of artifacts that this node neither holds nor wants; all publications must be read."""
        held = select(_REPLICA.artifact).where(_REPLICA.held > _REPLICA.withdrawn)
        wanted = select(_LACKING.artifact).where(_LACKING.wanted)
        charge = _CHARGE.artifact
        with self._database.writing("charges") as connection:
            connection.execute(
                delete(schema.mirror_charges).where(~_CHARGE.waits, charge.not_in(held), charge.not_in(wanted))
            )


def _put(connection: Connection, charge: MirrorCharge) -> None:
    connection.execute(delete(schema.mirror_charges).where(_CHARGE.artifact == charge.artifact))
    values = {
        "artifact": charge.artifact,
        "rule": charge.rule,
        "name": charge.name,
        "size": charge.size,
        "charged": charge.charged,
        "waits": charge.waits,
        "member": charge.member,
        "new": charge.new,
    }
    connection.execute(insert(schema.mirror_charges).values(values))


_KEPT, _LOG = schema.kept_positions.c, schema.logs.c
HOLDS: Final = "holds"
PUBLICATIONS: Final = "publications"
CHARGES: Final = "charges"
"""The readers whose positions stand beside the rows."""

STANDS: Final = _REPLICA.held > _REPLICA.withdrawn
"""The condition of `OwnCopy.stands`, for rows."""


@frozen
class LogPositions:
    """The number of the last statement that a reader has read of each log (its verifier key). `why`: why kept rows
    cannot be used, empty if they can or if there are none."""

    numbers: Mapping[str, int]
    why: str = ""


class ReaderPositions:
    """The positions of all readers. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def load(self, reader: str, basis: Digest) -> LogPositions:
        """Returns the positions of a reader, checked against the logs. Without numbers, the reader must forget its
        rows and read every log from the beginning."""
        wanted = select(_KEPT.log_id, _KEPT.number, _KEPT.size, _KEPT.root, _KEPT.basis).where(_KEPT.reader == reader)
        numbers: dict[str, int] = {}
        with self._database.reading() as connection:
            last = last_number(connection)
            for row in connection.execute(wanted.order_by(_KEPT.log_id)).all():
                log = _log(connection, row.log_id)
                if row.basis != basis:
                    return LogPositions({}, "the settings, or the nodes of the federation, have changed")
                if log is None or row.number > last or row.size > log.size:
                    return LogPositions({}, "the ledger has fewer entries than were read")
                if tree.root_at(connection, log, row.size) != bytes(row.root):
                    return LogPositions({}, f"{log.origin} has another root at size {row.size} than when it was read")
                numbers[log.vkey] = row.number
        return LogPositions(numbers)


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


@frozen
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


@frozen
class OwnClaim:
    """A `hold` (or a withdrawal) by this node at `index` of its own log."""

    artifact: Digest
    index: int
    hold: bool


@frozen
class CopyNumbers:
    """Holds that stand, and how many of these are damaged."""

    standing: int
    damaged: int


@frozen
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
        wanted = select(func.count(), func.coalesce(func.sum(case((_REPLICA.damaged, 1), else_=0)), 0)).where(STANDS)
        with self._database.reading() as connection:
            return CopyNumbers(*connection.execute(wanted).one())

    def copies(self, artifacts: Iterable[Digest]) -> dict[Digest, OwnCopy]:
        """Returns the claims about those of these artifacts that have any."""
        with self._database.reading() as connection:
            return _copies(connection, artifacts)

    def standing(self, after: Digest | None, limit: int) -> list[Digest]:
        """Returns artifacts with a hold that stands, after `after`, in their order."""
        wanted = select(_REPLICA.artifact).where(STANDS).order_by(_REPLICA.artifact).limit(limit)
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
                .where(_REPLICA.artifact == artifact, STANDS, _REPLICA.damaged != damaged)
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
            forget_positions(connection, CHARGES)


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
