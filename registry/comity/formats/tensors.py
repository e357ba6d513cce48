"""Reads the headers of safetensors and GGUF files: piece layout, tensor tables, and bounded access to untrusted files.

safetensors: a 64-bit little-endian length, then that many bytes of JSON. Offsets count from the end of the header.

    {"__metadata__": {…}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, …}

As in the format's own reader, ranges must tile the rest of the file without a gap. At most 8 MiB of header with 500,000
JSON values are parsed, in less than 128 MiB. Source: README and `Metadata::validate` of huggingface/safetensors.

GGUF, versions 2 and 3, little-endian:

    "GGUF", u32 version, u64 tensors, u64 pairs
    pairs    string key, u32 type, value          a string is a u64 length and its bytes
    tensors  string name, u32 dimensions, u64 each, u32 type, u64 offset
    padding up to `general.alignment` (32), then the data; offsets count from there and are multiples of it

At most 32 MiB of header are read (enough for a vocabulary of a few 100,000 tokens and its merges), and less than 32 MiB
held. Dimensions are listed innermost first; shapes here are outermost first. Source: ggml, docs/gguf.md, and
`GGML_QUANT_SIZES` of the gguf package for elements and bytes per block.

Tensor tables are stricter than piece layouts, because comparing tensors requires exact bytes: a length that does not
follow from type and shape, a duplicate name, overlapping tensors and unknown types are refused.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from pathlib import PurePosixPath
from typing import BinaryIO, Final, TypeAlias

from comity.formats import TensorLayout
from comity.trust.encoding import MAX_INTEGER, Json, parse_json
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

MAX_SAFETENSORS_HEADER_READ: Final = 8 * 1024 * 1024
MAX_VALUES: Final = 500_000


def read_safetensors_layout(file: BinaryIO, size: int) -> TensorLayout:
    """The layout of a safetensors file of `size` bytes. Raises Malformed, and OSError if `file` does."""
    header_end, tensors = read_header(file, size)
    position = header_end
    starts = []
    for begin, end in sorted(_range(value) for name, value in tensors.items() if name != "__metadata__"):
        if header_end + begin != position or end < begin:
            raise _malformed_safetensors("tensors overlap or leave a gap")
        if end > begin:
            starts.append(position)
        position = header_end + end
    if position != size:
        raise _malformed_safetensors(f"tensors end at byte {position}, the file ends at {size}")
    return TensorLayout(header_end, tuple(starts))


def read_header(file: BinaryIO, size: int) -> tuple[int, Mapping[str, Json]]:
    """The offset where the header ends, and its JSON object. Raises Malformed, and OSError if `file` does."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_SAFETENSORS_HEADER_READ or 8 + length > size:
        raise _malformed_safetensors(
            f"a header of {length} bytes in a file of {size} bytes; at most {MAX_SAFETENSORS_HEADER_READ} are read"
        )
    header = file.read(length)
    if len(header) != length:
        raise _malformed_safetensors("the file ends inside the header")
    if sum(header.count(mark) for mark in (b"{", b"[", b",")) > MAX_VALUES:  # before the parser allocates memory
        raise _malformed_safetensors(f"more than {MAX_VALUES} values")
    tensors = parse_json(header, limit=MAX_SAFETENSORS_HEADER_READ, what="safetensors header")
    if not isinstance(tensors, Mapping):
        raise _malformed_safetensors("not a JSON object")
    return 8 + length, tensors


def _range(tensor: Json) -> tuple[int, int]:
    match tensor:
        case {"data_offsets": [int(begin), int(end)]}:
            return begin, end
    raise _malformed_safetensors("a tensor without data_offsets")


def _malformed_safetensors(why: str) -> Malformed:
    return Malformed("safetensors header is malformed", why=why)


MAX_GGUF_HEADER: Final = 32 * 1024 * 1024
MAX_TENSORS: Final = 100_000
MAX_KEY: Final = 65_535
MAX_DIMENSIONS: Final = 4
MAX_ALIGNMENT: Final = 1024 * 1024

UINT32_TYPE: Final = 4
STRING_TYPE: Final = 8
ARRAY_TYPE: Final = 9
SCALAR_WIDTHS: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def read_gguf_layout(file: BinaryIO, size: int) -> TensorLayout:
    """The layout of a GGUF file of `size` bytes. Raises Malformed, and OSError if `file` does."""
    header = HeaderCursor(file, size)
    if header.take(4) != b"GGUF":
        raise _malformed_gguf("no GGUF magic")
    if (version := header.u32()) not in (2, 3):
        raise _malformed_gguf(f"version {version}, or a big-endian file")
    tensors, pairs = header.u64(), header.u64()
    if tensors > MAX_TENSORS:
        raise _malformed_gguf(f"{tensors} tensors, at most {MAX_TENSORS} are read")
    alignment = _read_alignment(header, pairs)
    offsets = {_read_offset(header, alignment) for _ in range(tensors)}
    data = header.position + -header.position % alignment
    starts = tuple(data + offset for offset in sorted(offsets))
    if starts and starts[-1] >= size:
        raise _malformed_gguf("a tensor starts beyond the end of the file")
    return TensorLayout(min(data, size), starts)


