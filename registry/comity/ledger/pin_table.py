"""Artifacts that the operator of this node pinned, with the copies that are asked for."""

from __future__ import annotations

from sqlalchemy import delete, func, insert, select

from comity.ledger import schema
from comity.ledger.database import Database
from comity.trust.artifact_pins import MAX_WANTED, Pin
from comity.trust.copies import CopyPolicy
from comity.trust.encoding import Digest
from comity.trust.errors import OutOfSpace

_PIN = schema.pins.c


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
