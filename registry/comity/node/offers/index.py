"""Index of offers in all logs that this node holds: chains, their faults, and statements of identities.

Each log is read from its beginning in batches, in turn with the other logs. Signatures are checked in a thread. The
index is only in memory and computed again at each start. It also answers searches (unproven: the client computes the
result from the lines again), and publishes each faulty chain once in this node's own log.

Members and strangers may ask for anything, and a member may log many offers: a search looks at a few items at a time,
and other work of the event loop is done in between. Logs take turns, so that the first items are not all of the log
that has most.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from contextlib import aclosing
from itertools import islice, zip_longest
from typing import Final, TypeAlias, TypeVar

import structlog

from comity.ledger.entry_index import EntryQuery
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.own_log import OwnLog
from comity.node.threads import AsyncLedger, Pools
from comity.rules.offers.chain import ChainState, GrantState
from comity.rules.offers.fault_proof import OfferFault
from comity.rules.offers.log_reader import LocatedStatement, OfferChain, OfferLogReader
from comity.rules.offers.offer import Offer, Slice
from comity.rules.offers.records import GrantRequest
from comity.rules.signing import statement_of
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.node_records import NodeRecord, signed_by_node
from comity.trust.statement import Author, Entry, parse_entry, sign_statement
from comity.trust.statement_kinds import OFFER, OFFER_FAULT, OFFER_PREDICATES
from comity.trust.tlog.note import VerifierKey
from comity.trust.turns import in_turns
from comity.wire.offer import GrantQuery, OfferQuery

BATCH: Final = 1024
"""Entries of one log that are read in one batch."""


@frozen
class FoundStatement:
    """A statement of an identity, and the log (verifier key) in which it was found first."""

    log: str
    located: LocatedStatement


@frozen
class FaultyChain:
    """A chain with a fault, and its log."""

    log: str
    chain: OfferChain


MAX_COUNTED: Final = 1_000
"""Unanswered requests in others' logs that are counted: a member may log any number in its own."""


@frozen
class UnansweredRequests:
    """How many requests are in this node's own log, whose quotas bound them, and how many only in others' logs, at most
    `MAX_COUNTED`."""

    own: int
    elsewhere: int


ChainKey: TypeAlias = tuple[int, Digest, str]
"""The number of a chain in its log, its id, and the log: the order of searches. Logs take turns, so that a log with
many offers hides none of another."""


