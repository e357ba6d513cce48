"""What readers of the proven tables keep: their positions, this node's copies, and what it lacks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "kept_positions",
        sa.Column("reader", sa.String(32), nullable=False),
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(32), nullable=False),
        sa.Column("basis", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("reader", "log_id", name=op.f("pk_kept_positions")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "replicas",
        sa.Column("artifact", sa.LargeBinary(32), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.Column("withdrawn", sa.BigInteger(), nullable=False),
        sa.Column("damaged", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("artifact", name=op.f("pk_replicas")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "lacking_replicas",
        sa.Column("artifact", sa.LargeBinary(32), nullable=False),
        sa.Column("wanted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("artifact", name=op.f("pk_lacking_replicas")),
        sqlite_with_rowid=False,
    )
