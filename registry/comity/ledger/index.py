"""Finding statements: by subject, predicate, author and name, over every log that this node holds.

The rows here are written in the transaction that writes the entries. They hold what a line claims, unverified: whoever
uses a found line verifies it. A line that is no statement has the predicate `UNKNOWN`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, Select, and_, func, insert, or_, select, tuple_

from comity.ledger import schema
from comity.ledger.database import Database
from comity.ledger.rows import LogRow, find_log
from comity.trust.digest import Digest
from comity.trust.errors import Malformed
from comity.trust.statement import Entry

UNKNOWN: Final = ""
MAX_FOUND: Final = 1000
MAX_STRETCH: Final = 8192
MAX_FOLDED: Final = 512
_LAST_CHARACTER: Final = "\U0010ffff"

_LOG, _ENTRY, _STATEMENT, _SUBJECT = schema.logs.c, schema.entries.c, schema.statements.c, schema.subjects.c


@dataclass(frozen=True, slots=True)
class Located:
    """A log line and where it stands: at `index` of the log that `vkey` names for ever."""

    origin: str
    vkey: str
    index: int
    line: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line stands."""

    origin: str
    vkey: str
    index: int


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for; every field that is given must hold.

    Attributes:
        subject: a statement's subject digest.
        predicate: the short name of a predicate (`published`), a foreign predicate's full type, or `UNKNOWN`.
        by: id of the identity or node that claims to speak.
        name: part of a subject's name, in any case.
        prefix: beginning of a subject's name, in any case; far cheaper than `name`.
        origin: the log to look in, by its verifier key, or its origin alone.
    """

    subject: Digest | None = None
    predicate: str | None = None
    by: Digest | None = None
    name: str | None = None
    prefix: str | None = None
    origin: str | None = None


class Index:
    """Searches over the visible entries of all logs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, query: Query, *, limit: int = 100, after: tuple[str, int] | None = None) -> list[Located]:
        """At most `limit` (1 to 1,000) entries that match, in order of log and index; `after` is the last place had: a
        log's verifier key and an index.

        With an `origin` in the query this is a feed: entries that come later stand after all that were returned.
        Raises Malformed for a bad limit, and NotFound(code="NO-SUCH-LOG").
        """
        if not 1 <= limit <= MAX_FOUND:
            raise Malformed("bad limit", why=f"{limit} is not in 1 to {MAX_FOUND}")
        with self._database.reading() as connection:
            wanted = _matching(query)
            if query.origin is not None:
                wanted = wanted.where(_STATEMENT.log_id == find_log(connection, query.origin).id)
            if after is not None:
                last = find_log(connection, after[0]).id
                later = and_(_STATEMENT.log_id == last, _STATEMENT.index > after[1])
                wanted = wanted.where(or_(_STATEMENT.log_id > last, later))
            rows = connection.execute(wanted.limit(limit))
            return [Located(*row) for row in rows]

    def said(self, log: str, predicates: Sequence[str], start: int, end: int) -> list[tuple[int, bytes]]:
        """Index and line of the visible entries of one log, from `start` up to `end` (at most 8,192), that have one of
        these predicates, in order. Raises Malformed for a longer stretch, and NotFound(code="NO-SUCH-LOG")."""
        if not 0 <= end - start <= MAX_STRETCH:
            raise Malformed("bad stretch", why=f"{end - start} entries, at most {MAX_STRETCH}")
        with self._database.reading() as connection:
            return said(connection, find_log(connection, log), predicates, start, end)

    def next_said(self, log: str, predicates: Sequence[str], after: int, limit: int) -> list[Located]:
        """At most `limit` visible entries of one log after the index `after` that have one of these predicates, in
        order. No more lines than that are read. Raises NotFound(code="NO-SUCH-LOG")."""
        with self._database.reading() as connection:
            row = find_log(connection, log)
            stretch = (_STATEMENT.log_id == row.id, _STATEMENT.index > after, _STATEMENT.index < row.size)
            found = sorted(
                index
                for predicate in predicates
                for index in connection.scalars(
                    select(_STATEMENT.index)
                    .where(*stretch, _STATEMENT.predicate == predicate)
                    .order_by(_STATEMENT.index)
                    .limit(limit)
                )
            )[:limit]
            lines = select(_ENTRY.index, _ENTRY.line).where(_ENTRY.log_id == row.id, _ENTRY.index.in_(found))
            return [
                Located(row.origin, row.vkey, index, line)
                for index, line in connection.execute(lines.order_by(_ENTRY.index))
            ]

    def logs_naming(self, by: Digest) -> list[str]:
        """Verifier keys of the logs with a statement that claims to be by this identity or node, the first held first.
        It costs a look a log, however many lines each has."""
        found, last = list[str](), -1
        with self._database.reading() as connection:
            least = select(func.min(_STATEMENT.log_id)).where(_STATEMENT.by == by)
            while (log_id := connection.scalar(least.where(_STATEMENT.log_id > last))) is not None:
                last = log_id
                found.append(connection.scalars(select(_LOG.vkey).where(_LOG.id == log_id)).one())
        return found

    def first(self, log: str, statement: Digest) -> int | None:
        """Where a log says this first, by the digest of what is said (`Entry.statement_digest`), whoever signed it;
        None where it does not. Raises NotFound(code="NO-SUCH-LOG")."""
        with self._database.reading() as connection:
            return first(connection, find_log(connection, log), statement)

    def places(self, line_digest: Digest) -> list[Place]:
        """Everywhere that the line with this SHA-256 stands."""
        standing = (
            select(_LOG.origin, _LOG.vkey, _ENTRY.index)
            .join(schema.entries, _ENTRY.log_id == _LOG.id)
            .where(_ENTRY.digest == line_digest, _ENTRY.index < _LOG.size)
            .order_by(_LOG.id, _ENTRY.index)
            .limit(MAX_FOUND)
        )
        with self._database.reading() as connection:
            return [Place(*row) for row in connection.execute(standing)]


