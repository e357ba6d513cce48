"""Reads of the statements about one digest, in the order of `comity.rules.precedence`.

The cost is that of what is read. A digest with few statements is read with one query. Of one with many, only these rows
are read: the last rounds of named authors and members, and the first rounds of the others in each log, a page at a
time. So the number of all statements, of whatever author, does not matter.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, and_, select, tuple_

from comity.ledger import schema
from comity.rules.precedence import OTHERS, Bounds, Precedence, Said, Selection
from comity.rules.precedence import select as choose
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen

OTHER: Final = ""
"""The kind of statements with a predicate that this version does not know."""
FEW: Final = 128
"""Statements about a digest that are read at once."""
PAGE: Final = 64
DIGESTS_TOGETHER: Final = 100
"""Digests in one query."""
AUTHORS_TOGETHER: Final = 200
"""Authors in one query."""
_SUBJECT, _STATEMENT = schema.subjects.c, schema.statements.c
_AT: Final = and_(_STATEMENT.log_id == _SUBJECT.log_id, _STATEMENT.index == _SUBJECT.index)
_WANTED: Final = select(
    _SUBJECT.round, _SUBJECT.kind, _SUBJECT.log_id, _SUBJECT.turn, _SUBJECT.index, _SUBJECT.by, _STATEMENT.statement
).join_from(schema.subjects, schema.statements, _AT)


@frozen
class ProvenPosition:
    """The position of a verified line, to read the line later (`ProvenTables.lines`)."""

    log_id: int
    index: int


@dataclass(frozen=True, slots=True, order=True)
class _SubjectRow:
    round: int
    kind: str
    log_id: int
    turn: int
    index: int
    by: Digest
    statement: Digest

    @property
    def said(self) -> Said[ProvenPosition]:
        place = (self.kind, self.log_id)
        return Said(self.by, self.statement, place, ProvenPosition(self.log_id, self.index))


def read_about(
    connection: Connection, digest: Digest, kinds: Sequence[str], precedence: Precedence, bounds: Bounds
) -> Selection[ProvenPosition]:
    """Returns the positions of the statements about a digest of these kinds, as `comity.rules.precedence.select`
    chooses them."""
    about = (_SUBJECT.digest == digest, _SUBJECT.kind.in_(kinds))
    rows = _rows(connection.execute(_WANTED.where(*about).limit(FEW + 1)))
    if len(rows) > FEW:
        first = list(_first(connection, digest, kinds, precedence, bounds))
        most = min(max(bounds.others, len(first)), bounds.total) + 1 if bounds.others else 0
        rows = [*first, *itertools.islice(_others(connection, digest, kinds, precedence, most), 2 * most)]
    return choose([row.said for row in _ordered(rows, precedence)], precedence, bounds)


def _ordered(rows: Sequence[_SubjectRow], precedence: Precedence) -> list[_SubjectRow]:
    """The order in which the statements of one author are read: kinds and logs in turn; of named authors and members
    the newest ones first, of the others the oldest ones."""
    last: dict[tuple[Digest, str, int], int] = {}
    for row in rows:
        key = (row.by, row.kind, row.log_id)
        last[key] = max(row.round, last.get(key, 0))

    def age(row: _SubjectRow) -> tuple[int, _SubjectRow]:
        known = precedence.group(row.by) != OTHERS
        return (last[row.by, row.kind, row.log_id] - row.round if known else row.round), row

    return sorted(rows, key=age)


def first_authors(connection: Connection, digest: Digest, kinds: Sequence[str], most: int) -> tuple[Digest, ...]:
    """Returns the authors of the statements about a digest of these kinds that this node proved first, each once, at
    most `most`. Of a log, only its first statements are looked at."""
    numbered = select(_STATEMENT.number, _SUBJECT.by).join_from(schema.subjects, schema.statements, _AT)
    found: list[tuple[int, Digest]] = []
    for kind, log_id in _places(connection, digest, kinds):
        here = (_SUBJECT.digest == digest, _SUBJECT.kind == kind, _SUBJECT.log_id == log_id)
        rows = connection.execute(numbered.where(*here).order_by(_SUBJECT.turn).limit(most))
        found += [(number, by) for number, by in rows]  # rows are no pairs
    return tuple(dict.fromkeys(by for _, by in sorted(found)))[:most]


def first_authors_of_each(
    connection: Connection, digests: Sequence[Digest], kinds: Sequence[str], most: int
) -> dict[Digest, tuple[Digest, ...]]:
    """As `first_authors`, for each of some digests. Reads those with few statements together."""
    numbered = select(_SUBJECT.digest, _STATEMENT.number, _SUBJECT.by)
    numbered = numbered.join_from(schema.subjects, schema.statements, _AT).where(_SUBJECT.kind.in_(kinds))
    found: dict[Digest, tuple[Digest, ...]] = {}
    for start in range(0, len(digests), DIGESTS_TOGETHER):
        some = digests[start : start + DIGESTS_TOGETHER]
        rows = connection.execute(numbered.where(_SUBJECT.digest.in_(some)).limit(most * len(some) + 1)).all()
        said: dict[Digest, list[tuple[int, Digest]]] = {digest: [] for digest in some}
        for digest, number, by in rows:
            said[digest].append((number, by))
        whole = len(rows) <= most * len(some)
        for digest, authors in said.items():
            if whole and len(authors) <= most:
                found[digest] = tuple(dict.fromkeys(by for _, by in sorted(authors)))[:most]
            else:
                found[digest] = first_authors(connection, digest, kinds, most)
    return found


def next_round(connection: Connection, digest: Digest, by: Digest, kind: str, log_id: int) -> int:
    """Returns the round of the next statement of an author. Rounds have no gaps, so it is found without reading them
    all."""

    def exists(number: int) -> bool:
        here = (_SUBJECT.digest == digest, _SUBJECT.by == by, _SUBJECT.round == number)
        wanted = select(_SUBJECT.index).where(*here, _SUBJECT.kind == kind, _SUBJECT.log_id == log_id)
        return connection.execute(wanted).first() is not None

    low, high = 0, 1  # every round below `low` exists
    while exists(high - 1):
        low, high = high, 2 * high
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if exists(middle - 1) else (low, middle)
    return low


def _first(
    connection: Connection, digest: Digest, kinds: Sequence[str], precedence: Precedence, bounds: Bounds
) -> Iterator[_SubjectRow]:
    """The rows of named authors and of members, one more of each kind than is chosen."""
    for authors, each in ((precedence.named, bounds.named), (precedence.members - precedence.named, bounds.member)):
        ordered = sorted(authors)
        for start in range(0, len(ordered), AUTHORS_TOGETHER):
            yield from _of_authors(connection, digest, kinds, ordered[start : start + AUTHORS_TOGETHER], each)


def _of_authors(
    connection: Connection, digest: Digest, kinds: Sequence[str], authors: Collection[Digest], each: int
) -> Iterator[_SubjectRow]:
    """The first two rounds of all these authors, and the last rounds of those who said more."""
    here = (_SUBJECT.digest == digest, _SUBJECT.by.in_(authors), _SUBJECT.kind.in_(kinds))
    first = _rows(connection.execute(_WANTED.where(*here, _SUBJECT.round < 2)))
    found, ends = dict.fromkeys(first), dict[Digest, dict[tuple[str, int], int]]()
    for by, kind, log_id in dict.fromkeys((row.by, row.kind, row.log_id) for row in first if row.round):
        if by not in ends:
            ends[by] = _last_rounds(connection, digest, by)
        newest = ends[by].get((kind, log_id))
        last = next_round(connection, digest, by, kind, log_id) if newest is None else newest + 1
        own = (_SUBJECT.digest == digest, _SUBJECT.by == by, _SUBJECT.kind == kind, _SUBJECT.log_id == log_id)
        found |= dict.fromkeys(_rows(connection.execute(_WANTED.where(*own, _SUBJECT.round >= last - each - 1))))
    yield from found


def _last_rounds(connection: Connection, digest: Digest, by: Digest) -> dict[tuple[str, int], int]:
    """The last rounds of an author by kind and log, of those that are among its `PAGE` highest."""
    own = select(_SUBJECT.kind, _SUBJECT.log_id, _SUBJECT.round).where(_SUBJECT.digest == digest, _SUBJECT.by == by)
    rows = connection.execute(own.order_by(_SUBJECT.round.desc()).limit(PAGE))
    found: dict[tuple[str, int], int] = {}
    for kind, log_id, number in rows:
        found.setdefault((kind, log_id), number)
    return found


def _others(
    connection: Connection, digest: Digest, kinds: Sequence[str], precedence: Precedence, most: int
) -> Iterator[_SubjectRow]:
    """The rows of other authors: the first of each kind and log, by rounds, then the second, and so on."""
    queues = [
        ((number, place, row) for number, row in enumerate(_of_place(connection, digest, *place, precedence, most)))
        for place in _places(connection, digest, kinds)
    ]
    for _, _, row in heapq.merge(*queues):
        yield row


def _of_place(
    connection: Connection, digest: Digest, kind: str, log_id: int, precedence: Precedence, most: int
) -> Iterator[_SubjectRow]:
    """The rows of other authors of one kind in one log, a page at a time: the first `most` rounds, because an author
    with more has `most` statements in them."""
    here = (_SUBJECT.digest == digest, _SUBJECT.kind == kind, _SUBJECT.log_id == log_id, _SUBJECT.round < most)
    after = (-1, -1)
    while True:
        wanted = _WANTED.where(*here, tuple_(_SUBJECT.round, _SUBJECT.turn) > after)
        rows = _rows(connection.execute(wanted.order_by(_SUBJECT.round, _SUBJECT.turn).limit(PAGE)))
        yield from (row for row in rows if row.by not in precedence.named and row.by not in precedence.members)
        if len(rows) < PAGE:
            return
        after = (rows[-1].round, rows[-1].turn)


def _places(connection: Connection, digest: Digest, kinds: Sequence[str]) -> list[tuple[str, int]]:
    """The kinds and logs of the statements about a digest. Each is found by one step in the primary key."""
    wanted, found = frozenset(kinds), list[tuple[str, int]]()
    after: tuple[str, int] = ("", -1)
    key = tuple_(_SUBJECT.kind, _SUBJECT.log_id)
    while True:
        later = select(_SUBJECT.kind, _SUBJECT.log_id).where(_SUBJECT.digest == digest, key > after)
        row = connection.execute(later.order_by(_SUBJECT.kind, _SUBJECT.log_id).limit(1)).first()
        if row is None:
            return found
        after = (row.kind, row.log_id)
        if row.kind in wanted:
            found.append(after)


def _rows(rows: Iterable[Any]) -> list[_SubjectRow]:
    return [_SubjectRow(*row) for row in rows]
