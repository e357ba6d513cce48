"""Lines of logs are packed when they are stored. Stored lines stay as they are, but the few that begin with a mark."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

MARKS = (b"\x00", b"\x01")
PAGE = 256

_ENTRIES = sa.table("entries", sa.column("log_id"), sa.column("index"), sa.column("line", sa.LargeBinary))


def upgrade() -> None:
    connection, entry = op.get_bind(), _ENTRIES.c
    marked = sa.func.substr(entry.line, 1, 1, type_=sa.LargeBinary).in_(MARKS)
    after = (-1, -1)
    while True:
        later = sa.tuple_(entry.log_id, entry.index) > after
        wanted = sa.select(_ENTRIES).where(marked, later).order_by(entry.log_id, entry.index).limit(PAGE)
        page = connection.execute(wanted).all()
        for log_id, index, line in page:
            here = (entry.log_id == log_id, entry.index == index)
            connection.execute(sa.update(_ENTRIES).where(*here).values(line=MARKS[0] + bytes(line)))
        if len(page) < PAGE:
            return
        after = (page[-1][0], page[-1][1])
