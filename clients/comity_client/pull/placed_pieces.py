"""The index of placed files, by which later pulls reuse their pieces.

It is only a hint: bytes found by it are hashed, and entries of changed or missing files are removed. It is one SQLite
file; losing it costs bandwidth.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from comity.content import fault
from comity.content.durable import disk_errors
from comity.trust.artifact import PieceRecord
from comity.trust.errors import Unavailable

CANDIDATES: Final = 4
"""Maximum number of copies of one piece that are tried."""
_VARIABLES: Final = 500
"""Values in one SQLite query; older versions allow 999."""

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS files (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, "
    "modified INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS pieces (sha256 BLOB NOT NULL, start INTEGER NOT NULL, "
    "file INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE, "
    "PRIMARY KEY (sha256, file, start)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS pieces_of_file ON pieces (file)",
)


class PlacedPieces:
    """The index in `folder`, which must exist. Thread-safe. Raises Unavailable (PIECE-HINTS) if its database fails;
    callers continue without it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "pieces.sqlite"

    def remember(self, path: Path, records: Iterable[PieceRecord]) -> None:
        """Record that `path` has these pieces in this order. Also raises Unavailable (DISK) if it is not there."""
        self.remember_all({path: records})

    def remember_all(self, files: Mapping[Path, Iterable[PieceRecord]]) -> None:
        """As `remember`, for many files in one transaction."""
        found = {path: _stat(path) for path in files}
        with self._transaction() as database:
            for path, records in files.items():
                size, modified = found[path]
                database.execute("DELETE FROM files WHERE path = ?", (str(path),))
                made = database.execute(
                    "INSERT INTO files (path, size, modified) VALUES (?, ?, ?)", (str(path), size, modified)
                )
                offset, rows = 0, list[tuple[bytes, int | None, int]]()
                for record in records:
                    rows.append((record.sha256, made.lastrowid, offset))
                    offset += record.length
                database.executemany("INSERT OR IGNORE INTO pieces (sha256, file, start) VALUES (?, ?, ?)", rows)

    def any_of(self, records: Sequence[PieceRecord]) -> bool:
        """Return whether a place of any of these pieces is recorded, however old."""
        hashes = [record.sha256 for record in records]
        with self._transaction() as database:
            for some in _some(hashes):
                if database.execute(f"SELECT 1 FROM pieces WHERE sha256 IN ({_marks(some)}) LIMIT 1", some).fetchone():
                    return True
        return False

    def find(self, record: PieceRecord) -> list[tuple[Path, int]]:
        """Return possible places of the piece, as (file, offset)."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT files.id, path, size, modified, start FROM pieces JOIN files ON files.id = file "
                "WHERE sha256 = ? LIMIT ?",
                (record.sha256, CANDIDATES),
            ).fetchall()
            gone = {(row[0],) for row in rows if not _unchanged(Path(row[1]), row[2], row[3])}
            database.executemany("DELETE FROM files WHERE id = ?", sorted(gone))
        return [(Path(path), start) for identifier, path, _, _, start in rows if (identifier,) not in gone]

    def find_all(self, hashes: Sequence[bytes]) -> dict[bytes, list[tuple[Path, int]]]:
        """Return possible places of many pieces: for each hash, as (file, offset), those whose files are unchanged."""
        places: dict[bytes, list[tuple[Path, int]]] = {}
        with self._transaction() as database:
            for some in _some(hashes):
                rows = database.execute(
                    "SELECT sha256, path, size, modified, start FROM pieces JOIN files ON files.id = file "
                    f"WHERE sha256 IN ({_marks(some)})",
                    some,
                )
                for sha256, path, size, modified, start in rows:
                    found = places.setdefault(sha256, [])
                    if len(found) < CANDIDATES and _unchanged(Path(path), size, modified):
                        found.append((Path(path), start))
        return places

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
            raise Unavailable("the index of placed files failed", why=why, hint=hint, code="PIECE-HINTS") from error


def _unchanged(path: Path, size: int, modified: int) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns) == (size, modified)


def _some(hashes: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The hashes, as many at a time as one query may have."""
    return (hashes[start : start + _VARIABLES] for start in range(0, len(hashes), _VARIABLES))


def _marks(values: Collection[bytes]) -> str:
    return ", ".join("?" * len(values))


def _stat(path: Path) -> tuple[int, int]:
    with disk_errors(f"{path} was not remembered"):
        found = path.stat()
    return found.st_size, found.st_mtime_ns
