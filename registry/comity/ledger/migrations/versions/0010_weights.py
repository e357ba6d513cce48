"""What each log costs to keep, and what outsiders brought into the own one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from comity.ledger.entry_rows import entries_weight, hash_mirrored_entries

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("logs", sa.Column("weight", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "log_objects",
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_log_objects_logs")),
        sa.PrimaryKeyConstraint("log_id", "digest", name=op.f("pk_log_objects")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_log_objects_log_id_index"), "log_objects", ["log_id", "index"])
    op.create_table(
        "outside_shares",
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", name=op.f("pk_outside_shares")),
        sqlite_with_rowid=False,
    )
    _weigh(op.get_bind())


def _weigh(connection: sa.Connection) -> None:
    """Count every line that is here."""
    entries = sa.table("entries", sa.column("log_id"), sa.column("index"), sa.column("line"))
    logs = sa.table("logs", sa.column("id"), sa.column("weight"))
    for log_id in connection.scalars(sa.select(logs.c.id)).all():
        total, start = 0, 0
        while True:
            page = sa.select(entries.c.line).where(entries.c.log_id == log_id, entries.c["index"] >= start)
            lines = [bytes(line) for line in connection.scalars(page.order_by(entries.c["index"]).limit(256))]
            if not lines:
                break
            total += entries_weight(connection, log_id, start, hash_mirrored_entries(lines))
            start += len(lines)
        connection.execute(logs.update().where(logs.c.id == log_id).values(weight=total))
