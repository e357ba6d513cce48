"""Searches of the offers: their order, and that none keeps the event loop, or the others, from their work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.node.offers.index import ChainKey, OfferIndex
from comity.node.offers.search import STEP, first_of, matching_grants, matching_offers
from comity.node.services.offer import SEARCHES, OfferRpcService
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Unavailable
from comity.trust.offers.records import GrantRequest
from comity.wire.access import CALLER, Caller
from comity.wire.offer import GrantQuery, OfferQuery
from support.offer_provider import GrantingNode

MANY = 20 * STEP


class LargeIndex:
    """An index of chains that match nothing, each with requests."""

    def __init__(self, chains: int, requests: int = 0) -> None:
        closed = SimpleNamespace(withdrawn=True, offer=None, offers=[SimpleNamespace(id="offer")])
        self.chain = SimpleNamespace(state=closed, fault=None, doubtful=False)
        self.keys: list[ChainKey] = sorted((sha256(b"%d" % number), "log") for number in range(chains))
        request = GrantRequest.__new__(GrantRequest)
        object.__setattr__(request, "by", sha256(b"somebody"))
        located = SimpleNamespace(line=sha256(b"line"), statement=request)
        self.of_offer = [SimpleNamespace(log="log", located=located)] * requests

    def chains_after(self, key: ChainKey, most: int) -> list[Any]:
        return [(each, self.chain) for each in self.keys if each > key][:most]

    def requests(self, offers: object) -> Iterator[Any]:
        return iter(self.of_offer)

    async def read_own(self) -> None:
        pass


async def turns_during(search: Any) -> int:
    """How often other work of the event loop had its turn during a search that finds nothing."""
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


def as_caller(name: str, service: OfferRpcService) -> asyncio.Task[list[Any]]:
    async def search() -> list[Any]:
        CALLER.set(Caller(name))
        return [found async for found in service.search(OfferQuery())]

    return asyncio.create_task(search())


async def test_searches_of_one_address_block_leave_room_for_those_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    searching: list[str] = []

    class EndlessIndex(LargeIndex):
        def chains_after(self, key: ChainKey, most: int) -> list[Any]:
            searching.append(CALLER.get().name)
            return [((Digest("0"), ""), self.chain)]

    service = OfferRpcService(cast(Any, None), cast(Any, SimpleNamespace(index=EndlessIndex(0))), cast(Any, None))
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


def test_offers_are_found_in_the_order_of_their_ids_and_page_by_page() -> None:
    granting = GrantingNode()
    try:
        for number in range(5):
            asyncio.run(granting.provider.post(granting.offer(title=f"offer {number}")))
        granting.tick()

        async def found(after: Digest | None, most: int) -> list[Digest]:
            matching = matching_offers(granting.index, OfferQuery(after=after))
            return [chain.state.chain for _, chain in await first_of(matching, most)]

        every = sorted(chain.state.chain for _, chain in granting.index.chains())
        assert len(every) == 5
        assert asyncio.run(found(None, 99)) == every
        assert asyncio.run(found(every[1], 2)) == every[2:4]
        assert asyncio.run(found(every[-1], 2)) == []
    finally:
        granting.end()
