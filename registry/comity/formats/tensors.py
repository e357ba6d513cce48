"""The tensors of a weight file: name, type, shape, and where their bytes are. From the header alone.

Stricter than what cutting into pieces needs: a length that does not follow from type and shape, a name that is given
twice, tensors that overlap, and types that are not in the tables here are refused, since whoever compares tensors has
to know which bytes are which element. Bounds are those of the headers (`gguf`, `safetensors`).

A GGUF file lists its dimensions innermost first; shapes here are outermost first, as everywhere else. Sources: the
formats' own documents, and `GGML_QUANT_SIZES` of the gguf package for elements and bytes a block.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO, Final, TypeAlias

from comity.formats.gguf import MAX_ALIGNMENT, MAX_DIMENSIONS, MAX_KEY, MAX_TENSORS, Cursor, skip_value
from comity.formats.safetensors import read_header
from comity.trust.encoding import MAX_INTEGER, Json
from comity.trust.errors import Malformed

MAX_NAME: Final = 1024
MAX_FACTS: Final = 4096
MAX_FACT: Final = 256
MAX_RANK: Final = 16

BITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""Bits an element, of the types of safetensors."""

BLOCKS: Final[Mapping[int, tuple[str, int, int]]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
"""GGUF's types: name, elements a block, bytes a block."""
_BLOCK_OF: Final = {name: (elements, width) for name, elements, width in BLOCKS.values()}

_NUMBERS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
_TEXT: Final = 8

Fact: TypeAlias = "int | str"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: `length` bytes from `start` on, counted from the beginning of its file; shape outermost first."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    length: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def block(self) -> tuple[int, int]:
        """(elements, bytes) of the smallest part that can be read alone: one element, of quantised types a block."""
        return _BLOCK_OF.get(self.dtype) or (1, BITS[self.dtype] // 8)


@dataclass(frozen=True, slots=True)
class Table:
    """The tensors of one file, in the order of their bytes, and, of a GGUF file, its whole numbers and short texts."""

    tensors: tuple[Tensor, ...]
    facts: Mapping[str, Fact] = field(default_factory=dict)


Reader: TypeAlias = Callable[[BinaryIO, int], Table]


def reader_of(path: str) -> Reader | None:
    """Who reads the tensors of the file called `path`; None for files of other formats."""
    return {".safetensors": read_safetensors, ".gguf": read_gguf}.get(PurePosixPath(path).suffix.lower())


def read_safetensors(file: BinaryIO, size: int) -> Table:
    """Raises Malformed, and OSError where `file` does."""
    header_end, described = read_header(file, size)
    found = [_safetensor(name, value, header_end) for name, value in described.items() if name != "__metadata__"]
    return Table(_in_order(found, header_end, size))


def read_gguf(file: BinaryIO, size: int) -> Table:
    """Raises Malformed, and OSError where `file` does."""
    header = Cursor(file, size)
    if header.take(4) != b"GGUF" or header.u32() not in (2, 3):
        raise _malformed("no GGUF file of version 2 or 3")
    count, pairs = header.u64(), header.u64()
    if count > MAX_TENSORS:
        raise _malformed(f"{count} tensors, at most {MAX_TENSORS} are read")
    facts = _facts(header, pairs)
    described = [_described(header) for _ in range(count)]
    alignment = facts.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= MAX_ALIGNMENT or alignment.bit_count() != 1:
        raise _malformed(f"alignment {alignment}")
    data = header.position + -header.position % alignment
    found = [_ggml_tensor(*item, data) for item in described]
    return Table(_in_order(found, header.position, size), facts)


def _safetensor(name: str, value: Json, header_end: int) -> Tensor:
    match value:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise _malformed(f"tensor {name[:80]!r} has no type, shape or place")
    if dtype not in BITS:
        raise _malformed(f"tensor {name[:80]!r} is of type {dtype[:20]!r}, which is not known here")
    made = Tensor(_named(name), dtype, _shape(shape), header_end + begin, end - begin)
    if made.elements * BITS[dtype] != made.length * 8:
        raise _malformed(f"tensor {name[:80]!r} has {made.length} bytes, which its shape does not give")
    return made


def _described(header: Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, type and offset of one tensor."""
    name = _text(header, MAX_NAME)
    rank = header.u32()
    if rank > MAX_DIMENSIONS:
        raise _malformed(f"a tensor of {rank} dimensions")
    shape = [header.u64() for _ in range(rank)]
    return _named(name), _shape(shape[::-1]), header.u32(), header.u64()


def _ggml_tensor(name: str, shape: tuple[int, ...], kind: int, offset: int, data: int) -> Tensor:
    if kind not in BLOCKS:
        raise _malformed(f"tensor {name[:80]!r} is of type {kind}, which is not known here")
    dtype, elements, width = BLOCKS[kind]
    row = shape[-1] if shape else 1
    if row % elements:
        raise _malformed(f"tensor {name[:80]!r} has rows of {row} elements, which {dtype} cannot hold")
    return Tensor(name, dtype, shape, data + offset, math.prod(shape) // elements * width)


def _facts(header: Cursor, pairs: int) -> dict[str, Fact]:
    """Whole numbers and short texts among the pairs, at most MAX_FACTS; all else is stepped over."""
    facts: dict[str, Fact] = {}
    for _ in range(pairs):
        key, kind = _text(header, MAX_KEY), header.u32()
        if kind in _NUMBERS and len(facts) < MAX_FACTS:
            facts[key[:MAX_FACT]] = int(struct.unpack(form := _NUMBERS[kind], header.take(struct.calcsize(form)))[0])
        elif kind == _TEXT:
            length = header.u64()
            if length <= MAX_FACT and len(facts) < MAX_FACTS:
                facts[key[:MAX_FACT]] = header.take(length).decode("utf-8", "replace")
            else:
                header.skip(length)
        else:
            skip_value(header, kind)
    return facts


def _text(header: Cursor, most: int) -> str:
    length = header.u64()
    if length > most:
        raise _malformed(f"a name of {length} bytes")
    try:
        return header.take(length).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed("a name that is not UTF-8") from error


def _named(name: str) -> str:
    if not 1 <= len(name) <= MAX_NAME:
        raise _malformed(f"a tensor's name of {len(name)} characters")
    return name


def _shape(dimensions: Iterable[Json]) -> tuple[int, ...]:
    shape = []
    for dimension in dimensions:
        if not isinstance(dimension, int) or isinstance(dimension, bool) or not 0 <= dimension <= MAX_INTEGER:
            raise _malformed(f"a dimension of {str(dimension)[:40]}")
        shape.append(dimension)
    if len(shape) > MAX_RANK or math.prod(shape) > MAX_INTEGER:
        raise _malformed("more dimensions or elements than any tensor has")
    return tuple(shape)


def _in_order(found: list[Tensor], begin: int, size: int) -> tuple[Tensor, ...]:
    """By place in the file; none overlaps another or leaves it, and no name is given twice."""
    tensors = sorted(found, key=lambda tensor: (tensor.start, tensor.length))
    for tensor in tensors:
        if tensor.start < begin or tensor.start + tensor.length > size:
            raise _malformed(f"tensor {tensor.name[:80]!r} does not lie inside the file")
    for one, other in itertools.pairwise(tensors):
        if one.start + one.length > other.start:
            raise _malformed(f"tensors {one.name[:80]!r} and {other.name[:80]!r} overlap")
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise _malformed("a tensor's name is given twice")
    return tuple(tensors)


def _malformed(why: str) -> Malformed:
    return Malformed("the tensors cannot be read", why=why, code="TENSORS")
