"""A tiny Llama with random weights, and the comparison with models derived from it."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from comity.addons.derivation.check import ComparedTensor, Comparison, WeightFiles, compare, read_weights
from support.derivations import Named

LAYERS, HEADS, HEADS_KV, WIDE = 2, 4, 2, 64
_RANDOM = random.Random(7)


def floats(*shape: int) -> tuple[str, tuple[int, ...], bytes]:
    count = 1
    for size in shape:
        count *= size
    return "F32", shape, struct.pack(f"<{count}f", *(_RANDOM.gauss(0, 0.05) for _ in range(count)))


def llama() -> list[Named]:
    made: list[Named] = [("model.embed_tokens.weight", *floats(96, WIDE)), ("model.norm.weight", *floats(WIDE))]
    for layer in range(LAYERS):
        for name, rows in (("q_proj", WIDE), ("k_proj", WIDE // 2), ("v_proj", WIDE // 2), ("o_proj", WIDE)):
            made.append((f"model.layers.{layer}.self_attn.{name}.weight", *floats(rows, WIDE)))
        made.append((f"model.layers.{layer}.input_layernorm.weight", *floats(WIDE)))
        made.append((f"model.layers.{layer}.mlp.up_proj.weight", *floats(128, WIDE)))
    return made


LLAMA = llama()


def weights(folder: Path) -> WeightFiles:
    return read_weights(folder, [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()])


def compared(child: Path, parent: Path) -> Comparison:
    return compare(weights(child), weights(parent))


def unequal(comparison: Comparison) -> list[ComparedTensor]:
    return [tensor for tensor in comparison.tensors if not tensor.equal]
