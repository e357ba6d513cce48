"""The offer document: what a provider lends, where the machines are, who may ask, and on which terms. Integers only.

A *slice* is a number of equal nodes, with a total amount in units of the offer's measure that may be granted from them.
An *allocation* is nodes of one slice over an interval, and the amount that may be used within it. A window is divided
into granules; allocations begin and end at granule boundaries.

    {"schema":"comity/offer/v1","provider":"…","log":"node-ch/log+1a2b3c4d+AZ…","title":"Spare H100 nodes",…}

An offer is identified by the SHA-256 of its document, which names the only log that may grant it. A later offer in that
log may supersede it: the chain of grants continues under the new terms, and grants stay valid. Nobody can prove that
the same hardware is not in two offers: the provider states it. Source: protocol, section 9.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.trust.encoding import LAST_TIME, Digest, Fields, Json, bare_digest, canonical, parse_canonical, sha256
from comity.trust.errors import Malformed
from comity.trust.identity import check_jurisdiction
from comity.trust.tlog.note import ED25519, VerifierKey

NODE_HOURS: Final = "node-hours"
ACCELERATOR_HOURS: Final = "accelerator-hours"
MEASURES: Final = (NODE_HOURS, ACCELERATOR_HOURS)
HOUR: Final = 3600
MAX_TIME: Final = LAST_TIME
MAX_AMOUNT: Final = 10**12
MAX_NODES: Final = 10**6
MAX_SLICES: Final = 8
MAX_ATTRIBUTES: Final = 32
MAX_GRANULES: Final = 100_000
"""Maximum granules of a window; bounds the size of its profile."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` up to `end`, POSIX seconds. Raises Malformed if empty."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= MAX_TIME:
            raise Malformed("not a window", why=f"expected 0 <= start < end <= {MAX_TIME}")

    @classmethod
    def read(cls, fields: Fields) -> Window:
        made = cls(fields.integer("start", most=MAX_TIME), fields.integer("end", most=MAX_TIME))
        fields.done()
        return made

    def to_json(self) -> dict[str, Json]:
        return {"start": self.start, "end": self.end}


@dataclass(frozen=True, slots=True)
class Granularity:
    """Smallest unit of a grant: nodes, seconds, amount. Every grant is a multiple of it."""

    nodes: int = 1
    seconds: int = HOUR
    amount: int = 1

    def __post_init__(self) -> None:
        if not (1 <= self.nodes <= MAX_NODES and 1 <= self.seconds <= MAX_TIME and 1 <= self.amount <= MAX_AMOUNT):
            raise Malformed("not a granularity", why="nodes, seconds and amount are at least 1")

    @classmethod
    def read(cls, fields: Fields) -> Granularity:
        made = cls(fields.integer("nodes"), fields.integer("seconds"), fields.integer("amount"))
        fields.done()
        return made

    def to_json(self) -> dict[str, Json]:
        return {"nodes": self.nodes, "seconds": self.seconds, "amount": self.amount}


