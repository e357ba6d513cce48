"""SQLite files beside a ledger without which a node can start.

One that caches what was computed from the ledger is removed and computed again if it is damaged, or of another version.
One that cannot be computed again, such as counts, is kept under another name if it is damaged, and a new one begins.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Final, TypeAlias

from comity.content.durable import disk_errors
from comity.trust.errors import OutOfSpace, Unavailable

MAX_WAL_BYTES: Final = 4 * 1024 * 1024
"""Bytes of the write-ahead log that stay on the disk after a checkpoint: SQLite makes one when it has about as many."""

DAMAGED: Final = ".damaged"
"""Added to the name of a damaged file that is kept; a second one has a number besides."""
_BESIDE: Final = ("", "-wal", "-shm")
"""What SQLite adds to the name of a database for the files that it keeps beside it, and the database itself."""

_MAKE_ROOM: Final = "free some space and run the same command again"

OnKept: TypeAlias = Callable[[Path, str], None]
"""Called with the new path of a damaged file, and what is wrong with it."""


def make_tables_or_set_aside(file: Path, schema: str, on_kept: OnKept) -> None:
    """Make the tables that the file lacks. A file that is damaged, or no database, is kept under another name, and a
    new file is made. Damage that is not read here, after the start of the file, is not noticed. Blocking.

    Raises sqlite3.Error if the disk, or another process, keeps the file from being opened; OSError.
    """
    try:
        _make_tables(file, schema)
    except sqlite3.Error as error:
        if not _is_no_cache(error):
            raise
        on_kept(_set_aside(file), str(error))
        _make_tables(file, schema)


def _make_tables(file: Path, schema: str) -> None:
    with opened_sqlite(file, schema):
        pass


@contextmanager
def opened_sqlite(file: Path | str, schema: str) -> Iterator[sqlite3.Connection]:
    """The file with the tables that it lacks, open during the block, for one read or write. Blocking. Raises
    sqlite3.Error."""
    with closing(sqlite3.connect(file, timeout=10)) as database:
        database.executescript(schema)
        yield database


def _set_aside(file: Path) -> Path:
    """Rename a damaged file that is not open, with what SQLite keeps beside it. Returns its new path. Raises
    OSError."""
    number, kept = 1, file.with_name(file.name + DAMAGED)
    while kept.exists():
        number += 1
        kept = file.with_name(f"{file.name}{DAMAGED}-{number}")
    for suffix in _BESIDE:
        with suppress(FileNotFoundError):
            file.with_name(file.name + suffix).rename(kept.with_name(kept.name + suffix))
    return kept


def connect_sqlite(file: Path, schema: str) -> sqlite3.Connection:
    """Open the file, or make it, and make the tables that it lacks. Blocking; the connection may go from thread to
    thread. Raises sqlite3.Error, OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(file, check_same_thread=False, timeout=30)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(f"PRAGMA journal_size_limit = {MAX_WAL_BYTES}")
        database.executescript(schema)
    except sqlite3.Error:
        database.close()
        raise
    return database


def connect_sqlite_cache(file: Path, schema: str, version: int) -> sqlite3.Connection:
    """As `connect_sqlite`. Raises sqlite3.Error also for a file of another version than `version`."""
    database = connect_sqlite(file, "")
    try:
        (found,) = database.execute("PRAGMA user_version").fetchone()
        if found not in (0, version):
            raise sqlite3.DatabaseError("another version of this file")
        database.executescript(schema)
        database.execute(f"PRAGMA user_version = {version}")
        database.commit()
    except sqlite3.Error:
        database.close()
        raise
    return database


def opened_or_made_again(
    file: Path,
    what: str,
    connect: Callable[[], sqlite3.Connection],
    on_kept: OnKept | None = None,
    *,
    kept: bool = False,
) -> sqlite3.Connection:
    """What `connect` opens; if the file is no such cache, that of a new file. One that a full or failing disk, or
    another process, keeps from being opened stays. Blocking.

    Args:
        what: what could not be done if this raises, for the error.
        on_kept: with it, the file that is no such cache is kept under another name: it had what cannot be computed
            again.
        kept: whether nothing in the file can be computed again, for the error.

    Raises OutOfSpace, Unavailable (INDEX; DISK if `kept`).
    """
    try:
        try:
            return connect()
        except sqlite3.Error as error:
            if not _is_no_cache(error):
                raise
            if on_kept is not None:
                on_kept(_set_aside(file), str(error))
            else:
                remove_sqlite_cache(file)
        return connect()
    except sqlite3.Error as error:
        raise _sqlite_error(what, error, kept=kept) from error


def _is_no_cache(error: sqlite3.Error) -> bool:
    """Whether a file could not be opened because of what is in it, and not because of the disk or another process."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def locked_cache(
    lock: Lock, database: sqlite3.Connection, what: str, *, kept: bool = False
) -> Iterator[sqlite3.Connection]:
    """The connection, under its lock. An error of SQLite becomes that of `what`.

    Raises OutOfSpace, Unavailable (INDEX; DISK if `kept`).
    """
    with lock:
        try:
            yield database
        except sqlite3.Error as error:
            raise _sqlite_error(what, error, kept=kept) from error


def _sqlite_error(what: str, error: sqlite3.Error, *, kept: bool) -> OutOfSpace | Unavailable:
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return OutOfSpace(what, why=str(error), hint=_MAKE_ROOM)
    return Unavailable(what, why=str(error), code="DISK") if kept else Unavailable(what, why=str(error), code="INDEX")


@contextmanager
def kept_file_errors(what: str) -> Iterator[None]:
    """Translate an error of SQLite or of the disk inside the block, for a file that cannot be computed again:
    OutOfSpace for a full disk, else Unavailable (DISK). `what` names the operation that failed."""
    try:
        with disk_errors(what):
            yield
    except sqlite3.Error as error:
        raise _sqlite_error(what, error, kept=True) from error


def remove_sqlite_cache(file: Path) -> None:
    """Remove a file that is not open, with what SQLite keeps beside it."""
    for suffix in _BESIDE:
        with suppress(FileNotFoundError):
            file.with_name(file.name + suffix).unlink()
