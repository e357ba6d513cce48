"""What travels about compute offers. States and amounts are the answering node's own arithmetic; the lines are bytes as
they arrived: unverified. `comity.trust.offers` computes the one from the other.

Messages of OfferService <-> values: the same craft as `codecs`.

Calls of OfferService, for `NodeClient.offers`.

The transport half of OfferService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import grpc

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.offers.offer import MAX_BYTES, MAX_SLICES, MAX_TIME, SliceAllocation, Window
from comity.trust.offers.records import MAX_TEXT
from comity.v1 import offer_pb2, types_pb2
from comity.v1.offer_pb2_grpc import OfferServiceServicer, OfferServiceStub
from comity.wire import limits
from comity.wire.access import require_operator
from comity.wire.calls import Calls
from comity.wire.errors import clean
from comity.wire.limits import encode_digest, read_data, read_digest, read_integer, read_log, read_many, read_text
from comity.wire.messages import LocatedEntry, decode_located, encode_located


@dataclass(frozen=True, slots=True)
class OfferQuery:
    """What to look for; every field that is given must hold.

    Attributes:
        accelerator: SkyPilot's name, in any case.
        least_amount: left of one slice, of the accelerator where one is given.
        jurisdictions: where the machines stand: one of these.
        beyond_reach_of: jurisdictions none of which is in the offer's legal reach.
        artifact: a model that lies beside the machines.
        ends_after: POSIX seconds; offers whose window ends later.
        closed: also those that were withdrawn or are at fault.
        after: the last chain had.
        limit: at most 1,000; 0 for as many.
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
    """The offer in force of one chain, and what a node computed of it."""

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
    """Which requests to list; every field that is given must hold. `after` is the last request had."""

    offer: Digest | None = None
    grantee: Digest | None = None
    state: str = ""
    after: Digest | None = None
    limit: int = 0


@dataclass(frozen=True, slots=True)
class GrantStatus:
    """A request, and what became of it: requested, granted, rejected, accepted, lapsed or released.

    Attributes:
        answer: the record that grants or rejects.
        redeemed: of each allocation, in the grant's order.
        newest: the challenge of the next redemption.
        said: line digests of what either side said of the grant beside its chain.
    """

    request: LocatedEntry
    chain: Digest
    state: str
    answer: LocatedEntry | None = None
    redeemed: tuple[int, ...] = ()
    newest: Digest | None = None
    said: tuple[Digest, ...] = ()


@dataclass(frozen=True, slots=True)
class Post:
    """Log an offer: its document, in its one spelling."""

    document: bytes


@dataclass(frozen=True, slots=True)
class Withdraw:
    offer: Digest
    text: str = ""


@dataclass(frozen=True, slots=True)
class Approve:
    """Grant a request (line digest): as asked where there are no `allocations`."""

    request: Digest
    allocations: tuple[SliceAllocation, ...] = ()


@dataclass(frozen=True, slots=True)
class Reject:
    request: Digest
    text: str = ""


@dataclass(frozen=True, slots=True)
class Redeem:
    """Record a holder's `redeemed` (line digest)."""

    redemption: Digest


@dataclass(frozen=True, slots=True)
class Release:
    """Take back a grant (line digest) that is over, or given back."""

    grant: Digest


