"""Whether a model fits into offered accelerators: size of its weights and KV-cache, and the arithmetic.

KV-cache, in numbers per token, from the configuration alone:

    multi-head, grouped, multi-query   2 x layers x KV heads x head dimension           keys and values
    latent (DeepSeek-V2 and V3)        layers x (latent rank + rotary dimension)        one compressed vector
    windowed layers that are listed    the same as above, at most the tokens of the window
    GGUF files                         layers x KV heads x (key + value length)

Other kinds are reported as unknown with the reason, never guessed: recurrent state, linear attention, windows that
engines treat differently, unlisted types. Sources: Shazeer 2019 (multi-query), Ainslie et al. 2023 (grouped),
DeepSeek-AI 2024, arXiv:2405.04434, section 2.1.

    per accelerator    weights and KV-cache, divided by tensor over the accelerators of a node, by layer over nodes
    memory             of one accelerator: as the offer declares it, or as its lender measured it, if that is less
    usable             memory minus a margin (an assumption) for activations, the engine, its kernels, fragmentation
    it fits            with the fewest accelerators whose share is at most the usable memory
    rate               measured bandwidth divided by the share: how often a second all of it can be read

A tensor split divides the attention heads. KV heads are not divided, so more accelerators than KV heads keep copies.
Layers are not divided: the node with the most layers counts.

Models are read from a folder or from nodes. From a node come `config.json`, complete and hashed, and the first pieces
of weight files, each hashed against the piece index of a signed statement. If headers cannot be read, the sizes in the
manifest count.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol, TypeVar

from comity.bounded_file import read_bounded
from comity.formats.tensors import TensorTable, tensor_reader
from comity.transfer.pieces import WantedFile
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.offers.offer import Slice
from comity.wire.client import NodeClient
from comity_client.evidence.proofs import fetch_object
from comity_client.evidence.resolve import Resolution
from comity_client.offers.handoff import LABEL
from comity_client.offers.measure import MIB, NAME, PREFIX, MeasuredFigures
from comity_client.pull.fetch import Layouts, named_indexes
from comity_client.session import Question, Session

MAX_LAYERS: Final = 10_000
MAX_WIDTH: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Family:
    """Defaults of a model type for missing configuration members, by its published definition.

    Attributes:
        kv_per_head: without `num_key_value_heads`, there is one KV head for each attention head.
        divide_width: without `head_dim`, it is the width divided by the attention heads.
        windows: `never`; `all`, every layer if `sliding_window` is set; `stated`, the same, and the member is required;
            `asked`, if `use_sliding_window` is true; `listed`, only as `layer_types` lists them.
    """

    kv_per_head: bool = False
    divide_width: bool = False
    windows: str = "never"


GROUPED: Final[Mapping[str, _Family]] = {
    "llama": _Family(kv_per_head=True, divide_width=True),
    "olmo": _Family(kv_per_head=True, divide_width=True),
    "granite": _Family(kv_per_head=True, divide_width=True),
    "phi3": _Family(kv_per_head=True, divide_width=True, windows="all"),
    "mistral": _Family(divide_width=True, windows="stated"),
    "mixtral": _Family(divide_width=True, windows="all"),
    "starcoder2": _Family(divide_width=True, windows="all"),
    "qwen2": _Family(divide_width=True, windows="asked"),
    "qwen2_moe": _Family(divide_width=True, windows="asked"),
    "qwen3": _Family(windows="asked"),
    "qwen3_moe": _Family(windows="asked"),
    "smollm3": _Family(divide_width=True, windows="asked"),
    "apertus": _Family(divide_width=True),
    "arcee": _Family(divide_width=True),
    "internlm2": _Family(divide_width=True),
    "olmo2": _Family(divide_width=True),
    "olmoe": _Family(divide_width=True),
    "granitemoe": _Family(divide_width=True),
    "gemma": _Family(),
    "glm": _Family(),
    "glm4": _Family(),
    "glm4_moe": _Family(),
    "seed_oss": _Family(),
    "ernie4_5": _Family(),
    "gemma2": _Family(windows="listed"),
    "gemma3_text": _Family(windows="listed"),
    "gpt_oss": _Family(windows="listed"),
    "olmo3": _Family(divide_width=True, windows="listed"),
    "exaone4": _Family(windows="listed"),
}
"""Model types whose layers are all softmax attention with shared KV heads."""
GGUF: Final = frozenset(
    {"apertus", "gemma", "granite", "internlm2", "llama", "olmo", "olmo2", "qwen2", "qwen2moe", "qwen3", "qwen3moe"}
)
"""GGUF architectures whose layers all keep keys and values of shared heads."""
LATENT: Final = frozenset({"deepseek_v2", "deepseek_v3", "kimi_k2"})
MULTI_HEAD: Final[Mapping[str, tuple[str, str, str]]] = {
    "gpt2": ("n_layer", "n_head", "n_embd"),
    "gpt_neox": ("num_hidden_layers", "num_attention_heads", "hidden_size"),
    "opt": ("num_hidden_layers", "num_attention_heads", "hidden_size"),
    "bloom": ("n_layer", "n_head", "hidden_size"),
}
"""Model types of plain multi-head attention, with the configuration names of layers, heads and width."""


@dataclass(frozen=True, slots=True)
class Cache:
    """The KV-cache of a known kind of attention.

    Attributes:
        kind: name of the kind of attention, for people.
        layers: layers that keep every token.
        windowed: layers that keep at most `window` tokens.
        elements: numbers for each token and layer.
        heads: number of parts into which the cache of one layer divides; 1 if each accelerator keeps all of it.
        attention_heads: query heads; the number of accelerators of a tensor split divides it.
        formula: the formula of `elements`.
    """

    kind: str
    layers: int
    elements: int
    heads: int
    attention_heads: int
    formula: str
    windowed: int = 0
    window: int = 0

    @property
    def depth(self) -> int:
        """All layers of the model."""
        return self.layers + self.windowed

    def tokens(self, context: int) -> int:
        """Tokens kept over all layers for one sequence of `context` tokens."""
        return self.layers * context + self.windowed * min(context, self.window)

    def bytes(self, context: int, batch: int, width: int) -> int:
        """Bytes for `batch` sequences of `context` tokens, `width` bytes a number."""
        return self.tokens(context) * self.elements * width * batch


@dataclass(frozen=True, slots=True)
class UnknownCache:
    """The size of this model's KV-cache is unknown; `why` is the reason."""

    why: str


