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
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any, ClassVar, Final

from comity.trust.codec import JsonInner, JsonItems, JsonMap, JsonNumber, JsonObject, JsonText, JsonWord
from comity.trust.encoding import LAST_TIME, Digest, Fields, Json, canonical, parse_canonical, sha256
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
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


@frozen
class Window(JsonObject):
    """From `start` up to `end`, POSIX seconds. Raises Malformed if empty."""

    start: Annotated[int, JsonNumber(most=MAX_TIME)]
    end: Annotated[int, JsonNumber(most=MAX_TIME)]

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= MAX_TIME:
            raise Malformed("not a window", why=f"expected 0 <= start < end <= {MAX_TIME}")


@frozen
class Granularity(JsonObject):
    """Smallest unit of a grant: nodes, seconds, amount. Every grant is a multiple of it."""

    nodes: int = 1
    seconds: int = HOUR
    amount: int = 1

    def __post_init__(self) -> None:
        if not (1 <= self.nodes <= MAX_NODES and 1 <= self.seconds <= MAX_TIME and 1 <= self.amount <= MAX_AMOUNT):
            raise Malformed("not a granularity", why="nodes, seconds and amount are at least 1")


class _Attributes(JsonMap):
    """Names and values, sorted by name. Each name has 1 to 64 printable characters."""

    def __init__(self) -> None:
        super().__init__(MAX_ATTRIBUTES, (), of=JsonText(200, 0))

    def allows(self, name: str) -> bool:
        return 1 <= len(name) <= 64 and name.isprintable()

    def read(self, fields: Fields, name: str) -> Any:
        return tuple(sorted(super().read(fields, name).items()))

    def write(self, value: Any) -> Json:
        return dict(value)


@frozen
class Slice(JsonObject):
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
    vendor: Annotated[str, JsonText(64, 0)]
    accelerator: Annotated[str, JsonText(64, 0)]
    count: Annotated[int, JsonNumber(most=1024)]
    memory_gib: Annotated[int, JsonNumber(most=10**6)]
    interconnect: Annotated[str, JsonText(100, 0)]
    nodes: Annotated[int, JsonNumber(most=MAX_NODES)]
    cpus: Annotated[int, JsonNumber(most=10**6)]
    ram_gib: Annotated[int, JsonNumber(most=10**9)]
    disk_gib: Annotated[int, JsonNumber(most=10**9)]
    fabric: Annotated[str, JsonText(100, 0)]
    amount: Annotated[int, JsonNumber(1, MAX_AMOUNT)]
    attributes: Annotated[tuple[tuple[str, str], ...], _Attributes()] = ()
    strict: bool = False

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise Malformed("slice is malformed", why=f"its name {self.name[:40]!r} is not a short lower-case word")
        if bool(self.accelerator) != (self.count > 0):
            raise Malformed("slice is malformed", why="an accelerator needs a count, and a count needs an accelerator")
        names = [name for name, _ in self.attributes]
        if names != sorted(set(names)) or len(names) > MAX_ATTRIBUTES:
            raise Malformed("slice is malformed", why=f"at most {MAX_ATTRIBUTES} attributes, each once, sorted by name")

    def same_kind(self, other: Slice) -> bool:
        """Whether grants of this slice may continue with the other."""
        kind = (self.name, self.vendor, self.accelerator, self.count, self.memory_gib)
        return kind == (other.name, other.vendor, other.accelerator, other.count, other.memory_gib)

    def max_amount(self, measure: str, nodes: int, seconds: int) -> int:
        """Amount of `measure` that `nodes` nodes give in `seconds`, rounded down."""
        return nodes * seconds * (self.count if measure == ACCELERATOR_HOURS else 1) // HOUR


@frozen
class SliceAllocation(JsonObject):
    """`nodes` nodes of the slice named `slice` from `start` up to `end`, with at most `amount` used in total."""

    slice: Annotated[str, JsonText(32)]
    nodes: int
    start: int
    end: int
    amount: int

    def __post_init__(self) -> None:
        if not (1 <= self.nodes <= MAX_NODES and 1 <= self.amount <= MAX_AMOUNT):
            raise Malformed("allocation is malformed", why="nodes and amount are at least 1")
        Window(self.start, self.end)


class _Allocations(JsonItems):
    """1 to 8 allocations, at most one of each slice."""

    def __init__(self) -> None:
        super().__init__(MAX_SLICES, 1, of=JsonInner(SliceAllocation), form="allocations")

    def read(self, fields: Fields, name: str) -> tuple[SliceAllocation, ...]:
        found = super().read(fields, name)
        if len({allocation.slice for allocation in found}) != len(found):
            raise fields.error("a slice is named twice")
        return found


class _Amounts(JsonItems):
    """1 to 8 amounts in the order of a grant's allocations, not all 0."""

    def __init__(self) -> None:
        super().__init__(MAX_SLICES, of=_AMOUNT, form="amounts")

    def read(self, fields: Fields, name: str) -> tuple[int, ...]:
        found = super().read(fields, name)
        if not any(found):
            raise fields.error("all amounts are 0")
        return found


