"""Members that decide an epoch over a network that loses, repeats and reorders messages; some of the members lie.

Honest members sign what `voting` advises for arbitrary wishes of their people; lying members sign anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from comity.rules.tally import NothingToVote, Tally, compute_tally, next_vote
from comity.rules.vote_state import VoteState, check_vote
from comity.trust.charter.document import Body
from comity.trust.charter.votes import Vote, draft_statement
from comity.trust.encoding import Digest
from comity.trust.identity import SignatureCheck
from comity.trust.statement import Entry, sign_statement
from support.charters import Seated, cheaply_signed, drafts, founded, intent, ratify


@dataclass
class Voter:
    """A member in the view of the others: the lines that it holds, those in transit to it, and those that it has
    signed.
    """

    who: Seated
    votes: VoteState
    held: dict[bytes, Entry] = field(default_factory=dict)
    coming: list[Entry] = field(default_factory=list)

    @property
    def id(self) -> Digest:
        return self.who.id

    def takes(self, entries: Iterable[Entry]) -> None:
        self.held |= {entry.line: entry for entry in entries}


class VotingMembers:
    """`people`, of whom the last `liars` lie, choose between `count` drafts for the epoch after their genesis."""

    def __init__(
        self, people: Sequence[Seated], liars: int, *, count: int = 2, signed: SignatureCheck = cheaply_signed
    ) -> None:
        self.start: Body = founded(people)
        self.drafts = drafts(self.start, count)
        self.bodies = {body.digest: body.data for body in self.drafts}
        voters = [Voter(each, VoteState(self.start.digest)) for each in people]
        self.honest = voters[: len(voters) - liars]
        self.liars = voters[len(voters) - liars :]
        self.said: list[Entry] = []
        self._signed = signed
        for body in self.drafts:
            put_forward = sign_statement(draft_statement(body, people[0].id, ""), people[0].signer)
            for voter in self.honest:
                voter.takes([put_forward])

    def tally(self, entries: Iterable[Entry] | None = None) -> Tally:
        """The tally of `entries`; by default of all statements."""
        return compute_tally(self.start, self.said if entries is None else entries, self.bodies, signed=self._signed)

    def acts(self, voter: Voter, want: Body | None, *, stalled: bool) -> Vote | NothingToVote:
        """An honest member's person prefers `want`, or the leading draft; the member signs what it may, and sends it to
        all.
        """
        tally = self.tally(voter.held.values())
        leading = tally.leading(voter.votes.round or tally.round)
        wanted = want or (leading.body if leading else self.drafts[0])
        reading = next_vote(voter.votes, tally, voter.id, wanted, stalled=stalled)
        if not isinstance(reading, NothingToVote):
            check_vote(voter.votes, reading)
            voter.votes = voter.votes.adding(reading)
            entry = voter.who.says(reading)
            voter.takes([entry])
            self._send(entry, [other for other in self.honest if other is not voter])
        return reading

    def lies(self, liar: Voter, reading: Vote, to: Iterable[Voter]) -> None:
        self._send(liar.who.says(reading), to)

    def supports(self, liar: Voter, body: Body, round_: int, to: Sequence[Voter]) -> None:
        """A lying member signs both votes for `body`, regardless of its earlier votes."""
        self.lies(liar, intent(self.start, liar.id, round_, body), to)
        self.lies(liar, ratify(self.start, liar.id, round_, body), to)

    def heals(self, among: Sequence[Voter] = ()) -> None:
        """Everything that a member of `among` (all honest members) holds, or that is in transit to it, reaches each of
        them.
        """
        voters = among or self.honest
        known = [entry for voter in voters for entry in (*voter.held.values(), *voter.coming)]
        for voter in voters:
            voter.takes(known)
            voter.coming.clear()

    def settles(self) -> bool:
        """Whether honest members that receive one another's lines decide; lying members stay silent. People approve the
        leading draft, and declare that they do not wait for silent members where all wait. Members that were
        partitioned catch up round by round, with at most two votes in each.
        """
        voters, waited = self.honest, False
        for _ in range(12 + 3 * max(voter.votes.round for voter in voters)):
            self.heals(voters)
            if all(self.tally(voter.held.values()).epochs for voter in voters):
                return True
            signed = [self.acts(voter, None, stalled=waited) for voter in voters]
            waited = all(isinstance(reading, NothingToVote) for reading in signed)
        return False

    def _send(self, entry: Entry, to: Iterable[Voter]) -> None:
        self.said.append(entry)
        for voter in to:
            voter.coming.append(entry)
