"""The newest statements of all kinds, for the overview: nobody fills it by saying much.

`comity.rules.precedence.newest` says which ones, as in the feeds: members, and publishers about their own artifacts,
have places of their own, and logs and authors take turns. A background task reads the statements, the new ones first;
then, in steps, those that were there at the start, `LOOKED_BACK` of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from comity.ledger.proven import ProvenLine
from comity.node.statement_groups import StatementGroups
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger
from comity.rules.precedence import Said, newest
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.statement import Entry, parse_entry
from comity.trust.statement_kinds import ADDRESSES, HOLD_PREDICATES, KNOWN_PREDICATES

RECENT: Final = 12
"""Statements that are kept."""
STEP: Final = 256
"""Statements read at a time."""
LOOKED_BACK: Final = 20_000
"""Statements before the newest one at the start, among which others than the newest are sought."""
KINDS: Final = tuple(sorted(KNOWN_PREDICATES - {*HOLD_PREDICATES, ADDRESSES}))
"""Without claims of copies and addresses, which nodes make by themselves."""
LOOKS: Final = LoopTiming(interval=5.0, deadline=3_600.0)


@frozen
class _Grouped:
    line: ProvenLine
    group: int


class RecentStatements:
    """Not thread-safe: call from the event loop."""

    def __init__(self, ledger: AsyncLedger, groups: StatementGroups) -> None:
        self._ledger = ledger
        self._groups = groups
        self._kept: list[Said[_Grouped]] = []
        self._newest = self._oldest = self._end = -1
        """Numbers: what is after `_oldest` and not after `_newest` was read; nothing before `_end` is read."""
        self._lock = asyncio.Lock()

    def begin(self, supervisor: Supervisor) -> None:
        """Follow the statements in the background."""
        supervisor.loop("console overview", self._follow, LOOKS)

    async def now(self) -> list[ProvenLine]:
        """At most `RECENT` statements, the newest first."""
        await self.step()
        return [said.item.line for said in reversed(self._kept)]

    async def _follow(self) -> None:
        while await self.step():
            await asyncio.sleep(0)

    async def step(self) -> bool:
        """Read one step. Returns whether more may follow."""
        async with self._lock:
            return await self._ledger.run(self._read)

    def _read(self) -> bool:
        """Blocking."""
        proven = self._ledger.tables.proven
        if self._newest < 0:
            self._newest = self._oldest = proven.last_number()
            self._end = max(0, self._newest - LOOKED_BACK)
        if new := proven.since(self._newest, KINDS, STEP):
            self._keep(new)
            self._newest = new[-1].number
            return True
        if self._oldest <= self._end:
            return False
        start = max(self._end, self._oldest - STEP)
        self._keep(line for line in proven.since(start, KINDS, STEP) if line.number <= self._oldest)
        self._oldest = start
        return True

    def _keep(self, lines: Iterable[ProvenLine]) -> None:
        """Blocking."""
        entries = [(line, parse_entry(line.line)) for line in lines]
        groups = self._groups.of_each([entry.statement for _, entry in entries])
        read = [_said(line, entry, group) for (line, entry), group in zip(entries, groups, strict=True)]
        said = sorted((*self._kept, *read), key=lambda each: each.item.line.number)
        self._kept = newest(said, lambda each: each.item.group, RECENT)


def _said(line: ProvenLine, entry: Entry, group: int) -> Said[_Grouped]:
    by = entry.statement.by
    author = by.id if by is not None else Digest("")
    return Said(author, entry.statement_digest, line.vkey, _Grouped(line, group))
