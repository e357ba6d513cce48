"""What a record does to its chain, and whether it may.

Only an open offer grants, and a request is answered once; only what waits lapses, after its time; only what was
accepted is redeemed, a pact on its beneficiary's cut-off alone; nodes of a slice are never given out twice for one
instant, and its amount is never given out twice in all; a superseding offer has room for all that is out.

Reserved from the grant on. A lapse returns all of it; a release returns what was not redeemed, and the nodes from the
next granule on: instants that have passed were used. Source: protocol, section 9.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from comity.trust.digest import Digest
from comity.trust.offers.capacity import MAX_TIME, Allocation
from comity.trust.offers.faults import broken, overbooked
from comity.trust.offers.offer import Offer
from comity.trust.offers.records import (
    Accepted,
    Grant,
    Lapsed,
    Offered,
    Record,
    Redeemed,
    Rejected,
    Released,
    Withdrawn,
)
from comity.trust.offers.state import ACCEPTED, GRANTED, LAPSED, RELEASED, Commitment, State


@dataclass(slots=True)
class Change:
    """What a record does: to a grant, to nodes (slice, start, end, how many), to amounts by slice."""

    commitment: Commitment | None = None
    nodes: list[tuple[str, int, int, int]] = field(default_factory=list)
    amounts: dict[str, int] = field(default_factory=dict)


def change_by(state: State, record: Record, digest: Digest) -> Change:
    """What a record, of that line digest, does where its chain stands so.

    Raises Untrusted (OFFER-OVERBOOKED, OFFER-BROKEN) where it may not.
    """
    if isinstance(record, Offered):
        return _offered(state, record)
    if not state.offers:
        raise broken("the chain does not begin with its offer")
    if isinstance(record, Withdrawn):
        if state.withdrawn:
            raise broken("the offer was withdrawn before")
        return Change()
    if isinstance(record, Grant):
        return _granted(state, record, digest)
    if isinstance(record, Rejected):
        _require_unanswered(state, record.request)
        return Change()
    return _about(state, record, _commitment(state, record.grant), digest)


def _offered(state: State, record: Offered) -> Change:
    offer = record.offer
    if not state.offers:
        if offer.id != state.chain or offer.supersedes is not None:
            raise broken("a chain begins with the offer that names it, which supersedes nothing")
        return Change()
    kept = (offer.supersedes, offer.provider, offer.log, offer.measure)
    if kept != (state.offer.id, state.offer.provider, state.offer.log, state.offer.measure):
        raise broken("it does not supersede the offer in force, by the same provider, log and measure")
    if state.withdrawn:
        raise broken("the offer was withdrawn")
    for part in state.offer.slices:
        _require_kept(state, part.name, offer, record.link.at)
    return Change()


def _require_kept(state: State, name: str, offer: Offer, at: int) -> None:
    """That what was given out of a slice has its place in a superseding offer."""
    given, peak = state.given(name), state.profile(name).peak(at, MAX_TIME)
    if not given and not peak:
        return
    before, after = state.offer.slice(name), offer.slice(name)
    if before is None or after is None or not before.same_kind(after):
        raise broken(f"grants hold slice {name}, which is gone or of another kind")
    if given > after.amount or peak > after.nodes:
        raise overbooked(f"grants hold more of slice {name} than the superseding offer has")


def _granted(state: State, record: Grant, digest: Digest) -> Change:
    _require_unanswered(state, record.request)
    if state.withdrawn:
        raise broken("the offer was withdrawn")
    if why := state.offer.objection(record.allocations):
        raise broken(why)
    if record.accept_by <= record.link.at:
        raise broken("there is no time to accept it")
    if any(allocation.end <= record.link.at for allocation in record.allocations):
        raise broken("it is over before it is granted")
    change = Change(Commitment(record, digest, GRANTED, (0,) * len(record.allocations), digest))
    for wanted in record.allocations:
        _reserve(state, change, wanted)
    return change


def _reserve(state: State, change: Change, wanted: Allocation) -> None:
    part = state.offer.slice(wanted.slice)
    assert part is not None  # the offer had no objection
    free = state.free_nodes(part.name, wanted.start, wanted.end)
    if wanted.nodes > free:
        raise overbooked(f"slice {part.name}: {wanted.nodes} nodes, and at some instant {free} are free")
    left = part.amount - state.given(part.name)
    if wanted.amount > left:
        raise overbooked(f"slice {part.name}: {wanted.amount} {state.offer.measure}, and {left} are left")
    change.nodes.append((part.name, wanted.start, wanted.end, wanted.nodes))
    change.amounts[part.name] = wanted.amount


def _about(state: State, record: Accepted | Lapsed | Redeemed | Released, held: Commitment, digest: Digest) -> Change:
    if isinstance(record, Redeemed):
        return _redeemed(state, record, held, digest)
    if isinstance(record, Accepted):
        _require_state(held, GRANTED)
        return Change(replace(held, state=ACCEPTED, newest=digest))
    if isinstance(record, Lapsed):
        _require_state(held, GRANTED)
        if record.link.at <= held.grant.accept_by:
            raise broken("a grant lapses before its time")
        change = Change(replace(held, state=LAPSED, newest=digest))
        _return(state, change, held, 0)
        return change
    _require_state(held, ACCEPTED)
    if record.giving_back is None and any(part.end > record.link.at for part in held.grant.allocations):
        raise broken("a grant is taken back before its end, and its grantee did not say so")
    change = Change(replace(held, state=RELEASED, newest=digest))
    _return(state, change, held, _next_granule(state, record.link.at))
    return change


def _redeemed(state: State, record: Redeemed, held: Commitment, digest: Digest) -> Change:
    _require_state(held, ACCEPTED)
    if len(record.amounts) != len(held.redeemed):
        raise broken("a redemption names as many amounts as its grant has allocations")
    if any(amount > left for amount, left in zip(record.amounts, held.left, strict=True)):
        raise overbooked("more is redeemed than was granted")
    if held.grant.pact != (record.cut_off is not None):
        raise broken("a pact, and only a pact, is redeemed on its beneficiary's cut-off")
    used = tuple(before + now for before, now in zip(held.redeemed, record.amounts, strict=True))
    return Change(replace(held, redeemed=used, newest=digest))


def _return(state: State, change: Change, held: Commitment, since: int) -> None:
    for given, used in zip(held.grant.allocations, held.redeemed, strict=True):
        change.nodes.append((given.slice, max(given.start, since), given.end, -given.nodes))
        change.amounts[given.slice] = used - given.amount


def _next_granule(state: State, at: int) -> int:
    begin, unit = state.offer.window.start, state.offer.granularity.seconds
    return begin + -(-(at - begin) // unit) * unit


def _require_unanswered(state: State, request: Digest) -> None:
    if request in state.answers:
        raise broken("the request was answered before")


def _commitment(state: State, grant: Digest) -> Commitment:
    if grant not in state.grants:
        raise broken("it is about no grant of this chain")
    return state.grants[grant]


def _require_state(held: Commitment, state: str) -> None:
    if held.state != state:
        raise broken(f"the grant is {held.state}, not {state}")