class HeaderCursor:
    """A cursor that stays inside the file and its first MAX_GGUF_HEADER bytes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._end = min(size, MAX_GGUF_HEADER)
        self.position = 0
        file.seek(0)

    def take(self, length: int) -> bytes:
        self._advance(length)
        data = self._file.read(length)
        if len(data) != length:
            raise _malformed_gguf("the file ends inside the header")
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
            raise _malformed_gguf(f"the header exceeds the file, or {MAX_GGUF_HEADER} bytes")


def _read_alignment(header: HeaderCursor, pairs: int) -> int:
    """Step over `pairs` key-value pairs; returns `general.alignment`, default 32."""
    alignment = 32
    for _ in range(pairs):
        length = header.u64()
        if length > MAX_KEY:
            raise _malformed_gguf(f"a key of {length} bytes")
        key, kind = header.take(length), header.u32()
        if key == b"general.alignment" and kind == UINT32_TYPE:
            alignment = header.u32()
        else:
            skip_value(header, kind)
    if not (1 <= alignment <= MAX_ALIGNMENT and alignment.bit_count() == 1):
        raise _malformed_gguf(f"alignment {alignment}")
    return alignment


def skip_value(header: HeaderCursor, kind: int) -> None:
    """Step over one value of type `kind`. Raises Malformed."""
    if kind == ARRAY_TYPE:
        element, count = header.u32(), header.u64()
    else:
        element, count = kind, 1
    if element in SCALAR_WIDTHS:
        header.skip(SCALAR_WIDTHS[element] * count)
    elif element == STRING_TYPE:
        for _ in range(count):
            header.skip(header.u64())
    else:
        raise _malformed_gguf(f"a value of type {element}")


def _read_offset(header: HeaderCursor, alignment: int) -> int:
    header.skip(header.u64())
    dimensions = header.u32()
    if dimensions > MAX_DIMENSIONS:
        raise _malformed_gguf(f"a tensor of {dimensions} dimensions")
    header.skip(8 * dimensions + 4)
    offset = header.u64()
    if offset % alignment:
        raise _malformed_gguf("a tensor that is not aligned")
    return offset


def _malformed_gguf(why: str) -> Malformed:
    return Malformed("GGUF header is malformed", why=why)


MAX_TENSOR_NAME: Final = 1024
MAX_METADATA_PAIRS: Final = 4096
MAX_METADATA_TEXT: Final = 256
MAX_RANK: Final = 16

BITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
"""Bits per element of the safetensors types."""

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
"""GGUF types: name, elements per block, bytes per block."""
_BLOCK_OF: Final = {name: (elements, width) for name, elements, width in BLOCKS.values()}

_NUMBERS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 10: "<Q", 11: "<q"}

MetadataValue: TypeAlias = "int | str"


@frozen
class Tensor:
    """One tensor: `length` bytes from offset `start` of its file; shape outermost first."""

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
        """(elements, bytes) of the smallest readable part: one element, or one block of a quantised type."""
        return _BLOCK_OF.get(self.dtype) or (1, BITS[self.dtype] // 8)


@frozen
class TensorTable:
    """The tensors of one file by offset. `metadata`: the integers and short strings of a GGUF file."""

    tensors: tuple[Tensor, ...]
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


TensorReader: TypeAlias = Callable[[BinaryIO, int], TensorTable]


def tensor_reader(path: str) -> TensorReader | None:
    """The reader for the file named `path`; None for files of other formats."""
    return {".safetensors": read_safetensors, ".gguf": read_gguf}.get(PurePosixPath(path).suffix.lower())


def read_safetensors(file: BinaryIO, size: int) -> TensorTable:
    """Raises Malformed, and OSError if `file` does."""
    header_end, described = read_header(file, size)
    found = [_safetensor(name, value, header_end) for name, value in described.items() if name != "__metadata__"]
    return TensorTable(_sorted_by_offset(found, header_end, size))


def read_gguf(file: BinaryIO, size: int) -> TensorTable:
    """Raises Malformed, and OSError if `file` does."""
    header = HeaderCursor(file, size)
    if header.take(4) != b"GGUF" or header.u32() not in (2, 3):
        raise _malformed_tensors("not a GGUF file of version 2 or 3")
    count, pairs = header.u64(), header.u64()
    if count > MAX_TENSORS:
        raise _malformed_tensors(f"{count} tensors, at most {MAX_TENSORS} are read")
    metadata = _read_metadata(header, pairs)
    described = [_read_tensor_info(header) for _ in range(count)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= MAX_ALIGNMENT or alignment.bit_count() != 1:
        raise _malformed_tensors(f"alignment {alignment}")
    data = header.position + -header.position % alignment
    found = [_ggml_tensor(*item, data) for item in described]
    return TensorTable(_sorted_by_offset(found, header.position, size), metadata)


def _safetensor(name: str, value: Json, header_end: int) -> Tensor:
    match value:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise _malformed_tensors(f"tensor {name[:80]!r} has no type, shape or offsets")
    if dtype not in BITS:
        raise _malformed_tensors(f"tensor {name[:80]!r} has the unknown type {dtype[:20]!r}")
    tensor = Tensor(_check_name(name), dtype, _shape(shape), header_end + begin, end - begin)
    if tensor.elements * BITS[dtype] != tensor.length * 8:
        raise _malformed_tensors(f"tensor {name[:80]!r} has {tensor.length} bytes, which does not match its shape")
    return tensor


def _read_tensor_info(header: HeaderCursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, type and offset of one tensor."""
    name = _read_string(header, MAX_TENSOR_NAME)
    rank = header.u32()
    if rank > MAX_DIMENSIONS:
        raise _malformed_tensors(f"a tensor of {rank} dimensions")
    shape = [header.u64() for _ in range(rank)]
    return _check_name(name), _shape(shape[::-1]), header.u32(), header.u64()


