"""The items of the Hub's list that were made before, in an SQLite file beside the ledger.

An item is what a list shows of a repository, with the subjects on which it depends: the name, the artifact and the
author. Every item in the file includes all statements up to the position (`comity.node.projection`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Final

from comity.node.projection import Position, Projection, ProjectionTables
from comity.trust.frozen import frozen

FILE_NAME: Final = "hub-list.sqlite"
KEPT: Final = 600
"""Seconds for which an item is kept that may change without a statement."""
_SCHEMA: Final = """
CREATE TABLE item (
    name TEXT PRIMARY KEY, artifact TEXT NOT NULL, author TEXT NOT NULL, manifest_size INTEGER NOT NULL,
    until INTEGER NOT NULL, document TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX item_artifact ON item (artifact);
CREATE INDEX item_author ON item (author);
"""
_TABLES: Final = ProjectionTables("hub list", "the list of the gateway", 2, _SCHEMA)


@frozen
class KeptItem:
    """An item of the list. `until`: POSIX seconds after which it is made again, 0 for never. `document` is JSON; empty
    if the repository is not served; then `artifact` and `author` may be empty."""

    name: str
    artifact: str
    author: str
    manifest_size: int
    until: int
    document: str


_ROW: Final = attrgetter(*(field.name for field in fields(KeptItem)))


class ListFile(Projection):
    """Each call raises as those of `Projection`."""

    def __init__(self, file: Path, basis: str) -> None:
        """Open the file, or make it. Raises Unavailable, OutOfSpace."""
        super().__init__(file, _TABLES, basis)

    def get(self, names: Collection[str]) -> dict[str, KeptItem]:
        """The items with these names, which are folded."""
        marks = ",".join("?" * len(names))
        with self._reading() as database:
            rows = database.execute(f"SELECT * FROM item WHERE name IN ({marks})", tuple(names)).fetchall()
        return {row[0]: KeptItem(*row) for row in rows}

    def put(self, items: Iterable[KeptItem]) -> None:
        with self._writing() as database:
            database.executemany("INSERT OR REPLACE INTO item VALUES (?, ?, ?, ?, ?, ?)", map(_ROW, items))

    def follow(self, subjects: Sequence[str], position: Position) -> None:
        """Remove the items with one of these names, artifacts or authors, and move the position."""
        with self._writing(position) as database:
            for column in ("name", "artifact", "author"):
                database.executemany(f"DELETE FROM item WHERE {column} = ?", [(subject,) for subject in subjects])
