"""A provider's node, and a grantee with a key that acts as its tools would: by calls, or by lines that are
submitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from comity.content.secrets import read_signer
from comity.rules.offers.log_reader import OfferLogReader
from comity.rules.offers.offer import Offer, SliceAllocation
from comity.rules.offers.records import (
    Acceptance,
    CutOff,
    Default,
    GivingBack,
    Grant,
    GrantRequest,
    PartyStatement,
    Redemption,
    read_record,
)
from comity.rules.signing import statement_of
from comity.trust.encoding import Digest
from comity.trust.statement import Entry, parse_entry, sign_statement
from comity.wire.client import NodeClient
from comity.wire.messages import LocatedEntry
from comity.wire.offer import Approve, GrantQuery, GrantStatus, OfferAction, Post
from support.federation import NodeHome, until
from support.offers import an_offer
from support.publisher import Publisher


@dataclass
class Lender:
    """The operator of a provider's node."""

    home: NodeHome

    def offer(self, **more: Any) -> Offer:
        return an_offer(provider=self.home.card.inception.id, log=str(self.home.record.log), **more)

    async def act(self, act: OfferAction) -> tuple[LocatedEntry, ...]:
        async with self.home.operator() as client:
            return await client.offers.allocate(act)

    async def post(self, **more: Any) -> Digest:
        offer = self.offer(**more)
        await self.act(Post(offer.encode()))
        return offer.id

    async def approve(self, request: Digest, *allocations: SliceAllocation) -> Entry:
        """The line of the grant."""
        return parse_entry((await self.act(Approve(request, allocations)))[-1].line)


@dataclass
class Borrower:
    """A grantee with a publisher's key, without a seat and a node."""

    publisher: Publisher = field(default_factory=Publisher.generate)
    asked: int = 0

    @property
    def id(self) -> Digest:
        return self.publisher.id

    @classmethod
    def member(cls, home: NodeHome) -> Borrower:
        """The member of this node, with its governance key."""
        signer = read_signer(home.directory / "offline" / "governance.pem")
        line = (home.directory / "inception.line").read_bytes().removesuffix(b"\n")
        return cls(Publisher(signer, home.card.inception, line))

    def sign(self, said: PartyStatement) -> Entry:
        return sign_statement(statement_of(said), self.publisher.signer)

    def request(self, offer: Digest, *wanted: SliceAllocation, pact: bool = False) -> Entry:
        self.asked += 1
        return self.sign(GrantRequest(self.id, offer, wanted, self.asked, pact))

    def accept(self, grant: Entry) -> Entry:
        return self.sign(Acceptance(self.id, chain_of(grant), grant.digest))

    def redeem(self, grant: Entry, after: Digest, *amounts: int) -> Entry:
        return self.sign(Redemption(self.id, chain_of(grant), grant.digest, amounts, after))

    def give_back(self, grant: Entry) -> Entry:
        return self.sign(GivingBack(self.id, chain_of(grant), grant.digest))

    def cut_off(self, grant: Entry, *, drill: bool = False) -> Entry:
        return self.sign(CutOff(self.id, chain_of(grant), grant.digest, drill))

    def default(self, grant: Entry, text: str) -> Entry:
        return self.sign(Default(self.id, chain_of(grant), grant.digest, text))

    async def submit(self, home: NodeHome, *entries: Entry) -> None:
        async with home.client() as client:
            await client.submit([self.publisher.announcement, *(entry.line for entry in entries)])


def chain_of(grant: Entry) -> Digest:
    record = read_record(grant.statement)
    assert isinstance(record, Grant)
    return record.link.chain


async def state_of(home: NodeHome, request: Entry) -> GrantStatus:
    async with home.client() as client:
        found = await client.offers.grants(GrantQuery())
    return next(state for state in found if state.request.line == request.line)


async def reaches(home: NodeHome, request: Entry, state: str) -> GrantStatus:
    """Wait until a node reports that a request is in `state`."""
    seen: list[GrantStatus] = []
    async with home.client() as client:

        async def there() -> bool:
            seen[:] = [s for s in await client.offers.grants(GrantQuery()) if s.request.line == request.line]
            return bool(seen) and seen[0].state == state

        await until(there, what=f"{home.name} to say {state}")
    return seen[0]


async def holding(home: NodeHome, condition: Callable[[NodeClient], Any], what: str) -> None:
    """Wait until a condition holds at a node."""
    async with home.client() as client:
        await until(lambda: condition(client), what=what)


async def read_chain(home: NodeHome, log: str, offer: Digest) -> OfferLogReader:
    """The chain that a client computes from the lines of a node about an offer, without signature checks."""
    read = OfferLogReader(log)
    origin = log.split("+")[0]
    async with home.client() as client:
        for located in await client.offers.get(offer):
            if located.origin == origin:
                read.read(located.index, parse_entry(located.line), True)
    return read
