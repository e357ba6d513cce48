"""Counts the copies of the artifacts that this node holds or wants, against what the charter asks for.

A copy is assessed by the members of the newest charter, and by what they declare about their machines. The copies are
those of the index, so that `comity status` and `comity copies` say the same. The artifacts are counted in rounds, a
page in each step, so that a node with a million of them answers others meanwhile. The result is that of the last
complete round.
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from comity.node.copies.index import CopiesIndex, CopyRow, LoggedClaim
from comity.node.members import Membership
from comity.node.replication.replicas import Replicas
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Clock
from comity.rules.audit import DAY
from comity.rules.copy_counts import AssessedCopy, ClaimedCopy, CopyCount, CopyPolicy, assess, holders
from comity.trust.charter.document import Member
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.places import Place, declared_reach
from comity.wire.limits import STATUS_EXAMPLES
from comity.wire.node import ReplicaCounts
from comity.wire.node_status import ReplicationStatus, ShortArtifact

COPIES: Final = "copies"
PAGE: Final = 256
"""Artifacts that are counted in one step."""
STEP_SECONDS: Final = 5.0
STEP_DEADLINE: Final = 600.0


@frozen
class _LogWriter:
    """The member and the shown name of the node that writes a log, and the declared place of its machines."""

    member: Digest
    name: str
    place: Place | None


class CopyAssessor:
    """Assesses indexed copies by the members of the newest charter: a removed member's copies and audits do not count.
    Blocking reads of the membership's values only; make one for each answer."""

    def __init__(self, membership: Membership, today: int) -> None:
        body = membership.body
        self._members = {member.id: member for member in (body.members if body else ())}
        self._today = today
        own = membership.own_node.record
        self._writers = {str(own.log): _LogWriter(own.member, own.name, own.place)}
        for peer in membership.peers:
            writer = _LogWriter(peer.member.id, membership.shown_name(peer), peer.record.place)
            self._writers.setdefault(str(peer.record.log), writer)

    def assess(self, rows: Iterable[CopyRow | LoggedClaim]) -> tuple[AssessedCopy, ...]:
        found = []
        for row in rows:
            member = self._member(row.log)
            if member is not None:
                place = self._writers[row.log].place
                reach, cloud = declared_reach(member.jurisdiction, place), place.cloud if place else ""
                copy = ClaimedCopy(member.id, row.node, member.jurisdiction, row.withdrawn, reach, cloud)
                results = [result for result in row.results if result.auditor in self._members]
                found.append(assess(copy, results, self._today))
        return tuple(found)

    @property
    def member_names(self) -> dict[Digest, str]:
        """Display names of all members."""
        return {member.id: member.name for member in self._members.values()}

    def names(self, rows: Iterable[CopyRow]) -> dict[Digest, str]:
        """Display names of the nodes of these copies, and of all members."""
        names = self.member_names
        return names | {row.node: self._writers[row.log].name for row in rows if row.log in self._writers}

    def _member(self, log: str) -> Member | None:
        return self._members.get(self._writers[log].member) if log in self._writers else None


@dataclass(frozen=True, slots=True, order=True)
class _Short:
    """An artifact that is short, the fewest copies first."""

    copies: int
    jurisdictions: int
    reaches: int
    artifact: Digest


@frozen
class _Round:
    """The result of a complete round: artifacts counted, those with too few copies, and the worst of these."""

    counted: int = 0
    short: int = 0
    worst: tuple[_Short, ...] = ()


class CopyCounter:
    """Counts copies in rounds. Not thread-safe: call from the event loop.

    Args:
        read_new: brings the index up to date.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        membership: Membership,
        replicas: Replicas,
        index: CopiesIndex,
        clock: Clock,
        read_new: Callable[[], Awaitable[None]],
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._replicas = replicas
        self._index = index
        self._clock = clock
        self._read_new = read_new
        self._last = _Round()
        self._after: Digest | None = None
        self._pending: Iterator[Digest] | None = None
        """After all held artifacts were counted, the others that are not counted yet."""
        self._counted, self._short = 0, 0
        self._worst: list[_Short] = []

    def begin(self, supervisor: Supervisor, interval: float) -> None:
        """Args: interval: seconds between steps, at least `STEP_SECONDS` apart for a long interval."""
        supervisor.loop(COPIES, self.step, LoopTiming(min(interval, STEP_SECONDS), STEP_DEADLINE))

    async def step(self) -> None:
        """Count one page; begin a new round after the last page."""
        if self._pending is None and self._after is None:
            self._counted, self._short, self._worst = 0, 0, []
        await self._read_new()
        page = await self._next_page()
        await self._count(page)
        if len(page) < PAGE:
            self._last = _Round(self._counted, self._short, tuple(sorted(self._worst)))
            self._after = self._pending = None

    async def _next_page(self) -> list[Digest]:
        """The next held artifacts, then those that are wanted and incomplete; a short page is the last one."""
        page: list[Digest] = []
        if self._pending is None:
            page = await self._replicas.standing_page(self._after, PAGE)
            if len(page) == PAGE:
                self._after = page[-1]
                return page
            self._pending = iter(await self._replicas.without_hold())
        return page + list(islice(self._pending, PAGE - len(page)))

    async def status(self) -> ReplicationStatus:
        """What the node wants and lacks, with examples; all numbers are those of the step in which this returns."""
        worst = self._last.worst
        names = await self._ledger.run(self._ledger.tables.proven.first_names, [item.artifact for item in worst])
        members = await self._replicas.member_copies()
        lacking = await self._replicas.incomplete_examples(STATUS_EXAMPLES)
        return ReplicationStatus(
            self.counts(),
            self._replicas.not_listed,
            tuple(lacking),
            tuple(
                ShortArtifact(
                    item.artifact, names.get(item.artifact, ""), item.copies, item.jurisdictions, item.reaches
                )
                for item in worst
            ),
            tuple(members),
        )

    def counts(self) -> ReplicaCounts:
        """The counts alone, in constant time."""
        last = self._last
        return ReplicaCounts(self._replicas.held, self._replicas.lacking, self._min_copies, last.counted, last.short)

    @property
    def _min_copies(self) -> int:
        body = self._membership.body
        return body.policy.min_copies if body else 0

    async def _count(self, page: list[Digest]) -> None:
        if self._membership.body is None:
            return
        policy = CopyPolicy.of(self._membership.body.policy)
        assessor = CopyAssessor(self._membership, int(self._clock()) // DAY)
        counts = await self._ledger.run(self._counts, page, assessor)
        self._counted += len(page)
        short = [
            _Short(count.copies, count.jurisdictions, count.reaches, artifact)
            for artifact, count in zip(page, counts, strict=True)
            if not count.meets(policy)
        ]
        self._short += len(short)
        self._worst = heapq.nsmallest(STATUS_EXAMPLES, [*self._worst, *short])

    def _counts(self, page: list[Digest], assessor: CopyAssessor) -> list[CopyCount]:
        """Blocking. Counted once for each different set of claims."""
        claims = self._index.claims_about(page)
        known = {
            id(each): CopyCount.of(holders(assessor.assess(each)))
            for each in {id(each): each for each in claims}.values()
        }
        return [known[id(each)] for each in claims]
