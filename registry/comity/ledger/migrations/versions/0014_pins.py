"""Artifacts that the operator pinned."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "pins",
        sa.Column("artifact", sa.LargeBinary(32), nullable=False),
        sa.Column("name", sa.String(512), nullable=False),
        sa.Column("copies", sa.Integer(), nullable=False),
        sa.Column("jurisdictions", sa.Integer(), nullable=False),
        sa.Column("reaches", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("artifact", name=op.f("pk_pins")),
        sqlite_with_rowid=False,
    )
