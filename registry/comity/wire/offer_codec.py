"""Messages of OfferService <-> values: the same craft as `codecs`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from comity.trust.errors import Malformed
from comity.trust.offers.capacity import MAX_SLICES, MAX_TIME, Allocation, Window
from comity.trust.offers.offer import MAX_BYTES
from comity.trust.offers.records import MAX_TEXT
from comity.v1 import offer_pb2
from comity.wire import checks, limits
from comity.wire.checks import digest_bytes
from comity.wire.codecs import decode_located, encode_located
from comity.wire.errors import clean
from comity.wire.offer_values import (
    Act,
    AnswerDefault,
    Approve,
    GrantQuery,
    GrantState,
    OfferQuery,
    OfferState,
    Post,
    Redeem,
    Reject,
    Release,
    Report,
    Withdraw,
)
from comity.wire.values import Located


def encode_offer_query(query: OfferQuery) -> offer_pb2.SearchOffersRequest:
    return offer_pb2.SearchOffersRequest(
        accelerator=query.accelerator,
        least_amount=query.least_amount,
        jurisdictions=query.jurisdictions,
        beyond_reach_of=query.beyond_reach_of,
        artifact=None if query.artifact is None else digest_bytes(query.artifact),
        engine=query.engine,
        measure=query.measure,
        provider=None if query.provider is None else digest_bytes(query.provider),
        ends_after=query.ends_after,
        closed=query.closed,
        after=None if query.after is None else digest_bytes(query.after),
        limit=query.limit,
    )


def decode_offer_query(message: offer_pb2.SearchOffersRequest) -> OfferQuery:
    return OfferQuery(
        accelerator=checks.text(message.accelerator, "accelerator", limits.WORD),
        least_amount=checks.integer(message.least_amount, "amount"),
        jurisdictions=checks.many(message.jurisdictions, "jurisdictions", limits.JURISDICTIONS, _word),
        beyond_reach_of=checks.many(message.beyond_reach_of, "jurisdictions", limits.JURISDICTIONS, _word),
        artifact=checks.digest(message.artifact) if message.HasField("artifact") else None,
        engine=_word(message.engine),
        measure=_word(message.measure),
        provider=checks.digest(message.provider) if message.HasField("provider") else None,
        ends_after=checks.integer(message.ends_after, "time") if message.HasField("ends_after") else None,
        closed=message.closed,
        after=checks.digest(message.after) if message.HasField("after") else None,
        limit=checks.integer(message.limit, "limit", most=limits.OFFERS),
    )


def encode_offer_state(state: OfferState) -> offer_pb2.OfferState:
    return offer_pb2.OfferState(
        offer=encode_located(state.offer),
        vkey=state.vkey,
        chain=digest_bytes(state.chain),
        remaining=state.remaining,
        seq=state.seq,
        at=state.at,
        withdrawn=state.withdrawn,
        fault=clean(state.fault, limits.SENTENCE),
    )


def decode_offer_state(message: offer_pb2.OfferState) -> OfferState:
    return OfferState(
        offer=decode_located(message.offer),
        vkey=checks.log(message.vkey),
        chain=checks.digest(message.chain),
        remaining=checks.many(message.remaining, "slices", MAX_SLICES, _amount),
        seq=checks.integer(message.seq, "number"),
        at=checks.integer(message.at, "time"),
        withdrawn=message.withdrawn,
        fault=checks.text(message.fault, "fault", limits.SENTENCE),
    )


def encode_grant_query(query: GrantQuery) -> offer_pb2.ListGrantsRequest:
    return offer_pb2.ListGrantsRequest(
        offer=None if query.offer is None else digest_bytes(query.offer),
        grantee=None if query.grantee is None else digest_bytes(query.grantee),
        state=query.state,
        after=None if query.after is None else digest_bytes(query.after),
        limit=query.limit,
    )


def decode_grant_query(message: offer_pb2.ListGrantsRequest) -> GrantQuery:
    return GrantQuery(
        offer=checks.digest(message.offer) if message.HasField("offer") else None,
        grantee=checks.digest(message.grantee) if message.HasField("grantee") else None,
        state=_word(message.state),
        after=checks.digest(message.after) if message.HasField("after") else None,
        limit=checks.integer(message.limit, "limit", most=limits.GRANTS),
    )


def encode_grant_state(state: GrantState) -> offer_pb2.GrantState:
    return offer_pb2.GrantState(
        request=encode_located(state.request),
        chain=digest_bytes(state.chain),
        state=state.state,
        answer=None if state.answer is None else encode_located(state.answer),
        redeemed=state.redeemed,
        newest=None if state.newest is None else digest_bytes(state.newest),
        said=map(digest_bytes, state.said),
    )


def decode_grant_state(message: offer_pb2.GrantState) -> GrantState:
    return GrantState(
        request=decode_located(message.request),
        chain=checks.digest(message.chain),
        state=_word(message.state),
        answer=decode_located(message.answer) if message.HasField("answer") else None,
        redeemed=checks.many(message.redeemed, "allocations", MAX_SLICES, _amount),
        newest=checks.digest(message.newest) if message.HasField("newest") else None,
        said=checks.many(message.said, "statements", limits.SAID, checks.digest),
    )


def encode_act(act: Act) -> offer_pb2.AllocateRequest:
    if isinstance(act, Post):
        return offer_pb2.AllocateRequest(post=act.document)
    if isinstance(act, Withdraw):
        return offer_pb2.AllocateRequest(withdraw=offer_pb2.Withdraw(offer=digest_bytes(act.offer), text=act.text))
    if isinstance(act, Approve):
        approve = offer_pb2.Approve(
            request=digest_bytes(act.request), allocations=map(_encode_allocation, act.allocations)
        )
        return offer_pb2.AllocateRequest(approve=approve)
    if isinstance(act, Reject):
        return offer_pb2.AllocateRequest(reject=offer_pb2.Reject(request=digest_bytes(act.request), text=act.text))
    if isinstance(act, Redeem):
        return offer_pb2.AllocateRequest(redeem=digest_bytes(act.redemption))
    if isinstance(act, Release):
        return offer_pb2.AllocateRequest(release=digest_bytes(act.grant))
    if isinstance(act, AnswerDefault):
        answer = offer_pb2.Answer(default_line=digest_bytes(act.default), text=act.text)
        return offer_pb2.AllocateRequest(answer=answer)
    report = offer_pb2.Report(
        grant=digest_bytes(act.grant),
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


def encode_allocated(lines: tuple[Located, ...]) -> offer_pb2.AllocateResponse:
    return offer_pb2.AllocateResponse(lines=map(encode_located, lines))


def decode_allocated(message: offer_pb2.AllocateResponse) -> tuple[Located, ...]:
    return checks.many(message.lines, "lines", limits.ALLOCATED, decode_located)


def _encode_allocation(wanted: Allocation) -> offer_pb2.Allocation:
    return offer_pb2.Allocation(
        slice=wanted.slice, nodes=wanted.nodes, start=wanted.start, end=wanted.end, amount=wanted.amount
    )


def _decode_allocation(message: offer_pb2.Allocation) -> Allocation:
    start, end = (checks.integer(time, "time", most=MAX_TIME) for time in (message.start, message.end))
    return Allocation(_word(message.slice), message.nodes, start, end, _amount(message.amount))


def _withdraw(message: offer_pb2.AllocateRequest) -> Act:
    return Withdraw(checks.digest(message.withdraw.offer), _sentence(message.withdraw.text))


def _approve(message: offer_pb2.AllocateRequest) -> Act:
    allocations = checks.many(message.approve.allocations, "allocations", MAX_SLICES, _decode_allocation)
    return Approve(checks.digest(message.approve.request), allocations)


def _reject(message: offer_pb2.AllocateRequest) -> Act:
    return Reject(checks.digest(message.reject.request), _sentence(message.reject.text))


def _answer(message: offer_pb2.AllocateRequest) -> Act:
    return AnswerDefault(checks.digest(message.answer.default_line), _sentence(message.answer.text))


def _report(message: offer_pb2.AllocateRequest) -> Act:
    report = message.report
    window = Window(checks.integer(report.start, "time"), checks.integer(report.end, "time"))
    amounts = checks.many(report.amounts, "allocations", MAX_SLICES, _amount)
    return Report(checks.digest(report.grant), amounts, window, _sentence(report.text))


_ACTS: Final[Mapping[str, Callable[[offer_pb2.AllocateRequest], Act]]] = {
    "post": lambda message: Post(checks.data(message.post, "offer", MAX_BYTES)),
    "withdraw": _withdraw,
    "approve": _approve,
    "reject": _reject,
    "redeem": lambda message: Redeem(checks.digest(message.redeem)),
    "release": lambda message: Release(checks.digest(message.release)),
    "answer": _answer,
    "report": _report,
}


def _word(value: str) -> str:
    return checks.text(value, "word", limits.WORD)


def _sentence(value: str) -> str:
    """A text for people. What may stand in it is for its statement's reader to say."""
    if len(value) > MAX_TEXT:
        raise Malformed("text too long", why=f"at most {MAX_TEXT} characters are read")
    return value


def _amount(value: int) -> int:
    return checks.integer(value, "amount")
