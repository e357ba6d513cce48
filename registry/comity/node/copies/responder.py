"""Answers challenges about this node's copies, within a budget for each member.

    cost of a challenge       bound                              charged to
    bytes read                30 pieces and their records        the member: `AuditBudget`
    manifest and piece index  read once, and kept for the next   the member, like bytes read
    answers at once           AT_ONCE, one of a member           waits; members take turns

Only nodes of the federation may ask. A member that has used its budget is refused, and nobody else is: each has a
reserve that no other can use. A refusal is no failure, but others see that this node gave no answer.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

import structlog

from comity.node.context import NodeContext
from comity.node.copies.leases import Leases
from comity.node.copies.own_copies import OwnClaims, OwnPieces
from comity.node.keys import NodeSigner
from comity.node.members import PeerKey
from comity.node.replication.fair_queue import FairSlots
from comity.node.threads import Clock
from comity.rules.audit import DamagedPiece, draw_nonce, read_pieces, sign_answer
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, Conflict, NotFound, OutOfSpace, Refused
from comity.trust.statement import Author
from comity.wire.access import Caller
from comity.wire.audit import AuditOrder, AuditReply

RESERVED: Final = 4
"""What is reserved for all members, in equal parts, as a multiple of the budget of one."""
SHARED: Final = 4
"""What all members may use beyond their reserves, as a multiple of the budget of one."""
LEAST_RESERVE: Final = 1 / 4
"""How much of a reserve a member can save up, as a part of its budget: with many members, the reserve of an hour is
less than one challenge costs."""
AT_ONCE: Final = 2
MAX_WAITING: Final = 64
"""Challenges of one member that wait."""
HOUR: Final = 3600.0

_log: Final = structlog.get_logger("comity.node.audits")


@dataclass(slots=True)
class _ByteAccount:
    """Bytes that may be read, refilled continuously."""

    left: float
    since: float

    def refill(self, per_hour: float, most: float, now: float) -> None:
        self.left = min(most, self.left + max(0.0, now - self.since) * per_hour / HOUR)
        self.since = now


class AuditBudget:
    """Bytes that members may make this node read, refilled continuously. No clock.

        account of a member   in an hour
        its budget            `per_hour`
        its reserve           `RESERVED` times `per_hour`, divided by the number of members
        what all share        `SHARED` times `per_hour`

    A challenge is paid from its member's budget, and besides from the reserve or, if that has too little, from what all
    share. So others who use all that is shared leave each member its reserve. The accounts are those of members, whose
    number the charter bounds.
    """

    def __init__(self, per_hour: int) -> None:
        self._per_hour = per_hour
        self._budgets: dict[str, _ByteAccount] = {}
        self._reserves: dict[str, _ByteAccount] = {}
        self._shared: dict[str, _ByteAccount] = {}

    def charge(self, member: str, size: int, now: float, members: int) -> None:
        """Raises OutOfSpace (AUDIT-BUDGET) if the member asked for too much, or has used its reserve and all together
        asked for too much.

        Args:
            members: how many members may ask; at least 1.
        """
        reserved = RESERVED * self._per_hour / members
        budget = _refilled(self._budgets, member, self._per_hour, self._per_hour, now)
        reserve = _refilled(self._reserves, member, reserved, max(reserved, LEAST_RESERVE * self._per_hour), now)
        shared = _refilled(self._shared, "", SHARED * self._per_hour, SHARED * self._per_hour, now)
        pays = reserve if reserve.left >= size else shared
        if min(budget.left, pays.left) < size:
            why = f"{size} bytes would be read; a member may ask for {self._per_hour} in an hour"
            raise OutOfSpace("the budget for audits is used up", why=why, hint="ask later", code="AUDIT-BUDGET")
        budget.left -= size
        pays.left -= size


def _refilled(accounts: dict[str, _ByteAccount], name: str, per_hour: float, most: float, now: float) -> _ByteAccount:
    """The account of a name, which is full when it is new."""
    account = accounts.setdefault(name, _ByteAccount(most, now))
    account.refill(per_hour, most, now)
    return account


class AuditResponder:
    """Not thread-safe: call from the event loop.

    Args:
        monotonic: seconds, for the budget.
    """

    def __init__(
        self,
        context: NodeContext,
        signer: NodeSigner,
        monotonic: Clock,
        bytes_per_hour: int,
        claims: OwnClaims,
        pieces: OwnPieces,
        leases: Leases,
    ) -> None:
        self._ledger = context.ledger
        self._pools = context.pools
        self._membership = context.membership
        self._signer = signer
        self._metrics = context.metrics
        self._clock = context.clock
        self._monotonic = monotonic
        self._budget = AuditBudget(bytes_per_hour)
        self._claims = claims
        self._pieces = pieces
        self._leases = leases
        self._chance = random.SystemRandom()
        self._turns = FairSlots(AT_ONCE, per_key=1, max_per_key=MAX_WAITING)

    async def answer(self, caller: Caller, order: AuditOrder) -> AuditReply:
        """Raises Refused (AUDITORS-ONLY, AUDIT-PARTIES), OutOfSpace (AUDIT-BUDGET), NotFound (NOT-HELD), Malformed, and
        Unavailable (BUSY) if too many challenges of the member wait."""
        peer = self._membership.by_certificate(caller.certificate) if caller.certificate else None
        if peer is None:
            why = "only nodes of the federation may audit"
            raise Refused("this caller may not audit", why=why, code="AUDITORS-ONLY")
        asks = self._membership.node(Author("node", order.challenge.auditor))
        if asks is None or PeerKey.of(asks) != peer.key:
            raise _other_parties("it names another auditor than the node that brings it")
        try:
            reply = await self._answer(order, peer.member.id)
        except ComityError as error:
            self._metrics.audit_answers.labels("refused" if isinstance(error, OutOfSpace) else "failed").inc()
            raise
        self._metrics.audit_answers.labels("answered").inc()
        return reply

    async def answer_carried(self, order: AuditOrder) -> AuditReply:
        """Answer a challenge that this node's operator brought in a file; nobody is charged. Raises as `answer`."""
        return await self._answer(order, None)

    def _charge(self, member: Digest | None, size: int) -> None:
        if member is not None:
            self._budget.charge(member, size, self._monotonic(), max(1, len(self._membership.others)))

    async def _answer(self, order: AuditOrder, member: Digest | None) -> AuditReply:
        federation, challenge, own = order.federation, order.challenge, self._signer.record.node.id
        if federation != self._membership.federation_id:
            raise _other_parties(f"it is of the federation {short(federation)}, and this node of another one")
        if challenge.prover != own:
            raise _other_parties(f"it is for the node {short(challenge.prover)}, and this one is {short(own)}")
        hold = await self._ledger.run(self._claims.hold, challenge.artifact, challenge.pieces)
        if hold is None:
            if await self._ledger.run(self._claims.withdrew, challenge.artifact):
                raise _withdrawing("it withdrew the copy, as its log says")
            raise _not_held(challenge.artifact, "this node claims no copy with this piece index")
        if self._leases.withdrawing(challenge.artifact):
            raise _withdrawing("it is about to withdraw the copy, and does not vouch for it meanwhile")
        async with self._turns.slot(member):
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
                read = await self._pools.hashing(read_pieces, federation, challenge, nonce, numbers, self._pieces)
            except NotFound as error:
                raise _not_held(challenge.artifact, error.why) from error
            except DamagedPiece as error:
                await self._pools.files(self._pieces.quarantine, error)
                self._pieces.on_damaged()
                raise _not_held(challenge.artifact, error.why) from error
        record, online = self._signer.record, self._signer.online
        entry = sign_answer(record, federation, challenge, nonce, int(self._clock()), read, online)
        return AuditReply(entry.line, tuple(piece.path for piece in read))


def _other_parties(why: str) -> Refused:
    hint = "draw the challenge again, after both nodes have one another's newest node-record"
    return Refused("this challenge is not answered", why=why, hint=hint, code="AUDIT-PARTIES")


def _withdrawing(why: str) -> Conflict:
    """No failure of the node: the auditor may not have read the withdrawal in its log yet."""
    return Conflict("this node does not answer now", why=why, hint="ask later", code="WITHDRAWING")


def _not_held(artifact: Digest, why: str) -> NotFound:
    return NotFound("no such copy here", why=f"{short(artifact)}: {why}", code="NOT-HELD")
