"""Searches of the offers: their order, and that none blocks the event loop or other searches."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.node.offers import index as index_module
from comity.node.offers.index import (
    MAX_COUNTED,
    STEP,
    ChainKey,
    FoundStatement,
    OfferIndex,
    UnansweredRequests,
    first_of,
    matching_grants,
    matching_offers,
)
from comity.node.services.offer import SEARCHES, OfferServicer
from comity.rules.offers.records import GrantRequest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Unavailable
from comity.wire.access import CALLER, Caller
from comity.wire.offer import GrantQuery, OfferQuery

MANY = 20 * STEP


class LargeIndex:
    """An index of chains that match nothing, each with requests."""

    def __init__(self, chains: int, requests: int = 0) -> None:
        closed = SimpleNamespace(withdrawn=True, offer=None, offers=[SimpleNamespace(id="offer")])
        self.chain = SimpleNamespace(state=closed, fault=None, doubtful=False)
        self.keys: list[ChainKey] = [(number, sha256(b"%d" % number), "log") for number in range(chains)]
        request = GrantRequest.__new__(GrantRequest)
        object.__setattr__(request, "by", sha256(b"somebody"))
        located = SimpleNamespace(line=sha256(b"line"), statement=request)
        self.of_offer = [SimpleNamespace(log="log", located=located)] * requests

    def chains_after(self, key: ChainKey | None, most: int) -> list[Any]:
        return [(each, self.chain) for each in self.keys if key is None or each > key][:most]

    def requests(self, offers: object) -> Iterator[Any]:
        return iter(self.of_offer)

    async def read_own(self) -> None:
        pass


async def turns_during(search: Any) -> int:
    """How often other work of the event loop ran during a search without a result."""
    turns, over = 0, asyncio.Event()

    async def other_work() -> None:
        nonlocal turns
        while not over.is_set():
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(other_work())
    assert await first_of(search, 5) == []
    over.set()
    await other
    return turns


async def test_other_work_has_its_turns_during_a_long_search() -> None:
    chains = cast(OfferIndex, LargeIndex(MANY))
    assert await turns_during(matching_offers(chains, OfferQuery())) >= MANY // STEP
    requests = cast(OfferIndex, LargeIndex(1, MANY))
    nobody = GrantQuery(grantee=sha256(b"nobody"))
    assert await turns_during(matching_grants(requests, nobody)) >= MANY // STEP


def as_caller(name: str, service: OfferServicer) -> asyncio.Task[list[Any]]:
    async def search() -> list[Any]:
        CALLER.set(Caller(name))
        return [found async for found in service.search(OfferQuery())]

    return asyncio.create_task(search())


async def test_searches_of_one_address_block_leave_room_for_those_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    searching: list[str] = []

    class EndlessIndex(LargeIndex):
        def chains_after(self, key: ChainKey | None, most: int) -> list[Any]:
            searching.append(CALLER.get().name)
            return [((0, Digest("0"), ""), self.chain)]

    service = OfferServicer(cast(Any, None), cast(Any, SimpleNamespace(index=EndlessIndex(0))), cast(Any, None))
    greedy = [as_caller(f"192.0.2.{number}", service) for number in range(1, 60)]
    for _ in range(10):
        await asyncio.sleep(0)
    other = as_caller("198.51.100.1", service)
    for _ in range(10):
        await asyncio.sleep(0)
    assert set(searching) == {"192.0.2.1", "198.51.100.1"}
    assert len(set(searching)) < SEARCHES
    refused = [task for task in greedy if task.done()]
    assert refused
    assert all(isinstance(task.exception(), Unavailable) for task in refused)
    for task in (other, *greedy):
        task.cancel()
    await asyncio.gather(other, *greedy, return_exceptions=True)


def index_of(*logs: str) -> OfferIndex:
    """An index to which a chain of each of these logs is added, one after the other."""
    membership = SimpleNamespace(own_node=SimpleNamespace(log="own"))
    index = OfferIndex(cast(Any, None), cast(Any, None), cast(Any, membership), 1_000)
    for number, log in enumerate(logs):
        chain_id = sha256(b"%d" % number)
        offer = SimpleNamespace(id=chain_id)
        state = SimpleNamespace(chain=chain_id, offers=[offer], offer=offer)
        chain = SimpleNamespace(state=state, fault=None, doubtful=False)
        reader = index._logs.setdefault(log, cast(Any, SimpleNamespace(chains={}, statements={})))
        reader.chains[chain_id] = cast(Any, chain)
        cast(Any, reader).read = lambda *_, chain=chain: chain
        for _ in range(2):  # a later record of the same chain
            index._add(log, number, cast(Any, SimpleNamespace(digest=None)), genuine=True)
    return index


async def found(index: OfferIndex, after: Digest | None, most: int) -> list[tuple[str, Digest]]:
    matching = matching_offers(index, OfferQuery(after=after, closed=True))
    return [(log, chain.state.chain) for log, chain in await first_of(matching, most)]


async def test_logs_take_turns_in_a_search_and_pages_continue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "_matches", lambda chain, query: True)
    index = index_of(*["flooded"] * 6, "quiet", *["flooded"] * 6, "quiet", "other")
    every = await found(index, None, 99)
    assert sorted(log for log, _ in every[:3]) == ["flooded", "other", "quiet"]
    assert sorted(log for log, _ in every[3:5]) == ["flooded", "quiet"]
    assert (len(every), len(set(every))) == (15, 15)
    pages, after = list[tuple[str, Digest]](), None
    while page := await found(index, after, 4):
        pages += page
        after = page[-1][1]
    assert pages == every
    assert await found(index, sha256(b"unknown"), 4) == []


async def test_requests_of_one_log_hide_none_of_another() -> None:
    def request(log: str, number: int) -> Any:
        content = GrantRequest.__new__(GrantRequest)
        object.__setattr__(content, "by", sha256(b"somebody"))
        return SimpleNamespace(log=log, located=SimpleNamespace(line=sha256(b"%d" % number), statement=content))

    index = LargeIndex(1)
    index.chain.state.answers = {}
    index.of_offer = [*(request("flooded", number) for number in range(50)), request("honest", 99)]
    listed = await first_of(matching_grants(cast(OfferIndex, index), GrantQuery()), 2)
    assert [item.request.log for item in listed] == ["flooded", "honest"]


def waiting_request(log: str, number: int) -> FoundStatement:
    return cast(FoundStatement, SimpleNamespace(log=log, located=SimpleNamespace(line=sha256(b"%d" % number))))


def test_requests_in_anothers_log_change_no_count_of_those_in_the_own_log() -> None:
    """The quotas of the own log bound its number; a member may write any number of requests into its own log."""
    index = index_of("own")
    (chain,) = index._logs["own"].chains.values()
    (offer,) = chain.state.offers
    cast(Any, chain.state).withdrawn, cast(Any, chain.state).answers = False, {sha256(b"1"): None}
    for number in range(3):
        request = waiting_request("own", number)
        for requests in (index._own_requests, index._requests):
            requests.setdefault(offer.id, {})[request.located.line] = request
    assert index.unanswered() == UnansweredRequests(2, 0)
    flood = {sha256(b"%d" % number): waiting_request("flooded", number) for number in range(3, 3 * MAX_COUNTED)}
    index._requests[offer.id].update(flood)
    assert index.unanswered() == UnansweredRequests(2, MAX_COUNTED)
    cast(Any, chain.state).withdrawn = True
    assert index.unanswered() == UnansweredRequests(0, 0)
