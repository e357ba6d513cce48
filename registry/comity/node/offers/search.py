"""Searches of the index of offers. Members and strangers may ask for anything, and a member may log many offers: a
search looks at a few items at a time, and other work of the event loop is done in between. Logs take turns, so that the
first items are not all of the log that has most.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from itertools import zip_longest
from typing import Final, TypeVar

from comity.node.offers.index import FoundStatement, OfferIndex
from comity.trust.encoding import Digest
from comity.trust.offers.chain import GrantState, OfferChain
from comity.trust.offers.offer import Offer, Slice
from comity.trust.offers.records import GrantRequest
from comity.wire.offer import GrantQuery, OfferQuery

T = TypeVar("T")

STEP: Final = 256
"""Chains, or requests, that are looked at without a pause."""
REQUESTED = "requested"
REJECTED = "rejected"


async def matching_offers(index: OfferIndex, query: OfferQuery) -> AsyncGenerator[tuple[str, OfferChain], None]:
    """Chains whose offer in force matches, with their logs: the first of each log, then the second of each, and so
    on."""
    async for log, chain in _chains_after(index, query.after):
        if _matches(chain, query):
            yield log, chain


def _matches(chain: OfferChain, query: OfferQuery) -> bool:
    state, offer = chain.state, chain.state.offer
    if not query.closed and (state.withdrawn or chain.fault is not None or chain.doubtful):
        return False
    return _matches_offer(offer, query) and _matches_location(offer, query) and _has_amount(chain, query)


def _matches_offer(offer: Offer, query: OfferQuery) -> bool:
    return (
        (not query.engine or offer.engine.kind == query.engine)
        and (not query.measure or offer.measure == query.measure)
        and (query.provider is None or offer.provider == query.provider)
        and (query.artifact is None or query.artifact in offer.artifacts)
        and (query.ends_after is None or offer.window.end > query.ends_after)
    )


def _matches_location(offer: Offer, query: OfferQuery) -> bool:
    location = offer.location
    if query.jurisdictions and location.jurisdiction not in query.jurisdictions:
        return False
    return not {location.jurisdiction, *location.legal_reach}.intersection(query.beyond_reach_of)


def _has_amount(chain: OfferChain, query: OfferQuery) -> bool:
    """Whether one slice with the queried accelerator has enough left."""
    wanted = [at for at, part in enumerate(chain.state.offer.slices) if _has_accelerator(part, query.accelerator)]
    if not wanted or not query.least_amount:
        return bool(wanted)
    remaining = chain.state.remaining
    return any(remaining[at] >= query.least_amount for at in wanted)


def _has_accelerator(part: Slice, accelerator: str) -> bool:
    return not accelerator or part.accelerator.casefold() == accelerator.casefold()


class ListedRequest:
    """A request, its answer and its grant after the records of its chain."""

    def __init__(self, request: FoundStatement, log: str, chain: OfferChain) -> None:
        self.request = request
        self.log = log
        self.chain = chain
        self.answer: Digest | None = chain.state.answers.get(request.located.line)
        self.grant_state: GrantState | None = chain.state.grants.get(self.answer) if self.answer else None

    @property
    def state(self) -> str:
        if self.grant_state is not None:
            return self.grant_state.state
        return REQUESTED if self.answer is None else REJECTED


async def matching_grants(index: OfferIndex, query: GrantQuery) -> AsyncGenerator[ListedRequest, None]:
    """Requests that match: the chains of the logs in turn; of one chain those of the logs in turn, in their order."""
    passed, looked_at = query.after is None, 0
    async for log, chain in _chains(index, query.offer):
        for found in _in_turn(index.requests(offer.id for offer in chain.state.offers)):
            if passed and _matches_request(found, query):
                listed = ListedRequest(found, log, chain)
                if not query.state or listed.state == query.state:
                    yield listed
            passed = passed or found.located.line == query.after
            looked_at += 1
            if looked_at % STEP == 0:
                await asyncio.sleep(0)


async def _chains(index: OfferIndex, offer: Digest | None) -> AsyncGenerator[tuple[str, OfferChain], None]:
    if offer is None:
        async for found in _chains_after(index, None):
            yield found
    elif (known := index.find(offer)) is not None:
        yield known


def _in_turn(statements: Iterable[FoundStatement]) -> Iterator[FoundStatement]:
    by_log: dict[str, list[FoundStatement]] = {}
    for found in statements:
        by_log.setdefault(found.log, []).append(found)
    for turn in zip_longest(*by_log.values()):
        yield from (found for found in turn if found is not None)


async def _chains_after(index: OfferIndex, after: Digest | None) -> AsyncGenerator[tuple[str, OfferChain], None]:
    """Chains after one, or all, in order. None after one that is not known."""
    key = None if after is None else index.key_of(after)
    if after is not None and key is None:
        return
    while page := index.chains_after(key, STEP):
        for (_, _, log), chain in page:
            yield log, chain
        key = page[-1][0]
        await asyncio.sleep(0)


def _matches_request(found: FoundStatement, query: GrantQuery) -> bool:
    request = found.located.statement
    return isinstance(request, GrantRequest) and query.grantee in (None, request.by)


async def first_of(found: AsyncGenerator[T, None], most: int) -> list[T]:
    """The first `most` items of a search."""
    items: list[T] = []
    async with aclosing(found):
        async for item in found:
            items.append(item)
            if len(items) == most:
                break
    return items
