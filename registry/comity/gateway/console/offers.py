"""The compute board: offers as pages show them."""

from __future__ import annotations

from typing import Final, Literal

from comity.gateway.console.logs import log_id
from comity.node.members import Membership
from comity.node.offers.index import OfferIndex, first_of, matching_offers
from comity.rules.offers.log_reader import OfferChain
from comity.rules.offers.offer import Offer, Slice
from comity.trust.encoding import Digest, parse_digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.tlog.note import VerifierKey
from comity.wire.offer import OfferQuery

PAGE: Final = 25
OfferState = Literal["open", "ended", "withdrawn", "fault", "unknown"]


@frozen
class OfferView:
    """An offer in force. `left` is the amount of each slice that no grant has taken, by the records in the log."""

    chain: Digest
    offer: Offer
    provider: str
    state: OfferState
    fault: str
    left: tuple[tuple[Slice, int], ...]
    origin: str
    log: str
    index: int


@frozen
class OfferPage:
    """Offers, and the key of the next page, empty at the end."""

    found: tuple[OfferView, ...]
    after: str


async def offer_page(index: OfferIndex, membership: Membership, now: float, after: str, *, closed: bool) -> OfferPage:
    """Offers, those of each log in turn. Raises Malformed for a key that is none."""
    try:
        key = parse_digest(after) if after else None
    except Malformed as error:
        raise Malformed("not a page of this board", why="start again from the first page", code="CURSOR") from error
    query = OfferQuery(after=key, closed=closed, ends_after=None if closed else int(now))
    matching = await first_of(matching_offers(index, query), PAGE + 1)
    found = [_offer(log, chain, membership, now) for log, chain in matching]
    return OfferPage(tuple(found[:PAGE]), found[PAGE - 1].chain if len(found) > PAGE else "")


def _offer(log: str, chain: OfferChain, membership: Membership, now: float) -> OfferView:
    offer = chain.state.offer
    state: OfferState = "open"
    if chain.fault is not None:
        state = "fault"
    elif chain.state.withdrawn:
        state = "withdrawn"
    elif offer.window.end <= now:
        state = "ended"
    elif chain.doubtful:
        state = "unknown"
    seat = membership.member(offer.provider)
    provider = f"{seat.name} ({seat.jurisdiction})" if seat else offer.provider[:12]
    left = tuple(zip(offer.slices, chain.state.remaining, strict=True))
    fault = f"{chain.fault.kind}: {chain.fault.why}" if chain.fault else ""
    origin = VerifierKey.parse(log).name
    return OfferView(chain.state.chain, offer, provider, state, fault, left, origin, log_id(log), chain.offered[-1])
