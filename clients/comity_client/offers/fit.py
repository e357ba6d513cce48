"""How many bytes a model keeps for each token of context: its KV-cache, from the configuration alone.

    multi-head, grouped, multi-query   2 x layers x KV heads x head dimension           keys and values
    latent (DeepSeek-V2 and V3)        layers x (latent rank + rotary dimension)        one compressed vector
    windowed layers that are listed    the same as above, of at most the window's tokens
    GGUF files                         layers x KV heads x (key + value length)

Only kinds whose formula follows from the configuration are computed; everything else is *unknown*, with the reason, and
never a guess: recurrent state, linear attention, windows that engines treat differently, types that nobody listed here.
Sources: Shazeer 2019 (multi-query), Ainslie et al. 2023 (grouped), DeepSeek-AI 2024, arXiv:2405.04434, section 2.1.


What of a model has to lie in memory: bytes by number type, and where that is known from.

Whether a model fits into accelerators that somebody lends. Arithmetic alone, and every line of it is shown.

    per accelerator    weights and KV-cache, divided by tensor over the accelerators of a node, by layer over nodes
    usable             its memory less a margin, for activations, the engine, its kernels, and fragmentation
    it fits            with the fewest accelerators whose share is at most what is usable

A tensor split divides the attention heads; a layer's KV heads are not cut, so more accelerators than KV heads keep
copies. Layers are whole: the fullest node counts. The margin is an assumption and is printed as one.


A model as far as memory is concerned, read from a folder, or from nodes without fetching its weights.

From a node come `config.json`, whole and hashed, and the first pieces of weight files, each hashed against the piece
index that a signed statement names. Headers that cannot be read are passed over: the manifest always says sizes.


The slices of an offer as rooms for a model.

Compute that partners lend each other: which offers can hold a model, the exchange of statements, and the hand-off to
an engine that runs jobs. Comity runs none."""

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

from comity.formats.tensors import TensorTable, reader_of
from comity.transfer.scheduler import WantedFile
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.offers.offer import Slice
from comity.verifier import read_bounded
from comity.wire.client import NodeClient
from comity_client.evidence.gather import fetch_object
from comity_client.evidence.resolve import Resolution
from comity_client.offers.handoff import LABEL
from comity_client.pull.fetch import Layouts, named_indexes
from comity_client.session import Question, Session

MAX_LAYERS: Final = 10_000
MAX_WIDTH: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class _Family:
    """What a configuration of a model type means where it is silent, as the type's published definition says.

    Attributes:
        shares: without `num_key_value_heads`, there is one for each attention head.
        divides: without `head_dim`, it is the width over the attention heads.
        windows: `never`; `all`, every layer where `sliding_window` is set; `stated`, the same, and it must be there;
            `asked`, where `use_sliding_window` is true; `listed`, only as `layer_types` lists them.
    """

    shares: bool = False
    divides: bool = False
    windows: str = "never"


