"""What an offer has to give, and what is asked for or given out of it. Integers only.

A *slice* is a number of equal nodes, and an amount in units of the offer's measure that may be given out of them
altogether. An *allocation* is nodes of one slice over an interval, and how much may be used within it. A window is cut
into granules; allocations begin and end at their boundaries. Source: protocol, section 9.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from comity.trust.encoding import Json
from comity.trust.errors import Malformed
from comity.trust.fields import Fields

NODE_HOURS: Final = "node-hours"
ACCELERATOR_HOURS: Final = "accelerator-hours"
MEASURES: Final = (NODE_HOURS, ACCELERATOR_HOURS)
HOUR: Final = 3600
MAX_TIME: Final = 2**40
MAX_AMOUNT: Final = 10**12
MAX_NODES: Final = 10**6
MAX_SLICES: Final = 8
MAX_ATTRIBUTES: Final = 32
MAX_GRANULES: Final = 100_000
"""Granules of a window: what a profile of it may grow to."""

_WORD = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` up to `end`, POSIX seconds. Raises Malformed for an empty one."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= MAX_TIME:
            raise Malformed("not a window", why="it ends before it begins, or beyond all times")

    @classmethod
    def read(cls, fields: Fields) -> Window:
        made = cls(fields.integer("start", most=MAX_TIME), fields.integer("end", most=MAX_TIME))
        fields.done()
        return made

    def to_json(self) -> dict[str, Json]:
        return {"start": self.start, "end": self.end}


@dataclass(frozen=True, slots=True)
class Granularity:
    """The least that is given out, and what all that is given out is a multiple of: nodes, seconds, amount."""

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
        name: within the offer; what allocations refer to.
        vendor, accelerator: in SkyPilot's spelling (`NVIDIA`, `H100`); empty where `count` is 0.
        count: accelerators of one node.
        memory_gib: of one accelerator.
        interconnect: between the accelerators of a node (`NVLink`); empty for none, or not said.
        nodes: how many there are at every instant of the window.
        cpus, ram_gib, disk_gib: of one node.
        fabric: between the nodes (`InfiniBand NDR`); empty for none, or not said.
        amount: that may be given out altogether, in units of the offer's measure.
        attributes: what else there is to say; names are free.
        strict: whoever does not understand every attribute is not to use the slice.
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
        if not _WORD.match(self.name):
            raise Malformed("slice is malformed", why=f"its name {self.name[:40]!r} is not a short lower-case word")
        if bool(self.accelerator) != (self.count > 0):
            raise Malformed("slice is malformed", why="an accelerator and how many a node has come together")
        names = [name for name, _ in self.attributes]
        if names != sorted(set(names)) or len(names) > MAX_ATTRIBUTES:
            raise Malformed("slice is malformed", why=f"at most {MAX_ATTRIBUTES} attributes, each once, sorted by name")

    @classmethod
    def read(cls, value: Json) -> Slice:
        fields = Fields(value, "slice")
        made = cls(
            name=fields.text("name", most=32),
            vendor=fields.text("vendor", least=0, most=64),
            accelerator=fields.text("accelerator", least=0, most=64),
            count=fields.integer("count", most=1024),
            memory_gib=fields.integer("memory_gib", most=10**6),
            interconnect=fields.text("interconnect", least=0, most=100),
            nodes=fields.integer("nodes", least=1, most=MAX_NODES),
            cpus=fields.integer("cpus", most=10**6),
            ram_gib=fields.integer("ram_gib", most=10**9),
            disk_gib=fields.integer("disk_gib", most=10**9),
            fabric=fields.text("fabric", least=0, most=100),
            amount=fields.integer("amount", least=1, most=MAX_AMOUNT),
            attributes=_attributes(fields.take("attributes")),
            strict=read_flag(fields, "strict"),
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
        """Whether what was given out of one can be kept by the other."""
        kind = (self.name, self.vendor, self.accelerator, self.count, self.memory_gib)
        return kind == (other.name, other.vendor, other.accelerator, other.count, other.memory_gib)

    def most(self, measure: str, nodes: int, seconds: int) -> int:
        """How much of `measure` that many nodes give in so long, rounded down."""
        return nodes * seconds * (self.count if measure == ACCELERATOR_HOURS else 1) // HOUR


@dataclass(frozen=True, slots=True)
class Allocation:
    """`nodes` of the slice called `slice` from `start` up to `end`, and at most `amount` used of them in all."""

    slice: str
    nodes: int
    start: int
    end: int
    amount: int

    def __post_init__(self) -> None:
        if not (1 <= self.nodes <= MAX_NODES and 1 <= self.amount <= MAX_AMOUNT):
            raise Malformed("allocation is malformed", why="it has at least one node and an amount of one")
        Window(self.start, self.end)

    @classmethod
    def read(cls, value: Json) -> Allocation:
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


def read_allocations(fields: Fields, name: str = "allocations") -> tuple[Allocation, ...]:
    """1 to 8 allocations, each of another slice. Raises Malformed."""
    found = tuple(Allocation.read(item) for item in fields.items(name, least=1, most=MAX_SLICES))
    if len({allocation.slice for allocation in found}) != len(found):
        raise fields.error("a slice is asked for twice")
    return found


def read_flag(fields: Fields, name: str) -> bool:
    """A member that is true or false. Raises Malformed."""
    value = fields.take(name)
    if not isinstance(value, bool):
        raise fields.error(f"member {name!r} must be true or false")
    return value


def _attributes(value: Json) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping) or len(value) > MAX_ATTRIBUTES:
        raise Malformed("slice is malformed", why=f"attributes are an object of at most {MAX_ATTRIBUTES} members")
    fields = Fields(value, "slice attributes")
    if any(not 1 <= len(name) <= 64 or not name.isprintable() for name in value):
        raise Malformed("slice is malformed", why="an attribute's name has 1 to 64 printable characters")
    return tuple((name, fields.text(name, least=0, most=200)) for name in sorted(value))


def read_amounts(fields: Fields, name: str = "amounts") -> tuple[int, ...]:
    """1 to 8 amounts, in the order of a grant's allocations; not all 0. Raises Malformed."""
    found = tuple(_amount(item) for item in fields.items(name, least=1, most=MAX_SLICES))
    if not any(found):
        raise fields.error("nothing is used")
    return found


def read_remaining(fields: Fields, name: str = "remaining") -> tuple[int, ...]:
    """1 to 8 amounts, in the order of an offer's slices. Raises Malformed."""
    return tuple(_amount(item) for item in fields.items(name, least=1, most=MAX_SLICES))


def _amount(item: Json) -> int:
    if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item <= MAX_AMOUNT:
        raise Malformed("not an amount", why=f"expected an integer from 0 to {MAX_AMOUNT}")
    return item
