"""Audits of nodes that no network reaches: challenges go out in a file, answers come back in one.

    (1) this node draws challenges for copies that another node claims, and keeps them (2) the other node reads the
    pieces and signs, as for a challenge that came over the network (3) this node compares with its copy, and records

A carrier can lose and change files. So only what the other node *signed* for an open challenge is recorded: a pass, or
a wrong answer that anybody with the piece can check. What is unsigned, changed on the way or missing is reported and
counts for nothing, and the challenge stays open. Each is good for one answer, for `OPEN_DAYS`.

The other node could read the pieces at some time after the challenge was drawn: the result is dated by the day of the
challenge. It had days for that, not minutes, so a pass says nothing about quick access. The operator of the other node
decides what it answers, so nothing is charged to a budget.

    grows with          bound
    open challenges     CopiesIndex.MAX_CARRIED: the oldest are forgotten first
    pieces of an answer 30
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from comity.node.context import NodeContext
from comity.node.copies.auditor import AuditedCopy, Auditor, expected_hashes
from comity.node.copies.index import CarriedChallenge, CopiesIndex, CopyRow
from comity.node.copies.own_copies import OwnPieces
from comity.node.copies.responder import AuditResponder
from comity.node.keys import NodeSigner
from comity.node.members import Peer
from comity.node.threads import NameLocks
from comity.rules.audit import (
    DAY,
    Answer,
    AuditChallenge,
    AuditFailed,
    AuditFailure,
    OlderAnswer,
    check_answer,
    check_failure,
)
from comity.rules.copy_counts import FRESH_DAYS, PASSED
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, Conflict, NotFound, Refused, Untrusted
from comity.trust.statement import Author, parse_entry
from comity.wire.audit import AuditOrder, AuditReply

OPEN_DAYS: Final = FRESH_DAYS
"""Days for which an answer is accepted: after that, its result would be stale at once."""


class CarriedAudits:
    """Not thread-safe: call from the event loop."""

    def __init__(
        self,
        context: NodeContext,
        signer: NodeSigner,
        index: CopiesIndex,
        pieces: OwnPieces,
        auditor: Auditor,
        responder: AuditResponder,
    ) -> None:
        self._ledger = context.ledger
        self._pools = context.pools
        self._membership = context.membership
        self._signer = signer
        self._clock = context.clock
        self._index = index
        self._pieces = pieces
        self._auditor = auditor
        self._responder = responder
        self._locks = NameLocks()
        """By nonces: of two answers to one challenge, the second finds no challenge."""

    async def draw(self, node: str, artifact: Digest | None, most: int) -> AsyncGenerator[AuditOrder, None]:
        """Draw challenges for at most `most` copies of the node of that name, or for its copy of one artifact: those
        first that were not tried for the longest time. Copies that this node cannot compare are left out. Raises
        NotFound (NO-SUCH-NODE, NOT-HELD)."""
        peer = self._peer(node)
        await self._auditor.read_new()
        rows = await self._ledger.run(self._index.copies_of, str(peer.record.log), artifact, most)
        if not rows:
            why = f"this node knows no copy of {node} that it has too"
            raise NotFound("nothing to audit", why=why, hint="comity copies", code="NOT-HELD")
        for row in rows:
            now = int(self._clock())
            await self._ledger.run(self._index.tried, row.artifact, row.log, now)
            try:
                numbers = await self._pools.files(self._pieces.numbers, row.manifest, row.pieces)
                challenge = self._auditor.draw(numbers, row, peer)
            except ComityError:
                continue
            carried = CarriedChallenge(challenge, row.log, now)
            await self._ledger.run(self._index.carry, carried)
            yield AuditOrder(self._membership.federation_id, challenge)

    async def answer(self, order: AuditOrder) -> AuditReply:
        """Answer a challenge that the operator brought. Raises Refused (AUDITORS-ONLY, AUDIT-PARTIES), NotFound
        (NOT-HELD)."""
        challenge = order.challenge
        auditor = self._membership.node(Author("node", challenge.auditor))
        if auditor is None or auditor.member == self._signer.record.member or challenge.lease:
            why = "the challenge is of no node of another member, or asks for a lease"
            raise Refused("this challenge is not answered", why=why, code="AUDITORS-ONLY")
        return await self._responder.answer_carried(order)

    async def check(self, reply: AuditReply) -> AuditedCopy:
        """Check an answer to a challenge of this node, and record the result. Raises NotFound (NO-CHALLENGE), Untrusted
        (AUDIT-FAILED, AUDIT-OLD-FORM) for an answer that proves nothing about the node that was asked, Conflict
        (NOT-COMPARED) where this node has no copy of its own to compare with, OutOfSpace and Unavailable where it
        cannot be recorded. The challenge is kept until the result is recorded."""
        nonce = _nonce(reply.line)
        async with self._locks.acquire([nonce]):
            carried = await self._kept_challenge(nonce)
            audited, piece = await self._compared(carried, reply)
            await self._auditor.record(audited, carried.challenge, reply.line, piece, carried.drawn)
            await self._ledger.run(self._index.answered, nonce)
        return audited

    async def _compared(self, carried: CarriedChallenge, reply: AuditReply) -> tuple[AuditedCopy, int | None]:
        """The result, and the first wrong piece."""
        peer = self._auditor.peer(carried.log)
        rows = await self._ledger.run(self._index.copies, carried.challenge.artifact)
        row = next((row for row in rows if row.log == carried.log), None)
        if peer is None or row is None:
            raise NotFound("no such challenge", why="no node of the charter writes that log now", code="NO-CHALLENGE")
        try:
            return await self._pools.hashing(self._checked, carried.challenge, row, peer, reply)
        except AuditFailed:
            raise
        except ComityError as error:
            await self._auditor.own_copy_failed(row, error)
            why = f"its own copy cannot be read: {error.what}: {error.why}"
            raise Conflict("this node cannot compare the answer", why=why, code="NOT-COMPARED") from error

    async def _kept_challenge(self, nonce: Digest) -> CarriedChallenge:
        carried = await self._ledger.run(self._index.carried, nonce)
        if carried is None or int(self._clock()) - carried.drawn > OPEN_DAYS * DAY:
            why = f"{short(nonce)}: none is open with this nonce, or it is older than {OPEN_DAYS} days"
            hint = "draw new ones: comity audit challenge --help"
            raise NotFound("no such challenge", why=why, hint=hint, code="NO-CHALLENGE")
        return carried

    def _checked(
        self, challenge: AuditChallenge, row: CopyRow, peer: Peer, reply: AuditReply
    ) -> tuple[AuditedCopy, int | None]:
        """The result, and the first wrong piece. Raises AuditFailed for what the prover did not sign. Blocking."""
        numbers = self._pieces.numbers(row.manifest, row.pieces)
        federation = self._membership.federation_id
        expected = expected_hashes(federation, challenge, numbers, self._pieces)
        try:
            check_answer(federation, challenge, numbers, peer.record, reply.line, reply.paths, expected)
        except AuditFailed as error:
            failure = AuditFailure(
                self._signer.record.node,
                challenge,
                int(self._clock()),
                error.reason,
                reply.line,
                error.piece,
            )
            reason = check_failure(failure, peer.record, numbers, self._pieces)
            if reason is None:
                raise
            return AuditedCopy(peer, reason, 0, error.why), error.piece
        return AuditedCopy(peer, PASSED, len(challenge.numbers)), None

    def _peer(self, node: str) -> Peer:
        own = self._membership.own_node.inception.id
        for peer in self._membership.peers:
            if node in (peer.name, peer.record.node.id) and peer.member.id != own:
                return peer
        why = f"no node of another member of the charter is called {node[:80]!r}"
        raise NotFound("no such node", why=why, hint="comity status", code="NO-SUCH-NODE")


def _nonce(line: bytes) -> Digest:
    try:
        return Answer.parse(parse_entry(line).statement).challenge.nonce
    except OlderAnswer:
        raise
    except ComityError as error:
        raise Untrusted("this is no answer", why=error.why, code="AUDIT-FAILED") from error
