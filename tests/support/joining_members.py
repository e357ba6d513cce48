"""Members, a newcomer and their nodes in memory: who logs a line, who reads whose log, and what each person's client
shows.

A node reads its own log and those of the members of the charter that it follows, while both run; it takes votes of its
own member only, and what a newcomer signed once it knows a draft with it. Nobody reads a newcomer's log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from comity.federation_file import Federation
from comity.rules.tally import NothingToVote, next_vote
from comity.rules.vote_state import VoteState, check_vote
from comity.trust.charter.document import Body
from comity.trust.charter.votes import adopted_statement, consent, draft_statement
from comity.trust.encoding import Digest
from comity.trust.statement import Entry, sign_statement
from comity.trust.statement_kinds import CONSENTED, DRAFT, PROVING_PREDICATES, VOTE_PREDICATES
from comity_client.charter.drafts import draft_admission, draft_policy_change
from comity_client.charter.following import (
    Following,
    LackedLine,
    NodeLines,
    followed_charter,
    known_seats,
    lacked_lines,
    wanted_entries,
)
from comity_client.charter.state import CharterMaterial, CharterState, compute_charter_state, federation_charter_state
from support.world import Identity, Node, found, node, seat


@dataclass
class MemoryNode:
    """A member's node: its own log, what it has read of others, and the charter that it follows."""

    node: Node
    body: Body
    bodies: dict[Digest, bytes]
    """Bodies of charters, which all nodes share: they travel with the lines that name them."""
    own: dict[Digest, Entry] = field(default_factory=dict)
    read: dict[Digest, Entry] = field(default_factory=dict)
    up: bool = True

    @property
    def member(self) -> Digest:
        return self.node.seat.id

    @property
    def known(self) -> dict[Digest, Entry]:
        return {**self.read, **self.own}

    def takes(self, entry: Entry) -> bool:
        """Log a line if the node admits it. Returns whether it has it."""
        by = entry.statement.by
        assert by is not None
        seated = self.body.member(by.id) is not None
        if entry.statement.predicate in VOTE_PREDICATES:
            admitted = by.id == self.member
        else:
            invited = by.id == self.member or any(by.id in self._seats(each) for each in self.known.values())
            admitted = seated or (entry.statement.predicate in (CONSENTED, *PROVING_PREDICATES) and invited)
        if admitted and self.up:
            self.own[entry.digest] = entry
        return admitted and self.up

    def _seats(self, entry: Entry) -> Iterable[Digest]:
        if entry.statement.predicate != DRAFT:
            return ()
        return (member.id for member in Body.parse(self.bodies[entry.statement.subject]).members)

    def steps(self, others: Iterable[MemoryNode]) -> None:
        """Read the logs of members that run, and adopt what their votes certify."""
        for other in others:
            if self.up and other.up and self.body.member(other.member) is not None:
                self.read |= other.own
        current = _state(self.body, self.known.values(), self.bodies).current
        if self.up and current != self.body:
            self.body = current
            adopted = sign_statement(adopted_statement(current, self.node.record.node.id), self.node.online)
            self.own[adopted.digest] = adopted


def _state(start: Body, entries: Iterable[Entry], bodies: dict[Digest, bytes]) -> CharterState:
    return compute_charter_state(start, CharterMaterial(frozenset(entry.line for entry in entries), dict(bodies)))


