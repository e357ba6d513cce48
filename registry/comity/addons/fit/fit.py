"""Whether a model fits into offered accelerators: the arithmetic of its weights and KV-cache.

    per accelerator    weights and KV-cache, divided by tensor over the accelerators of a node, by layer over nodes
    memory             of one accelerator: as the offer declares it, or as its lender measured it, if that is less
    usable             memory minus a margin (an assumption) for activations, the engine, its kernels, fragmentation
    it fits            with the fewest accelerators whose share is at most the usable memory
    rate               measured bandwidth divided by the share: how often a second all of it can be read

A tensor split divides the attention heads. KV heads are not divided, so more accelerators than KV heads keep copies.
Layers are not divided: the node with the most layers counts.
"""

from __future__ import annotations

from typing import Final

from comity_client.offers.handoff import LABEL
from comity_client.offers.measure import MIB, NAME, PREFIX, MeasuredFigures

from comity.addons.fit.kv_cache import UnknownCache
from comity.addons.fit.model_memory import Model
from comity.rules.offers.offer import Slice
from comity.trust.frozen import frozen

GIB: Final = 1 << 30
MARGIN_PERCENT: Final = 10
KV_WIDTHS: Final = {"bf16": 2, "fp16": 2, "fp8": 1, "fp32": 4}
"""Bytes of a number in the KV-cache, by the name of its type."""


@frozen
class Workload:
    """A workload: `batch` concurrent sequences of `context` tokens each, with a KV-cache of number type `kv`."""

    context: int
    batch: int = 1
    kv: str = "bf16"
    margin_percent: int = MARGIN_PERCENT


@frozen
class AcceleratorGroup:
    """Accelerators of one kind: `count` on each of `nodes` nodes, with `memory_gib` each. The provider states
    `interconnect` (within a node) and `fabric` (between nodes); empty if it names none. `measured` are the lender's own
    figures; None if the offer has none of a known benchmark."""

    accelerator: str
    count: int
    memory_gib: int
    nodes: int
    interconnect: str = ""
    fabric: str = ""
    measured: MeasuredFigures | None = None

    @property
    def memory(self) -> int:
        """Bytes of one accelerator: the declared memory, or less if the lender measured less."""
        declared = self.memory_gib * GIB
        capacity = self.measured.capacity_mib * MIB if self.measured else 0
        return min(declared, capacity) if capacity else declared


@frozen
class OfferFit:
    """The result for one accelerator group.

    Attributes:
        fits: None if the weights fit and the KV-cache is unknown.
        per_node, nodes: the accelerators that are needed, or all that there are.
        because: the reason, one sentence.
        lines: the arithmetic as pairs (name, value with formula).
    """

    fits: bool | None
    per_node: int
    nodes: int
    because: str
    lines: tuple[tuple[str, str], ...]

    @property
    def accelerators(self) -> int:
        return self.per_node * self.nodes


@frozen
class _Share:
    """Bytes on one accelerator, with `per_node` accelerators on each of `nodes` nodes."""

    per_node: int
    nodes: int
    weights: int
    cache: int

    @property
    def total(self) -> int:
        return self.weights + self.cache


def fit(model: Model, group: AcceleratorGroup, work: Workload) -> OfferFit:
    """Whether, and with how many accelerators, `model` runs `work` on `group`."""
    usable = group.memory * (100 - work.margin_percent) // 100
    shares = [_share(model, work, per_node, nodes) for nodes in _nodes(group) for per_node in _splits(model, group)]
    best = next((share for share in shares if share.total <= usable), None)
    shown = best or min(shares, key=lambda share: share.total)
    lines = (
        *need_lines(model, work),
        *_offer_lines(group, work, usable),
        _share_line(shown, usable),
        _rate_line(group, shown),
    )
    if best is None:
        return OfferFit(False, shown.per_node, shown.nodes, _why_not(group, shown, usable), lines)
    where = _describe_share(best, group)
    if isinstance(model.cache, UnknownCache):
        return OfferFit(None, best.per_node, best.nodes, f"the weights fit with {where}; the KV-cache is unknown: "
                   f"{model.cache.why}", lines)  # fmt: skip
    return OfferFit(True, best.per_node, best.nodes, f"fits with {where}", lines)


