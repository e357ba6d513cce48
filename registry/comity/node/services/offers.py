"""Compute offers, for whoever asks; and, for operators, what is done with this node's own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import islice
from typing import Final

from comity.node.context import NodeContext
from comity.node.offers.index import ListedRequest, OfferIndex, matching_grants, matching_offers
from comity.node.offers.provider import OfferService, no_offer
from comity.trust.encoding import Digest
from comity.trust.offers.chain import OfferChain
from comity.trust.tlog.note import VerifierKey
from comity.wire import limits
from comity.wire.messages import LocatedEntry
from comity.wire.offer import Act, GrantQuery, GrantStatus, OfferQuery, OfferStatus

BATCH: Final = 64
_DOUBT: Final = "not known: records by a key that this node cannot place, or more of them than it keeps"


class OfferRpcService:
    """Answers `Offering` of the wire."""

    def __init__(self, core: NodeContext, allocation: OfferService) -> None:
        self._core = core
        self._allocation = allocation

    async def search(self, query: OfferQuery) -> AsyncGenerator[OfferStatus, None]:
        await self._register.read_own()
        found = list(islice(matching_offers(self._register, query), query.limit or limits.OFFERS))
        for start in range(0, len(found), BATCH):
            batch = found[start : start + BATCH]
            lines = await self._lines((log, chain.offered[-1]) for log, chain in batch)
            for (log, chain), located in zip(batch, lines, strict=True):
                yield _state(log, chain, located)

    async def offer(self, offer: Digest) -> AsyncGenerator[LocatedEntry, None]:
        await self._register.read_own()
        found = self._register.find(offer)
        if found is None:
            raise no_offer(offer)
        log, chain = found
        inside = sorted({*chain.indexes, *(stated.index for stated in chain.stated), *_fault(chain)})
        places = [(log, index) for index in inside]
        known = {stated.line for stated in chain.stated}
        told = [*self._register.requests(each.id for each in chain.book.offers)]
        for grant in chain.book.grants:
            told += self._register.about(grant)
        places += [(item.log, item.stated.index) for item in told if item.stated.line not in known]
        for start in range(0, len(places), BATCH):
            for located in await self._lines(places[start : start + BATCH]):
                yield located

    async def grants(self, query: GrantQuery) -> AsyncGenerator[GrantStatus, None]:
        await self._register.read_own()
        found = list(islice(matching_grants(self._register, query), query.limit or limits.GRANTS))
        for start in range(0, len(found), BATCH):
            for state in await self._grant_states(found[start : start + BATCH]):
                yield state

    async def allocate(self, act: Act) -> tuple[LocatedEntry, ...]:
        lines = await self._allocation.allocator.do(act)
        await self._register.read_own()
        self._allocation.look()
        return lines

    @property
    def _register(self) -> OfferIndex:
        return self._allocation.register

    async def _grant_states(self, batch: Sequence[ListedRequest]) -> list[GrantStatus]:
        asked = await self._lines((listed.told.log, listed.told.stated.index) for listed in batch)
        answered = [(listed.log, _answer_index(listed)) for listed in batch if listed.answer is not None]
        answers = dict(zip(answered, await self._lines(answered), strict=True))
        return [
            GrantStatus(
                request,
                listed.chain.book.chain,
                listed.state,
                answers[(listed.log, _answer_index(listed))] if listed.answer is not None else None,
                listed.held.redeemed if listed.held else (),
                listed.held.newest if listed.held else None,
                self._said(listed),
            )
            for listed, request in zip(batch, asked, strict=True)
        ]

    def _said(self, listed: ListedRequest) -> tuple[Digest, ...]:
        if listed.held is None:
            return ()
        ours = (item.line for item in listed.chain.stated if getattr(item.said, "grant", None) == listed.held.digest)
        theirs = (told.stated.line for told in self._register.about(listed.held.digest))
        return tuple(islice(dict.fromkeys((*ours, *theirs)), limits.SAID))

    async def _lines(self, places: Iterable[tuple[str, int]]) -> list[LocatedEntry]:
        return await self._core.pools.ledger(self._read, list(places))

    def _read(self, places: Sequence[tuple[str, int]]) -> list[LocatedEntry]:
        """Blocking."""
        lines = self._core.ledger.history.at(places)
        origins = {log: VerifierKey.parse(log).name for log, _ in places}
        return [LocatedEntry(origins[log], index, line) for (log, index), line in zip(places, lines, strict=True)]


def _state(log: str, chain: OfferChain, located: LocatedEntry) -> OfferStatus:
    book = chain.book
    why = f"{chain.fault.kind}: {chain.fault.why}" if chain.fault else _DOUBT if chain.doubtful else ""
    return OfferStatus(located, log, book.chain, book.remaining, book.seq, book.at, book.withdrawn, why)


def _fault(chain: OfferChain) -> tuple[int, ...]:
    return (chain.fault.index,) if chain.fault else ()


def _answer_index(listed: ListedRequest) -> int:
    assert listed.answer is not None
    return listed.chain.indexes[listed.chain.book.number(listed.answer)]
