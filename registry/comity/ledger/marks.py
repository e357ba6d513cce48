"""Marks of a database, kept in the database itself: the identity that it had when this node last wrote to it.

A copy of the database has the mark of the original and another identity, so it is known as a copy; a second machine of
the same node that opens the same database finds the mark that fits. Source: docs/operations/grow.md.
"""

from __future__ import annotations

from sqlalchemy import delete, insert, select

from comity.ledger import schema
from comity.ledger.database import Database

_MARK = schema.marks.c


class MarkTable:
    """Thread-safe; durable when a call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> str | None:
        """The identity in the mark `name`; None if there is no such mark."""
        with self._database.reading() as connection:
            return connection.scalar(select(_MARK.identity).where(_MARK.name == name))

    def put(self, name: str, identity: str) -> None:
        with self._database.writing("marks") as connection:
            connection.execute(delete(schema.marks).where(_MARK.name == name))
            connection.execute(insert(schema.marks).values(name=name, identity=identity))
