"""Lines that most answers about artifacts contain: the node records and the keys of all members. Blocking reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from comity.ledger.proven import ProvenLine, ProvenPublication, ProvenTables
from comity.rules.fair_bytes import FairBytes
from comity.rules.precedence import Said
from comity.trust.encoding import Digest, sha256
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import NODE_RECORD, PROVING_PREDICATES

RECORDS: Final = 800
"""Node records in one answer, evenly of all members."""
LEAST_RECORDS: Final = 4
"""Node records of each member in any case."""
MAX_MEMBER_LINES: Final = 16 * 1024 * 1024
"""Bytes of the lines of all members. They are kept in memory."""
MAX_NEW: Final = 256
"""New key statements whose authors are looked at."""

FOLLOWED: Final = "followed"
RECORD: Final = "record"
KEY: Final = "key"


@dataclass(frozen=True)
class KeptLines:
    """The records of the nodes that are `followed`, and of each member its node records, and its inception and
    rotations: as many as fit. They are the same while `basis` does not change and no member has a new one after
    statement `number`.

    Attributes:
        cut: members with more.
    """

    basis: object
    number: int
    followed: tuple[ProvenLine, ...]
    of_member: Mapping[Digest, tuple[tuple[ProvenLine, ...], tuple[ProvenLine, ...]]]
    cut: frozenset[Digest]

    @property
    def records(self) -> Iterator[ProvenLine]:
        return itertools.chain(self.followed, *(records for records, _ in self.of_member.values()))

    @property
    def keys(self) -> Iterator[ProvenLine]:
        return itertools.chain(*(keys for _, keys in self.of_member.values()))

    @cached_property
    def digests(self) -> Mapping[bytes, Digest]:
        """The SHA-256 of each line."""
        return {found.line: sha256(found.line) for found in (*self.records, *self.keys)}

    @cached_property
    def size(self) -> int:
        """Bytes of the lines."""
        return sum(len(line.line) for line in (*self.records, *self.keys))


class MemberLines:
    """The node records, inceptions and rotations of all members. Those of a member are read again when it has new ones:
    anybody may log inceptions and rotations of others."""

    def __init__(self, proven: ProvenTables) -> None:
        self._proven = proven
        self._kept: KeptLines | None = None

    def read(self, members: Sequence[Digest], followed: Sequence[bytes]) -> KeptLines:
        """The lines of these members, and the records of the nodes that are `followed`. Blocking."""
        number, basis = self._proven.last_number_of(PROVING_PREDICATES), (members, followed)
        known = self._kept
        if known is not None and known.basis == basis:
            if known.number == number:
                return known
            stale, kept, cut = self._changed(members, known.number), known.of_member, known.cut
            records: Sequence[ProvenLine] = known.followed
        else:
            stale, kept, cut = frozenset(members), {}, frozenset[Digest]()
            records = list(itertools.chain(*(self._proven.with_line(line) for line in followed)))
        self._kept = self._fitting(KeptLines(basis, number, tuple(records), kept, cut), members, stale)
        return self._kept

    def _fitting(self, known: KeptLines, members: Sequence[Digest], stale: frozenset[Digest]) -> KeptLines:
        """The lines, with those of `stale` members as they are now. Lines are only added to a log, so what did not fit
        before does not fit now."""
        fair = FairBytes[tuple[str, ProvenLine]](MAX_MEMBER_LINES)
        share = max(LEAST_RECORDS, RECORDS // max(1, len(members)))
        for member in members:
            if member in stale:
                own = self._proven.by(member, NODE_RECORD, share).found
                lines = itertools.chain(self._keys_of(member), ((RECORD, line) for line in own))
            else:
                records, keys = known.of_member[member]
                lines = itertools.chain(((KEY, line) for line in keys), ((RECORD, line) for line in records))
            for part, line in lines:
                _add(fair, member, part, line)
        for line in known.followed:
            _add(fair, author_of(line), FOLLOWED, line)
        followed, of_member = (
            list[ProvenLine](),
            {member: (list[ProvenLine](), list[ProvenLine]()) for member in members},
        )
        for author, (part, line) in fair.found:
            (followed if part == FOLLOWED else of_member[author][part == KEY]).append(line)
        lines_of = {member: (tuple(records), tuple(keys)) for member, (records, keys) in of_member.items()}
        return KeptLines(known.basis, known.number, tuple(followed), lines_of, (known.cut - stale) | fair.cut)

    def _keys_of(self, member: Digest) -> Iterator[tuple[str, ProvenLine]]:
        return ((KEY, line) for _, line in self._proven.each_key((member,)))

    def _changed(self, members: Sequence[Digest], since: int) -> frozenset[Digest]:
        """The members with new key statements after statement `since`; all of them if there are many new ones."""
        new = self._proven.since(since, PROVING_PREDICATES, MAX_NEW)
        if len(new) == MAX_NEW:
            return frozenset(members)
        statements = [parse_entry(line.line).statement for line in new]
        about = {subject.digest for statement in statements for subject in statement.subjects}
        return frozenset(members) & {*about, *(statement.by.id for statement in statements if statement.by is not None)}


def author_of(line: ProvenLine | ProvenPublication) -> Digest:
    """The id of who signed a proven statement."""
    if isinstance(line, ProvenPublication):
        return line.publisher
    by = parse_entry(line.line).statement.by
    assert by is not None  # a proven statement has an author
    return by.id


def _add(fair: FairBytes[tuple[str, ProvenLine]], member: Digest, part: str, line: ProvenLine) -> None:
    fair.add(Said(member, sha256(line.line), (part, line.vkey), (part, line)), len(line.line))
