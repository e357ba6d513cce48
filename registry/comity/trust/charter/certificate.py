"""A pile of signed lines, sorted by what each is about. Nothing here is proven; what says nothing is set aside.

What counts among the lines about one body: who may speak, and who validly said what about its successor.

The evidence room of a succession, shared by certificates and by the council. Each line is verified once, and only if
something depends on it. Whatever does not verify counts for nothing; nothing un-counts what does (7.3).


The certificate of an epoch: what makes a body the successor of another, for ever, by its own bytes.

A certificate is lines: q RATIFYs of one (round, body) by members of the body before, q of the new body's own members,
the consent of every new key, one intent-certificate for that (round, body) and for each (unlock, body) named in it,
the inceptions of identities that are new, and the rotations on which any of this rests. Lines beyond that count for
nothing and spoil nothing.

Each side counts by its own rule: RATIFYs by the quorum of the body before, under its policy and among its active
members, which is what those members agreed to be changed by; acceptance by the quorum of the new body, under the new
policy and among its active members, so that nobody raises a quorum that the new set cannot muster.
Source: protocol, section 7.3.


Epoch 0: unanimous. Every member agrees to exactly this body, and is who it says. A refounding is a genesis too.

Source: protocol, section 7.3.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from comity.trust.charter.document import Body, Member, called, check_new_seat, check_succession
from comity.trust.charter.votes import (
    ADOPTED,
    CONSENTED,
    DRAFT,
    INTENT,
    LEFT,
    RATIFIED,
    Intent,
    NamedBody,
    Ratify,
    Reading,
    read_named,
    read_reading,
    void,
)
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.identity import Inception, KeySet, Signed, check_inception
from comity.trust.rotation import KeyState, RotationChain, follow
from comity.trust.statement import Entry, Envelope, parse_entry


@dataclass(slots=True)
class StatementSet:
    """Lines by the body that they would change (`prev`), and by the identity that speaks."""

    readings: dict[Digest, dict[Reading, list[Entry]]] = field(default_factory=dict)
    named: dict[Digest | None, list[tuple[NamedBody, Entry]]] = field(default_factory=dict)
    inceptions: dict[Digest, list[Entry]] = field(default_factory=dict)
    rotated: dict[Digest, list[Entry]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, lines: Iterable[bytes]) -> StatementSet:
        """Sort lines, of which those that are no statements count for nothing."""
        entries, notes = list[Entry](), list[str]()
        for line in lines:
            try:
                entries.append(parse_entry(line))
            except ComityError as error:
                notes.append(_useless(line, error))
        pile = cls.sort(entries)
        pile.notes += notes
        return pile

    @classmethod
    def sort(cls, entries: Iterable[Entry]) -> StatementSet:
        """Sort `entries`, in whatever order and however often they come. Never fails; malformed lines become notes."""
        pile = cls()
        for line, entry in sorted({entry.line: entry for entry in entries}.items()):
            try:
                pile._put(entry)
            except ComityError as error:
                pile.notes.append(_useless(line, error))
        return pile

    def _put(self, entry: Entry) -> None:
        predicate, by = entry.statement.predicate, entry.statement.by
        if predicate in (INTENT, RATIFIED):
            reading = read_reading(entry)
            self.readings.setdefault(reading.prev, {}).setdefault(reading, []).append(entry)
        elif predicate in (DRAFT, CONSENTED, LEFT, ADOPTED):
            named = read_named(entry)
            self.named.setdefault(named.prev, []).append((named, entry))
        elif predicate == "inception" and by is not None:
            self.inceptions.setdefault(by.id, []).append(entry)
        elif predicate == "rotated" and by is not None:
            self.rotated.setdefault(by.id, []).append(entry)


def _useless(line: bytes, error: ComityError) -> str:
    return f"a line of {len(line)} bytes counts for nothing: {error}"


Ways: TypeAlias = Mapping[KeyState, tuple[Entry, ...]]

MAX_ROTATIONS_COUNTED: Final = 32
"""How many rotations of one identity may lie between a body and what counts about its successor."""


@dataclass(slots=True)
class ValidVotes:
    """The lines of `pile` that count about the successor of `previous`.

    `heard` are all readings that active members of `previous` signed, each with the line that proves it.
    """

    previous: Body
    pile: StatementSet
    signed: Signed = KeySet.signed
    digest: Digest = field(init=False)
    quorum: int = field(init=False)
    voters: frozenset[Digest] = field(init=False)
    heard: Mapping[Reading, Entry] = field(init=False)
    _about: dict[Digest, list[Reading]] = field(init=False, default_factory=dict)
    _intents: dict[Digest, Mapping[int, Mapping[Digest, Intent]]] = field(init=False, default_factory=dict)
    _chains: dict[Digest, RotationChain] = field(init=False, default_factory=dict)
    _ways: dict[Digest, Ways] = field(init=False, default_factory=dict)
    _inceptions: dict[Digest, tuple[Inception, Entry] | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.digest = self.previous.digest
        self.quorum = self.previous.quorum
        self.voters = frozenset(seat.id for seat in self.previous.active)
        for seat in self.previous.members:
            self._follow(seat.key_state)
        self.heard = self._hear()
        for reading in self.heard:
            self._about.setdefault(reading.body, []).append(reading)

    def chain(self, identity: Digest) -> RotationChain | None:
        """The rotations of a member, or of somebody whose inception is here."""
        if identity not in self._chains and (inception := self.inception(identity)) is not None:
            self._follow(KeyState.of_inception(inception[0]))
        return self._chains.get(identity)

    def ways(self, identity: Digest) -> Ways:
        """The states by whose keys an identity speaks here, and the rotations that lead to each."""
        return self._ways[identity] if self.chain(identity) is not None else {}

    def inception(self, identity: Digest) -> tuple[Inception, Entry] | None:
        """The proven record of an identity, and the line that proves it."""
        if identity not in self._inceptions:
            self._inceptions[identity] = next(
                (
                    (record, entry)
                    for entry in self.pile.inceptions.get(identity, ())
                    if (record := self._record(entry))
                ),
                None,
            )
        return self._inceptions[identity]

    def ratified(self, body: Digest) -> Mapping[int, Mapping[Digest, Entry]]:
        """RATIFYs for `body`: by round, then member."""
        rounds: dict[int, dict[Digest, Entry]] = {}
        for reading in self._about.get(body, ()):
            if isinstance(reading, Ratify):
                rounds.setdefault(reading.round, {})[reading.member] = self.heard[reading]
        return rounds

    def intents(self, body: Digest) -> Mapping[int, Mapping[Digest, Intent]]:
        """INTENTs for `body` that count: not void on their face, and the certificate that they name is here.

        By round, then member; of a member that signed several in one round, the one that names the earliest.
        """
        if body not in self._intents:
            self._intents[body] = self._counting(body)
        return self._intents[body]

    def certified(self, body: Digest) -> Mapping[int, Mapping[Digest, Intent]]:
        """The intent-certificates for `body` that are at hand: INTENTs by round, where a quorum signed them."""
        rounds = self.intents(body)
        return {at: members for at, members in rounds.items() if _intents_are_a_quorum(self.quorum, members)}

    def consents(self, body: Body) -> dict[Digest, Entry]:
        """The `consented` to exactly `body` of those who have no vote in `previous`.

        Who has no seat there consents with all its keys; an observer that gets a vote, with its threshold.
        """
        seats = {seat.id: seat for seat in body.members}
        given: dict[Digest, Entry] = {}
        digest = body.digest
        for named, entry in self.pile.named.get(self.digest, ()):
            seat = seats.get(named.by)
            if seat is None or seat.id in given or seat.id in self.voters:
                continue
            about = (named.predicate, named.federation, named.body) == (CONSENTED, body.federation, digest)
            if about and self._consented(seat, entry):
                given[seat.id] = entry
        return given

    def speaks(self, identity: Digest, envelope: Envelope) -> bool:
        """7.3: whether keys of its seat in `previous`, or reached from them by rotations that are here, signed it."""
        return any(self.signed(state.keys, envelope) for state in self._ways.get(identity, ()))

    def _hear(self) -> dict[Reading, Entry]:
        heard: dict[Reading, Entry] = {}
        for reading, entries in self.pile.readings.get(self.digest, {}).items():
            if _is_of_a_voter(reading, self.voters, self.previous):
                said = (entry for entry in entries if self.speaks(reading.member, entry.envelope))
                if (entry := next(said, None)) is not None:
                    heard[reading] = entry
        return heard

    def _counting(self, body: Digest) -> dict[int, dict[Digest, Intent]]:
        rounds: dict[int, dict[Digest, Intent]] = {}
        certified: set[int] = set()
        intents = [reading for reading in self._about.get(body, ()) if isinstance(reading, Intent)]
        for intent in sorted(intents, key=lambda intent: (intent.round, intent.unlock or 0)):
            if void(intent) is None and _unlock_is_certified(intent, certified):
                members = rounds.setdefault(intent.round, {})
                members.setdefault(intent.member, intent)
                if _intents_are_a_quorum(self.quorum, members):
                    certified.add(intent.round)
        return rounds

    def _consented(self, seat: Member, entry: Entry) -> bool:
        if self.previous.member(seat.id) is None:
            return _by_all_keys(seat, entry, self.signed)
        return self.speaks(seat.id, entry.envelope)

    def _follow(self, start: KeyState) -> None:
        rotated = self.pile.rotated.get(start.identity)
        chain = follow(start, rotated, signed=self.signed) if rotated else RotationChain(start, ())
        ways: dict[KeyState, tuple[Entry, ...]] = {start: ()}
        steps = []
        for step in chain.steps:
            if step.before in ways and len(ways[step.before]) < MAX_ROTATIONS_COUNTED:
                steps.append(step)
                ways.setdefault(step.after, (*ways[step.before], step.entry))
        self._chains[start.identity], self._ways[start.identity] = RotationChain(start, tuple(steps)), ways

    def _record(self, entry: Entry) -> Inception | None:
        try:
            return check_inception(entry, signed=self.signed)
        except ComityError:
            return None


def _is_of_a_voter(reading: Reading, voters: frozenset[Digest], previous: Body) -> bool:
    """7.3: a reading counts if its member is active in the body that it would change, and it says the right epoch."""
    return reading.member in voters and reading.epoch == previous.epoch + 1


def _unlock_is_certified(intent: Intent, certified: set[int]) -> bool:
    """7.2, 7.3: the intent-certificate that an INTENT names is at hand, for the very body that it is for."""
    return intent.unlock is None or intent.unlock in certified


def _intents_are_a_quorum(quorum: int, members: Mapping[Digest, Intent]) -> bool:
    """7.2: an intent-certificate is q INTENTs of one round for one body."""
    return len(members) >= quorum


def _by_all_keys(seat: Member, entry: Entry, signed: Signed) -> bool:
    """7.3: consent of every new key."""
    return signed(KeySet(seat.keys.keys, len(seat.keys.keys)), entry.envelope)


_REFUSED: Final = "charter refused"

MAX_LINES: Final = 8192
MAX_CERTIFICATE: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Certificate:
    """A body and the lines that make it the successor of another. Only `certify` and `assemble` make one."""

    body: Body
    lines: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """That a body was decided: in which round, by whose RATIFYs, with whose consents."""

    round: int
    ratified: Mapping[Digest, Entry]
    consents: Mapping[Digest, Entry]


def certify(previous: Body, body: Body, lines: Iterable[bytes], *, signed: Signed = KeySet.signed) -> Certificate:
    """The certificate, if `lines` make `body` the successor of `previous`. Nothing else is asked, and nothing outside
    un-counts it.

    Raises Malformed beyond 8,192 lines or 64 MiB, Untrusted with who or what is missing.
    """
    kept = tuple(lines)
    if len(kept) > MAX_LINES or sum(map(len, kept)) > MAX_CERTIFICATE:
        raise Malformed("certificate too large", why=f"at most {MAX_LINES} lines and {MAX_CERTIFICATE} bytes are read")
    decide(ValidVotes(previous, StatementSet.read(kept), signed), body)
    return Certificate(body, kept)


def assemble(
    previous: Body, body: Body, entries: Iterable[Entry], *, signed: Signed = KeySet.signed
) -> Certificate | None:
    """A certificate out of what is at hand, with little that it could do without; None where something is missing."""
    docket = ValidVotes(previous, StatementSet.sort(entries), signed)
    try:
        return certificate(docket, body, decide(docket, body))
    except ComityError:
        return None


def decide(docket: ValidVotes, body: Body) -> Decision:
    """The decision for `body` that the docket shows, of the earliest round. Raises Untrusted, naming who is missing."""
    check_may_follow(docket, body)
    previous, consents = docket.previous, docket.consents(body)
    if silent := new_keys_without_consent(previous, body, consents):
        raise Untrusted(_REFUSED, why=f"no consent of {called(silent)}, whose keys are new", code="CHARTER-CONSENT")
    certified, rounds = docket.certified(body.digest), docket.ratified(body.digest)
    why = f"{_tally(previous, rounds)} ratified it in one round"
    missing = Untrusted(_REFUSED, why=why, code="CHARTER-QUORUM")
    for at, ratified in sorted(rounds.items()):
        if not _ratified_by_a_quorum(previous, ratified):
            continue
        if not _intent_certified(at, certified):
            why = f"no intent-certificate of round {at} is at hand for it"
            missing = Untrusted(_REFUSED, why=why, code="CHARTER-INTENT")
        elif not accepted_by_the_new_set(previous, body, ratified, consents):
            why = f"{len(_accepting(body, ratified, consents))} of its own members accepted it, not {body.quorum}"
            missing = Untrusted(_REFUSED, why=why, code="CHARTER-QUORUM")
        else:
            return Decision(at, ratified, consents)
    raise missing


def certificate(docket: ValidVotes, body: Body, decision: Decision) -> Certificate:
    """The lines on which a decision rests. Raises Malformed beyond the bounds of a certificate."""
    ratified = _few(docket, body, decision)
    readings: dict[Digest, list[Entry]] = {member: [decision.ratified[member]] for member in ratified}
    for intent in _intents(docket, body.digest, decision.round):
        readings.setdefault(intent.member, []).append(docket.heard[intent])
    entries = [entry for seat in body.members if (entry := _newcomer_inception(docket, seat)) is not None]
    for seat in body.members:
        entries += _way_to_seat(docket, seat)
    for member, said in sorted(readings.items()):
        for entry in said:
            entries += _way_to_reading(docket, member, entry)
    entries += decision.consents.values()
    entries += [entry for _, said in sorted(readings.items()) for entry in said]
    lines = tuple(dict.fromkeys(entry.line for entry in entries))
    if len(lines) > MAX_LINES or sum(map(len, lines)) > MAX_CERTIFICATE:
        raise Malformed("certificate too large", why=f"{len(lines)} lines are needed")
    return Certificate(body, lines)


def check_may_follow(docket: ValidVotes, body: Body) -> None:
    """`check_succession` with what the docket knows of everybody who has a seat. Raises Untrusted."""
    before = {seat.id for seat in docket.previous.members}
    chains = {seat.id: chain for seat in body.members if (chain := docket.chain(seat.id)) is not None}
    new = (docket.inception(seat.id) for seat in body.members if seat.id not in before)
    check_succession(docket.previous, body, chains, {found[0].id: found[0] for found in new if found is not None})


def _ratified_by_a_quorum(previous: Body, ratified: Collection[Digest]) -> bool:
    """7.3: q RATIFYs of one (round, body) by members of the body before."""
    return len(ratified) >= previous.quorum


def _intent_certified(at: int, certified: Collection[int]) -> bool:
    """7.2, 7.3: a RATIFY counts only with an intent-certificate for its round and body at hand."""
    return at in certified


def accepted_by_the_new_set(
    previous: Body, body: Body, ratified: Collection[Digest], consents: Collection[Digest]
) -> bool:
    """7.3: q of the new body, by its own active members: a RATIFY of who has a vote before, else a consent."""
    return len(_accepting(body, ratified, consents)) >= body.quorum


def _accepting(body: Body, ratified: Collection[Digest], consents: Collection[Digest]) -> set[Digest]:
    return {seat.id for seat in body.active if seat.id in ratified or seat.id in consents}


def new_keys_without_consent(previous: Body, body: Body, consents: Collection[Digest]) -> list[Member]:
    """7.3: consent of every new key. Those of a member that stays are new by its own rotation, which they signed."""
    before = {seat.id for seat in previous.members}
    return [seat for seat in body.members if seat.id not in before and seat.id not in consents]


def _few(docket: ValidVotes, body: Body, decision: Decision) -> list[Digest]:
    """As few of the ratifying members as are enough on both sides, those that need no rotations first."""
    new = {seat.id for seat in body.active}

    def merit(member: Digest) -> tuple[bool, int, Digest]:
        return member not in new, len(_way_to_reading(docket, member, decision.ratified[member])), member

    order = sorted(decision.ratified, key=merit)
    enough = docket.previous.quorum
    while not accepted_by_the_new_set(docket.previous, body, order[:enough], decision.consents):
        enough += 1
    return order[:enough]


def _intents(docket: ValidVotes, body: Digest, at: int) -> list[Intent]:
    """An intent-certificate for round `at`, and for each round that one of its INTENTs names."""
    certified, chosen, open_ = docket.certified(body), list[Intent](), {at}
    while open_:
        latest = max(open_)
        open_.remove(latest)
        few = sorted(certified[latest].values(), key=lambda intent: (intent.unlock or 0, intent.member))
        chosen += few[: docket.previous.quorum]
        open_ |= {intent.unlock for intent in few[: docket.previous.quorum] if intent.unlock is not None}
    return chosen


def _newcomer_inception(docket: ValidVotes, seat: Member) -> Entry | None:
    found = docket.inception(seat.id) if docket.previous.member(seat.id) is None else None
    return found[1] if found is not None else None


def _way_to_seat(docket: ValidVotes, seat: Member) -> tuple[Entry, ...]:
    states = docket.ways(seat.id).items()
    ways = [way for state, way in states if (state.keys, state.recovery) == (seat.keys, seat.recovery)]
    return min(ways, key=len)


def _way_to_reading(docket: ValidVotes, member: Digest, entry: Entry) -> tuple[Entry, ...]:
    states = docket.ways(member)
    if len(states) == 1:
        return ()
    return min((way for state, way in states.items() if docket.signed(state.keys, entry.envelope)), key=len)


def _tally(previous: Body, rounds: Mapping[int, Collection[Digest]]) -> str:
    most = max(rounds.values(), key=len, default=())
    silent = [seat for seat in previous.active if seat.id not in most]
    return f"{len(most)} of {previous.quorum} members (not {called(silent)})"


def certify_genesis(body: Body, lines: Iterable[bytes]) -> Body:
    """Return `body` if it is a genesis to which every member consented, and in which each seat is what its member's own
    inception, and its rotations where it had any, make of it. Raises Untrusted naming who is missing.
    """
    if body.epoch != 0:
        raise Untrusted("charter refused", why=f"epoch {body.epoch} is not a genesis", code="CHARTER")
    pile = StatementSet.read(lines)
    agreed = _consenting(body, pile)
    missing = [seat for seat in body.members if seat.id not in agreed]
    if missing:
        why = f"a genesis is unanimous; no valid consent of {called(missing)}"
        raise Untrusted("charter refused", why=why, code="CHARTER-CONSENT")
    for seat in body.members:
        inception = _founder_inception(seat.id, pile)
        check_new_seat(seat, inception, _chain(inception, pile) if inception else None)
    return body


def consenting(body: Body, lines: Iterable[bytes]) -> frozenset[Digest]:
    """Members of `body`, a genesis, whose consent to exactly this body stands among `lines`; whatever does not verify
    counts for nothing."""
    return _consenting(body, StatementSet.read(lines))


def _consenting(body: Body, pile: StatementSet) -> frozenset[Digest]:
    seats, about = {seat.id: seat for seat in body.members}, (CONSENTED, body.federation, body.digest)
    return frozenset(
        named.by
        for named, entry in pile.named.get(body.prev, ())
        if (named.predicate, named.federation, named.body) == about
        and named.by in seats
        and seats[named.by].keys.signed(entry.envelope)
    )


def _founder_inception(identity: Digest, pile: StatementSet) -> Inception | None:
    for entry in pile.inceptions.get(identity, ()):
        with contextlib.suppress(ComityError):
            return check_inception(entry)
    return None


def _chain(inception: Inception, pile: StatementSet) -> RotationChain:
    return follow(KeyState.of_inception(inception), pile.rotated.get(inception.id, ()))
