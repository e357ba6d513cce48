"""Rows that a node derives from the proven statements and keeps in SQLite files beside its ledger.

Who needs such rows declares their tables, names the predicates of the statements that it reads, and writes what a
statement changes. The rest is here, once:

    position   the number and the digest of the last statement that was read. It is written in the transaction of the
               last rows of that statement: after a crash, what was not written is read again
    basis      what else the rows depend on, such as the charter, as one text
    begin      the rows are dropped and computed again if the basis or the version of their tables is another one, or if
               the ledger has not the statement that was read last
    steps      at most as many statements at a time as the reader asks for, and `TOGETHER` rows in a transaction

A file without anything else can be deleted. One that also has what cannot be computed again (`kept`) is set aside if it
is damaged.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, Self, TypeVar

import structlog

from comity.content.durable import disk_errors
from comity.content.sqlite_cache import OnKept, connect_sqlite, locked_cache, opened_or_made_again
from comity.ledger.proven import ProvenLine
from comity.node.reading import ReadState
from comity.node.threads import AsyncLedger
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.statement import Envelope

TOGETHER: Final = 1_024
"""Rows that are written in one transaction. Each changes some pages at random places, and all of them are in the
write-ahead log until the transaction ends."""
_POSITIONS: Final = """
CREATE TABLE IF NOT EXISTS followed (
    name TEXT PRIMARY KEY, version INTEGER NOT NULL, basis TEXT NOT NULL, number INTEGER NOT NULL,
    statement TEXT NOT NULL) WITHOUT ROWID;
