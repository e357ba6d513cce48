"""Which tensor of the parent should have become which of the child.

Within one format by name. From safetensors to GGUF by the `TensorNameMap` of the gguf package for the architecture
that the GGUF file names. For the names it is enough that they are right: a pair that does not belong together is not
equal, and nothing is proven by it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from comity.derivation.tools import ggml
from comity.derivation.weights import Group, Located
from comity.trust.errors import Malformed

MAX_LAYERS: Final = 1_000
_PREFIXES: Final = ("", "model.", "bert.", "transformer.")
_TURNED: Final = re.compile(r"blk\.\d+\.attn_(q|k)\.(weight|bias)\Z")
_BUFFERS: Final = re.compile(r"(\A|\.)(position_ids|rotary_emb\.inv_freq)\Z")
_LEFT_OUT_OF_GGUF: Final = {"bert": re.compile(r"(\A|\.)pooler\.dense\.(weight|bias)\Z")}


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor of the child and the parent's, if there is one. `heads`: into how many heads a converter turns the rows
    of the parent's, so that rotary positions lie as llama.cpp wants them; 0 where it does not."""

    child: Located
    parent: Located | None
    heads: int = 0


def pair_up(child: Group, parent: Group) -> Iterator[Pair]:
    """One pair for each tensor of the child. Raises Malformed (TENSORS) for an architecture that has no name map,
    Unavailable (code NO-GGUF) where the gguf package is needed and not installed."""
    if child.gguf and not parent.gguf:
        renamed = _name_map(child)
        by_new_name = {renamed(name): located for name, located in parent.tensors.items()}
    else:
        by_new_name = dict(parent.tensors)
    for name, located in child.tensors.items():
        yield Pair(located, by_new_name.get(name), _heads(child, name) if child.gguf and not parent.gguf else 0)


def is_dropped(name: str, child: Group) -> bool:
    """Whether converters leave the parent's tensor `name` out by rule: buffers that are computed and not learned, and,
    in GGUF files of some architectures, layers that llama.cpp has no use for."""
    unused = _LEFT_OUT_OF_GGUF.get(str(child.facts.get("general.architecture"))) if child.gguf else None
    return bool(_BUFFERS.search(name) or (unused and unused.search(name)))


def _name_map(child: Group) -> Callable[[str], str]:
    """From a name in safetensors to the one in GGUF; names that the map does not know stay as they are."""
    named = str(child.facts.get("general.architecture", ""))
    layers = child.facts.get(f"{named}.block_count", 0)
    if not isinstance(layers, int) or not 0 <= layers <= MAX_LAYERS:
        raise Malformed("the tensors cannot be paired", why=f"{layers} layers", code="TENSORS")
    known: Callable[[str], str | None] | None = ggml().name_map(named, layers)
    if known is None:
        why = f"no names are known for architecture {named[:40]!r}"
        raise Malformed("the tensors cannot be paired", why=why, code="TENSORS")

    def renamed(name: str) -> str:
        for prefix in _PREFIXES:
            if name.startswith(prefix) and (found := known(name.removeprefix(prefix))) is not None:
                return found
        return name

    return renamed


def _heads(child: Group, name: str) -> int:
    if not (found := _TURNED.match(name)):
        return 0
    key = "attention.head_count" if found[1] == "q" else "attention.head_count_kv"
    architecture = child.facts.get("general.architecture")
    heads = child.facts.get(f"{architecture}.{key}", child.facts.get(f"{architecture}.attention.head_count", 0))
    return heads if isinstance(heads, int) and heads > 0 else 0
