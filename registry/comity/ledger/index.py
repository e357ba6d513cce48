"""Finding proven statements by subject, predicate and author, over every log that this node holds, in order of log and
index; and every place where a line stands, proven or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Select, and_, or_, select, tuple_

from comity.ledger import intake, schema
from comity.ledger.database import Database
from comity.ledger.facts import KNOWN, OTHER
from comity.ledger.rows import LogRow, find_log
from comity.trust.digest import Digest
from comity.trust.errors import Malformed, Unavailable

MAX_FOUND: Final = 1000
MAX_STRETCH: Final = 8192

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
        predicate: the short name of a predicate (`published`).
        by: id of the identity or node that speaks.
        origin: the log to look in, by its verifier key, or its origin alone.
    """

    subject: Digest | None = None
    predicate: str | None = None
    by: Digest | None = None
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
        """Index and line of the proven statements of one log, from `start` up to `end` (at most 8,192), that have one
        of these predicates, in order.

        Raises Malformed for a longer stretch, NotFound(code="NO-SUCH-LOG"), and Unavailable(code="LOG-STARTING") where
        the intake has not come as far as `end`: what it has not seen may be anything.
        """
        if not 0 <= end - start <= MAX_STRETCH:
            raise Malformed("bad stretch", why=f"{end - start} entries, at most {MAX_STRETCH}")
        with self._database.reading() as connection:
            return said(connection, find_log(connection, log), predicates, start, end)

    def first(self, log: str, statement: Digest) -> int | None:
        """Where a log says this first, by the digest of what is said (`Entry.statement_digest`), whoever signed it;
        None where it is not proven to. Raises NotFound(code="NO-SUCH-LOG")."""
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
    here = (_STATEMENT.log_id == log.id, _STATEMENT.statement == statement)
    return connection.execute(select(_STATEMENT.index).where(*here)).scalar_one_or_none()


def said(
    connection: Connection, log: LogRow, predicates: Sequence[str], start: int, end: int
) -> list[tuple[int, bytes]]:
    """What `Index.said` finds, inside a transaction."""
    if intake.position(connection, log) < min(end, log.size):
        raise Unavailable(
            "this log was not read yet",
            why=f"the intake has not come to entry {end} of {log.origin}",
            hint="try again in a moment",
            code="LOG-STARTING",
        )
    stretch = (_STATEMENT.log_id == log.id, _STATEMENT.index >= start, _STATEMENT.index < min(end, log.size))
    found = (
        select(_ENTRY.index, _ENTRY.line)
        .select_from(schema.statements)
        .join(schema.entries, and_(_ENTRY.log_id == _STATEMENT.log_id, _ENTRY.index == _STATEMENT.index))
        .where(*stretch, _STATEMENT.predicate.in_(predicates))
        .order_by(_STATEMENT.index)
    )
    return [(index, line) for index, line in connection.execute(found)]


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
    if query.subject is not None:
        places = select(_SUBJECT.log_id, _SUBJECT.index).where(_SUBJECT.digest == query.subject)
        if query.predicate is not None:
            places = places.where(_SUBJECT.kind == (query.predicate if query.predicate in KNOWN else OTHER))
        found = found.where(tuple_(_STATEMENT.log_id, _STATEMENT.index).in_(places))
    return found