def cache_of_gguf(facts: Mapping[str, Any]) -> Cache | UnknownCache:
    """KV-cache from the header of a GGUF file. Latent attention is unknown: llama.cpp has stored it in several ways."""
    kind = facts.get("general.architecture")
    if kind not in GGUF:
        return UnknownCache(f"the attention of architecture {str(kind)[:40]!r} is not one that is known here")
    own = {name.removeprefix(f"{kind}."): value for name, value in facts.items()}
    try:
        if own.get("attention.sliding_window"):
            raise _UnknownConfigError(f"some layers of this {kind} are windowed, and the header does not list which")
        heads = _number(own, "attention.head_count")
        shared = _number(own, "attention.head_count_kv") if "attention.head_count_kv" in own else heads
        key, value = (_length(own, f"attention.{each}_length", heads) for each in ("key", "value"))
        layers = _number(own, "block_count", MAX_LAYERS)
    except _UnknownConfigError as error:
        return UnknownCache(str(error))
    formula = f"{shared} KV heads x ({key} + {value})"
    return Cache("attention with shared KV heads", layers, shared * (key + value), shared, heads, formula)


def cache_of(config: Mapping[str, Any]) -> Cache | UnknownCache:
    """KV-cache from a `config.json`. For a multimodal model, `text_config` counts."""
    nested = config.get("text_config")
    if isinstance(nested, Mapping):
        config = nested
    kind = config.get("model_type")
    if not isinstance(kind, str):
        return UnknownCache("config.json names no model_type")
    try:
        if kind in LATENT:
            return _latent(config)
        if kind in MULTI_HEAD:
            return _multi_head(config, *MULTI_HEAD[kind])
        if kind in GROUPED:
            return _grouped(config, GROUPED[kind])
    except _UnknownConfigError as error:
        return UnknownCache(str(error))
    return UnknownCache(f"the attention of model_type {kind[:40]!r} is not one that is known here")


class _UnknownConfigError(Exception):
    """The configuration does not determine the KV-cache."""


def _latent(config: Mapping[str, Any]) -> Cache:
    rank, rotary = _number(config, "kv_lora_rank"), _number(config, "qk_rope_head_dim")
    return Cache(
        kind="multi-head latent attention, compressed as vLLM and SGLang keep it",
        layers=_number(config, "num_hidden_layers", MAX_LAYERS),
        elements=rank + rotary,
        heads=1,
        attention_heads=_number(config, "num_attention_heads"),
        formula=f"{rank} latent + {rotary} rotary",
    )


