"""The tables of a ledger, portable between SQLite and PostgreSQL.

A log is a pair of an origin and a key. It has a row in `logs`, its lines in `entries`, and their hashes in `tiles`.
`size` and `root` describe the visible log. Entries from `size` to `staged` are durable but not visible: a mirror
fetches many entries in steps, and they become visible only when their root is the root that the log signed. Every
reader must stay below `size`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import (
    VARCHAR,
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
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from comity.ledger.stored_lines import pack_line, unpack_line
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Untrusted

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


DIGEST_SIZE: Final = 32


def damaged_ledger(why: str, what: str = "the ledger is damaged") -> Untrusted:
    """The error for rows or pages that nobody wrote like this."""
    return Untrusted(
        what,
        why=why,
        hint="restore the ledger from a backup; the node then gets its newest checkpoint from its cosigners",
        code="LEDGER-CORRUPT",
    )


class DigestBytes(TypeDecorator[Digest]):
    """A `Digest`, stored as its 32 bytes."""

    impl = LargeBinary(32)
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Digest | None], bytes | None]:
        """As `process_bind_param`, without the calls around it for each of seven digests of a statement: the drivers
        take bytes as they are."""
        return _digest_bytes

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Digest | None]:
        """As `process_result_value`, without the calls around it."""
        return _digest


def _digest_bytes(value: Digest | None) -> bytes | None:
    return None if value is None else bytes.fromhex(value)


def _digest(value: Any) -> Digest | None:
    if value is None:
        return None
    if isinstance(value, str) or len(value) != DIGEST_SIZE:
        raise damaged_ledger("a digest in it has another size or type")
    return Digest(value.hex())


class LineBytes(TypeDecorator[bytes]):
    """A line of a log, stored by `stored_lines`. SQL functions see the stored bytes."""

    impl = LargeBinary
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[bytes | None], bytes | None]:
        return _stored_line

    def process_result_value(self, value: Any, dialect: Dialect) -> bytes | None:
        if value is None:
            return None
        try:
            return unpack_line(value)
        except Malformed as error:
            raise damaged_ledger("a line in it is not stored as lines are") from error


def _stored_line(value: bytes | None) -> bytes | None:
    return None if value is None else pack_line(value)


def bytewise(length: int) -> String:
    """Text that every database sorts by its bytes, so that a prefix is a range."""
    return String(length).with_variant(VARCHAR(length, collation="C"), "postgresql")


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
    Column("line", LineBytes, nullable=False),
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
"""Verified statements, each once per log. `number` counts them in the order in which this node verified them."""

subjects = Table(
    "subjects",
    metadata,
    Column("digest", DigestBytes, primary_key=True),
    Column("kind", String(64), primary_key=True),
    Column("log_id", Integer, primary_key=True, autoincrement=False),
    Column("turn", BigInteger, primary_key=True, autoincrement=False),
    Column("index", BigInteger, nullable=False),
    Column("by", DigestBytes, nullable=False),
    Column("round", BigInteger, nullable=False),
    Index(None, "digest", "by", "round", "kind", "log_id"),
    Index(None, "digest", "kind", "log_id", "round", "turn"),
    sqlite_with_rowid=False,
)
"""Subjects of verified statements. `turn` counts the rows of one digest, kind and log, `round` those of one author,
`by`, among them: a limited result takes the first of each author, then the second (`subject_reads`)."""

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
"""Identities with a verified inception, and one position of that inception."""

rotations = Table(
    "rotations",
    metadata,
    Column("identity", DigestBytes, primary_key=True),
    Column("statement", DigestBytes, primary_key=True),
    Column("log_id", Integer, nullable=False),
    Column("index", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Verified rotations of identities, on all branches, each with one position."""

