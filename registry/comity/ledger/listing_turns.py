"""Places in lists of publications and of names, so that nobody fills a page by having many.

Lists are pages of the whole, so the order itself has to be fair, and it is decided when a row is written: the
publications of one publisher in one log come eight at a time, its names ten at a time, in turn with those of others.
A publisher with thousands of names has its first ones where everybody has, and the others on later pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, select

from comity.ledger import schema
from comity.trust.encoding import Digest

PUBLICATIONS_TOGETHER: Final = 8
NAMES_TOGETHER: Final = 10
ROUND_BITS: Final = 28
"""Bits of a turn that count the publications of one round of one log; the bits above them are the round."""
MAX_ROUND: Final = (1 << 19) - 1
"""The last round: a publisher with more publications in a log, four million, has the others in this one."""

_PUBLICATION, _CLAIMANT = schema.publications.c, schema.claimants.c


class PublicationTurns:
    """Gives turns to the next publications of one log, in one transaction."""

    def __init__(self, connection: Connection, log_id: int) -> None:
        self._connection = connection
        self._log_id = log_id
        self._rounds: dict[Digest, tuple[int, int]] = {}
        """By publisher, its last round and how many publications it has there."""
        self._ends: dict[int, int] = {}
        """By round, the next turn in it."""

    def next(self, publisher: Digest) -> int:
        """Returns the turn of the next publication of a publisher."""
        last, count = self._rounds.get(publisher) or self._last(publisher)
        if count == PUBLICATIONS_TOGETHER and last < MAX_ROUND:
            last, count = last + 1, 0
        self._rounds[publisher] = last, count + 1
        turn = self._ends.get(last, -1)
        if turn < 0:
            turn = self._end(last)
        self._ends[last] = turn + 1
        return turn

    def _last(self, publisher: Digest) -> tuple[int, int]:
        here = (_PUBLICATION.log_id == self._log_id, _PUBLICATION.publisher == publisher)
        newest = select(_PUBLICATION.turn).where(*here).order_by(_PUBLICATION.turn.desc())
        rounds = [turn >> ROUND_BITS for turn in self._connection.scalars(newest.limit(PUBLICATIONS_TOGETHER))]
        return (rounds[0], rounds.count(rounds[0])) if rounds else (0, 0)

    def _end(self, number: int) -> int:
        first = number << ROUND_BITS
        here = (_PUBLICATION.log_id == self._log_id, _PUBLICATION.turn < first + (1 << ROUND_BITS))
        last = select(_PUBLICATION.turn).where(*here).order_by(_PUBLICATION.turn.desc()).limit(1)
        turn = self._connection.scalar(last)
        return first if turn is None else max(first, turn + 1)


def name_parts(connection: Connection, publishers: Sequence[Digest]) -> list[int]:
    """Returns the part of the next name of each of these publishers, who may be there several times."""
    known: dict[Digest, list[int]] = {}
    found: list[int] = []
    for publisher in publishers:
        parts = known.get(publisher)
        if parts is None:
            parts = known[publisher] = _last_parts(connection, publisher)
        found.append(next_part(parts))
        parts.insert(0, found[-1])
        del parts[NAMES_TOGETHER:]
    return found


def next_part(last: Sequence[int]) -> int:
    """Returns the part of a publisher's next name, by those of its last `NAMES_TOGETHER` names, the highest first."""
    if not last:
        return 0
    return last[0] + (last.count(last[0]) >= NAMES_TOGETHER)


def _last_parts(connection: Connection, publisher: Digest) -> list[int]:
    newest = select(_CLAIMANT.part).where(_CLAIMANT.publisher == publisher).order_by(_CLAIMANT.part.desc())
    return list(connection.scalars(newest.limit(NAMES_TOGETHER)))
