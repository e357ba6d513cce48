"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "logs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("origin", sa.String(length=255), nullable=False),
        sa.Column("vkey", sa.String(length=4096), nullable=False),
        sa.Column("own", sa.Boolean(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("staged", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("0 <= size AND size <= staged", name=op.f("ck_logs_staged_after_size")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_logs")),
        sa.UniqueConstraint("origin", name=op.f("uq_logs_origin")),
    )
    op.create_table(
        "entries",
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("line", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_entries_logs")),
        sa.PrimaryKeyConstraint("log_id", "index", name=op.f("pk_entries")),
    )
    op.create_index(op.f("ix_entries_digest"), "entries", ["digest"], unique=False)
    op.create_table(
        "tiles",
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("level", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_tiles_logs")),
        sa.PrimaryKeyConstraint("log_id", "level", "number", name=op.f("pk_tiles")),
    )
    op.create_table(
        "checkpoints",
        sa.Column("log_id", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("fk_checkpoints_logs")),
        sa.PrimaryKeyConstraint("log_id", "size", name=op.f("pk_checkpoints")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "cosignatures",
        sa.Column("log_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("key_id", sa.LargeBinary(length=4), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["log_id", "size"], ["checkpoints.log_id", "checkpoints.size"], name=op.f("fk_cosignatures_checkpoints")
        ),
        sa.PrimaryKeyConstraint("log_id", "size", "name", "key_id", name=op.f("pk_cosignatures")),
    )
    op.create_table(
        "statements",
        sa.Column("log_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("predicate", sa.String(length=255), nullable=False),
        sa.Column("by", sa.LargeBinary(length=32), nullable=True),
        sa.ForeignKeyConstraint(
            ["log_id", "index"],
            ["entries.log_id", "entries.index"],
            name=op.f("fk_statements_entries"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("log_id", "index", name=op.f("pk_statements")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_statements_by_log_id_index"), "statements", ["by", "log_id", "index"], unique=False)
    op.create_index(
        op.f("ix_statements_predicate_log_id_index"), "statements", ["predicate", "log_id", "index"], unique=False
    )
    op.create_table(
        "subjects",
        sa.Column("log_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column(
            "name",
            sa.String(length=512).with_variant(postgresql.VARCHAR(length=512, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["log_id", "index"],
            ["entries.log_id", "entries.index"],
            name=op.f("fk_subjects_entries"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("log_id", "index", "position", name=op.f("pk_subjects")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_subjects_digest_log_id_index"), "subjects", ["digest", "log_id", "index"], unique=False)
    op.create_index(op.f("ix_subjects_name_log_id_index"), "subjects", ["name", "log_id", "index"], unique=False)
    op.create_table(
        "misbehaviour",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("origin", sa.String(length=255), nullable=False),
        sa.Column("vkey", sa.String(length=4096), nullable=False),
        sa.Column("proof", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_misbehaviour")),
        sa.UniqueConstraint("digest", name=op.f("uq_misbehaviour_digest")),
    )
    op.create_index(op.f("ix_misbehaviour_origin"), "misbehaviour", ["origin"], unique=False)
    op.create_table(
        "piece_records",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("blob", sa.LargeBinary(length=32), nullable=False),
        sa.Column("layout", sa.String(length=64), nullable=False),
        sa.Column("records", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_piece_records")),
    )
    op.create_index(op.f("ix_piece_records_blob_layout"), "piece_records", ["blob", "layout"], unique=True)
    op.create_table(
        "pieces",
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("record_id", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["record_id"], ["piece_records.id"], name=op.f("fk_pieces_piece_records"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("sha256", "record_id", "offset", name=op.f("pk_pieces")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_pieces_record_id"), "pieces", ["record_id"], unique=False)
