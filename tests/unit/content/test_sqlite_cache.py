"""Files beside a ledger: which are made again, which are kept under another name, and which stay."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

import pytest
from comity.content.sqlite_cache import (
    connect_sqlite_cache,
    make_tables_or_set_aside,
    opened_or_made_again,
    opened_sqlite,
)
from comity.trust.errors import ComityError, OutOfSpace, Unavailable

SCHEMA = "CREATE TABLE IF NOT EXISTS item (name TEXT PRIMARY KEY)"
WHAT = "the list was not opened"


def opened(file: Path, version: int = 1) -> list[str]:
    """The items of the file, opened as a cache."""
    database = opened_or_made_again(file, WHAT, partial(connect_sqlite_cache, file, SCHEMA, version))
    try:
        return [name for (name,) in database.execute("SELECT name FROM item")]
    finally:
        database.close()


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    """A cache with an item."""
    file = tmp_path / "cache.sqlite"
    database = connect_sqlite_cache(file, SCHEMA, 1)
    database.execute("INSERT INTO item VALUES ('kept')")
    database.commit()
    database.close()
    return file


def test_an_invalid_cache_file_is_made_again(file: Path) -> None:
    assert opened(file) == ["kept"]
    assert opened(file, version=2) == []
    file.write_bytes(b"no database" * 1000)
    assert opened(file) == []


@pytest.mark.parametrize(
    ("code", "kind"), [(sqlite3.SQLITE_FULL, OutOfSpace), (sqlite3.SQLITE_IOERR, Unavailable)], ids=["full", "failing"]
)
def test_a_disk_that_cannot_be_written_loses_no_file(file: Path, code: int, kind: type[ComityError]) -> None:
    def refused() -> sqlite3.Connection:
        error = sqlite3.OperationalError("the disk refused it")
        error.sqlite_errorcode = code
        raise error

    with pytest.raises(kind, match=WHAT):
        opened_or_made_again(file, WHAT, refused)
    assert opened(file) == ["kept"]


def test_a_damaged_file_that_cannot_be_computed_again_is_kept_under_another_name(file: Path) -> None:
    told: list[Path] = []

    def on_kept(kept: Path, why: str) -> None:
        told.append(kept)
        assert why

    make_tables_or_set_aside(file, SCHEMA, on_kept)
    assert (opened(file), told) == (["kept"], [])
    for kept in ("cache.sqlite.damaged", "cache.sqlite.damaged-2"):
        damaged = b"damaged" + file.read_bytes()[7:]
        file.write_bytes(damaged)
        make_tables_or_set_aside(file, SCHEMA, on_kept)
        assert told[-1] == file.with_name(kept)
        assert told[-1].read_bytes() == damaged
        assert opened(file) == []


def test_a_file_that_another_process_locks_is_not_set_aside(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> sqlite3.Connection:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    with monkeypatch.context() as busy:
        busy.setattr(sqlite3, "connect", refused)
        with pytest.raises(sqlite3.OperationalError):
            make_tables_or_set_aside(file, SCHEMA, lambda kept, why: None)
    assert opened(file) == ["kept"]
    assert [path.name for path in file.parent.iterdir() if "damaged" in path.name] == []


def test_a_damaged_file_that_is_opened_for_one_read_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, connect = list[sqlite3.Connection](), sqlite3.connect

    def watched(file: Path, timeout: float) -> sqlite3.Connection:
        made.append(connect(file, timeout=timeout))
        return made[-1]

    monkeypatch.setattr(sqlite3, "connect", watched)
    (tmp_path / "cache").write_bytes(b"no database" * 1000)
    with pytest.raises(sqlite3.DatabaseError), opened_sqlite(tmp_path / "cache", SCHEMA):
        pass
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        made[0].execute("SELECT 1")