GROUPED: Final[Mapping[str, _Family]] = {
    "llama": _Family(shares=True, divides=True),
    "olmo": _Family(shares=True, divides=True),
    "granite": _Family(shares=True, divides=True),
    "phi3": _Family(shares=True, divides=True, windows="all"),
    "mistral": _Family(divides=True, windows="stated"),
    "mixtral": _Family(divides=True, windows="all"),
    "starcoder2": _Family(divides=True, windows="all"),
    "qwen2": _Family(divides=True, windows="asked"),
    "qwen2_moe": _Family(divides=True, windows="asked"),
    "qwen3": _Family(windows="asked"),
    "qwen3_moe": _Family(windows="asked"),
    "smollm3": _Family(divides=True, windows="asked"),
    "apertus": _Family(divides=True),
    "arcee": _Family(divides=True),
    "internlm2": _Family(divides=True),
    "olmo2": _Family(divides=True),
    "olmoe": _Family(divides=True),
    "granitemoe": _Family(divides=True),
    "gemma": _Family(),
    "glm": _Family(),
    "glm4": _Family(),
    "glm4_moe": _Family(),
    "seed_oss": _Family(),
    "ernie4_5": _Family(),
    "gemma2": _Family(windows="listed"),
    "gemma3_text": _Family(windows="listed"),
    "gpt_oss": _Family(windows="listed"),
    "olmo3": _Family(divides=True, windows="listed"),
    "exaone4": _Family(windows="listed"),
}
"""Model types all of whose layers are softmax attention with shared KV heads."""
GGUF: Final = frozenset(
    {"apertus", "gemma", "granite", "internlm2", "llama", "olmo", "olmo2", "qwen2", "qwen2moe", "qwen3", "qwen3moe"}
)
"""Architectures of GGUF files whose layers all keep keys and values of the shared heads."""
LATENT: Final = frozenset({"deepseek_v2", "deepseek_v3", "kimi_k2"})
MULTI_HEAD: Final[Mapping[str, tuple[str, str, str]]] = {
    "gpt2": ("n_layer", "n_head", "n_embd"),
    "gpt_neox": ("num_hidden_layers", "num_attention_heads", "hidden_size"),
    "opt": ("num_hidden_layers", "num_attention_heads", "hidden_size"),
    "bloom": ("n_layer", "n_head", "hidden_size"),
}
"""Model types of plain multi-head attention, and what their configurations call layers, heads and width."""


@dataclass(frozen=True, slots=True)
class Cache:
    """The KV-cache of a known kind of attention.

    Attributes:
        kind: what the attention is called, for people.
        layers: layers that keep every token.
        windowed: layers that keep at most `window` tokens.
        elements: numbers kept a token and layer.
        heads: how many ways the cache of one layer divides over accelerators; 1 where each keeps all of it.
        attention_heads: heads that query; a model is split over accelerators in a number that divides them.
        formula: how `elements` comes about.
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
    """Nothing is said of the size of this model's KV-cache; `why` is a sentence for people."""

    why: str


def cache_of_gguf(facts: Mapping[str, Any]) -> Cache | UnknownCache:
    """What the header of a GGUF file says. Latent attention is unknown: llama.cpp has kept it in several ways."""
    kind = facts.get("general.architecture")
    if kind not in GGUF:
        return UnknownCache(f"the attention of architecture {str(kind)[:40]!r} is not one that is known here")
    own = {name.removeprefix(f"{kind}."): value for name, value in facts.items()}
    try:
        if own.get("attention.sliding_window"):
            raise _Unclear(f"some layers of this {kind} are windowed, and the header does not list which")
        heads = _number(own, "attention.head_count")
        shared = _number(own, "attention.head_count_kv") if "attention.head_count_kv" in own else heads
        key, value = (_length(own, f"attention.{each}_length", heads) for each in ("key", "value"))
        layers = _number(own, "block_count", MAX_LAYERS)
    except _Unclear as unclear:
        return UnknownCache(str(unclear))
    formula = f"{shared} KV heads x ({key} + {value})"
    return Cache("attention with shared KV heads", layers, shared * (key + value), shared, heads, formula)


def cache_of(config: Mapping[str, Any]) -> Cache | UnknownCache:
    """What a `config.json` says. A model that also sees or hears is judged by its `text_config`."""
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
    except _Unclear as unclear:
        return UnknownCache(str(unclear))
    return UnknownCache(f"the attention of model_type {kind[:40]!r} is not one that is known here")


