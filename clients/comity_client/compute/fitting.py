"""Whether a model fits into accelerators that somebody lends. Arithmetic alone, and every line of it is shown.

    per accelerator    weights and KV-cache, divided by tensor over the accelerators of a node, by layer over nodes
    usable             its memory less a margin, for activations, the engine, its kernels, and fragmentation
    it fits            with the fewest accelerators whose share is at most what is usable

A tensor split divides the attention heads; a layer's KV heads are not cut, so more accelerators than KV heads keep
copies. Layers are whole: the fullest node counts. The margin is an assumption and is printed as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity_client.compute.attention import Cache, UnknownCache
from comity_client.compute.weights import Weights

GIB: Final = 1 << 30
MARGIN_PERCENT: Final = 10
KV_WIDTHS: Final = {"bf16": 2, "fp16": 2, "fp8": 1, "fp32": 4}
"""Bytes a number in the KV-cache, by what people call it."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is to run: `batch` sequences at a time of `context` tokens each, the KV-cache in `kv` numbers."""

    context: int
    batch: int = 1
    kv: str = "bf16"
    margin_percent: int = MARGIN_PERCENT


@dataclass(frozen=True, slots=True)
class Model:
    """A model as far as memory is concerned."""

    title: str
    weights: Weights
    cache: Cache | UnknownCache


@dataclass(frozen=True, slots=True)
class Room:
    """Accelerators of one kind: `count` on each of `nodes` nodes, `memory_gib` each. `interconnect` joins those of a
    node, `fabric` the nodes; both are the provider's words, and empty where it names none."""

    accelerator: str
    count: int
    memory_gib: int
    nodes: int
    interconnect: str = ""
    fabric: str = ""


@dataclass(frozen=True, slots=True)
class Fit:
    """The answer for one room.

    Attributes:
        fits: None where the weights fit and the KV-cache is unknown.
        per_node, nodes: the accelerators that it takes, or the most there are.
        because: one sentence.
        lines: the arithmetic, as (what, how much and how).
    """

    fits: bool | None
    per_node: int
    nodes: int
    because: str
    lines: tuple[tuple[str, str], ...]

    @property
    def accelerators(self) -> int:
        return self.per_node * self.nodes


@dataclass(frozen=True, slots=True)
class _Share:
    """What one accelerator of `per_node` on each of `nodes` keeps, in bytes."""

    per_node: int
    nodes: int
    weights: int
    cache: int

    @property
    def total(self) -> int:
        return self.weights + self.cache


def fit(model: Model, room: Room, work: Workload) -> Fit:
    """Whether, and with how many accelerators, `model` runs `work` in `room`."""
    usable = room.memory_gib * GIB * (100 - work.margin_percent) // 100
    shares = [_share(model, work, per_node, nodes) for nodes in _nodes(room) for per_node in _splits(model, room)]
    best = next((share for share in shares if share.total <= usable), None)
    shown = best or min(shares, key=lambda share: share.total)
    lines = (*_needs(model, work), *_room(room, work, usable), _shared(shown, usable))
    if best is None:
        return Fit(False, shown.per_node, shown.nodes, _why_not(room, shown, usable), lines)
    where = _where(best, room)
    if isinstance(model.cache, UnknownCache):
        return Fit(None, best.per_node, best.nodes, f"the weights fit with {where}; the KV-cache is unknown: "
                   f"{model.cache.why}", lines)  # fmt: skip
    return Fit(True, best.per_node, best.nodes, f"fits with {where}", lines)


def gib(count: int) -> str:
    """`12.55 GiB`."""
    return f"{count / GIB:,.2f} GiB"


def _nodes(room: Room) -> range:
    return range(1, room.nodes + 1 if room.fabric else 2)


def _splits(model: Model, room: Room) -> list[int]:
    """Over how many accelerators of a node it can be split; powers of two where its heads are unknown."""
    counts = range(1, room.count + 1)
    if isinstance(model.cache, UnknownCache):
        return [count for count in counts if count.bit_count() == 1]
    return [count for count in counts if model.cache.attention_heads % count == 0]


def _share(model: Model, work: Workload, per_node: int, nodes: int) -> _Share:
    cache = model.cache
    if isinstance(cache, UnknownCache):
        return _Share(per_node, nodes, _up(model.weights.total, per_node * nodes), 0)
    layers = _up(cache.depth, nodes)
    weights = _up(model.weights.total * layers, cache.depth * per_node)
    heads = _up(cache.heads, per_node)
    kept = cache.bytes(work.context, work.batch, KV_WIDTHS[work.kv])
    return _Share(per_node, nodes, weights, _up(kept * layers * heads, cache.depth * cache.heads))


def _needs(model: Model, work: Workload) -> tuple[tuple[str, str], ...]:
    weights, cache = model.weights, model.cache
    types = ", ".join(f"{name} {gib(weights.by_type[name])}" for name in weights.types)
    kept = ("weights", f"{gib(weights.total)}: {types}; from {weights.source}")
    if isinstance(cache, UnknownCache):
        return kept, ("KV-cache", f"unknown: {cache.why}")
    width = KV_WIDTHS[work.kv]
    total = cache.bytes(work.context, work.batch, width)
    windowed = f" + {cache.windowed} layers x {min(work.context, cache.window):,} tokens (window)"
    tokens = f"{cache.layers} layers x {work.context:,} tokens{windowed if cache.windowed else ''}"
    how = f"({tokens}) x ({cache.formula}) x {width} bytes ({work.kv}) x {work.batch} at a time"
    return kept, ("KV-cache", f"{gib(total)}: {how}; {cache.kind}"), ("together", gib(weights.total + total))


def _room(room: Room, work: Workload, usable: int) -> tuple[tuple[str, str], ...]:
    joined = room.interconnect or "an interconnect that the offer does not name"
    offered = f"{room.nodes} x {room.count} {room.accelerator} of {room.memory_gib} GiB, joined by {joined}"
    apart = f"; nodes by {room.fabric}" if room.fabric else "; no fabric between nodes is named, so one node counts"
    kept = f"{work.margin_percent} % of it kept free for activations, engine and fragmentation: an assumption"
    return ("offered", offered + (apart if room.nodes > 1 else "")), ("usable", f"{gib(usable)} each: {kept}")


def _shared(share: _Share, usable: int) -> tuple[str, str]:
    how = f"{gib(share.weights)} of weights + {gib(share.cache)} of KV-cache"
    sign = "at most" if share.total <= usable else "more than"
    return f"on {share.per_node} x {share.nodes}", f"{gib(share.total)} each ({how}), {sign} {gib(usable)}"


def _where(share: _Share, room: Room) -> str:
    count = share.per_node * share.nodes
    nodes = "" if share.nodes == 1 else f", {share.per_node} on each of {share.nodes} nodes"
    return f"{count} {room.accelerator}{nodes}"


def _why_not(room: Room, share: _Share, usable: int) -> str:
    apart = "" if room.fabric or room.nodes == 1 else f"; {room.nodes} nodes without a fabric between them are not one"
    return (
        f"does not fit, because each of {_where(share, room)} would hold {gib(share.total)}, "
        f"and {gib(usable)} are usable{apart}"
    )


def _up(total: int, parts: int) -> int:
    return -(-total // parts)
