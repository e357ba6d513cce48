"""The state of an offer chain: which record may follow, and what it changes.

A provider's node runs these rules before it appends a record. Every reader runs the same rules afterwards, so a record
that the writer refuses is a record that every reader reports as a fault. A record must (1) have the next number, name
the record before it and not be older, (2) be allowed in the state of its chain, (3) state correctly what is left.

Only an open offer grants. A request is answered once. A grant lapses only after `accept_by`. Only an accepted grant is
redeemed, and a pact only after its beneficiary's cut-off. Nodes of a slice are never granted twice for one instant, nor
its amount beyond the total. A superseding offer must cover all that is granted. A grant reserves at once. A lapse
returns all of it; a release returns what was not redeemed, and the nodes from the next granule on.

`log_reader` finds the records of a chain in a log. Source: protocol, section 9.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from comity.rules.offers.amounts import (
    OVERBOOKED,
    Profile,
    broken,
    fault_kind,
    forked,
    overbooked,
)
from comity.rules.offers.offer import MAX_TIME, Offer, SliceAllocation
from comity.rules.offers.records import (
    Accepted,
    ChainLink,
    Grant,
    Lapsed,
    Offered,
    Record,
    Redeemed,
    Rejected,
    Released,
    Withdrawn,
)
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Refused, Untrusted
from comity.trust.frozen import frozen
from comity.trust.statement import Envelope

MAX_RECORDS: Final = 4096
"""Number of records after which a chain takes no more grants: the whole chain is the proof of a fault."""

GRANTED: Final = "granted"
ACCEPTED: Final = "accepted"
LAPSED: Final = "lapsed"
RELEASED: Final = "released"

_R = TypeVar("_R", bound=Record)


@frozen
class GrantState:
    """The state of a grant after the records of its chain.

    Attributes:
        digest: digest of the grant's line; identifies the grant.
        state: granted, accepted, lapsed or released.
        redeemed: amount redeemed of each allocation, in order.
        newest: line digest of the newest record about the grant: the challenge of the next redemption.
    """

    grant: Grant
    digest: Digest
    state: str
    redeemed: tuple[int, ...]
    newest: Digest

    @property
    def left(self) -> tuple[int, ...]:
        """Amount of each allocation that may still be redeemed once the grant is accepted."""
        if self.state in (LAPSED, RELEASED):
            return (0,) * len(self.redeemed)
        pairs = zip(self.grant.allocations, self.redeemed, strict=True)
        return tuple(allocation.amount - used for allocation, used in pairs)


class ChainState:
    """The state of one chain, computed from its records. Not thread-safe. A method that raises changes nothing."""

    def __init__(self, chain: Digest) -> None:
        self.chain = chain
        self.last: Digest | None = None
        """Line digest of the newest record."""
        self.at = 0
        """Time of the newest record, POSIX seconds."""
        self.offers: list[Offer] = []
        """Every version of the offer, oldest first. The last one is in force."""
        self.grants: dict[Digest, GrantState] = {}
        """Grants by line digest."""
        self.open: dict[Digest, None] = {}
        """Grants in state granted or accepted, oldest first."""
        self.answers: dict[Digest, Digest] = {}
        """Line digest of the record that answers a statement, by the statement's line digest."""
        self.withdrawal: Digest | None = None
        """Line digest of the record that withdraws the offer."""
        self._profiles: dict[str, Profile] = {}
        self._given: dict[str, int] = {}
        self._records: list[tuple[Digest, Digest]] = []
        """Digest of the line and digest of the payload of each record, by number."""
        self._numbers: dict[Digest, int] = {}

    @property
    def offer(self) -> Offer:
        """The version in force. Exists once a record was appended."""
        return self.offers[-1]

    @property
    def withdrawn(self) -> bool:
        return self.withdrawal is not None

    @property
    def remaining(self) -> tuple[int, ...]:
        """Amount left of each slice of the offer in force."""
        return tuple(part.amount - self.given(part.name) for part in self.offer.slices)

    def given(self, slice_name: str) -> int:
        """Amount of a slice that is granted."""
        return self._given.get(slice_name, 0)

    def profile(self, slice_name: str) -> Profile:
        """Number of nodes of a slice that are granted at each instant."""
        return self._profiles.setdefault(slice_name, Profile())

    def free_nodes(self, slice_name: str, start: int, end: int) -> int:
        """Number of nodes of a slice that are free at every instant from `start` up to `end`; 0 if unknown."""
        part = self.offer.slice(slice_name)
        return 0 if part is None else part.nodes - self.profile(slice_name).peak(start, end)

    @property
    def seq(self) -> int:
        """Number of the newest record; -1 before the first."""
        return len(self._records) - 1

    def number(self, record: Digest) -> int:
        """Number of an appended record, by its line digest. Raises KeyError."""
        return self._numbers[record]

    def link(self, record: _R, at: int) -> _R:
        """Return the record, linked as the next one of this chain.

        Args:
            at: now, POSIX seconds. The time of the newest record is used if that is later.

        Raises Refused (OFFER-CAPACITY, OFFER-STATE, OFFER-FULL) if it may not follow.
        """
        self._require_capacity(record)
        at = max(at, self.at)
        link = ChainLink(self.chain, self.seq + 1, self.last, at, ())
        try:
            change = check_record(self, replace(record, link=link), Digest(""))
        except Untrusted as error:
            raise Refused(
                "the state of the offer does not allow this record",
                why=error.why,
                code="OFFER-CAPACITY" if fault_kind(error) == OVERBOOKED else "OFFER-STATE",
            ) from error
        return replace(record, link=replace(link, remaining=self._remaining_after(record, change)))

    def append(self, record: Record, envelope: Envelope, line: bytes) -> bool:
        """Append the next record; False for a copy of an earlier one.

        Raises Untrusted (OFFER-FORKED, OFFER-OVERBOOKED, OFFER-BROKEN).
        """
        digest, payload = sha256(line), sha256(envelope.payload)
        link = record.link
        if link.chain != self.chain:
            raise broken("the record belongs to another chain")
        if link.seq <= self.seq:
            if self._records[link.seq][0] == digest or self._records[link.seq][1] == payload:
                return False
            raise forked(f"two different records have number {link.seq}")
        if (link.seq, link.prev) != (self.seq + 1, self.last):  # (1)
            raise broken(f"record {link.seq} does not follow the newest record, number {self.seq}")
        if link.at < self.at:
            raise broken(f"record {link.seq} is older than the record before it")
        change = check_record(self, record, digest)  # (2)
        if link.remaining != self._remaining_after(record, change):  # (3)
            raise broken(f"record {link.seq} states a wrong remaining amount")
        self._apply(record, change, digest)
        self._numbers[digest] = link.seq
        self._records.append((digest, payload))
        self.last, self.at = digest, link.at
        return True

    def _require_capacity(self, record: Record) -> None:
        if self.seq + 1 >= MAX_RECORDS and isinstance(record, Grant | Offered | Rejected):
            raise Refused(
                "the chain of this offer is full",
                why=f"it has {self.seq + 1} records",
                hint="withdraw the offer and post the rest as a new offer",
                code="OFFER-FULL",
            )

    def _remaining_after(self, record: Record, change: GrantChange) -> tuple[int, ...]:
        offer = record.offer if isinstance(record, Offered) else self.offer
        return tuple(part.amount - self.given(part.name) - change.amounts.get(part.name, 0) for part in offer.slices)

    def _apply(self, record: Record, change: GrantChange, digest: Digest) -> None:
        if isinstance(record, Offered):
            self.offers.append(record.offer)
        elif isinstance(record, Withdrawn):
            self.withdrawal = digest
        elif (answered := _answered(record)) is not None:
            self.answers[answered] = digest
        if (grant_state := change.grant_state) is not None:
            self.grants[grant_state.digest] = grant_state
            self.open[grant_state.digest] = None
            if grant_state.state not in (GRANTED, ACCEPTED):
                del self.open[grant_state.digest]
        for name, start, end, nodes in change.nodes:
            self.profile(name).add(start, end, nodes)
        for name, amount in change.amounts.items():
            self._given[name] = self.given(name) + amount


