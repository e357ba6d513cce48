"""Messages, conversion and RPC of OfferService: offers, grants and the operator's actions.

States and amounts are computed by the answering node; log lines are passed on as bytes. Nothing is verified here:
`comity.trust.offers` computes states and amounts from the lines. `OfferCalls` is the client side (`NodeClient.offers`),
`OfferServicer` the server side, which calls an `OfferService`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.hardware.evidence import MAX_EVIDENCE
from comity.trust.offers.offer import MAX_BYTES, MAX_SLICES, MAX_TIME, SliceAllocation, Window
from comity.trust.offers.records import MAX_TEXT
from comity.v1 import offer_pb2, types_pb2
from comity.v1.offer_pb2_grpc import OfferServiceServicer, OfferServiceStub
from comity.wire import limits
from comity.wire.calls import ServiceCalls
from comity.wire.errors import clean
from comity.wire.messages import (
    Context,
    LocatedEntry,
    decode_located,
    encode_digest,
    encode_located,
    read_data,
    read_digest,
    read_integer,
    read_log,
    read_many,
    read_text,
)

if TYPE_CHECKING:
    from comity.v1.offer_pb2_grpc import OfferServiceAsyncStub


@dataclass(frozen=True, slots=True)
class OfferQuery:
    """A search for offers. All given fields must match.

    Attributes:
        accelerator: SkyPilot's name; upper and lower case are equal.
        least_amount: minimum amount left of one slice, with that accelerator if one is given.
        jurisdictions: the machines are in one of these.
        beyond_reach_of: the offer's legal reach contains none of these.
        artifact: digest of a model that is stored near the machines.
        ends_after: POSIX seconds; the window ends later.
        closed: include offers that are withdrawn or have a fault.
        after: the last chain of the previous page.
        limit: at most 1,000; 0 for the maximum.
    """

    accelerator: str = ""
    least_amount: int = 0
    jurisdictions: tuple[str, ...] = ()
    beyond_reach_of: tuple[str, ...] = ()
    artifact: Digest | None = None
    engine: str = ""
    measure: str = ""
    provider: Digest | None = None
    ends_after: int | None = None
    closed: bool = False
    after: Digest | None = None
    limit: int = 0


@dataclass(frozen=True, slots=True)
class OfferStatus:
    """The offer in force of one chain, and the state that a node computed."""

    offer: LocatedEntry
    vkey: str
    chain: Digest
    remaining: tuple[int, ...]
    seq: int
    at: int
    withdrawn: bool = False
    fault: str = ""


@dataclass(frozen=True, slots=True)
class GrantQuery:
    """A list of requests. All given fields must match. `after` is the last request of the previous page."""

    offer: Digest | None = None
    grantee: Digest | None = None
    state: str = ""
    after: Digest | None = None
    limit: int = 0


@dataclass(frozen=True, slots=True)
class GrantStatus:
    """A request and its state: requested, granted, rejected, accepted, lapsed or released.

    Attributes:
        answer: the record that grants or rejects the request.
        redeemed: amount redeemed of each allocation, in order.
        newest: line digest of the newest record about the grant: the challenge of the next redemption.
        statements: line digests of statements about the grant that are not records.
    """

    request: LocatedEntry
    chain: Digest
    state: str
    answer: LocatedEntry | None = None
    redeemed: tuple[int, ...] = ()
    newest: Digest | None = None
    statements: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class Post:
    """Log an offer: its document in canonical form."""

    document: bytes


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Withdraw an offer."""

    offer: Digest
    text: str = ""


@dataclass(frozen=True, slots=True)
class Approve:
    """Grant a request (line digest). Without `allocations`, grant what was requested."""

    request: Digest
    allocations: tuple[SliceAllocation, ...] = ()


@dataclass(frozen=True, slots=True)
class Reject:
    """Reject a request (line digest)."""

    request: Digest
    text: str = ""


@dataclass(frozen=True, slots=True)
class Redeem:
    """Record a grantee's `redeemed` (line digest)."""

    redemption: Digest


@dataclass(frozen=True, slots=True)
class Release:
    """Release a grant (line digest) that is over or was given back."""

    grant: Digest


@dataclass(frozen=True, slots=True)
class AnswerDefault:
    """Answer a grantee's `defaulted` (line digest)."""

    default: Digest
    text: str


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Log the amounts used of a grant (line digest) within a window."""

    grant: Digest
    amounts: tuple[int, ...]
    window: Window
    text: str = ""


@dataclass(frozen=True, slots=True)
class Attest:
    """Log hardware evidence (`comity.trust.hardware.evidence`) of an offer's machines, for the challenge that names the
    first `size` entries of the node's log, with this `root`."""

    offer: Digest
    size: int
    root: Digest
    evidence: bytes


