"""Answers of the inspection of files, kept by digest, name and version of the scanner: each is made once.

The answer depends on the bytes, on the file's own name, on whether its path is that of a chunk of Zarr, and on
`SCANNER_VERSION`, and on nothing else. It is a cache
beside the ledger: a file that is damaged is removed, and its answers are made again. Answers of the version before are
kept until the newer one has answered, so that a changed answer is noticed.

    grows with                        bound
    files of held artifacts           about 300 bytes for each file and name
    answers that a version changed    MAX_CHANGED
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from comity.content.blobs import BlobStore, inspect_blob
from comity.content.sqlite_cache import connect_sqlite_cache, locked_cache, opened_or_made_again
from comity.formats.datasets import is_zarr_chunk
from comity.formats.inspect import SCANNER_VERSION
from comity.trust.artifact import FileEntry
from comity.trust.encoding import Digest
from comity.trust.evidence import Inspection
from comity.trust.frozen import frozen

INSPECTIONS_FILE: Final = "inspections.sqlite"
"""Beside the ledger."""
MAX_CHANGED: Final = 1_000
FAILED: Final = "the answers of the inspection were not read or written"
_VERSION: Final = 2
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS inspection (
    file BLOB NOT NULL, name TEXT NOT NULL, scanner INTEGER NOT NULL, answer TEXT NOT NULL,
    PRIMARY KEY (file, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changed (
    file BLOB NOT NULL, name TEXT NOT NULL, scanner INTEGER NOT NULL, was TEXT NOT NULL, answer TEXT NOT NULL,
    PRIMARY KEY (file, name)) WITHOUT ROWID;
"""


@frozen
class ChangedAnswer:
    """A file about which this version of the scanner says something else than the one before."""

    file: Digest
    name: str
    was: Inspection
    now: Inspection


class KeptInspections:
    """Blocking; thread-safe; several processes may use one file. Each call raises Unavailable (INDEX) where SQLite
    fails, and OutOfSpace for a full disk.

    Args:
        scanner: the version whose answers count.
    """

    def __init__(self, file: Path, scanner: int = SCANNER_VERSION) -> None:
        """Raises Unavailable, OutOfSpace."""
        self._lock = threading.Lock()
        self._scanner = scanner
        self._database = opened_or_made_again(file, FAILED, lambda: connect_sqlite_cache(file, _SCHEMA, _VERSION))

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def kept(self, file: Digest, path: str) -> Inspection | None:
        """The answer of this version; None if it has none yet."""
        sql = "SELECT answer FROM inspection WHERE file = ? AND name = ? AND scanner = ?"
        with self._using() as database:
            row = database.execute(sql, (*_key(file, path), self._scanner)).fetchone()
        return _read(row[0]) if row else None

    def inspect(self, store: BlobStore, entry: FileEntry) -> Inspection:
        """The answer of this version, made now if there is none. Raises also NotFound if the file is not here."""
        seen = self.kept(entry.sha256, entry.path)
        if seen is None:
            seen = inspect_blob(store, entry.sha256, entry.path, entry.size)
            self.keep(entry.sha256, entry.path, seen)
        return seen

    def keep(self, file: Digest, path: str, answer: Inspection) -> None:
        """Keep the answer of this version. If an older version said something else, that is remembered."""
        key, text = _key(file, path), _written(answer)
        with self._using() as database, database:
            row = database.execute("SELECT scanner, answer FROM inspection WHERE file = ? AND name = ?", key).fetchone()
            if row is not None and row[0] > self._scanner:
                return
            if row is not None and row[0] < self._scanner and row[1] != text:
                database.execute("DELETE FROM changed WHERE scanner < ?", (self._scanner,))  # nobody asks for them
                (count,) = database.execute("SELECT count(*) FROM changed").fetchone()
                if count < MAX_CHANGED:
                    values = (*key, self._scanner, row[1], text)
                    database.execute("INSERT OR REPLACE INTO changed VALUES (?, ?, ?, ?, ?)", values)
            database.execute("INSERT OR REPLACE INTO inspection VALUES (?, ?, ?, ?)", (*key, self._scanner, text))

    def changed(self) -> tuple[ChangedAnswer, ...]:
        """The files about which this version says something else than the one before."""
        with self._using() as database:
            sql = "SELECT file, name, was, answer FROM changed WHERE scanner = ? ORDER BY file, name"
            rows = database.execute(sql, (self._scanner,)).fetchall()
        return tuple(
            ChangedAnswer(Digest(file.hex()), name, _read(was), _read(answer)) for file, name, was, answer in rows
        )

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with locked_cache(self._lock, self._database, FAILED) as database:
            yield database


def _key(file: Digest, path: str) -> tuple[bytes, str]:
    place = PurePosixPath(path)
    return bytes.fromhex(file), f".zarr/{place.name}" if is_zarr_chunk(place.parts) else place.name


def _written(answer: Inspection) -> str:
    return json.dumps([answer.format, list(answer.active), list(answer.malformed)])


def _read(text: str) -> Inspection:
    kind, active, malformed = json.loads(text)
    return Inspection(kind, tuple(active), tuple(malformed))
