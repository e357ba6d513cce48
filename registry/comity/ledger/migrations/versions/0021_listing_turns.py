"""Lists of publications and of names, in which publishers take turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op
from comity.ledger.intake import fold_name
from comity.ledger.name_search import TABLE, NamedPlace, create_index
from comity.ledger.schema import bytewise

revision = "0021"
down_revision = "0020"

PAGE = 1_000
LAST_ROUND = (1 << 19) - 1
COLUMNS = 'log_id, turn, "index", predicate, name, publisher, version, repository, artifact'
ROUNDS = f"""
SELECT p.*, CASE WHEN nth / 8 > {LAST_ROUND} THEN {LAST_ROUND} ELSE nth / 8 END AS round FROM (
    SELECT q.*, row_number() OVER (PARTITION BY log_id, publisher ORDER BY turn) - 1 AS nth FROM publications q) p
"""
TURNS = f"""
CREATE TABLE publications_kept AS
SELECT log_id, (round << 28) + row_number() OVER (PARTITION BY log_id, round ORDER BY turn) - 1 AS turn,
    "index", predicate, name, publisher, version, repository, artifact FROM ({ROUNDS}) r
"""
PARTS = """
CREATE TABLE claimants_kept AS
SELECT name, publisher, number, (row_number() OVER (PARTITION BY publisher ORDER BY number, name) - 1) / 10 AS part
FROM claimants
"""


def upgrade() -> None:
    op.execute(TURNS)
    op.drop_table("publications")
    op.create_table(
        "publications",
        sa.Column("log_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("turn", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("predicate", sa.String(64), nullable=False),
        sa.Column("name", bytewise(512), nullable=False),
        sa.Column("publisher", sa.LargeBinary(32), nullable=False),
        sa.Column("version", bytewise(96), nullable=False),
        sa.Column("repository", sa.String(300), nullable=False),
        sa.Column("artifact", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("log_id", "turn", name=op.f("pk_publications")),
        sqlite_with_rowid=False,
    )
    op.execute(f"INSERT INTO publications ({COLUMNS}) SELECT {COLUMNS} FROM publications_kept")
    op.drop_table("publications_kept")
    for columns in (["name", "publisher", "version"], ["turn", "log_id"], ["log_id", "publisher", "turn"]):
        op.create_index(op.f(f"ix_publications_{'_'.join(columns)}"), "publications", columns)
    op.execute(PARTS)
    op.drop_table("claimants")
    op.create_table(
        "claimants",
        sa.Column("name", bytewise(512), nullable=False),
        sa.Column("publisher", sa.LargeBinary(32), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("part", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "publisher", name=op.f("pk_claimants")),
        sqlite_with_rowid=False,
    )
    kept = "name, publisher, number, part"
    op.execute(f"INSERT INTO claimants ({kept}) SELECT {kept} FROM claimants_kept")
    op.drop_table("claimants_kept")
    for columns in (["name", "number"], ["publisher", "part"], ["part", "name"]):
        op.create_index(op.f(f"ix_claimants_{'_'.join(columns)}"), "claimants", columns)
    op.drop_table(TABLE)
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
