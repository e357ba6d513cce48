"""What all logs held here say of offers, read as they grow: chains, their faults, and what was said in other logs.

Each log is read from its beginning, a stretch at a time and in turn with the others, its signatures judged in a thread.
Nothing is kept but in memory: the logs are the record, and what follows from them is computed again at each start.


Which offers and grants match, out of the register. Nothing is proven here: whoever asks computes from the lines.

Chains at fault, said aloud: each once, in this node's own log. The proof is the log that is accused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from comity.ledger.log_store import EntryQuery
from comity.node.context import NodeContext
from comity.node.own_log import OwnLog
from comity.trust.encoding import Digest
from comity.trust.offers.accusing import OFFER_FAULT, Accused, accusation_statement
from comity.trust.offers.chain import PREDICATES, GrantState, OfferChain, OfferLogReader, PartyStatement
from comity.trust.offers.offer import Offer, Slice
from comity.trust.offers.records import OFFER, GrantRequest
from comity.trust.statement import Author, Entry, parse_entry, sign_statement
from comity.trust.statements import NodeRecord, signed_by_node
from comity.trust.tlog.note import VerifierKey
from comity.wire.offer import GrantQuery, OfferQuery

STRETCH: Final = 1024
"""Entries of one log that are looked at in one turn."""


@dataclass(frozen=True, slots=True)
class FoundStatement:
    """A statement of an identity, and the log (verifier key) where it was found first."""

    log: str
    stated: PartyStatement


@dataclass(frozen=True, slots=True)
class FaultyChain:
    """A chain that was found at fault, and its log."""

    log: str
    chain: OfferChain


class OfferIndex:
    """Chains of every log. Touched by the event loop only."""

    def __init__(self, core: NodeContext) -> None:
        self._core = core
        self._turns: dict[str, asyncio.Lock] = {}
        self._logs: dict[str, OfferLogReader] = {}
        self._convicted: list[FaultyChain] = []
        self._read: dict[str, int] = {}
        self._kept: dict[str, int] = {}
        """Lines of each log that were taken in."""
        self.crowded: set[str] = set()
        """Logs that say more of offers than is kept: nothing of theirs is known for sure."""
        self._writers: dict[str, frozenset[Author]] = {}
        """Who was known to write each log when it was read."""
        self._woken: dict[str, int] = {}
        """How many parked lines of each log had come to stand when it was read."""
        self._homes: dict[Digest, str] = {}
        """The log of each offer, of any version."""
        self._requests: dict[Digest, dict[Digest, FoundStatement]] = {}
        """By the offer asked for, then by line."""
        self._about: dict[Digest, dict[Digest, FoundStatement]] = {}
        """What identities said of a grant, by line."""

    @property
    def own(self) -> OfferLogReader:
        """The node's own log, as far as it was read."""
        return self._log(self._core.log)

    def chains(self) -> Iterator[tuple[str, OfferChain]]:
        """Every chain, with its log."""
        return ((name, chain) for name, log in self._logs.items() for chain in log.chains.values())

    def convicted(self) -> Iterator[tuple[str, OfferChain]]:
        """Chains at fault, with their logs."""
        return ((log, chain) for log, chain in self.chains() if chain.fault is not None)

    def find(self, offer: Digest) -> tuple[str, OfferChain] | None:
        """The chain that an offer, of any version, belongs to, and its log."""
        home = self._homes.get(offer)
        chain = self._log(home).chain_of(offer) if home else None
        return (home, chain) if home and chain else None

    def requests(self, offers: Iterable[Digest]) -> Iterator[FoundStatement]:
        """Requests for these offers, in whichever log they stand, each once."""
        return (told for offer in offers for told in self._requests.get(offer, {}).values())

    def waiting(self) -> int:
        """How many requests for this node's own offers nobody has answered."""
        open_ = (chain.book for chain in self.own.chains.values() if not chain.book.withdrawn)
        return sum(
            told.stated.line not in book.answers
            for book in open_
            for told in self.requests(offer.id for offer in book.offers)
        )

    def about(self, grant: Digest) -> Iterator[FoundStatement]:
        """What identities said of a grant, in whichever log, each line once."""
        return iter(self._about.get(grant, {}).values())

    def newly_convicted(self) -> list[FaultyChain]:
        """Chains that were found at fault since this was asked last."""
        found, self._convicted = self._convicted, []
        return found

    async def read(self) -> bool:
        """One turn: a stretch of each log that has grown. Whether some log has more to read."""
        behind = False
        for log in await self._core.pools.ledger(self._core.ledger.logs.all):
            behind = await self._read_stretch(log.vkey, log.size) or behind
        return behind

    async def read_own(self) -> None:
        """Read the next stretch of the node's own log, where it has grown: what was logged here a moment ago."""
        log = await self._core.pools.ledger(self._core.ledger.logs.get, self._core.log)
        await self._read_stretch(log.vkey, log.size)

    async def _read_stretch(self, log: str, size: int) -> bool:
        """Whether there is more."""
        async with self._turns.setdefault(log, asyncio.Lock()):
            writers, intake = self._core.membership.writers(log), self._core.ledger.intake
            size, woken = min(size, await self._core.pools.ledger(intake.position, log)), intake.woken(log)
            doubtful = any(chain.doubtful for chain in self._log(log).chains.values())
            if woken != self._woken.get(log, woken) or (writers != self._writers.get(log) and doubtful):
                for known in (self._logs, self._read, self._kept):
                    known.pop(log, None)
            self._woken[log] = woken
            start = self._read.get(log, 0)
            if start >= size or not writers or log in self.crowded:
                return False
            self._writers[log] = writers
            end = min(size, start + STRETCH)
            judged = await self._core.pools.hashing(self._judged, log, start, end)
            if not self._has_room(log, len(judged)):
                return False
            for index, entry, genuine in judged:
                self._take(log, index, entry, genuine)
            self._read[log] = end
            return end < size

    def _has_room(self, log: str, lines: int) -> bool:
        """Whether so many more lines of a log are kept here. The own log's are, whatever it says."""
        self._kept[log] = self._kept.get(log, 0) + lines
        if log == self._core.log or self._kept[log] <= self._core.config.limits.offer_lines_per_origin:
            return True
        self.crowded.add(log)
        for chain in self._log(log).chains.values():
            chain.doubtful = True
        return False

    def _take(self, name: str, index: int, entry: Entry, genuine: bool | None) -> None:
        log = self._log(name)
        chain = log.read(index, entry, genuine)
        if (stated := log.said.get(entry.digest)) is not None and stated.index == index:
            self._note(FoundStatement(name, stated))
        if chain is None:
            return
        for offer in chain.book.offers:
            self._homes.setdefault(offer.id, name)
        if chain.fault is not None and chain.fault.index == index:
            self._convicted.append(FaultyChain(name, chain))

    def _note(self, told: FoundStatement) -> None:
        said = told.stated.said
        where, key = (self._requests, said.offer) if isinstance(said, GrantRequest) else (self._about, said.grant)
        where.setdefault(key, {}).setdefault(told.stated.line, told)

    def _log(self, name: str) -> OfferLogReader:
        return self._logs.setdefault(name, OfferLogReader(name))

    def _judged(self, log: str, start: int, end: int) -> list[tuple[int, Entry, bool | None]]:
        """Blocking. The entries of a stretch that are about offers, and whether each is its author's."""
        found = self._core.ledger.index.said(log, PREDICATES, start, end)
        entries = ((index, parse_entry(line)) for index, line in found)
        return [(index, entry, self._genuine(log, entry)) for index, entry in entries]

    def _genuine(self, log: str, entry: Entry) -> bool | None:
        """Whether it counts, of what its author is proven to have said."""
        by = entry.statement.by
        if by is None:
            return False
        if by.kind == "node":
            record = self._core.membership.node(by)
            return None if record is None else _by_writer(log, entry, record)
        return True