@dataclass(frozen=True, slots=True)
class Slice:
    """Equal nodes that are offered together.

    Attributes:
        name: unique within the offer; allocations refer to it.
        vendor, accelerator: SkyPilot's names (`NVIDIA`, `H100`); empty if `count` is 0.
        count: accelerators of one node.
        memory_gib: memory of one accelerator.
        interconnect: between the accelerators of a node (`NVLink`); empty for none or unknown.
        nodes: number of nodes at every instant of the window.
        cpus, ram_gib, disk_gib: of one node.
        fabric: between the nodes (`InfiniBand NDR`); empty for none or unknown.
        amount: total that may be granted, in units of the offer's measure.
        attributes: further properties; names are free.
        strict: a reader that does not know every attribute must not use the slice.
    """

    name: str
    vendor: str
    accelerator: str
    count: int
    memory_gib: int
    interconnect: str
    nodes: int
    cpus: int
    ram_gib: int
    disk_gib: int
    fabric: str
    amount: int
    attributes: tuple[tuple[str, str], ...] = ()
    strict: bool = False

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise Malformed("slice is malformed", why=f"its name {self.name[:40]!r} is not a short lower-case word")
        if bool(self.accelerator) != (self.count > 0):
            raise Malformed("slice is malformed", why="an accelerator needs a count, and a count needs an accelerator")
        names = [name for name, _ in self.attributes]
        if names != sorted(set(names)) or len(names) > MAX_ATTRIBUTES:
            raise Malformed("slice is malformed", why=f"at most {MAX_ATTRIBUTES} attributes, each once, sorted by name")

    @classmethod
    def read(cls, value: Json) -> Slice:
        fields = Fields(value, "slice")
        made = cls(
            name=fields.text("name"),
            vendor=fields.text("vendor", least=0, most=64),
            accelerator=fields.text("accelerator", least=0, most=64),
            count=fields.integer("count", most=1024),
            memory_gib=fields.integer("memory_gib", most=10**6),
            interconnect=fields.text("interconnect", least=0, most=100),
            nodes=fields.integer("nodes", most=MAX_NODES),
            cpus=fields.integer("cpus", most=10**6),
            ram_gib=fields.integer("ram_gib", most=10**9),
            disk_gib=fields.integer("disk_gib", most=10**9),
            fabric=fields.text("fabric", least=0, most=100),
            amount=fields.integer("amount", least=1, most=MAX_AMOUNT),
            attributes=_attributes(fields.take("attributes")),
            strict=fields.boolean("strict"),
        )
        fields.done()
        return made

    def to_json(self) -> dict[str, Json]:
        return {
            "name": self.name,
            "vendor": self.vendor,
            "accelerator": self.accelerator,
            "count": self.count,
            "memory_gib": self.memory_gib,
            "interconnect": self.interconnect,
            "nodes": self.nodes,
            "cpus": self.cpus,
            "ram_gib": self.ram_gib,
            "disk_gib": self.disk_gib,
            "fabric": self.fabric,
            "amount": self.amount,
            "attributes": dict(self.attributes),
            "strict": self.strict,
        }

    def same_kind(self, other: Slice) -> bool:
        """Whether grants of this slice may continue with the other."""
        kind = (self.name, self.vendor, self.accelerator, self.count, self.memory_gib)
        return kind == (other.name, other.vendor, other.accelerator, other.count, other.memory_gib)

    def max_amount(self, measure: str, nodes: int, seconds: int) -> int:
        """Amount of `measure` that `nodes` nodes give in `seconds`, rounded down."""
        return nodes * seconds * (self.count if measure == ACCELERATOR_HOURS else 1) // HOUR


@dataclass(frozen=True, slots=True)
class SliceAllocation:
    """`nodes` nodes of the slice named `slice` from `start` up to `end`, with at most `amount` used in total."""

    slice: str
    nodes: int
    start: int
    end: int
    amount: int

    def __post_init__(self) -> None:
        if not (1 <= self.nodes <= MAX_NODES and 1 <= self.amount <= MAX_AMOUNT):
            raise Malformed("allocation is malformed", why="nodes and amount are at least 1")
        Window(self.start, self.end)

    @classmethod
    def read(cls, value: Json) -> SliceAllocation:
        fields = Fields(value, "allocation")
        made = cls(
            fields.text("slice", most=32),
            fields.integer("nodes"),
            fields.integer("start"),
            fields.integer("end"),
            fields.integer("amount"),
        )
        fields.done()
        return made

    def to_json(self) -> dict[str, Json]:
        return {
            "slice": self.slice,
            "nodes": self.nodes,
            "start": self.start,
            "end": self.end,
            "amount": self.amount,
        }


def read_allocations(fields: Fields, name: str = "allocations") -> tuple[SliceAllocation, ...]:
    """1 to 8 allocations, at most one of each slice. Raises Malformed."""
    found = tuple(SliceAllocation.read(item) for item in fields.items(name, least=1, most=MAX_SLICES))
    if len({allocation.slice for allocation in found}) != len(found):
        raise fields.error("a slice is named twice")
    return found


def _attributes(value: Json) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping):
        raise Malformed("slice is malformed", why="attributes are an object")
    fields = Fields(value, "slice attributes")
    if any(not 1 <= len(name) <= 64 or not name.isprintable() for name in value):
        raise Malformed("slice is malformed", why="an attribute's name has 1 to 64 printable characters")
    return tuple((name, fields.text(name, least=0, most=200)) for name in sorted(value))


def read_amounts(fields: Fields, name: str = "amounts") -> tuple[int, ...]:
    """1 to 8 amounts in the order of a grant's allocations, not all 0. Raises Malformed."""
    found = tuple(_amount(item) for item in fields.items(name, most=MAX_SLICES))
    if not any(found):
        raise fields.error("all amounts are 0")
    return found


def read_remaining(fields: Fields, name: str = "remaining") -> tuple[int, ...]:
    """1 to 8 amounts in the order of an offer's slices. Raises Malformed."""
    return tuple(_amount(item) for item in fields.items(name, least=1, most=MAX_SLICES))


def _amount(item: Json) -> int:
    if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item <= MAX_AMOUNT:
        raise Malformed("not an amount", why=f"expected an integer from 0 to {MAX_AMOUNT}")
    return item


ENGINES: Final = ("slurm", "kubernetes", "skypilot", "ssh")
TERMS: Final = ("grant", "price", "reciprocal")
ELIGIBLE: Final = ("anyone", "members", "listed")
MAX_LISTED: Final = 64
_CURRENCY = re.compile(r"[A-Z]{3}\Z")