OfferAction: TypeAlias = Post | Withdraw | Approve | Reject | Redeem | Release | AnswerDefault | UsageReport | Attest


def encode_offer_query(query: OfferQuery) -> offer_pb2.SearchOffersRequest:
    return offer_pb2.SearchOffersRequest(
        accelerator=query.accelerator,
        least_amount=query.least_amount,
        jurisdictions=query.jurisdictions,
        beyond_reach_of=query.beyond_reach_of,
        artifact=None if query.artifact is None else encode_digest(query.artifact),
        engine=query.engine,
        measure=query.measure,
        provider=None if query.provider is None else encode_digest(query.provider),
        ends_after=query.ends_after,
        closed=query.closed,
        after=None if query.after is None else encode_digest(query.after),
        limit=query.limit,
    )


def decode_offer_query(message: offer_pb2.SearchOffersRequest) -> OfferQuery:
    return OfferQuery(
        accelerator=read_text(message.accelerator, "accelerator", limits.LABEL),
        least_amount=read_integer(message.least_amount, "amount"),
        jurisdictions=read_many(message.jurisdictions, "jurisdictions", limits.JURISDICTIONS, _short_text),
        beyond_reach_of=read_many(message.beyond_reach_of, "jurisdictions", limits.JURISDICTIONS, _short_text),
        artifact=read_digest(message.artifact) if message.HasField("artifact") else None,
        engine=_short_text(message.engine),
        measure=_short_text(message.measure),
        provider=read_digest(message.provider) if message.HasField("provider") else None,
        ends_after=read_integer(message.ends_after, "time") if message.HasField("ends_after") else None,
        closed=message.closed,
        after=read_digest(message.after) if message.HasField("after") else None,
        limit=read_integer(message.limit, "limit", most=limits.OFFERS),
    )


def encode_offer_state(state: OfferStatus) -> offer_pb2.OfferState:
    return offer_pb2.OfferState(
        offer=encode_located(state.offer),
        vkey=state.vkey,
        chain=encode_digest(state.chain),
        remaining=state.remaining,
        seq=state.seq,
        at=state.at,
        withdrawn=state.withdrawn,
        fault=clean(state.fault, limits.STATUS_TEXT),
    )


def decode_offer_state(message: offer_pb2.OfferState) -> OfferStatus:
    return OfferStatus(
        offer=decode_located(message.offer),
        vkey=read_log(message.vkey),
        chain=read_digest(message.chain),
        remaining=read_many(message.remaining, "slices", MAX_SLICES, _amount),
        seq=read_integer(message.seq, "number"),
        at=read_integer(message.at, "time"),
        withdrawn=message.withdrawn,
        fault=read_text(message.fault, "fault", limits.STATUS_TEXT),
    )


def encode_grant_query(query: GrantQuery) -> offer_pb2.ListGrantsRequest:
    return offer_pb2.ListGrantsRequest(
        offer=None if query.offer is None else encode_digest(query.offer),
        grantee=None if query.grantee is None else encode_digest(query.grantee),
        state=query.state,
        after=None if query.after is None else encode_digest(query.after),
        limit=query.limit,
    )


def decode_grant_query(message: offer_pb2.ListGrantsRequest) -> GrantQuery:
    return GrantQuery(
        offer=read_digest(message.offer) if message.HasField("offer") else None,
        grantee=read_digest(message.grantee) if message.HasField("grantee") else None,
        state=_short_text(message.state),
        after=read_digest(message.after) if message.HasField("after") else None,
        limit=read_integer(message.limit, "limit", most=limits.GRANTS),
    )


def encode_grant_state(state: GrantStatus) -> offer_pb2.GrantState:
    return offer_pb2.GrantState(
        request=encode_located(state.request),
        chain=encode_digest(state.chain),
        state=state.state,
        answer=None if state.answer is None else encode_located(state.answer),
        redeemed=state.redeemed,
        newest=None if state.newest is None else encode_digest(state.newest),
        said=map(encode_digest, state.statements),
    )


def decode_grant_state(message: offer_pb2.GrantState) -> GrantStatus:
    return GrantStatus(
        request=decode_located(message.request),
        chain=read_digest(message.chain),
        state=_short_text(message.state),
        answer=decode_located(message.answer) if message.HasField("answer") else None,
        redeemed=read_many(message.redeemed, "allocations", MAX_SLICES, _amount),
        newest=read_digest(message.newest) if message.HasField("newest") else None,
        statements=read_many(message.said, "statements", limits.GRANT_STATEMENTS, read_digest),
    )


