"""Tables of what this node is to copy: pinned artifacts, those that wait for a rule or for room, and charges to quotas.

`ProvenTimes` tells how long statements are known to this node. It has a mark about each hour: up to which number
statements were verified then. So an age costs no row for a statement, and nobody can claim another. What was verified
before the first mark is as old as that mark.

`MirrorCharges` has what each copied artifact is charged to the quotas of mirror rules, and which artifacts wait for
room.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, update

from comity.ledger import schema
from comity.ledger.database import Database
from comity.trust.artifact_pins import MAX_WANTED, Pin
from comity.trust.copies import CopyPolicy
from comity.trust.encoding import Digest
from comity.trust.errors import OutOfSpace

_PIN, _WAITING, _TIMES, _CHARGE = schema.pins.c, schema.waiting_copies.c, schema.proven_times.c, schema.mirror_charges.c
_LACKING, _REPLICA = schema.lacking_replicas.c, schema.replicas.c
_CHUNK: Final = 200


class ProvenTimes:
    """Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def mark(self, number: int, time: int) -> None:
        """Every statement up to `number` is verified at `time`, in POSIX seconds. A number is marked once."""
        with self._database.writing("times") as connection:
            last = connection.execute(select(func.max(_TIMES.number))).scalar()
            if last is None or last < number:
                connection.execute(insert(schema.proven_times).values(number=number, time=time))

    def all(self) -> list[tuple[int, int]]:
        """Returns each mark, a number and its time, in their order."""
        with self._database.reading() as connection:
            rows = connection.execute(select(_TIMES.number, _TIMES.time).order_by(_TIMES.number)).all()
        return [(row.number, row.time) for row in rows]


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


@dataclass(frozen=True, slots=True)
class MirrorCharge:
    """Bytes charged for an artifact to a rule; `size` is that of all its files. One that waits is charged only what of
    it is stored."""

    artifact: Digest
    rule: str
    name: str
    size: int
    charged: int
    waits: bool = False


class MirrorCharges:
    """Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def used(self) -> dict[str, int]:
        """Returns the bytes charged to each rule. Reads all rows: for the start."""
        wanted = select(_CHARGE.rule, func.sum(_CHARGE.charged)).where(_CHARGE.charged > 0).group_by(_CHARGE.rule)
        with self._database.reading() as connection:
            return {rule: int(used) for rule, used in connection.execute(wanted)}

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
        wanted = select(schema.mirror_charges).where(_CHARGE.waits).order_by(_CHARGE.rule, _CHARGE.size).limit(limit)
        with self._database.reading() as connection:
            return [MirrorCharge(*row) for row in connection.execute(wanted)]

    def waiting_counts(self) -> dict[str, int]:
        """Returns how many artifacts wait, by rule."""
        wanted = select(_CHARGE.rule, func.count()).where(_CHARGE.waits).group_by(_CHARGE.rule)
        with self._database.reading() as connection:
            return {row[0]: row[1] for row in connection.execute(wanted)}

    def fitting(self, rule: str, room: int, limit: int) -> list[MirrorCharge]:
        """Returns waiting artifacts of a rule that fit into so many bytes, the smallest first."""
        wanted = select(schema.mirror_charges).where(_CHARGE.waits, _CHARGE.rule == rule, _CHARGE.size <= room)
        with self._database.reading() as connection:
            rows = connection.execute(wanted.order_by(_CHARGE.size).limit(limit))
            return [MirrorCharge(*row) for row in rows]

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
    }
    connection.execute(insert(schema.mirror_charges).values(values))