def first(connection: Connection, log: LogRow, statement: Digest) -> int | None:
    """What `Index.first` finds, inside a transaction."""
    here = (_STATEMENT.log_id == log.id, _STATEMENT.statement == statement, _STATEMENT.index < log.size)
    at: int | None = connection.execute(select(func.min(_STATEMENT.index)).where(*here)).scalar()
    return at


def write(connection: Connection, log_id: int, start: int, entries: Sequence[Entry | None]) -> None:
    """Index the entries from `start` on; None is a line that is no statement."""
    statements = [None if entry is None else entry.statement for entry in entries]
    rows = [
        {
            "log_id": log_id,
            "index": index,
            "predicate": UNKNOWN if statement is None else statement.predicate,
            "by": None if statement is None or statement.by is None else statement.by.id,
            "statement": None if entry is None else entry.statement_digest,
        }
        for index, (statement, entry) in enumerate(zip(statements, entries, strict=True), start)
    ]
    connection.execute(insert(schema.statements), rows)
    subjects = [
        {
            "log_id": log_id,
            "index": index,
            "position": position,
            "digest": subject.digest,
            "name": fold(subject.name),
        }
        for index, statement in enumerate(statements, start)
        for position, subject in enumerate(() if statement is None else statement.subjects)
    ]
    if subjects:
        connection.execute(insert(schema.subjects), subjects)


def said(
    connection: Connection, log: LogRow, predicates: Sequence[str], start: int, end: int
) -> list[tuple[int, bytes]]:
    """What `Index.said` finds, inside a transaction."""
    stretch = (_STATEMENT.log_id == log.id, _STATEMENT.index >= start, _STATEMENT.index < min(end, log.size))
    found = (
        select(_ENTRY.index, _ENTRY.line)
        .select_from(schema.statements)
        .join(schema.entries, and_(_ENTRY.log_id == _STATEMENT.log_id, _ENTRY.index == _STATEMENT.index))
        .where(*stretch, _STATEMENT.predicate.in_(predicates))
        .order_by(_STATEMENT.index)
    )
    return [(index, line) for index, line in connection.execute(found)]


def fold(name: str) -> str:
    """The form in which names are compared: without case, and short enough for any database's index."""
    return unicodedata.normalize("NFC", name).casefold()[:MAX_FOLDED]


def _matching(query: Query) -> Select[str, str, int, bytes]:
    found = (
        select(_LOG.origin, _LOG.vkey, _ENTRY.index, _ENTRY.line)
        .select_from(schema.statements)
        .join(schema.entries, and_(_ENTRY.log_id == _STATEMENT.log_id, _ENTRY.index == _STATEMENT.index))
        .join(schema.logs, _LOG.id == _STATEMENT.log_id)
        .where(_STATEMENT.index < _LOG.size)
        .order_by(_STATEMENT.log_id, _STATEMENT.index)
    )
    if query.predicate is not None:
        found = found.where(_STATEMENT.predicate == query.predicate)
    if query.by is not None:
        found = found.where(_STATEMENT.by == query.by)
    about = _about(query)
    if about:
        places = select(_SUBJECT.log_id, _SUBJECT.index).where(*about)
        found = found.where(tuple_(_STATEMENT.log_id, _STATEMENT.index).in_(places))
    return found


def _about(query: Query) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if query.subject is not None:
        conditions.append(_SUBJECT.digest == query.subject)
    if query.prefix is not None:
        least = fold(query.prefix)
        conditions.append(and_(_SUBJECT.name >= least, _SUBJECT.name < least + _LAST_CHARACTER))
    if query.name is not None:
        conditions.append(_SUBJECT.name.contains(fold(query.name), autoescape=True))
    return conditions
