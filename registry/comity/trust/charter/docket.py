"""What counts among the lines about one body: who may speak, and who validly said what about its successor.

The evidence room of a succession, shared by certificates and by the council. Each line is verified once, and only if
something depends on it. Whatever does not verify counts for nothing; nothing un-counts what does (7.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from comity.trust.charter.body import Body, Member
from comity.trust.charter.pile import Pile
from comity.trust.charter.proposing import CONSENTED
from comity.trust.charter.readings import Intent, Ratify, Reading, void
from comity.trust.digest import Digest
from comity.trust.dsse import Envelope
from comity.trust.errors import ComityError
from comity.trust.identity import Inception, KeySet, Signed, check_inception
from comity.trust.rotation import Chain, KeyState, follow
from comity.trust.statement import Entry

Ways: TypeAlias = Mapping[KeyState, tuple[Entry, ...]]

MAX_ROTATIONS: Final = 32
"""How many rotations of one identity may lie between a body and what counts about its successor."""


@dataclass(slots=True)
class Docket:
    """The lines of `pile` that count about the successor of `previous`.

    `heard` are all readings that active members of `previous` signed, each with the line that proves it.
    """

    previous: Body
    pile: Pile
    signed: Signed = KeySet.signed
    digest: Digest = field(init=False)
    quorum: int = field(init=False)
    voters: frozenset[Digest] = field(init=False)
    heard: Mapping[Reading, Entry] = field(init=False)
    _about: dict[Digest, list[Reading]] = field(init=False, default_factory=dict)
    _intents: dict[Digest, Mapping[int, Mapping[Digest, Intent]]] = field(init=False, default_factory=dict)
    _chains: dict[Digest, Chain] = field(init=False, default_factory=dict)
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

    def chain(self, identity: Digest) -> Chain | None:
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
        chain = follow(start, rotated, signed=self.signed) if rotated else Chain(start, ())
        ways: dict[KeyState, tuple[Entry, ...]] = {start: ()}
        steps = []
        for step in chain.steps:
            if step.before in ways and len(ways[step.before]) < MAX_ROTATIONS:
                steps.append(step)
                ways.setdefault(step.after, (*ways[step.before], step.entry))
        self._chains[start.identity], self._ways[start.identity] = Chain(start, tuple(steps)), ways

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