class JoiningMember:
    """Four members and a newcomer, whose people share one client."""

    def __init__(self) -> None:
        self.people: Sequence[Node] = [node(seat(code)) for code in ("CH", "ES", "KR", "SG")]
        self.newcomer = node(seat("BR"))
        self.federation: Federation = found(self.people)
        self.bodies = {self.federation.body.digest: self.federation.body.data}
        every = (*self.people, self.newcomer)
        self.nodes = [MemoryNode(each, self.federation.body, self.bodies) for each in every]
        self.delivered = CharterMaterial()
        """What this client delivered, to whichever node."""
        self.votes: dict[tuple[Digest, Digest], VoteState] = {}

    @property
    def members(self) -> Sequence[MemoryNode]:
        return self.nodes[:-1]

    @property
    def reading(self) -> CharterState:
        """What the client computes from its own lines, and those of the nodes in its pin that answer."""
        lines = {entry.line for each in self.members if each.up for entry in each.known.values()}
        shown = CharterMaterial(frozenset(lines) | self.delivered.lines, dict(self.bodies))
        return federation_charter_state(self.federation, shown)

    @property
    def following(self) -> Following:
        return followed_charter(self.federation, self.reading)

    @property
    def admitted(self) -> bool:
        """Whether the nodes of a quorum follow a charter with the newcomer."""
        follow = sum(each.body.member(self.newcomer.seat.id) is not None for each in self.members)
        return follow >= self.federation.body.quorum

    def lacked(self) -> list[LackedLine]:
        """What `comity proposal ls` and `comity join` say that nodes lack."""
        state, following = self.reading, self.following
        entries = wanted_entries(self.federation, state, following, self.delivered)
        shown = [
            NodeLines(each.node.record.name, each.node.record.name, each.member,
                      frozenset(e.statement_digest for e in each.known.values()) if each.up else None)
            for each in self.nodes
        ]  # fmt: skip
        return lacked_lines(entries, following.followed, shown, known_seats(state))

    def deliver(self) -> None:
        """`comity proposal deliver`: what is lacked, to each node that takes it."""
        for line in self.lacked():
            for taker in line.takers:
                self._at(taker.log).takes(line.entry)

    def _at(self, name: str) -> MemoryNode:
        return next(each for each in self.nodes if each.node.record.name == name)

    def _signs(self, entries: Sequence[Entry], at: MemoryNode) -> None:
        for entry in entries:
            if at.takes(entry):
                self.delivered |= CharterMaterial.of([entry.line])

    def drafts(self, number: int) -> None:
        """A member proposes to admit the newcomer, whose card it has."""
        by, current = self.members[number], self.reading.current
        if current.member(self.newcomer.seat.id) is not None:
            return
        body = draft_admission(current, self.newcomer.seat.member)
        self.bodies[body.digest] = body.data
        entry = sign_statement(draft_statement(body, by.member, "it mirrors us"), by.node.seat.signer)
        self._signs([entry, *self._card], by)

    def changes_policy(self, number: int) -> None:
        """A member proposes another change of the charter."""
        by, current = self.members[number], self.reading.current
        copies = 2 if current.policy.min_copies == 3 else 3
        body = draft_policy_change(current, replace(current.policy, min_copies=copies))
        self.bodies[body.digest] = body.data
        self._signs([sign_statement(draft_statement(body, by.member, "more"), by.node.seat.signer)], by)

    @property
    def _card(self) -> list[Entry]:
        return [self.newcomer.seat.entry, self.newcomer.entry]

    def consents(self, where: int) -> None:
        """The newcomer consents to its seat in each open draft, at one node; its own one is -1."""
        who: Identity = self.newcomer.seat
        drafts = [each.body for each in self.reading.tally.drafts if each.body.member(who.id) is not None]
        for body in drafts:
            self._signs([*self._card, consent(body, who.id, who.signer)], self.nodes[where])

    def approves(self, number: int) -> None:
        """A member signs its next vote on the draft that `comity proposal ls` asks it to vote for."""
        by, state = self.members[number], self.reading
        duties = (each for each in state.tally.duties if each.member == by.member and each.action != CONSENTED)
        duty = next(duties, None)
        if duty is None or not by.up:
            return
        key = by.member, state.current.digest
        held = self.votes.setdefault(key, VoteState(state.current.digest))
        vote = next_vote(held, state.tally, by.member, Body.parse(self.bodies[duty.body]))
        if not isinstance(vote, NothingToVote):
            check_vote(held, vote)
            self.votes[key] = held.adding(vote)
            self._signs([sign_statement(vote.statement(), by.node.seat.signer)], by)

    def stops(self, number: int) -> None:
        self.nodes[number].up = False

    def starts(self, number: int) -> None:
        self.nodes[number].up = True

    def reads(self) -> None:
        """Each node reads the others once."""
        for each in self.nodes:
            each.steps(self.nodes)

    def follows_what_is_printed(self) -> None:
        """Each person runs the command that is shown to it: a member that has nothing to vote for proposes the
        newcomer if nobody does, the newcomer consents, members vote, and anybody delivers what nodes lack."""
        for number in range(len(self.nodes)):
            self.starts(number)
        self.reads()
        who, state = self.newcomer.seat.id, self.reading
        if self.following.followed.member(who) is None:
            asked = [each for each in state.tally.drafts if each.body.member(who) is not None]
            if not asked and not self.following.ahead and not state.tally.drafts:
                self.drafts(0)
            if any(seat.id == who for each in asked for seat in each.missing):
                self.consents(-1)
        for number in range(len(self.members)):
            self.approves(number)
        self.deliver()
        self.reads()
