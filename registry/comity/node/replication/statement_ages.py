"""Since when this node knows a statement, and the artifacts that mirror rules copy at a greater age.

An age counts from the mark after the statement was verified here, at most an hour later
(`comity.ledger.waiting_copies`). So nobody else decides about it: a publication names no time, and the clock of its log
is not trusted for this.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from math import ceil
from typing import Final

from comity.node.threads import AsyncLedger, Clock
from comity.trust.encoding import Digest
from comity.trust.mirror_rules import HOUR_SECONDS

PAGE: Final = 256


class StatementAges:
    """Not thread-safe: call from the event loop.

    Args:
        clock: POSIX seconds.
    """

    def __init__(self, ledger: AsyncLedger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._numbers: list[int] = []
        self._times: list[int] = []

    async def load(self) -> None:
        """Load the marks, and set one if it is due."""
        marks = await self._ledger.run(self._ledger.tables.proven_times.all)
        self._numbers, self._times = [number for number, _ in marks], [time for _, time in marks]
        await self.mark()

    async def mark(self) -> None:
        """Set a mark if statements were verified and the last mark is an hour old."""
        tables, now = self._ledger.tables, int(self._clock())
        if self._times and now < self._times[-1] + HOUR_SECONDS:
            return
        number = await self._ledger.read(tables.proven.last_number)
        if not self._numbers or number > self._numbers[-1]:
            await self._ledger.run(tables.proven_times.mark, number, now)
            self._numbers.append(number)
            self._times.append(now)

    def of(self, number: int) -> float:
        """Seconds since the statement of this number is known, at least; 0 before the next mark."""
        at = bisect_left(self._numbers, number)
        return max(0.0, self._clock() - self._times[at]) if at < len(self._times) else 0.0

    async def wait(self, waits: Mapping[Digest, float]) -> None:
        """Keep artifacts with the seconds until they are due."""
        now = self._clock()
        due = {artifact: ceil(now + wait) for artifact, wait in waits.items()}
        await self._ledger.run(self._ledger.tables.waiting_copies.add, due)

    async def take_due(self) -> list[Digest]:
        """Artifacts that are due: they wait no longer. A full page has `PAGE`."""
        table = self._ledger.tables.waiting_copies
        due = await self._ledger.run(table.due, int(self._clock()), PAGE)
        if due:
            await self._ledger.run(table.move_to_lacking, due)
        return due
