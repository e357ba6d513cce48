"""`offer`: what a provider lends, in one document that is named by its SHA-256.

    {"schema":"comity/offer/v1","provider":"…","log":"node-ch/log+1a2b3c4d+AZ…","title":"Spare H100 nodes",…}

The document names the one log that may grant it. A later offer may supersede it there: then the chain of grants goes
on under the new terms, and nothing that was given out is taken back. That the same hardware does not stand in two
offers is the provider's word; nobody can prove it. Source: protocol, section 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest, bare_digest, sha256
from comity.trust.encoding import Json, canonical, parse_canonical
from comity.trust.errors import Malformed
from comity.trust.fields import Fields
from comity.trust.offers.capacity import (
    MAX_GRANULES,
    MAX_SLICES,
    MEASURES,
    Allocation,
    Granularity,
    Slice,
    Window,
)
from comity.trust.offers.conditions import Eligibility, Engine, Location, Terms
from comity.trust.tlog.note import ED25519, VerifierKey

SCHEMA: Final = "comity/offer/v1"
MAX_BYTES: Final = 32_768
MAX_ARTIFACTS: Final = 256
MAX_ACCEPT: Final = 366 * 86_400
"""Seconds that a grant waits at most."""


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer document. Raises Malformed where it promises what cannot be.

    Attributes:
        provider: the member who lends.
        log: verifier key of the one log that may grant it: a node's of that member.
        measure: in which amounts are counted, `node-hours` or `accelerator-hours`.
        accept_seconds: how long a grant waits for its grantee to accept it.
        artifacts: digests of the models that lie beside the machines.
        supersedes: the offer, in the same log, whose chain this one goes on with.
    """

    provider: Digest
    log: str
    title: str
    measure: str
    slices: tuple[Slice, ...]
    window: Window
    granularity: Granularity
    location: Location
    eligibility: Eligibility
    terms: Terms
    engine: Engine
    accept_seconds: int
    artifacts: tuple[Digest, ...] = ()
    contact: str = ""
    supersedes: Digest | None = None

    def __post_init__(self) -> None:
        if VerifierKey.parse(self.log).type != ED25519:
            raise _malformed("its log is not named by a log's key")
        if self.measure not in MEASURES:
            raise _malformed(f"its measure is not one of {', '.join(MEASURES)}")
        names = [part.name for part in self.slices]
        if not 1 <= len(names) <= MAX_SLICES or len(set(names)) != len(names):
            raise _malformed(f"it has 1 to {MAX_SLICES} slices, each of another name")
        length, unit = self.window.end - self.window.start, self.granularity.seconds
        if length % unit or not 1 <= length // unit <= MAX_GRANULES:
            raise _malformed(f"its window is not 1 to {MAX_GRANULES} whole granules long")
        for part in self.slices:
            if part.nodes % self.granularity.nodes or part.amount % self.granularity.amount:
                raise _malformed(f"slice {part.name} is no multiple of the granularity")
            if part.amount > (most := part.most(self.measure, part.nodes, length)):
                raise _malformed(f"slice {part.name} has at most {most} {self.measure} in its window")
        if not 1 <= self.accept_seconds <= MAX_ACCEPT:
            raise _malformed(f"a grant waits 1 to {MAX_ACCEPT} seconds")
        if list(self.artifacts) != sorted(set(self.artifacts)) or len(self.artifacts) > MAX_ARTIFACTS:
            raise _malformed(f"it has at most {MAX_ARTIFACTS} artifacts, each once, sorted")

    @classmethod
    def parse(cls, data: bytes) -> Offer:
        """Inverse of `encode`. Raises Malformed."""
        return cls.from_json(parse_canonical(data, limit=MAX_BYTES, what="offer"))

    @classmethod
    def from_json(cls, value: Json) -> Offer:
        fields = Fields(value, "offer")
        fields.constant("schema", SCHEMA)
        supersedes = fields.take("supersedes")
        made = cls(
            provider=fields.digest("provider"),
            log=fields.text("log"),
            title=fields.text("title", most=200),
            measure=fields.choice("measure", MEASURES),
            slices=tuple(Slice.read(item) for item in fields.items("slices", least=1, most=MAX_SLICES)),
            window=Window.read(fields.object("window")),
            granularity=Granularity.read(fields.object("granularity")),
            location=Location.read(fields.object("location")),
            eligibility=Eligibility.read(fields.object("eligibility")),
            terms=Terms.read(fields.object("terms")),
            engine=Engine.read(fields.object("engine")),
            accept_seconds=fields.integer("accept_seconds", least=1, most=MAX_ACCEPT),
            artifacts=fields.digests("artifacts", most=MAX_ARTIFACTS),
            contact=fields.text("contact", least=0, most=400),
            supersedes=None if supersedes is None else bare_digest(supersedes),
        )
        fields.done()
        return made

    def to_json(self) -> dict[str, Json]:
        return {
            "schema": SCHEMA,
            "provider": self.provider,
            "log": self.log,
            "title": self.title,
            "measure": self.measure,
            "slices": [part.to_json() for part in self.slices],
            "window": self.window.to_json(),
            "granularity": self.granularity.to_json(),
            "location": self.location.to_json(),
            "eligibility": self.eligibility.to_json(),
            "terms": self.terms.to_json(),
            "engine": self.engine.to_json(),
            "accept_seconds": self.accept_seconds,
            "artifacts": list(self.artifacts),
            "contact": self.contact,
            "supersedes": self.supersedes,
        }

    def encode(self) -> bytes:
        """Its one spelling, RFC 8785."""
        return canonical(self.to_json())

    @property
    def id(self) -> Digest:
        """By which requests and grants name it: SHA-256 of `encode`."""
        return sha256(self.encode())

    def slice(self, name: str) -> Slice | None:
        return next((part for part in self.slices if part.name == name), None)

    def objection(self, allocations: Sequence[Allocation]) -> str:
        """Why these can never be given out of this offer, whatever is free; empty where they can."""
        for wanted in allocations:
            if why := self._objection(wanted):
                return f"slice {wanted.slice}: {why}"
        return ""

    def _objection(self, wanted: Allocation) -> str:
        part, unit = self.slice(wanted.slice), self.granularity
        if part is None:
            return "the offer has no such slice"
        if wanted.start < self.window.start or wanted.end > self.window.end:
            return "outside of the offer's window"
        if (wanted.start - self.window.start) % unit.seconds or (wanted.end - self.window.start) % unit.seconds:
            return f"begins or ends between two multiples of {unit.seconds} seconds"
        if wanted.nodes % unit.nodes or wanted.amount % unit.amount:
            return f"no multiple of {unit.nodes} nodes and {unit.amount} {self.measure}"
        if wanted.nodes > part.nodes:
            return f"{wanted.nodes} nodes of {part.nodes}"
        most = part.most(self.measure, wanted.nodes, wanted.end - wanted.start)
        if wanted.amount > most:
            return f"{wanted.amount} {self.measure}, where so many nodes give {most}"
        return ""


def _malformed(why: str) -> Malformed:
    return Malformed("offer is malformed", why=why)
