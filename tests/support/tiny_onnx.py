"""An ONNX file written by hand: one table of vectors, and the lookup of token ids in it.

It is the minimum that an inference engine needs to load a file and compute with it. The table is given: tests use the
word embeddings of a real model. Source: onnx.proto of ONNX 1.16 (field numbers), operator set 13.
"""

from __future__ import annotations

from typing import Final

FLOAT: Final = 1
INT64: Final = 7


def embedding_lookup(table: bytes, rows: int, columns: int) -> bytes:
    """A model from `input_ids` and `attention_mask` to `last_hidden_state`. `table` has little-endian float32."""
    assert len(table) == rows * columns * 4
    tensor = _number(1, rows) + _number(1, columns) + _number(2, FLOAT) + _text(8, "table") + _bytes(9, table)
    lookup = _text(1, "table") + _text(1, "input_ids") + _text(2, "last_hidden_state") + _text(4, "Gather")
    graph = (
        _bytes(1, lookup)
        + _text(2, "embedding")
        + _bytes(5, tensor)
        + _bytes(11, _value("input_ids", INT64, "batch", "sequence"))
        + _bytes(11, _value("attention_mask", INT64, "batch", "sequence"))
        + _bytes(12, _value("last_hidden_state", FLOAT, "batch", "sequence", columns))
    )
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _text(1, "") + _number(2, 13))


def _value(name: str, kind: int, *shape: str | int) -> bytes:
    sizes = (_number(1, size) if isinstance(size, int) else _text(2, size) for size in shape)
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, kind) + _bytes(2, b"".join(_bytes(1, s) for s in sizes))))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())
