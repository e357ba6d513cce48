"""How long statements are known to this node, and the artifacts that wait until a mirror rule copies them.

`ProvenTimes` has a mark about each hour: up to which number statements were verified then. So an age costs no row for a
statement, and nobody can claim another. What was verified before the first mark is as old as that mark.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import delete, func, insert, select

from comity.ledger import schema
from comity.ledger.database import Database
from comity.trust.encoding import Digest

_WAITING, _TIMES, _LACKING = schema.waiting_copies.c, schema.proven_times.c, schema.lacking_replicas.c
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
