"""An index of names by their parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op
from comity.ledger.intake import fold_name
from comity.ledger.name_search import NamedPlace, create_index

revision = "0012"
down_revision = "0011"

PAGE = 1_000


def upgrade() -> None:
    connection = op.get_bind()
    create_index(connection, _names(connection))


def _names(connection: sa.Connection) -> Iterator[NamedPlace]:
    """Every publication, a page of one log at a time."""
    columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in ("log_id", "turn", "name", "version")]
    publications = sa.table("publications", *columns)
    at = publications.c
    for log_id in connection.scalars(sa.select(at.log_id).distinct()).all():
        turn = -1
        while True:
            page = sa.select(at.turn, at.name, at.version).where(at.log_id == log_id, at.turn > turn)
            rows = connection.execute(page.order_by(at.turn).limit(PAGE)).all()
            yield from (NamedPlace(row.turn, log_id, f"{row.name}@{fold_name(row.version)}") for row in rows)
            if len(rows) < PAGE:
                break
            turn = rows[-1].turn
