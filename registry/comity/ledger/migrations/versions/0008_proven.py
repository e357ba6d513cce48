"""Tables of what is proven, in place of an index of what lines claim: every log goes through the intake again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0006"  # 0007 filled a column of a table that this one drops


def upgrade() -> None:
    op.drop_table("subjects")
    op.drop_table("statements")
    _statements()
    _keys()
    _names()
    _intake()


def _statements() -> None:
    op.create_table(
        "statements",
        sa.Column("log_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        _digest("statement"),
        sa.Column("predicate", sa.String(length=255), nullable=False),
        _digest("by"),
        sa.ForeignKeyConstraint(
            ["log_id", "index"], ["entries.log_id", "entries.index"], name=op.f("fk_statements_entries")
        ),
        sa.PrimaryKeyConstraint("log_id", "index", name=op.f("pk_statements")),
        sa.UniqueConstraint("number", name=op.f("uq_statements_number")),
        sa.UniqueConstraint("statement", "log_id", name=op.f("uq_statements_statement_log_id")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_statements_predicate_number"), "statements", ["predicate", "number"])
    op.create_index(op.f("ix_statements_log_id_predicate_number"), "statements", ["log_id", "predicate", "number"])
    op.create_index(
        op.f("ix_statements_by_predicate_log_id_index"), "statements", ["by", "predicate", "log_id", "index"]
    )
    op.create_table(
        "subjects",
        _digest("digest"),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("log_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("turn", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "kind", "log_id", "turn", name=op.f("pk_subjects")),
        sqlite_with_rowid=False,
    )


def _keys() -> None:
    op.create_table(
        "identities",
        _digest("id"),
        sa.Column("home", sa.String(length=255), nullable=False),
        sa.Column("display", sa.String(length=200), nullable=False),
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identities")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rotations",
        _digest("identity"),
        _digest("statement"),
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("identity", "statement", name=op.f("pk_rotations")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "nodes",
        _digest("id"),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nodes")),
        sqlite_with_rowid=False,
    )


def _names() -> None:
    op.create_table(
        "publications",
        sa.Column("log_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("turn", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("predicate", sa.String(length=64), nullable=False),
        _bytewise("name", 512),
        _digest("publisher"),
        _bytewise("version", 96),
        sa.Column("repository", sa.String(length=300), nullable=False),
        _digest("artifact"),
        sa.PrimaryKeyConstraint("log_id", "turn", name=op.f("pk_publications")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_publications_name_publisher_version"), "publications", ["name", "publisher", "version"])
    op.create_table(
        "claimants",
        _bytewise("name", 512),
        _digest("publisher"),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "publisher", name=op.f("pk_claimants")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_claimants_name_number"), "claimants", ["name", "number"])


def _intake() -> None:
    op.create_table(
        "intake",
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_intake_logs")),
        sa.PrimaryKeyConstraint("log_id", name=op.f("pk_intake")),
    )
    op.create_table(
        "parked",
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        _digest("author"),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_parked_logs")),
        sa.PrimaryKeyConstraint("log_id", "index", name=op.f("pk_parked")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_parked_author_log_id_index"), "parked", ["author", "log_id", "index"])
    op.create_table(
        "revisits",
        sa.Column("log_id", sa.Integer(), nullable=False),
        _digest("author"),
        sa.Column("after_log", sa.Integer(), nullable=False),
        sa.Column("after_index", sa.BigInteger(), nullable=False),
        sa.Column("round", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_revisits_logs")),
        sa.PrimaryKeyConstraint("log_id", "author", name=op.f("pk_revisits")),
        sqlite_with_rowid=False,
    )


def _digest(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(length=32), nullable=False)


def _bytewise(name: str, length: int) -> sa.Column[str]:
    text = sa.String(length=length).with_variant(postgresql.VARCHAR(length=length, collation="C"), "postgresql")
    return sa.Column(name, text, nullable=False)
