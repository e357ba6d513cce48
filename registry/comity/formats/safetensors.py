"""The header of a safetensors file: a 64-bit little-endian length, then that many bytes of JSON.

    {"__metadata__": {…}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, …}

Offsets count from the end of the header. As the format's own reader does, ranges are required to tile the rest of the
file without a gap. At most 8 MiB of header with 500,000 JSON values are parsed, which holds less than 128 MiB.
Source: the format's README (huggingface/safetensors), and its `Metadata::validate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO, Final

from comity.formats import TensorLayout
from comity.trust.encoding import Json, parse_json
from comity.trust.errors import Malformed

MAX_HEADER: Final = 8 * 1024 * 1024
MAX_VALUES: Final = 500_000


def read_layout(file: BinaryIO, size: int) -> TensorLayout:
    """The layout of a safetensors file of `size` bytes. Raises Malformed, and OSError where `file` does."""
    header_end, tensors = read_header(file, size)
    position = header_end
    starts = []
    for begin, end in sorted(_range(value) for name, value in tensors.items() if name != "__metadata__"):
        if header_end + begin != position or end < begin:
            raise _malformed("tensors overlap or leave a gap")
        if end > begin:
            starts.append(position)
        position = header_end + end
    if position != size:
        raise _malformed(f"tensors end at byte {position}, the file at {size}")
    return TensorLayout(header_end, tuple(starts))


def read_header(file: BinaryIO, size: int) -> tuple[int, Mapping[str, Json]]:
    """Where the header ends, and what it says. Raises Malformed, and OSError where `file` does."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER or 8 + length > size:
        raise _malformed(f"a header of {length} bytes in a file of {size}; at most {MAX_HEADER} are read")
    header = file.read(length)
    if len(header) != length:
        raise _malformed("the file ends inside it")
    if sum(header.count(mark) for mark in (b"{", b"[", b",")) > MAX_VALUES:  # before memory is spent on them
        raise _malformed(f"more than {MAX_VALUES} values")
    tensors = parse_json(header, limit=MAX_HEADER, what="safetensors header")
    if not isinstance(tensors, Mapping):
        raise _malformed("not a JSON object")
    return 8 + length, tensors


def _range(tensor: Json) -> tuple[int, int]:
    match tensor:
        case {"data_offsets": [int(begin), int(end)]}:
            return begin, end
    raise _malformed("a tensor without data_offsets")


def _malformed(why: str) -> Malformed:
    return Malformed("safetensors header is malformed", why=why)
