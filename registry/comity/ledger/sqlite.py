"""A ledger in a file: SQLite with a write-ahead log and `synchronous=FULL`.

Writers take the database's write lock when they begin, so that what they read is what they change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event

from comity.content.durable import disk_errors
from comity.ledger.database import FolderLock
from comity.trust.errors import Unavailable

BUSY_TIMEOUT: Final = 10.0
"""Seconds to wait for another process's lock (a backup, a reader's checkpoint) before giving up."""
CONNECTIONS: Final = 16


class SqliteFile:
    """The database in `file`, locked by its folder."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def lock(self) -> FolderLock:
        with disk_errors("the ledger's folder was not locked"):
            return FolderLock(self._file.parent)

    def engine(self) -> Engine:
        engine = create_engine(
            URL.create("sqlite", database=str(self._file)),
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=BUSY_TIMEOUT,
            connect_args={"timeout": BUSY_TIMEOUT},
        )
        event.listen(engine, "connect", _settle_sqlite)
        event.listen(engine, "begin", _begin)
        return engine

    def identity(self) -> str:
        """Which file it is."""
        with disk_errors("the ledger was not looked at"):
            return str(self._file.stat().st_ino)


def _settle_sqlite(connection: Any, _record: object) -> None:
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


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("comity_rebuilds", False):
        connection.detach()  # closed in the end, so that nobody else has it without its checks
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    writes = options.get("comity_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