@dataclass(frozen=True, slots=True)
class AnswerDefault:
    """Answer a grantee's `defaulted` (line digest)."""

    default: Digest
    text: str


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Say what was used of a grant (line digest) within a window."""

    grant: Digest
    amounts: tuple[int, ...]
    window: Window
    text: str = ""


Act: TypeAlias = Post | Withdraw | Approve | Reject | Redeem | Release | AnswerDefault | UsageReport


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
        accelerator=read_text(message.accelerator, "accelerator", limits.WORD),
        least_amount=read_integer(message.least_amount, "amount"),
        jurisdictions=read_many(message.jurisdictions, "jurisdictions", limits.JURISDICTIONS, _word),
        beyond_reach_of=read_many(message.beyond_reach_of, "jurisdictions", limits.JURISDICTIONS, _word),
        artifact=read_digest(message.artifact) if message.HasField("artifact") else None,
        engine=_word(message.engine),
        measure=_word(message.measure),
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
        fault=clean(state.fault, limits.SENTENCE),
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
        fault=read_text(message.fault, "fault", limits.SENTENCE),
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
        state=_word(message.state),
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
        said=map(encode_digest, state.said),
    )


def decode_grant_state(message: offer_pb2.GrantState) -> GrantStatus:
    return GrantStatus(
        request=decode_located(message.request),
        chain=read_digest(message.chain),
        state=_word(message.state),
        answer=decode_located(message.answer) if message.HasField("answer") else None,
        redeemed=read_many(message.redeemed, "allocations", MAX_SLICES, _amount),
        newest=read_digest(message.newest) if message.HasField("newest") else None,
        said=read_many(message.said, "statements", limits.SAID, read_digest),
    )


def encode_act(act: Act) -> offer_pb2.AllocateRequest:
    if isinstance(act, Post):
        return offer_pb2.AllocateRequest(post=act.document)
    if isinstance(act, Withdraw):
        return offer_pb2.AllocateRequest(withdraw=offer_pb2.Withdraw(offer=encode_digest(act.offer), text=act.text))
    if isinstance(act, Approve):
        approve = offer_pb2.Approve(
            request=encode_digest(act.request), allocations=map(_encode_allocation, act.allocations)
        )
        return offer_pb2.AllocateRequest(approve=approve)
    if isinstance(act, Reject):
        return offer_pb2.AllocateRequest(reject=offer_pb2.Reject(request=encode_digest(act.request), text=act.text))
    if isinstance(act, Redeem):
        return offer_pb2.AllocateRequest(redeem=encode_digest(act.redemption))
    if isinstance(act, Release):
        return offer_pb2.AllocateRequest(release=encode_digest(act.grant))
    if isinstance(act, AnswerDefault):
        answer = offer_pb2.Answer(default_line=encode_digest(act.default), text=act.text)
        return offer_pb2.AllocateRequest(answer=answer)
    report = offer_pb2.Report(
        grant=encode_digest(act.grant),
        amounts=act.amounts,
        start=act.window.start,
        end=act.window.end,
        text=act.text,
    )
    return offer_pb2.AllocateRequest(report=report)


def decode_act(message: offer_pb2.AllocateRequest) -> Act:
    read = _ACTS.get(message.WhichOneof("act") or "")
    if read is None:
        raise Malformed("nothing to do", why="the request names no act that is known here")
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
    return SliceAllocation(_word(message.slice), message.nodes, start, end, _amount(message.amount))


def _withdraw(message: offer_pb2.AllocateRequest) -> Act:
    return Withdraw(read_digest(message.withdraw.offer), _sentence(message.withdraw.text))


def _approve(message: offer_pb2.AllocateRequest) -> Act:
    allocations = read_many(message.approve.allocations, "allocations", MAX_SLICES, _decode_allocation)
    return Approve(read_digest(message.approve.request), allocations)


def _reject(message: offer_pb2.AllocateRequest) -> Act:
    return Reject(read_digest(message.reject.request), _sentence(message.reject.text))


def _answer(message: offer_pb2.AllocateRequest) -> Act:
    return AnswerDefault(read_digest(message.answer.default_line), _sentence(message.answer.text))


def _report(message: offer_pb2.AllocateRequest) -> Act:
    report = message.report
    window = Window(read_integer(report.start, "time"), read_integer(report.end, "time"))
    amounts = read_many(report.amounts, "allocations", MAX_SLICES, _amount)
    return UsageReport(read_digest(report.grant), amounts, window, _sentence(report.text))


_ACTS: Final[Mapping[str, Callable[[offer_pb2.AllocateRequest], Act]]] = {
    "post": lambda message: Post(read_data(message.post, "offer", MAX_BYTES)),
    "withdraw": _withdraw,
    "approve": _approve,
    "reject": _reject,
    "redeem": lambda message: Redeem(read_digest(message.redeem)),
    "release": lambda message: Release(read_digest(message.release)),
    "answer": _answer,
    "report": _report,
}


def _word(value: str) -> str:
    return read_text(value, "word", limits.WORD)


def _sentence(value: str) -> str:
    """A text for people. What may stand in it is for its statement's reader to say."""
    if len(value) > MAX_TEXT:
        raise Malformed("text too long", why=f"at most {MAX_TEXT} characters are read")
    return value


