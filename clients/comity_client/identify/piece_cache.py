"""The piece records of weight files that no node knows, so that another run does not hash their pieces again.

They are kept by the SHA-256 of the file, of which they are true for ever; 36 bytes for a piece. A cache that cannot be
read or written is passed over.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from comity.content.sqlite_cache import opened_sqlite
from comity.trust.encoding import Digest

CACHE_FILE: Final = "pieces.sqlite"
_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS cut (sha256 BLOB PRIMARY KEY, records BLOB) WITHOUT ROWID"


class PieceCache:
    """The records in `folder`, which exists. Thread-safe; blocking."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / CACHE_FILE

    def get(self, file: Digest) -> bytes | None:
        try:
            with opened_sqlite(self._file, _SCHEMA) as database:
                row = database.execute("SELECT records FROM cut WHERE sha256 = ?", (bytes.fromhex(file),)).fetchone()
        except sqlite3.Error:
            return None
        return row[0] if row and isinstance(row[0], bytes) else None

    def keep(self, file: Digest, records: bytes) -> None:
        try:
            with opened_sqlite(self._file, _SCHEMA) as database, database:
                database.execute("INSERT OR REPLACE INTO cut VALUES (?, ?)", (bytes.fromhex(file), records))
        except sqlite3.Error:
            pass  # the next run hashes them again
