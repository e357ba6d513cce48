"""Up to where the side objects of each log are known to be here."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "custody",
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_custody_logs")),
        sa.PrimaryKeyConstraint("log_id", name=op.f("pk_custody")),
    )
