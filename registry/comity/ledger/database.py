"""What the failures of a database mean in our words, whichever database it is.

One writer process for each ledger, for as long as the process lives.

The lock of a ledger in a folder is the kernel's (`flock`), so that it goes with the process however that ends. Nothing
in the file matters. `advisory` has the lock of a ledger in PostgreSQL.


Transactions on the database under a ledger, and what becomes of them when it fails.

A commit that has returned survives a power cut. Readers see one snapshot and never wait; writers take turns, so that
what they read is what they change. How a database is told to keep that is said in `sqlite` and `postgres`; no table is
known here.


Bringing a database to the tables that this code knows, or refusing one that is ahead of it.

The row of a log, as the rooms of the ledger pass it to one another inside a transaction.

What keeps a writer out that lost the ledger's lock and does not know it yet.

Whoever has opened the ledger raises a number in it, and reads that number again, holding its row, in each transaction
that writes. Raising it waits until such transactions have ended. So whatever an earlier writer commits, it commits
before the next one begins; from then on it finds another number, and writes nothing. No clock comes into it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from comity.content import fault
from comity.ledger import schema
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, OutOfSpace, Refused, Unavailable, Untrusted
from comity.trust.tlog.note import VerifierKey

_SQLITE_FULL: Final = frozenset({sqlite3.SQLITE_FULL})
_SQLITE_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY})
_SQLITE_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

# SQLSTATE, as PostgreSQL lists them.
_DISK_FULL: Final = frozenset({"53100"})
_CONTENDED: Final = frozenset({"40001", "40P01", "55P03"})
"""A transaction that ran into another one, or that waited for its locks for too long."""
_CORRUPTED: Final = frozenset({"XX001", "XX002"})


@contextmanager
def translated() -> Iterator[None]:
    """Raise what `failure` makes of what the database raises."""
    try:
        yield
    except SQLAlchemyError as error:
        raise failure(error) from error


def failure(error: SQLAlchemyError) -> ComityError:
    """OutOfSpace, Conflict(code="LEDGER-BUSY"), Untrusted(code="LEDGER-CORRUPT"), Malformed for what no database could
    hold, and Unavailable(code="LEDGER-FAILED") for all else."""
    why = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    if _is(error, _SQLITE_FULL, _DISK_FULL):
        return OutOfSpace("the ledger's disk is full", why=why, hint="free some space and try again")
    if _is(error, _SQLITE_BUSY, _CONTENDED) or isinstance(error, PoolTimeout):
        return Conflict("the ledger's database is busy", why=why, code="LEDGER-BUSY")
    if _is(error, _SQLITE_CORRUPT, _CORRUPTED) or isinstance(error, IntegrityError):
        return Untrusted(
            "the ledger is damaged",
            why=why,
            hint="restore it from a backup, and let the node ask its cosigners for its newest checkpoint",
            code="LEDGER-CORRUPT",
        )
    if isinstance(error, DataError):
        return Malformed("not a value that a ledger can hold", why=why)
    return Unavailable("the ledger's database failed", why=why, code="LEDGER-FAILED")


def nothing_written(error: SQLAlchemyError) -> bool:
    """Whether it is certain that a commit that failed so left nothing."""
    return _is(error, _SQLITE_FULL | _SQLITE_BUSY, _DISK_FULL | _CONTENDED)


def _is(error: SQLAlchemyError, sqlite_codes: frozenset[int], sqlstates: frozenset[str]) -> bool:
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", None)  # the low byte is SQLite's primary result code
    return (code is not None and code & 0xFF in sqlite_codes) or getattr(error.orig, "sqlstate", None) in sqlstates


NAME: Final = "ledger.lock"


class WriterLock(Protocol):
    """Held from the moment it was made until `release`, or until it is lost."""

    def require(self) -> None:
        """Raises Unavailable(code="LEDGER-LOCK-LOST") once it is held no longer. Quick; called from any thread."""

    def release(self) -> None:
        """Let another process have it."""


class FolderLock:
    """Holds the exclusive lock on a ledger folder. Raises Conflict(code="LEDGER-LOCKED")."""

    def __init__(self, folder: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(folder / NAME, flags, 0o600), "rb")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise taken("stop the node that runs on this folder, or wait until it has ended") from error

    def require(self) -> None:
        """The kernel takes it from nobody."""

    def release(self) -> None:
        self._file.close()


def taken(hint: str) -> Conflict:
    why = "another process writes to it, and a log has one writer"
    return Conflict("the ledger is in use", why=why, hint=hint, code="LEDGER-LOCKED")


def lost(why: str) -> Unavailable:
    return Unavailable(
        "this node no longer writes its ledger",
        why=why,
        hint="start the node again: it takes the lock, or says who has it",
        code="LEDGER-LOCK-LOST",
    )


class Database:
    """Transactions on one database, whose lock is held. Thread-safe.

    A commit that fails may or may not have reached the disk, unless the failure says that nothing was written. From
    then on every write is refused with Unavailable(code="LEDGER-FAILED"): only opening the ledger again finds out what
    stands. Without the lock, writes are refused with Unavailable(code="LEDGER-LOCK-LOST").
    """

    def __init__(self, engine: Engine, lock: WriterLock) -> None:
        self._engine = engine
        self._writers = engine.execution_options(comity_writes=True)
        self._lock = lock
        self._admit: Callable[[Connection], None] = lambda connection: None
        self._turn = threading.Lock()
        self._failed = False
        self.version = 0
        """How often something was committed here: while the number stands, so do all answers."""

    def guard(self, admit: Callable[[Connection], None]) -> None:
        """Have `admit` called at the beginning of each write; what it raises refuses that."""
        self._admit = admit

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one snapshot and leaves nothing. Raises what `failures.failure` returns."""
        with translated(), self._engine.connect() as connection, connection.begin() as transaction:
            yield connection
            transaction.rollback()

    @contextmanager
    def writing(self, step: str) -> Iterator[Connection]:
        """A transaction that is on the disk, whole, when the block has ended without an exception, and else nowhere.

        Args:
            step: names the fault points `ledger.<step>.before-commit` and `ledger.<step>.after-commit`.
        """
        with self._writing(self._writers, step) as connection:
            yield connection

    @contextmanager
    def rebuilding(self, step: str) -> Iterator[Connection]:
        """As `writing`, and tables may be made anew, as SQLite alters them: meanwhile rows may refer to nothing.

        Raises Untrusted(code="LEDGER-CORRUPT") where one does in the end.
        """
        with self._writing(self._writers.execution_options(comity_rebuilds=True), step) as connection:
            yield connection
            if connection.dialect.name == "sqlite" and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                raise Untrusted(
                    "the ledger is damaged", why="a row refers to one that is missing", code="LEDGER-CORRUPT"
                )

    @contextmanager
    def _writing(self, engine: Engine, step: str) -> Iterator[Connection]:
        with self._turn, translated(), engine.connect() as connection, connection.begin() as transaction:
            self._require()
            self._admit(connection)
            yield connection
            fault.point(f"ledger.{step}.before-commit")
            self._require()
            try:
                transaction.commit()
            except SQLAlchemyError as error:
                self._failed = not nothing_written(error)
                raise
            self.version += 1
            fault.point(f"ledger.{step}.after-commit")

    def _require(self) -> None:
        self._lock.require()
        if self._failed:
            raise Unavailable(
                "the ledger takes no more writes",
                why="an earlier commit failed, and may or may not have reached the disk",
                hint="restart the node: it finds out at start",
                code="LEDGER-FAILED",
            )