def _amount(value: int) -> int:
    return read_integer(value, "amount")


class OfferCalls:
    """What a node knows of compute offers. May raise what every call of `NodeClient` may."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._offer = OfferServiceStub(calls.connection.channel)

    async def search(self, query: OfferQuery | None = None) -> tuple[OfferStatus, ...]:
        """Offers in force that match, by the id of their chain; at most 1,000, then ask again `after` the last."""
        request = encode_offer_query(query or OfferQuery())
        return await self._calls.all(self._offer.SearchOffers, request, decode_offer_state, limits.OFFERS)

    async def get(self, offer: Digest) -> tuple[LocatedEntry, ...]:
        """The lines about the chain of an offer, of any version: those of its own log in order, then those that only
        other logs hold. `comity.trust.offers.chain.OfferLogReader` reads the former. Raises NotFound."""
        request = offer_pb2.GetOfferRequest(offer=encode_digest(offer))
        size = limits.PROCEEDINGS_BYTES + limits.PROCEEDINGS * limits.NAME
        return await self._calls.all(self._offer.GetOffer, request, decode_located, limits.PROCEEDINGS, size)

    async def grants(self, query: GrantQuery | None = None) -> tuple[GrantStatus, ...]:
        """Requests and what became of them; at most 10,000, then ask again `after` the last."""
        request = encode_grant_query(query or GrantQuery())
        return await self._calls.all(
            self._offer.ListGrants, request, decode_grant_state, limits.GRANTS, 4 * limits.ANSWER
        )

    async def allocate(self, act: Act) -> tuple[LocatedEntry, ...]:
        """For operators: post, withdraw, approve, reject, redeem, release, answer, report. Safe to repeat. The record
        that now stands in the node's log is the last line.

        Raises NotFound, Refused (OFFER-CAPACITY, OFFER-STATE, OFFER-FULL, OFFER-ELIGIBILITY), Untrusted, Conflict.
        """
        answer = await self._calls.unary(self._offer.Allocate, encode_act(act))
        return decode_allocated(answer)


Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class OfferService(Protocol):
    """The thinking half: see `services` for what holds of its methods."""

    def search(self, query: OfferQuery) -> AsyncGenerator[OfferStatus, None]: ...

    def offer(self, offer: Digest) -> AsyncGenerator[LocatedEntry, None]:
        """Raises NotFound."""

    def grants(self, query: GrantQuery) -> AsyncGenerator[GrantStatus, None]: ...

    async def allocate(self, act: Act) -> tuple[LocatedEntry, ...]:
        """For operators. Raises NotFound, Refused, Untrusted, Conflict."""


class OfferServicer(OfferServiceServicer):
    def __init__(self, offering: OfferService) -> None:
        self._offering = offering

    async def SearchOffers(
        self, request: offer_pb2.SearchOffersRequest, context: Context
    ) -> AsyncIterator[offer_pb2.OfferState]:
        query = decode_offer_query(request)
        left = query.limit or limits.OFFERS
        async with aclosing(self._offering.search(query)) as states:
            async for state in states:
                yield encode_offer_state(state)
                left -= 1
                if left == 0:
                    return

    async def GetOffer(self, request: offer_pb2.GetOfferRequest, context: Context) -> AsyncIterator[types_pb2.Located]:
        left, room = limits.PROCEEDINGS, limits.PROCEEDINGS_BYTES
        async with aclosing(self._offering.offer(read_digest(request.offer))) as lines:
            async for located in lines:
                left, room = left - 1, room - len(located.line)
                if left < 0 or room < 0:
                    return
                yield encode_located(located)

    async def ListGrants(
        self, request: offer_pb2.ListGrantsRequest, context: Context
    ) -> AsyncIterator[offer_pb2.GrantState]:
        query = decode_grant_query(request)
        left = query.limit or limits.GRANTS
        async with aclosing(self._offering.grants(query)) as states:
            async for state in states:
                yield encode_grant_state(state)
                left -= 1
                if left == 0:
                    return

    async def Allocate(self, request: offer_pb2.AllocateRequest, context: Context) -> offer_pb2.AllocateResponse:
        require_operator()
        return encode_allocated(await self._offering.allocate(decode_act(request)))
