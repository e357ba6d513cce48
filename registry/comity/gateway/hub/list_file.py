"""The items of the Hub's list that were made before, in an SQLite file beside the ledger.

An item is what a list shows of a repository, with the subjects on which it depends: the name, the artifact and the
author. The file keeps the number and the digest of the last statement that was followed: every item in it includes all
statements up to there. A start goes on from there; a file of another ledger, or made on another basis (charter, nodes,
policy), is begun again. It can be deleted.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from comity.content.durable import disk_errors
from comity.content.sqlite_cache import connect_sqlite_cache, locked_cache, opened_or_made_again
from comity.trust.encoding import Digest

FILE_NAME: Final = "hub-list.sqlite"
KEPT: Final = 600
"""Seconds for which an item is kept that may change without a statement."""
_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS state (
    id INTEGER PRIMARY KEY CHECK (id = 1), basis TEXT NOT NULL, number INTEGER NOT NULL, line TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS item (
    name TEXT PRIMARY KEY, artifact TEXT NOT NULL, author TEXT NOT NULL, manifest_size INTEGER NOT NULL,
    until INTEGER NOT NULL, document TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS item_artifact ON item (artifact);
CREATE INDEX IF NOT EXISTS item_author ON item (author);
"""


@dataclass(frozen=True, slots=True)
class KeptItem:
    """An item of the list. `until`: POSIX seconds after which it is made again, 0 for never. `document` is JSON; empty
    if the repository is not served; then `artifact` and `author` may be empty."""

    name: str
    artifact: str
    author: str
    manifest_size: int
    until: int
    document: str


class ListFile:
    """Blocking; thread-safe. Every method also raises Unavailable (INDEX) if the file cannot be read."""

    def __init__(self, file: Path, basis: str) -> None:
        """Open the file, or make it. Raises Unavailable, OutOfSpace."""
        self._lock = threading.Lock()
        what = "the list of the gateway was not opened"
        with disk_errors(what):
            connect = partial(connect_sqlite_cache, file, _SCHEMA, _VERSION)
            self._database = opened_or_made_again(file, what, connect)
        if self._state()[0] != basis:
            self.begin_again(basis)

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @property
    def position(self) -> tuple[int, str]:
        """The number and the digest of the last statement that was followed; 0 and empty at the beginning."""
        _, number, line = self._state()
        return number, line

    def get(self, names: Collection[str]) -> dict[str, KeptItem]:
        """The items with these names, which are folded."""
        marks = ",".join("?" * len(names))
        with self._reading() as database:
            rows = database.execute(f"SELECT * FROM item WHERE name IN ({marks})", tuple(names)).fetchall()
        return {row[0]: KeptItem(*row) for row in rows}

    def put(self, items: Iterable[KeptItem]) -> None:
        """Raises OutOfSpace, Unavailable (INDEX)."""
        rows = [
            (each.name, each.artifact, each.author, each.manifest_size, each.until, each.document) for each in items
        ]
        with self._writing() as database:
            database.executemany("INSERT OR REPLACE INTO item VALUES (?, ?, ?, ?, ?, ?)", rows)

    def follow(self, subjects: Sequence[str], number: int, line: Digest) -> None:
        """Remove the items with one of these names, artifacts or authors, and move the position. Raises OutOfSpace,
        Unavailable (INDEX)."""
        with self._writing() as database:
            for column in ("name", "artifact", "author"):
                database.executemany(f"DELETE FROM item WHERE {column} = ?", [(subject,) for subject in subjects])
            database.execute("UPDATE state SET number = ?, line = ?", (number, line))

    def clear(self, number: int, line: Digest) -> None:
        """Remove every item, and move the position. Raises OutOfSpace, Unavailable (INDEX)."""
        with self._writing() as database:
            database.execute("DELETE FROM item")
            database.execute("UPDATE state SET number = ?, line = ?", (number, line))

    def begin_again(self, basis: str) -> None:
        """Remove every item; the position is the beginning. Raises OutOfSpace, Unavailable (INDEX)."""
        with self._writing() as database:
            database.execute("DELETE FROM item")
            database.execute("INSERT OR REPLACE INTO state VALUES (1, ?, 0, '')", (basis,))

    def _state(self) -> tuple[str, int, str]:
        with self._reading() as database:
            row = database.execute("SELECT basis, number, line FROM state").fetchone()
        return row or ("", 0, "")

    def _reading(self) -> AbstractContextManager[sqlite3.Connection]:
        return locked_cache(self._lock, self._database, "the list of the gateway was not read")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        what = "the list of the gateway was not written"
        with locked_cache(self._lock, self._database, what) as database, database:
            yield database