"""
_TABLE: Final = re.compile(r"CREATE (?:VIRTUAL )?TABLE (\w+)")

_log: Final = structlog.get_logger("comity.node.projection")

T = TypeVar("T")


@frozen
class Position:
    """The number of a proven statement, and its digest; 0 and empty before the first one. (Its line may change: to an
    earlier copy in the same log.)"""

    number: int = 0
    statement: str = ""

    @classmethod
    def at(cls, line: ProvenLine) -> Self:
        return cls(line.number, Envelope.parse(line.line).statement_digest)


START: Final = Position()
"""Nothing was read."""
FIRST: Final = Position(0, "first")
"""Nothing was read, because there was no statement; the first one will be."""


@frozen
class ProjectionTables:
    """What a projection has in its file.

    Attributes:
        name: of the projection in the file.
        what: the rows, for errors, such as "the list of the console".
        version: of the schema, and of the way in which rows are derived.
        schema: the tables of the rows and their indexes: they are dropped when the rows are computed again. Empty if
            nothing in the file can be computed again.
        kept: tables in the same file that are never dropped.
        on_kept: with it, a damaged file is set aside.
    """

    name: str
    what: str
    version: int
    schema: str
    kept: str = ""
    on_kept: OnKept | None = None


class Projection:
    """The rows of one reader. Blocking; thread-safe. Each call raises Unavailable where SQLite fails, and OutOfSpace
    for a full disk.

    Args:
        file: the database, which several projections may share; made if it is missing.

    Attributes:
        basis: on what the rows depend besides the ledger.
    """

    def __init__(self, file: Path, tables: ProjectionTables, basis: str = "") -> None:
        """Raises Unavailable, OutOfSpace."""
        self.file = file
        self.basis = basis
        self._tables = tables
        self._lock = threading.Lock()
        opening = f"{tables.what} was not opened"
        with disk_errors(opening):
            connect = partial(connect_sqlite, file, _POSITIONS + tables.kept)
            self._database = opened_or_made_again(file, opening, connect, tables.on_kept, kept=not tables.schema)
        if self._row()[:2] != (tables.version, basis):
            self._restart(basis, START)

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @property
    def position(self) -> Position:
        """The last statement that was read."""
        return Position(*self._row()[2:])

    def begin_again(self, basis: str, position: Position = START) -> None:
        """Drop all rows. They are computed from the statements after `position`, on this basis."""
        self._restart(basis, position)

    def _restart(self, basis: str, position: Position) -> None:
        with self._writing() as database:
            for table in _TABLE.findall(self._tables.schema):
                database.execute(f"DROP TABLE IF EXISTS {table}")
            for statement in self._tables.schema.split(";"):  # `executescript` would end the transaction
                database.execute(statement)
            row = (self._tables.name, self._tables.version, basis, *astuple(position))
            database.execute("INSERT OR REPLACE INTO followed VALUES (?, ?, ?, ?, ?)", row)
        self.basis = basis

    def _row(self) -> tuple[int, str, int, str]:
        wanted = "SELECT version, basis, number, statement FROM followed WHERE name = ?"
        with self._reading() as database:
            row = database.execute(wanted, (self._tables.name,)).fetchone()
        return row or (-1, "", 0, "")

    def _write(
        self,
        rows: Iterable[T],
        write: Callable[[sqlite3.Connection, Sequence[T]], object],
        position: Position | None = None,
    ) -> None:
        """Write rows in transactions of at most `TOGETHER`, and move the position in the last one: what a failure cuts
        short is read again, so that a row may be written twice."""
        rest = iter(rows)
        while True:
            some = list(islice(rest, TOGETHER))
            last = len(some) < TOGETHER
            with self._writing(position if last else None) as database:
                write(database, some)
            if last:
                return

    def _reading(self) -> AbstractContextManager[sqlite3.Connection]:
        return self._locked("read")

    @contextmanager
    def _writing(self, position: Position | None = None) -> Iterator[sqlite3.Connection]:
        """One transaction, which moves the position too if one is given."""
        with self._locked("written") as database:
            try:
                with database:
                    database.execute("BEGIN IMMEDIATE")  # another projection may write to the same file
                    yield database
                    if position is not None:
                        moved = (*astuple(position), self._tables.name)
                        database.execute("UPDATE followed SET number = ?, statement = ? WHERE name = ?", moved)
            except BaseException:
                self._rolled_back(database)
                raise

    def _locked(self, done: str) -> AbstractContextManager[sqlite3.Connection]:
        what, kept = f"{self._tables.what} was not {done}", not self._tables.schema
        return locked_cache(self._lock, self._database, what, kept=kept)

    def _rolled_back(self, database: sqlite3.Connection) -> None:
        """A transaction was not written. For who keeps in memory what rows have."""


class Follower:
    """Reads the statements that a projection has not read. Not thread-safe: call from the event loop.

    Args:
        predicates: of the statements that are read.
        log: the verifier key of the log whose statements are read; None for all logs.
        basis: on what the rows depend besides the ledger, now; without it, what the projection was opened with.
        from_newest: whether rows depend only on statements that come after them, so that a projection without rows
            begins with what comes next.

    Attributes:
        begun: how often the rows were dropped since this object was made.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        rows: Projection,
        predicates: Sequence[str],
        *,
        log: str | None = None,
        basis: Callable[[], str] | None = None,
        from_newest: bool = False,
    ) -> None:
        self._ledger = ledger
        self._rows = rows
        self._predicates = predicates
        self._log = log
        self._basis = basis or (lambda: rows.basis)
        self._from_newest = from_newest
        self._checked: str | None = None
        """The basis on which the rows are, once they were compared with the ledger."""
        self._searched = 0
        """The number of a statement up to which there are no others than those that were read."""
        self.begun = 0

    async def next(self, limit: int) -> list[ProvenLine]:
        """The next statements, at most `limit`; none if all were read. The same ones come again until the position has
        moved."""
        last = await self._ledger.read(self._ledger.tables.proven.last_number)
        basis = self._basis()
        if (basis, last) == (self._checked, self._searched):
            return []
        return await self._ledger.run(self._read, basis, last, limit)

    def progress(self) -> ReadState:
        """Up to which statement everything was read. Statements after that of which none is read here are not missing
        from the rows. Blocking."""
        total = self._ledger.tables.proven.last_number()
        read = min(total, max(self._rows.position.number, self._searched))
        if read < total and self._checked == self._basis() and not self._since(read, 1):
            read = total
        return ReadState(read, total)

    def check(self) -> None:
        """Begin again if the rows are on another basis, or if the ledger has not the statement that was read last.
        Blocking."""
        self._check(self._basis())

    def _read(self, basis: str, last: int, limit: int) -> list[ProvenLine]:
        position = self._rows.position
        if basis != self._checked or last < max(position.number, self._searched):
            position = self._check(basis)
        lines = self._since(max(position.number, self._searched), limit)
        if not lines:
            self._searched = last
        return lines

    def _check(self, basis: str) -> Position:
        position, same = self._rows.position, self._rows.basis == basis
        known = not position.number or self._has(position)
        if not known:
            _log.warning("what was read of another ledger is read again", file=self._rows.file.name)
        if not (same and known) or (self._from_newest and position == START):
            position = self._newest() if self._from_newest else START
            self._rows.begin_again(basis, position)
            self.begun += 1
        self._checked, self._searched = basis, 0
        return position

    def _has(self, position: Position) -> bool:
        return [Position.at(line) for line in self._since(position.number - 1, 1)] == [position]

    def _newest(self) -> Position:
        number = self._ledger.tables.proven.last_number_of(self._predicates)
        return Position.at(self._since(number - 1, 1)[0]) if number else FIRST

    def _since(self, number: int, limit: int) -> list[ProvenLine]:
        return self._ledger.tables.proven.since(number, self._predicates, limit, self._log)


def packed(digest: Digest) -> bytes:
    """The form in which rows have a digest."""
    return bytes.fromhex(digest)


def unpacked(data: bytes) -> Digest:
    return Digest(data.hex())
