"""Headers of weight files: findings name what would break a loader; correct headers have none."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import pytest
from comity.formats.inspect import inspect
from comity.formats.sanity import MAX_FINDINGS
from support import weights

Header = dict[str, Any]


def findings(data: bytes) -> tuple[str, ...]:
    return inspect(io.BytesIO(data), "model", len(data)).malformed


def tensor(begin: int, end: int, *, dtype: str = "U8", shape: list[Any] | None = None) -> Header:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def safetensors(header: Header | str, data: int = 16) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"a": tensor(0, 8), "b": tensor(4, 16)}, "'b' overlaps the tensor before it"),
        ({"a": tensor(0, 8), "b": tensor(12, 16)}, "4 unused bytes before 'b'"),
        ({"a": tensor(0, 8)}, "8 unused bytes after the last tensor"),
        ({"a": tensor(0, 17)}, "'a' is outside the file: 0 to 17 of 16"),
        ({"a": tensor(8, 0, shape=[0]), "b": tensor(0, 16)}, "'a' is outside the file: 8 to 0 of 16"),
        ({"a": tensor(0, 16, shape=[15])}, "'a': 16 bytes for 15 elements of U8"),
        ({"a": tensor(0, 16, dtype="F32", shape=[2, 3])}, "'a': 16 bytes for 6 elements of F32"),
        ({"a": tensor(0, 16, dtype="F99")}, "'a' has the unknown type 'F99'"),
        ({"a": tensor(0, 16, shape=[2**40, 2**40])}, f"'a' has more than {2**48} elements"),
        ({"a": tensor(0, 16, shape=[-16])}, "'a' has an invalid dimension: -16"),
        ({"a": tensor(0, 16, shape=["16"])}, "'a' has an invalid dimension: 16"),
        ({"a": [1]}, "'a' has no dtype, shape and data_offsets"),
        ({"__metadata__": {"x": 1}, "a": tensor(0, 16)}, "__metadata__ holds values that are not strings"),
        ('{"a": 1, "a": 2}', "duplicate tensor name 'a'"),
        ("{,", "header is not JSON"),
        ('{"a": ' + "[" * 5000, "header is not JSON"),
        ('{"a": [' + "1," * 600_000, "header too large: more than 500000 values"),
    ],
    ids=[
        *("overlap", "hole", "rest", "beyond the end", "backwards", "wrong size", "wrong type size", "type", "huge"),
        *("negative", "text", "no tensor", "metadata", "twice", "no json", "deep", "many values"),
    ],
)
def test_an_invalid_safetensors_header_is_a_finding(header: Header | str, expected: str) -> None:
    assert expected in " | ".join(findings(safetensors(header)))


def test_a_valid_safetensors_header_has_no_findings() -> None:
    assert findings(weights.safetensors({"b": b"B" * 3, "a": b"A" * 50, "empty": b""}, {"format": "pt"})) == ()
    assert findings(safetensors({"a": tensor(0, 16, dtype="F4", shape=[32])})) == ()


def test_the_findings_of_one_file_are_bounded() -> None:
    header = {f"t{n}": tensor(0, 16, dtype="F99") for n in range(1000)}
    assert len(findings(safetensors(header))) == MAX_FINDINGS


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def info(name: str, sides: list[int], kind: int = 24, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(sides)}QIQ", len(sides), *sides, kind, offset)


ARCHITECTURE = pair("general.architecture", 8, text("llama"))


def gguf(
    *tensors: bytes, pairs: tuple[bytes, ...] = (ARCHITECTURE,), version: int = 3, data: int = 64, counts: int = 0
) -> bytes:
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors) + counts, len(pairs)) + b"".join((*pairs, *tensors))
    return header + bytes(-len(header) % 32) + bytes(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (gguf(version=1), "unknown version, or big-endian: 1"),
        (gguf(version=3 << 24), "unknown version, or big-endian"),
        (gguf(pairs=()), "general.architecture is missing"),
        (gguf(pairs=(ARCHITECTURE, ARCHITECTURE)), "duplicate key 'general.architecture'"),
        (gguf(info("a", [32]), info("a", [32], offset=32)), "duplicate tensor name"),
        (gguf(info("a", [32]), info("b", [32], offset=0)), "'b' overlaps the tensor before it"),
        (gguf(info("a", [65])), "'a' is outside the file: 0 to 65 of 64"),
        (gguf(info("a", [32], kind=8), data=33), "'a' is outside the file: 0 to 34 of 33"),
        (gguf(info("a", [31], kind=8)), "'a': rows of 31 elements are not whole blocks of 32"),
        (gguf(info("a", [], kind=8)), "'a': rows of 1 elements are not whole blocks of 32"),
        (gguf(info("a", [32], offset=8)), "'a' is not aligned"),
        (gguf(info("a", [2**40, 2**40])), f"'a' has more than {2**48} elements"),
        (gguf(info("a" * 64, [1])), "has 64 bytes, loaders read at most 63"),
        (gguf(info("a", [1] * 5)), "too many dimensions: 'a' has 5"),
        (gguf(counts=100_001), "header too large: 100001 tensors"),
        (gguf(pairs=(ARCHITECTURE, pair("k", 99, b""))), "a value of unknown type: 99"),
        (gguf(pairs=(ARCHITECTURE, pair("k", 9, struct.pack("<IQ", 9, 1)))), "a value of unknown type: 9"),
        (gguf(pairs=(ARCHITECTURE, pair("k", 8, struct.pack("<Q", 2**63)))), "truncated"),
        (gguf(pairs=(ARCHITECTURE, pair("k", 9, struct.pack("<IQ", 10, 2**62)))), "truncated"),
        (gguf(pairs=(ARCHITECTURE, pair("k", 9, struct.pack("<IQ", 8, 2**62)))), "truncated"),
        (gguf(pairs=(ARCHITECTURE, pair("general.alignment", 4, struct.pack("<I", 33)))), "invalid alignment: 33"),
        (b"GGUF\x03", "truncated"),
    ],
    ids=[
        *("version 1", "big-endian", "no architecture", "key twice", "name twice", "overlap", "beyond the end"),
        *(
            "quantised beyond",
            "rows",
            "no sides",
            "alignment",
            "huge",
            "long name",
            "dimensions",
            "many tensors",
            "type",
            "nested",
        ),
        *("long string", "long array", "many strings", "no power of two", "short"),
    ],
)
def test_an_invalid_gguf_header_is_a_finding(data: bytes, expected: str) -> None:
    assert expected in " | ".join(findings(data))


def test_a_valid_gguf_header_has_no_findings() -> None:
    assert findings(weights.gguf({"a": b"A" * 100, "b": b"B"}, tokens=("a", "b") * 100)) == ()
    assert findings(gguf(info("a", [64], kind=8), info("b", [7], kind=777, offset=96), data=128)) == ()


def test_block_sizes_are_those_of_the_gguf_package() -> None:
    constants = pytest.importorskip("gguf.constants", reason="unlock: pip install gguf")
    sizes = {int(kind): size for kind, size in constants.GGML_QUANT_SIZES.items()}
    for kind, (block, width) in sizes.items():
        rows = gguf(info("a", [block], kind=kind), data=width)
        assert findings(rows) == ()
        if kind in (0, 2, 8, 12, 30):
            assert findings(rows[:-1]) != ()
