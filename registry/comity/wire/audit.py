"""`AuditService`: audits of copies, and what a node knows about copies. Values, codec, calls and servicer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Final, Protocol

from comity.rules.audit import MAX_CHALLENGED, MAX_LEASE, REASONS, AuditChallenge
from comity.rules.copy_counts import MISSED, PASSED, STATES, AssessedCopy, AuditResult, CopyPolicy
from comity.trust.copies import WITHDRAWAL_REASONS
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Refused
from comity.trust.identity import check_jurisdiction
from comity.trust.places import MAX_REACH, MOST_REACHES
from comity.v1 import audit_pb2, types_pb2
from comity.v1.audit_pb2_grpc import AuditServiceServicer, AuditServiceStub
from comity.wire import limits
from comity.wire.access import CALLER, Caller
from comity.wire.calls import ServiceCalls
from comity.wire.codec import (
    LINE,
    LINE_OR_NONE,
    At,
    Constant,
    Exact,
    Items,
    Merged,
    MessageCodec,
    Number,
    OneOf,
    Read,
    Sentence,
    ShownName,
    Text,
)
from comity.wire.errors import clean
from comity.wire.fields import encode_digest, read_digest, read_hashes, read_many, read_text
from comity.wire.messages import LOCATED, Context, LocatedEntry, at_most

if TYPE_CHECKING:
    from comity.v1.audit_pb2_grpc import AuditServiceAsyncStub

OUTCOMES: Final = frozenset({PASSED, MISSED, *REASONS})
_RESULT: Final = MessageCodec(AuditResult, audit_pb2.AuditOutcome, outcome=OneOf(OUTCOMES))
_CLAIMED: Final = Merged(
    jurisdiction=Exact(limits.NAME),
    withdrawn=Exact(limits.LABEL),
    reach=Items(MAX_REACH + 1, Read(check_jurisdiction)),
    cloud=Text(limits.NAME),
)
_COPY: Final = MessageCodec(
    AssessedCopy,
    audit_pb2.CopyState,
    copy=_CLAIMED,
    state=OneOf(STATES),
    results=Items(limits.AUDIT_RESULTS, _RESULT),
)
_PATH: Final = Read(
    lambda message: read_hashes(message.hashes, limits.INCLUSION_HASHES),
    lambda hashes: audit_pb2.MerklePath(hashes=hashes),
)


def _read_names(items: Sequence[audit_pb2.PartyName]) -> dict[Digest, str]:
    def read(item: audit_pb2.PartyName) -> tuple[Digest, str]:
        return read_digest(item.id), read_text(item.name, "name", limits.NAME)

    return dict(read_many(items, "names", limits.STATUS_ITEMS, read))


def _write_names(names: Mapping[Digest, str]) -> list[audit_pb2.PartyName]:
    return [
        audit_pb2.PartyName(id=encode_digest(party), name=clean(name, limits.NAME)) for party, name in names.items()
    ]


_NAMES: Final = Read(_read_names, _write_names)


@dataclass(frozen=True, slots=True)
class AuditOrder:
    """A challenge as it is sent, or carried in a file: in the federation of this id. What it says about who asks whom
    is unverified."""

    federation: Digest
    challenge: AuditChallenge


@dataclass(frozen=True, slots=True)
class AuditReply:
    """The signed answer, and the Merkle path of each record. Unverified."""

    line: Annotated[bytes, LINE]
    paths: Annotated[tuple[tuple[bytes, ...], ...], Items(MAX_CHALLENGED, _PATH)]


@dataclass(frozen=True, slots=True)
class ListedCopies:
    """The copies of one artifact, as a node assessed them. `name` is a claimed name, or empty."""

    artifact: Digest
    name: ShownName
    copies: Annotated[tuple[AssessedCopy, ...], Items(limits.COPIES, _COPY)]


@dataclass(frozen=True, slots=True)
class CopiesPage:
    """A page of what a node says about copies, for the `day` counted from 1970. `names` has display names by id;
    `member` is the member of the node that says it."""

    artifacts: Annotated[tuple[ListedCopies, ...], Items(limits.COPIES_PAGE)]
    names: Annotated[Mapping[Digest, str], _NAMES]
    policy: Annotated[CopyPolicy, Merged(min_reaches=Number(most=MOST_REACHES))]
    day: int
    member: Digest
    more: bool = False


@dataclass(frozen=True, slots=True)
class CheckedCopy:
    """The result of an audit that this node made now. `outcome` is PASSED, MISSED or the reason of a failure."""

    member: ShownName
    node: ShownName
    jurisdiction: Annotated[str, Exact(limits.NAME)]
    outcome: Annotated[str, OneOf(OUTCOMES)]
    why: Sentence = ""
    pieces: int = 0


@dataclass(frozen=True, slots=True)
class HoldOrder:
    """What an operator decides about the node's own copy. `typed` is the name or digest of the artifact, which is
    needed for the last known copy; `trial`: only say what would happen; `again`: take a withdrawal back."""

    artifact: Digest
    reason: Annotated[str, OneOf(WITHDRAWAL_REASONS)] = "other"
    basis: Annotated[str, Exact(limits.STATUS_TEXT)] = ""
    keep: bool = False
    force: bool = False
    typed: Annotated[str, Exact(limits.NAME)] = ""
    trial: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True)
class HoldDecision:
    """The logged line, empty if none was; the names of nodes that proved a copy now, and of those that did not. `bytes`
    were deleted, or are kept aside if the order says so; 0 while the node still tries."""

    line: Annotated[bytes, LINE_OR_NONE]
    index: int
    proven: Annotated[tuple[ShownName, ...], Items(limits.COPIES)]
    unproven: Annotated[tuple[ShownName, ...], Items(limits.COPIES)]
    bytes: int


@dataclass(frozen=True, slots=True)
class RetainedCopy:
    """What the retention rules say about an own copy: whether it may go, why it may or stays, and by which rule.
    `bytes` would be freed; `days`: for how long this node knows that it holds the artifact."""

    artifact: Digest
    name: ShownName
    goes: bool
    why: Sentence
    rule: ShownName = ""
    bytes: int = 0
    days: int = 0


@dataclass(frozen=True, slots=True)
class RetentionPage:
    copies: Annotated[tuple[RetainedCopy, ...], Items(limits.COPIES_PAGE)]
    more: bool = False


@dataclass(frozen=True, slots=True)
class ChallengeRequest:
    """Whose copies to draw challenges for: a node by its name or id; all of its copies, or one."""

    node: Annotated[str, Exact(limits.NAME)]
    artifact: Digest | None = None
    most: Annotated[int, Number(most=limits.CARRIED_CHALLENGES)] = limits.CARRIED_CHALLENGES


_PARTIES: Final = Merged(pieces=At("index"), numbers=Items(MAX_CHALLENGED), lease=Number(most=MAX_LEASE))
_CARRIED_PARTIES: Final = Merged(pieces=At("index"), numbers=Items(MAX_CHALLENGED), lease=Constant(0))
ORDER: Final = MessageCodec(AuditOrder, audit_pb2.AuditRequest, challenge=_PARTIES)
CARRIED: Final = MessageCodec(AuditOrder, audit_pb2.AuditChallengeCarried, challenge=_CARRIED_PARTIES)
REPLY: Final = MessageCodec(AuditReply, audit_pb2.AuditResponse)
COPIES: Final = MessageCodec(CopiesPage, audit_pb2.ListCopiesResponse)
CHECKED: Final = MessageCodec(CheckedCopy, audit_pb2.CheckCopiesResponse)
HOLD_ORDER: Final = MessageCodec(HoldOrder, audit_pb2.DecideHoldRequest)
DECISION: Final = MessageCodec(HoldDecision, audit_pb2.DecideHoldResponse)
RETENTION: Final = MessageCodec(RetentionPage, audit_pb2.ListRetentionResponse)
CHALLENGES: Final = MessageCodec(ChallengeRequest, audit_pb2.AskChallengesRequest)


def _check_form(message: audit_pb2.AuditRequest | audit_pb2.AuditChallengeCarried) -> None:
    """Raises Refused (AUDIT-OLD-FORM)."""
    if not (message.federation and message.prover and message.auditor):
        why = "it does not name the federation and the node that is asked, as older versions do not"
        hint = "update the node that asks"
        raise Refused("this challenge is not answered", why=why, hint=hint, code="AUDIT-OLD-FORM")


def read_order(message: audit_pb2.AuditRequest) -> AuditOrder:
    """Raises Malformed, and Refused (AUDIT-OLD-FORM)."""
    _check_form(message)
    return ORDER.decode(message)


def read_carried(message: audit_pb2.AuditChallengeCarried) -> AuditOrder:
    """Raises Malformed, and Refused (AUDIT-OLD-FORM)."""
    _check_form(message)
    return CARRIED.decode(message)


class AuditCalls(ServiceCalls):
    """The calls of `AuditService`."""

    @cached_property
    def _audits(self) -> AuditServiceAsyncStub:
        return AuditServiceStub(self._calls.connection.channel)

    async def audit(self, order: AuditOrder) -> AuditReply:
        """Send a challenge to the node. Raises NotFound (NOT-HELD), Refused, OutOfSpace (AUDIT-BUDGET)."""
        return REPLY.decode(await self._calls.unary(self._audits.Audit, ORDER.encode(order)))

    async def copies(self, artifact: Digest | None = None, after: Digest | None = None) -> CopiesPage:
        """What the node says about the copies of one artifact, or of a page of all artifacts."""
        request = audit_pb2.ListCopiesRequest(
            artifact=encode_digest(artifact) if artifact else b"", after=encode_digest(after) if after else b""
        )
        return COPIES.decode(await self._calls.unary(self._audits.ListCopies, request))

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
        return tuple(await self._calls.all(self._audits.ListAudits, request, LOCATED.decode, limits.AUDIT_LINES))

    async def check(self, artifact: Digest) -> AsyncGenerator[CheckedCopy, None]:
        """Audit the copies of an artifact now. For operators. Raises NotFound."""
        request = audit_pb2.CheckCopiesRequest(artifact=encode_digest(artifact))
        size = int(limits.LONGEST_CALL * limits.SLOWEST)  # gives the longest deadline
        results = self._calls.stream(self._audits.CheckCopies, request, items=limits.COPIES, size=size)
        async with aclosing(results):
            async for result in results:
                yield CHECKED.decode(result)

    async def decide(self, order: HoldOrder) -> HoldDecision:
        """Withdraw the node's own copy. Only over the node's Unix socket. Raises NotFound (NOT-HELD), PolicyNotMet
        (COPIES-SHORT, LAST-COPY), Conflict (LEASED, LEASE-OVER, WITHDRAWING)."""
        return DECISION.decode(await self._calls.unary(self._audits.DecideHold, HOLD_ORDER.encode(order)))

    async def retention(self) -> AsyncGenerator[RetentionPage, None]:
        """What the retention rules say about the node's own copies, page by page. Only over the node's Unix socket.
        Raises NotFound (NO-RETENTION-RULES), Malformed (RETENTION-RULES)."""
        after: Digest | None = None
        while True:
            request = audit_pb2.ListRetentionRequest(after=encode_digest(after) if after else b"")
            page = RETENTION.decode(await self._calls.unary(self._audits.ListRetention, request))
            yield page
            if not page.more or not page.copies:
                return
            after = page.copies[-1].artifact

    async def challenges(self, request: ChallengeRequest) -> list[AuditOrder]:
        """Have the node draw challenges, to be carried in a file. Only over its Unix socket. Raises NotFound."""
        message, most = CHALLENGES.encode(request), limits.CARRIED_CHALLENGES
        return list(await self._calls.all(self._audits.AskChallenges, message, read_carried, most))

    async def answer_carried(self, order: AuditOrder) -> AuditReply:
        """Have the node answer a challenge that was carried here. Only over its Unix socket. Raises NotFound
        (NOT-HELD), Refused (AUDITORS-ONLY, AUDIT-PARTIES)."""
        return REPLY.decode(await self._calls.unary(self._audits.AuditCarried, CARRIED.encode(order)))

    async def check_answer(self, reply: AuditReply) -> CheckedCopy:
        """Have the node check an answer that was carried back, and log the result. Only over its Unix socket. Raises
        NotFound (NO-CHALLENGE), Untrusted (AUDIT-FAILED), Conflict (NOT-COMPARED)."""
        return CHECKED.decode(await self._calls.unary(self._audits.CheckAnswer, REPLY.encode(reply)))


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
        return REPLY.encode(await self._audits.audit(CALLER.get(), read_order(request)))

    async def ListCopies(self, request: audit_pb2.ListCopiesRequest, context: Context) -> audit_pb2.ListCopiesResponse:
        artifact = read_digest(request.artifact) if request.artifact else None
        after = read_digest(request.after) if request.after else None
        return COPIES.encode(await self._audits.copies(artifact, after))

    async def ListAudits(
        self, request: audit_pb2.ListAuditsRequest, context: Context
    ) -> AsyncIterator[types_pb2.Located]:
        for located in (await self._audits.logged(read_digest(request.artifact)))[: limits.AUDIT_LINES]:
            yield LOCATED.encode(located)

    async def CheckCopies(
        self, request: audit_pb2.CheckCopiesRequest, context: Context
    ) -> AsyncIterator[audit_pb2.CheckCopiesResponse]:
        async with aclosing(at_most(limits.COPIES, self._audits.check(read_digest(request.artifact)))) as results:
            async for result in results:
                yield CHECKED.encode(result)

    async def DecideHold(self, request: audit_pb2.DecideHoldRequest, context: Context) -> audit_pb2.DecideHoldResponse:
        return DECISION.encode(await self._audits.decide(HOLD_ORDER.decode(request)))

    async def ListRetention(
        self, request: audit_pb2.ListRetentionRequest, context: Context
    ) -> audit_pb2.ListRetentionResponse:
        return RETENTION.encode(await self._audits.retention(read_digest(request.after) if request.after else None))

    async def AskChallenges(
        self, request: audit_pb2.AskChallengesRequest, context: Context
    ) -> AsyncIterator[audit_pb2.AuditChallengeCarried]:
        drawn = self._audits.challenges(CHALLENGES.decode(request))
        async with aclosing(at_most(limits.CARRIED_CHALLENGES, drawn)) as challenges:
            async for order in challenges:
                yield CARRIED.encode(order)

    async def AuditCarried(self, request: audit_pb2.AuditChallengeCarried, context: Context) -> audit_pb2.AuditResponse:
        return REPLY.encode(await self._audits.answer_carried(read_carried(request)))

    async def CheckAnswer(self, request: audit_pb2.AuditResponse, context: Context) -> audit_pb2.CheckCopiesResponse:
        return CHECKED.encode(await self._audits.check_answer(REPLY.decode(request)))
