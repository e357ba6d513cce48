"""Publications are found by their position: names of many artifacts are read without their lines."""

from __future__ import annotations

from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.create_index(op.f("ix_publications_log_id_index"), "publications", ["log_id", "index"], unique=True)
