"""The database under a ledger: connections, transactions, and what its failures mean.

SQLite runs with a write-ahead log and `synchronous=FULL`: a commit that has returned survives a power cut. Readers see
one snapshot and never wait; writers take turns, and take the database's write lock when they begin, so that what they
read is what they change. No table is known here.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from comity.content import fault
from comity.trust.errors import ComityError, Conflict, OutOfSpace, Unavailable, Untrusted

BUSY_TIMEOUT: Final = 10.0
"""Seconds to wait for another process's lock (a backup, a reader's checkpoint) before giving up."""
CONNECTIONS: Final = 16

_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_NOTHING_WRITTEN: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY})
_SQLSTATE_DISK_FULL: Final = "53100"


class Database:
    """Transactions on one database. Thread-safe.

    A commit that fails for any reason but a full disk may or may not have reached the disk. From then on every write
    is refused with Unavailable(code="LEDGER-FAILED"): only opening the ledger again finds out what stands.
    """

    def __init__(self, url: str | URL) -> None:
        url = make_url(url)
        self._engine = _sqlite(url) if url.get_backend_name() == "sqlite" else _server(url)
        self._writers = self._engine.execution_options(comity_writes=True)
        self._turn = threading.Lock()
        self._failed = False

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one snapshot and leaves nothing. Raises what `failure` returns."""
        with _failures(), self._engine.connect() as connection, connection.begin() as transaction:
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
        with self._turn, _failures(), engine.connect() as connection, connection.begin() as transaction:
            if self._failed:
                raise Unavailable(
                    "the ledger takes no more writes",
                    why="an earlier commit failed, and may or may not have reached the disk",
                    hint="restart the node: it finds out at start",
                    code="LEDGER-FAILED",
                )
            yield connection
            fault.point(f"ledger.{step}.before-commit")
            try:
                transaction.commit()
            except SQLAlchemyError as error:
                self._failed = not _nothing_written(error)
                raise
            fault.point(f"ledger.{step}.after-commit")


def failure(error: SQLAlchemyError) -> ComityError:
    """What a failure of the database means in our words."""
    why = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    code = _sqlite_code(error)
    if code == sqlite3.SQLITE_FULL or _sqlstate(error) == _SQLSTATE_DISK_FULL:
        return OutOfSpace("the ledger's disk is full", why=why, hint="free some space and try again")
    if code == sqlite3.SQLITE_BUSY or isinstance(error, PoolTimeout):
        return Conflict("the ledger's database is busy", why=why, code="LEDGER-BUSY")
    if code in _CORRUPT or isinstance(error, IntegrityError):
        return Untrusted(
            "the ledger is damaged",
            why=why,
            hint="restore it from a backup, and let the node ask its cosigners for its newest checkpoint",
            code="LEDGER-CORRUPT",
        )
    return Unavailable("the ledger's database failed", why=why, code="LEDGER-FAILED")


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise failure(error) from error


def _nothing_written(error: SQLAlchemyError) -> bool:
    return _sqlite_code(error) in _NOTHING_WRITTEN or _sqlstate(error) == _SQLSTATE_DISK_FULL


def _sqlite_code(error: SQLAlchemyError) -> int | None:
    """SQLite's primary result code."""
    code = getattr(error.orig, "sqlite_errorcode", None) if isinstance(error, DBAPIError) else None
    return None if code is None else code & 0xFF


def _sqlstate(error: SQLAlchemyError) -> str | None:
    return getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None


def _server(url: URL) -> Engine:
    return create_engine(url, pool_size=CONNECTIONS, pool_pre_ping=True, isolation_level="REPEATABLE READ")


def _sqlite(url: URL) -> Engine:
    engine = create_engine(
        url, pool_size=CONNECTIONS, max_overflow=0, pool_timeout=BUSY_TIMEOUT, connect_args={"timeout": BUSY_TIMEOUT}
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise Unavailable(
                "the ledger cannot be kept here",
                why=f"this file system gives SQLite journal mode {mode!r}, not 'wal'",
                hint="put the ledger on a local disk",
                code="LEDGER-FAILED",
            )
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA trusted_schema=OFF")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("comity_rebuilds", False):
            connection.detach()  # closed in the end, so that nobody else has it without its checks
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        writes = options.get("comity_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
