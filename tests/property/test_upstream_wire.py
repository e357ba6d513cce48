"""Imports on the wire: codecs are inverses; arbitrary messages of a node or an operator become a value or Malformed.

Also what a Hub may answer about a repository: a listing, or a refusal with its reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from comity.trust.errors import ComityError, Malformed
from comity.upstream.guarded import AllowedHosts, RetryLater
from comity.upstream.hub_api import HubApi
from comity.upstream.listed_files import RepositoryListing, UpstreamRequest
from comity.v1 import upstream_pb2
from comity.wire import limits
from comity.wire.rpc import rpc_of
from comity.wire.upstream import (
    EVENT,
    ORDER,
    STATES,
    ImportDone,
    ImportEvent,
    ImportOrder,
    ImportProgress,
    ImportStarted,
    ImportWaiting,
    UpstreamCheck,
    UpstreamService,
)
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.hub_like import Answer, Asked, HubLike, hub_like

CHECK = rpc_of(UpstreamService.check).answer
integers = st.integers(0, limits.INTEGER)
letters = st.characters(exclude_categories=("C", "Z"), include_characters=" ")
words = st.text(letters, max_size=16).map(lambda text: " ".join(text.split()))
lines = st.binary(min_size=1, max_size=50).filter(lambda line: b"\n" not in line)
orders = st.builds(
    ImportOrder,
    words.filter(bool),
    words,
    st.just("") | words.map(lambda name: f"/{name}"),
    st.lists(words, max_size=3).map(tuple),
    st.binary(max_size=50),
    words,
)
events = st.one_of(
    st.builds(ImportStarted, words, integers, integers),
    st.builds(ImportProgress, words, st.integers(-limits.INTEGER, limits.INTEGER)),
    st.builds(ImportWaiting, words, integers),
    st.builds(ImportDone, lines, st.just("a.example/log"), integers, st.booleans()),
)
checks = st.builds(UpstreamCheck, st.sampled_from(STATES), st.just(b"") | lines, integers)


@given(orders)
def test_an_import_request_survives_the_round_trip(order: ImportOrder) -> None:
    assert ORDER.decode(ORDER.encode(order)) == order


def test_an_import_request_does_not_show_its_token() -> None:
    assert "hf_secret" not in repr(ImportOrder("hf:a/b", token="hf_secret"))


@given(events)
def test_an_event_survives_the_round_trip(event: ImportEvent) -> None:
    assert EVENT.decode(EVENT.encode(event)) == event


@given(checks)
def test_an_answer_about_an_upstream_survives_the_round_trip(check: UpstreamCheck) -> None:
    assert CHECK.decode(CHECK.encode(check)) == check


@given(st.binary(max_size=200))
def test_any_message_becomes_a_value_or_malformed(sent: bytes) -> None:
    pairs: tuple[tuple[Any, Any], ...] = (
        (upstream_pb2.ImportRepositoryRequest, ORDER.decode),
        (upstream_pb2.ImportRepositoryResponse, EVENT.decode),
        (upstream_pb2.CheckUpstreamResponse, CHECK.decode),
    )
    for message, decode in pairs:
        try:
            decode(message.FromString(sent))
        except (DecodeError, Malformed):
            continue


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(ImportOrder(""), id="nothing"),
        pytest.param(ImportOrder("hf:a/b", folder="relative/path"), id="a relative folder"),
        pytest.param(ImportOrder("hf:a/b", terms=bytes(limits.TERMS + 1)), id="terms without end"),
        pytest.param(ImportOrder("hf:a/b", hosts=("h",) * (limits.UPSTREAM_HOSTS + 1)), id="hosts without end"),
        pytest.param(ImportOrder("hf:a/b", token="a\nb"), id="a token of two lines"),
        pytest.param(ImportOrder("hf:a/b", token="a" * (limits.UPSTREAM_TOKEN + 1)), id="a token without end"),
    ],
)
def test_an_import_request_beyond_a_bound_is_malformed(order: ImportOrder) -> None:
    with pytest.raises(Malformed):
        ORDER.decode(ORDER.encode(order))


@pytest.fixture(scope="module")
def hub() -> Iterator[HubLike]:
    with hub_like() as made:
        made.repository("org/tiny").commit({"config.json": b"{}", "weights.bin": b"weights"})
        yield made


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ENTRY: dict[str, Any] = {"type": "file", "path": "a", "size": 1, "oid": "1" * 40}
entries = st.dictionaries(
    st.sampled_from(["type", "path", "size", "oid", "lfs", "xetHash", "lastCommit", "securityFileStatus"]), json_values
).map(lambda change: ENTRY | change)
infos = st.dictionaries(
    st.sampled_from(["id", "sha", "private", "gated", "cardData", "siblings", "lastModified", "safetensors"]),
    json_values,
)


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(entries, max_size=3) | json_values,
    infos,
    st.sampled_from(["tree", "info", "bytes"]),
    st.binary(max_size=30),
)
def test_any_answer_of_a_hub_is_a_listing_or_refused_with_a_reason(
    hub: HubLike, tree: Any, info: dict[str, Any], what: str, raw: bytes
) -> None:
    def answer(asked: Asked) -> Answer | None:
        if "/tree/" in asked.path and what != "info":
            return Answer(200, raw if what == "bytes" else json.dumps(tree).encode())
        return None

    hub.interfere = answer
    hub.info_said = lambda said: said | info if what == "info" else said
    api = HubApi(AllowedHosts.to(hub.url), read_timeout=5)
    try:
        listing = api.listing(api.revision_info(UpstreamRequest("org/tiny")))
    except (ComityError, RetryLater) as refusal:
        assert str(refusal)
        return
    assert isinstance(listing, RepositoryListing)
    assert all(file.size >= 0 and file.path for file in listing.files)
