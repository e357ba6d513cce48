"""The statements about a digest are counted for each of their authors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

KEPT = "subjects_kept"
COPY = f"""
CREATE TABLE {KEPT} AS
SELECT s.digest, s.kind, s.log_id, s.turn, s."index", t."by",
    row_number() OVER (PARTITION BY s.digest, s.kind, s.log_id, t."by" ORDER BY s.turn) - 1 AS round
FROM subjects s JOIN statements t ON t.log_id = s.log_id AND t."index" = s."index"
"""
COLUMNS = 'digest, kind, log_id, turn, "index", "by", round'


def upgrade() -> None:
    op.execute(COPY)
    op.drop_table("subjects")
    op.create_table(
        "subjects",
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("log_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("turn", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.LargeBinary(32), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "kind", "log_id", "turn", name=op.f("pk_subjects")),
        sqlite_with_rowid=False,
    )
    op.execute(f"INSERT INTO subjects ({COLUMNS}) SELECT {COLUMNS} FROM {KEPT}")
    op.drop_table(KEPT)
    for columns in (["digest", "by", "round", "kind", "log_id"], ["digest", "kind", "log_id", "round", "turn"]):
        op.create_index(op.f(f"ix_subjects_{'_'.join(columns)}"), "subjects", columns)
