"""The number by which a later writer shuts out an earlier one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    writer = op.create_table(
        "writer",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_writer_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_writer")),
    )
    op.bulk_insert(writer, [{"id": 1, "number": 0}])
