"""Who may have a statement about an offer logged here and is no operator: whoever this node's own offer invites.

An offer opens its own door: those whom it admits may ask for it, and a grantee may speak about its grant, whatever the
operator says about publishing. The inception of who asks may come along. What that may cost is bounded for each
identity and for each offer; that a statement is its author's is proven afterwards, as for all lines. And nobody at all,
operators included, has a record of this node's own chains logged but the one who keeps its books.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from comity.ledger.index import Query
from comity.node.allocation.register import Register
from comity.node.core import Core
from comity.trust.digest import Digest
from comity.trust.errors import Malformed, OutOfSpace, Refused
from comity.trust.offers import PREDICATES, Request, Said, is_said, read_said
from comity.trust.statement import Entry

MAX_SAID: Final = 64
"""Lines of one identity without a seat that are taken here."""
MAX_WAITING: Final = 256
"""Unanswered requests for one offer."""
INTRODUCTIONS: Final = ("inception", "rotated")


class Counter:
    """Says which entries are words about this node's offers that may be logged. Touched by the event loop only."""

    def __init__(self, core: Core, register: Register) -> None:
        self._core = core
        self._register = register

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
        """Digests of the entries that need no other permission. Raises OutOfSpace (OFFER-QUOTA)."""
        entries = [entry for entry in entries if entry.statement.by is not None]
        if any(is_said(entry.statement) for entry in entries):
            await self._register.read_own()
        invited: dict[Digest, set[Digest]] = {}
        for entry in entries:
            said = _read(entry)
            if said is not None and self._invites(said):
                await self._require_room(said)
                invited.setdefault(said.by, set()).add(entry.digest)
        for entry in entries:
            by = entry.statement.by
            if by is not None and by.id in invited and entry.statement.predicate in INTRODUCTIONS:
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

    async def _require_room(self, said: Said) -> None:
        if isinstance(said, Request):
            chain = self._register.own.chain_of(said.offer)
            assert chain is not None  # it invites
            asked = self._register.requests(offer.id for offer in chain.book.offers)
            waiting = (told for told in asked if told.stated.line not in chain.book.answers)
            if len(list(islice(waiting, MAX_WAITING))) >= MAX_WAITING:
                raise _full(f"{MAX_WAITING} requests wait for this offer")
        if self._core.membership.member(said.by) is None:
            mine = Query(by=said.by, origin=self._core.log)
            if len(await self._core.pools.ledger(self._core.ledger.index.find, mine, limit=MAX_SAID)) >= MAX_SAID:
                raise _full(f"{MAX_SAID} of its lines are logged here")


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
