"""Members who vote, in memory: they draft, sign votes and exchange lines. Keys are classical unless a test asks for
others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from comity.rules.charter_drafts import draft, genesis
from comity.rules.tally import NothingToVote, Tally, compute_tally, next_vote
from comity.rules.vote_state import VoteState, check_vote
from comity.trust.charter.certificate import Certificate
from comity.trust.charter.document import Body, CharterPolicy, Member, quorum
from comity.trust.charter.votes import Intent, Ratify, RoundBody, Vote, consent, draft_statement
from comity.trust.encoding import Digest
from comity.trust.statement import Entry, sign_statement
from support.world import Identity, seat

CLASSICAL = ("ed25519",)
NEWCOMER = "ZZ"


def code(number: int) -> str:
    """A jurisdiction for the member of this number."""
    return f"A{chr(ord('A') + number)}"


def members(count: int, algs: tuple[str, ...] = CLASSICAL) -> tuple[Identity, ...]:
    """`count` members, sorted as in a charter."""
    return tuple(sorted((seat(code(number), algs) for number in range(count)), key=lambda who: who.id))


def found(seats: Iterable[Identity], *, quorum_change: int | None = None, **names: Digest) -> Body:
    """A genesis of `seats`; `names` are its namespaces."""
    members_ = [who.member for who in seats]
    return genesis(members_, CharterPolicy(quorum_change or quorum(len(members_)), 1, 1, 0), names)


def change(body: Body, number: int = 1) -> Body:
    """A body that follows `body`, with another change for each number."""
    old = body.policy
    policy = CharterPolicy(old.quorum_change, old.min_copies, old.min_jurisdictions, old.cosigner_quorum, 1 + number)
    return draft(body, policy=policy)


def reseated(body: Body, members_: Sequence[Member]) -> Body:
    """A body that follows `body`, with these members and the smallest valid quorum."""
    active = sum(member.active for member in members_)
    return draft(body, members=members_, policy=CharterPolicy(quorum(active), 1, 1, 0))


@dataclass
class Assembly:
    """A federation that decides on the successor of `body`, and every line that it has seen."""

    seats: Sequence[Identity]
    body: Body = field(init=False)
    lines: list[Entry] = field(default_factory=list)
    bodies: dict[Digest, bytes] = field(default_factory=dict)
    states: dict[Digest, VoteState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.body = found(self.seats)

    @classmethod
    def of(cls, count: int, algs: tuple[str, ...] = CLASSICAL) -> Assembly:
        return cls(members(count, algs))

    @property
    def tally(self) -> Tally:
        return compute_tally(self.body, self.lines, self.bodies)

    def put(self, body: Body, by: Identity | None = None, text: str = "because") -> Body:
        """Let a member propose `body`."""
        who = by or self.seats[0]
        self.bodies[body.digest] = body.data
        self.lines.append(sign_statement(draft_statement(body, who.id, text), who.signer))
        return body

    def intent(
        self, who: Identity, body: Body, at: int = 1, last: tuple[int, Body] | None = None, unlock: int | None = None
    ) -> Entry:
        """Sign an INTENT with any content."""
        locked = RoundBody(last[0], last[1].digest) if last else None
        assert body.prev is not None
        return self.say(who, Intent(who.id, body.prev, body.epoch, at, body.digest, locked, unlock))

    def ratify(self, who: Identity, body: Body, at: int = 1) -> Entry:
        """Sign a RATIFY with any content."""
        assert body.prev is not None
        return self.say(who, Ratify(who.id, body.prev, body.epoch, at, body.digest))

    def say(self, who: Identity, reading: Vote) -> Entry:
        entry = sign_statement(reading.statement(), who.signer)
        self.lines.append(entry)
        return entry

    def consent(self, who: Identity, body: Body) -> None:
        """Let a newcomer show its inception and agree to its seat."""
        self.lines += [who.entry, consent(body, who.id, who.signer)]

    def vote(self, who: Identity, body: Body, *, stalled: bool = False) -> Vote | NothingToVote:
        """Let an honest member, who sees all lines and prefers `body`, sign its next vote."""
        tally = self.tally
        state = self.states.get(who.id)
        if state is None or state.prev != tally.current.digest:
            state = VoteState(tally.current.digest)
        reading = next_vote(state, tally, who.id, body, stalled=stalled)
        if not isinstance(reading, NothingToVote):
            check_vote(state, reading)
            self.states[who.id] = state.adding(reading)
            self.say(who, reading)
        return reading

    def decide(self, body: Body, voters: Sequence[Identity] | None = None) -> Certificate:
        """Let all members (or `voters`) vote for `body` until it is certified."""
        self.put(body)
        for _ in range(2):
            for who in voters or self.seats:
                if body.digest not in {epoch.body.digest for epoch in self.tally.epochs}:
                    self.vote(who, body)
        return self.tally.epochs[-1]
