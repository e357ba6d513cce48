"""A hash over each row of piece records. Those that are here already are sealed as they are found."""

from __future__ import annotations

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_BEFORE = sa.Table(
    "piece_records",
    sa.MetaData(),
    sa.Column("id", sa.Integer(), nullable=False),
    sa.Column("blob", sa.LargeBinary(length=32), nullable=False),
    sa.Column("layout", sa.String(length=64), nullable=False),
    sa.Column("records", sa.LargeBinary(), nullable=False),
    sa.Column("seal", sa.LargeBinary(length=32), nullable=True),
    sa.PrimaryKeyConstraint("id", name="pk_piece_records"),
    sa.Index("ix_piece_records_blob_layout", "blob", "layout", unique=True),
)


def upgrade() -> None:
    op.add_column("piece_records", sa.Column("seal", sa.LargeBinary(length=32), nullable=True))
    connection, rows = op.get_bind(), _BEFORE.c
    for number in connection.scalars(sa.select(rows.id)).all():
        row = connection.execute(sa.select(rows.blob, rows.layout, rows.records).where(rows.id == number)).one()
        seal = hashlib.sha256(row.blob + row.layout.encode() + b"\0" + row.records).digest()
        connection.execute(sa.update(_BEFORE).where(rows.id == number).values(seal=seal))
    with op.batch_alter_table("piece_records", copy_from=_BEFORE) as records:
        records.alter_column("seal", nullable=False)
