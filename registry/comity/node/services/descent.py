"""Counts from whom the published artifacts descend, a page at a time (`ListDescent`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from comity.node.copies.counter import CopyAssessor
from comity.node.copies.index import CopiesIndex
from comity.node.descent import CatalogueRow, DescentReader
from comity.node.members import Membership
from comity.node.pull_counts import PullCounts
from comity.node.threads import Clock, Pools
from comity.rules.audit import DAY
from comity.rules.descent import DescentCount, DescentQuestion, LineageRoot, added, roots_of
from comity.trust.encoding import Digest
from comity.trust.lineage import MAX_DEPTH, MAX_NODES
from comity.wire import limits
from comity.wire.descent import DescentPage

PULL_WEEKS: Final = 13
"""Weeks in which pulls are counted."""
STEP: Final = 256
"""Artifacts that are looked at in one step."""
MAX_KNOWN: Final = 4_096
"""Ancestors that are kept in memory while a page is counted."""


class DescentCounter:
    """Not thread-safe: call from the event loop."""

    def __init__(
        self,
        reader: DescentReader,
        copies: CopiesIndex,
        membership: Membership,
        pulls: PullCounts,
        pools: Pools,
        clock: Clock,
    ) -> None:
        self._reader = reader
        self._copies = copies
        self._membership = membership
        self._pulls = pulls
        self._pools = pools
        self._clock = clock

    async def page(self, question: DescentQuestion, after: int) -> DescentPage:
        """As `ArtifactService.descent`: at most `limits.DESCENT_ARTIFACTS` artifacts, and fewer where they have many
        different roots."""
        assessor = CopyAssessor(self._membership, int(self._clock()) // DAY)
        page = _PageCounts(after)
        while page.room and not page.ended:
            await self._pools.files(self._count, page, question, assessor)
        progress = await self._pools.files(self._reader.progress)
        unread = (progress.total or 0) - progress.done
        return DescentPage(unread, page.counts, 0 if page.ended else page.last, PULL_WEEKS, tuple(page.requiring))

    def _count(self, page: _PageCounts, question: DescentQuestion, assessor: CopyAssessor) -> None:
        """Count the next artifacts. Blocking."""
        rows = self._reader.rows.page(page.last, min(STEP, page.room))
        page.ended = len(rows) < min(STEP, page.room)
        asked = self._asked(rows, question, assessor)
        pulls = self._pulls.recent([row.largest for row in asked if row.largest is not None], PULL_WEEKS)
        known = lru_cache(MAX_KNOWN)(self._reader.rows.known)
        chosen = {row.number for row in asked}
        for row in rows:
            if row.number in chosen:
                page.add(
                    row, roots_of(row.number, known, MAX_NODES, MAX_DEPTH), pulls[row.largest] if row.largest else 0
                )
            page.pass_by(row.number)
            if not page.room:
                page.ended = False
                return

    def _asked(
        self, rows: Sequence[CatalogueRow], question: DescentQuestion, assessor: CopyAssessor
    ) -> Sequence[CatalogueRow]:
        """Those that the question is about."""
        if question.publisher:
            rows = [row for row in rows if question.publisher in row.authors]
        if not question.holder:
            return rows
        claims = self._copies.claims_about([row.digest for row in rows])
        known = {
            id(each): any(question.holder in (item.copy.member, item.copy.node) and item.counts for item in copies)
            for each in {id(each): each for each in claims}.values()
            for copies in (assessor.assess(each),)
        }
        return [row for row, each in zip(rows, claims, strict=True) if known[id(each)]]


class _PageCounts:
    """What was counted of a page."""

    def __init__(self, after: int) -> None:
        self.last = after
        self.ended = False
        self.requiring: list[Digest] = []
        self._seen = 0
        self._counts: dict[tuple[tuple[LineageRoot, ...], bool], DescentCount] = {}

    @property
    def room(self) -> int:
        """Artifacts that may be looked at yet."""
        if len(self._counts) >= limits.DESCENT_COUNTS:
            return 0
        return limits.DESCENT_ARTIFACTS - self._seen

    @property
    def counts(self) -> tuple[DescentCount, ...]:
        return tuple(self._counts.values())

    def add(self, row: CatalogueRow, roots: tuple[LineageRoot, ...], pulls: int) -> None:
        one = DescentCount(roots, row.of_members, 1, row.size or 0, int(row.size is None), pulls, int(row.requiring))
        key = roots, row.of_members
        self._counts[key] = added(self._counts[key], one) if key in self._counts else one
        if row.requiring and len(self.requiring) < limits.DESCENT_REQUIRING:
            self.requiring.append(row.digest)

    def pass_by(self, number: int) -> None:
        self.last = number
        self._seen += 1
