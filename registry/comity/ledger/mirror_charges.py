"""What each copied artifact is charged to the quotas of mirror rules, and which artifacts wait for room."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select, update

from comity.ledger import schema
from comity.ledger.database import Database
from comity.trust.encoding import Digest

_CHARGE, _LACKING, _REPLICA = schema.mirror_charges.c, schema.lacking_replicas.c, schema.replicas.c
_CHUNK: Final = 200


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

    def release_withdrawn(self) -> None:
        """Delete the charges of artifacts whose hold this node withdrew."""
        withdrawn = select(_REPLICA.artifact).where(_REPLICA.held <= _REPLICA.withdrawn)
        with self._database.writing("charges") as connection:
            connection.execute(delete(schema.mirror_charges).where(_CHARGE.artifact.in_(withdrawn)))

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
