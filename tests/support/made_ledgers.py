"""New SQLite ledgers of tests: the migrations run once a process, and later ledgers get the same tables by their SQL. A
statement is compiled once a process, for SQLite and for PostgreSQL.

Alembic needs a tenth of a second for the tables of one ledger, and hundreds of tests make one. Tests of migrations call
`comity.ledger.database.migrate`, which is unchanged; nodes in processes of their own run every migration.
"""

from __future__ import annotations

import functools
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from comity.ledger import ledger, name_search
from comity.ledger.database import Database, migrate
from comity.ledger.ledger import DATABASE_FILE
from comity.ledger.sqlite import SqliteFile
from sqlalchemy import Engine, create_engine
from sqlalchemy.util import LRUCache

COMPILED: Final = 2_000
"""How many compiled statements of SQLAlchemy are kept: more than all ledgers of tests have."""
Statement = tuple[str, tuple[object, ...]]


def remember_migrations() -> None:
    """From now on, `Ledger.open` of this process repeats in a new SQLite file what the migrations made in the first."""
    ledger.migrate = repeat  # type: ignore[attr-defined]


def cache_sql_statements() -> None:
    """From now on, all SQLite ledgers of this process share compiled statements. Each engine has a dialect and compiled
    statements of its own; compiling took a third of the time of a new ledger with some lines.
    """
    real = SqliteFile.engine

    def engine(self: SqliteFile) -> Engine:
        made, shared = real(self), _first_engine()
        made.dialect, made._compiled_cache = shared.dialect, shared._compiled_cache
        return made

    SqliteFile.engine = engine  # type: ignore[method-assign]


@functools.cache
def cache_postgres_statements() -> None:
    """From now on, all PostgreSQL ledgers of this process do so, too: with the dialect of the first, once it has
    connected and so knows the server.
    """
    from comity.ledger import postgres

    real, first = postgres._make_engine, list[Engine]()
    compiled: LRUCache[Any, Any] = LRUCache(COMPILED)

    def engine(connect: Callable[[], Any]) -> Engine:
        made = real(connect)
        if first and first[0].dialect.server_version_info:
            made.dialect, made._compiled_cache = first[0].dialect, compiled
        elif not first:
            made._compiled_cache = compiled
            first.append(made)
        return made

    postgres._make_engine = engine


@functools.cache
def _first_engine() -> Engine:
    """An engine that has connected, so that its dialect knows SQLite as it is here."""
    made = create_engine("sqlite://", query_cache_size=COMPILED)
    made.connect().close()
    made.dispose()
    return made


def repeat(database: Database, revision: str = "head") -> None:
    """As `migrate`; migrations run up to `revision`, and for ledgers that are not new."""
    with database.reading() as connection:
        new = (
            connection.dialect.name == "sqlite"
            and not connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()
        )
    if not new or revision != "head":
        migrate(database, revision)
        return
    with database.rebuilding("migrate") as connection:
        for sql, values in _statements():
            connection.exec_driver_sql(sql, values)


@functools.cache
def _statements() -> tuple[Statement, ...]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / DATABASE_FILE
        backing = SqliteFile(file)
        database = Database(backing.engine(), lock := backing.lock())
        migrate(database)
        database.close()
        lock.release()
        with closing(sqlite3.connect(file)) as made:
            return tuple(_dumped(made))


def _dumped(made: sqlite3.Connection) -> Iterator[Statement]:
    """The SQL that makes the tables, indices and rows of a new ledger. A virtual table makes its own shadow tables."""
    found = made.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY rowid").fetchall()
    for kind, name, sql in found:
        if name.startswith(("sqlite_", f"{name_search.TABLE}_")):
            continue
        yield sql, ()
        if kind == "table" and name != name_search.TABLE:
            for row in made.execute(f"SELECT * FROM {name}"):
                yield f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row