@dataclass(frozen=True, slots=True)
class OfferLocation:
    """Location of the machines and legal reach, as the provider states them.

    Attributes:
        jurisdiction: ISO 3166-1 alpha-2, or a name that a charter defines.
        operator: operator of the machines.
        cloud_parent: owner of the cloud; empty for none.
        legal_reach: jurisdictions whose courts can order the operator or its parent, including its own.
    """

    jurisdiction: str
    operator: str
    cloud_parent: str = ""
    legal_reach: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for code in (self.jurisdiction, *self.legal_reach):
            check_jurisdiction(code)
        if list(self.legal_reach) != sorted(set(self.legal_reach)) or len(self.legal_reach) > MAX_LISTED:
            raise Malformed("location is malformed", why=f"at most {MAX_LISTED} jurisdictions, each once, sorted")

    @classmethod
    def read(cls, fields: Fields) -> OfferLocation:
        made = cls(
            fields.text("jurisdiction"),
            fields.text("operator", most=200),
            fields.text("cloud_parent", least=0, most=200),
            _texts(fields, "legal_reach"),
        )
        fields.done()
        return made

    def to_json(self) -> dict[str, Json]:
        return {
            "jurisdiction": self.jurisdiction,
            "operator": self.operator,
            "cloud_parent": self.cloud_parent,
            "legal_reach": list(self.legal_reach),
        }


