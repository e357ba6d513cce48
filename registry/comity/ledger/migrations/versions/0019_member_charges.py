"""Copies are charged to the members that publish them. All publications are read again, so that what is held is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from comity.ledger.schema import bytewise

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.drop_index(op.f("ix_mirror_charges_waits_rule_size"), "mirror_charges")
    op.add_column("mirror_charges", sa.Column("member", bytewise(64), nullable=False, server_default=""))
    op.add_column("mirror_charges", sa.Column("new", sa.BigInteger(), nullable=False, server_default="0"))
    index = ["waits", "member", "rule", "new"]
    op.create_index(op.f("ix_mirror_charges_waits_member_rule_new"), "mirror_charges", index)
    op.execute(sa.text("DELETE FROM kept_positions WHERE reader = 'publications'"))