def gib(count: int) -> str:
    """`12.55 GiB`."""
    return f"{count / GIB:,.2f} GiB"


def _nodes(group: AcceleratorGroup) -> range:
    return range(1, group.nodes + 1 if group.fabric else 2)


def _splits(model: Model, group: AcceleratorGroup) -> list[int]:
    """Possible numbers of accelerators of a node for a tensor split; powers of two if the heads are unknown."""
    counts = range(1, group.count + 1)
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


def need_lines(model: Model, work: Workload) -> tuple[tuple[str, str], ...]:
    """The memory that `model` needs for `work`, on any accelerators, as pairs (name, value with formula)."""
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


def _offer_lines(group: AcceleratorGroup, work: Workload, usable: int) -> tuple[tuple[str, str], ...]:
    joined = group.interconnect or "an interconnect that the offer does not name"
    offered = f"{group.nodes} x {group.count} {group.accelerator} of {group.memory_gib} GiB, joined by {joined}"
    apart = f"; nodes by {group.fabric}" if group.fabric else "; no fabric between nodes is named, so one node counts"
    kept = f"{work.margin_percent} % of it kept free for activations, engine and fragmentation: an assumption"
    basis = "declared"
    if group.memory < group.memory_gib * GIB:
        basis = f"measured by the lender ({gib(group.memory)}, {NAME})"
    elif group.measured and group.measured.capacity_mib:
        basis = f"declared; the lender measured {group.measured.capacity_mib} MiB"
    return (
        ("offered", offered + (apart if group.nodes > 1 else "")),
        ("usable", f"{gib(usable)} each, of the memory {basis}: {kept}"),
    )


def _rate_line(group: AcceleratorGroup, share: _Share) -> tuple[str, str]:
    """An upper limit for the decoding of a dense model, from figures that the lender claims."""
    if group.measured is None:
        return "rate", "not computed: the offer has declared figures only"
    rate = group.measured.memory.median * 1_000_000 // max(share.total, 1)
    how = f"{group.measured.memory}, measured by the lender with {NAME}: its claim"
    return "rate", f"all of it can be read {rate:,} times a second ({how})"


def _share_line(share: _Share, usable: int) -> tuple[str, str]:
    how = f"{gib(share.weights)} of weights + {gib(share.cache)} of KV-cache"
    sign = "at most" if share.total <= usable else "more than"
    return f"on {share.per_node} x {share.nodes}", f"{gib(share.total)} each ({how}), {sign} {gib(usable)}"


def _describe_share(share: _Share, group: AcceleratorGroup) -> str:
    count = share.per_node * share.nodes
    nodes = "" if share.nodes == 1 else f", {share.per_node} on each of {share.nodes} nodes"
    return f"{count} {group.accelerator}{nodes}"


def _why_not(group: AcceleratorGroup, share: _Share, usable: int) -> str:
    apart = (
        "" if group.fabric or group.nodes == 1 else f"; {group.nodes} nodes without a fabric between them are not one"
    )
    return (
        f"does not fit, because each of {_describe_share(share, group)} would hold {gib(share.total)}, "
        f"and {gib(usable)} are usable{apart}"
    )


def _up(total: int, parts: int) -> int:
    return -(-total // parts)


KNOWN_ATTRIBUTES = ("kubernetes-resource",)
"""Known attributes, in addition to labels and measured figures."""


def group_of(part: Slice) -> AcceleratorGroup | str:
    """The accelerator group of a slice, or the reason why it is not checked."""
    unknown = [
        name for name, _ in part.attributes if not name.startswith((LABEL, PREFIX)) and name not in KNOWN_ATTRIBUTES
    ]
    if part.strict and unknown:
        return f"it is strict and has unknown attributes: {', '.join(unknown)[:200]}"
    if not part.count or not part.memory_gib:
        return "it has no accelerators, or does not state their memory"
    measured = MeasuredFigures.of_attributes(dict(part.attributes))
    return AcceleratorGroup(
        part.accelerator, part.count, part.memory_gib, part.nodes, part.interconnect, part.fabric, measured
    )