def _multi_head(config: Mapping[str, Any], layers: str, heads: str, width: str) -> Cache:
    count, wide = _number(config, heads), _number(config, width)
    if wide % count:
        raise _UnknownConfigError(f"{width} {wide} is not a multiple of {heads} {count}")
    return _plain("multi-head attention", _number(config, layers, MAX_LAYERS), count, count, wide // count)


def _grouped(config: Mapping[str, Any], family: _Family) -> Cache:
    layers, heads = _number(config, "num_hidden_layers", MAX_LAYERS), _number(config, "num_attention_heads")
    missing = config.get("num_key_value_heads") is None and family.kv_per_head
    shared = heads if missing else _number(config, "num_key_value_heads")
    if heads % shared:
        raise _UnknownConfigError(f"{heads} attention heads are not a multiple of {shared} KV heads")
    windowed, window = _windows(config, family, layers)
    name = {heads: "multi-head attention", 1: "multi-query attention"}.get(shared, "grouped-query attention")
    return _plain(name, layers - windowed, heads, shared, _dimension(config, family, heads), windowed, window)


def _dimension(config: Mapping[str, Any], family: _Family, heads: int) -> int:
    if config.get("head_dim") is not None or not family.divide_width:
        return _number(config, "head_dim")
    width = _number(config, "hidden_size")
    if width % heads:
        raise _UnknownConfigError(
            f"hidden_size {width} is not a multiple of {heads} attention heads, and head_dim is missing"
        )
    return width // heads


def _windows(config: Mapping[str, Any], family: _Family, layers: int) -> tuple[int, int]:
    """Number of windowed layers, and the window in tokens."""
    listed = config.get("layer_types")
    if isinstance(listed, Sequence) and not isinstance(listed, str):
        unknown = {str(each)[:40] for each in listed} - {"full_attention", "sliding_attention"}
        if unknown or len(listed) != layers:
            raise _UnknownConfigError(
                f"layer_types lists {', '.join(sorted(unknown)) or f'{len(listed)} of {layers} layers'}"
            )
        windowed = sum(each == "sliding_attention" for each in listed)
        return windowed, _number(config, "sliding_window") if windowed else 0
    if family.windows == "listed":
        raise _UnknownConfigError("some layers are windowed, and config.json does not list which (layer_types)")
    if family.windows == "stated" and "sliding_window" not in config:
        raise _UnknownConfigError("sliding_window is missing from config.json, and its default is a window")
    if (family.windows == "asked" and not config.get("use_sliding_window")) or config.get("sliding_window") is None:
        return 0, 0
    if family.windows in ("all", "stated"):
        return layers, _number(config, "sliding_window")
    raise _UnknownConfigError("sliding_window is set, but config.json does not list the layers (layer_types)")


def _length(facts: Mapping[str, Any], name: str, heads: int) -> int:
    if name in facts:
        return _number(facts, name)
    width = _number(facts, "embedding_length")
    if width % heads:
        raise _UnknownConfigError(
            f"embedding_length {width} is not a multiple of {heads} attention heads, and {name} is missing"
        )
    return width // heads


def _plain(
    kind: str, layers: int, heads: int, shared: int, dimension: int, windowed: int = 0, window: int = 0
) -> Cache:
    return Cache(
        kind=kind,
        layers=layers,
        elements=2 * shared * dimension,
        heads=shared,
        attention_heads=heads,
        formula=f"2 x {shared} KV heads x {dimension}",
        windowed=windowed,
        window=window,
    )


def _number(config: Mapping[str, Any], name: str, most: int = MAX_WIDTH) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise _UnknownConfigError(f"{name} is {str(value)[:40]}, expected a number from 1 to {most}")
    return value


_SUFFIXES: Final = (".safetensors", ".gguf", ".bin", ".pth", ".pt")
"""In order of preference: a model is often published in several formats."""
_SHARD: Final = re.compile(r"-\d{5}-of-\d{5}(?=\.[a-z]+$)")
_OTHER_COPY: Final = ("consolidated", "original/", "metal/", "onnx/", "openvino/", "tf_model", "training_args")
"""Path prefixes of further copies of the same weights, or of files without weights."""


class ArtifactFile(Protocol):
    """A file of an artifact: its path and its size in bytes."""

    @property
    def path(self) -> str: ...

    @property
    def size(self) -> int: ...


L = TypeVar("L", bound=ArtifactFile)


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """Size of the tensors of a model.

    Attributes:
        by_type: bytes by number type as named in the files; `unknown` if no header was read.
        source: source of the numbers, for people.
        files: the paths that were counted.
    """

    by_type: Mapping[str, int]
    source: str
    files: tuple[str, ...]

    @property
    def total(self) -> int:
        return sum(self.by_type.values())

    @property
    def types(self) -> tuple[str, ...]:
        """Number types, largest total first."""
        return tuple(sorted(self.by_type, key=lambda name: (-self.by_type[name], name)))


def weight_files(entries: Iterable[L], pattern: str = "") -> tuple[L, ...]:
    """The weight files of one model: all that match `pattern`, else those of the preferred format.

    Raises NotFound (NO-WEIGHTS), Malformed (WHICH-WEIGHTS) if there are several models.
    """
    listed = tuple(entries)
    if pattern:
        chosen = tuple(entry for entry in listed if fnmatchcase(entry.path, pattern))
        if not chosen:
            raise NotFound("no weights", why=f"no file matches {pattern!r}", code="NO-WEIGHTS")
        return chosen
    for suffix in _SUFFIXES:
        found = [e for e in listed if e.path.endswith(suffix) and not e.path.startswith(_OTHER_COPY)]
        if found:
            return _one_model(found)
    raise NotFound("no weights", why=f"no file ends in {', '.join(_SUFFIXES)}", code="NO-WEIGHTS")


def by_size(entries: Sequence[ArtifactFile]) -> ModelWeights:
    """Weights by file size, including headers, which are less than 0.1 %."""
    counted = tuple(entry.path for entry in entries)
    return ModelWeights({"unknown": sum(entry.size for entry in entries)}, f"{_files(counted)}, by size alone", counted)


def by_headers(tensors: Iterable[Mapping[str, int]], paths: Sequence[str]) -> ModelWeights:
    """Weights by the headers of `paths`; each header as bytes by number type."""
    total: dict[str, int] = {}
    for types in tensors:
        for name, count in types.items():
            total[name] = total.get(name, 0) + count
    return ModelWeights(total, f"the headers of {_files(paths)}", tuple(paths))


def _one_model(found: Sequence[L]) -> tuple[L, ...]:
    gguf = found[0].path.endswith(".gguf")
    models = {_SHARD.sub("", entry.path) for entry in found if not _is_projector(entry.path)}
    if gguf and len(models) > 1:
        shown = ", ".join(sorted(models)[:6])
        raise Malformed("several models in one artifact", why=f"it has {shown}",
                        hint="choose the files of one: --file '*Q4_K_M*'", code="WHICH-WEIGHTS")  # fmt: skip
    return tuple(found)


def _is_projector(path: str) -> bool:
    return path.rpartition("/")[2].startswith("mmproj")


def _files(paths: Sequence[str]) -> str:
    return "1 file" if len(paths) == 1 else f"{len(paths)} files"


GIB: Final = 1 << 30
MARGIN_PERCENT: Final = 10
KV_WIDTHS: Final = {"bf16": 2, "fp16": 2, "fp8": 1, "fp32": 4}
"""Bytes of a number in the KV-cache, by the name of its type."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload: `batch` concurrent sequences of `context` tokens each, with a KV-cache of number type `kv`."""

    context: int
    batch: int = 1
    kv: str = "bf16"
    margin_percent: int = MARGIN_PERCENT


@dataclass(frozen=True, slots=True)
class Model:
    """The memory needs of a model."""

    title: str
    weights: ModelWeights
    cache: Cache | UnknownCache


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


CONFIG: Final = "config.json"
MAX_CONFIG: Final = 1024 * 1024
MAX_HEADERS: Final = 512
"""Maximum files whose headers are read; a model with more files counts by size."""
HEAD_BYTES: Final = 32 * 1024 * 1024
"""Maximum bytes of a header that are fetched."""
MAX_CONCURRENT: Final = 8


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file in a folder."""

    path: str
    size: int


def model_in(folder: Path, pattern: str = "") -> Model:
    """The model in `folder`. Raises NotFound without weights, Malformed (WHICH-WEIGHTS) for several models."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and ".comity" not in p.relative_to(folder).parts)
    files = weight_files((LocalFile(p.relative_to(folder).as_posix(), p.stat().st_size) for p in paths), pattern)
    tables = [_table_in(folder / file.path, file) for file in files[:MAX_HEADERS]]
    config = read_bounded(folder / CONFIG, MAX_CONFIG) if (folder / CONFIG).is_file() else None
    return _model(folder.name, files, tables, config)


async def model_of(session: Session, resolution: Resolution, pattern: str = "") -> Model:
    """The model of a resolved reference. Raises NotFound, Unavailable, Malformed (WHICH-WEIGHTS)."""
    manifest = Manifest.parse(await fetch_object(session, resolution.artifact))
    files = weight_files(manifest.files, pattern)
    publication = resolution.publication
    first = publication.published.pieces.digest if publication else None
    layouts = Layouts(session, manifest, named_indexes(resolution.gathered.readings, manifest.digest, first))
    limit = asyncio.Semaphore(MAX_CONCURRENT)

    async def head(entry: FileEntry) -> TensorTable | None:
        async with limit:
            return await _table_from(session, layouts, entry)

    tables = await asyncio.gather(*(head(entry) for entry in files[:MAX_HEADERS]))
    listed = manifest.by_path.get(CONFIG)
    config = await _whole(session, listed) if listed and listed.size <= MAX_CONFIG else None
    return _model(resolution.title, files, tables, config)


def _model(
    title: str,
    files: Sequence[LocalFile] | Sequence[FileEntry],
    tables: Sequence[TensorTable | None],
    config: bytes | None,
) -> Model:
    read = [table for table in tables if table is not None]
    complete = len(read) == len(files)
    weights = by_headers(map(_types, read), [file.path for file in files]) if complete else by_size(files)
    return Model(title, weights, _cache(files[0].path, read, config))


def _types(table: TensorTable) -> Mapping[str, int]:
    types: dict[str, int] = {}
    for tensor in table.tensors:
        types[tensor.dtype] = types.get(tensor.dtype, 0) + tensor.length
    return types


def _cache(path: str, tables: Sequence[TensorTable], config: bytes | None) -> Cache | UnknownCache:
    if path.endswith(".gguf"):
        return cache_of_gguf(tables[0].metadata) if tables else UnknownCache("its header could not be read")
    if config is None:
        return UnknownCache(f"{CONFIG} is missing or could not be fetched")
    try:
        parsed = json.loads(config)
    except (ValueError, RecursionError):
        return UnknownCache(f"{CONFIG} is not JSON")
    return cache_of(parsed) if isinstance(parsed, dict) else UnknownCache(f"{CONFIG} is not a JSON object")


def _table_in(path: Path, file: LocalFile) -> TensorTable | None:
    try:
        with path.open("rb") as opened:
            return _read(file.path, opened, file.size)
    except (OSError, Malformed):
        return None


def _read(path: str, opened: BinaryIO, size: int) -> TensorTable | None:
    reader = tensor_reader(path)
    return reader(opened, size) if reader else None


async def _table_from(session: Session, layouts: Layouts, entry: FileEntry) -> TensorTable | None:
    """The tensor table of a file at nodes; None if unreadable. Fetches twice as many pieces while the header is cut."""
    try:
        want = await _wanted_file(layouts, entry)
        pieces = 1
        while True:
            head = await session.first(_pieces(want, pieces), f"no node serves the start of {entry.path}")
            try:
                return _read(entry.path, io.BytesIO(head), entry.size)
            except Malformed:
                if pieces >= len(want.records) or len(head) >= HEAD_BYTES:
                    return None
            pieces = min(2 * pieces, len(want.records))
    except ComityError:
        return None


async def _wanted_file(layouts: Layouts, entry: FileEntry) -> WantedFile:
    async with aclosing(layouts.layouts_of(entry)) as layouts_of:
        async for want in layouts_of:
            return want
    raise Unavailable(f"{entry.path} cannot be fetched in pieces", why="no statement names a piece index")


def _pieces(want: WantedFile, count: int) -> Question[bytes]:
    """The first `count` pieces of a blob, each with its hash."""
    end = want.offsets[count]

    async def ask(node: NodeClient) -> bytes:
        data = await _bytes(node, want.digest, end)
        for number in range(count):
            offset, length = want.span(number)
            if bytes.fromhex(sha256(data[offset : offset + length])) != want.records[number].sha256:
                raise Untrusted("wrong bytes", why=f"hash of piece {number} does not match", code="BAD-PIECE")
        return data

    return ask


async def _whole(session: Session, entry: FileEntry) -> bytes | None:
    async def ask(node: NodeClient) -> bytes:
        data = await _bytes(node, entry.sha256, entry.size)
        if sha256(data) != entry.sha256:
            raise Untrusted("wrong bytes", why=f"hash of {entry.path} does not match", code="BAD-PIECE")
        return data

    try:
        return await session.first(ask, f"no node serves {entry.path}")
    except ComityError:
        return None


async def _bytes(node: NodeClient, digest: Digest, length: int) -> bytes:
    async with aclosing(node.read(digest, 0, length)) as chunks:
        data = b"".join([chunk async for chunk in chunks])
    if len(data) != length:
        raise NotFound("incomplete", why=f"received {len(data)} of {length} bytes")
    return data


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
