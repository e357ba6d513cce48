"""Copies the tables of a ledger into another database, which may be of another kind.

Each table is read in pages, in the order of its key, from one snapshot of the source, and each page is compared with
the rows that the target has in the same range of keys. Rows that differ are written, and the page is read again. So a
copy that was interrupted goes on, a copy of a ledger that grew meanwhile writes what is new, and when the call returns
each row of the source was found equal in the target, and the target has no other.

Rows of the source may be gone since an earlier copy. In tables that others refer to, these are found and deleted from
the last table to the first, before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import TypeDecorator

from comity.ledger import schema
from comity.ledger.database import Database, all_logs
from comity.ledger.entry_rows import read_entries
from comity.ledger.intake import named_version
from comity.ledger.name_search import NamedPlace, name_index
from comity.rules.tree_proofs import Frontier
from comity.trust.errors import Untrusted
from comity.trust.tlog.merkle import leaf_hash

PAGE: Final = 1_000
_LARGE: Final[Mapping[str, int]] = {schema.entries.name: 250, schema.piece_records.name: 8}
"""Rows in one page: fewer where one row may have megabytes."""
_OF_ONE_DATABASE: Final = frozenset({schema.writer.name, schema.writer_heartbeat.name, schema.marks.name})
"""Tables about the database itself."""
_Row: TypeAlias = tuple[Any, ...]


def _stored(table: Table) -> Table:
    """The table with the bytes that are stored, which no type of the schema takes apart."""
    columns = [
        Column(
            column.name,
            LargeBinary() if isinstance(column.type, TypeDecorator) else column.type,
            primary_key=column.primary_key,
            autoincrement=False,
        )
        for column in table.columns
    ]
    return Table(table.name, MetaData(), *columns)


_TABLES: Final = tuple(_stored(each) for each in schema.metadata.sorted_tables if each.name not in _OF_ONE_DATABASE)
"""In the order of their references: what a table refers to is before it."""
_REFERRED: Final = frozenset(
    key.column.table.name for each in schema.metadata.sorted_tables for key in each.foreign_keys
)
"""Tables that others refer to."""


def count_rows(database: Database) -> int:
    """The rows of all tables that are copied."""
    with database.reading() as connection:
        return sum(_count(connection, table) for table in _TABLES)


def copy_tables(source: Database, target: Database, advance: Callable[[int], None]) -> int:
    """Make the tables of `target` those of `source`.

    Args:
        advance: is called with the bytes of the source that were compared.

    Returns how many rows were written. Raises Untrusted (LEDGER-CORRUPT) for a database that does not return what was
    written, and the errors of `Database`.
    """
    with source.reading() as reading:
        copy = _TableCopy(reading, target, advance)
        try:
            copy.fill()
        except _RowsAreGone:
            copy.remove()
            copy.fill()
    return copy.written


class _RowsAreGone(Exception):
    """The target has rows that the source does not have, in a table that others refer to, or in the way of others."""


class _TableCopy:
    def __init__(self, reading: Connection, target: Database, advance: Callable[[int], None]) -> None:
        self._reading = reading
        self._target = target
        self._advance = advance
        self.written = 0

    def fill(self) -> None:
        """Write what the source has and the target has not. Raises _RowsAreGone."""
        for table in _TABLES:
            for page in _pages(self._reading, table):
                self._fill_page(table, page)
            with self._target.reading() as connection:
                if _count(connection, table) != _count(self._reading, table):
                    raise _RowsAreGone
        self._continue_numbers()

    def remove(self) -> None:
        """Delete what the source has not, or has otherwise; of rows that others refer to, only what it has not."""
        for table in reversed(_TABLES):
            after: _Row = ()
            while True:
                with self._target.reading() as connection:
                    page = next(_pages(connection, table, after), None)
                if page is None:
                    break
                old, new = _by_key(table, page.rows), _by_key(table, _range(self._reading, table, page))
                same = table.name in _REFERRED
                stale = [key for key, row in old.items() if key not in new or (new[key] != row and not same)]
                if stale:
                    with self._target.writing("move") as connection:
                        _delete(connection, table, stale)
                    self.written += len(stale)
                if page.last is None:
                    break
                after = page.last

    def _fill_page(self, table: Table, page: _Page) -> None:
        with self._target.reading() as connection:
            there = _range(connection, table, page)
        if there != page.rows:
            self._write_page(table, page, _by_key(table, there))
        self._advance(sum(len(value) if isinstance(value, (bytes, str)) else 8 for row in page.rows for value in row))

    def _write_page(self, table: Table, page: _Page, old: Mapping[_Row, _Row]) -> None:
        new = _by_key(table, page.rows)
        gone = [key for key in old if key not in new]
        changed = [key for key, row in new.items() if key in old and old[key] != row]
        if table.name in _REFERRED and gone:
            raise _RowsAreGone
        try:
            with self._target.writing("move") as connection:
                if table.name in _REFERRED:
                    _update(connection, table, [new[key] for key in changed])
                else:
                    _delete(connection, table, [*gone, *changed])
                replaced = () if table.name in _REFERRED else changed
                _insert(connection, table, [row for key, row in new.items() if key not in old or key in replaced])
                if _range(connection, table, page) != page.rows:
                    raise schema.damaged_ledger(f"the target returns other rows of {table.name} than were written")
        except Untrusted as error:
            if isinstance(error.__cause__, IntegrityError):
                raise _RowsAreGone from error
            raise
        self.written += len(gone) + len(new) - sum(old.get(key) == row for key, row in new.items())

    def _continue_numbers(self) -> None:
        """PostgreSQL gives the next row a number of its own counting."""
        with self._target.writing("move") as connection:
            if connection.dialect.name != "postgresql":
                return
            for table in _TABLES:
                if isinstance(table.columns[0].type, Integer) and table.primary_key.columns.keys() == ["id"]:
                    counted = f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), max(id)) FROM {table.name}"
                    connection.execute(text(counted))


class _Page:
    """Rows of one range of keys: after `after` (empty: from the first), up to `last` (None: to the end)."""

    __slots__ = ("after", "last", "rows")

    def __init__(self, after: _Row, last: _Row | None, rows: list[_Row]) -> None:
        self.after, self.last, self.rows = after, last, rows


def _pages(connection: Connection, table: Table, after: _Row = ()) -> Iterator[_Page]:
    """The pages of a table; at least one, which may be empty."""
    limit = _LARGE.get(table.name, PAGE)
    while True:
        wanted = select(table).order_by(*_ordered(connection, table.primary_key)).limit(limit)
        if after:
            wanted = wanted.where(_beyond(connection, table, after))
        rows = [tuple(row) for row in connection.execute(wanted)]
        last = _key(table, rows[-1]) if len(rows) == limit else None
        yield _Page(after, last, rows)
        if last is None:
            return
        after = last


def _range(connection: Connection, table: Table, page: _Page) -> list[_Row]:
    """The rows in the range of a page."""
    wanted = select(table).order_by(*_ordered(connection, table.primary_key))
    if page.after:
        wanted = wanted.where(_beyond(connection, table, page.after))
    if page.last is not None:
        wanted = wanted.where(_up_to(connection, table, page.last))
    return [tuple(row) for row in connection.execute(wanted)]


def _ordered(connection: Connection, columns: Sequence[Any] | Any) -> list[ColumnElement[Any]]:
    """Keys as both kinds of database order them: text by its bytes."""
    by_bytes = connection.dialect.name == "postgresql"
    return [each.collate("C") if by_bytes and isinstance(each.type, String) else each for each in columns]


def _beyond(connection: Connection, table: Table, key: _Row) -> ColumnElement[bool]:
    columns = _ordered(connection, table.primary_key)
    return and_(tuple_(*columns) > tuple_(*_values(table, key)), *_leading(table, key, after=True))


def _up_to(connection: Connection, table: Table, key: _Row) -> ColumnElement[bool]:
    columns = _ordered(connection, table.primary_key)
    return and_(tuple_(*columns) <= tuple_(*_values(table, key)), *_leading(table, key, after=False))


def _leading(table: Table, key: _Row, *, after: bool) -> list[ColumnElement[bool]]:
    """What the index of the key can look up, where the order of its text columns is not that of the index."""
    found = list[Any]()
    for column in table.primary_key:
        if isinstance(column.type, String):
            break
        found.append(column)
    if not found or len(found) == len(key):
        return []
    values = tuple_(*_values(table, key)[: len(found)])
    return [tuple_(*found) >= values if after else tuple_(*found) <= values]


def _values(table: Table, key: _Row) -> list[ColumnElement[Any]]:
    return [bindparam(None, value, column.type) for column, value in zip(table.primary_key, key, strict=True)]


def _by_key(table: Table, rows: Sequence[_Row]) -> dict[_Row, _Row]:
    return {_key(table, row): row for row in rows}


def _key(table: Table, row: _Row) -> _Row:
    return tuple(value for column, value in zip(table.columns, row, strict=True) if column.primary_key)


def _count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _same_key(table: Table) -> ColumnElement[bool]:
    return and_(*(column == bindparam(f"key_{column.name}") for column in table.primary_key))


def _named_key(table: Table, key: _Row) -> dict[str, Any]:
    return {f"key_{column.name}": value for column, value in zip(table.primary_key, key, strict=True)}


def _insert(connection: Connection, table: Table, rows: Sequence[_Row]) -> None:
    if not rows:
        return
    names = [column.name for column in table.columns]
    connection.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows])
    if table.name == schema.publications.name:
        _index_names(connection, table, rows)


def _update(connection: Connection, table: Table, rows: Sequence[_Row]) -> None:
    if rows:
        others = [column.name for column in table.columns if not column.primary_key]
        values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in others}
        parameters = [
            {
                **_named_key(table, _key(table, row)),
                **{f"new_{c.name}": value for c, value in zip(table.columns, row, strict=True) if not c.primary_key},
            }
            for row in rows
        ]
        connection.execute(update(table).where(_same_key(table)).values(values), parameters)


def _delete(connection: Connection, table: Table, keys: Sequence[_Row]) -> None:
    if not keys:
        return
    connection.execute(delete(table).where(_same_key(table)), [_named_key(table, key) for key in keys])
    if table.name == schema.publications.name:  # names are added to their index, and never removed one by one
        name_index(connection).clear(connection)
        for page in _pages(connection, table):
            _index_names(connection, table, page.rows)


def _index_names(connection: Connection, table: Table, rows: Sequence[_Row]) -> None:
    at = {column.name: place for place, column in enumerate(table.columns)}
    places = [
        NamedPlace(row[at["turn"]], row[at["log_id"]], named_version(row[at["name"]], row[at["version"]]))
        for row in rows
    ]
    name_index(connection).add(connection, places)


def verify_logs(source: Database, target: Database, advance: Callable[[int], None]) -> int:
    """Compute the root of each log in the target from its lines, and compare it with that in the source. Returns the
    number of lines. Raises Untrusted (LEDGER-CORRUPT)."""
    with source.reading() as connection:
        wanted = {log.vkey: (log.size, log.root) for log in all_logs(connection)}
    count = 0
    with target.reading() as connection:
        for log in all_logs(connection):
            size, root = wanted.pop(log.vkey, (0, b""))
            frontier = Frontier.empty().extend(_leaves(read_entries(connection, log, 0, size), advance))
            if frontier.root() != root:
                raise schema.damaged_ledger(f"the {size} entries of {log.origin} have another root than the log")
            count += size
    if wanted:
        raise schema.damaged_ledger(f"{len(wanted)} logs are missing in the target")
    return count


def _leaves(lines: Iterator[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    for line in lines:
        advance(len(line))
        yield leaf_hash(line)
