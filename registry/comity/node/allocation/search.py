"""Which offers and grants match, out of the register. Nothing is proven here: whoever asks computes from the lines."""

from __future__ import annotations

from collections.abc import Iterator

from comity.node.allocation.register import Register, Told
from comity.trust.digest import Digest
from comity.trust.offers import Chain, Commitment, Offer, Request, Slice
from comity.wire.offer_values import GrantQuery, OfferQuery

REQUESTED = "requested"
REJECTED = "rejected"


def matching_offers(register: Register, query: OfferQuery) -> Iterator[tuple[str, Chain]]:
    """Chains whose offer in force matches, with their logs, by the id of the chain."""
    after = query.after or ""
    found = [(log, chain) for log, chain in register.chains() if chain.book.chain > after and _matches(chain, query)]
    yield from sorted(found, key=lambda item: item[1].book.chain)


def _matches(chain: Chain, query: OfferQuery) -> bool:
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


def _has(chain: Chain, query: OfferQuery) -> bool:
    """Whether one slice, of the accelerator asked for, has enough left."""
    wanted = [at for at, part in enumerate(chain.book.offer.slices) if _is_of(part, query.accelerator)]
    if not wanted or not query.least_amount:
        return bool(wanted)
    remaining = chain.book.remaining
    return any(remaining[at] >= query.least_amount for at in wanted)


def _is_of(part: Slice, accelerator: str) -> bool:
    return not accelerator or part.accelerator.casefold() == accelerator.casefold()


class Listed:
    """A request as its chain leaves it."""

    def __init__(self, told: Told, log: str, chain: Chain) -> None:
        self.told = told
        self.log = log
        self.chain = chain
        self.answer: Digest | None = chain.book.answers.get(told.stated.line)
        self.held: Commitment | None = chain.book.grants.get(self.answer) if self.answer else None

    @property
    def state(self) -> str:
        if self.held is not None:
            return self.held.state
        return REQUESTED if self.answer is None else REJECTED


def matching_grants(register: Register, query: GrantQuery) -> Iterator[Listed]:
    """Requests that match, by offer and then as they came."""
    passed = query.after is None
    for log, chain in _chains(register, query.offer):
        for told in register.requests(offer.id for offer in chain.book.offers):
            if passed and _wanted(told, query):
                listed = Listed(told, log, chain)
                if not query.state or listed.state == query.state:
                    yield listed
            passed = passed or told.stated.line == query.after


def _chains(register: Register, offer: Digest | None) -> Iterator[tuple[str, Chain]]:
    if offer is None:
        yield from sorted(register.chains(), key=lambda item: item[1].book.chain)
    elif (found := register.find(offer)) is not None:
        yield found


def _wanted(told: Told, query: GrantQuery) -> bool:
    said = told.stated.said
    return isinstance(said, Request) and query.grantee in (None, said.by)
