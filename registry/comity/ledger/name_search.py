"""Search for publications by parts of their names, in an index of each database behind one contract.

A name with its version is indexed by its grams: every three characters that follow one another. A name that contains a
word has all grams of the word, so the index finds few candidates for a rare word and none for an absent one; the caller
compares the words themselves. Candidates come in the order in which publications are listed (turn, then log): a page
costs what it shows, and a log or a publisher with many publications hides none of another one.

    SQLite       FTS5 with its trigram tokenizer, without positions; a row's number has turn and log
    PostgreSQL   a `tsvector` of grams with a GIN index
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from sqlalchemy import Connection, text

from comity.trust.frozen import frozen

GRAM: Final = 3
"""Characters of a gram. A shorter word cannot be looked up."""
MAX_GRAMS: Final = 32
"""Grams that one search looks up."""
TABLE: Final = "publication_words"
"""The table in both databases. It is not among the portable tables of `schema`."""
_LOG_BITS: Final = 16
_INSERTED: Final = 1_000


@frozen
class NamedPlace:
    """A publication by its place in the list, and its folded name with version."""

    turn: int
    log_id: int
    name: str


class NameIndex(Protocol):
    """An index of names in one database. Each call is part of the caller's transaction."""

    def create(self, connection: Connection) -> None:
        """Create the index, empty."""

    def clear(self, connection: Connection) -> None:
        """Remove all publications."""

    def add(self, connection: Connection, names: Sequence[NamedPlace]) -> None:
        """Add publications, each once."""

    def find(
        self, connection: Connection, grams: Sequence[str], after: tuple[int, int], limit: int
    ) -> list[tuple[int, int]]:
        """Returns turn and log id of publications with all of `grams` (at least one) after `after`, in this order."""


SQLITE_INDEX: Final = "fts5 (name, content = '', tokenize = 'trigram case_sensitive 1', detail = none, columnsize = 0)"
"""An index of names in SQLite, by their grams."""


def sqlite_match(grams: Sequence[str]) -> str:
    """Returns the condition of names with all of these grams."""
    return " AND ".join('"' + gram.replace('"', '""') + '"' for gram in grams)


class SqliteNames:
    def create(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"CREATE VIRTUAL TABLE {TABLE} USING {SQLITE_INDEX}")

    def clear(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"INSERT INTO {TABLE} ({TABLE}) VALUES ('delete-all')")

    def add(self, connection: Connection, names: Sequence[NamedPlace]) -> None:
        rows = [(_row_number(each.turn, each.log_id), each.name) for each in names]
        if rows:
            connection.exec_driver_sql(f"INSERT INTO {TABLE} (rowid, name) VALUES (?, ?)", rows)

    def find(
        self, connection: Connection, grams: Sequence[str], after: tuple[int, int], limit: int
    ) -> list[tuple[int, int]]:
        wanted = f"SELECT rowid FROM {TABLE} WHERE {TABLE} MATCH ? AND rowid > ? ORDER BY rowid LIMIT ?"
        found = connection.exec_driver_sql(wanted, (sqlite_match(grams), _row_number(*after), limit)).scalars()
        return [(number >> _LOG_BITS, number & ((1 << _LOG_BITS) - 1)) for number in found]


class PostgresNames:
    def create(self, connection: Connection) -> None:
        columns = "turn bigint NOT NULL, log_id integer NOT NULL, grams tsvector NOT NULL, PRIMARY KEY (turn, log_id)"
        connection.execute(text(f"CREATE TABLE {TABLE} ({columns})"))
        connection.execute(text(f"CREATE INDEX ix_{TABLE}_grams ON {TABLE} USING gin (grams)"))

    def clear(self, connection: Connection) -> None:
        connection.execute(text(f"DELETE FROM {TABLE}"))

    def add(self, connection: Connection, names: Sequence[NamedPlace]) -> None:
        rows = [{"turn": each.turn, "log_id": each.log_id, "grams": grams_of(each.name)} for each in names]
        if rows:
            values = "(:turn, :log_id, array_to_tsvector(CAST(:grams AS text[])))"
            connection.execute(text(f"INSERT INTO {TABLE} (turn, log_id, grams) VALUES {values}"), rows)

    def find(
        self, connection: Connection, grams: Sequence[str], after: tuple[int, int], limit: int
    ) -> list[tuple[int, int]]:
        quoted = " & ".join("'" + gram.replace("\\", "\\\\").replace("'", "''") + "'" for gram in grams)
        wanted = (
            f"SELECT turn, log_id FROM {TABLE} WHERE grams @@ CAST(:grams AS tsquery)"
            " AND (turn, log_id) > (:turn, :log_id) ORDER BY turn, log_id LIMIT :most"
        )
        values = {"grams": quoted, "turn": after[0], "log_id": after[1], "most": limit}
        return [(turn, log_id) for turn, log_id in connection.execute(text(wanted), values)]


_INDEXES: Final[dict[str, NameIndex]] = {"sqlite": SqliteNames(), "postgresql": PostgresNames()}


def name_index(connection: Connection) -> NameIndex:
    """Returns the index of the database of a connection."""
    return _INDEXES[connection.dialect.name]


def grams_of(*words: str) -> list[str]:
    """Returns the grams of words, each once."""
    return list(dict.fromkeys(word[at : at + GRAM] for word in words for at in range(len(word) - GRAM + 1)))


def create_index(connection: Connection, names: Iterable[NamedPlace]) -> None:
    """Create the index over the publications that are here already: a step of the migrations."""
    index = name_index(connection)
    index.create(connection)
    some: list[NamedPlace] = []
    for each in names:
        some.append(each)
        if len(some) == _INSERTED:
            index.add(connection, some)
            some = []
    index.add(connection, some)


def _row_number(turn: int, log_id: int) -> int:
    return turn << _LOG_BITS | log_id if log_id >= 0 else (turn << _LOG_BITS) - 1