nodes = Table(
    "nodes",
    metadata,
    Column("id", DigestBytes, primary_key=True),
    Column("key", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""The online keys in verified node-records of any identity."""

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
    Column("kind", bytewise(40), nullable=False, server_default="model"),
    Index(None, "name", "publisher", "version"),
    Index(None, "turn", "log_id"),
    Index(None, "kind", "turn", "log_id"),
    Index(None, "log_id", "publisher", "turn"),
    Index(None, "log_id", "index", unique=True),
    sqlite_with_rowid=False,
)
"""Verified `published` and `observed` statements. `name` is the folded repository, `turn` the place in lists, in which
the publishers of each log take turns (`listing_turns`), `kind` what the publisher states of the artifact
(`stated_kinds`)."""

claimants = Table(
    "claimants",
    metadata,
    Column("name", bytewise(512), primary_key=True),
    Column("publisher", DigestBytes, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("part", BigInteger, nullable=False),
    Index(None, "name", "number"),
    Index(None, "publisher", "part"),
    Index(None, "part", "name"),
    sqlite_with_rowid=False,
)
"""Publishers and observers by name; `number` is the number of the first such statement, `part` counts the names of each
publisher in tens (`listing_turns`)."""

intake = Table(
    "intake",
    metadata,
    Column("log_id", ForeignKey("logs.id"), primary_key=True),
    Column("position", BigInteger, nullable=False),
)
"""The intake has processed every entry of a log below `position`."""

side_object_positions = Table(
    "custody",
    metadata,
    Column("log_id", ForeignKey("logs.id"), primary_key=True),
    Column("position", BigInteger, nullable=False),
)
"""The side objects of every entry of a log below `position` are in the blob store."""

kept_positions = Table(
    "kept_positions",
    metadata,
    Column("reader", String(32), primary_key=True),
    Column("log_id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary(32), nullable=False),
    Column("basis", DigestBytes, nullable=False),
    sqlite_with_rowid=False,
)
"""Up to which statement a reader has read a log, and the size and root that the log had then (`copy_tables`)."""

replicas = Table(
    "replicas",
    metadata,
    Column("artifact", DigestBytes, primary_key=True),
    Column("held", BigInteger, nullable=False),
    Column("withdrawn", BigInteger, nullable=False),
    Column("damaged", Boolean, nullable=False),
    sqlite_with_rowid=False,
)
"""Artifacts of which this node claimed a copy (`copy_tables`)."""

lacking_replicas = Table(
    "lacking_replicas",
    metadata,
    Column("artifact", DigestBytes, primary_key=True),
    Column("wanted", Boolean, nullable=False),
    sqlite_with_rowid=False,
)
"""Published artifacts that are not complete here: `wanted` ones, and some that the settings do not name."""

waiting_copies = Table(
    "waiting_copies",
    metadata,
    Column("artifact", DigestBytes, primary_key=True),
    Column("due", BigInteger, nullable=False),
    Index(None, "due"),
    sqlite_with_rowid=False,
)
"""Artifacts that a mirror rule copies at a greater age, and the POSIX second from which it does (`copy_tables`)."""

mirror_charges = Table(
    "mirror_charges",
    metadata,
    Column("artifact", DigestBytes, primary_key=True),
    Column("rule", bytewise(200), nullable=False),
    Column("name", String(400), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("charged", BigInteger, nullable=False),
    Column("waits", Boolean, nullable=False),
    Column("member", bytewise(64), nullable=False, server_default=""),
    Column("new", BigInteger, nullable=False, server_default="0"),
    Index(None, "waits", "member", "rule", "new"),
    sqlite_with_rowid=False,
)
"""Artifacts charged to members and to the quotas of mirror rules, and those that wait for room (`copy_tables`)."""

proven_times = Table(
    "proven_times",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
)
"""The POSIX second at which every statement up to `number` was verified here (`copy_tables`)."""

pins = Table(
    "pins",
    metadata,
    Column("artifact", DigestBytes, primary_key=True),
    Column("name", String(512), nullable=False),
    Column("copies", Integer, nullable=False),
    Column("jurisdictions", Integer, nullable=False),
    Column("reaches", Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""Artifacts that the operator pinned (`copy_tables`)."""

parked = Table(
    "parked",
    metadata,
    Column("log_id", ForeignKey("logs.id"), primary_key=True),
    Column("index", BigInteger, primary_key=True, autoincrement=False),
    Column("author", DigestBytes, nullable=False),
    Index(None, "author", "log_id", "index"),
    sqlite_with_rowid=False,
)
"""Lines that no key known so far verifies or refutes."""

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
"""Authors whose parked lines must be verified again, because a line of a log added keys of the author, and the position
up to which that is done. `round` grows with each such line."""

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

writer_heartbeat = Table(
    "writer_heartbeat",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="one_row"),
)
"""When the writer last said that it runs: POSIX milliseconds by the clock of the server. Only PostgreSQL has a row."""

marks = Table(
    "marks",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("identity", String(200), nullable=False),
)
"""Marks of the database, by which a copy is told from it (`comity.node.own_log`)."""
