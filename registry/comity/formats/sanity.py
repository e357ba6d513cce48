"""Checks the headers of GGUF and safetensors files: sizes and offsets that would confuse or mislead a loader.

Each finding is one sentence about a file that may still load somewhere; this module makes no decision. Sources: ggml,
docs/gguf.md, block sizes of ggml-common.h; the safetensors README and its `Metadata::validate`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from comity.formats.source import BoundedFile, Cursor
from comity.formats.tensors import (
    ARRAY_TYPE,
    BITS,
    BLOCKS,
    MAX_ALIGNMENT,
    MAX_DIMENSIONS,
    MAX_GGUF_HEADER,
    MAX_KEY,
    MAX_SAFETENSORS_HEADER_READ,
    MAX_TENSORS,
    MAX_VALUES,
    SCALAR_WIDTHS,
    STRING_TYPE,
)
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

MAX_FINDINGS: Final = 8
"""Findings reported for one file."""
MAX_FINDING: Final = 200
"""Characters of one finding."""
MAX_ELEMENTS: Final = 2**48
"""Elements of a tensor; more is not plausible."""


@dataclass(slots=True)
class HeaderFindings:
    """Findings about a header, and the chat templates in it."""

    findings: list[str] = field(default_factory=list)
    templates: list[bytes] = field(default_factory=list)

    def add(self, finding: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding[:MAX_FINDING])


@frozen
class TensorRange:
    """The bytes of a tensor, counted from the start of the data. `end` is None if the type's size is unknown."""

    name: str
    begin: int
    end: int | None


def count_elements(result: HeaderFindings, name: str, shape: Sequence[object]) -> int | None:
    elements = 1
    for side in shape:
        if not isinstance(side, int) or isinstance(side, bool) or side < 0:
            result.add(f"{name[:80]!r} has an invalid dimension: {str(side)[:40]}")
            return None
        elements *= side
        if elements > MAX_ELEMENTS:
            result.add(f"{name[:80]!r} has more than {MAX_ELEMENTS} elements")
            return None
    return elements


def check_ranges(result: HeaderFindings, ranges: Iterable[TensorRange], data_size: int, *, contiguous: bool) -> None:
    """Check that tensors do not overlap and are inside the file; with `contiguous`, that there is no padding."""
    position = 0
    for tensor in sorted(ranges, key=lambda tensor: (tensor.begin, tensor.end or tensor.begin)):
        end = tensor.begin if tensor.end is None else tensor.end
        if tensor.begin < 0 or end < tensor.begin or end > data_size:
            result.add(f"{tensor.name[:80]!r} is outside the file: {tensor.begin} to {end} of {data_size}")
        elif tensor.begin < position:
            result.add(f"{tensor.name[:80]!r} overlaps the tensor before it")
        elif contiguous and tensor.begin > position:
            result.add(f"{tensor.begin - position} unused bytes before {tensor.name[:80]!r}")
        position = max(position, min(end, data_size))
    if contiguous and position < data_size:
        result.add(f"{data_size - position} unused bytes after the last tensor")


MAX_PAIRS: Final = 65_536
MAX_GGUF_NAME: Final = 64
"""Bytes of a tensor's name, including the terminating zero."""
MAX_TEMPLATE: Final = 1024 * 1024
TEMPLATE: Final = b"tokenizer.chat_template"


def check_gguf_header(source: BoundedFile) -> HeaderFindings:
    """Raises OSError if the file does."""
    result = HeaderFindings()
    try:
        _walk_gguf(result, source)
    except Malformed as error:
        result.add(str(error))
    return result


def _walk_gguf(result: HeaderFindings, source: BoundedFile) -> None:
    cursor = Cursor(source, 4, min(source.size, MAX_GGUF_HEADER))
    if (version := cursor.uint(4)) not in (2, 3):
        raise Malformed("unknown version, or big-endian", why=str(version))
    tensors, pairs = cursor.uint(8), cursor.uint(8)
    if tensors > MAX_TENSORS or pairs > MAX_PAIRS:
        raise Malformed("header too large", why=f"{tensors} tensors and {pairs} pairs")
    alignment = _walk_pairs(result, cursor, pairs)
    ranges = [_gguf_range(result, cursor, alignment) for _ in range(tensors)]
    names = [tensor.name for tensor in ranges]
    if len(set(names)) != len(names):
        result.add("duplicate tensor name")
    data = cursor.position + -cursor.position % alignment
    check_ranges(result, ranges, source.size - data, contiguous=False)


def _walk_pairs(result: HeaderFindings, cursor: Cursor, pairs: int) -> int:
    """Check the key-value pairs; returns the file's alignment, default 32."""
    alignment, keys = 32, set[bytes]()
    for _ in range(pairs):
        if (length := cursor.uint(8)) > MAX_KEY:
            raise Malformed("a key is too long", why=f"{length} bytes")
        key, kind = cursor.take(length), cursor.uint(4)
        if key in keys:
            result.add(f"duplicate key {_quote(key)}")
        keys.add(key)
        if key == b"general.alignment" and kind == 4:
            alignment = cursor.uint(4)
        elif key.startswith(TEMPLATE) and kind == STRING_TYPE:
            result.templates.append(_read_template(cursor))
        else:
            _skip_value(cursor, kind)
    if not (1 <= alignment <= MAX_ALIGNMENT and alignment.bit_count() == 1):
        raise Malformed("invalid alignment", why=str(alignment))
    if b"general.architecture" not in keys:
        result.add("general.architecture is missing")
    return alignment


