"""A ledger copied into another database: all rows, those that changed since, and lines that are proven there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from comity.ledger import schema
from comity.ledger.database import Database
from comity.ledger.ledger import Backing, Ledger, LockedDatabase
from comity.ledger.sqlite import SqliteFile
from comity.ledger.table_copy import copy_tables, count_rows, verify_logs
from comity.trust.errors import Untrusted
from sqlalchemy import delete, select, text, update
from support.logs import LogKeys, statement_line, statement_lines

OWN = LogKeys.generate("own.example/log")
FAR = LogKeys.generate("far.example/log")


def ignored(_count: int) -> None:
    pass


@pytest.fixture(name="source")
def _source(tmp_path: Path) -> Iterator[LockedDatabase]:
    with closing(sqlite(tmp_path / "source")) as opened:
        ledger = Ledger.of(opened, lambda: 1_000)
        ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        ledger.logs.create(FAR.origin, FAR.vkey)
        ledger.logs.append(OWN.vkey, [*statement_lines(0, 300), statement_line(300, predicate="published")])
        state = ledger.logs.get(OWN.vkey)
        ledger.logs.set_note(OWN.vkey, OWN.note(state.size, state.root))
        ledger.logs.stage(FAR.vkey, 0, [b"no statement", *statement_lines(0, 5)])
        yield opened


@pytest.fixture(name="target")
def _target(backing: Backing | None, tmp_path: Path) -> Iterator[LockedDatabase]:
    backing = backing or SqliteFile(tmp_path / "target" / "ledger.sqlite")
    with closing(LockedDatabase.take(tmp_path / "target", backing, all_pages=True)) as opened:
        yield opened


def sqlite(folder: Path) -> LockedDatabase:
    return LockedDatabase.take(folder, SqliteFile(folder / "ledger.sqlite"), all_pages=True)


def rows(database: Database) -> dict[str, list[str]]:
    with database.reading() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(select(table))))
            for table in schema.metadata.sorted_tables
            if table.name not in ("writer", "writer_heartbeat", "marks")
        }


def copied(source: LockedDatabase, target: LockedDatabase) -> int:
    written = copy_tables(source.database, target.database, ignored)
    assert rows(source.database) == rows(target.database)
    return written


def test_every_row_arrives_once(source: LockedDatabase, target: LockedDatabase) -> None:
    assert copied(source, target) == count_rows(source.database) > 900
    assert copied(source, target) == 0
    assert verify_logs(source.database, target.database, ignored) == 301


def test_a_target_comes_back_as_it_was(source: LockedDatabase, target: LockedDatabase, tmp_path: Path) -> None:
    copied(source, target)
    with closing(sqlite(tmp_path / "back")) as back:
        copied(target, back)
        assert rows(back.database) == rows(source.database)


def test_what_a_running_ledger_changed_is_copied_again(source: LockedDatabase, target: LockedDatabase) -> None:
    copied(source, target)
    ledger = Ledger.of(source, lambda: 1_000)
    ledger.logs.append(OWN.vkey, statement_lines(400, 410))
    lines = [b"another line", *statement_lines(7, 9)]
    root = ledger.logs.stage(FAR.vkey, 0, lines)
    ledger.logs.advance(FAR.vkey, len(lines), [], FAR.note(len(lines), root))
    assert 0 < copied(source, target) < 100
    assert verify_logs(source.database, target.database, ignored) == 314


def test_rows_that_are_gone_or_numbered_otherwise_do_not_stay(source: LockedDatabase, target: LockedDatabase) -> None:
    copied(source, target)
    statements, pieces = schema.statements, schema.piece_records
    with source.database.writing("test") as connection:
        connection.execute(update(statements).values(number=statements.c.number + 1_000))
        connection.execute(update(statements).values(number=1_400 - statements.c.number))
        connection.execute(delete(schema.cosignatures))
        connection.execute(delete(schema.checkpoints))
    with target.database.writing("test") as connection:
        connection.execute(pieces.insert().values(blob="ab" * 32, layout="x", records=b"", seal=b"\0" * 32))
    assert copied(source, target) >= 301


def test_the_target_goes_on(source: LockedDatabase, target: LockedDatabase) -> None:
    """It gives numbers that are free, signs the next root, and finds names."""
    copied(source, target)
    ledger = Ledger.of(target, lambda: 1_000)
    ledger.logs.create("new.example/log", LogKeys.generate("new.example/log").vkey)
    (index,) = ledger.logs.append(OWN.vkey, statement_lines(500, 501))
    assert index == 301
    ledger.history.verify_all(OWN.vkey)


def test_a_line_that_changed_on_the_way_is_found(source: LockedDatabase, target: LockedDatabase) -> None:
    copied(source, target)
    with target.database.writing("test") as connection:
        connection.execute(text('UPDATE entries SET line = :line WHERE "index" = 7'), {"line": b"\0changed"})
    with pytest.raises(Untrusted) as refusal:
        verify_logs(source.database, target.database, ignored)
    assert refusal.value.code == "LEDGER-CORRUPT"
    assert copied(source, target) == 1
