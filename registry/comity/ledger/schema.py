"""The tables of a ledger, portable between SQLite and PostgreSQL.

A log, which is the pair of an origin and a key, is a row of `logs`, its lines (`entries`) and the hashes over them
(`tiles`). `size` and `root` are the log as the world may see it; entries from `size` up to `staged` are durable but not
shown: a mirror fetches a long stretch in steps and lets it stand only when the root that the log has signed comes out.
Every reader bounds itself by `size`.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from comity.trust.encoding import Digest

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class DigestBytes(TypeDecorator[Digest]):
    """A `Digest` kept as its 32 bytes."""

    impl = LargeBinary(32)
    cache_ok = True

    def process_bind_param(self, value: Digest | None, dialect: Dialect) -> bytes | None:
        return None if value is None else bytes.fromhex(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Digest | None:
        return None if value is None else Digest(bytes(value).hex())


def bytewise(length: int) -> String:
    """Text that sorts by its bytes everywhere, so that a prefix is a range."""
    return String(length).with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")


logs = Table(
    "logs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("origin", String(255), nullable=False),
    Column("vkey", String(4096), nullable=False, unique=True),
    Column("own", Boolean, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary(32), nullable=False),
    Column("staged", BigInteger, nullable=False),
    Column("weight", BigInteger, nullable=False),
    CheckConstraint("0 <= size AND size <= staged", name="staged_after_size"),
    Index(None, "origin"),
)

entries = Table(
    "entries",
    metadata,
    Column("log_id", ForeignKey("logs.id"), primary_key=True),
    Column("index", BigInteger, primary_key=True, autoincrement=False),
    Column("line", LargeBinary, nullable=False),
    Column("digest", DigestBytes, nullable=False),
    Index(None, "digest"),
)

log_objects = Table(
    "log_objects",
    metadata,
    Column("log_id", ForeignKey("logs.id"), primary_key=True),
    Column("digest", DigestBytes, primary_key=True),
    Column("index", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Index(None, "log_id", "index"),
    sqlite_with_rowid=False,
)

outside_shares = Table(
    "outside_shares",
    metadata,
    Column("kind", String(16), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("entries", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

tiles = Table(
    "tiles",
    metadata,
    Column("log_id", ForeignKey("logs.id"), primary_key=True),
    Column("level", SmallInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("log_id", ForeignKey("logs.id"), primary_key=True),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("root", LargeBinary(32), nullable=False),
    Column("note", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

cosignatures = Table(
    "cosignatures",
    metadata,
    Column("log_id", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String(255), primary_key=True),
    Column("key_id", LargeBinary(4), primary_key=True),
    Column("signature", LargeBinary, nullable=False),
    ForeignKeyConstraint(["log_id", "size"], ["checkpoints.log_id", "checkpoints.size"]),
)

witnessed = Table(
    "witnessed",
    metadata,
    Column("vkey", String(4096), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary(32), nullable=False),
    Column("note", LargeBinary, nullable=False),
)

statements = Table(
    "statements",
    metadata,
    Column("log_id", Integer, primary_key=True, autoincrement=False),
    Column("index", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False, unique=True),
    Column("statement", DigestBytes, nullable=False),
    Column("predicate", String(255), nullable=False),
    Column("by", DigestBytes, nullable=False),
    ForeignKeyConstraint(["log_id", "index"], ["entries.log_id", "entries.index"]),
    UniqueConstraint("statement", "log_id"),
    Index(None, "predicate", "number"),
    Index(None, "log_id", "predicate", "number"),
    Index(None, "by", "predicate", "log_id", "index"),
    sqlite_with_rowid=False,
)
"""Proven statements, each once a log. `number` counts them in the order in which this node proved them."""

subjects = Table(
    "subjects",
    metadata,
    Column("digest", DigestBytes, primary_key=True),
    Column("kind", String(64), primary_key=True),
    Column("log_id", Integer, primary_key=True, autoincrement=False),
    Column("turn", BigInteger, primary_key=True, autoincrement=False),
    Column("index", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""What proven statements are about. `turn` counts the rows of one digest, kind and log, so that a limited answer can
take the first of each log, then the second of each."""

