"""Weights made from other weights, as real tools make them: cast and cut into shards, or written as GGUF.

Where possible the bytes are made by other code than the product's: rounding by integer arithmetic in plain Python for
small tensors, files by the gguf package's own writer.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from comity.formats.tensors import Tensor, read_safetensors
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, sha256
from comity.trust.statements import Derived, Extent
from support.world import Identity, identity

Named = tuple[str, str, Sequence[int], bytes]
"""Name, type, shape, bytes."""

_BERT = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.LayerNorm": "token_embd_norm",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def write_safetensors(path: Path, tensors: Iterable[Named]) -> Path:
    """A safetensors file; tensors in the given order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position, parts = 0, []
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + len(data)]}
        position += len(data)
        parts.append(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))
    return path


def read_all(path: Path) -> list[Named]:
    with path.open("rb") as file:
        table = read_safetensors(file, path.stat().st_size)
        return [(t.name, t.dtype, t.shape, _bytes(file, t)) for t in table.tensors]


def sharded(folder: Path, tensors: Sequence[Named], count: int) -> Path:
    """The tensors distributed over `count` files and an index, with the names of transformers."""
    weight_map: dict[str, str] = {}
    for number in range(count):
        name = f"model-{number + 1:05}-of-{count:05}.safetensors"
        dealt = tensors[number::count]
        write_safetensors(folder / name, dealt)
        weight_map |= {tensor[0]: name for tensor in dealt}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def each(tensors: Iterable[Named], change: Callable[[Named], Named]) -> list[Named]:
    return [change(tensor) for tensor in tensors]


def to_bf16(tensor: Named) -> Named:
    """FP32 rounded to BF16, to nearest and ties to even, with integer arithmetic; other types are unchanged."""
    name, dtype, shape, data = tensor
    if dtype != "F32":
        return tensor
    import numpy as np

    words = np.frombuffer(data, "<u4").astype(np.uint64)
    half, rest = words >> np.uint64(16), words & np.uint64(0xFFFF)
    up = (rest > 0x8000) | ((rest == 0x8000) & (half & np.uint64(1) == 1))
    return name, "BF16", shape, (half + up).astype("<u2").tobytes()


def bert_gguf(path: Path, tensors: Iterable[Named], kind: str, layers: int, heads: int) -> Path:
    """A GGUF file of a BERT, by the gguf package's writer: vectors as FP32, all other tensors as `kind`."""
    return _gguf(path, "bert", _bert_names(tensors), kind, layers, heads, heads)


def _gguf(path: Path, architecture: str, tensors: Mapping[str, Any], kind: str, *counts: int) -> Path:
    import gguf

    layers, heads, heads_kv = counts
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads_kv)
    wanted = gguf.GGMLQuantizationType[kind]
    for name, array in tensors.items():
        raw = wanted if array.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(array, raw), raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def llama_gguf(path: Path, tensors: Iterable[Named], kind: str, layers: int, heads: int, heads_kv: int) -> Path:
    """A GGUF file of a Llama, its queries and keys permuted as llama.cpp's converter does."""
    named = {}
    for name, array in _arrays(tensors):
        parts = name.split(".")
        new = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}.get(name)
        if new is None:
            short = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output"}
            short |= {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}
            short |= {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
            new = f"blk.{parts[2]}.{short[parts[-2]]}.{parts[-1]}"
        if parts[-2] in ("q_proj", "k_proj"):
            count = heads if parts[-2] == "q_proj" else heads_kv
            rows = array.shape[0] // count
            order = [
                head * rows + half * (rows // 2) + at
                for head in range(count)
                for at in range(rows // 2)
                for half in (0, 1)
            ]
            array = array[order]
        named[new] = array
    return _gguf(path, "llama", named, kind, layers, heads, heads_kv)


def flip(path: Path, tensor: str, element: int, width: int, bit: int = 0) -> None:
    """Alter one bit of one element in a safetensors file."""
    with path.open("r+b") as file:
        found = next(t for t in read_safetensors(file, path.stat().st_size).tensors if t.name == tensor)
        file.seek(found.start + element * width)
        byte = file.read(1)[0] ^ (1 << bit)
        file.seek(found.start + element * width)
        file.write(bytes([byte]))


def derived_line(
    child: Digest, parent: Digest | None = None, *, by: Identity | None = None, exact: bool = True
) -> bytes:
    """A claim that its author derived one artifact from the other, exactly or in part."""
    by = by or identity("Checking lab", "ES")
    said = Derived(
        by=by.inception.author,
        child=child,
        parent=parent or sha256(b"parent"),
        relation="quantized" if exact else "overlap",
        result="exact" if exact else "share",
        steps={"copy": 62, "q8_0": 39} if exact else {"copy": 50},
        tools={"comity": "0.1.0", "gguf": "0.19.0", "numpy": "2.4.6"},
        files=1,
        parent_files=1,
        tensors=Extent(101, 101 if exact else 50),
        left_out=3,
        bytes=Extent(24_065_952, 24_065_952 if exact else 9_000_000),
    )
    return sign_content(said, by.signer).line


def _bert_names(tensors: Iterable[Named]) -> dict[str, Any]:
    named = {}
    for name, array in _arrays(tensors):
        stem, _, ending = name.rpartition(".")
        if stem.startswith("pooler") or ending not in ("weight", "bias"):
            continue
        layer = stem.removeprefix("encoder.layer.").split(".")[0] if stem.startswith("encoder.layer.") else ""
        short = _BERT[stem.removeprefix(f"encoder.layer.{layer}.") if layer else stem]
        named[f"blk.{layer}.{short}.{ending}" if layer else f"{short}.{ending}"] = array
    return named


def _arrays(tensors: Iterable[Named]) -> list[tuple[str, Any]]:
    import numpy as np

    return [(name, np.frombuffer(data, "<f4").reshape(shape)) for name, dtype, shape, data in tensors if dtype == "F32"]


def _bytes(file: Any, tensor: Tensor) -> bytes:
    file.seek(tensor.start)
    data: bytes = file.read(tensor.length)
    return data
