"""What newly proven statements are about, so that an answer is made again only if one of them concerns it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from comity.ledger.intake import KNOWN_PREDICATES, NODE_RECORD, fold_name
from comity.ledger.proven import ProvenLine
from comity.node.members import Membership
from comity.node.threads import AsyncLedger
from comity.trust.audit import AUDITED
from comity.trust.charter.equivocation import MISBEHAVIOUR
from comity.trust.charter.votes import ADOPTED
from comity.trust.names import UPSTREAM
from comity.trust.statement import parse_entry

CHECK_INTERVAL: Final = 1.0
MAX_READ: Final = 1_000
"""New statements that are read one by one; with more, every answer counts as changed."""
MAX_REMEMBERED: Final = 50_000
"""Names, artifacts and authors whose last change is remembered; then every older answer counts as changed."""
READ: Final = tuple(sorted(KNOWN_PREDICATES - {AUDITED}))
"""Answers about artifacts leave audits out."""
OF_ALL: Final = frozenset({NODE_RECORD, MISBEHAVIOUR, ADOPTED})
"""Predicates of statements that may concern any answer."""


@dataclass(frozen=True, slots=True)
class ReadStatements:
    """What an answer includes: all statements up to `number`. A new `era` begins when every answer may be another."""

    era: int
    number: int


class StatementChanges:
    """Remembers for each name, artifact and author the number of the newest statement about it. Not thread-safe: call
    from the event loop."""

    def __init__(self, ledger: AsyncLedger, membership: Membership) -> None:
        self._ledger = ledger
        self._membership = membership
        self._now = ReadStatements(0, -1)
        self._changed_at: dict[str, int] = {}
        self._members: object = None
        self._checked = float("-inf")

    async def now(self) -> ReadStatements:
        """Read what is new. Returns what an answer includes that is made from now on."""
        clock = asyncio.get_running_loop().time
        if clock() - self._checked < CHECK_INTERVAL:
            return self._now
        self._checked = clock()
        proven, start = self._ledger.tables.proven, self._now.number
        last = await self._ledger.read(proven.last_number)
        body = self._membership.body
        members = (body.digest if body else None, tuple(self._membership.node_ids))
        lines: list[ProvenLine] = []
        many = start < 0 or members != self._members or last - start > MAX_READ or last < start
        if not many and last > start:
            lines = await self._ledger.run(proven.since, start, READ, MAX_READ)
        concerns_all, era = False, self._now.era
        for line in lines:
            concerns_all |= self._note(line)
        if many or concerns_all or len(self._changed_at) > MAX_REMEMBERED:
            self._changed_at, self._members, era = {}, members, era + 1
        self._now = ReadStatements(era, max([last, *(line.number for line in lines)]))
        return self._now

    def changed(self, since: ReadStatements, subjects: Iterable[str]) -> bool:
        """Whether a later statement is about one of these names, artifacts and authors."""
        if since.era != self._now.era:
            return True
        return any(self._changed_at.get(subject, 0) > since.number for subject in subjects)

    def _note(self, line: ProvenLine) -> bool:
        """Returns whether the statement may concern any answer."""
        statement = parse_entry(line.line).statement
        if statement.by is not None:
            self._changed_at[statement.by.id] = line.number
        for subject in statement.subjects:
            self._changed_at[subject.digest] = line.number
            self._changed_at[changed_name(subject.name.rpartition("@")[0])] = line.number
        return statement.predicate in OF_ALL


def changed_name(repository: str) -> str:
    """The form in which `StatementChanges` knows a repository, whether it was published or mirrored."""
    return fold_name(repository).removeprefix(UPSTREAM)
