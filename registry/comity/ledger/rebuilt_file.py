"""An SQLite ledger whose pages are damaged, written again from its sound tables.

`rebuild` makes a new database beside the file, with the tables that SQLite reads from undamaged pages; tables that are
derived stay empty, and the node fills them again (`table_sources`). Of entries and hashes it takes the rows that can be
read; the scrub gets the others. Then the file gets the bytes of the new database, in place: its inode, by which a node
knows its own ledger, stays the same.

    damaged pages -> tables -> ledger.sqlite-making -> ledger.sqlite-rebuilt -> ledger.sqlite

After a crash before the last step everything is as it was; after a crash within it, the next start repeats it
(`finish`). Nothing is done while there is a write-ahead log, whose pages would be of the damaged file.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.content.durable import disk_errors
from comity.ledger import name_search, schema
from comity.ledger.entry_rows import named_objects
from comity.ledger.page_check import SQLITE_ERRORS
from comity.ledger.page_files import SUFFIX
from comity.ledger.revisions import NEWEST
from comity.ledger.stored_lines import unpack_line
from comity.ledger.table_sources import TableSource, emptied_with, source_of
from comity.rules.tiles import WIDTH
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, OutOfSpace
from comity.trust.tlog.merkle import leaf_hash, root

MAKING: Final = "-making"
REBUILT: Final = "-rebuilt"
"""Follow the name of the file: a new database that is not complete yet, and one that is."""
_TABLES: Final = "SELECT name FROM main.sqlite_master WHERE type = 'table' AND rootpage > 0"
ROWIDS: Final = 4
"""Numbers of rows that are tried for each entry: some were given to rows that are deleted. The scrub gets the rest."""
ROWS_READ: Final = 256
"""Rows in one read of a damaged table; if it fails, they are read one by one."""


def finish(file: Path) -> bool:
    """Put a complete new database in the place of `file`, if there is one. Returns whether there was. Raises
    Unavailable, OutOfSpace."""
    rebuilt = _beside(file, REBUILT)
    with disk_errors("the repaired ledger was not put in its place"):
        _beside(file, MAKING).unlink(missing_ok=True)
        if not rebuilt.exists():
            return False
        for suffix in (SUFFIX, "-wal", "-shm"):
            _beside(file, suffix).unlink(missing_ok=True)
        with rebuilt.open("rb") as source, file.open("r+b") as target:
            target.truncate(rebuilt.stat().st_size)
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            durable.fsync(target.fileno(), point="ledger.rebuilt.fsync")
        rebuilt.unlink()
        durable.sync(file.parent, point="ledger.rebuilt.folder")
    return True


def has_tables(file: Path) -> bool:
    """Whether the tables of `file`, which nobody writes, are those of this version."""
    try:
        with closing(_reading(file)) as database:
            return bool(database.execute("SELECT version_num FROM alembic_version").fetchall() == [(NEWEST,)])
    except SQLITE_ERRORS:
        return False


def damaged_tables(file: Path, damaged: Collection[int]) -> frozenset[str] | None:
    """The tables that have damaged pages, of a file that nobody writes; an index alone does not count: it is
    made again. None if the list of the tables itself is damaged."""
    pages, found = set(damaged), set[str]()
    try:
        with closing(_reading(file)) as database:
            if pages & _pages_of(database, "sqlite_schema"):
                return None
            for (table,) in database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
            ).fetchall():
                try:
                    hit = bool(pages & _pages_of(database, table))
                except SQLITE_ERRORS:
                    hit = True
                found |= {str(table)} if hit else set()
    except SQLITE_ERRORS:
        return None
    return frozenset(found)


def rebuild(file: Path, empty: Path, damaged: Collection[int]) -> frozenset[str] | None:
    """Write `file` again without its damaged pages. Returns the tables that are to be filled again; None if nothing was
    done, because the damage is in a table that is nowhere else, or in the list of the tables.

    Args:
        empty: a database with the same tables and no rows, which is used up.

    Raises Unavailable, OutOfSpace.
    """
    tables = damaged_tables(file, damaged)
    if tables is None or TableSource.HERE in map(source_of, tables):
        empty.unlink()
        return None
    emptied, by_row = emptied_with(tables), tables & {schema.entries.name}
    if by_row:
        by_row |= emptied & {schema.tiles.name}  # hashes of entries that are missing are computed from none
    with disk_errors("the repaired ledger was not written"):
        try:
            _copy_tables(file, empty, without=emptied - by_row, by_row=by_row)
        except (*SQLITE_ERRORS, Malformed) as error:
            empty.unlink()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                hint = "free as much space as the ledger has, and start the node again"
                raise OutOfSpace("the damaged ledger was not repaired", why=str(error), hint=hint) from error
            return None  # more is damaged than the sums tell
        durable.sync(empty, point="ledger.rebuilding.fsync")
        durable.move(empty, _beside(file, REBUILT), point="ledger.rebuilding")
    finish(file)
    return emptied | by_row


def making_file(file: Path) -> Path:
    """Where the new database of `rebuild` is made."""
    return _beside(file, MAKING)


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)


def _reading(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?immutable=1", uri=True)


def _pages_of(database: sqlite3.Connection, name: str) -> set[int]:
    return {int(page) for (page,) in database.execute("SELECT pageno FROM dbstat WHERE name = ?", (name,))}


def _copy_tables(file: Path, target: Path, *, without: Collection[str], by_row: Collection[str]) -> None:
    with closing(sqlite3.connect(target, isolation_level=None, uri=True)) as database:
        database.execute("PRAGMA journal_mode=DELETE")
        database.execute("PRAGMA foreign_keys=OFF")
        database.execute("ATTACH ? AS old", (f"{file.absolute().as_uri()}?immutable=1",))
        database.execute("BEGIN")
        index_too = name_search.TABLE not in without
        for (table,) in database.execute(_TABLES).fetchall():
            if table.startswith(f"{name_search.TABLE}_") and not index_too:
                continue  # an empty index has rows too
            columns = ", ".join(f'"{row[1]}"' for row in database.execute(f"PRAGMA main.table_info('{table}')"))
            database.execute(f"DELETE FROM main.{table}")
            if table in by_row:
                _copy_rows(file, database, table, columns)
            elif table not in without:
                select = f"SELECT {columns} FROM old.{table} NOT INDEXED ORDER BY {_order(database, table)}"
                database.execute(f"INSERT INTO main.{table} ({columns}) {select}")
        if schema.log_objects.name in without:
            _count_objects(database)
        if schema.tiles.name in without:
            _hash_entries(database)
        database.execute("COMMIT")


def _order(database: sqlite3.Connection, table: str) -> str:
    """The order of the rows in the pages of a table: in any other, SQLite may read a damaged index instead of them."""
    (keyed,) = database.execute("SELECT wr FROM pragma_table_list(?) WHERE schema = 'main'", (table,)).fetchone()
    if not keyed:
        return "rowid"
    key = sorted((row[5], row[1]) for row in database.execute(f"PRAGMA main.table_info('{table}')") if row[5])
    return ", ".join(f'"{name}"' for _, name in key)


def _count_objects(database: sqlite3.Connection) -> None:
    """Fill `log_objects`, as `entry_rows` does when it writes entries: by log, the first entry that names an object."""
    rows = database.execute('SELECT log_id, "index", line FROM main.entries ORDER BY log_id, "index"')
    for log_id, index, line in rows:
        named = named_objects(unpack_line(line))
        found = [(log_id, bytes.fromhex(item.digest), index, item.size) for item in named]
        insert = 'INSERT OR IGNORE INTO main.log_objects (log_id, digest, "index", size) VALUES (?, ?, ?, ?)'
        database.executemany(insert, found)


def _hash_entries(database: sqlite3.Connection) -> None:
    """Fill `tiles`, as `tree` does when entries are written."""
    lines = 'SELECT line FROM main.entries WHERE log_id = ? ORDER BY "index"'
    for (log_id,) in database.execute("SELECT id FROM main.logs").fetchall():
        level, hashes = 0, [leaf_hash(unpack_line(line)) for (line,) in database.execute(lines, (log_id,))]
        while hashes:
            rows = [hashes[start : start + WIDTH] for start in range(0, len(hashes), WIDTH)]
            found = [(log_id, level, number, b"".join(row)) for number, row in enumerate(rows)]
            insert = "INSERT INTO main.tiles (log_id, level, number, hashes) VALUES (?, ?, ?, ?)"
            database.executemany(insert, found)
            level, hashes = level + 1, [root(row) for row in rows if len(row) == WIDTH]


def _copy_rows(file: Path, target: sqlite3.Connection, table: str, columns: str) -> None:
    """Copy the rows that can be read and, of entries, have the digest that stands beside them."""
    marks = ", ".join("?" * (columns.count(",") + 1))
    with closing(_reading(file)) as database:  # a connection that met damage writes nothing more
        for row in _readable_rows(database, table, columns):
            if table != schema.entries.name or _is_whole(row):
                target.execute(f"INSERT OR IGNORE INTO main.{table} ({columns}) VALUES ({marks})", row)


def _readable_rows(database: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[object, ...]]:
    (staged,) = database.execute("SELECT coalesce(sum(staged), 0) FROM logs").fetchone()
    select = f"SELECT {columns} FROM {table} NOT INDEXED WHERE rowid BETWEEN ? AND ?"
    for start in range(1, ROWIDS * staged + ROWS_READ, ROWS_READ):
        try:
            yield from database.execute(select, (start, start + ROWS_READ - 1)).fetchall()
        except SQLITE_ERRORS:
            for rowid in range(start, start + ROWS_READ):
                with suppress(*SQLITE_ERRORS):
                    yield from database.execute(select, (rowid, rowid)).fetchall()


def _is_whole(row: tuple[object, ...]) -> bool:
    _log, _index, line, digest = row
    try:
        return isinstance(line, bytes) and isinstance(digest, bytes) and sha256(unpack_line(line)) == digest.hex()
    except Malformed:
        return False
