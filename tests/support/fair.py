"""A provider's chain in its own log, in memory: what a client would get of it from nodes, or from a carried file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from comity.federation_file import Federation
from comity.rules.offers.log_reader import OfferLogReader
from comity.rules.offers.offer import Offer
from comity.rules.offers.records import (
    Acceptance,
    Accepted,
    ChainLink,
    Grant,
    GrantRequest,
    Offered,
    Pact,
    PartyStatement,
    Record,
)
from comity.rules.signing import statement_of
from comity.trust.encoding import Digest
from comity.trust.statement import Entry, Statement, sign_statement
from comity_client.offers.bundle import OfferBundle, PlacedLine
from support.offers import START, an_offer, hours, to
from support.world import Identity, Log, Node, found, node, seat

CODES = ("CH", "ES", "KR", "SG")


@dataclass
class Stall:
    """Zurich's chain. Barcelona is its customer; Daejeon and Singapore cosign."""

    nodes: tuple[Node, ...] = field(default_factory=lambda: tuple(node(seat(code)) for code in CODES))
    entries: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = Log(self.provider.origin, self.provider.log)
        self.read = OfferLogReader(str(self.provider.record.log))
        self.number = 0

    @property
    def provider(self) -> Node:
        return self.nodes[0]

    @property
    def customer(self) -> Identity:
        return self.nodes[1].seat

    @property
    def federation(self) -> Federation:
        return found(self.nodes)

    def second(self) -> Stall:
        """Another process with the same keys, with the same log so far."""
        other = Stall(self.nodes)
        for entry in self.entries:
            other._add(entry)
        other.number = self.number
        return other

    def post(self, **more: Any) -> Digest:
        made = {"provider": self.provider.seat.id, "log": str(self.provider.record.log), **more}
        offer = an_offer(**made)
        self.write(Offered(ChainLink(offer.id, 0, None, START, tuple(part.amount for part in offer.slices)), offer))
        return offer.id

    def offer(self, chain: Digest) -> Offer:
        found_ = self.read.chain_of(chain)
        assert found_ is not None
        return found_.state.offer

    def ask(self, chain: Digest, *, nodes: int = 1, amount: int = 8, pact: bool = False) -> Entry:
        self.number += 1
        wanted = (hours(0, 10, nodes=nodes, amount=amount),)
        return self.say(GrantRequest(self.customer.id, chain, wanted, self.number, pact))

    def grant(self, chain: Digest, *, nodes: int = 1, amount: int = 8, pact: bool = False) -> Entry:
        asked = self.ask(chain, nodes=nodes, amount=amount, pact=pact)
        wanted = (hours(0, 10, nodes=nodes, amount=amount),)
        return self.record((Pact if pact else Grant)(to(chain), asked.digest, self.customer.id, wanted, START + 86_400))

    def accept(self, chain: Digest, grant: Entry) -> Entry:
        said = self.say(Acceptance(self.customer.id, chain, grant.digest))
        return self.record(Accepted(to(chain), grant.digest, said.digest))

    def say(self, said: PartyStatement, *, logged: bool = True) -> Entry:
        entry = sign_statement(statement_of(said), self.customer.signer)
        return self._add(entry) if logged else entry

    def record(self, record: Record) -> Entry:
        found_ = self.read.chain_of(record.link.chain)
        assert found_ is not None
        return self.write(found_.state.link(record, START))

    def write(self, record: Record) -> Entry:
        return self.sign(statement_of(record, self.provider.record.node))

    def sign(self, statement: Statement) -> Entry:
        return self._add(sign_statement(statement, self.provider.online))

    def bundle(self, *, cosigned: bool = True, proven: bool = True, upto: int | None = None) -> OfferBundle:
        """The whole chain, with a proof of each line, cosigned by Daejeon and Singapore."""
        entries = self.entries[:upto]
        lines = tuple(PlacedLine(entry.line, self.log.origin, index) for index, entry in enumerate(entries))
        cosigners = self.nodes[2:] if cosigned else ()
        proofs = (self.log.proof(entry.line, cosigners) for entry in entries) if proven else ()
        return OfferBundle(lines, tuple((proof.line, proof.data) for proof in proofs))

    def _add(self, entry: Entry) -> Entry:
        self.entries.append(entry)
        self.log.append(entry.line)
        self.read.read(len(self.entries) - 1, entry, True)
        return entry