def _read_template(cursor: Cursor) -> bytes:
    """The first MAX_TEMPLATE bytes of a template."""
    length = cursor.uint(8)
    shown = cursor.take(min(length, MAX_TEMPLATE))
    cursor.skip(length - len(shown))
    return shown


def _skip_value(cursor: Cursor, kind: int) -> None:
    element, count = (cursor.uint(4), cursor.uint(8)) if kind == ARRAY_TYPE else (kind, 1)
    if element in SCALAR_WIDTHS:
        cursor.skip(SCALAR_WIDTHS[element] * count)
    elif element == STRING_TYPE:
        cursor.skip_strings(count)
    else:
        raise Malformed("a value of unknown type", why=str(element))


def _gguf_range(result: HeaderFindings, cursor: Cursor, alignment: int) -> TensorRange:
    if (length := cursor.uint(8)) > MAX_KEY:
        raise Malformed("a tensor's name is too long", why=f"{length} bytes")
    name = cursor.take(length)
    if length >= MAX_GGUF_NAME:
        result.add(f"the name {_quote(name)} has {length} bytes, loaders read at most {MAX_GGUF_NAME - 1}")
    if (dimensions := cursor.uint(4)) > MAX_DIMENSIONS:
        raise Malformed("too many dimensions", why=f"{_quote(name)} has {dimensions}")
    sides = [cursor.uint(8) for _ in range(dimensions)]
    kind, offset = cursor.uint(4), cursor.uint(8)
    if offset % alignment:
        result.add(f"{_quote(name)} is not aligned")
    text = name.decode("utf-8", "replace")
    return TensorRange(text, offset, _gguf_end(result, text, sides, kind, offset))


def _gguf_end(result: HeaderFindings, name: str, sides: Sequence[int], kind: int, offset: int) -> int | None:
    elements = count_elements(result, name, sides)
    if elements is None or kind not in BLOCKS:
        return None
    _, block, width = BLOCKS[kind]
    row = sides[0] if sides else 1
    if row % block:
        result.add(f"{name[:80]!r}: rows of {row} elements are not whole blocks of {block}")
    return offset + elements // block * width


def _quote(name: bytes) -> str:
    return repr(name[:80].decode("utf-8", "replace"))


_BITS = {**BITS, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}


def check_safetensors_header(source: BoundedFile) -> HeaderFindings:
    """Raises OSError if the file does."""
    result = HeaderFindings()
    try:
        start, tensors, duplicates = _safetensors_header(source)
        for name in duplicates:
            result.add(f"duplicate tensor name {name[:80]!r}")
        ranges = []
        for name, described in tensors.items():
            if name != "__metadata__":
                ranges.append(_safetensors_range(result, name, described))
        check_ranges(result, [r for r in ranges if r is not None], source.size - start, contiguous=True)
    except Malformed as error:
        result.add(str(error))
    return result


def _safetensors_header(source: BoundedFile) -> tuple[int, Mapping[str, Any], list[str]]:
    length = int.from_bytes(source.read_exactly(0, 8), "little")
    if length > MAX_SAFETENSORS_HEADER_READ:
        raise Malformed("header too large", why=f"{length} bytes, at most {MAX_SAFETENSORS_HEADER_READ} are inspected")
    text, duplicates = source.read_exactly(8, length), list[str]()
    values = sum(text.count(mark) for mark in (b"{", b"[", b","))  # before the parser allocates memory
    if values > MAX_VALUES:
        raise Malformed("header too large", why=f"more than {MAX_VALUES} values")
    source.work.step(values)

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        members_by_name: dict[str, Any] = {}
        for name, value in members:
            if name in members_by_name and len(duplicates) < MAX_FINDINGS:
                duplicates.append(name)
            members_by_name[name] = value
        return members_by_name

    try:
        tensors = json.loads(text.decode("utf-8"), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise Malformed("header is not JSON", why=str(error)[:120]) from error
    if not isinstance(tensors, dict):
        raise Malformed("header is not a JSON object")
    metadata = tensors.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Malformed("__metadata__ holds values that are not strings")
    return 8 + length, tensors, duplicates


def _safetensors_range(result: HeaderFindings, name: str, described: object) -> TensorRange | None:
    match described:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            result.add(f"{name[:80]!r} has no dtype, shape and data_offsets")
            return None
    elements = count_elements(result, name, shape)
    if dtype not in _BITS:
        result.add(f"{name[:80]!r} has the unknown type {dtype[:20]!r}")
    elif elements is not None and elements * _BITS[dtype] != (end - begin) * 8:
        result.add(f"{name[:80]!r}: {end - begin} bytes for {elements} elements of {dtype}")
    return TensorRange(name, begin, end)
