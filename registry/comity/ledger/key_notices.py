"""What identities say about their own keys in advisories: reports of lost keys.

An identity is the author and the subject of such an advisory. Those about artifacts and other identities are not read.
"""

from __future__ import annotations

from sqlalchemy import and_, exists, select

from comity.ledger import schema
from comity.ledger.database import Database
from comity.ledger.proven import ProvenLine
from comity.trust.statement_kinds import ADVISORY

_LOG, _ENTRY, _STATEMENT, _SUBJECT = schema.logs.c, schema.entries.c, schema.statements.c, schema.subjects.c


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
