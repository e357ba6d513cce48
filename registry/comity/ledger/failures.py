"""What the failures of a database mean in our words, whichever database it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from comity.trust.errors import ComityError, Conflict, Malformed, OutOfSpace, Unavailable, Untrusted

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
