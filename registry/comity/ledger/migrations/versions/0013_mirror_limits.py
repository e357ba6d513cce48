"""Since when statements are known here, and what mirror rules charge and let wait."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from comity.ledger.schema import bytewise

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "waiting_copies",
        sa.Column("artifact", sa.LargeBinary(32), nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("artifact", name=op.f("pk_waiting_copies")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_waiting_copies_due"), "waiting_copies", ["due"])
    op.create_table(
        "proven_times",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_proven_times")),
    )
    op.create_table(
        "mirror_charges",
        sa.Column("artifact", sa.LargeBinary(32), nullable=False),
        sa.Column("rule", bytewise(200), nullable=False),
        sa.Column("name", sa.String(400), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("charged", sa.BigInteger(), nullable=False),
        sa.Column("waits", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("artifact", name=op.f("pk_mirror_charges")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_mirror_charges_waits_rule_size"), "mirror_charges", ["waits", "rule", "size"])
