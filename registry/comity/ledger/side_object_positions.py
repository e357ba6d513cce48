"""Up to where it is known, for each log, that every side object that its entries name is in the blob store."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import delete, insert, select

from comity.ledger import schema
from comity.ledger.database import Database
from comity.ledger.rows import find_log

_LOG, _CUSTODY = schema.logs.c, schema.custody.c


class SideObjectPositions:
    """Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def positions(self) -> dict[str, int]:
        """By a log's verifier key, the first entry whose objects are not known to be here."""
        wanted = select(_LOG.vkey, _CUSTODY.position).join(schema.logs, _LOG.id == _CUSTODY.log_id)
        with self._database.reading() as connection:
            return {vkey: position for vkey, position in connection.execute(wanted)}  # noqa: C416 (rows are no pairs)

    def keep(self, positions: Mapping[str, int]) -> None:
        """Put these in place of all that was kept."""
        with self._database.writing("custody") as connection:
            connection.execute(delete(schema.custody))
            for vkey, position in positions.items():
                row = {"log_id": find_log(connection, vkey).id, "position": position}
                connection.execute(insert(schema.custody).values(row))
