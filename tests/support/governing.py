"""Members of a federation of real nodes, who draft, vote and rotate: each has its keys, submits lines to its own node,
and believes signed lines only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from comity.content.secrets import read_signer
from comity.rules.charter_drafts import draft
from comity.rules.signing import sign_content
from comity.rules.tally import NothingToVote, Tally, compute_tally, next_vote
from comity.rules.vote_state import VoteState, check_vote
from comity.trust.charter.document import Body, CharterPolicy, Member, quorum
from comity.trust.charter.votes import Vote, consent, draft_statement
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound
from comity.trust.keys import HybridSigner
from comity.trust.node_records import Addresses
from comity.trust.statement import Entry, parse_entry, sign_statement
from comity.wire.client import NodeClient
from comity.wire.node_status import NodeStatus
from comity.wire.publish import InlineObject
from support.federation import NodeHome, until


@dataclass
class Person:
    """The holder of a member's governance key, who asks the member's own node."""

    home: NodeHome
    states: dict[Digest, VoteState] = field(default_factory=dict)
    key: str = "governance.pem"

    @property
    def id(self) -> Digest:
        return self.home.card.inception.id

    @property
    def seat(self) -> Member:
        who = self.home.card.inception
        return Member(who.id, who.label, who.jurisdiction, who.keys, who.recovery)

    @property
    def signer(self) -> HybridSigner:
        return read_signer(self.home.directory / "offline" / self.key)

    @property
    def online(self) -> HybridSigner:
        return read_signer(self.home.directory / "keys" / "online.pem")

    @property
    def card(self) -> tuple[bytes, ...]:
        """A request to join."""
        shown = self.home.card
        addresses = sign_content(Addresses.of(shown.record, shown.mutual, shown.open), self.online)
        return shown.inception_line, shown.record_line, addresses.line

    def drafting(self, body: Body, text: str = "because") -> Entry:
        return sign_statement(draft_statement(body, self.id, text), self.signer)

    def consenting(self, body: Body) -> Entry:
        return consent(body, self.id, self.signer)

    def signing(self, reading: Vote) -> Entry:
        """Sign any statement."""
        return sign_statement(reading.statement(), self.signer)

    async def say(self, *entries: Entry, bodies: Iterable[Body] = (), at: NodeClient | None = None) -> None:
        """Log lines at the own node, or at the address `at`."""
        lines = [entry.line for entry in entries]
        objects = [InlineObject(body.digest, body.data) for body in bodies]
        if at is not None:
            assert (await at.submit(lines, objects)).receipts
            return
        async with self.home.operator() as own:
            assert (await own.submit(lines, objects)).receipts

    async def tally(self) -> Tally:
        """The tally of the lines at the own node."""
        async with self.home.operator() as own:
            newest = Body.parse((await own.charter()).body)
            lines = await own.next_epoch_entries()
            entries = [parse_entry(located.line) for located in lines]
            return compute_tally(newest, entries, await _bodies(own, entries))

    async def vote(self, body: Body, *, stalled: bool = False) -> Vote | NothingToVote:
        """Sign and log the next vote of an honest member that prefers `body`."""
        tally = await self.tally()
        prev = tally.current.digest
        state = self.states.setdefault(prev, VoteState(prev))
        reading = next_vote(state, tally, self.id, body, stalled=stalled)
        if not isinstance(reading, NothingToVote):
            check_vote(state, reading)
            self.states[prev] = state.adding(reading)
            await self.say(self.signing(reading))
        return reading

    async def epoch(self) -> int:
        async with self.home.client() as client:
            return (await client.charter()).epoch

    async def status(self) -> NodeStatus:
        async with self.home.operator() as own:
            return await own.status()


async def _bodies(client: NodeClient, entries: Iterable[Entry]) -> Mapping[Digest, bytes]:
    found: dict[Digest, bytes] = {}
    for entry in entries:
        if entry.statement.predicate == "draft" and entry.statement.subject not in found:
            try:
                found[entry.statement.subject] = await client.object(entry.statement.subject)
            except NotFound:
                continue
    return found


def reseated(body: Body, seats: Sequence[Member]) -> Body:
    """A body with these members and the smallest valid quorum."""
    active = sum(seat.active for seat in seats)
    old = body.policy
    return draft(body, members=seats, policy=CharterPolicy(quorum(active), old.min_copies, old.min_jurisdictions, 1))


async def decide(body: Body, voters: Sequence[Person], *, everywhere: Sequence[Person] = ()) -> None:
    """Let `voters` vote until the nodes of all of them, and of `everywhere`, follow `body`."""

    async def taken_up() -> bool:
        for person in voters:
            if await person.epoch() < body.epoch:
                await person.vote(body)
        return all([await person.epoch() >= body.epoch for person in (*voters, *everywhere)])

    await until(taken_up, what=f"epoch {body.epoch} everywhere")


async def digest_of(person: Person, epoch: int) -> Digest:
    async with person.home.client() as client:
        return sha256((await client.charter(epoch)).body)


def changed(body: Body, number: int) -> Body:
    """A body with a harmless change; another one for each number."""
    old = body.policy
    return draft(body, policy=CharterPolicy(old.quorum_change, old.min_copies, number, old.cosigner_quorum))
