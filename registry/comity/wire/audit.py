"""`AuditService`: audits of copies, and what a node knows about copies. Values, codec, calls and servicer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from comity.trust.audit import MAX_CHALLENGED, MAX_LEASE, REASONS, AuditChallenge
from comity.trust.copies import (
    MISSED,
    PASSED,
    STATES,
    WITHDRAWAL_REASONS,
    AssessedCopy,
    AuditResult,
    ClaimedCopy,
    CopyPolicy,
)
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Refused
from comity.trust.identity import check_jurisdiction
from comity.trust.places import MAX_REACH, MOST_REACHES
from comity.v1 import audit_pb2, types_pb2
from comity.v1.audit_pb2_grpc import AuditServiceServicer, AuditServiceStub
from comity.wire import limits
from comity.wire.access import CALLER, Caller
from comity.wire.calls import ServiceCalls
from comity.wire.errors import clean
from comity.wire.messages import (
    Context,
    LocatedEntry,
    at_most,
    decode_located,
    encode_digest,
    encode_located,
    read_digest,
    read_hashes,
    read_integer,
    read_line,
    read_many,
    read_text,
)

if TYPE_CHECKING:
    from comity.v1.audit_pb2_grpc import AuditServiceAsyncStub

OUTCOMES = frozenset({PASSED, MISSED, *REASONS})


@dataclass(frozen=True, slots=True)
class AuditOrder:
    """A challenge as it is sent, or carried in a file: in the federation of this id. What it says about who asks whom
    is unverified."""

    federation: Digest
    challenge: AuditChallenge


@dataclass(frozen=True, slots=True)
class AuditReply:
    """The signed answer, and the Merkle path of each record. Unverified."""

    line: bytes
    paths: tuple[tuple[bytes, ...], ...]


@dataclass(frozen=True, slots=True)
class ListedCopies:
    """The copies of one artifact, as a node assessed them. `name` is a claimed name, or empty."""

    artifact: Digest
    name: str
    copies: tuple[AssessedCopy, ...]


@dataclass(frozen=True, slots=True)
class CopiesPage:
    """A page of what a node says about copies, for the `day` counted from 1970. `names` has display names by id;
    `member` is the member of the node that says it."""

    artifacts: tuple[ListedCopies, ...]
    names: Mapping[Digest, str]
    policy: CopyPolicy
    day: int
    member: Digest
    more: bool = False


@dataclass(frozen=True, slots=True)
class CheckedCopy:
    """The result of an audit that this node made now. `outcome` is PASSED, MISSED or the reason of a failure."""

    member: str
    node: str
    jurisdiction: str
    outcome: str
    why: str = ""
    pieces: int = 0


@dataclass(frozen=True, slots=True)
class HoldOrder:
    """What an operator decides about the node's own copy. `typed` is the name or digest of the artifact, which is
    needed for the last known copy; `trial`: only say what would happen; `again`: take a withdrawal back."""

    artifact: Digest
    reason: str = "other"
    basis: str = ""
    keep: bool = False
    force: bool = False
    typed: str = ""
    trial: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True)
class HoldDecision:
    """The logged line, empty if none was; the names of nodes that proved a copy now, and of those that did not. `bytes`
    were deleted, or are kept aside if the order says so; 0 while the node still tries."""

    line: bytes
    index: int
    proven: tuple[str, ...]
    unproven: tuple[str, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class RetainedCopy:
    """What the retention rules say about an own copy: whether it may go, why it may or stays, and by which rule.
    `bytes` would be freed; `days`: for how long this node knows that it holds the artifact."""

    artifact: Digest
    name: str
    goes: bool
    why: str
    rule: str = ""
    bytes: int = 0
    days: int = 0


@dataclass(frozen=True, slots=True)
class RetentionPage:
    copies: tuple[RetainedCopy, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class ChallengeRequest:
    """Whose copies to draw challenges for: a node by its name or id; all of its copies, or one."""

    node: str
    artifact: Digest | None = None
    most: int = limits.CARRIED_CHALLENGES


def encode_carried(order: AuditOrder) -> audit_pb2.AuditChallengeCarried:
    challenge = order.challenge
    return audit_pb2.AuditChallengeCarried(
        auditor=encode_digest(challenge.auditor),
        artifact=encode_digest(challenge.artifact),
        index=encode_digest(challenge.pieces),
        nonce=encode_digest(challenge.nonce),
        numbers=challenge.numbers,
        prover=encode_digest(challenge.prover),
        federation=encode_digest(order.federation),
    )


def decode_carried(message: audit_pb2.AuditChallengeCarried) -> AuditOrder:
    """Raises Malformed, and Refused (AUDIT-OLD-FORM)."""
    return _order(message, lease=0)


def _order(message: audit_pb2.AuditRequest | audit_pb2.AuditChallengeCarried, *, lease: int) -> AuditOrder:
    if not (message.federation and message.prover and message.auditor):
        why = "it does not name the federation and the node that is asked, as older versions do not"
        hint = "update the node that asks"
        raise Refused("this challenge is not answered", why=why, hint=hint, code="AUDIT-OLD-FORM")
    challenge = AuditChallenge(
        read_digest(message.auditor),
        read_digest(message.prover),
        read_digest(message.artifact),
        read_digest(message.index),
        read_digest(message.nonce),
        read_many(message.numbers, "pieces", MAX_CHALLENGED, lambda number: read_integer(number, "piece")),
        lease,
    )
    return AuditOrder(read_digest(message.federation), challenge)


def decode_challenge_request(message: audit_pb2.AskChallengesRequest) -> ChallengeRequest:
    return ChallengeRequest(
        read_text(message.node, "node", limits.NAME),
        read_digest(message.artifact) if message.artifact else None,
        read_integer(message.most, "challenges", most=limits.CARRIED_CHALLENGES),
    )


def encode_retention(page: RetentionPage) -> audit_pb2.ListRetentionResponse:
    copies = (
        audit_pb2.RetainedCopy(
            artifact=encode_digest(copy.artifact),
            name=clean(copy.name, limits.NAME),
            goes=copy.goes,
            why=clean(copy.why, limits.STATUS_TEXT),
            rule=clean(copy.rule, limits.NAME),
            bytes=copy.bytes,
            days=copy.days,
        )
        for copy in page.copies
    )
    return audit_pb2.ListRetentionResponse(copies=copies, more=page.more)


def decode_retention(message: audit_pb2.ListRetentionResponse) -> RetentionPage:
    return RetentionPage(read_many(message.copies, "copies", limits.COPIES_PAGE, _decode_retained), message.more)


def _decode_retained(message: audit_pb2.RetainedCopy) -> RetainedCopy:
    return RetainedCopy(
        artifact=read_digest(message.artifact),
        name=read_text(message.name, "name", limits.NAME),
        goes=message.goes,
        why=read_text(message.why, "reason", limits.STATUS_TEXT),
        rule=read_text(message.rule, "rule", limits.NAME),
        bytes=read_integer(message.bytes, "bytes"),
        days=read_integer(message.days, "days"),
    )


def encode_order(order: HoldOrder) -> audit_pb2.DecideHoldRequest:
    return audit_pb2.DecideHoldRequest(
        artifact=encode_digest(order.artifact),
        reason=order.reason,
        basis=order.basis,
        keep=order.keep,
        force=order.force,
        typed=order.typed,
        trial=order.trial,
        again=order.again,
    )


def decode_order(message: audit_pb2.DecideHoldRequest) -> HoldOrder:
    if message.reason not in WITHDRAWAL_REASONS:
        raise Malformed("unknown reason of a withdrawal", why=f"expected one of {', '.join(WITHDRAWAL_REASONS)}")
    return HoldOrder(
        artifact=read_digest(message.artifact),
        reason=message.reason,
        basis=read_text(message.basis, "basis", limits.STATUS_TEXT),
        keep=message.keep,
        force=message.force,
        typed=read_text(message.typed, "name", limits.NAME),
        trial=message.trial,
        again=message.again,
    )


def encode_decision(decision: HoldDecision) -> audit_pb2.DecideHoldResponse:
    return audit_pb2.DecideHoldResponse(
        line=decision.line,
        index=decision.index,
        proven=(clean(name, limits.NAME) for name in decision.proven),
        unproven=(clean(name, limits.NAME) for name in decision.unproven),
        bytes=decision.bytes,
    )


def decode_decision(message: audit_pb2.DecideHoldResponse) -> HoldDecision:
    return HoldDecision(
        line=read_line(message.line) if message.line else b"",
        index=read_integer(message.index, "index"),
        proven=read_many(message.proven, "names", limits.COPIES, lambda name: read_text(name, "name", limits.NAME)),
        unproven=read_many(message.unproven, "names", limits.COPIES, lambda name: read_text(name, "name", limits.NAME)),
        bytes=read_integer(message.bytes, "bytes"),
    )


def encode_audit(order: AuditOrder) -> audit_pb2.AuditRequest:
    challenge = order.challenge
    return audit_pb2.AuditRequest(
        artifact=encode_digest(challenge.artifact),
        index=encode_digest(challenge.pieces),
        nonce=encode_digest(challenge.nonce),
        numbers=challenge.numbers,
        lease=challenge.lease,
        auditor=encode_digest(challenge.auditor),
        prover=encode_digest(challenge.prover),
        federation=encode_digest(order.federation),
    )


def decode_audit(message: audit_pb2.AuditRequest) -> AuditOrder:
    """Raises Malformed, and Refused (AUDIT-OLD-FORM)."""
    return _order(message, lease=read_integer(message.lease, "lease", most=MAX_LEASE))


def encode_reply(reply: AuditReply) -> audit_pb2.AuditResponse:
    paths = (audit_pb2.MerklePath(hashes=path) for path in reply.paths)
    return audit_pb2.AuditResponse(line=reply.line, paths=paths)


def decode_reply(message: audit_pb2.AuditResponse) -> AuditReply:
    paths = read_many(
        message.paths, "paths", MAX_CHALLENGED, lambda path: read_hashes(path.hashes, limits.INCLUSION_HASHES)
    )
    return AuditReply(read_line(message.line), paths)


def encode_copies(page: CopiesPage) -> audit_pb2.ListCopiesResponse:
    return audit_pb2.ListCopiesResponse(
        artifacts=map(_encode_listed, page.artifacts),
        names=(
            audit_pb2.PartyName(id=encode_digest(party), name=clean(name, limits.NAME))
            for party, name in page.names.items()
        ),
        min_copies=page.policy.min_copies,
        min_jurisdictions=page.policy.min_jurisdictions,
        day=page.day,
        member=encode_digest(page.member),
        more=page.more,
        min_reaches=page.policy.min_reaches,
    )


def decode_copies(message: audit_pb2.ListCopiesResponse) -> CopiesPage:
    names = read_many(
        message.names,
        "names",
        limits.STATUS_ITEMS,
        lambda item: (read_digest(item.id), read_text(item.name, "name", limits.NAME)),
    )
    return CopiesPage(
        artifacts=read_many(message.artifacts, "artifacts", limits.COPIES_PAGE, _decode_listed),
        names=dict(names),
        policy=CopyPolicy(
            read_integer(message.min_copies, "copies"),
            read_integer(message.min_jurisdictions, "jurisdictions"),
            read_integer(message.min_reaches, "reaches", most=MOST_REACHES),
        ),
        day=read_integer(message.day, "day"),
        member=read_digest(message.member),
        more=message.more,
    )


def _encode_listed(listed: ListedCopies) -> audit_pb2.ArtifactCopies:
    return audit_pb2.ArtifactCopies(
        artifact=encode_digest(listed.artifact),
        name=clean(listed.name, limits.NAME),
        copies=map(_encode_copy, listed.copies),
    )


def _decode_listed(message: audit_pb2.ArtifactCopies) -> ListedCopies:
    return ListedCopies(
        read_digest(message.artifact),
        read_text(message.name, "name", limits.NAME),
        read_many(message.copies, "copies", limits.COPIES, _decode_copy),
    )


def _encode_copy(assessed: AssessedCopy) -> audit_pb2.CopyState:
    return audit_pb2.CopyState(
        member=encode_digest(assessed.copy.member),
        node=encode_digest(assessed.copy.node),
        jurisdiction=assessed.copy.jurisdiction,
        state=assessed.state,
        withdrawn=assessed.copy.withdrawn,
        results=(
            audit_pb2.AuditOutcome(
                auditor=encode_digest(result.auditor),
                day=result.day,
                outcome=result.outcome,
                pieces=result.pieces,
                proven=result.proven,
            )
            for result in assessed.results
        ),
        reach=assessed.copy.reach,
        cloud=clean(assessed.copy.cloud, limits.NAME),
    )


def _decode_copy(message: audit_pb2.CopyState) -> AssessedCopy:
    copy = ClaimedCopy(
        member=read_digest(message.member),
        node=read_digest(message.node),
        jurisdiction=read_text(message.jurisdiction, "jurisdiction", limits.NAME),
        withdrawn=read_text(message.withdrawn, "reason", limits.LABEL),
        reach=read_many(message.reach, "jurisdictions", MAX_REACH + 1, check_jurisdiction),
        cloud=read_text(message.cloud, "cloud", limits.NAME),
    )
    if message.state not in STATES:
        raise Malformed("unknown state of a copy", why=f"expected one of {', '.join(STATES)}")
    return AssessedCopy(copy, message.state, read_many(message.results, "audits", limits.AUDIT_RESULTS, _decode_result))


def _decode_result(message: audit_pb2.AuditOutcome) -> AuditResult:
    return AuditResult(
        auditor=read_digest(message.auditor),
        day=read_integer(message.day, "day"),
        outcome=_outcome(message.outcome),
        pieces=read_integer(message.pieces, "pieces"),
        proven=message.proven,
    )


def encode_checked(checked: CheckedCopy) -> audit_pb2.CheckCopiesResponse:
    return audit_pb2.CheckCopiesResponse(
        member=clean(checked.member, limits.NAME),
        node=clean(checked.node, limits.NAME),
        jurisdiction=checked.jurisdiction,
        outcome=checked.outcome,
        why=clean(checked.why, limits.STATUS_TEXT),
        pieces=checked.pieces,
    )


def decode_checked(message: audit_pb2.CheckCopiesResponse) -> CheckedCopy:
    return CheckedCopy(
        member=read_text(message.member, "name", limits.NAME),
        node=read_text(message.node, "name", limits.NAME),
        jurisdiction=read_text(message.jurisdiction, "jurisdiction", limits.NAME),
        outcome=_outcome(message.outcome),
        why=read_text(message.why, "reason", limits.STATUS_TEXT),
        pieces=read_integer(message.pieces, "pieces"),
    )


def _outcome(value: str) -> str:
    if value not in OUTCOMES:
        raise Malformed("unknown result of an audit", why=f"expected one of {', '.join(sorted(OUTCOMES))}")
    return value


class AuditCalls(ServiceCalls):
    """The calls of `AuditService`."""

    @cached_property
    def _audits(self) -> AuditServiceAsyncStub:
        return AuditServiceStub(self._calls.connection.channel)

    async def audit(self, order: AuditOrder) -> AuditReply:
        """Send a challenge to the node. Raises NotFound (NOT-HELD), Refused, OutOfSpace (AUDIT-BUDGET)."""
        return decode_reply(await self._calls.unary(self._audits.Audit, encode_audit(order)))

    async def copies(self, artifact: Digest | None = None, after: Digest | None = None) -> CopiesPage:
        """What the node says about the copies of one artifact, or of a page of all artifacts."""
        request = audit_pb2.ListCopiesRequest(
            artifact=encode_digest(artifact) if artifact else b"", after=encode_digest(after) if after else b""
        )
        return decode_copies(await self._calls.unary(self._audits.ListCopies, request))

    async def all_copies(self) -> AsyncGenerator[CopiesPage, None]:
        """Yields every page. Raises Malformed if the artifacts of a node are not in order."""
        after: Digest | None = None
        while True:
            page = await self.copies(after=after)
            order = [item.artifact for item in page.artifacts]
            if sorted(set(order)) != order or (after and order and order[0] <= after) or (page.more and not order):
                raise Malformed("the answer is not in order", why="artifacts must be listed in order, each once")
            yield page
            if not page.more:
                return
            after = order[-1]

    async def logged(self, artifact: Digest) -> tuple[LocatedEntry, ...]:
        """The newest logged audits of copies of an artifact. Unverified."""
        request = audit_pb2.ListAuditsRequest(artifact=encode_digest(artifact))
        return tuple(await self._calls.all(self._audits.ListAudits, request, decode_located, limits.AUDIT_LINES))

    async def check(self, artifact: Digest) -> AsyncGenerator[CheckedCopy, None]:
        """Audit the copies of an artifact now. For operators. Raises NotFound."""
        request = audit_pb2.CheckCopiesRequest(artifact=encode_digest(artifact))
        size = int(limits.LONGEST_CALL * limits.SLOWEST)  # gives the longest deadline
        results = self._calls.stream(self._audits.CheckCopies, request, items=limits.COPIES, size=size)
        async with aclosing(results):
            async for result in results:
                yield decode_checked(result)

    async def decide(self, order: HoldOrder) -> HoldDecision:
        """Withdraw the node's own copy. Only over the node's Unix socket. Raises NotFound (NOT-HELD), PolicyNotMet
        (COPIES-SHORT, LAST-COPY), Conflict (LEASED, LEASE-OVER, WITHDRAWING)."""
        return decode_decision(await self._calls.unary(self._audits.DecideHold, encode_order(order)))

    async def retention(self) -> AsyncGenerator[RetentionPage, None]:
        """What the retention rules say about the node's own copies, page by page. Only over the node's Unix socket.
        Raises NotFound (NO-RETENTION-RULES), Malformed (RETENTION-RULES)."""
        after: Digest | None = None
        while True:
            request = audit_pb2.ListRetentionRequest(after=encode_digest(after) if after else b"")
            page = decode_retention(await self._calls.unary(self._audits.ListRetention, request))
            yield page
            if not page.more or not page.copies:
                return
            after = page.copies[-1].artifact

    async def challenges(self, request: ChallengeRequest) -> list[AuditOrder]:
        """Have the node draw challenges, to be carried in a file. Only over its Unix socket. Raises NotFound."""
        message = audit_pb2.AskChallengesRequest(
            node=request.node, artifact=encode_digest(request.artifact) if request.artifact else b"", most=request.most
        )
        most = limits.CARRIED_CHALLENGES
        return list(await self._calls.all(self._audits.AskChallenges, message, decode_carried, most))

    async def answer_carried(self, order: AuditOrder) -> AuditReply:
        """Have the node answer a challenge that was carried here. Only over its Unix socket. Raises NotFound
        (NOT-HELD), Refused (AUDITORS-ONLY, AUDIT-PARTIES)."""
        return decode_reply(await self._calls.unary(self._audits.AuditCarried, encode_carried(order)))

    async def check_answer(self, reply: AuditReply) -> CheckedCopy:
        """Have the node check an answer that was carried back, and log the result. Only over its Unix socket. Raises
        NotFound (NO-CHALLENGE), Untrusted (AUDIT-FAILED), Conflict (NOT-COMPARED)."""
        return decode_checked(await self._calls.unary(self._audits.CheckAnswer, encode_reply(reply)))


class AuditReads(Protocol):
    async def audit(self, caller: Caller, order: AuditOrder) -> AuditReply:
        """Answer a challenge. Raises NotFound (NOT-HELD), Refused (AUDITORS-ONLY, AUDIT-PARTIES), OutOfSpace
        (AUDIT-BUDGET)."""

    async def copies(self, artifact: Digest | None, after: Digest | None) -> CopiesPage: ...

    async def logged(self, artifact: Digest) -> Sequence[LocatedEntry]: ...

    def check(self, artifact: Digest) -> AsyncGenerator[CheckedCopy, None]:
        """Audit all copies of others. Raises NotFound."""

    async def decide(self, order: HoldOrder) -> HoldDecision:
        """Withdraw the own copy. Raises as `AuditCalls.decide` does."""

    async def retention(self, after: Digest | None) -> RetentionPage: ...

    def challenges(self, request: ChallengeRequest) -> AsyncGenerator[AuditOrder, None]: ...

    async def answer_carried(self, order: AuditOrder) -> AuditReply: ...

    async def check_answer(self, reply: AuditReply) -> CheckedCopy: ...


class AuditServicer(AuditServiceServicer):
    def __init__(self, audits: AuditReads) -> None:
        self._audits = audits

    async def Audit(self, request: audit_pb2.AuditRequest, context: Context) -> audit_pb2.AuditResponse:
        return encode_reply(await self._audits.audit(CALLER.get(), decode_audit(request)))

    async def ListCopies(self, request: audit_pb2.ListCopiesRequest, context: Context) -> audit_pb2.ListCopiesResponse:
        artifact = read_digest(request.artifact) if request.artifact else None
        after = read_digest(request.after) if request.after else None
        return encode_copies(await self._audits.copies(artifact, after))

    async def ListAudits(
        self, request: audit_pb2.ListAuditsRequest, context: Context
    ) -> AsyncIterator[types_pb2.Located]:
        for located in (await self._audits.logged(read_digest(request.artifact)))[: limits.AUDIT_LINES]:
            yield encode_located(located)

    async def CheckCopies(
        self, request: audit_pb2.CheckCopiesRequest, context: Context
    ) -> AsyncIterator[audit_pb2.CheckCopiesResponse]:
        async with aclosing(at_most(limits.COPIES, self._audits.check(read_digest(request.artifact)))) as results:
            async for result in results:
                yield encode_checked(result)

    async def DecideHold(self, request: audit_pb2.DecideHoldRequest, context: Context) -> audit_pb2.DecideHoldResponse:
        return encode_decision(await self._audits.decide(decode_order(request)))

    async def ListRetention(
        self, request: audit_pb2.ListRetentionRequest, context: Context
    ) -> audit_pb2.ListRetentionResponse:
        return encode_retention(await self._audits.retention(read_digest(request.after) if request.after else None))

    async def AskChallenges(
        self, request: audit_pb2.AskChallengesRequest, context: Context
    ) -> AsyncIterator[audit_pb2.AuditChallengeCarried]:
        drawn = self._audits.challenges(decode_challenge_request(request))
        async with aclosing(at_most(limits.CARRIED_CHALLENGES, drawn)) as challenges:
            async for order in challenges:
                yield encode_carried(order)

    async def AuditCarried(self, request: audit_pb2.AuditChallengeCarried, context: Context) -> audit_pb2.AuditResponse:
        return encode_reply(await self._audits.answer_carried(decode_carried(request)))

    async def CheckAnswer(self, request: audit_pb2.AuditResponse, context: Context) -> audit_pb2.CheckCopiesResponse:
        return encode_checked(await self._audits.check_answer(decode_reply(request)))
