"""The ledgers that tests make have the tables that the migrations make."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from comity.ledger import name_search
from comity.ledger.database import Database, migrate
from comity.ledger.ledger import DATABASE_FILE, Ledger
from comity.ledger.sqlite import SqliteFile
from support.made_ledgers import repeat


def made(
    folder: Path, by: Callable[[Database], None]
) -> tuple[list[tuple[str, ...]], dict[str, list[tuple[object, ...]]]]:
    folder.mkdir()
    backing = SqliteFile(folder / DATABASE_FILE)
    database = Database(backing.engine(), lock := backing.lock())
    by(database)
    database.close()
    lock.release()
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as it:
        schema = it.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()
        tables = [name for kind, name, *_ in schema if kind == "table" and name != name_search.TABLE]
        return schema, {name: it.execute(f"SELECT * FROM {name}").fetchall() for name in tables}


def test_a_repeated_ledger_has_the_tables_indices_and_rows_of_a_migrated_one(tmp_path: Path) -> None:
    assert made(tmp_path / "repeated", repeat) == made(tmp_path / "migrated", migrate)


def test_an_existing_ledger_runs_the_migrations(tmp_path: Path) -> None:
    Ledger.open(tmp_path, lambda: 0).close()
    Ledger.open(tmp_path, lambda: 0).close()
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as it:
        assert it.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
