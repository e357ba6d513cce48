"""Who may have a statement about an offer logged here and is no operator: whoever this node's own offer invites.

An offer opens its own door: those whom it admits may ask for it, and a grantee may speak about its grant, whatever the
operator says about publishing. The inception of who asks may come along. That a statement is its author's is proven
afterwards, as for all lines, and only what stands in this log counts against anybody: what is said once, however many
copies of it come. What a grantee has to say about a grant has room of its own, which no request uses up. And nobody at
all, operators included, has a record of this node's own chains logged but the one who keeps its books.

    grows with                                        bound            charged to      at the bound
    unanswered requests of one identity for an offer  MAX_ASKED        that identity   OFFER-QUOTA
    those of all without a seat                       MAX_WAITING      all of them     OFFER-QUOTA until one is answered
    requests of those without a seat                  ASKING           who calls       RATE
    a grantee's statements of one kind about a grant  MAX_ABOUT        that identity   OFFER-QUOTA
    inception and rotations of who asks               MAX_INTRODUCED   that identity   OFFER-QUOTA
"""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from comity.ledger.index import Query
from comity.node.allocation.register import Register
from comity.node.core import Core
from comity.trust.digest import Digest
from comity.trust.errors import Malformed, OutOfSpace, Refused
from comity.trust.offers import PREDICATES, Chain, Request, Said, is_said, read_said
from comity.trust.statement import Entry, parse_entry
from comity.wire.doors import CALLER, Caller
from comity.wire.throttle import Allowance, Throttle

MAX_ASKED: Final = 16
MAX_WAITING: Final = 256
MAX_ABOUT: Final = 64
MAX_INTRODUCED: Final = 8
INTRODUCTIONS: Final = ("inception", "rotated")
ASKING: Final = Allowance(calls_per_second=1 / 60, burst=32)
"""How many requests of identities without a seat one caller hands in: anybody can make identities."""


