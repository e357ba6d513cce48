"""The piece records of weight files that no node knows, so that another run does not hash their pieces again.

They are kept by the SHA-256 of the file, of which they are true for ever; 36 bytes for a piece. Where they would exceed
`MAX_BYTES`, those that were written first go. A cache that cannot be read or written is passed over.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from comity.content.sqlite_cache import opened_sqlite
from comity.trust.encoding import Digest

CACHE_FILE: Final = "pieces.sqlite"
MAX_BYTES: Final = 64 * 1024 * 1024
"""Of all records, and `_ROW` for each file: about the size of the database."""
_ROW: Final = 128
_SCHEMA: Final = """
DROP TABLE IF EXISTS cut;
CREATE TABLE IF NOT EXISTS kept (start INTEGER PRIMARY KEY, sha256 BLOB UNIQUE, records BLOB)
"""
"""`start`: the bytes of all rows that were written before, also of those that are gone. `cut` is the table of an
earlier version, without a bound."""
_END: Final = f"SELECT start + length(records) + {_ROW} FROM kept ORDER BY start DESC LIMIT 1"


class PieceCache:
    """The records in `folder`, which exists. Thread-safe; blocking."""

    def __init__(self, folder: Path, most: int = MAX_BYTES) -> None:
        self._file = folder / CACHE_FILE
        self._most = most

    def get(self, file: Digest) -> bytes | None:
        try:
            with opened_sqlite(self._file, _SCHEMA) as database:
                row = database.execute("SELECT records FROM kept WHERE sha256 = ?", (bytes.fromhex(file),)).fetchone()
        except sqlite3.Error:
            return None
        return row[0] if row and isinstance(row[0], bytes) else None

    def keep(self, file: Digest, records: bytes) -> None:
        size = len(records) + _ROW
        if size > self._most:
            return
        try:
            with opened_sqlite(self._file, _SCHEMA) as database, database:
                database.execute("BEGIN IMMEDIATE")
                (start,) = database.execute(_END).fetchone() or (0,)
                row = (start, bytes.fromhex(file), records)
                database.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", row)
                database.execute("DELETE FROM kept WHERE start < ?", (start + size - self._most,))
        except sqlite3.Error:
            pass  # the next run hashes them again
