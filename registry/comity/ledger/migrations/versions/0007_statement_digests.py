"""The digest of what each line says, whoever signed it: by it a statement is found that a log has already."""

from __future__ import annotations

import base64
import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_STEP = 500
_ENTRIES = sa.table("entries", sa.column("log_id"), sa.column("index"), sa.column("line"))
_STATEMENTS = sa.table("statements", sa.column("log_id"), sa.column("index"), sa.column("statement"))


def upgrade() -> None:
    op.add_column("statements", sa.Column("statement", sa.LargeBinary(length=32), nullable=True))
    connection, entry, said = op.get_bind(), _ENTRIES.c, _STATEMENTS.c
    place = sa.tuple_(entry.log_id, entry.index)
    rows = sa.select(entry.log_id, entry.index, entry.line).order_by(entry.log_id, entry.index).limit(_STEP)
    last = (-1, -1)
    while found := connection.execute(rows.where(place > sa.tuple_(*last))).all():
        for log_id, index, line in found:
            here = (said.log_id == log_id, said.index == index)
            connection.execute(sa.update(_STATEMENTS).where(*here).values(statement=_digest(bytes(line))))
        last = (found[-1][0], found[-1][1])
    op.create_index("ix_statements_log_id_statement", "statements", ["log_id", "statement"])


def _digest(line: bytes) -> bytes | None:
    """SHA-256 of the DSSE pre-authentication encoding; None where the line is no envelope."""
    try:
        envelope = json.loads(line)
        kind, payload = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"], validate=True)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return hashlib.sha256(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)).digest()
