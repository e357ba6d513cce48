"""A ledger in an SQLite file, with a write-ahead log and `synchronous=FULL`.

A write transaction takes the database's write lock at its beginning, so it changes the same state that it read.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event

from comity.content.durable import disk_errors
from comity.ledger.database import Database, FolderLock, WriterLock, migrate
from comity.ledger.page_check import MAX_EXAMINED_BYTES, ExaminedPages, examine_pages
from comity.ledger.page_files import WriteAheadLog
from comity.ledger.page_sums import CHECKPOINT_BYTES, PageSums, PageTables, shown_pages
from comity.ledger.rebuilt_file import finish, has_tables, making_file, rebuild
from comity.trust.errors import Unavailable

BUSY_TIMEOUT: Final = 10.0
"""Timeout, in seconds, for the lock of another process (a backup, the checkpoint of a reader)."""
CONNECTIONS: Final = 16


class SqliteFile:
    """The database in `file`. The lock is on its folder. `checkpoint_bytes`: see `PageSums`."""

    def __init__(self, file: Path, checkpoint_bytes: int = CHECKPOINT_BYTES) -> None:
        self._file = file
        self._checkpoint_bytes = checkpoint_bytes
        self._checkpoints_itself = True

    def examine(self, lock: WriterLock, *, all_pages: bool) -> ExaminedPages:
        """Compare the file with its sums before SQLite reads it (`page_check`), mend changed bytes, and write it again
        without other damage where its tables can be filled again (`rebuilt_file`). `lock` is held."""
        finish(self._file)
        found = examine_pages(self._file, mend=True, most_bytes=None if all_pages else MAX_EXAMINED_BYTES)
        pages = found.mended + found.damaged
        if not pages:
            return found
        found = replace(found, named=shown_pages(PageTables(self._file).of_pages(pages), pages))
        refilled = self._rebuilt(lock, found.damaged) if found.damaged else None
        return found if refilled is None else replace(found, damaged=(), rewritten=found.damaged, refilled=refilled)

    def _rebuilt(self, lock: WriterLock, damaged: tuple[int, ...]) -> frozenset[str] | None:
        if WriteAheadLog(self._file).has_pages or not has_tables(self._file):
            return None
        making = making_file(self._file)
        with closing(Database(SqliteFile(making).engine(), lock)) as database:
            migrate(database)
        return rebuild(self._file, making, damaged)

    def pages(self) -> PageSums:
        """Sums of the pages of the file. From now on `PageSums` makes all checkpoints, and SQLite makes none."""
        self._checkpoints_itself = False
        return PageSums(self._file, self._checkpoint_bytes)

    def lock(self) -> FolderLock:
        with disk_errors("cannot lock the ledger's folder"):
            return FolderLock(self._file.parent)

    def engine(self) -> Engine:
        engine = create_engine(
            URL.create("sqlite", database=str(self._file)),
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=BUSY_TIMEOUT,
            connect_args={"timeout": BUSY_TIMEOUT},
        )
        event.listen(engine, "connect", _configure_connection)
        if not self._checkpoints_itself:
            event.listen(engine, "connect", _make_no_checkpoints)
        event.listen(engine, "begin", _begin)
        return engine

    def identity(self) -> str:
        """Returns the inode number of the file."""
        with disk_errors("cannot read the ledger file"):
            return str(self._file.stat().st_ino)


def reading_engine(file: Path) -> Engine:
    """An engine that only reads a file, which another process may write: it makes no checkpoint and no file."""

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            f"{file.absolute().as_uri()}?mode=ro", timeout=BUSY_TIMEOUT, isolation_level=None, uri=True
        )

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    event.listen(engine, "begin", _begin)
    return engine


CACHED_KIB: Final = 512
"""KiB of pages that a connection keeps in memory, instead of SQLite's 2,000: a node has eight connections or more, and
the system keeps the same pages once for all of them."""
MAX_WAL_BYTES: Final = 4 * 1024 * 1024
"""Bytes of the write-ahead log that stay on the disk between transactions: a large one leaves it as large as itself."""


def _configure_connection(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver must not begin transactions itself
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise Unavailable(
            "SQLite cannot store the ledger durably here",
            why=f"this file system gives SQLite journal mode {mode!r}, not 'wal'",
            hint="put the ledger on a local disk",
            code="LEDGER-FAILED",
        )
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA journal_size_limit={MAX_WAL_BYTES}")
    connection.execute(f"PRAGMA cache_size=-{CACHED_KIB}")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA trusted_schema=OFF")


def _make_no_checkpoints(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA wal_autocheckpoint=0")


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("comity_rebuilds", False):
        connection.detach()  # closed at the end, so that no other transaction runs without foreign keys
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    writes = options.get("comity_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