SCRIPTS: Final = Path(__file__).parent / "migrations"

_one_at_a_time = threading.Lock()
"""Alembic hands the connection to its scripts through globals."""


def migrate(database: Database, revision: str = "head") -> None:
    """Apply what is missing up to `revision`, all of it in one transaction. Raises Refused(code="LEDGER-NEWER")."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    with database.reading() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise Refused(
            "the ledger is newer than this program",
            why=f"its tables are at {current}, which is not known here",
            hint="install the version of Comity that wrote it, or a later one",
            code="LEDGER-NEWER",
        )
    if current != scripts.get_current_head():
        with _one_at_a_time, database.rebuilding("migrate") as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)


_LOG = schema.logs.c


@dataclass(frozen=True, slots=True)
class LogRow:
    """`weight` is what the log costs to keep, what is staged included."""

    id: int
    origin: str
    vkey: str
    own: bool
    size: int
    root: bytes
    staged: int
    weight: int

    @property
    def key(self) -> VerifierKey:
        return VerifierKey.parse(self.vkey)


def find_log(connection: Connection, name: str) -> LogRow:
    """The log that `name` means. Raises NotFound(code="NO-SUCH-LOG").

    A verifier key names one log for ever. An origin alone, which has no '+', means the log that was first kept here
    under it: whoever binds another key to the same origin later on takes no reader away from it.
    """
    named = _LOG.vkey == name if "+" in name else _LOG.origin == name
    row = connection.execute(select(schema.logs).where(named).order_by(_LOG.id).limit(1)).mappings().one_or_none()
    if row is None:
        raise NotFound("no such log", why=f"this node holds no log called {name[:320]}", code="NO-SUCH-LOG")
    return LogRow(**row)


def all_logs(connection: Connection) -> list[LogRow]:
    """In the order in which they were created."""
    rows = connection.execute(select(schema.logs).order_by(schema.logs.c.id)).mappings()
    return [LogRow(**row) for row in rows]


_NUMBER: Final = schema.writer.c.number


def raise_fence(database: Database) -> Callable[[Connection], None]:
    """Shut out every earlier writer. What is returned is called at the beginning of each transaction that writes:
    it raises Unavailable(code="LEDGER-LOCK-LOST") once a later writer has done the same."""
    with database.writing("fence") as connection:
        connection.execute(update(schema.writer).values(number=_NUMBER + 1))
        ours = connection.scalars(select(_NUMBER)).one()

    def require(connection: Connection) -> None:
        if connection.scalar(select(_NUMBER).with_for_update(read=True)) != ours:
            raise lost("another process has opened it since")

    return require
