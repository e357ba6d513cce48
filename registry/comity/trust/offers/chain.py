"""Where a chain stands: its offers, its grants, and what is free of each slice.

What a record does to its chain, and whether it may.

Only an open offer grants, and a request is answered once; only what waits lapses, after its time; only what was
accepted is redeemed, a pact on its beneficiary's cut-off alone; nodes of a slice are never given out twice for one
instant, and its amount is never given out twice in all; a superseding offer has room for all that is out.

Reserved from the grant on. A lapse returns all of it; a release returns what was not redeemed, and the nodes from the
next granule on: instants that have passed were used. Source: protocol, section 9.


What the records of one chain add up to: what was given out, what is free, and whether a record may follow.

The book is kept by whoever writes the chain, before it appends a record, and by everybody who reads it afterwards: the
rules are one, so that a record that its writer refused is one that every reader convicts.

(1) a record has the next number, names the record before, and is not older
(2) what it does is allowed where the chain stands (`rules`)
(3) it says truly what is left after it


What one log says of offers, read from its beginning: chains, the statements that they answer, and their faults.

A node reads its own log so before it grants, and every log that it mirrors as entries arrive; a client reads the lines
that a node or a file gives it. All get the same from the same lines. A record that answers somebody says so by the
digest of their line, and that line stands in the same log before it: whoever has the log has all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, Refused, Untrusted
from comity.trust.offers.amounts import (
    OVERBOOKED,
    USAGE,
    DefaultAnswer,
    Profile,
    Usage,
    broken,
    forked,
    kind_of,
    overbooked,
    read_answer,
    read_usage,
    unanswered,
)
from comity.trust.offers.offer import MAX_TIME, Offer, SliceAllocation
from comity.trust.offers.records import (
    Acceptance,
    Accepted,
    ChainLink,
    CutOff,
    GivingBack,
    Grant,
    GrantRequest,
    Lapsed,
    Offered,
    Record,
    Redeemed,
    Redemption,
    Rejected,
    Released,
    Said,
    Withdrawn,
    is_record,
    is_said,
    read_record,
    read_said,
)
from comity.trust.statement import Entry, Envelope, Statement

GRANTED: Final = "granted"
ACCEPTED: Final = "accepted"
LAPSED: Final = "lapsed"
RELEASED: Final = "released"


@dataclass(frozen=True, slots=True)
class GrantState:
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


class OfferBookState:
    """What the records that were taken have left. Read by the rules (`rules`), changed by the book (`book`)."""

    def __init__(self, chain: Digest) -> None:
        self.chain = chain
        self.offers: list[Offer] = []
        """Every version, the one in force last."""
        self.grants: dict[Digest, GrantState] = {}
        """By the line digest of the grant."""
        self.open: dict[Digest, None] = {}
        """The grants that are granted or accepted, oldest first."""
        self.answers: dict[Digest, Digest] = {}
        """The record that answers a statement of the other party, both by line digest."""
        self.withdrawal: Digest | None = None
        """The record that withdraws the offer."""
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
    def remaining(self) -> tuple[int, ...]:
        """What is left of each slice of the offer in force: amounts."""
        return tuple(part.amount - self.given(part.name) for part in self.offer.slices)

    def given(self, slice_name: str) -> int:
        """How much of a slice is given out."""
        return self._given.get(slice_name, 0)

    def profile(self, slice_name: str) -> Profile:
        """How many nodes of a slice are given out at each instant."""
        return self._profiles.setdefault(slice_name, Profile())

    def free_nodes(self, slice_name: str, start: int, end: int) -> int:
        """How many nodes of a slice are free at every instant from `start` up to `end`; 0 where there is no such
        slice."""
        part = self.offer.slice(slice_name)
        return 0 if part is None else part.nodes - self.profile(slice_name).peak(start, end)

    def give(self, slice_name: str, amount: int) -> None:
        """Count what is given out; a negative amount returns."""
        self._given[slice_name] = self.given(slice_name) + amount


@dataclass(slots=True)
class GrantChange:
    """What a record does: to a grant, to nodes (slice, start, end, how many), to amounts by slice."""

    commitment: GrantState | None = None
    nodes: list[tuple[str, int, int, int]] = field(default_factory=list)
    amounts: dict[str, int] = field(default_factory=dict)


def change_by(state: OfferBookState, record: Record, digest: Digest) -> GrantChange:
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
        return GrantChange()
    if isinstance(record, Grant):
        return _granted(state, record, digest)
    if isinstance(record, Rejected):
        _require_unanswered(state, record.request)
        return GrantChange()
    return _about(state, record, _commitment(state, record.grant), digest)


def _offered(state: OfferBookState, record: Offered) -> GrantChange:
    offer = record.offer
    if not state.offers:
        if offer.id != state.chain or offer.supersedes is not None:
            raise broken("a chain begins with the offer that names it, which supersedes nothing")
        return GrantChange()
    kept = (offer.supersedes, offer.provider, offer.log, offer.measure)
    if kept != (state.offer.id, state.offer.provider, state.offer.log, state.offer.measure):
        raise broken("it does not supersede the offer in force, by the same provider, log and measure")
    if state.withdrawn:
        raise broken("the offer was withdrawn")
    for part in state.offer.slices:
        _require_kept(state, part.name, offer, record.link.at)
    return GrantChange()


def _require_kept(state: OfferBookState, name: str, offer: Offer, at: int) -> None:
    """That what was given out of a slice has its place in a superseding offer."""
    given, peak = state.given(name), state.profile(name).peak(at, MAX_TIME)
    if not given and not peak:
        return
    before, after = state.offer.slice(name), offer.slice(name)
    if before is None or after is None or not before.same_kind(after):
        raise broken(f"grants hold slice {name}, which is gone or of another kind")
    if given > after.amount or peak > after.nodes:
        raise overbooked(f"grants hold more of slice {name} than the superseding offer has")


def _granted(state: OfferBookState, record: Grant, digest: Digest) -> GrantChange:
    _require_unanswered(state, record.request)
    if state.withdrawn:
        raise broken("the offer was withdrawn")
    if why := state.offer.objection(record.allocations):
        raise broken(why)
    if record.accept_by <= record.link.at:
        raise broken("there is no time to accept it")
    if any(allocation.end <= record.link.at for allocation in record.allocations):
        raise broken("it is over before it is granted")
    change = GrantChange(GrantState(record, digest, GRANTED, (0,) * len(record.allocations), digest))
    for wanted in record.allocations:
        _reserve(state, change, wanted)
    return change


def _reserve(state: OfferBookState, change: GrantChange, wanted: SliceAllocation) -> None:
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


def _about(
    state: OfferBookState, record: Accepted | Lapsed | Redeemed | Released, held: GrantState, digest: Digest
) -> GrantChange:
    if isinstance(record, Redeemed):
        return _redeemed(state, record, held, digest)
    if isinstance(record, Accepted):
        _require_state(held, GRANTED)
        return GrantChange(replace(held, state=ACCEPTED, newest=digest))
    if isinstance(record, Lapsed):
        _require_state(held, GRANTED)
        if record.link.at <= held.grant.accept_by:
            raise broken("a grant lapses before its time")
        change = GrantChange(replace(held, state=LAPSED, newest=digest))
        _return(state, change, held, 0)
        return change
    _require_state(held, ACCEPTED)
    if record.giving_back is None and any(part.end > record.link.at for part in held.grant.allocations):
        raise broken("a grant is taken back before its end, and its grantee did not say so")
    change = GrantChange(replace(held, state=RELEASED, newest=digest))
    _return(state, change, held, _next_granule(state, record.link.at))
    return change


def _redeemed(state: OfferBookState, record: Redeemed, held: GrantState, digest: Digest) -> GrantChange:
    _require_state(held, ACCEPTED)
    if len(record.amounts) != len(held.redeemed):
        raise broken("a redemption names as many amounts as its grant has allocations")
    if any(amount > left for amount, left in zip(record.amounts, held.left, strict=True)):
        raise overbooked("more is redeemed than was granted")
    if held.grant.pact != (record.cut_off is not None):
        raise broken("a pact, and only a pact, is redeemed on its beneficiary's cut-off")
    used = tuple(before + now for before, now in zip(held.redeemed, record.amounts, strict=True))
    return GrantChange(replace(held, redeemed=used, newest=digest))


def _return(state: OfferBookState, change: GrantChange, held: GrantState, since: int) -> None:
    for given, used in zip(held.grant.allocations, held.redeemed, strict=True):
        change.nodes.append((given.slice, max(given.start, since), given.end, -given.nodes))
        change.amounts[given.slice] = used - given.amount


def _next_granule(state: OfferBookState, at: int) -> int:
    begin, unit = state.offer.window.start, state.offer.granularity.seconds
    return begin + -(-(at - begin) // unit) * unit


def _require_unanswered(state: OfferBookState, request: Digest) -> None:
    if request in state.answers:
        raise broken("the request was answered before")


def _commitment(state: OfferBookState, grant: Digest) -> GrantState:
    if grant not in state.grants:
        raise broken("it is about no grant of this chain")
    return state.grants[grant]


def _require_state(held: GrantState, state: str) -> None:
    if held.state != state:
        raise broken(f"the grant is {held.state}, not {state}")


MAX_GRANTING: Final = 4096
"""Records of a chain beyond which its writer grants no more: the whole chain is the proof against who overbooks."""

_R = TypeVar("_R", bound=Record)


class ChainState(OfferBookState):
    """The book of one chain. Not thread-safe; of every method that raises, nothing stays."""

    def __init__(self, chain: Digest) -> None:
        super().__init__(chain)
        self.last: Digest | None = None
        self.at = 0
        self._seen: list[tuple[Digest, Digest]] = []
        """Digest of the line and of the payload of each record, by its number."""
        self._numbers: dict[Digest, int] = {}

    @property
    def seq(self) -> int:
        """The number of the newest record; -1 before the first."""
        return len(self._seen) - 1

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
        link = ChainLink(self.chain, self.seq + 1, self.last, at, ())
        try:
            change = change_by(self, replace(record, link=link), Digest(""))
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
            raise broken("a record of another chain")
        if link.seq <= self.seq:
            if self._seen[link.seq][0] == digest or self._seen[link.seq][1] == payload:
                return False
            raise forked(f"there are two records number {link.seq}")
        if (link.seq, link.prev) != (self.seq + 1, self.last):  # (1)
            raise broken(f"number {link.seq} does not follow the record before it, number {self.seq}")
        if link.at < self.at:
            raise broken(f"number {link.seq} is older than the record before it")
        change = change_by(self, record, digest)  # (2)
        if link.remaining != self._left(record, change):  # (3)
            raise broken(f"number {link.seq} says wrongly what is left")
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

    def _left(self, record: Record, change: GrantChange) -> tuple[int, ...]:
        offer = record.offer if isinstance(record, Offered) else self.offer
        return tuple(part.amount - self.given(part.name) - change.amounts.get(part.name, 0) for part in offer.slices)

    def _keep(self, record: Record, change: GrantChange, digest: Digest) -> None:
        if isinstance(record, Offered):
            self.offers.append(record.offer)
        elif isinstance(record, Withdrawn):
            self.withdrawal = digest
        elif (answered := _answered(record)) is not None:
            self.answers[answered] = digest
        if (held := change.commitment) is not None:
            self.grants[held.digest] = held
            self.open[held.digest] = None
            if held.state not in (GRANTED, ACCEPTED):
                del self.open[held.digest]
        for name, start, end, nodes in change.nodes:
            self.profile(name).add(start, end, nodes)
        for name, amount in change.amounts.items():
            self.give(name, amount)


def _answered(record: Record) -> Digest | None:
    """The line digest of the other party's statement that a record answers; None where there is none."""
    if isinstance(record, Grant | Rejected):
        return record.request
    if isinstance(record, Accepted):
        return record.acceptance
    if isinstance(record, Redeemed):
        return record.redemption
    return record.giving_back if isinstance(record, Released) else None


