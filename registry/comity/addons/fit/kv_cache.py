"""The size of a model's KV-cache, in numbers per token, from its configuration alone.

    multi-head, grouped, multi-query   2 x layers x KV heads x head dimension           keys and values
    latent (DeepSeek-V2 and V3)        layers x (latent rank + rotary dimension)        one compressed vector
    windowed layers that are listed    the same as above, at most the tokens of the window
    GGUF files                         layers x KV heads x (key + value length)

Other kinds are reported as unknown with the reason, never guessed: recurrent state, linear attention, windows that
engines treat differently, unlisted types. Sources: Shazeer 2019 (multi-query), Ainslie et al. 2023 (grouped),
DeepSeek-AI 2024, arXiv:2405.04434, section 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from comity.trust.frozen import frozen

MAX_LAYERS: Final = 10_000
MAX_WIDTH: Final = 1 << 20


@frozen
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


@frozen
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


@frozen
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
