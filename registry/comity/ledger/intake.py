"""How far each log went through the intake, and the lines that wait for keys of their author.

Whoever proves lines (the node) reads a stretch of a log, and commits what came of it with the position that it stands
for, in one transaction: a crash leaves the old or the new state, and the intake goes on from there. Lines that nothing
known so far proves or refutes are parked: they cost a small row, are found again by their author, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection, and_, delete, func, insert, select, tuple_, update

from comity.ledger import proving, schema
from comity.ledger.database import Database
from comity.ledger.facts import Fact
from comity.ledger.rows import LogRow, find_log
from comity.trust.digest import Digest
from comity.trust.errors import Conflict

MAX_LINES: Final = 256
MAX_BYTES: Final = 8 * 1024 * 1024
"""Of one stretch."""

_LOG, _ENTRY, _STATEMENT = schema.logs.c, schema.entries.c, schema.statements.c
_INTAKE, _PARKED, _REVISIT = schema.intake.c, schema.parked.c, schema.revisits.c


@dataclass(frozen=True, slots=True)
class Stretch:
    """The next lines of a log for the intake, the first at `start`; `behind` where the log has more after them."""

    log: str
    start: int
    lines: tuple[bytes, ...]
    behind: bool


@dataclass(frozen=True, slots=True)
class Parked:
    """A line that waits for its author's keys. `log` is the verifier key of the log where it stands."""

    log: str
    index: int
    line: bytes


