"""RPC service for audits: answers challenges, and says what this node knows about copies."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from comity.node.copies.auditor import AuditedCopy
from comity.node.copies.controller import CopiesController
from comity.node.copies.counter import CopyAssessor
from comity.node.copies.folds import CopyFolds
from comity.node.copies.index import CopyRow
from comity.node.members import Membership
from comity.node.operator_acts import OperatorActs
from comity.node.threads import AsyncLedger, Clock
from comity.rules.audit import DAY
from comity.rules.copy_counts import AssessedCopy, CopyPolicy
from comity.rules.copy_questions import CopyQuestion
from comity.trust.encoding import Digest
from comity.trust.statement_kinds import AUDITED
from comity.wire import limits
from comity.wire.access import Caller
from comity.wire.audit import (
    AuditOrder,
    AuditReply,
    ChallengeRequest,
    CheckedCopy,
    CopiesPage,
    HoldDecision,
    HoldOrder,
    ListedCopies,
    RetentionPage,
)
from comity.wire.messages import LocatedEntry

PAGE_RESULTS = 20_000
"""Copies and results of one page: about 2 MB."""


class AuditServicer:
    """Implements `AuditService`."""

    def __init__(
        self, ledger: AsyncLedger, membership: Membership, clock: Clock, copies: CopiesController, acts: OperatorActs
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._clock = clock
        self._copies = copies
        self._acts = acts
        self._folds = CopyFolds(ledger, copies.index)

    async def audit(self, caller: Caller, order: AuditOrder) -> AuditReply:
        return await self._copies.responder.answer(caller, order)

    async def copies(
        self,
        artifact: Digest | None = None,
        after: Digest | None = None,
        question: CopyQuestion | None = None,
        names_of: tuple[Digest, ...] = (),
    ) -> CopiesPage:
        today = int(self._clock()) // DAY
        assessor = CopyAssessor(self._membership, today)
        body, own = self._membership.body, self._membership.own_node.inception.id
        policy = CopyPolicy.of(body.policy if body else None)
        if names_of:
            named = await self._ledger.run(self._ledger.tables.proven.first_names, names_of)
            listed = tuple(ListedCopies(item, name, ()) for item, name in named.items())
            return CopiesPage(listed, {}, policy, today, own)
        if question is not None and artifact is None:
            fold, more = await self._folds.page(question, after, assessor, own, policy)
            return CopiesPage((), assessor.member_names, policy, today, own, more, fold)
        groups, more = await self._groups(artifact, after)
        listed, names = await self._listed(groups, assessor)
        return CopiesPage(listed, names, policy, today, own, more)

    async def _groups(self, artifact: Digest | None, after: Digest | None) -> tuple[list[list[CopyRow]], bool]:
        """The copies of each artifact of a page, and whether there are more artifacts."""
        if artifact is not None:
            rows = await self._ledger.run(self._copies.index.copies, artifact)
            return [rows] if rows else [], False
        return _bounded(await self._ledger.run(self._copies.index.page, after, limits.COPIES_PAGE + 1))

    async def _listed(
        self, groups: list[list[CopyRow]], assessor: CopyAssessor
    ) -> tuple[tuple[ListedCopies, ...], dict[Digest, str]]:
        """The copies of each artifact with its name, and names of members and nodes."""
        named = await self._ledger.run(self._ledger.tables.proven.first_names, [rows[0].artifact for rows in groups])
        listed = tuple(
            ListedCopies(rows[0].artifact, named.get(rows[0].artifact, ""), _shown(assessor.assess(rows)))
            for rows in groups
        )
        return listed, assessor.names(row for rows in groups for row in rows)

    async def logged(self, artifact: Digest) -> AsyncGenerator[LocatedEntry, None]:
        newest_about = self._ledger.tables.proven.newest_about
        for line in await self._ledger.run(newest_about, artifact, AUDITED, limits.AUDIT_LINES):
            yield LocatedEntry(line.origin, line.index, line.line)

    async def check(self, artifact: Digest) -> AsyncGenerator[CheckedCopy, None]:
        async with aclosing(self._copies.auditor.check(artifact)) as results:
            async for result in results:
                yield self._shown_result(result)

    async def decide(self, order: HoldOrder) -> HoldDecision:
        if order.trial:
            return await self._copies.withdrawals.decide(order)
        act = "copy.restore" if order.again else "copy.drop" if order.reason == "space" else "copy.withdraw"
        detail = f"{order.reason}{', forced' if order.force else ''}{', kept aside' if order.keep else ''}"
        async with self._acts.recorded(act, order.artifact, "" if order.again else detail):
            return await self._copies.withdrawals.decide(order)

    async def retention(self, after: Digest | None = None) -> RetentionPage:
        return await self._copies.retention.page(after, limits.COPIES_PAGE)

    def challenges(self, request: ChallengeRequest) -> AsyncGenerator[AuditOrder, None]:
        return self._copies.carried.draw(request.node, request.artifact, request.most)

    async def answer_carried(self, order: AuditOrder) -> AuditReply:
        return await self._copies.carried.answer(order)

    async def check_answer(self, reply: AuditReply) -> CheckedCopy:
        return self._shown_result(await self._copies.carried.check(reply))

    def _shown_result(self, result: AuditedCopy) -> CheckedCopy:
        member, name = result.peer.member, self._membership.shown_name(result.peer)
        return CheckedCopy(member.name, name, member.jurisdiction, result.outcome, result.why, result.pieces)


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
