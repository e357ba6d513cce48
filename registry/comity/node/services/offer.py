"""RPC service for compute offers: search, one offer, grants, and the operator's actions on own offers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import islice
from typing import Final

from comity.node.offers.index import ListedRequest, OfferIndex, first_of, matching_grants, matching_offers
from comity.node.offers.own_chains import no_offer
from comity.node.offers.provider import OfferController
from comity.node.operator_acts import OperatorActs
from comity.node.replication.fair_queue import FairSlots
from comity.node.threads import AsyncLedger
from comity.rules.offers.log_reader import OfferChain
from comity.trust.encoding import Digest
from comity.trust.tlog.note import VerifierKey
from comity.wire import limits
from comity.wire.access import CALLER, Caller
from comity.wire.messages import LocatedEntry
from comity.wire.offer import ANY_GRANT, ANY_OFFER, GrantQuery, GrantStatus, OfferAction, OfferQuery, OfferStatus

BATCH: Final = 64
SEARCHES: Final = 4
"""Searches at once, one of an address block or of a member's node."""
MAX_WAITING: Final = 32
"""Searches of one of these that wait."""
_SUBJECTS: Final = ("request", "offer", "grant", "redemption", "default")
"""The members of an action that may say what it is about."""
_UNKNOWN: Final = "unknown: a record is signed by an unknown key, or the log is over its quota here"


class OfferServicer:
    """Implements `OfferService`."""

    def __init__(self, ledger: AsyncLedger, controller: OfferController, acts: OperatorActs) -> None:
        self._ledger = ledger
        self._controller = controller
        self._acts = acts
        self._searches = FairSlots(SEARCHES, per_key=1, max_per_key=MAX_WAITING)

    async def search(self, query: OfferQuery = ANY_OFFER) -> AsyncGenerator[OfferStatus, None]:
        await self._index.read_own()
        async with self._searches.slot(_block()):
            found = await first_of(matching_offers(self._index, query), query.limit or limits.OFFERS)
        for start in range(0, len(found), BATCH):
            batch = found[start : start + BATCH]
            lines = await self._lines((log, chain.offered[-1]) for log, chain in batch)
            for (log, chain), located in zip(batch, lines, strict=True):
                yield _state(log, chain, located)

    async def offer(self, offer: Digest) -> AsyncGenerator[LocatedEntry, None]:
        await self._index.read_own()
        found = self._index.find(offer)
        if found is None:
            raise no_offer(offer)
        log, chain = found
        own = sorted({*chain.indexes, *(located.index for located in chain.statements), *_fault(chain)})
        places = [(log, index) for index in own]
        known = {located.line for located in chain.statements}
        statements = [*self._index.requests(each.id for each in chain.state.offers)]
        for grant in chain.state.grants:
            statements += self._index.grant_statements(grant)
        places += [(item.log, item.located.index) for item in statements if item.located.line not in known]
        for start in range(0, len(places), BATCH):
            for entry in await self._lines(places[start : start + BATCH]):
                yield entry

    async def grants(self, query: GrantQuery = ANY_GRANT) -> AsyncGenerator[GrantStatus, None]:
        await self._index.read_own()
        async with self._searches.slot(_block()):
            found = await first_of(matching_grants(self._index, query), query.limit or limits.GRANTS)
        for start in range(0, len(found), BATCH):
            for state in await self._grant_states(found[start : start + BATCH]):
                yield state

    async def allocate(self, action: OfferAction) -> tuple[LocatedEntry, ...]:
        subject = next((value for name in _SUBJECTS if (value := getattr(action, name, ""))), "")
        async with self._acts.recorded(f"offer.{type(action).__name__.lower()}", str(subject)):
            lines = await self._controller.provider.perform(action)
        await self._index.read_own()
        self._controller.wake()
        return lines

    @property
    def _index(self) -> OfferIndex:
        return self._controller.index

    async def _grant_states(self, batch: Sequence[ListedRequest]) -> list[GrantStatus]:
        requests = await self._lines((listed.request.log, listed.request.located.index) for listed in batch)
        places = [(listed.log, _answer_index(listed)) for listed in batch if listed.answer is not None]
        answers = dict(zip(places, await self._lines(places), strict=True))
        return [
            GrantStatus(
                request,
                listed.chain.state.chain,
                listed.state,
                answers[(listed.log, _answer_index(listed))] if listed.answer is not None else None,
                listed.grant_state.redeemed if listed.grant_state else (),
                listed.grant_state.newest if listed.grant_state else None,
                self._statements(listed),
            )
            for listed, request in zip(batch, requests, strict=True)
        ]

    def _statements(self, listed: ListedRequest) -> tuple[Digest, ...]:
        if listed.grant_state is None:
            return ()
        inside = (item.line for item in listed.chain.by_grant.get(listed.grant_state.digest, ()))
        outside = (item.located.line for item in self._index.grant_statements(listed.grant_state.digest))
        return tuple(islice(dict.fromkeys((*inside, *outside)), limits.GRANT_STATEMENTS))

    async def _lines(self, places: Iterable[tuple[str, int]]) -> list[LocatedEntry]:
        return await self._ledger.run(self._read, list(places))

    def _read(self, places: Sequence[tuple[str, int]]) -> list[LocatedEntry]:
        """Blocking."""
        lines = self._ledger.tables.history.entries_at(places)
        origins = {log: VerifierKey.parse(log).name for log, _ in places}
        return [LocatedEntry(origins[log], index, line) for (log, index), line in zip(places, lines, strict=True)]


def _block() -> str:
    """To whom a search is charged."""
    return CALLER.get(Caller("elsewhere")).block


def _state(log: str, chain: OfferChain, located: LocatedEntry) -> OfferStatus:
    state = chain.state
    why = f"{chain.fault.kind}: {chain.fault.why}" if chain.fault else _UNKNOWN if chain.doubtful else ""
    return OfferStatus(located, log, state.chain, state.remaining, state.seq, state.at, state.withdrawn, why)


def _fault(chain: OfferChain) -> tuple[int, ...]:
    return (chain.fault.index,) if chain.fault else ()


def _answer_index(listed: ListedRequest) -> int:
    assert listed.answer is not None
    return listed.chain.indexes[listed.chain.state.number(listed.answer)]
