"""What identities say about their own keys in advisories: reports of lost keys; and whom they concern here.

An identity is the author and the subject of such an advisory. Those about artifacts and other identities are not read.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import and_, exists, func, select

from comity.ledger import schema
from comity.ledger.copy_tables import STANDS
from comity.ledger.database import Database
from comity.ledger.proven import ProvenLine
from comity.trust.encoding import Digest
from comity.trust.statement_kinds import ADVISORY, PUBLISHED

_LOG, _ENTRY, _STATEMENT, _SUBJECT = schema.logs.c, schema.entries.c, schema.statements.c, schema.subjects.c
_PUBLICATION, _REPLICA = schema.publications.c, schema.replicas.c


class KeyNotices:
    """Searches over verified statements in all logs. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def since(self, number: int, limit: int) -> list[ProvenLine]:
        """Returns advisories of identities about themselves that were verified after the statement with this number, in
        that order; one that several logs have is there for each."""
        own = exists().where(
            _SUBJECT.digest == _STATEMENT.by,
            _SUBJECT.kind == ADVISORY,
            _SUBJECT.log_id == _STATEMENT.log_id,
            _SUBJECT.index == _STATEMENT.index,
        )
        wanted = (
            select(_LOG.origin, _LOG.vkey, _STATEMENT.index, _ENTRY.line, _STATEMENT.number)
            .select_from(schema.statements)
            .join(schema.logs, _LOG.id == _STATEMENT.log_id)
            .join(schema.entries, and_(_ENTRY.log_id == _STATEMENT.log_id, _ENTRY.index == _STATEMENT.index))
            .where(_STATEMENT.predicate == ADVISORY, _STATEMENT.number > number, own)
            .order_by(_STATEMENT.number)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [ProvenLine(*row) for row in connection.execute(wanted)]

    def held_of(self, publishers: Collection[Digest], most: int) -> dict[Digest, int]:
        """Returns of how many artifacts of each of these publishers this node claims a copy; of each publisher at most
        `most` publications are looked at, the first of each log."""
        same = and_(_PUBLICATION.log_id == _STATEMENT.log_id, _PUBLICATION.index == _STATEMENT.index)
        published = select(_PUBLICATION.artifact).select_from(schema.statements).join(schema.publications, same)
        found: dict[Digest, int] = {}
        with self._database.reading() as connection:
            for publisher in publishers:
                own = published.where(_STATEMENT.by == publisher, _STATEMENT.predicate == PUBLISHED)
                first = own.order_by(_STATEMENT.log_id, _STATEMENT.index).limit(most).subquery()
                held = select(func.count(_REPLICA.artifact.distinct())).join_from(
                    first, schema.replicas, _REPLICA.artifact == first.c.artifact
                )
                found[publisher] = connection.execute(held.where(STANDS)).scalar_one()
        return found