def _ggml_tensor(name: str, shape: tuple[int, ...], kind: int, offset: int, data: int) -> Tensor:
    if kind not in BLOCKS:
        raise _malformed_tensors(f"tensor {name[:80]!r} has the unknown type {kind}")
    dtype, elements, width = BLOCKS[kind]
    row = shape[-1] if shape else 1
    if row % elements:
        raise _malformed_tensors(f"tensor {name[:80]!r} has rows of {row} elements, which {dtype} cannot hold")
    return Tensor(name, dtype, shape, data + offset, math.prod(shape) // elements * width)


def _read_metadata(header: HeaderCursor, pairs: int) -> dict[str, MetadataValue]:
    """The integers and short strings among the pairs, at most MAX_METADATA_PAIRS; other values are skipped."""
    metadata: dict[str, MetadataValue] = {}
    for _ in range(pairs):
        key, kind = _read_string(header, MAX_KEY), header.u32()
        if kind in _NUMBERS and len(metadata) < MAX_METADATA_PAIRS:
            metadata[key[:MAX_METADATA_TEXT]] = int(
                struct.unpack(form := _NUMBERS[kind], header.take(struct.calcsize(form)))[0]
            )
        elif kind == STRING_TYPE:
            length = header.u64()
            if length <= MAX_METADATA_TEXT and len(metadata) < MAX_METADATA_PAIRS:
                metadata[key[:MAX_METADATA_TEXT]] = header.take(length).decode("utf-8", "replace")
            else:
                header.skip(length)
        else:
            skip_value(header, kind)
    return metadata


def _read_string(header: HeaderCursor, most: int) -> str:
    length = header.u64()
    if length > most:
        raise _malformed_tensors(f"a name of {length} bytes")
    try:
        return header.take(length).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed_tensors("a name that is not UTF-8") from error


def _check_name(name: str) -> str:
    if not 1 <= len(name) <= MAX_TENSOR_NAME:
        raise _malformed_tensors(f"a tensor's name of {len(name)} characters")
    return name


def _shape(dimensions: Iterable[Json]) -> tuple[int, ...]:
    shape = []
    for dimension in dimensions:
        if not isinstance(dimension, int) or isinstance(dimension, bool) or not 0 <= dimension <= MAX_INTEGER:
            raise _malformed_tensors(f"a dimension of {str(dimension)[:40]}")
        shape.append(dimension)
    if len(shape) > MAX_RANK or math.prod(shape) > MAX_INTEGER:
        raise _malformed_tensors("too many dimensions or elements")
    return tuple(shape)


def _sorted_by_offset(found: list[Tensor], begin: int, size: int) -> tuple[Tensor, ...]:
    """The tensors by offset, after checks: inside the file, no overlap, no duplicate name."""
    tensors = sorted(found, key=lambda tensor: (tensor.start, tensor.length))
    for tensor in tensors:
        if tensor.start < begin or tensor.start + tensor.length > size:
            raise _malformed_tensors(f"tensor {tensor.name[:80]!r} is not inside the file")
    for one, other in itertools.pairwise(tensors):
        if one.start + one.length > other.start:
            raise _malformed_tensors(f"tensors {one.name[:80]!r} and {other.name[:80]!r} overlap")
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise _malformed_tensors("duplicate tensor name")
    return tuple(tensors)


def _malformed_tensors(why: str) -> Malformed:
    return Malformed("the tensors cannot be read", why=why, code="TENSORS")
