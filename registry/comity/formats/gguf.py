"""The header of a GGUF file, versions 2 and 3, little-endian.

    "GGUF", u32 version, u64 tensors, u64 pairs
    pairs    string key, u32 type, value          a string is a u64 length and its bytes
    tensors  string name, u32 dimensions, u64 each, u32 type, u64 offset
    padding up to `general.alignment` (32), then the data; offsets count from there and are multiples of it

Values are stepped over, never kept: at most 32 MiB of header are walked (a vocabulary of a few 100,000 tokens and its
merges fits well), and less than 32 MiB is held. Source: ggml, docs/gguf.md.
"""

from __future__ import annotations

import struct
from typing import BinaryIO, Final

from comity.formats import TensorLayout
from comity.trust.errors import Malformed

MAX_HEADER: Final = 32 * 1024 * 1024
MAX_TENSORS: Final = 100_000
MAX_KEY: Final = 65_535
MAX_DIMENSIONS: Final = 4
MAX_ALIGNMENT: Final = 1024 * 1024

_UINT32: Final = 4
_STRING: Final = 8
_ARRAY: Final = 9
_WIDTHS: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def read_layout(file: BinaryIO, size: int) -> TensorLayout:
    """The layout of a GGUF file of `size` bytes. Raises Malformed, and OSError where `file` does."""
    header = Cursor(file, size)
    if header.take(4) != b"GGUF":
        raise _malformed("no magic")
    if (version := header.u32()) not in (2, 3):
        raise _malformed(f"version {version}, or a big-endian file")
    tensors, pairs = header.u64(), header.u64()
    if tensors > MAX_TENSORS:
        raise _malformed(f"{tensors} tensors, at most {MAX_TENSORS} are read")
    alignment = _read_alignment(header, pairs)
    offsets = {_read_offset(header, alignment) for _ in range(tensors)}
    data = header.position + -header.position % alignment
    starts = tuple(data + offset for offset in sorted(offsets))
    if starts and starts[-1] >= size:
        raise _malformed("a tensor starts beyond the end of the file")
    return TensorLayout(min(data, size), starts)


class Cursor:
    """A cursor that never leaves the file nor the first MAX_HEADER bytes of it."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._end = min(size, MAX_HEADER)
        self.position = 0
        file.seek(0)

    def take(self, length: int) -> bytes:
        self._advance(length)
        data = self._file.read(length)
        if len(data) != length:
            raise _malformed("the file ends inside it")
        return data

    def skip(self, length: int) -> None:
        self._advance(length)
        self._file.seek(length, 1)

    def u32(self) -> int:
        return int(struct.unpack("<I", self.take(4))[0])

    def u64(self) -> int:
        return int(struct.unpack("<Q", self.take(8))[0])

    def _advance(self, length: int) -> None:
        self.position += length
        if self.position > self._end:
            raise _malformed(f"it goes on beyond the file, or beyond {MAX_HEADER} bytes")


def _read_alignment(header: Cursor, pairs: int) -> int:
    """Step over `pairs` key-value pairs; `general.alignment`, or 32."""
    alignment = 32
    for _ in range(pairs):
        length = header.u64()
        if length > MAX_KEY:
            raise _malformed(f"a key of {length} bytes")
        key, kind = header.take(length), header.u32()
        if key == b"general.alignment" and kind == _UINT32:
            alignment = header.u32()
        else:
            skip_value(header, kind)
    if not (1 <= alignment <= MAX_ALIGNMENT and alignment.bit_count() == 1):
        raise _malformed(f"alignment {alignment}")
    return alignment


def skip_value(header: Cursor, kind: int) -> None:
    """Step over one value of type `kind`. Raises Malformed."""
    if kind == _ARRAY:
        element, count = header.u32(), header.u64()
    else:
        element, count = kind, 1
    if element in _WIDTHS:
        header.skip(_WIDTHS[element] * count)
    elif element == _STRING:
        for _ in range(count):
            header.skip(header.u64())
    else:
        raise _malformed(f"a value of type {element}")


def _read_offset(header: Cursor, alignment: int) -> int:
    header.skip(header.u64())
    dimensions = header.u32()
    if dimensions > MAX_DIMENSIONS:
        raise _malformed(f"a tensor of {dimensions} dimensions")
    header.skip(8 * dimensions + 4)
    offset = header.u64()
    if offset % alignment:
        raise _malformed("a tensor that is not aligned")
    return offset


def _malformed(why: str) -> Malformed:
    return Malformed("GGUF header is malformed", why=why)
