"""Counts the copies of the artifacts that this node holds or wants, against `min_copies` of the charter.

A copy is a `hold` that a node of a current member logged and did not withdraw; the nodes of a member count as one copy.
The artifacts are counted in rounds, a page in each step, so that a node with a million of them answers others
meanwhile. The result is that of the last complete round.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from comity.ledger.intake import HOLD
from comity.node.members import Membership
from comity.node.replication.replicas import Replicas
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger
from comity.trust.copies import HOLD_WITHDRAWN
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.statement import parse_entry
from comity.trust.statements import Published
from comity.trust.upstream import OBSERVED, Observed
from comity.wire.limits import STATUS_EXAMPLES
from comity.wire.node import ReplicaCounts
from comity.wire.operator import ReplicationStatus, ShortArtifact

COPIES: Final = "copies"
PAGE: Final = 256
"""Artifacts that are counted in one step."""
STEP_SECONDS: Final = 5.0
STEP_DEADLINE: Final = 600.0


@dataclass(frozen=True, slots=True)
class _Round:
    """The result of a complete round: artifacts counted, those with too few copies, and the worst of these."""

    counted: int = 0
    short: int = 0
    worst: tuple[tuple[int, Digest], ...] = ()


class CopyCounter:
    """Counts copies in rounds. Not thread-safe: call from the event loop."""

    def __init__(self, ledger: AsyncLedger, membership: Membership, replicas: Replicas) -> None:
        self._ledger = ledger
        self._membership = membership
        self._replicas = replicas
        self._last = _Round()
        self._after: Digest | None = None
        self._pending: Iterator[Digest] | None = None
        """After all held artifacts were counted, the others that are not counted yet."""
        self._counted, self._short = 0, 0
        self._worst: list[tuple[int, Digest]] = []

    def begin(self, supervisor: Supervisor, interval: float) -> None:
        """Args: interval: seconds between steps, at least `STEP_SECONDS` apart for a long interval."""
        supervisor.loop(COPIES, self.step, LoopTiming(min(interval, STEP_SECONDS), STEP_DEADLINE))

    async def step(self) -> None:
        """Count one page; begin a new round after the last page."""
        if self._pending is None and self._after is None:
            self._counted, self._short, self._worst = 0, 0, []
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
        """What the node wants and lacks, with examples."""
        worst = [item for item in self._last.worst if item[0] < self._min_copies]
        names = await self._ledger.run(self._names, [artifact for _, artifact in worst])
        return ReplicationStatus(
            self.counts(),
            self._replicas.not_listed,
            tuple(self._replicas.incomplete(STATUS_EXAMPLES)),
            tuple(ShortArtifact(artifact, names.get(artifact, ""), copies) for copies, artifact in worst),
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
        members, least = self._members(), self._min_copies
        authors = await self._ledger.run(self._authors, page)
        self._counted += len(page)
        for artifact in page:
            copies = len({members[author] for author in authors[artifact] if author in members})
            if copies < least:
                self._short += 1
                self._worst = heapq.nsmallest(STATUS_EXAMPLES, [*self._worst, (copies, artifact)])

    def _members(self) -> Mapping[Digest, Digest]:
        """The current member of each of its nodes."""
        membership = self._membership
        nodes = {peer.record.node.id: peer.member.id for peer in membership.peers}
        nodes[membership.seat.record.node.id] = membership.seat.inception.id
        current = {seat.id for seat in membership.body.members} if membership.body else set[Digest]()
        return {node: member for node, member in nodes.items() if member in current}

    def _authors(self, page: list[Digest]) -> dict[Digest, frozenset[Digest]]:
        return {artifact: self._ledger.tables.proven.authors_about(artifact, HOLD, HOLD_WITHDRAWN) for artifact in page}

    def _names(self, artifacts: list[Digest]) -> dict[Digest, str]:
        """The names under which the artifacts were published first, as far as a publication can be read."""
        found = dict[Digest, str]()
        for artifact in artifacts:
            for line in self._ledger.tables.proven.about(artifact, ("published", OBSERVED), 1).found:
                try:
                    statement = parse_entry(line.line).statement
                    observed = statement.predicate == OBSERVED
                    found[artifact] = str((Observed if observed else Published).parse(statement).name)
                except ComityError:
                    continue
        return found
