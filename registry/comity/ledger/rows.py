"""The row of a log, as the rooms of the ledger pass it to one another inside a transaction."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from comity.ledger import schema
from comity.trust.errors import NotFound
from comity.trust.tlog.note import VerifierKey

_LOG = schema.logs.c


@dataclass(frozen=True, slots=True)
class LogRow:
    """`weight` is what the log costs to keep, what is staged included."""

    id: int
    origin: str
    vkey: str
    own: bool
    size: int
    root: bytes
    staged: int
    weight: int

    @property
    def key(self) -> VerifierKey:
        return VerifierKey.parse(self.vkey)


def find_log(connection: Connection, name: str) -> LogRow:
    """The log that `name` means. Raises NotFound(code="NO-SUCH-LOG").

    A verifier key names one log for ever. An origin alone, which has no '+', means the log that was first kept here
    under it: whoever binds another key to the same origin later on takes no reader away from it.
    """
    named = _LOG.vkey == name if "+" in name else _LOG.origin == name
    row = connection.execute(select(schema.logs).where(named).order_by(_LOG.id).limit(1)).mappings().one_or_none()
    if row is None:
        raise NotFound("no such log", why=f"this node holds no log called {name[:320]}", code="NO-SUCH-LOG")
    return LogRow(**row)


def all_logs(connection: Connection) -> list[LogRow]:
    """In the order in which they were created."""
    rows = connection.execute(select(schema.logs).order_by(schema.logs.c.id)).mappings()
    return [LogRow(**row) for row in rows]