@dataclass(frozen=True, slots=True)
class Eligibility:
    """Who may request: `anyone`, `members` of the provider's federation, or identities that are `listed`.

    `jurisdictions`, if not empty, restricts it to members of these.
    """

    who: str = "members"
    identities: tuple[Digest, ...] = ()
    jurisdictions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.who not in ELIGIBLE or (self.who == "listed") != bool(self.identities):
            raise Malformed(
                "eligibility is malformed", why=f"one of {', '.join(ELIGIBLE)}; only 'listed' has identities"
            )
        for code in self.jurisdictions:
            check_jurisdiction(code)
        for items in (self.identities, self.jurisdictions):
            if list(items) != sorted(set(items)) or len(items) > MAX_LISTED:
                raise Malformed("eligibility is malformed", why=f"at most {MAX_LISTED} items a list, each once, sorted")

    @classmethod
    def read(cls, fields: Fields) -> Eligibility:
        made = cls(
            fields.choice("who", ELIGIBLE),
            fields.digests("identities", most=MAX_LISTED),
            _texts(fields, "jurisdictions"),
        )
        fields.done()
        return made

    def to_json(self) -> dict[str, Json]:
        return {"who": self.who, "identities": list(self.identities), "jurisdictions": list(self.jurisdictions)}

    def admits(self, identity: Digest, jurisdiction: str | None) -> bool:
        """Whether an identity may request. `jurisdiction` is that of its seat; None if it has no seat."""
        if self.jurisdictions and jurisdiction not in self.jurisdictions:
            return False
        if self.who == "listed":
            return identity in self.identities
        return self.who == "anyone" or jurisdiction is not None


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms: `grant` (free), `price` (for each unit of the measure, in the currency's smallest unit) or `reciprocal`
    (counts in the balance of the two members). `text` is free text."""

    kind: str = "grant"
    price: int = 0
    currency: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        priced = self.kind == "price"
        right = _CURRENCY.match(self.currency) if priced else not (self.currency or self.price)
        if self.kind not in TERMS or not right:
            raise Malformed("terms are malformed", why="only a price has a currency, of three letters")

    @classmethod
    def read(cls, fields: Fields) -> Terms:
        made = cls(
            fields.choice("kind", TERMS),
            fields.integer("price", most=MAX_AMOUNT),
            fields.text("currency", least=0),
            fields.text("text", least=0, most=4000, lines=True),
        )
        fields.done()
        return made

    def to_json(self) -> dict[str, Json]:
        return {"kind": self.kind, "price": self.price, "currency": self.currency, "text": self.text}


@dataclass(frozen=True, slots=True)
class Engine:
    """The system that runs jobs of a grant. `target` is its local name: a partition, a queue, a context, a host."""

    kind: str
    target: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ENGINES:
            raise Malformed("engine is malformed", why=f"one of {', '.join(ENGINES)}")

    @classmethod
    def read(cls, fields: Fields) -> Engine:
        made = cls(fields.choice("kind", ENGINES), fields.text("target", least=0, most=200))
        fields.done()
        return made

    def to_json(self) -> dict[str, Json]:
        return {"kind": self.kind, "target": self.target}


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    items = fields.items(name, most=MAX_LISTED)
    each = Fields({str(at): item for at, item in enumerate(items)}, name)
    return tuple(each.text(str(at)) for at in range(len(items)))


SCHEMA: Final = "comity/offer/v1"
MAX_BYTES: Final = 32_768
MAX_ARTIFACTS: Final = 256
MAX_ACCEPT: Final = 366 * 86_400
"""Maximum seconds to accept a grant."""


@dataclass(frozen=True, slots=True)
class Offer:
    """An offer document. Raises Malformed for values that are not consistent.

    Attributes:
        provider: the member that lends.
        log: verifier key of the only log that may grant it, of a node of that member.
        measure: unit of amounts, `node-hours` or `accelerator-hours`.
        accept_seconds: seconds that a grantee has to accept a grant.
        artifacts: digests of the models that are stored near the machines.
        supersedes: id of the offer in the same log whose chain this one continues.
        id: SHA-256 of `encode`; requests and grants use it.
    """

    provider: Digest
    log: str
    title: str
    measure: str
    slices: tuple[Slice, ...]
    window: Window
    granularity: Granularity
    location: OfferLocation
    eligibility: Eligibility
    terms: Terms
    engine: Engine
    accept_seconds: int
    artifacts: tuple[Digest, ...] = ()
    contact: str = ""
    supersedes: Digest | None = None
    id: Digest = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if VerifierKey.parse(self.log).type != ED25519:
            raise _malformed("its log is not a log verifier key")
        if self.measure not in MEASURES:
            raise _malformed(f"its measure is not one of {', '.join(MEASURES)}")
        names = [part.name for part in self.slices]
        if not 1 <= len(names) <= MAX_SLICES or len(set(names)) != len(names):
            raise _malformed(f"it needs 1 to {MAX_SLICES} slices with different names")
        length, unit = self.window.end - self.window.start, self.granularity.seconds
        if length % unit or length // unit > MAX_GRANULES:
            raise _malformed(f"its window is not 1 to {MAX_GRANULES} whole granules long")
        for part in self.slices:
            if part.nodes % self.granularity.nodes or part.amount % self.granularity.amount:
                raise _malformed(f"slice {part.name} is not a multiple of the granularity")
            if part.amount > (most := part.max_amount(self.measure, part.nodes, length)):
                raise _malformed(f"slice {part.name} has at most {most} {self.measure} in its window")
        if not 1 <= self.accept_seconds <= MAX_ACCEPT:
            raise _malformed(f"the time to accept is not 1 to {MAX_ACCEPT} seconds")
        if list(self.artifacts) != sorted(set(self.artifacts)) or len(self.artifacts) > MAX_ARTIFACTS:
            raise _malformed(f"its artifacts are not at most {MAX_ARTIFACTS}, each once, sorted")
        object.__setattr__(self, "id", sha256(self.encode()))

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
            slices=tuple(Slice.read(item) for item in fields.items("slices", most=MAX_SLICES)),
            window=Window.read(fields.object("window")),
            granularity=Granularity.read(fields.object("granularity")),
            location=OfferLocation.read(fields.object("location")),
            eligibility=Eligibility.read(fields.object("eligibility")),
            terms=Terms.read(fields.object("terms")),
            engine=Engine.read(fields.object("engine")),
            accept_seconds=fields.integer("accept_seconds", most=MAX_ACCEPT),
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
        """The document in canonical form, RFC 8785."""
        return canonical(self.to_json())

    def slice(self, name: str) -> Slice | None:
        return next((part for part in self.slices if part.name == name), None)

    def allocation_error(self, allocations: Sequence[SliceAllocation]) -> str:
        """Why this offer can never grant these allocations, whatever is free; empty if it can."""
        for wanted in allocations:
            if why := self._allocation_error(wanted):
                return f"slice {wanted.slice}: {why}"
        return ""

    def _allocation_error(self, wanted: SliceAllocation) -> str:
        part, unit = self.slice(wanted.slice), self.granularity
        if part is None:
            return "the offer has no such slice"
        if wanted.start < self.window.start or wanted.end > self.window.end:
            return "outside the offer's window"
        if (wanted.start - self.window.start) % unit.seconds or (wanted.end - self.window.start) % unit.seconds:
            return f"begin or end is not at multiples of {unit.seconds} seconds"
        if wanted.nodes % unit.nodes or wanted.amount % unit.amount:
            return f"not a multiple of {unit.nodes} nodes and {unit.amount} {self.measure}"
        if wanted.nodes > part.nodes:
            return f"{wanted.nodes} nodes exceed the {part.nodes} of the slice"
        most = part.max_amount(self.measure, wanted.nodes, wanted.end - wanted.start)
        if wanted.amount > most:
            return f"{wanted.amount} {self.measure} exceed the {most} that these nodes give"
        return ""


def _malformed(why: str) -> Malformed:
    return Malformed("offer is malformed", why=why)
