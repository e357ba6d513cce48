"""Who lends machines to whom: the grants and standing pacts of all offers, as the compute board shows them.

A loan is a record of the lender's log that answers a signed request of the borrower; both were verified before the
index of offers took them. Its state follows from the records of its chain and the clock of this node. Logs take turns,
so that the loans of one lender hide none of another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain as chained
from itertools import islice, zip_longest
from typing import Final, Literal, TypeAlias

from comity.gateway.console.logs import log_id
from comity.node.offers.index import STEP, ChainKey, OfferIndex
from comity.rules.offers.chain import ACCEPTED, LAPSED, RELEASED, GrantState
from comity.rules.offers.log_reader import OfferChain
from comity.rules.offers.offer import Slice, SliceAllocation
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.trust.tlog.note import VerifierKey

FRESH: Final = 10.0
"""Seconds for which the loans are kept: a node may hold the chains of 200 logs, and anybody may ask for the page."""
MAX_OF_LOG: Final = 50
MAX_LOANS: Final = 1_000
"""Loans of one log, and of all, that pages show; the others are counted."""
PAGE: Final = 25

LoanState = Literal["running", "later", "reserved", "waits", "fault", "unknown", "ended", "released", "lapsed"]
"""running, or later: accepted, and its time has come or not; reserved: a pact that nobody has called; waits: for the
borrower to accept it; fault: the lender broke the terms; unknown: the log is not read completely; ended: its time is
over; released: given back; lapsed: not accepted in time."""
HeldGrant: TypeAlias = tuple[OfferChain, GrantState]
OVER: Final[frozenset[LoanState]] = frozenset(("ended", "released", "lapsed"))


@frozen
class LentPart:
    """An allocation of a loan, with its slice (None if the offer in force has none of that name), and the amount of it
    that was handed over."""

    allocation: SliceAllocation
    slice: Slice | None
    used: int


@frozen
class LoanView:
    """A grant or pact. Times in POSIX seconds: from `start` up to `end`; `granted` by the lender's clock; `accept_by`
    is the last second to accept it. `log` and `index` are the place of its record."""

    lender: Digest
    borrower: Digest
    pact: bool
    measure: str
    parts: tuple[LentPart, ...]
    start: int
    end: int
    granted: int
    accept_by: int
    state: LoanState
    origin: str
    log: str
    index: int

    @property
    def parties(self) -> tuple[Digest, Digest]:
        return self.lender, self.borrower


@frozen
class Loans:
    """Loans that are not over, or all; `more` were counted and are not listed."""

    listed: tuple[LoanView, ...]
    more: int

    def page(self, start: int) -> Sequence[LoanView]:
        return self.listed[start : start + PAGE]


class LoanBoard:
    """The loans, read again when they are older than `FRESH`. Not thread-safe: call from the event loop."""

    def __init__(self, index: OfferIndex) -> None:
        self._index = index
        self._kept: dict[bool, tuple[float, Loans]] = {}
        self._lock = asyncio.Lock()

    async def now(self, now: float, *, closed: bool) -> Loans:
        """The loans at this time (POSIX seconds); with `closed` also those that are over."""
        async with self._lock:
            clock = asyncio.get_running_loop().time()
            kept = self._kept.get(closed)
            if kept is None or clock - kept[0] >= FRESH:
                kept = self._kept[closed] = clock, await read_loans(self._index, now, closed=closed)
            return kept[1]


async def read_loans(index: OfferIndex, now: float, *, closed: bool) -> Loans:
    """The loans of all chains; other work of the event loop has its turns meanwhile."""
    by_log: dict[str, list[HeldGrant]] = {}
    count = 0
    key: ChainKey | None = None
    while page := index.chains_after(key, STEP):
        for (_, _, log), chain in page:
            kept = by_log.setdefault(log, [])
            grants = chain.state.grants if closed else chain.state.open
            count += len(grants)
            room = islice(reversed(grants), max(0, MAX_OF_LOG - len(kept)))
            kept += [(chain, chain.state.grants[grant]) for grant in room]
        key = page[-1][0]
        await asyncio.sleep(0)
    found = islice(_in_turn(by_log, now), MAX_LOANS)
    listed = tuple(_loan(log, chain, held, now) for log, (chain, held) in found)
    return Loans(listed, count - len(listed))


def _in_turn(by_log: Mapping[str, Sequence[HeldGrant]], now: float) -> Iterator[tuple[str, HeldGrant]]:
    """The first of each log, then the second of each, and so on: of one log those in use first, then by their end."""

    def order(grant: HeldGrant) -> tuple[bool, int]:
        chain, held = grant
        return loan_state(chain, held, now) in OVER, _end(held)

    ordered = [[(log, grant) for grant in sorted(kept, key=order)] for log, kept in by_log.items()]
    return (each for each in chained.from_iterable(zip_longest(*ordered)) if each is not None)


def _start(held: GrantState) -> int:
    return min(allocation.start for allocation in held.grant.allocations)


def _end(held: GrantState) -> int:
    return max(allocation.end for allocation in held.grant.allocations)


def _loan(log: str, chain: OfferChain, held: GrantState, now: float) -> LoanView:
    grant, offer = held.grant, chain.state.offer
    parts = tuple(
        LentPart(allocation, offer.slice(allocation.slice), used)
        for allocation, used in zip(grant.allocations, held.redeemed, strict=True)
    )
    return LoanView(
        lender=offer.provider,
        borrower=grant.grantee,
        pact=grant.pact,
        measure=offer.measure,
        parts=parts,
        start=_start(held),
        end=_end(held),
        granted=grant.link.at,
        accept_by=grant.accept_by,
        state=loan_state(chain, held, now),
        origin=VerifierKey.parse(log).name,
        log=log_id(log),
        index=chain.indexes[chain.state.number(held.digest)],
    )


def loan_state(chain: OfferChain, held: GrantState, now: float) -> LoanState:
    """The state of a grant at a time (POSIX seconds)."""
    grant = held.grant
    if chain.fault is not None:
        return "fault"
    if chain.doubtful:
        return "unknown"
    if held.state == RELEASED:
        return "released"
    if held.state == LAPSED or (held.state != ACCEPTED and grant.accept_by < now):
        return "lapsed"
    if _end(held) <= now:
        return "ended"
    if held.state != ACCEPTED:
        return "waits"
    if grant.pact and not any(held.redeemed):
        return "reserved"
    return "later" if _start(held) > now else "running"
