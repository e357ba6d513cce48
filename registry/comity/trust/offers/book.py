"""What the records of one chain add up to: what was given out, what is free, and whether a record may follow.

The book is kept by whoever writes the chain, before it appends a record, and by everybody who reads it afterwards: the
rules are one, so that a record that its writer refused is one that every reader convicts.

(1) a record has the next number, names the record before, and is not older
(2) what it does is allowed where the chain stands: only an open offer grants, only what waits lapses, …
(3) nodes of a slice are never given out twice for one instant, and its amount is never given out twice in all
(4) it says truly what is left after it

Reserved from the grant on. A lapse returns all of it; a release returns what was not redeemed, and the nodes from the
next granule on: instants that have passed were used. Source: protocol, section 9.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from comity.trust.digest import Digest, sha256
from comity.trust.dsse import Envelope
from comity.trust.errors import ComityError, Refused, Untrusted
from comity.trust.offers.capacity import MAX_TIME, Allocation
from comity.trust.offers.offer import Offer
from comity.trust.offers.profile import Profile
from comity.trust.offers.records import (
    Accepted,
    Grant,
    Lapsed,
    Link,
    Offered,
    Record,
    Redeemed,
    Rejected,
    Released,
    Withdrawn,
)

OVERBOOKED: Final = "overbooked"
"""More was given out than there is."""
FORKED: Final = "forked"
"""Two records have one number."""
BROKEN: Final = "broken"
"""A record that may not stand where it stands, or says wrongly what is left."""

GRANTED: Final = "granted"
ACCEPTED: Final = "accepted"
LAPSED: Final = "lapsed"
RELEASED: Final = "released"

MAX_GRANTING: Final = 4096
"""Records of a chain beyond which its writer grants no more: the whole chain is the proof against who overbooks."""

_AT_FAULT: Final = "the chain of an offer is at fault"
_KINDS: Final = {"OFFER-OVERBOOKED": OVERBOOKED, "OFFER-FORKED": FORKED, "OFFER-BROKEN": BROKEN}
_R = TypeVar("_R", bound=Record)


@dataclass(frozen=True, slots=True)
class Commitment:
    """A grant, as its chain leaves it.

    Attributes:
        digest: of the line that grants; the grant's name.
        state: granted, accepted, lapsed or released.
        redeemed: of each allocation, in their order.
        newest: line digest of the newest record about it: the challenge of the next redemption.
    """

    grant: Grant
    digest: Digest
    state: str
    redeemed: tuple[int, ...]
    newest: Digest

    @property
    def left(self) -> tuple[int, ...]:
        """What may still be redeemed of each allocation, once it is accepted."""
        if self.state in (LAPSED, RELEASED):
            return (0,) * len(self.redeemed)
        pairs = zip(self.grant.allocations, self.redeemed, strict=True)
        return tuple(allocation.amount - used for allocation, used in pairs)


@dataclass(slots=True)
class _Change:
    """What a record does to a book."""

    commitment: Commitment | None = None
    nodes: list[tuple[str, int, int, int]] = field(default_factory=list)
    amounts: dict[str, int] = field(default_factory=dict)


class Book:
    """The book of one chain. Not thread-safe; of every method that raises, nothing stays."""

    def __init__(self, chain: Digest) -> None:
        self.chain = chain
        self.offers: list[Offer] = []
        """Every version, the one in force last."""
        self.grants: dict[Digest, Commitment] = {}
        """By the line digest of the grant."""
        self.open: dict[Digest, None] = {}
        """The grants that are granted or accepted, oldest first."""
        self.answers: dict[Digest, Digest] = {}
        """The record that answers a statement of the other party, both by line digest."""
        self.withdrawal: Digest | None = None
        """The record that withdraws the offer."""
        self.last: Digest | None = None
        self.at = 0
        self._seen: list[tuple[Digest, Digest]] = []
        """Digest of the line and of the payload of each record, by its number."""
        self._numbers: dict[Digest, int] = {}
        self._profiles: dict[str, Profile] = {}
        self._given: dict[str, int] = {}

    @property
    def offer(self) -> Offer:
        """The version in force. There is one once a record was taken."""
        return self.offers[-1]

    @property
    def withdrawn(self) -> bool:
        return self.withdrawal is not None

    @property
    def seq(self) -> int:
        """The number of the newest record; -1 before the first."""
        return len(self._seen) - 1

    @property
    def remaining(self) -> tuple[int, ...]:
        """What is left of each slice of the offer in force: amounts."""
        return tuple(part.amount - self._given.get(part.name, 0) for part in self.offer.slices)

    def free_nodes(self, slice_name: str, start: int, end: int) -> int:
        """How many nodes of a slice are free at every instant from `start` up to `end`; 0 where there is no such
        slice."""
        part = self.offer.slice(slice_name)
        return 0 if part is None else part.nodes - self._profile(slice_name).peak(start, end)

    def number(self, record: Digest) -> int:
        """The number of a record that was taken, by its line digest. Raises KeyError."""
        return self._numbers[record]

    def next(self, record: _R, at: int) -> _R:
        """The same record, linked so that it is the next one.

        Args:
            at: now, POSIX seconds; where the newest record is later, that time is taken.

        Raises Refused (OFFER-CAPACITY, OFFER-STATE, OFFER-FULL) where it may not follow.
        """
        self._require_room(record)
        at = max(at, self.at)
        link = Link(self.chain, self.seq + 1, self.last, at, ())
        try:
            change = self._change(replace(record, link=link), None)
        except Untrusted as error:
            raise Refused(
                "the offer's chain does not allow this",
                why=error.why,
                code="OFFER-CAPACITY" if kind_of(error) == OVERBOOKED else "OFFER-STATE",
            ) from error
        return replace(record, link=replace(link, remaining=self._left(record, change)))

    def take(self, record: Record, envelope: Envelope, line: bytes) -> bool:
        """Take the next record in; False for a copy of one that was taken.

        Raises Untrusted (OFFER-FORKED, OFFER-OVERBOOKED, OFFER-BROKEN).
        """
        digest, payload = sha256(line), sha256(envelope.payload)
        link = record.link
        if link.chain != self.chain:
            raise _broken("a record of another chain")
        if link.seq <= self.seq:
            if self._seen[link.seq][0] == digest or self._seen[link.seq][1] == payload:
                return False
            raise _forked(f"there are two records number {link.seq}")
        if (link.seq, link.prev) != (self.seq + 1, self.last):  # (1)
            raise _broken(f"number {link.seq} does not follow the record before it, number {self.seq}")
        if link.at < self.at:
            raise _broken(f"number {link.seq} is older than the record before it")
        change = self._change(record, digest)  # (2) (3)
        if link.remaining != self._left(record, change):  # (4)
            raise _broken(f"number {link.seq} says wrongly what is left")
        self._keep(record, change, digest)
        self._numbers[digest] = link.seq
        self._seen.append((digest, payload))
        self.last, self.at = digest, link.at
        return True

    def _require_room(self, record: Record) -> None:
        if self.seq + 1 >= MAX_GRANTING and isinstance(record, Grant | Offered | Rejected):
            raise Refused(
                "this offer's chain is full",
                why=f"it has {self.seq + 1} records",
                hint="withdraw the offer and post what is left as a new one",
                code="OFFER-FULL",
            )

    def _left(self, record: Record, change: _Change) -> tuple[int, ...]:
        offer = record.offer if isinstance(record, Offered) else self.offer
        return tuple(
            part.amount - self._given.get(part.name, 0) - change.amounts.get(part.name, 0) for part in offer.slices
        )

    def _keep(self, record: Record, change: _Change, digest: Digest) -> None:
        if isinstance(record, Offered):
            self.offers.append(record.offer)
        elif isinstance(record, Withdrawn):
            self.withdrawal = digest
        elif (answered := answers_what(record)) is not None:
            self.answers[answered] = digest
        if (held := change.commitment) is not None:
            self.grants[held.digest] = held
            self.open[held.digest] = None
            if held.state not in (GRANTED, ACCEPTED):
                del self.open[held.digest]
        for name, start, end, nodes in change.nodes:
            self._profile(name).add(start, end, nodes)
        for name, amount in change.amounts.items():
            self._given[name] = self._given.get(name, 0) + amount

    def _change(self, record: Record, digest: Digest | None) -> _Change:
        """What a record would do. Raises Untrusted where it may not."""
        digest = digest or Digest("")
        if isinstance(record, Offered):
            return self._offered(record)
        if not self.offers:
            raise _broken("the chain does not begin with its offer")
        if isinstance(record, Withdrawn):
            if self.withdrawn:
                raise _broken("the offer was withdrawn before")
            return _Change()
        if isinstance(record, Grant):
            return self._granted(record, digest)
        if isinstance(record, Rejected):
            self._require_unanswered(record.request)
            return _Change()
        return self._about(record, self._commitment(record.grant), digest)

    def _offered(self, record: Offered) -> _Change:
        offer = record.offer
        if not self.offers:
            if offer.id != self.chain or offer.supersedes is not None:
                raise _broken("a chain begins with the offer that names it, which supersedes nothing")
            return _Change()
        kept = (offer.supersedes, offer.provider, offer.log, offer.measure)
        if kept != (self.offer.id, self.offer.provider, self.offer.log, self.offer.measure):
            raise _broken("it does not supersede the offer in force, by the same provider, log and measure")
        if self.withdrawn:
            raise _broken("the offer was withdrawn")
        for part in self.offer.slices:
            self._require_kept(part.name, offer, record.link.at)
        return _Change()

    def _require_kept(self, name: str, offer: Offer, at: int) -> None:
        """That what was given out of a slice has its place in a superseding offer."""
        given, peak = self._given.get(name, 0), self._profile(name).peak(at, MAX_TIME)
        if not given and not peak:
            return
        before, after = self.offer.slice(name), offer.slice(name)
        if before is None or after is None or not before.same_kind(after):
            raise _broken(f"grants hold slice {name}, which is gone or of another kind")
        if given > after.amount or peak > after.nodes:
            raise _overbooked(f"grants hold more of slice {name} than the superseding offer has")

    def _granted(self, record: Grant, digest: Digest) -> _Change:
        self._require_unanswered(record.request)
        if self.withdrawn:
            raise _broken("the offer was withdrawn")
        if why := self.offer.objection(record.allocations):
            raise _broken(why)
        if record.accept_by <= record.link.at:
            raise _broken("there is no time to accept it")
        if any(allocation.end <= record.link.at for allocation in record.allocations):
            raise _broken("it is over before it is granted")
        change = _Change(Commitment(record, digest, GRANTED, (0,) * len(record.allocations), digest))
        for wanted in record.allocations:
            self._reserve(change, wanted)
        return change

    def _reserve(self, change: _Change, wanted: Allocation) -> None:
        part = self.offer.slice(wanted.slice)
        assert part is not None  # the offer had no objection
        free = self.free_nodes(part.name, wanted.start, wanted.end)
        if wanted.nodes > free:
            raise _overbooked(f"slice {part.name}: {wanted.nodes} nodes, and at some instant {free} are free")
        left = part.amount - self._given.get(part.name, 0)
        if wanted.amount > left:
            raise _overbooked(f"slice {part.name}: {wanted.amount} {self.offer.measure}, and {left} are left")
        change.nodes.append((part.name, wanted.start, wanted.end, wanted.nodes))
        change.amounts[part.name] = wanted.amount

    def _about(self, record: Accepted | Lapsed | Redeemed | Released, held: Commitment, digest: Digest) -> _Change:
        if isinstance(record, Redeemed):
            return self._redeemed(record, held, digest)
        if isinstance(record, Accepted):
            _require_state(held, GRANTED)
            return _Change(replace(held, state=ACCEPTED, newest=digest))
        if isinstance(record, Lapsed):
            _require_state(held, GRANTED)
            if record.link.at <= held.grant.accept_by:
                raise _broken("a grant lapses before its time")
            change = _Change(replace(held, state=LAPSED, newest=digest))
            self._return(change, held, 0)
            return change
        _require_state(held, ACCEPTED)
        if record.giving_back is None and any(part.end > record.link.at for part in held.grant.allocations):
            raise _broken("a grant is taken back before its end, and its grantee did not say so")
        change = _Change(replace(held, state=RELEASED, newest=digest))
        self._return(change, held, self._next_granule(record.link.at))
        return change

    def _redeemed(self, record: Redeemed, held: Commitment, digest: Digest) -> _Change:
        _require_state(held, ACCEPTED)
        if len(record.amounts) != len(held.redeemed):
            raise _broken("a redemption names as many amounts as its grant has allocations")
        if any(amount > left for amount, left in zip(record.amounts, held.left, strict=True)):
            raise _overbooked("more is redeemed than was granted")
        if held.grant.pact != (record.cut_off is not None):
            raise _broken("a pact, and only a pact, is redeemed on its beneficiary's cut-off")
        used = tuple(before + now for before, now in zip(held.redeemed, record.amounts, strict=True))
        return _Change(replace(held, redeemed=used, newest=digest))

    def _return(self, change: _Change, held: Commitment, since: int) -> None:
        for given, used in zip(held.grant.allocations, held.redeemed, strict=True):
            change.nodes.append((given.slice, max(given.start, since), given.end, -given.nodes))
            change.amounts[given.slice] = used - given.amount

    def _next_granule(self, at: int) -> int:
        begin, unit = self.offer.window.start, self.offer.granularity.seconds
        return begin + -(-(at - begin) // unit) * unit

    def _require_unanswered(self, request: Digest) -> None:
        if request in self.answers:
            raise _broken("the request was answered before")

    def _commitment(self, grant: Digest) -> Commitment:
        if grant not in self.grants:
            raise _broken("it is about no grant of this chain")
        return self.grants[grant]

    def _profile(self, name: str) -> Profile:
        return self._profiles.setdefault(name, Profile())


def answers_what(record: Record) -> Digest | None:
    """The line digest of the other party's statement that a record answers; None where there is none."""
    if isinstance(record, Grant | Rejected):
        return record.request
    if isinstance(record, Accepted):
        return record.acceptance
    if isinstance(record, Redeemed):
        return record.redemption
    return record.giving_back if isinstance(record, Released) else None


def kind_of(error: ComityError) -> str:
    """Which kind of fault `Book.take` has raised; empty for any other error."""
    return _KINDS.get(error.code, "")


def _require_state(held: Commitment, state: str) -> None:
    if held.state != state:
        raise _broken(f"the grant is {held.state}, not {state}")


def _overbooked(why: str) -> Untrusted:
    return Untrusted(_AT_FAULT, why=why, code="OFFER-OVERBOOKED")


def _forked(why: str) -> Untrusted:
    return Untrusted(_AT_FAULT, why=why, code="OFFER-FORKED")


def _broken(why: str) -> Untrusted:
    return Untrusted(_AT_FAULT, why=why, code="OFFER-BROKEN")