def _by_writer(log: str, entry: Entry, record: NodeRecord) -> bool:
    """Whether a node says this in its own log; and of an offer, in its own member's name."""
    if str(record.log) != log or not signed_by_node(entry, record):
        return False
    if entry.statement.predicate != OFFER:
        return True
    offer = entry.statement.body.get("offer")
    return isinstance(offer, Mapping) and offer.get("provider") == record.member


REQUESTED = "requested"
REJECTED = "rejected"


def matching_offers(register: OfferIndex, query: OfferQuery) -> Iterator[tuple[str, OfferChain]]:
    """Chains whose offer in force matches, with their logs, by the id of the chain."""
    after = query.after or ""
    found = [(log, chain) for log, chain in register.chains() if chain.book.chain > after and _matches(chain, query)]
    yield from sorted(found, key=lambda item: item[1].book.chain)


def _matches(chain: OfferChain, query: OfferQuery) -> bool:
    book, offer = chain.book, chain.book.offer
    if not query.closed and (book.withdrawn or chain.fault is not None or chain.doubtful):
        return False
    return _is_asked_for(offer, query) and _is_where(offer, query) and _has(chain, query)


def _is_asked_for(offer: Offer, query: OfferQuery) -> bool:
    return (
        (not query.engine or offer.engine.kind == query.engine)
        and (not query.measure or offer.measure == query.measure)
        and (query.provider is None or offer.provider == query.provider)
        and (query.artifact is None or query.artifact in offer.artifacts)
        and (query.ends_after is None or offer.window.end > query.ends_after)
    )


