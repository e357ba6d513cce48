"""Where the pieces of files that were placed before are, so that the next pull takes from the disk what it can.

A hint and never more: whatever is found through it is hashed before it counts, and a file that has changed or gone is
forgotten. One SQLite file; losing it costs bandwidth.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from comity.content import fault
from comity.trust.errors import Unavailable
from comity.trust.pieces import PieceRecord

CANDIDATES: Final = 4
"""Copies of one piece that are tried: the same bytes in a hundred files are read a few times, not a hundred."""

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS files (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, "
    "modified INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS pieces (sha256 BLOB NOT NULL, start INTEGER NOT NULL, "
    "file INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE, "
    "PRIMARY KEY (sha256, file, start)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS pieces_of_file ON pieces (file)",
)


class PlacedPieces:
    """The index in `folder`, which must exist. Safe in threads; raises Unavailable (code PIECE-HINTS) when its database
    does not work: whoever asks goes on without."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "pieces.sqlite"

    def remember(self, path: Path, records: Iterable[PieceRecord]) -> None:
        """`path` holds these pieces in this order."""
        found, offset, rows = path.stat(), 0, list[tuple[bytes, int]]()
        for record in records:
            rows.append((record.sha256, offset))
            offset += record.length
        with self._transaction() as database:
            database.execute("DELETE FROM files WHERE path = ?", (str(path),))
            made = database.execute(
                "INSERT INTO files (path, size, modified) VALUES (?, ?, ?)",
                (str(path), found.st_size, found.st_mtime_ns),
            )
            database.executemany(
                "INSERT OR IGNORE INTO pieces (sha256, file, start) VALUES (?, ?, ?)",
                ((sha256, made.lastrowid, start) for sha256, start in rows),
            )

    def find(self, record: PieceRecord) -> list[tuple[Path, int]]:
        """Places where the piece may be, as (file, offset)."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT files.id, path, size, modified, start FROM pieces JOIN files ON files.id = file "
                "WHERE sha256 = ? LIMIT ?",
                (record.sha256, CANDIDATES),
            ).fetchall()
            gone = {(row[0],) for row in rows if not _unchanged(Path(row[1]), row[2], row[3])}
            database.executemany("DELETE FROM files WHERE id = ?", sorted(gone))
        return [(Path(path), start) for identifier, path, _, _, start in rows if (identifier,) not in gone]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._file, timeout=10)) as database:
                with database:
                    database.execute("PRAGMA foreign_keys = ON")
                    for statement in _SCHEMA:
                        database.execute(statement)
                    yield database
                    fault.point("placed.before-commit")
                fault.point("placed.after-commit")
        except sqlite3.Error as error:
            why = f"{error}, in {self._file}"
            hint = f"rm {self._file}"
            raise Unavailable(
                "the index of placed files does not work", why=why, hint=hint, code="PIECE-HINTS"
            ) from error


def _unchanged(path: Path, size: int, modified: int) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns) == (size, modified)
