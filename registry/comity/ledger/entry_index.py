"""Searches for verified entries of all logs: by subject, predicate, signer and log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, Select, and_, func, or_, select, tuple_

from comity.ledger import intake, schema
from comity.ledger.database import Database, LogRow, find_log
from comity.ledger.entry_rows import MAX_LINES
from comity.ledger.subject_reads import OTHER
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Unavailable
from comity.trust.frozen import frozen
from comity.trust.statement_kinds import KNOWN_PREDICATES

_ENTRY = schema.entries.c

MAX_FOUND: Final = 1000

_LOG = schema.logs.c
_STATEMENT = schema.statements.c
_SUBJECT = schema.subjects.c


@frozen
class IndexedEntry:
    """A log line and its position: `index` in the log with the verifier key `vkey`."""

    origin: str
    vkey: str
    index: int
    line: bytes


@frozen
class EntryPosition:
    """The position of a line."""

    origin: str
    vkey: str
    index: int


@frozen
class EntryQuery:
    """A search. An entry must match every field that is set.

    Attributes:
        subject: a statement's subject digest.
        predicate: the short name of a predicate (`published`).
        by: id of the identity or node that signed the statement.
        origin: the verifier key or the origin of the log.
    """

    subject: Digest | None = None
    predicate: str | None = None
    by: Digest | None = None
    origin: str | None = None


class EntryIndex:
    """Searches over the visible entries of all logs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, query: EntryQuery, *, limit: int = 100, after: tuple[str, int] | None = None) -> list[IndexedEntry]:
        """Returns at most `limit` (1 to 1,000) verified entries that match, in order of log and index. `after` is the
        last position of the previous page: the verifier key of a log, and an index.

        With an `origin` in the query, new entries always come after all entries that were returned.
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
            return [IndexedEntry(*row) for row in rows]

    def entries_with(self, log: str, predicates: Sequence[str], start: int, end: int) -> list[tuple[int, bytes]]:
        """Returns index and line of the verified statements of one log that have one of these predicates, in order,
        from `start` to before `end` (at most 8,192 entries).

        Raises Malformed for a longer range, NotFound(code="NO-SUCH-LOG"), and Unavailable(code="LOG-STARTING") if the
        intake has not reached `end`.
        """
        if not 0 <= end - start <= MAX_LINES:
            raise Malformed("bad range of entries", why=f"{end - start} entries, at most {MAX_LINES}")
        with self._database.reading() as connection:
            return entries_with_predicates(connection, find_log(connection, log), predicates, start, end)

    def next_with(self, log: str, predicates: Sequence[str], start: int, end: int) -> int:
        """Returns the index of the first verified statement of a log, from `start` to before `end`, that has one of
        these predicates; `end` if there is none. The cost depends on these statements only. Raises NotFound
        (NO-SUCH-LOG)."""
        with self._database.reading() as connection:
            log_id = find_log(connection, log).id
            # Written so that SQLite takes the index of predicates, not the primary key, which has every statement.
            place = _STATEMENT.index + 0
            inside = (_STATEMENT.log_id == log_id, _STATEMENT.number > 0, place >= start, place < end)
            first = select(func.min(place)).where(*inside)
            found = [connection.scalar(first.where(_STATEMENT.predicate == each)) for each in predicates]
        return min((index for index in found if index is not None), default=end)

    def first_index(self, log: str, statement: Digest) -> int | None:
        """Returns the first index in a log of a verified statement (`Entry.statement_digest`) with any signatures, or
        None. Raises NotFound(code="NO-SUCH-LOG")."""
        with self._database.reading() as connection:
            return first_index(connection, find_log(connection, log), statement)

    def positions(self, line_digest: Digest) -> list[EntryPosition]:
        """Returns the positions of the line with this SHA-256 in all logs, verified or not (at most 1,000)."""
        wanted = (
            select(_LOG.origin, _LOG.vkey, _ENTRY.index)
            .join(schema.entries, _ENTRY.log_id == _LOG.id)
            .where(_ENTRY.digest == line_digest, _ENTRY.index < _LOG.size)
            .order_by(_LOG.id, _ENTRY.index)
            .limit(MAX_FOUND)
        )
        with self._database.reading() as connection:
            return [EntryPosition(*row) for row in connection.execute(wanted)]


def first_index(connection: Connection, log: LogRow, statement: Digest) -> int | None:
    """`EntryIndex.first_index`, inside a transaction."""
    here = (_STATEMENT.log_id == log.id, _STATEMENT.statement == statement)
    return connection.execute(select(_STATEMENT.index).where(*here)).scalar_one_or_none()


def entries_with_predicates(
    connection: Connection, log: LogRow, predicates: Sequence[str], start: int, end: int
) -> list[tuple[int, bytes]]:
    """`EntryIndex.entries_with`, inside a transaction."""
    if intake.position(connection, log) < min(end, log.size):
        raise Unavailable(
            "this log is not indexed yet",
            why=f"the intake has not reached entry {end} of {log.origin}",
            hint="try again later",
            code="LOG-STARTING",
        )
    inside = (_STATEMENT.log_id == log.id, _STATEMENT.index >= start, _STATEMENT.index < min(end, log.size))
    found = (
        select(_ENTRY.index, _ENTRY.line)
        .select_from(schema.statements)
        .join(schema.entries, and_(_ENTRY.log_id == _STATEMENT.log_id, _ENTRY.index == _STATEMENT.index))
        .where(*inside, _STATEMENT.predicate.in_(predicates))
        .order_by(_STATEMENT.index)
    )
    return [(index, line) for index, line in connection.execute(found)]


def _matching(query: EntryQuery) -> Select[str, str, int, bytes]:
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
            places = places.where(_SUBJECT.kind == (query.predicate if query.predicate in KNOWN_PREDICATES else OTHER))
        found = found.where(tuple_(_STATEMENT.log_id, _STATEMENT.index).in_(places))
    return found