PREDICATES: Final = (
    "offer",
    "offer-withdrawn",
    "request",
    "grant",
    "pact",
    "rejected",
    "accepted",
    "lapsed",
    "released",
    "redeemed",
    "usage",
    "defaulted",
    "cut-off",
)
"""All that is said of offers, by either side."""


@dataclass(frozen=True, slots=True)
class ChainFault:
    """Where a chain breaks the rules, for good: at log entry `index`. What follows is not counted."""

    kind: str
    index: int
    line: Digest
    why: str


@dataclass(frozen=True, slots=True)
class PartyStatement:
    """A statement of either side that is no record, and where it stands. `proven`: it is known to be its author's; who
    has changed keys says things that cannot be judged before that is known."""

    index: int
    line: Digest
    said: Said | Usage | DefaultAnswer
    proven: bool = True


@dataclass(slots=True)
class OfferChain:
    """A chain as a log has it.

    Attributes:
        indexes: log entries of its records, by number.
        offered: those of its offers, by version.
        stated: what was said beside it.
        fault: how it breaks the rules, for good.
        doubtful: a node that is not known to write this log goes on with it. Its provider may have new keys: nothing
            further is counted, and nobody accused, before that is known and the log read again.
    """

    book: ChainState
    indexes: list[int] = field(default_factory=list)
    offered: list[int] = field(default_factory=list)
    stated: list[PartyStatement] = field(default_factory=list)
    fault: ChainFault | None = None
    doubtful: bool = False


