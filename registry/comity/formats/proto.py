"""Formats without a mark at their beginning: messages of Protocol Buffers, known by which fields they have.

Fields are stepped over, never decoded. Source: onnx.proto (ModelProto), sentencepiece_model.proto (ModelProto).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from comity.formats.source import Cursor, Source
from comity.trust.errors import Malformed

MAX_FIELDS: Final = 512
WINDOW: Final = 4096
LENGTH: Final = 2
_ONNX: Final = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
"""Fields of an ONNX ModelProto, and the wire type of each."""


def is_onnx(source: Source) -> bool:
    """Every field is one of an ONNX model's, its version and its graph among them, up to the last byte."""
    seen = set()
    try:
        for number, kind, _ in _fields(source, 0, source.size):
            if _ONNX.get(number) != kind:
                return False
            seen.add(number)
    except Malformed:
        return False
    return {1, 7} <= seen


def is_sentencepiece(source: Source) -> bool:
    """It begins with pieces: a text and a score each."""
    pieces = 0
    try:
        for number, kind, at in _fields(source, 0, source.size):
            if (number, kind) != (1, LENGTH) or source.at(at, 1) != b"\n":
                return False
            pieces += 1
            if pieces == 3:
                return True
    except Malformed:
        return False
    return False


def _fields(source: Source, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, wire type, where its bytes begin) of each field. Raises Malformed."""
    cursor = Cursor(source, start, end, WINDOW)
    for _ in range(MAX_FIELDS):
        if cursor.position == end:
            return
        key = _varint(cursor)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _varint(cursor)
            yield number, kind, cursor.position
        elif kind == LENGTH:
            length = _varint(cursor)
            at = cursor.position
            cursor.skip(length)
            yield number, kind, at
        elif kind in (1, 5):
            cursor.skip(8 if kind == 1 else 4)
            yield number, kind, cursor.position
        else:
            raise Malformed("no message", why="an unknown wire type")
    raise Malformed("no message", why=f"more than {MAX_FIELDS} fields")


def _varint(cursor: Cursor) -> int:
    value = 0
    for shift in range(0, 63, 7):
        byte = cursor.uint(1)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise Malformed("no message", why="a number of more than 9 bytes")
