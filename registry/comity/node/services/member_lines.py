"""Lines that most answers about artifacts contain: the node records and the keys of all members. Blocking reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from comity.ledger.proven import ProvenLine, ProvenTables
from comity.node.services.author_lines import author_of
from comity.rules.fair_bytes import FairBytes
from comity.rules.precedence import Said
from comity.trust.encoding import Digest, sha256
from comity.trust.statement import parse_entry
from comity.trust.statement_kinds import NODE_RECORD, PROVING_PREDICATES
from comity.wire import limits

RECORDS: Final = 800
"""Node records in one answer, evenly of all members."""
LEAST_RECORDS: Final = 4
"""Node records of each member in any case."""
MAX_MEMBER_LINES: Final = 16 * limits.MiB
"""Bytes of the lines of all members. They are kept in memory."""
MAX_NEW: Final = 256
"""New key statements whose authors are looked at."""

FOLLOWED: Final = "followed"
RECORD: Final = "record"
KEY: Final = "key"


@dataclass(frozen=True)
class KeptLines:
    """The records of the nodes that are followed, and of each member its node records, and its inception and rotations:
    as many as fit.

    Attributes:
        cut: authors with more.
    """

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
        self._kept: tuple[object, int, KeptLines] | None = None
        """Whose lines these are, up to which statement they were read, and the lines."""

    def read(self, members: Sequence[Digest], followed: Sequence[bytes]) -> KeptLines:
        """The lines of these members, and the records of the nodes that are `followed`. Blocking."""
        number, whose = self._proven.last_number_of(PROVING_PREDICATES), (members, followed)
        if self._kept is not None and self._kept[0] == whose:
            _, before, lines = self._kept
            stale = self._changed(members, before) if before != number else frozenset[Digest]()
        else:
            records = itertools.chain(*(self._proven.with_line(line) for line in followed))
            lines, stale = KeptLines(tuple(records), {}, frozenset()), frozenset(members)
        if stale or self._kept is None:
            lines = self._fitting(lines, members, stale)
        self._kept = whose, number, lines
        return lines

    def _fitting(self, known: KeptLines, members: Sequence[Digest], stale: frozenset[Digest]) -> KeptLines:
        """The lines, with those of `stale` members as they are now. Lines are only added to a log, so what did not fit
        before does not fit now."""
        fair = FairBytes[tuple[str, ProvenLine]](MAX_MEMBER_LINES)
        for author, part, line in self._every(known, members, stale):
            fair.add(Said(author, sha256(line.line), (part, line.vkey), (part, line)), len(line.line))
        followed = list[ProvenLine]()
        of_member = {member: (list[ProvenLine](), list[ProvenLine]()) for member in members}
        for author, (part, line) in fair.found:
            (followed if part == FOLLOWED else of_member[author][part == KEY]).append(line)
        found = {member: (tuple(records), tuple(keys)) for member, (records, keys) in of_member.items()}
        return KeptLines(tuple(followed), found, (known.cut - stale) | fair.cut)

    def _every(
        self, known: KeptLines, members: Sequence[Digest], stale: frozenset[Digest]
    ) -> Iterator[tuple[Digest, str, ProvenLine]]:
        """Authors, kinds and lines: of each member the keys first."""
        share = max(LEAST_RECORDS, RECORDS // max(1, len(members)))
        for member in members:
            if member in stale:
                yield from ((member, KEY, line) for _, line in self._proven.each_key((member,)))
                records = self._proven.by(member, NODE_RECORD, share).found
            else:
                records, keys = known.of_member[member]
                yield from ((member, KEY, line) for line in keys)
            yield from ((member, RECORD, line) for line in records)
        yield from ((author_of(line), FOLLOWED, line) for line in known.followed)

    def _changed(self, members: Sequence[Digest], since: int) -> frozenset[Digest]:
        """The members with new key statements after statement `since`; all of them if there are many new ones."""
        new = self._proven.since(since, PROVING_PREDICATES, MAX_NEW)
        if len(new) == MAX_NEW:
            return frozenset(members)
        statements = [parse_entry(line.line).statement for line in new]
        about = {subject.digest for statement in statements for subject in statement.subjects}
        return frozenset(members) & {*about, *(statement.by.id for statement in statements if statement.by is not None)}