_AMOUNT: Final = JsonNumber(0, MAX_AMOUNT)
ALLOCATIONS: Final = _Allocations()
AMOUNTS: Final = _Amounts()
REMAINING: Final = JsonItems(MAX_SLICES, 1, of=_AMOUNT, form="remaining")
"""Amounts in the order of an offer's slices."""


ENGINES: Final = ("slurm", "kubernetes", "skypilot", "ssh")
TERMS: Final = ("grant", "price", "reciprocal")
ELIGIBLE: Final = ("anyone", "members", "listed")
MAX_LISTED: Final = 64
_CURRENCY = re.compile(r"[A-Z]{3}\Z")


@frozen
class OfferLocation(JsonObject):
    """Location of the machines and legal reach, as the provider states them.

    Attributes:
        jurisdiction: ISO 3166-1 alpha-2, or a name that a charter defines.
        operator: operator of the machines.
        cloud_parent: owner of the cloud; empty for none.
        legal_reach: jurisdictions whose courts can order the operator or its parent, including its own.
    """

    jurisdiction: str
    operator: Annotated[str, JsonText(200)]
    cloud_parent: Annotated[str, JsonText(200, 0)] = ""
    legal_reach: Annotated[tuple[str, ...], JsonItems(MAX_LISTED)] = ()

    def __post_init__(self) -> None:
        for code in (self.jurisdiction, *self.legal_reach):
            check_jurisdiction(code)
        if list(self.legal_reach) != sorted(set(self.legal_reach)) or len(self.legal_reach) > MAX_LISTED:
            raise Malformed("location is malformed", why=f"at most {MAX_LISTED} jurisdictions, each once, sorted")


@frozen
class Eligibility(JsonObject):
    """Who may request: `anyone`, `members` of the provider's federation, or identities that are `listed`.

    `jurisdictions`, if not empty, restricts it to members of these.
    """

    who: Annotated[str, JsonWord(ELIGIBLE)] = "members"
    identities: Annotated[tuple[Digest, ...], JsonItems(MAX_LISTED)] = ()
    jurisdictions: Annotated[tuple[str, ...], JsonItems(MAX_LISTED)] = ()

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

    def admits(self, identity: Digest, jurisdiction: str | None) -> bool:
        """Whether an identity may request. `jurisdiction` is that of its seat; None if it has no seat."""
        if self.jurisdictions and jurisdiction not in self.jurisdictions:
            return False
        if self.who == "listed":
            return identity in self.identities
        return self.who == "anyone" or jurisdiction is not None


@frozen
class Terms(JsonObject):
    """Terms: `grant` (free), `price` (for each unit of the measure, in the currency's smallest unit) or `reciprocal`
    (counts in the balance of the two members). `text` is free text."""

    kind: Annotated[str, JsonWord(TERMS)] = "grant"
    price: Annotated[int, JsonNumber(most=MAX_AMOUNT)] = 0
    currency: Annotated[str, JsonText(least=0)] = ""
    text: Annotated[str, JsonText(4000, 0, lines=True)] = ""

    def __post_init__(self) -> None:
        priced = self.kind == "price"
        right = _CURRENCY.match(self.currency) if priced else not (self.currency or self.price)
        if self.kind not in TERMS or not right:
            raise Malformed("terms are malformed", why="only a price has a currency, of three letters")


@frozen
class Engine(JsonObject):
    """The system that runs jobs of a grant. `target` is its local name: a partition, a queue, a context, a host."""

    kind: Annotated[str, JsonWord(ENGINES)]
    target: Annotated[str, JsonText(200, 0)] = ""

    def __post_init__(self) -> None:
        if self.kind not in ENGINES:
            raise Malformed("engine is malformed", why=f"one of {', '.join(ENGINES)}")


SCHEMA: Final = "comity/offer/v1"
MAX_BYTES: Final = 32_768
MAX_ARTIFACTS: Final = 256
MAX_ACCEPT: Final = 366 * 86_400
"""Maximum seconds to accept a grant."""


@frozen
class Offer(JsonObject):
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

    constants: ClassVar = {"schema": SCHEMA}
    provider: Digest
    log: str
    title: Annotated[str, JsonText(200)]
    measure: Annotated[str, JsonWord(MEASURES)]
    slices: Annotated[tuple[Slice, ...], JsonItems(MAX_SLICES)]
    window: Window
    granularity: Granularity
    location: OfferLocation
    eligibility: Eligibility
    terms: Terms
    engine: Engine
    accept_seconds: Annotated[int, JsonNumber(most=MAX_ACCEPT)]
    artifacts: Annotated[tuple[Digest, ...], JsonItems(MAX_ARTIFACTS)] = ()
    contact: Annotated[str, JsonText(400, 0)] = ""
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