class _Unclear(Exception):
    """The configuration does not decide."""


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
        raise _Unclear(f"{width} {wide} is no multiple of {heads} {count}")
    return _plain("multi-head attention", _number(config, layers, MAX_LAYERS), count, count, wide // count)


def _grouped(config: Mapping[str, Any], family: _Family) -> Cache:
    layers, heads = _number(config, "num_hidden_layers", MAX_LAYERS), _number(config, "num_attention_heads")
    left_out = config.get("num_key_value_heads") is None and family.shares
    shared = heads if left_out else _number(config, "num_key_value_heads")
    if heads % shared:
        raise _Unclear(f"{heads} attention heads are no multiple of {shared} KV heads")
    windowed, window = _windows(config, family, layers)
    name = {heads: "multi-head attention", 1: "multi-query attention"}.get(shared, "grouped-query attention")
    return _plain(name, layers - windowed, heads, shared, _dimension(config, family, heads), windowed, window)


def _dimension(config: Mapping[str, Any], family: _Family, heads: int) -> int:
    if config.get("head_dim") is not None or not family.divides:
        return _number(config, "head_dim")
    width = _number(config, "hidden_size")
    if width % heads:
        raise _Unclear(f"hidden_size {width} is no multiple of {heads} attention heads, and head_dim is missing")
    return width // heads


def _windows(config: Mapping[str, Any], family: _Family, layers: int) -> tuple[int, int]:
    """How many layers are windowed, and how wide the window is."""
    listed = config.get("layer_types")
    if isinstance(listed, Sequence) and not isinstance(listed, str):
        strange = {str(each)[:40] for each in listed} - {"full_attention", "sliding_attention"}
        if strange or len(listed) != layers:
            raise _Unclear(f"layer_types lists {', '.join(sorted(strange)) or f'{len(listed)} of {layers} layers'}")
        windowed = sum(each == "sliding_attention" for each in listed)
        return windowed, _number(config, "sliding_window") if windowed else 0
    if family.windows == "listed":
        raise _Unclear("some layers are windowed, and config.json does not list which (layer_types)")
    if family.windows == "stated" and "sliding_window" not in config:
        raise _Unclear("sliding_window is missing from config.json, and stands for one unless it says null")
    if (family.windows == "asked" and not config.get("use_sliding_window")) or config.get("sliding_window") is None:
        return 0, 0
    if family.windows in ("all", "stated"):
        return layers, _number(config, "sliding_window")
    raise _Unclear("sliding_window is set, and config.json does not list the layers that it is for (layer_types)")


def _length(facts: Mapping[str, Any], name: str, heads: int) -> int:
    if name in facts:
        return _number(facts, name)
    width = _number(facts, "embedding_length")
    if width % heads:
        raise _Unclear(f"embedding_length {width} is no multiple of {heads} attention heads, and {name} is missing")
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
        raise _Unclear(f"{name} is {str(value)[:40]}, expected a number from 1 to {most}")
    return value


_SUFFIXES: Final = (".safetensors", ".gguf", ".bin", ".pth", ".pt")
"""In the order of preference: one model is often published in several of them."""
_SHARD: Final = re.compile(r"-\d{5}-of-\d{5}(?=\.[a-z]+$)")
_OTHER_COPY: Final = ("consolidated", "original/", "metal/", "onnx/", "openvino/", "tf_model", "training_args")
"""Beginnings of paths under which publishers keep the same weights once more, or none."""


class ArtifactFile(Protocol):
    """A file of an artifact: its path in it, and its size in bytes."""

    @property
    def path(self) -> str: ...

    @property
    def size(self) -> int: ...


L = TypeVar("L", bound=ArtifactFile)


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """Bytes of tensors.

    Attributes:
        by_type: by the name of their number type, as the files call it; the type is `unknown` where no header was read.
        source: a phrase that says where this is known from.
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
        """Largest first."""
        return tuple(sorted(self.by_type, key=lambda name: (-self.by_type[name], name)))


def weight_files(entries: Iterable[L], pattern: str = "") -> tuple[L, ...]:
    """The files of one model: all that match `pattern`; without it those of one format, and of one of several
    quantizations only where there is no other.

    Raises NotFound where there are none, Malformed (WHICH-WEIGHTS) where several models are meant.
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
    """What sizes in the manifest say: headers are counted along, which is less than a thousandth."""
    counted = tuple(entry.path for entry in entries)
    return ModelWeights({"unknown": sum(entry.size for entry in entries)}, f"{_files(counted)}, by size alone", counted)


def by_headers(tensors: Iterable[Mapping[str, int]], paths: Sequence[str]) -> ModelWeights:
    """What the headers of `paths` say, each as bytes by number type."""
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
    weights: ModelWeights
    cache: Cache | UnknownCache


@dataclass(frozen=True, slots=True)
class AcceleratorGroup:
    """Accelerators of one kind: `count` on each of `nodes` nodes, `memory_gib` each. `interconnect` joins those of a
    node, `fabric` the nodes; both are the provider's words, and empty where it names none."""

    accelerator: str
    count: int
    memory_gib: int
    nodes: int
    interconnect: str = ""
    fabric: str = ""


@dataclass(frozen=True, slots=True)
class OfferFit:
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


def fit(model: Model, room: AcceleratorGroup, work: Workload) -> OfferFit:
    """Whether, and with how many accelerators, `model` runs `work` in `room`."""
    usable = room.memory_gib * GIB * (100 - work.margin_percent) // 100
    shares = [_share(model, work, per_node, nodes) for nodes in _nodes(room) for per_node in _splits(model, room)]
    best = next((share for share in shares if share.total <= usable), None)
    shown = best or min(shares, key=lambda share: share.total)
    lines = (*_needs(model, work), *_room(room, work, usable), _shared(shown, usable))
    if best is None:
        return OfferFit(False, shown.per_node, shown.nodes, _why_not(room, shown, usable), lines)
    where = _where(best, room)
    if isinstance(model.cache, UnknownCache):
        return OfferFit(None, best.per_node, best.nodes, f"the weights fit with {where}; the KV-cache is unknown: "
                   f"{model.cache.why}", lines)  # fmt: skip
    return OfferFit(True, best.per_node, best.nodes, f"fits with {where}", lines)


def gib(count: int) -> str:
    """`12.55 GiB`."""
    return f"{count / GIB:,.2f} GiB"


def _nodes(room: AcceleratorGroup) -> range:
    return range(1, room.nodes + 1 if room.fabric else 2)


def _splits(model: Model, room: AcceleratorGroup) -> list[int]:
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


def _room(room: AcceleratorGroup, work: Workload, usable: int) -> tuple[tuple[str, str], ...]:
    joined = room.interconnect or "an interconnect that the offer does not name"
    offered = f"{room.nodes} x {room.count} {room.accelerator} of {room.memory_gib} GiB, joined by {joined}"
    apart = f"; nodes by {room.fabric}" if room.fabric else "; no fabric between nodes is named, so one node counts"
    kept = f"{work.margin_percent} % of it kept free for activations, engine and fragmentation: an assumption"
    return ("offered", offered + (apart if room.nodes > 1 else "")), ("usable", f"{gib(usable)} each: {kept}")


def _shared(share: _Share, usable: int) -> tuple[str, str]:
    how = f"{gib(share.weights)} of weights + {gib(share.cache)} of KV-cache"
    sign = "at most" if share.total <= usable else "more than"
    return f"on {share.per_node} x {share.nodes}", f"{gib(share.total)} each ({how}), {sign} {gib(usable)}"


def _where(share: _Share, room: AcceleratorGroup) -> str:
    count = share.per_node * share.nodes
    nodes = "" if share.nodes == 1 else f", {share.per_node} on each of {share.nodes} nodes"
    return f"{count} {room.accelerator}{nodes}"


def _why_not(room: AcceleratorGroup, share: _Share, usable: int) -> str:
    apart = "" if room.fabric or room.nodes == 1 else f"; {room.nodes} nodes without a fabric between them are not one"
    return (
        f"does not fit, because each of {_where(share, room)} would hold {gib(share.total)}, "
        f"and {gib(usable)} are usable{apart}"
    )


def _up(total: int, parts: int) -> int:
    return -(-total // parts)


CONFIG: Final = "config.json"
MAX_CONFIG: Final = 1024 * 1024
MAX_HEADERS: Final = 512
"""Files whose headers are read; a model cut into more is judged by sizes."""
HEAD_BYTES: Final = 32 * 1024 * 1024
"""The longest header that is fetched."""
AT_ONCE: Final = 8


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
    """The model that a reference stands for. Raises NotFound, Unavailable, Malformed (WHICH-WEIGHTS)."""
    manifest = Manifest.parse(await fetch_object(session, resolution.artifact))
    files = weight_files(manifest.files, pattern)
    publication = resolution.publication
    first = publication.published.pieces.digest if publication else None
    layouts = Layouts(session, manifest, named_indexes(resolution.gathered.readings, first))
    turn = asyncio.Semaphore(AT_ONCE)

    async def head(entry: FileEntry) -> TensorTable | None:
        async with turn:
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
        return cache_of_gguf(tables[0].facts) if tables else UnknownCache("its header could not be read")
    if config is None:
        return UnknownCache(f"{CONFIG} is not there, or could not be had")
    try:
        parsed = json.loads(config)
    except (ValueError, RecursionError):
        return UnknownCache(f"{CONFIG} is not JSON")
    return cache_of(parsed) if isinstance(parsed, dict) else UnknownCache(f"{CONFIG} is no JSON object")


def _table_in(path: Path, file: LocalFile) -> TensorTable | None:
    try:
        with path.open("rb") as opened:
            return _read(file.path, opened, file.size)
    except (OSError, Malformed):
        return None


def _read(path: str, opened: BinaryIO, size: int) -> TensorTable | None:
    reader = reader_of(path)
    return reader(opened, size) if reader else None


async def _table_from(session: Session, layouts: Layouts, entry: FileEntry) -> TensorTable | None:
    """What the head of a file says; more of it is fetched as long as it might be cut off in the middle."""
    try:
        want = await _cut(layouts, entry)
        pieces = 1
        while True:
            head = await session.first(_pieces(want, pieces), f"nobody gives the head of {entry.path}")
            try:
                return _read(entry.path, io.BytesIO(head), entry.size)
            except Malformed:
                if pieces >= len(want.records) or len(head) >= HEAD_BYTES:
                    return None
            pieces = min(2 * pieces, len(want.records))
    except ComityError:
        return None


async def _cut(layouts: Layouts, entry: FileEntry) -> WantedFile:
    async with aclosing(layouts.ways(entry)) as ways:
        async for want in ways:
            return want
    raise Unavailable(f"{entry.path} cannot be had in pieces", why="no statement names a piece index")


def _pieces(want: WantedFile, count: int) -> Question[bytes]:
    """The first `count` pieces of a blob, each with its hash."""
    end = want.offsets[count]

    async def ask(node: NodeClient) -> bytes:
        data = await _bytes(node, want.digest, end)
        for number in range(count):
            offset, length = want.span(number)
            if bytes.fromhex(sha256(data[offset : offset + length])) != want.records[number].sha256:
                raise Untrusted("not the bytes asked for", why=f"piece {number} has another hash", code="BAD-PIECE")
        return data

    return ask


async def _whole(session: Session, entry: FileEntry) -> bytes | None:
    async def ask(node: NodeClient) -> bytes:
        data = await _bytes(node, entry.sha256, entry.size)
        if sha256(data) != entry.sha256:
            raise Untrusted("not the bytes asked for", why=f"{entry.path} has another hash", code="BAD-PIECE")
        return data

    try:
        return await session.first(ask, f"nobody gives {entry.path}")
    except ComityError:
        return None


async def _bytes(node: NodeClient, digest: Digest, length: int) -> bytes:
    async with aclosing(node.read(digest, 0, length)) as chunks:
        data = b"".join([chunk async for chunk in chunks])
    if len(data) != length:
        raise NotFound("not whole", why=f"{len(data)} of {length} bytes came")
    return data


KNOWN = ("kubernetes-resource",)
"""Attributes that are understood here, beside labels."""


def room_of(part: Slice) -> AcceleratorGroup | str:
    """The room, or why nothing is said of it."""
    strange = [name for name, _ in part.attributes if not name.startswith(LABEL) and name not in KNOWN]
    if part.strict and strange:
        return f"it is to be used only by who understands {', '.join(strange)[:200]}"
    if not part.count or not part.memory_gib:
        return "it has no accelerators, or does not say how much memory they have"
    return AcceleratorGroup(part.accelerator, part.count, part.memory_gib, part.nodes, part.interconnect, part.fabric)