class OfferIndex:
    """Chains of every log. Not thread-safe: call from the event loop."""

    def __init__(self, ledger: AsyncLedger, pools: Pools, membership: Membership, max_lines: int) -> None:
        self._ledger = ledger
        self._pools = pools
        self._membership = membership
        self._max_lines = max_lines
        self._locks: dict[str, asyncio.Lock] = {}
        self._logs: dict[str, OfferLogReader] = {}
        self._new_faults: list[FaultyChain] = []
        self._positions: dict[str, int] = {}
        self._line_counts: dict[str, int] = {}
        """Number of lines of each log in the index."""
        self.over_quota: set[str] = set()
        """Logs with more lines about offers than the quota: their chains are not known completely."""
        self._writers: dict[str, frozenset[Author]] = {}
        """Known writers of each log when it was read last."""
        self._unparked: dict[str, int] = {}
        """Number of parked lines of each log that were unparked when it was read last."""
        self._order: list[ChainKey] = []
        """Every chain, in order."""
        self._keys: dict[str, dict[Digest, ChainKey]] = {}
        """By log, then by chain."""
        self._log_of: dict[Digest, str] = {}
        """Log of each offer, of any version."""
        self._requests: dict[Digest, dict[Digest, FoundStatement]] = {}
        """Requests by offer, then by line."""
        self._by_grant: dict[Digest, dict[Digest, FoundStatement]] = {}
        """Statements of identities by grant, then by line."""
        self._own_requests: dict[Digest, dict[Digest, FoundStatement]] = {}
        self._own_by_grant: dict[Digest, dict[Digest, FoundStatement]] = {}
        """Those of them in this node's own log: others' logs may have any number."""

    @property
    def own(self) -> OfferLogReader:
        """The node's own log, as far as it is read."""
        return self._log(self._membership.own_node.log)

    def chains(self) -> Iterator[tuple[str, OfferChain]]:
        """Every chain, with its log."""
        return ((name, chain) for name, log in self._logs.items() for chain in log.chains.values())

    def chains_after(self, key: ChainKey | None, most: int) -> list[tuple[ChainKey, OfferChain]]:
        """At most `most` chains after a key, or the first ones, in order."""
        begin = 0 if key is None else bisect_right(self._order, key)
        return [(each, self._logs[each[2]].chains[each[1]]) for each in self._order[begin : begin + most]]

    def key_of(self, chain: Digest) -> ChainKey | None:
        """The place of a chain in the order; None if it is not known."""
        return self._keys.get(self._log_of.get(chain, ""), {}).get(chain)

    def faulty(self) -> list[tuple[str, OfferChain]]:
        """Chains with a fault, and their logs, which take turns: a lender with many hides none of another."""
        return in_turns((each for each in self.chains() if each[1].fault is not None), lambda each: each[0])

    def find(self, offer: Digest) -> tuple[str, OfferChain] | None:
        """The log and the chain of an offer, of any version."""
        log = self._log_of.get(offer)
        chain = self._log(log).chain_of(offer) if log else None
        return (log, chain) if log and chain else None

    def requests(self, offers: Iterable[Digest]) -> Iterator[FoundStatement]:
        """Requests for these offers from all logs, each once."""
        return (found for offer in offers for found in self._requests.get(offer, {}).values())

    def unanswered(self) -> UnansweredRequests:
        """Requests for this node's own open offers that have no answer."""
        states = [chain.state for chain in self.own.chains.values() if not chain.state.withdrawn]
        own = (found for state in states for found in _unanswered(state, self._own_requests))
        others = (found for state in states for found in _unanswered(state, self._requests))
        elsewhere = (found for found in others if found.log != self._membership.own_node.log)
        return UnansweredRequests(sum(1 for _ in own), sum(1 for _ in islice(elsewhere, MAX_COUNTED)))

    def grant_statements(self, grant: Digest) -> Iterator[FoundStatement]:
        """Statements of identities about a grant from all logs, each once."""
        return iter(self._by_grant.get(grant, {}).values())

    def own_requests(self, offers: Iterable[Digest]) -> Iterator[FoundStatement]:
        """Requests for these offers in this node's own log, each once."""
        return (found for offer in offers for found in self._own_requests.get(offer, {}).values())

    def own_grant_statements(self, grant: Digest) -> Iterator[FoundStatement]:
        """Statements of identities about a grant in this node's own log, each once."""
        return iter(self._own_by_grant.get(grant, {}).values())

    def take_new_faults(self) -> list[FaultyChain]:
        """Faulty chains that were found since the last call."""
        found, self._new_faults = self._new_faults, []
        return found

    @property
    def line_use(self) -> tuple[int, int]:
        """The most lines of one mirrored log, and the limit."""
        own = self._membership.own_node.log
        counts = (count for log, count in self._line_counts.items() if log != own)
        return max(counts, default=0), self._max_lines

    async def read(self) -> bool:
        """Read one batch of each log that has grown. Returns whether some log has more to read."""
        behind = False
        for log in await self._ledger.read(self._ledger.tables.logs.all):
            behind = await self._read_batch(log.vkey, log.size) or behind
        return behind

    async def read_own(self) -> None:
        """Read the next batch of the node's own log, to include entries that were appended just now."""
        log = await self._ledger.run(self._ledger.tables.logs.get, self._membership.own_node.log)
        await self._read_batch(log.vkey, log.size)

    async def _read_batch(self, log: str, size: int) -> bool:
        """Returns whether there is more."""
        async with self._locks.setdefault(log, asyncio.Lock()):
            writers, intake = self._membership.writers(log), self._ledger.tables.intake
            size, unparked = min(size, await self._ledger.read(intake.position, log)), intake.unparked(log)
            doubtful = any(chain.doubtful for chain in self._log(log).chains.values())
            if unparked != self._unparked.get(log, unparked) or (writers != self._writers.get(log) and doubtful):
                for per_log in (self._logs, self._positions, self._line_counts):
                    per_log.pop(log, None)
                self._keys.pop(log, None)
                self._order = [key for key in self._order if key[2] != log]
            self._unparked[log] = unparked
            start = self._positions.get(log, 0)
            if start >= size or not writers or log in self.over_quota:
                return False
            self._writers[log] = writers
            start = await self._ledger.run(self._ledger.tables.index.next_with, log, OFFER_PREDICATES, start, size)
            end = min(size, start + BATCH)
            entries = await self._pools.hashing(self._load, log, start, end)
            if not self._within_quota(log, len(entries)):
                return False
            for index, entry, genuine in entries:
                self._add(log, index, entry, genuine)
            self._positions[log] = end
            return end < size

    def _within_quota(self, log: str, lines: int) -> bool:
        """Count `lines` more lines of a log; False if it is over its quota. The own log has no quota."""
        self._line_counts[log] = self._line_counts.get(log, 0) + lines
        if log == self._membership.own_node.log or self._line_counts[log] <= self._max_lines:
            return True
        self.over_quota.add(log)
        for chain in self._log(log).chains.values():
            chain.doubtful = True
        return False

    def _add(self, name: str, index: int, entry: Entry, genuine: bool | None) -> None:
        log = self._log(name)
        chain = log.read(index, entry, genuine)
        if (located := log.statements.get(entry.digest)) is not None and located.index == index:
            self._add_statement(FoundStatement(name, located))
        if chain is None:
            return
        keys = self._keys.setdefault(name, {})
        if chain.state.chain not in keys:
            key = keys[chain.state.chain] = len(keys), chain.state.chain, name
            insort(self._order, key)
        for offer in chain.state.offers[-1:]:
            self._log_of.setdefault(offer.id, name)
        if chain.fault is not None and chain.fault.index == index:
            self._new_faults.append(FaultyChain(name, chain))

    def _add_statement(self, found: FoundStatement) -> None:
        content = found.located.statement
        if isinstance(content, GrantRequest):
            every, own, key = self._requests, self._own_requests, content.offer
        else:
            every, own, key = self._by_grant, self._own_by_grant, content.grant
        for by_key in (every, own) if found.log == self._membership.own_node.log else (every,):
            by_key.setdefault(key, {}).setdefault(found.located.line, found)

    def _log(self, name: str) -> OfferLogReader:
        return self._logs.setdefault(name, OfferLogReader(name))

    def _load(self, log: str, start: int, end: int) -> list[tuple[int, Entry, bool | None]]:
        """Entries about offers from `start` up to `end`, and whether each is signed by its author. Blocking."""
        found = self._ledger.tables.index.entries_with(log, OFFER_PREDICATES, start, end)
        entries = ((index, parse_entry(line)) for index, line in found)
        return [(index, entry, self._genuine(log, entry)) for index, entry in entries]

    def _genuine(self, log: str, entry: Entry) -> bool | None:
        """Whether the entry is signed by its author; None if the node is unknown."""
        by = entry.statement.by
        if by is None:
            return False
        if by.kind == "node":
            record = self._membership.node(by)
            return None if record is None else _by_writer(log, entry, record)
        return True


