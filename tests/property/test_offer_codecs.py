"""Codecs of OfferService are inverses within the bounds; arbitrary messages become a value or Malformed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from comity.trust.errors import Malformed
from comity.v1 import offer_pb2
from comity.wire import limits
from comity.wire.codec import MessageCodec
from comity.wire.messages import LocatedEntry
from comity.wire.offer import (
    ACTION,
    AnswerDefault,
    Approve,
    GrantQuery,
    GrantStatus,
    OfferQuery,
    OfferService,
    OfferStatus,
    Post,
    Redeem,
    Reject,
    Release,
    UsageReport,
    Withdraw,
)
from comity.wire.rpc import rpc_of
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st
from support.offer_strategies import amounts, digests, jurisdictions, sets, several, texts, used, windows
from support.offers import LOG

OFFER_QUERY = MessageCodec(OfferQuery, offer_pb2.SearchOffersRequest)
GRANT_QUERY = MessageCodec(GrantQuery, offer_pb2.ListGrantsRequest)
OFFER_STATE, GRANT_STATE, ALLOCATED = (
    rpc_of(method).answer for method in (OfferService.search, OfferService.grants, OfferService.allocate)
)
words = st.text(st.characters(categories=["L", "N"]), max_size=12)
counts = st.integers(0, limits.INTEGER)
lines = st.binary(min_size=1, max_size=50).filter(lambda line: b"\n" not in line)
located = st.builds(LocatedEntry, st.just("node-ch/log"), counts, lines)
some_amounts = st.lists(amounts, max_size=4).map(tuple)
maybe = st.none() | digests
LONG = "x" * 1001

queries = st.builds(
    OfferQuery,
    words,
    counts,
    sets(jurisdictions),
    sets(jurisdictions),
    maybe,
    words,
    words,
    maybe,
    st.none() | counts,
    st.booleans(),
    maybe,
    st.integers(0, limits.OFFERS),
)
states = st.builds(OfferStatus, located, st.just(str(LOG)), digests, some_amounts, counts, counts, st.booleans(), words)
grant_queries = st.builds(GrantQuery, maybe, maybe, words, maybe, st.integers(0, limits.GRANTS))
grant_states = st.builds(
    GrantStatus, located, digests, words, st.none() | located, some_amounts, maybe, st.lists(digests).map(tuple)
)
acts = st.one_of(
    st.builds(Post, st.binary(max_size=50)),
    st.builds(Withdraw, digests, texts),
    st.builds(Approve, digests, st.just(()) | several),
    st.builds(Reject, digests, texts),
    st.builds(Redeem, digests),
    st.builds(Release, digests),
    st.builds(AnswerDefault, digests, texts),
    st.builds(UsageReport, digests, used, windows, texts),
)
CODECS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], Message], Callable[[Any], Any], type[Message]]] = {
    "query": (
        queries,
        OFFER_QUERY.encode,
        OFFER_QUERY.decode,
        offer_pb2.SearchOffersRequest,
    ),
    "state": (states, OFFER_STATE.encode, OFFER_STATE.decode, offer_pb2.OfferState),
    "grant query": (
        grant_queries,
        GRANT_QUERY.encode,
        GRANT_QUERY.decode,
        offer_pb2.ListGrantsRequest,
    ),
    "grant state": (
        grant_states,
        GRANT_STATE.encode,
        GRANT_STATE.decode,
        offer_pb2.GrantState,
    ),
    "act": (acts, ACTION.encode, ACTION.decode, offer_pb2.AllocateRequest),
    "allocated": (
        st.lists(located, max_size=limits.ALLOCATED).map(tuple),
        ALLOCATED.encode,
        ALLOCATED.decode,
        offer_pb2.AllocateResponse,
    ),
}


@pytest.mark.parametrize("name", CODECS)
@given(st.data())
def test_a_value_survives_the_round_trip(name: str, drawn: st.DataObject) -> None:
    values, encode, decode, message = CODECS[name]
    value = drawn.draw(values)
    assert decode(message.FromString(encode(value).SerializeToString())) == value


@pytest.mark.parametrize("name", CODECS)
@given(st.binary(max_size=200))
def test_any_message_becomes_a_value_or_malformed(name: str, sent: bytes) -> None:
    _, _, decode, message = CODECS[name]
    with suppress(DecodeError, Malformed):
        decode(message.FromString(sent))


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        (ACTION.decode, offer_pb2.AllocateRequest()),
        (ACTION.decode, offer_pb2.AllocateRequest(redeem=b"short")),
        (ACTION.decode, offer_pb2.AllocateRequest(post=bytes(32_769))),
        (
            ACTION.decode,
            offer_pb2.AllocateRequest(reject=offer_pb2.Reject(request=bytes(32), text="x" * 1001)),
        ),
        (OFFER_QUERY.decode, offer_pb2.SearchOffersRequest(limit=limits.OFFERS + 1)),
        (OFFER_QUERY.decode, offer_pb2.SearchOffersRequest(jurisdictions=["CH"] * 65)),
        (GRANT_QUERY.decode, offer_pb2.ListGrantsRequest(limit=limits.GRANTS + 1)),
    ],
)
def test_a_value_beyond_a_bound_is_malformed(decode: Callable[[Any], Any], message: Message) -> None:
    with pytest.raises(Malformed):
        decode(message)