identities = Table(
    "identities",
    metadata,
    Column("id", DigestBytes, primary_key=True),
    Column("home", String(255), nullable=False),
    Column("display", String(200), nullable=False),
    Column("log_id", Integer, nullable=False),
    Column("index", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Identities whose inception is proven, and a place where it stands."""

rotations = Table(
    "rotations",
    metadata,
    Column("identity", DigestBytes, primary_key=True),
    Column("statement", DigestBytes, primary_key=True),
    Column("log_id", Integer, nullable=False),
    Column("index", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Proven rotations of identities, on every branch, each with a place where it stands."""

nodes = Table(
    "nodes",
    metadata,
    Column("id", DigestBytes, primary_key=True),
    Column("key", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""The online keys that proven node-records bind, whoever's they are."""

publications = Table(
    "publications",
    metadata,
    Column("log_id", Integer, primary_key=True, autoincrement=False),
    Column("turn", BigInteger, primary_key=True, autoincrement=False),
    Column("index", BigInteger, nullable=False),
    Column("predicate", String(64), nullable=False),
    Column("name", bytewise(512), nullable=False),
    Column("publisher", DigestBytes, nullable=False),
    Column("version", bytewise(96), nullable=False),
    Column("repository", String(300), nullable=False),
    Column("artifact", DigestBytes, nullable=False),
    Index(None, "name", "publisher", "version"),
    sqlite_with_rowid=False,
)
"""Proven `published` and `observed` statements. `name` is the folded repository, `turn` counts those of one log."""

claimants = Table(
    "claimants",
    metadata,
    Column("name", bytewise(512), primary_key=True),
    Column("publisher", DigestBytes, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Index(None, "name", "number"),
    sqlite_with_rowid=False,
)
"""Who has published or observed anything under a name; `number` is that of the first such statement."""

intake = Table(
    "intake",
    metadata,
    Column("log_id", ForeignKey("logs.id"), primary_key=True),
    Column("position", BigInteger, nullable=False),
)
"""Every entry of a log below `position` went through the intake."""

custody = Table(
    "custody",
    metadata,
    Column("log_id", ForeignKey("logs.id"), primary_key=True),
    Column("position", BigInteger, nullable=False),
)
"""The side objects of every entry of a log below `position` are in the blob store."""

parked = Table(
    "parked",
    metadata,
    Column("log_id", ForeignKey("logs.id"), primary_key=True),
    Column("index", BigInteger, primary_key=True, autoincrement=False),
    Column("author", DigestBytes, nullable=False),
    Index(None, "author", "log_id", "index"),
    sqlite_with_rowid=False,
)
"""Lines that went through the intake and that no key known so far proves or refutes."""

revisits = Table(
    "revisits",
    metadata,
    Column("log_id", ForeignKey("logs.id"), primary_key=True),
    Column("author", DigestBytes, primary_key=True),
    Column("after_log", Integer, nullable=False),
    Column("after_index", BigInteger, nullable=False),
    Column("round", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Authors whose parked lines are to be looked at again since a line of a log made more of their keys known, and the
place up to which that is done. `round` rises with each such line."""

misbehaviour = Table(
    "misbehaviour",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("origin", String(255), nullable=False),
    Column("vkey", String(4096), nullable=False),
    Column("proof", LargeBinary, nullable=False),
    Column("digest", DigestBytes, nullable=False, unique=True),
    Column("seen_at", BigInteger, nullable=False),
    Index(None, "origin"),
)

piece_records = Table(
    "piece_records",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("blob", DigestBytes, nullable=False),
    Column("layout", String(64), nullable=False),
    Column("records", LargeBinary, nullable=False),
    Column("seal", LargeBinary(32), nullable=False),
    Index(None, "blob", "layout", unique=True),
)

pieces = Table(
    "pieces",
    metadata,
    Column("sha256", LargeBinary(32), primary_key=True),
    Column("record_id", ForeignKey("piece_records.id", ondelete="CASCADE"), primary_key=True),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("length", Integer, nullable=False),
    Index(None, "record_id"),
    sqlite_with_rowid=False,
)

charter_epochs = Table(
    "charter_epochs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("federation", DigestBytes, nullable=False),
    Column("digest", DigestBytes, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("prev", DigestBytes),
    Column("body", LargeBinary, nullable=False),
    Column("certificate", LargeBinary, nullable=False),
    UniqueConstraint("federation", "digest"),
)

asks = Table(
    "asks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("member", DigestBytes, nullable=False, unique=True),
    Column("since", BigInteger, nullable=False),
    Column("asked", BigInteger, nullable=False),
    Column("block", String(255), nullable=False),
    Column("kept", Boolean, nullable=False),
    Column("card", LargeBinary, nullable=False),
)

writer = Table(
    "writer",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("number", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)