class OfferLogReader:
    """What one log, named by its verifier key, says of offers. `read` its entries in order. Not thread-safe."""

    def __init__(self, log: str) -> None:
        self._log = log
        self._names: dict[Digest, Digest] = {}
        """The chain that an offer, of any version, belongs to."""
        self._granting: dict[Digest, OfferChain] = {}
        """The chain that each grant belongs to."""
        self.chains: dict[Digest, OfferChain] = {}
        """By the id of their first offer."""
        self.said: dict[Digest, PartyStatement] = {}
        """Statements of identities, about offers of any log, by line digest."""

    def read(self, index: int, entry: Entry, genuine: bool | None) -> OfferChain | None:
        """Take entry `index` in; the chain of this log that it has changed. What is no offer's business, or malformed,
        or forged, is passed over.

        Args:
            genuine: whether the entry is signed by the node that writes this log, where a node speaks, or by the
                identity that it names; None where that cannot be known here, since keys change.
        """
        if genuine is False or entry.statement.predicate not in PREDICATES:
            return None
        try:
            said = read_any(entry.statement)
        except Malformed:
            return None
        if isinstance(said, Said):
            return self._party(index, entry, said, genuine is True)
        if isinstance(said, Usage | DefaultAnswer):
            return self._beside(index, entry, said) if genuine else None
        return self._record(index, entry, said) if genuine else self._doubt(said)

    def chain_of(self, offer: Digest) -> OfferChain | None:
        """The chain that an offer of this log, of any version, belongs to."""
        return self.chains.get(self._names.get(offer, offer))

    def chain_granting(self, grant: Digest) -> OfferChain | None:
        """The chain of this log that a grant (line digest) belongs to."""
        return self._granting.get(grant)

    def _record(self, index: int, entry: Entry, record: Record) -> OfferChain | None:
        chain = self.chains.get(record.link.chain)
        if chain is None:
            if not isinstance(record, Offered) or record.offer.log != self._log or record.offer.id != record.link.chain:
                return None
            chain = OfferChain(ChainState(record.link.chain))
        if chain.fault is not None or chain.doubtful:
            return None
        try:
            if record.link.seq > chain.book.seq:
                self._require_answered(chain.book, record)
            if chain.book.take(record, entry.envelope, entry.line):
                chain.indexes.append(index)
        except Untrusted as error:
            if not chain.indexes:
                return None  # it did not begin: nobody was promised anything
            chain.fault = ChainFault(kind_of(error), index, entry.digest, error.why)
        self.chains[record.link.chain] = chain
        if isinstance(record, Grant) and entry.digest in chain.book.grants:
            self._granting[entry.digest] = chain
        if isinstance(record, Offered) and chain.fault is None and record.offer.id not in self._names:
            self._names[record.offer.id] = record.link.chain
            chain.offered.append(index)
        return chain

    def _doubt(self, record: Record) -> OfferChain | None:
        """The chain that somebody unknown goes on with."""
        chain = self.chains.get(record.link.chain)
        if chain is None or chain.fault is not None or record.link.seq <= chain.book.seq:
            return None
        chain.doubtful = True
        return chain

    def _party(self, index: int, entry: Entry, said: Said, proven: bool) -> OfferChain | None:
        if entry.digest in self.said:
            return None
        stated = PartyStatement(index, entry.digest, said, proven)
        self.said[entry.digest] = stated
        chain = self.chain_of(said.offer if isinstance(said, GrantRequest) else said.chain)
        if chain is not None:
            chain.stated.append(stated)
        return chain

    def _beside(self, index: int, entry: Entry, said: Usage | DefaultAnswer) -> OfferChain | None:
        chain = self.chain_of(said.chain)
        held = chain.book.grants.get(said.grant) if chain else None
        if chain is None or held is None:
            return None
        if isinstance(said, Usage) and len(said.amounts) != len(held.grant.allocations):
            return None
        chain.stated.append(PartyStatement(index, entry.digest, said))
        return chain

    def _require_answered(self, book: ChainState, record: Record) -> None:
        """Raises Untrusted where the record answers what nobody said. An answer about no grant is the book's matter."""
        if isinstance(record, Grant | Rejected):
            said = self._heard(record.request)
            meant = isinstance(said, GrantRequest) and said.offer in {offer.id for offer in book.offers}
            if meant and isinstance(record, Grant) and isinstance(said, GrantRequest):
                meant = (said.by, said.pact, said.offer) == (record.grantee, record.pact, book.offer.id)
            _require(meant, "the request that it answers")
        elif isinstance(record, Accepted | Redeemed | Released) and (held := book.grants.get(record.grant)):
            self._require_grantee(held, record)

    def _require_grantee(self, held: GrantState, record: Accepted | Redeemed | Released) -> None:
        mine = (held.grant.grantee, held.grant.link.chain, held.digest)
        if isinstance(record, Accepted):
            said = self._heard(record.acceptance)
            _require(isinstance(said, Acceptance) and (said.by, said.chain, said.grant) == mine, "the acceptance")
        elif isinstance(record, Released):
            if record.giving_back is not None:
                said = self._heard(record.giving_back)
                meant = isinstance(said, GivingBack) and (said.by, said.chain, said.grant) == mine
                _require(meant, "the grantee's word that it gives back")
        else:
            said = self._heard(record.redemption)
            meant = isinstance(said, Redemption) and (said.by, said.chain, said.grant) == mine
            if meant and isinstance(said, Redemption):
                meant = (said.amounts, said.after) == (record.amounts, held.newest)
            _require(meant, "the holder's word that it redeems so much, after the record before")
            self._require_cut_off(record, mine)

    def _require_cut_off(self, record: Redeemed, mine: tuple[Digest, Digest, Digest]) -> None:
        if record.cut_off is not None:
            said = self._heard(record.cut_off)
            meant = isinstance(said, CutOff) and (said.by, said.chain, said.grant) == mine and not said.drill
            _require(meant, "the beneficiary's own cut-off")

    def _heard(self, line: Digest) -> Said | Usage | DefaultAnswer | None:
        stated = self.said.get(line)
        return None if stated is None else stated.said


def read_any(statement: Statement) -> Record | Said | Usage | DefaultAnswer:
    """What a statement of either side says of an offer; nothing is proven. Raises Malformed."""
    if is_said(statement):
        return read_said(statement)
    if is_record(statement):
        return read_record(statement)
    return read_usage(statement) if statement.predicate == USAGE else read_answer(statement)


def _require(meant: bool, what: str) -> None:
    if not meant:
        raise unanswered(f"{what} does not stand before it in this log")
