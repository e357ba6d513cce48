"""RPC service for audits: answers challenges, and says what this node knows about copies."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from comity.node.copies.auditor import Auditor
from comity.node.copies.index import CopiesIndex, CopyRow
from comity.node.copies.responder import AuditResponder
from comity.node.copies.withdrawal import Withdrawals
from comity.node.members import Membership
from comity.node.threads import AsyncLedger, Clock
from comity.trust.audit import AUDITED, DAY
from comity.trust.charter.document import Member
from comity.trust.copies import AssessedCopy, ClaimedCopy, CopyPolicy, assess
from comity.trust.encoding import Digest
from comity.trust.places import Place, declared_reach
from comity.wire import limits
from comity.wire.access import Caller
from comity.wire.audit import AuditOrder, AuditReply, CheckedCopy, CopiesPage, HoldDecision, HoldOrder, ListedCopies
from comity.wire.messages import LocatedEntry

PAGE_RESULTS = 20_000
"""Copies and results of one page: about 2 MB."""


@dataclass(frozen=True, slots=True)
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
        own = membership.seat.record
        self._writers = {str(own.log): _LogWriter(own.member, own.name, own.place)}
        for peer in membership.peers:
            writer = _LogWriter(peer.member.id, membership.shown_name(peer), peer.record.place)
            self._writers.setdefault(str(peer.record.log), writer)

    def assess(self, rows: Iterable[CopyRow]) -> tuple[AssessedCopy, ...]:
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

    def names(self, rows: Iterable[CopyRow]) -> dict[Digest, str]:
        """Display names of the nodes of these copies, and of all members."""
        names = {member.id: member.name for member in self._members.values()}
        return names | {row.node: self._writers[row.log].name for row in rows if row.log in self._writers}

    def _member(self, log: str) -> Member | None:
        return self._members.get(self._writers[log].member) if log in self._writers else None


class AuditService:
    """Implements `AuditReads`."""

    def __init__(
        self,
        ledger: AsyncLedger,
        membership: Membership,
        clock: Clock,
        index: CopiesIndex,
        responder: AuditResponder,
        auditor: Auditor,
        withdrawals: Withdrawals,
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._clock = clock
        self._index = index
        self._responder = responder
        self._auditor = auditor
        self._withdrawals = withdrawals

    async def audit(self, caller: Caller, order: AuditOrder) -> AuditReply:
        return await self._responder.answer(caller, order)

    async def copies(self, artifact: Digest | None, after: Digest | None) -> CopiesPage:
        if artifact is not None:
            rows = await self._ledger.run(self._index.copies, artifact)
            groups, more = [rows] if rows else [], False
        else:
            groups = await self._ledger.run(self._index.page, after, limits.COPIES_PAGE + 1)
            groups, more = _bounded(groups)
        today = int(self._clock()) // DAY
        assessor = CopyAssessor(self._membership, today)
        named = await self._ledger.run(self._names, [rows[0].artifact for rows in groups])
        listed = tuple(
            ListedCopies(rows[0].artifact, named.get(rows[0].artifact, ""), _shown(assessor.assess(rows)))
            for rows in groups
        )
        names = assessor.names(row for rows in groups for row in rows)
        body = self._membership.body
        policy = CopyPolicy.of(body.policy if body else None)
        return CopiesPage(listed, names, policy, today, self._membership.seat.inception.id, more)

    async def logged(self, artifact: Digest) -> Sequence[LocatedEntry]:
        lines = await self._ledger.run(self._ledger.tables.proven.newest_about, artifact, AUDITED, limits.AUDIT_LINES)
        return [LocatedEntry(line.origin, line.index, line.line) for line in lines]

    async def check(self, artifact: Digest) -> AsyncGenerator[CheckedCopy, None]:
        async with aclosing(self._auditor.check(artifact)) as results:
            async for result in results:
                peer = result.peer
                name = self._membership.shown_name(peer)
                jurisdiction = peer.member.jurisdiction
                yield CheckedCopy(peer.member.name, name, jurisdiction, result.outcome, result.why, result.pieces)

    async def decide(self, order: HoldOrder) -> HoldDecision:
        return await self._withdrawals.decide(order)

    def _names(self, artifacts: Sequence[Digest]) -> dict[Digest, str]:
        """A claimed name of each artifact. Blocking."""
        found = {}
        for artifact in artifacts:
            page = self._ledger.tables.proven.publications_of(artifact, 1)
            if page.found:
                found[artifact] = page.found[0].name
        return found


def _bounded(groups: list[list[CopyRow]]) -> tuple[list[list[CopyRow]], bool]:
    """The groups that fit into one page, at least one; whether there are more."""
    left, fitting = PAGE_RESULTS, 0
    for rows in groups[: limits.COPIES_PAGE]:
        left -= sum(1 + min(len(row.results), limits.AUDIT_RESULTS) for row in rows[: limits.COPIES])
        if left < 0 and fitting:
            break
        fitting += 1
    return groups[:fitting], len(groups) > fitting


def _shown(copies: tuple[AssessedCopy, ...]) -> tuple[AssessedCopy, ...]:
    """The copies within the bounds of an answer, with the newest results of each."""
    return tuple(
        AssessedCopy(item.copy, item.state, item.results[: limits.AUDIT_RESULTS]) for item in copies[: limits.COPIES]
    )