class Counter:
    """Says which entries are words about this node's offers that may be logged. Touched by the event loop only."""

    def __init__(self, core: Core, register: Register, clock: Callable[[], float] = time.monotonic) -> None:
        self._core = core
        self._register = register
        self._asking = Throttle(ASKING, clock)

    def refuse_records(self, entries: Iterable[Entry]) -> None:
        """Raises Refused (OFFER-CHAIN) for what this node says of its own offers, and did not make itself just now."""
        for entry in entries:
            by = entry.statement.by
            if by is None or by.kind != "node" or entry.statement.predicate not in PREDICATES:
                continue
            record = self._core.membership.node(by)
            if record is not None and str(record.log) == self._core.log:
                raise Refused(
                    "this node's offers are not written by hand",
                    why="a record counts only where the node checked it against everything granted before",
                    code="OFFER-CHAIN",
                )

    async def granted(self, entries: Iterable[Entry]) -> frozenset[Digest]:
        """Digests of the entries that need no other permission. Raises OutOfSpace (OFFER-QUOTA), Refused (RATE)."""
        entries = [entry for entry in entries if entry.statement.by is not None]
        if any(is_said(entry.statement) for entry in entries):
            await self._register.read_own()
        invited: dict[Digest, set[Digest]] = {}
        coming: dict[Said, None] = {}
        for entry in entries:
            said = _read(entry)
            if said is not None and self._invites(said):
                if said not in coming and not self._stands(said):
                    self._require_room(said, coming)
                    coming[said] = None
                invited.setdefault(said.by, set()).add(entry.digest)
        more: Counts[tuple[Digest, str]] = Counts()
        for entry in entries:
            by = entry.statement.by
            if by is not None and by.id in invited and entry.statement.predicate in INTRODUCTIONS:
                await self._require_few(entry, more)
                invited[by.id].add(entry.digest)
        return frozenset(digest for digests in invited.values() for digest in digests)

    def _invites(self, said: Said) -> bool:
        if isinstance(said, Request):
            chain = self._register.own.chain_of(said.offer)
            if chain is None or chain.book.withdrawn:
                return False
            seat = self._core.membership.member(said.by)
            return chain.book.offer.eligibility.admits(said.by, seat.jurisdiction if seat else None)
        chain = self._register.own.chain_granting(said.grant)
        return chain is not None and chain.book.grants[said.grant].grant.grantee == said.by

    def _stands(self, said: Said) -> bool:
        """Whether it stands in this log already, in whatever envelope."""
        return any(other == said for other in self._alike(said))

    def _alike(self, said: Said) -> Iterator[Said]:
        """What this log says of the same offer, or of the same kind about the same grant."""
        if isinstance(said, Request):
            found = self._register.requests((said.offer,))
        else:
            found = self._register.about(said.grant)
        for told in found:
            other = told.stated.said
            if told.stated.line in self._register.own.said and isinstance(other, Said) and type(other) is type(said):
                yield other

    def _require_room(self, said: Said, coming: Iterable[Said]) -> None:
        if isinstance(said, Request):
            chain = self._register.own.chain_of(said.offer)
            assert chain is not None  # it invites
            self._require_room_to_ask(said, {*self._waiting(chain), *_requests(coming, chain)})
            return
        told = {other for other in (*self._alike(said), *coming) if type(other) is type(said) and other.by == said.by}
        if sum(not isinstance(other, Request) and other.grant == said.grant for other in told) >= MAX_ABOUT:
            raise _full(f"{MAX_ABOUT} such statements of the grantee about this grant are logged here")

    def _require_room_to_ask(self, request: Request, waiting: set[Request]) -> None:
        if sum(other.by == request.by for other in waiting) >= MAX_ASKED:
            raise _full(f"{MAX_ASKED} requests of this identity wait for this offer")
        if self._core.membership.member(request.by) is not None:
            return
        if sum(self._core.membership.member(other.by) is None for other in waiting) >= MAX_WAITING:
            raise _full(f"{MAX_WAITING} requests wait for this offer")
        with self._asking.call(CALLER.get(Caller("elsewhere")).name):
            pass

    def _waiting(self, chain: Chain) -> Iterator[Request]:
        """Requests in this log for an offer, of any version, that nobody has answered."""
        for told in self._register.requests(offer.id for offer in chain.book.offers):
            line, said = told.stated.line, told.stated.said
            if isinstance(said, Request) and line in self._register.own.said and line not in chain.book.answers:
                yield said

    async def _require_few(self, entry: Entry, more: Counts[tuple[Digest, str]]) -> None:
        by = entry.statement.by
        assert by is not None
        if self._core.membership.member(by.id) is not None:
            return
        key = by.id, entry.statement.predicate
        stands = await self._core.pools.ledger(self._introduced, *key)
        if entry.statement_digest not in stands:
            if len(stands) + more[key] >= MAX_INTRODUCED:
                raise _full(f"{len(stands)} {entry.statement.predicate} lines of this identity are logged here")
            more[key] += 1

    def _introduced(self, identity: Digest, predicate: str) -> set[Digest]:
        """Blocking. The statements that say who an identity is and stand in this log."""
        mine = Query(predicate=predicate, by=identity, origin=self._core.log)
        found = self._core.ledger.index.find(mine, limit=MAX_INTRODUCED)
        return {parse_entry(item.line).statement_digest for item in found}


def _requests(said: Iterable[Said], chain: Chain) -> Iterator[Request]:
    offers = {offer.id for offer in chain.book.offers}
    return (other for other in said if isinstance(other, Request) and other.offer in offers)


def _read(entry: Entry) -> Said | None:
    if not is_said(entry.statement):
        return None
    try:
        return read_said(entry.statement)
    except Malformed:
        return None


def _full(why: str) -> OutOfSpace:
    hint = "ask the operator of this node, or have the statement logged elsewhere: it counts in any log"
    return OutOfSpace("enough was asked here", why=why, hint=hint, code="OFFER-QUOTA")