def _unanswered(
    state: ChainState, requests: Mapping[Digest, Mapping[Digest, FoundStatement]]
) -> Iterator[FoundStatement]:
    """The requests for any version of an offer that have no answer."""
    every = (found for offer in state.offers for found in requests.get(offer.id, {}).values())
    return (found for found in every if found.located.line not in state.answers)


def _by_writer(log: str, entry: Entry, record: NodeRecord) -> bool:
    """Whether a node signed this entry in its own log and, for an offer, in the name of its own member."""
    if str(record.log) != log or not signed_by_node(entry, record):
        return False
    if entry.statement.predicate != OFFER:
        return True
    offer = entry.statement.body.get("offer")
    return isinstance(offer, Mapping) and offer.get("provider") == record.member


MAX_PUBLISHED_FAULTS: Final = 16
"""Maximum faulty chains of one log that this node publishes. One is enough; the bound keeps the own log small."""

_log: Final = structlog.get_logger("comity.node.offers")


class FaultPublisher:
    """Publishes each faulty chain once in the own log, also after a restart: it first searches the log."""

    def __init__(self, ledger: AsyncLedger, metrics: Metrics, membership: Membership, own_log: OwnLog) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._membership = membership
        self._signer = own_log.signer
        self._own_log = own_log
        self._published: dict[str, int] = {}

    async def publish(self, faulty: FaultyChain) -> None:
        """Log the fault of a chain, unless it is in the own log already."""
        fault = faulty.chain.fault
        assert fault is not None  # only faulty chains are passed
        offer_fault = OfferFault(faulty.chain.state.chain, faulty.log, fault.index, fault.line, fault.kind)
        key = VerifierKey.parse(faulty.log)
        self._metrics.offers_at_fault.labels(self._membership.log_title(faulty.log)).inc()
        _log.error("offer chain has a fault", origin=key.name, log=faulty.log, kind=fault.kind, why=fault.why)
        self._published[faulty.log] = self._published.get(faulty.log, 0) + 1
        if self._published[faulty.log] > MAX_PUBLISHED_FAULTS or faulty.log == str(self._signer.record.log):
            return
        if not await self._ledger.run(self._is_published, offer_fault):
            statement = statement_of(offer_fault, self._signer.record.node)
            await self._own_log.append(sign_statement(statement, self._signer.online).line)

    def _is_published(self, fault: OfferFault) -> bool:
        """Blocking."""
        query = EntryQuery(
            subject=fault.chain,
            predicate=OFFER_FAULT,
            by=self._signer.record.node.id,
            origin=str(self._signer.record.log),
        )
        return bool(self._ledger.tables.index.find(query, limit=1))


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
