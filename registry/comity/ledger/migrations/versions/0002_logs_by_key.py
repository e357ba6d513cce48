"""A log is the pair of origin and key: several may share an origin."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_BEFORE = sa.Table(
    "logs",
    sa.MetaData(),
    sa.Column("id", sa.Integer(), nullable=False),
    sa.Column("origin", sa.String(length=255), nullable=False),
    sa.Column("vkey", sa.String(length=4096), nullable=False),
    sa.Column("own", sa.Boolean(), nullable=False),
    sa.Column("size", sa.BigInteger(), nullable=False),
    sa.Column("root", sa.LargeBinary(length=32), nullable=False),
    sa.Column("staged", sa.BigInteger(), nullable=False),
    sa.CheckConstraint("0 <= size AND size <= staged", name="ck_logs_staged_after_size"),
    sa.PrimaryKeyConstraint("id", name="pk_logs"),
    sa.UniqueConstraint("origin", name="uq_logs_origin"),
)


def upgrade() -> None:
    with op.batch_alter_table("logs", copy_from=_BEFORE) as logs:
        logs.drop_constraint(op.f("uq_logs_origin"), type_="unique")
        logs.create_unique_constraint(op.f("uq_logs_vkey"), ["vkey"])
    op.create_index(op.f("ix_logs_origin"), "logs", ["origin"], unique=False)