def encode_action(action: OfferAction) -> offer_pb2.AllocateRequest:
    if isinstance(action, Post):
        return offer_pb2.AllocateRequest(post=action.document)
    if isinstance(action, Withdraw):
        return offer_pb2.AllocateRequest(
            withdraw=offer_pb2.Withdraw(offer=encode_digest(action.offer), text=action.text)
        )
    if isinstance(action, Approve):
        approve = offer_pb2.Approve(
            request=encode_digest(action.request), allocations=map(_encode_allocation, action.allocations)
        )
        return offer_pb2.AllocateRequest(approve=approve)
    if isinstance(action, Reject):
        return offer_pb2.AllocateRequest(
            reject=offer_pb2.Reject(request=encode_digest(action.request), text=action.text)
        )
    if isinstance(action, Redeem):
        return offer_pb2.AllocateRequest(redeem=encode_digest(action.redemption))
    if isinstance(action, Release):
        return offer_pb2.AllocateRequest(release=encode_digest(action.grant))
    if isinstance(action, AnswerDefault):
        answer = offer_pb2.Answer(default_line=encode_digest(action.default), text=action.text)
        return offer_pb2.AllocateRequest(answer=answer)
    if isinstance(action, Attest):
        attest = offer_pb2.Attest(
            offer=encode_digest(action.offer),
            size=action.size,
            root=encode_digest(action.root),
            evidence=action.evidence,
        )
        return offer_pb2.AllocateRequest(attest=attest)
    report = offer_pb2.Report(
        grant=encode_digest(action.grant),
        amounts=action.amounts,
        start=action.window.start,
        end=action.window.end,
        text=action.text,
    )
    return offer_pb2.AllocateRequest(report=report)


def decode_action(message: offer_pb2.AllocateRequest) -> OfferAction:
    read = _ACTION_DECODERS.get(message.WhichOneof("act") or "")
    if read is None:
        raise Malformed("unknown action", why="the request names no action that this node knows")
    return read(message)


def encode_allocated(lines: tuple[LocatedEntry, ...]) -> offer_pb2.AllocateResponse:
    return offer_pb2.AllocateResponse(lines=map(encode_located, lines))


def decode_allocated(message: offer_pb2.AllocateResponse) -> tuple[LocatedEntry, ...]:
    return read_many(message.lines, "lines", limits.ALLOCATED, decode_located)


def _encode_allocation(wanted: SliceAllocation) -> offer_pb2.Allocation:
    return offer_pb2.Allocation(
        slice=wanted.slice, nodes=wanted.nodes, start=wanted.start, end=wanted.end, amount=wanted.amount
    )


def _decode_allocation(message: offer_pb2.Allocation) -> SliceAllocation:
    start, end = (read_integer(time, "time", most=MAX_TIME) for time in (message.start, message.end))
    return SliceAllocation(_short_text(message.slice), message.nodes, start, end, _amount(message.amount))


def _withdraw(message: offer_pb2.AllocateRequest) -> OfferAction:
    return Withdraw(read_digest(message.withdraw.offer), _long_text(message.withdraw.text))


def _approve(message: offer_pb2.AllocateRequest) -> OfferAction:
    allocations = read_many(message.approve.allocations, "allocations", MAX_SLICES, _decode_allocation)
    return Approve(read_digest(message.approve.request), allocations)


def _reject(message: offer_pb2.AllocateRequest) -> OfferAction:
    return Reject(read_digest(message.reject.request), _long_text(message.reject.text))


def _answer(message: offer_pb2.AllocateRequest) -> OfferAction:
    return AnswerDefault(read_digest(message.answer.default_line), _long_text(message.answer.text))


def _report(message: offer_pb2.AllocateRequest) -> OfferAction:
    report = message.report
    window = Window(read_integer(report.start, "time"), read_integer(report.end, "time"))
    amounts = read_many(report.amounts, "allocations", MAX_SLICES, _amount)
    return UsageReport(read_digest(report.grant), amounts, window, _long_text(report.text))


def _attest(message: offer_pb2.AllocateRequest) -> OfferAction:
    attest = message.attest
    size, evidence = read_integer(attest.size, "size"), read_data(attest.evidence, "evidence", MAX_EVIDENCE)
    return Attest(read_digest(attest.offer), size, read_digest(attest.root), evidence)


_ACTION_DECODERS: Final[Mapping[str, Callable[[offer_pb2.AllocateRequest], OfferAction]]] = {
    "post": lambda message: Post(read_data(message.post, "offer", MAX_BYTES)),
    "withdraw": _withdraw,
    "approve": _approve,
    "reject": _reject,
    "redeem": lambda message: Redeem(read_digest(message.redeem)),
    "release": lambda message: Release(read_digest(message.release)),
    "answer": _answer,
    "report": _report,
    "attest": _attest,
}