def _is_where(offer: Offer, query: OfferQuery) -> bool:
    where = offer.location
    if query.jurisdictions and where.jurisdiction not in query.jurisdictions:
        return False
    return not {where.jurisdiction, *where.legal_reach}.intersection(query.beyond_reach_of)


def _has(chain: OfferChain, query: OfferQuery) -> bool:
    """Whether one slice, of the accelerator asked for, has enough left."""
    wanted = [at for at, part in enumerate(chain.book.offer.slices) if _is_of(part, query.accelerator)]
    if not wanted or not query.least_amount:
        return bool(wanted)
    remaining = chain.book.remaining
    return any(remaining[at] >= query.least_amount for at in wanted)


def _is_of(part: Slice, accelerator: str) -> bool:
    return not accelerator or part.accelerator.casefold() == accelerator.casefold()


class ListedRequest:
    """A request as its chain leaves it."""

    def __init__(self, told: FoundStatement, log: str, chain: OfferChain) -> None:
        self.told = told
        self.log = log
        self.chain = chain
        self.answer: Digest | None = chain.book.answers.get(told.stated.line)
        self.held: GrantState | None = chain.book.grants.get(self.answer) if self.answer else None

    @property
    def state(self) -> str:
        if self.held is not None:
            return self.held.state
        return REQUESTED if self.answer is None else REJECTED


def matching_grants(register: OfferIndex, query: GrantQuery) -> Iterator[ListedRequest]:
    """Requests that match, by offer and then as they came."""
    passed = query.after is None
    for log, chain in _chains(register, query.offer):
        for told in register.requests(offer.id for offer in chain.book.offers):
            if passed and _wanted(told, query):
                listed = ListedRequest(told, log, chain)
                if not query.state or listed.state == query.state:
                    yield listed
            passed = passed or told.stated.line == query.after


def _chains(register: OfferIndex, offer: Digest | None) -> Iterator[tuple[str, OfferChain]]:
    if offer is None:
        yield from sorted(register.chains(), key=lambda item: item[1].book.chain)
    elif (found := register.find(offer)) is not None:
        yield found


def _wanted(told: FoundStatement, query: GrantQuery) -> bool:
    said = told.stated.said
    return isinstance(said, GrantRequest) and query.grantee in (None, said.by)


MAX_ACCUSATIONS: Final = 16
"""Chains of one log of which this node says so. One convicts; who writes bad chains by the thousand fills only its own
log with them."""

_log: Final = structlog.get_logger("comity.node.offers")


class FaultPublisher:
    """Says of a chain that it is at fault, once, whatever happens between: the log itself is asked what was said."""

    def __init__(self, core: NodeContext, own_log: OwnLog) -> None:
        self._core = core
        self._own_log = own_log
        self._accused: dict[str, int] = {}

    async def accuse(self, convicted: FaultyChain) -> None:
        fault = convicted.chain.fault
        assert fault is not None  # it was convicted
        accused = Accused(convicted.chain.book.chain, convicted.log, fault.index, fault.line, fault.kind)
        origin = VerifierKey.parse(convicted.log).name
        self._core.metrics.offers_at_fault.labels(origin).inc()
        _log.error("an offer's chain convicts its provider", origin=origin, kind=fault.kind, why=fault.why)
        self._accused[convicted.log] = self._accused.get(convicted.log, 0) + 1
        if self._accused[convicted.log] > MAX_ACCUSATIONS or convicted.log == self._core.log:
            return
        if not await self._core.pools.ledger(self._said, accused):
            said = accusation_statement(accused, self._core.seat.record.node)
            await self._own_log.append(sign_statement(said, self._core.keys.online).line)

    def _said(self, accused: Accused) -> bool:
        """Blocking."""
        mine = EntryQuery(
            subject=accused.chain, predicate=OFFER_FAULT, by=self._core.seat.record.node.id, origin=self._core.log
        )
        return bool(self._core.ledger.index.find(mine, limit=1))
