"""Answers challenges about this node's copies, within a budget for each member.

    cost of a challenge       bound                              charged to
    bytes read                30 pieces and their records        the member: BYTES_PER_HOUR; all: ALL_MEMBERS times that
    manifest and piece index  read once, and kept for the next   the member, like bytes read
    answers at once           AT_ONCE                            waits

Only nodes of the federation may ask. A member that has used its budget is refused, and nobody else is: its own budget
is a small part of what all may use. A refusal is no failure, but others see that this node gave no answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from comity.node.copies.leases import Leases
from comity.node.copies.own_copies import OwnClaims, OwnPieces
from comity.node.keys import NodeSigner
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.trust.audit import AuditChallenge, DamagedPiece, draw_nonce, read_pieces, sign_answer
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, Conflict, NotFound, OutOfSpace, Refused
from comity.wire.access import Caller
from comity.wire.audit import AuditOrder, AuditReply

ALL_MEMBERS: Final = 8
"""What all members together may use, as a multiple of the budget of one."""
AT_ONCE: Final = 2
HOUR: Final = 3600.0

_log: Final = structlog.get_logger("comity.node.audits")


@dataclass(slots=True)
class _MemberAccount:
    left: float
    since: float


class AuditBudget:
    """Bytes that a member may make this node read, refilled continuously: `per_hour` in an hour. No clock.

    The accounts are those of members, whose number the charter bounds.
    """

    def __init__(self, per_hour: int) -> None:
        self._per_hour = per_hour
        self._accounts: dict[str, _MemberAccount] = {}

    def charge(self, member: str, size: int, now: float) -> None:
        """Raises OutOfSpace (AUDIT-BUDGET) if the member, or all together, asked for too much."""
        accounts = [(self._account(member, 1, now)), (self._account("", ALL_MEMBERS, now))]
        short_of = next((account for account in accounts if account.left < size), None)
        if short_of is not None:
            why = f"{size} bytes would be read; a member may ask for {self._per_hour} in an hour"
            raise OutOfSpace("the budget for audits is used up", why=why, hint="ask later", code="AUDIT-BUDGET")
        for account in accounts:
            account.left -= size

    def _account(self, name: str, times: int, now: float) -> _MemberAccount:
        most = float(times * self._per_hour)
        account = self._accounts.setdefault(name, _MemberAccount(most, now))
        account.left = min(most, account.left + max(0.0, now - account.since) * most / HOUR)
        account.since = now
        return account


class AuditResponder:
    """Not thread-safe: call from the event loop.

    Args:
        monotonic: seconds, for the budget.
        on_damaged: called when a piece of an own copy was found to be damaged, after its blob was quarantined.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        pools: Pools,
        membership: Membership,
        signer: NodeSigner,
        metrics: Metrics,
        clock: Clock,
        monotonic: Clock,
        bytes_per_hour: int,
        claims: OwnClaims,
        pieces: OwnPieces,
        leases: Leases,
        on_damaged: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._pools = pools
        self._membership = membership
        self._signer = signer
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        self._budget = AuditBudget(bytes_per_hour)
        self._on_damaged = on_damaged
        self._claims = claims
        self._pieces = pieces
        self._leases = leases
        self._chance = random.SystemRandom()
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def answer(self, caller: Caller, order: AuditOrder) -> AuditReply:
        """Raises Refused (AUDITORS-ONLY), OutOfSpace (AUDIT-BUDGET), NotFound (NOT-HELD), Malformed."""
        peer = self._membership.by_certificate(caller.certificate) if caller.certificate else None
        if peer is None:
            why = "only nodes of the federation may audit"
            raise Refused("this caller may not audit", why=why, code="AUDITORS-ONLY")
        challenge = AuditChallenge(
            peer.record.node.id, order.artifact, order.index, order.nonce, order.numbers, order.lease
        )
        try:
            reply = await self._answer(challenge, peer.member.id)
        except ComityError as error:
            self._metrics.audit_answers.labels("refused" if isinstance(error, OutOfSpace) else "failed").inc()
            raise
        self._metrics.audit_answers.labels("answered").inc()
        return reply

    async def answer_carried(self, challenge: AuditChallenge) -> AuditReply:
        """Answer a challenge that this node's operator brought in a file; nobody is charged. Raises as `answer`."""
        return await self._answer(challenge, None)

    def _charge(self, member: Digest | None, size: int) -> None:
        if member is not None:
            self._budget.charge(member, size, self._monotonic())

    async def _answer(self, challenge: AuditChallenge, member: Digest | None) -> AuditReply:
        hold = await self._ledger.run(self._claims.hold, challenge.artifact, challenge.pieces)
        if hold is None:
            raise _not_held(challenge.artifact, "this node claims no copy with this piece index")
        if self._leases.withdrawing(challenge.artifact):
            why = "it is about to withdraw the copy, and does not vouch for it meanwhile"
            raise Conflict("this node does not answer now", why=why, hint="ask later", code="WITHDRAWING")
        async with self._turns:
            self._charge(member, 1 + hold.manifest.size + hold.pieces.size)
            try:
                numbers = await self._pools.files(self._pieces.numbers, hold.manifest, hold.pieces)
            except NotFound as error:
                raise _not_held(challenge.artifact, error.why) from error
            self._charge(member, numbers.cost(challenge.numbers))
            if challenge.lease and member is not None:
                self._leases.grant(challenge.artifact, member, challenge.lease, self._monotonic())
            nonce = draw_nonce(self._chance)
            try:
                read = await self._pools.hashing(read_pieces, challenge, nonce, numbers, self._pieces)
            except NotFound as error:
                raise _not_held(challenge.artifact, error.why) from error
            except DamagedPiece as error:
                await self._pools.files(self._pieces.quarantine, error)
                self._on_damaged()
                raise _not_held(challenge.artifact, error.why) from error
        record, online = self._signer.record, self._signer.online
        entry = sign_answer(record, challenge, nonce, int(self._clock()), read, online)
        return AuditReply(entry.line, tuple(piece.path for piece in read))


def _not_held(artifact: Digest, why: str) -> NotFound:
    return NotFound("no such copy here", why=f"{short(artifact)}: {why}", code="NOT-HELD")