def _short_text(value: str) -> str:
    return read_text(value, "text", limits.LABEL)


def _long_text(value: str) -> str:
    """A text of at most MAX_TEXT characters. The parser of its statement checks the characters."""
    if len(value) > MAX_TEXT:
        raise Malformed("text too long", why=f"at most {MAX_TEXT} characters are read")
    return value


def _amount(value: int) -> int:
    return read_integer(value, "amount")


class OfferCalls(ServiceCalls):
    """Compute offers at a node. Raises also what every call of `NodeClient` raises."""

    @cached_property
    def _offer(self) -> OfferServiceAsyncStub:
        return OfferServiceStub(self._calls.connection.channel)

    async def search(self, query: OfferQuery | None = None) -> tuple[OfferStatus, ...]:
        """Offers in force that match, those of each log in turn, at most 1,000; use `after` for the next page."""
        request = encode_offer_query(query or OfferQuery())
        return await self._calls.all(self._offer.SearchOffers, request, decode_offer_state, limits.OFFERS)

    async def get(self, offer: Digest) -> tuple[LocatedEntry, ...]:
        """The lines about the chain of an offer, of any version: first lines of its own log in order, then lines that
        only other logs hold. `comity.trust.offers.log_reader.OfferLogReader` reads the former. Raises NotFound."""
        request = offer_pb2.GetOfferRequest(offer=encode_digest(offer))
        size = limits.ANSWER_BYTES + limits.ANSWER_LINES * limits.NAME
        return await self._calls.all(self._offer.GetOffer, request, decode_located, limits.ANSWER_LINES, size)

    async def grants(self, query: GrantQuery | None = None) -> tuple[GrantStatus, ...]:
        """Requests and their states, at most 10,000; use `after` for the next page."""
        request = encode_grant_query(query or GrantQuery())
        return await self._calls.all(
            self._offer.ListGrants, request, decode_grant_state, limits.GRANTS, 4 * limits.ANSWER
        )

    async def allocate(self, action: OfferAction) -> tuple[LocatedEntry, ...]:
        """Perform an action; operators only. Safe to repeat. The last returned entry is the record in the node's log.

        Raises NotFound, Refused (OFFER-CAPACITY, OFFER-STATE, OFFER-FULL, OFFER-ELIGIBILITY), Untrusted, Conflict.
        """
        answer = await self._calls.unary(self._offer.Allocate, encode_action(action))
        return decode_allocated(answer)


class OfferService(Protocol):
    """The implementation behind `OfferServicer`. See `messages` for the rules of its methods."""

    def search(self, query: OfferQuery) -> AsyncGenerator[OfferStatus, None]: ...

    def offer(self, offer: Digest) -> AsyncGenerator[LocatedEntry, None]:
        """Raises NotFound."""

    def grants(self, query: GrantQuery) -> AsyncGenerator[GrantStatus, None]: ...

    async def allocate(self, action: OfferAction) -> tuple[LocatedEntry, ...]:
        """Operators only. Raises NotFound, Refused, Untrusted, Conflict."""


class OfferServicer(OfferServiceServicer):
    """Serves OfferService over gRPC."""

    def __init__(self, service: OfferService) -> None:
        self._service = service

    async def SearchOffers(
        self, request: offer_pb2.SearchOffersRequest, context: Context
    ) -> AsyncIterator[offer_pb2.OfferState]:
        query = decode_offer_query(request)
        left = query.limit or limits.OFFERS
        async with aclosing(self._service.search(query)) as states:
            async for state in states:
                yield encode_offer_state(state)
                left -= 1
                if left == 0:
                    return

    async def GetOffer(self, request: offer_pb2.GetOfferRequest, context: Context) -> AsyncIterator[types_pb2.Located]:
        lines_left, bytes_left = limits.ANSWER_LINES, limits.ANSWER_BYTES
        async with aclosing(self._service.offer(read_digest(request.offer))) as lines:
            async for located in lines:
                lines_left, bytes_left = lines_left - 1, bytes_left - len(located.line)
                if lines_left < 0 or bytes_left < 0:
                    return
                yield encode_located(located)

    async def ListGrants(
        self, request: offer_pb2.ListGrantsRequest, context: Context
    ) -> AsyncIterator[offer_pb2.GrantState]:
        query = decode_grant_query(request)
        left = query.limit or limits.GRANTS
        async with aclosing(self._service.grants(query)) as states:
            async for state in states:
                yield encode_grant_state(state)
                left -= 1
                if left == 0:
                    return

    async def Allocate(self, request: offer_pb2.AllocateRequest, context: Context) -> offer_pb2.AllocateResponse:
        return encode_allocated(await self._service.allocate(decode_action(request)))
