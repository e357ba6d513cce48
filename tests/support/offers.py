"""Offers for tests: a provider, a grantee, and a log of lines that both have signed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comity.rules.offers.log_reader import OfferChain, OfferLogReader
from comity.rules.offers.offer import (
    Eligibility,
    Engine,
    Granularity,
    Offer,
    OfferLocation,
    Slice,
    SliceAllocation,
    Terms,
    Window,
)
from comity.rules.offers.records import ChainLink, Grant, GrantRequest, Offered, Pact, PartyStatement, Record
from comity.rules.signing import statement_of
from comity.trust.encoding import Digest, sha256
from comity.trust.keys import HybridSigner
from comity.trust.statement import Author, Entry, sign_statement
from comity.trust.tlog.note import VerifierKey, log_verifier_key
from support.seeded import seeded_key

START = 1_800_000_000
HOUR = 3600
LOG_KEY = seeded_key("ed25519", "offers/log")
LOG: VerifierKey = log_verifier_key("node-ch/log", LOG_KEY.public)
ONLINE = HybridSigner((seeded_key("ed25519", "offers/online"),))
HOLDER = HybridSigner((seeded_key("ed25519", "offers/holder"),))
NODE = Author("node", ONLINE.public.id)
PROVIDER, GRANTEE = sha256(b"provider"), sha256(b"grantee")


def a_slice(**more: Any) -> Slice:
    made = Slice("h100", "NVIDIA", "H100", 8, 80, "NVLink", 4, 96, 1024, 8000, "InfiniBand NDR", 1000)
    return replace(made, **more)


def an_offer(**more: Any) -> Offer:
    """Four nodes for ten days, 1,000 accelerator-hours in all."""
    made = Offer(
        provider=PROVIDER,
        log=str(LOG),
        title="Spare H100 nodes",
        measure="accelerator-hours",
        slices=(a_slice(),),
        window=Window(START, START + 240 * HOUR),
        granularity=Granularity(1, HOUR, 1),
        location=OfferLocation("CH", "Example Institute", "", ("CH",)),
        eligibility=Eligibility("anyone"),
        terms=Terms(),
        engine=Engine("slurm", "gpu"),
        accept_seconds=86_400,
    )
    return replace(made, **more)


def hours(first: int, last: int, *, nodes: int = 1, amount: int = 8, slice: str = "h100") -> SliceAllocation:
    """Nodes from hour `first` of the window up to hour `last`."""
    return SliceAllocation(slice, nodes, START + first * HOUR, START + last * HOUR, amount)


class Written:
    """A log of offers, as its node would write it: every record is linked by the same chain state that
    readers compute.
    """

    def __init__(self, *, node: HybridSigner = ONLINE) -> None:
        self.node = node
        self.entries: list[Entry] = []
        self.log = OfferLogReader(str(LOG))
        self.number = 0

    def post(self, offer: Offer | None = None, *, at: int = START) -> Digest:
        offer = offer or an_offer()
        self.add(statement_of(Offered(ChainLink(offer.id, 0, None, at, _amounts(offer)), offer), NODE), self.node)
        return offer.id

    def say(self, said: PartyStatement, *signers: HybridSigner) -> Entry:
        return self.add(statement_of(said), *(signers or (HOLDER,)))

    def request(self, chain: Digest, *wanted: SliceAllocation, pact: bool = False, by: Digest = GRANTEE) -> Entry:
        self.number += 1
        offer = self.chain(chain).state.offer.id
        return self.say(GrantRequest(by, offer, wanted, self.number, pact))

    def record(self, record: Record, *, at: int = START) -> Entry:
        """Append a record, with its link. Raises Refused if its chain does not allow it."""
        return self.add(statement_of(self.chain(record.link.chain).state.link(record, at), NODE), self.node)

    def grant(self, chain: Digest, *wanted: SliceAllocation, at: int = START, pact: bool = False) -> Entry:
        asked = self.request(chain, *wanted, pact=pact)
        return self.record((Pact if pact else Grant)(to(chain), asked.digest, GRANTEE, wanted, at + 86_400), at=at)

    def chain(self, offer: Digest) -> OfferChain:
        found = self.log.chain_of(offer)
        assert found is not None
        return found

    def add(self, statement: Any, *signers: HybridSigner) -> Entry:
        entry = sign_statement(statement, *signers)
        self.entries.append(entry)
        by_node = entry.statement.by == NODE
        self.log.read(len(self.entries) - 1, entry, not by_node or entry.envelope.verified_by(self.node.public))
        return entry


def to(chain: Digest) -> ChainLink:
    """A placeholder for the link of a record, which `record` fills in."""
    return ChainLink(chain, 0, None, 0, ())


def _amounts(offer: Offer) -> tuple[int, ...]:
    return tuple(part.amount for part in offer.slices)
