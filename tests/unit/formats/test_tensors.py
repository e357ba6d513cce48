"""The tensors of weight files: what is read, what is refused. Headers are hostile input."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from typing import Any

import pytest
from comity.formats.tensors import BLOCKS, Tensor, TensorTable, read_gguf, read_safetensors, tensor_reader
from comity.trust.errors import Malformed
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.weights import gguf, safetensors


def of_header(header: Mapping[str, Any], data: bytes = b"") -> TensorTable:
    text = json.dumps(header).encode()
    return read(struct.pack("<Q", len(text)) + text + data)


def read(data: bytes) -> TensorTable:
    return read_safetensors(io.BytesIO(data), len(data))


def tensor(dtype: str, shape: list[Any], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_tensors_come_in_the_order_of_their_bytes_with_type_and_shape() -> None:
    table = of_header({"b": tensor("BF16", [2], 8, 12), "a": tensor("F32", [1, 2], 0, 8)}, bytes(12))
    begin = table.tensors[0].start
    assert table.tensors == (Tensor("a", "F32", (1, 2), begin, 8), Tensor("b", "BF16", (2,), begin + 8, 4))


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({"a": tensor("F32", [3], 0, 8)}, "which does not match its shape"),
        ({"a": tensor("F33", [2], 0, 8)}, "unknown type"),
        ({"a": tensor("F32", [-2], 0, 8)}, "a dimension of -2"),
        ({"a": tensor("F32", [True, 2], 0, 8)}, "a dimension of True"),
        ({"a": tensor("F32", [2**40, 2**40], 0, 8)}, "too many dimensions or elements"),
        ({"a": tensor("F32", [1] * 17, 0, 4)}, "too many dimensions or elements"),
        ({"a": tensor("F32", [4], 0, 16)}, "is not inside the file"),
        ({"a": tensor("F32", [2], -8, 0)}, "is not inside the file"),
        ({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [1], 4, 8)}, "overlap"),
        ({"": tensor("F32", [2], 0, 8)}, "name of 0 characters"),
        ({"a": {"dtype": "F32", "shape": [2]}}, "no type, shape or offsets"),
        ({"a": tensor("F32", [2], 8, 0)}, "which does not match its shape"),
    ],
)
def test_a_header_without_a_clear_layout_is_refused(header: Mapping[str, Any], why: str) -> None:
    with pytest.raises(Malformed, match=why) as caught:
        of_header(header, bytes(8))
    assert caught.value.code == "TENSORS"


def test_a_gguf_file_lists_its_dimensions_in_reverse_order() -> None:
    made = gguf({"one": bytes(5), "two": bytes(40)})
    table = read_gguf(io.BytesIO(made), len(made))
    assert [(t.name, t.dtype, t.shape, t.length) for t in table.tensors] == [
        ("one", "I8", (5,), 5),
        ("two", "I8", (40,), 40),
    ]
    assert table.metadata["general.architecture"] == "llama"
    assert table.metadata["general.alignment"] == 32
    assert "tokenizer.ggml.tokens" not in table.metadata


def test_the_sizes_of_blocks_are_those_of_the_gguf_package() -> None:
    package = pytest.importorskip("gguf")
    for kind, (name, elements, width) in BLOCKS.items():
        assert package.GGMLQuantizationType(kind).name == name
        assert package.GGML_QUANT_SIZES[kind] == (elements, width)


def test_formats_are_known_by_their_ending() -> None:
    assert tensor_reader("a/model.SAFETENSORS") is read_safetensors
    assert tensor_reader("model.gguf") is read_gguf
    assert tensor_reader("model.bin") is None


SAFETENSORS = safetensors({"a": bytes(16), "b": bytes(9)}, {"format": "pt"})
GGUF = gguf({"a": bytes(16), "b": bytes(64)}, tokens=("x", "yz"))


@pytest.mark.parametrize(("good", "reader"), [(SAFETENSORS, read_safetensors), (GGUF, read_gguf)])
@given(at=st.integers(0), mask=st.integers(1, 255), cut=st.none() | st.integers(0, 400))
@settings(max_examples=examples(300))
def test_a_damaged_header_raises_malformed_or_gives_tensors_inside_the_file(
    good: bytes, reader: Any, at: int, mask: int, cut: int | None
) -> None:
    at %= len(good)
    changed = (good[:at] + bytes([good[at] ^ mask]) + good[at + 1 :])[:cut]
    try:
        table = reader(io.BytesIO(changed), len(changed))
    except Malformed:
        return
    end = 0
    for found in table.tensors:
        assert end <= found.start
        end = found.start + found.length
    assert end <= len(changed)