@dataclass(slots=True)
class GrantChange:
    """Changes by one record: the new state of a grant, granted nodes (slice, start, end, count), amounts by slice."""

    grant_state: GrantState | None = None
    nodes: list[tuple[str, int, int, int]] = field(default_factory=list)
    amounts: dict[str, int] = field(default_factory=dict)


def check_record(state: ChainState, record: Record, digest: Digest) -> GrantChange:
    """Return what a record with line digest `digest` changes in `state`.

    Raises Untrusted (OFFER-OVERBOOKED, OFFER-BROKEN) if the rules do not allow it.
    """
    if isinstance(record, Offered):
        return _check_offer(state, record)
    if not state.offers:
        raise broken("the chain does not begin with its offer")
    if isinstance(record, Withdrawn):
        if state.withdrawn:
            raise broken("the offer was already withdrawn")
        return GrantChange()
    if isinstance(record, Grant):
        return _check_grant(state, record, digest)
    if isinstance(record, Rejected):
        _require_unanswered(state, record.request)
        return GrantChange()
    return _check_grant_record(state, record, _require_grant(state, record.grant), digest)


def _check_offer(state: ChainState, record: Offered) -> GrantChange:
    offer = record.offer
    if not state.offers:
        if offer.id != state.chain or offer.supersedes is not None:
            raise broken("a chain must begin with the offer that names it, which must supersede nothing")
        return GrantChange()
    new = (offer.supersedes, offer.provider, offer.log, offer.measure)
    if new != (state.offer.id, state.offer.provider, state.offer.log, state.offer.measure):
        raise broken("the offer must supersede the offer in force and keep its provider, log and measure")
    if state.withdrawn:
        raise broken("the offer was withdrawn")
    for part in state.offer.slices:
        _require_covered(state, part.name, offer, record.link.at)
    return GrantChange()