@dataclass(frozen=True, slots=True)
class Revisit:
    """An author whose parked lines are to be looked at again on behalf of a log, and the next of them; none are left
    where `lines` is empty."""

    log: str
    author: Digest
    round: int
    lines: tuple[Parked, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of lines of one log: what is proven, and what waits, with its author; the rest proves nothing."""

    log: str
    proven: tuple[Fact, ...] = ()
    waiting: tuple[tuple[int, Digest], ...] = ()
    seen: Mapping[Digest, int] = field(default_factory=dict)
    """How much was known of the keys of those that wait when their lines were judged (`keys_known`)."""
    refused: tuple[int, ...] = ()
    """Parked lines that can never be proven."""


class Intake:
    """Thread-safe. One caller commits at a time; own logs may be appended to between."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._woken: Counter[str] = Counter()

    def position(self, log: str) -> int:
        """Every entry of a log below it went through the intake. Raises NotFound (NO-SUCH-LOG)."""
        with self._database.reading() as connection:
            return position(connection, find_log(connection, log))

    def behind(self) -> list[str]:
        """The logs that have more for the intake, or parked lines to look at again, by verifier key."""
        done = func.coalesce(_INTAKE.position, 0)
        wanted = select(_LOG.vkey).outerjoin_from(schema.logs, schema.intake, _INTAKE.log_id == _LOG.id)
        again = select(_REVISIT.author).where(_REVISIT.log_id == _LOG.id).exists()
        with self._database.reading() as connection:
            return list(connection.execute(wanted.where((done < _LOG.size) | again).order_by(_LOG.id)).scalars())

    def stretch(self, log: str) -> Stretch:
        """The next lines of a log. Raises NotFound (NO-SUCH-LOG)."""
        with self._database.reading() as connection:
            row = find_log(connection, log)
            start = position(connection, row)
            lines = tuple(_next_lines(connection, row, start))
            return Stretch(row.vkey, start, lines, start + len(lines) < row.size)

    def commit(self, stretch: Stretch, judged: Judged) -> int:
        """Let what came of a stretch stand; how many statements are new.

        Raises Conflict (LOG-MOVED) where another one committed the stretch meanwhile.
        """
        with self._database.writing("intake") as connection:
            log = find_log(connection, stretch.log)
            if position(connection, log) != stretch.start:
                raise Conflict("this stretch went through the intake", why=log.origin, code="LOG-MOVED")
            _park(connection, log, judged.waiting)
            new = proving.write(connection, log.id, judged.proven)
            authors = list(dict.fromkeys(author for _, author in judged.waiting))
            for author, known in proving.keys_known(connection, authors).items():
                if known != judged.seen.get(author, 0):
                    proving.revisit(connection, log.id, author)
            move(connection, log, stretch.start, stretch.start + len(stretch.lines))
            return new

    def next_revisit(self, log: str) -> Revisit | None:
        """An author whose parked lines are to be looked at again since a line of this log proved more of its keys."""
        with self._database.reading() as connection:
            row = find_log(connection, log)
            due = select(schema.revisits).where(_REVISIT.log_id == row.id).order_by(_REVISIT.author).limit(1)
            found = connection.execute(due).one_or_none()
            if found is None:
                return None
            after = tuple_(_PARKED.log_id, _PARKED.index) > (found.after_log, found.after_index)
            wanted = (
                select(_LOG.vkey, _PARKED.index, _ENTRY.line)
                .select_from(schema.parked)
                .join(schema.entries, and_(_ENTRY.log_id == _PARKED.log_id, _ENTRY.index == _PARKED.index))
                .join(schema.logs, _LOG.id == _PARKED.log_id)
                .where(_PARKED.author == found.author, after)
                .order_by(_PARKED.log_id, _PARKED.index)
                .limit(MAX_LINES)
            )
            lines = _bounded(Parked(*each) for each in connection.execute(wanted))
            return Revisit(row.vkey, found.author, found.round, tuple(lines))

    def commit_revisit(self, revisit: Revisit, judged: Sequence[Judged]) -> int:
        """Let what came of parked lines stand, log by log; how many statements are new.

        Where more of the author's keys became known meanwhile, its lines are looked at once more, from the first.
        """
        new, woken = 0, Counter[str]()
        with self._database.writing("revisit") as connection:
            for item in judged:
                log = find_log(connection, item.log)
                woken[log.vkey] = proving.write(connection, log.id, item.proven)
                new += woken[log.vkey]
                gone = [*(proven.index for proven in item.proven), *item.refused]
                parked = (_PARKED.log_id == log.id, _PARKED.index.in_(gone))
                connection.execute(delete(schema.parked).where(*parked))
            by = find_log(connection, revisit.log)
            here = (_REVISIT.log_id == by.id, _REVISIT.author == revisit.author, _REVISIT.round == revisit.round)
            if revisit.lines:
                last = find_log(connection, revisit.lines[-1].log)
                place = {"after_log": last.id, "after_index": revisit.lines[-1].index}
                connection.execute(update(schema.revisits).where(*here).values(place))
            else:
                connection.execute(delete(schema.revisits).where(*here))
        self._woken += woken
        return new

    def woken(self, log: str) -> int:
        """How many parked lines of a log (its verifier key) came to stand since the ledger was opened: whoever reads a
        log in its own order begins anew when that number rises."""
        return self._woken[log]

    def revisit(self, log: str, authors: Sequence[Digest]) -> None:
        """Have parked lines of these authors looked at again, on behalf of a log."""
        with self._database.writing("revisit") as connection:
            row = find_log(connection, log)
            for author in authors:
                proving.revisit(connection, row.id, author)

    def keys_known(self, authors: Sequence[Digest]) -> dict[Digest, int]:
        """How much is known of the keys of these authors, at most 256: a number that rises with all that becomes
        known."""
        with self._database.reading() as connection:
            return proving.keys_known(connection, authors)

    def known(self, log: str, statements: Sequence[Digest]) -> dict[Digest, int]:
        """Which of these statements, at most 256, are proven in a log, and where they stand there."""
        with self._database.reading() as connection:
            row = find_log(connection, log)
            here = (_STATEMENT.statement.in_(statements), _STATEMENT.log_id == row.id)
            rows = connection.execute(select(_STATEMENT.statement, _STATEMENT.index).where(*here))
            return {name: index for name, index in rows}  # noqa: C416 (rows are no pairs)

    def proven_lines(self, statements: Sequence[Digest]) -> frozenset[Digest]:
        """Digests of the lines by which these statements, at most 256, are proven in whichever logs."""
        wanted = (
            select(_ENTRY.digest)
            .select_from(schema.statements)
            .join(schema.entries, and_(_ENTRY.log_id == _STATEMENT.log_id, _ENTRY.index == _STATEMENT.index))
            .where(_STATEMENT.statement.in_(statements))
            .distinct()
        )
        with self._database.reading() as connection:
            return frozenset(connection.execute(wanted).scalars())

    def parked(self) -> int:
        """How many lines wait for keys of their author."""
        with self._database.reading() as connection:
            return connection.execute(select(func.count()).select_from(schema.parked)).scalar() or 0


def position(connection: Connection, log: LogRow) -> int:
    """As `Intake.position`, inside a transaction."""
    wanted = select(_INTAKE.position).where(_INTAKE.log_id == log.id)
    return connection.execute(wanted).scalar_one_or_none() or 0


def move(connection: Connection, log: LogRow, start: int, end: int) -> None:
    """Take note that the entries from `start` to `end` went through the intake, where those before them did."""
    if start == end or position(connection, log) != start:
        return
    moved = update(schema.intake).where(_INTAKE.log_id == log.id).values(position=end)
    if not connection.execute(moved).rowcount:
        connection.execute(insert(schema.intake).values(log_id=log.id, position=end))


def _park(connection: Connection, log: LogRow, waiting: Sequence[tuple[int, Digest]]) -> None:
    if waiting:
        rows = [{"log_id": log.id, "index": index, "author": author} for index, author in waiting]
        connection.execute(insert(schema.parked), rows)


def _next_lines(connection: Connection, log: LogRow, start: int) -> Iterator[bytes]:
    end = min(log.size, start + MAX_LINES)
    inside = (_ENTRY.log_id == log.id, _ENTRY.index >= start, _ENTRY.index < end)
    size = 0
    for line in connection.execute(select(_ENTRY.line).where(*inside).order_by(_ENTRY.index)).scalars():
        size += len(line)
        if size > MAX_BYTES:
            return
        yield line


def _bounded(lines: Iterator[Parked]) -> Iterator[Parked]:
    size = 0
    for item in lines:
        size += len(item.line)
        if size > MAX_BYTES:
            return
        yield item
