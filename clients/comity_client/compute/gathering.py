"""Chains of offers from nodes. What nodes add up only helps to find; what is shown is computed from lines."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Final

from comity.trust.digest import Digest, sha256
from comity.trust.errors import ComityError, NotFound
from comity.wire import limits
from comity.wire.client import NodeClient
from comity.wire.offer_values import GrantQuery, GrantState, OfferQuery, OfferState
from comity.wire.values import Located, LocatedProof

from comity_client.compute.chains import CLAIMED, CONVICTED, PROVEN, View, view
from comity_client.compute.circle import Circle
from comity_client.compute.parcels import Parcel, Placed
from comity_client.nodes.session import Question, Session

MAX_PAGES: Final = 32
"""Pages that one node is asked for: 32,000 offers, 320,000 requests."""
AT_ONCE: Final = 16
_WEIGHT: Final = {CLAIMED: 0, PROVEN: 1, CONVICTED: 2}


@dataclass(frozen=True, slots=True)
class Seen:
    """A chain, who gave lines of it, and whether the provider's own node answers now."""

    view: View
    nodes: tuple[str, ...]
    provider_answers: bool


async def search(session: Session, query: OfferQuery) -> dict[Digest, set[str]]:
    """The chains that nodes say match, and which nodes. Raises Unavailable."""
    answers = await session.ask(lambda node: _offers(node, query))
    if not answers.found:
        raise answers.failure("nobody says what is offered")
    found: dict[Digest, set[str]] = {}
    for node, states in answers.found.items():
        for state in states:
            found.setdefault(state.chain, set()).add(node.name)
    return found


async def grants(session: Session, query: GrantQuery) -> tuple[GrantState, ...]:
    """Requests that nodes know of, and what they say became of them; each once. Raises Unavailable."""
    answers = await session.ask(lambda node: _grants(node, query))
    if not answers.found:
        raise answers.failure("nobody says what was asked for")
    found: dict[Digest, GrantState] = {}
    for states in answers.found.values():
        for state in states:
            key = sha256(state.request.line)
            if key not in found or found[key].answer is None or len(state.said) > len(found[key].said):
                found[key] = state
    return tuple(found.values())


async def look(session: Session, chain: Digest, known: Parcel) -> Seen:
    """One chain, from all nodes and from what is known. Raises NotFound, Unavailable.

    Each node's lines are weighed by themselves, and then all together: who hands out nonsense spoils nobody else's
    answer, and two books that two nodes got are found out.
    """
    answers = await session.ask(lambda node: node.offers.get(chain))
    given = [known | Parcel(tuple(_placed(lines))) for lines in answers.found.values() if lines]
    if not given and not known.lines:
        raise answers.failure("nobody knows this offer")
    together = reduce(Parcel.__or__, given, known)
    circle = Circle(session.pins, together.entries)
    parcels = dict.fromkeys((together, *given))  # most often the same
    views = [seen for parcel in parcels if (seen := _view(parcel, chain, circle)) is not None]
    if not views:
        raise answers.failure("nobody knows this offer")
    proofs = await _proofs(session, views)
    weighed = [view(replace(seen.parcel, proofs=(*seen.parcel.proofs, *proofs)), chain, circle) for seen in views]
    best = max(weighed, key=lambda seen: (_WEIGHT[seen.state], seen.book.seq))
    names = {node.name for node in answers.found}
    provider = best.provider.record.name if best.provider else ""
    return Seen(best, tuple(sorted(names)), provider in names)


async def look_at_all(session: Session, chains: Iterable[Digest]) -> list[Seen]:
    """Those of `chains` that can be had, in their order."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(chain: Digest) -> Seen | None:
        async with turn:
            try:
                return await look(session, chain, Parcel())
            except ComityError:
                return None

    found = await asyncio.gather(*(one(chain) for chain in chains))
    return [seen for seen in found if seen is not None]


async def _proofs(session: Session, views: Iterable[View]) -> tuple[tuple[Digest, bytes], ...]:
    """Proofs of the newest record of each view, from whoever gives any."""
    wanted = {(seen.book.last, seen.provider.record.origin) for seen in views if seen.provider and seen.book.last}
    found = []
    for line, origin in wanted:
        answers = await session.ask(_proving(line, origin))
        found += [(line, item.proof) for proofs in answers.found.values() for item in proofs]
    return tuple(found)


def _proving(line: Digest, origin: str) -> Question[tuple[LocatedProof, ...]]:
    return lambda node: node.proofs(line, origin)


def _view(parcel: Parcel, chain: Digest, circle: Circle) -> View | None:
    try:
        return view(parcel, chain, circle)
    except NotFound:
        return None


async def _offers(node: NodeClient, query: OfferQuery) -> list[OfferState]:
    found: list[OfferState] = []
    for _ in range(MAX_PAGES):
        page = await node.offers.search(query)
        found += page
        if len(page) < limits.OFFERS or query.limit:
            break
        query = replace(query, after=page[-1].chain)
    return found


async def _grants(node: NodeClient, query: GrantQuery) -> list[GrantState]:
    found: list[GrantState] = []
    for _ in range(MAX_PAGES):
        try:
            page = await node.offers.grants(query)
        except NotFound:
            break
        found += page
        if len(page) < limits.GRANTS or query.limit:
            break
        query = replace(query, after=sha256(page[-1].request.line))
    return found


def _placed(lines: Iterable[Located]) -> Iterable[Placed]:
    return (Placed(item.line, item.origin, item.index) for item in lines)