def _require_covered(state: ChainState, name: str, offer: Offer, at: int) -> None:
    """Raises Untrusted if a superseding offer does not cover what is granted of a slice."""
    given, peak = state.given(name), state.profile(name).peak(at, MAX_TIME)
    if not given and not peak:
        return
    before, after = state.offer.slice(name), offer.slice(name)
    if before is None or after is None or not before.same_kind(after):
        raise broken(f"grants use slice {name}, which is missing or of another kind in the new offer")
    if given > after.amount or peak > after.nodes:
        raise overbooked(f"grants use more of slice {name} than the superseding offer has")


def _check_grant(state: ChainState, record: Grant, digest: Digest) -> GrantChange:
    _require_unanswered(state, record.request)
    if state.withdrawn:
        raise broken("the offer was withdrawn")
    if why := state.offer.allocation_error(record.allocations):
        raise broken(why)
    if record.accept_by <= record.link.at:
        raise broken("the time to accept ends before the grant")
    if any(allocation.end <= record.link.at for allocation in record.allocations):
        raise broken("an allocation ends before the grant")
    change = GrantChange(GrantState(record, digest, GRANTED, (0,) * len(record.allocations), digest))
    for wanted in record.allocations:
        _reserve(state, change, wanted)
    return change


def _reserve(state: ChainState, change: GrantChange, wanted: SliceAllocation) -> None:
    part = state.offer.slice(wanted.slice)
    assert part is not None  # checked by allocation_error
    free = state.free_nodes(part.name, wanted.start, wanted.end)
    if wanted.nodes > free:
        raise overbooked(f"slice {part.name}: {wanted.nodes} nodes, but only {free} are free at some instant")
    left = part.amount - state.given(part.name)
    if wanted.amount > left:
        raise overbooked(f"slice {part.name}: {wanted.amount} {state.offer.measure}, but only {left} are left")
    change.nodes.append((part.name, wanted.start, wanted.end, wanted.nodes))
    change.amounts[part.name] = wanted.amount


def _check_grant_record(
    state: ChainState, record: Accepted | Lapsed | Redeemed | Released, grant_state: GrantState, digest: Digest
) -> GrantChange:
    if isinstance(record, Redeemed):
        return _check_redeemed(record, grant_state, digest)
    if isinstance(record, Accepted):
        _require_state(grant_state, GRANTED)
        return GrantChange(replace(grant_state, state=ACCEPTED, newest=digest))
    if isinstance(record, Lapsed):
        _require_state(grant_state, GRANTED)
        if record.link.at <= grant_state.grant.accept_by:
            raise broken("the grant lapses before its time to accept ends")
        change = GrantChange(replace(grant_state, state=LAPSED, newest=digest))
        _free(change, grant_state, 0)
        return change
    _require_state(grant_state, ACCEPTED)
    if record.giving_back is None and any(part.end > record.link.at for part in grant_state.grant.allocations):
        raise broken("the grant is released before its end without a statement of its grantee")
    change = GrantChange(replace(grant_state, state=RELEASED, newest=digest))
    _free(change, grant_state, _next_granule(state, record.link.at))
    return change


def _check_redeemed(record: Redeemed, grant_state: GrantState, digest: Digest) -> GrantChange:
    _require_state(grant_state, ACCEPTED)
    if len(record.amounts) != len(grant_state.redeemed):
        raise broken("the redemption must name one amount for each allocation of its grant")
    if any(amount > left for amount, left in zip(record.amounts, grant_state.left, strict=True)):
        raise overbooked("the redemption exceeds the grant")
    if grant_state.grant.pact != (record.cut_off is not None):
        raise broken("a pact needs its beneficiary's cut-off, and a grant must not name one")
    used = tuple(before + now for before, now in zip(grant_state.redeemed, record.amounts, strict=True))
    return GrantChange(replace(grant_state, redeemed=used, newest=digest))


def _free(change: GrantChange, grant_state: GrantState, since: int) -> None:
    """Add to `change` that the unused rest of a grant is free, its nodes from `since` on."""
    for given, used in zip(grant_state.grant.allocations, grant_state.redeemed, strict=True):
        change.nodes.append((given.slice, max(given.start, since), given.end, -given.nodes))
        change.amounts[given.slice] = used - given.amount


def _next_granule(state: ChainState, at: int) -> int:
    begin, unit = state.offer.window.start, state.offer.granularity.seconds
    return begin + -(-(at - begin) // unit) * unit


def _require_unanswered(state: ChainState, request: Digest) -> None:
    if request in state.answers:
        raise broken("the request was already answered")


def _require_grant(state: ChainState, grant: Digest) -> GrantState:
    if grant not in state.grants:
        raise broken("the record names a grant that is not in this chain")
    return state.grants[grant]


def _require_state(grant_state: GrantState, state: str) -> None:
    if grant_state.state != state:
        raise broken(f"the grant is {grant_state.state}, not {state}")


def _answered(record: Record) -> Digest | None:
    """Line digest of the statement that a record answers; None if there is none."""
    if isinstance(record, Grant | Rejected):
        return record.request
    if isinstance(record, Accepted):
        return record.acceptance
    if isinstance(record, Redeemed):
        return record.redemption
    return record.giving_back if isinstance(record, Released) else None
