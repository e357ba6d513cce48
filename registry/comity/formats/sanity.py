"""What a loader could not make sense of, or could be led astray by, in a weight file's header: sizes and places.

Each finding is one sentence about a file that may still load somewhere; nothing here decides.


Sanity of a GGUF header, and the chat templates in it.

Sources: ggml, docs/gguf.md, and the block sizes of ggml-common.h.


Sanity of a safetensors header. Source: the format's README, and its `Metadata::validate`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from comity.formats.tensors import (
    BITS,
    BLOCKS,
    MAX_ALIGNMENT,
    MAX_DIMENSIONS,
    MAX_GGUF_HEADER,
    MAX_KEY,
    MAX_SAFETENSORS_HEADER_READ,
    MAX_TENSORS,
    MAX_VALUES,
    BoundedFile,
    Cursor,
)
from comity.trust.errors import Malformed

MAX_FINDINGS: Final = 8
"""Findings about one file: whoever reads the first ones needs no more."""
MAX_FINDING: Final = 200
"""Characters of one."""
MAX_ELEMENTS: Final = 2**48
"""Elements of a tensor beyond which nobody means it."""


@dataclass(slots=True)
class HeaderFindings:
    """What was found in a header. `templates` are the chat templates in it."""

    findings: list[str] = field(default_factory=list)
    templates: list[bytes] = field(default_factory=list)

    def say(self, finding: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding[:MAX_FINDING])


@dataclass(frozen=True, slots=True)
class Range:
    """The bytes of a tensor, counted from where data begins. `end` is None where the type's size is not known."""

    name: str
    begin: int
    end: int | None


def count_elements(looked: HeaderFindings, name: str, shape: Sequence[object]) -> int | None:
    elements = 1
    for side in shape:
        if not isinstance(side, int) or isinstance(side, bool) or side < 0:
            looked.say(f"{name[:80]!r} has a side that is no count: {str(side)[:40]}")
            return None
        elements *= side
        if elements > MAX_ELEMENTS:
            looked.say(f"{name[:80]!r} has more than {MAX_ELEMENTS} elements")
            return None
    return elements


def tile(looked: HeaderFindings, ranges: Iterable[Range], room: int, *, tight: bool) -> None:
    """Tensors lie one behind the other and inside the file; where they are not `tight` there may be padding."""
    position = 0
    for tensor in sorted(ranges, key=lambda tensor: (tensor.begin, tensor.end or tensor.begin)):
        end = tensor.begin if tensor.end is None else tensor.end
        if tensor.begin < 0 or end < tensor.begin or end > room:
            looked.say(f"{tensor.name[:80]!r} lies outside the file: {tensor.begin} to {end} of {room}")
        elif tensor.begin < position:
            looked.say(f"{tensor.name[:80]!r} overlaps the tensor before it")
        elif tight and tensor.begin > position:
            looked.say(f"{tensor.begin - position} bytes before {tensor.name[:80]!r} belong to no tensor")
        position = max(position, min(end, room))
    if tight and position < room:
        looked.say(f"{room - position} bytes behind the last tensor belong to none")


MAX_PAIRS: Final = 65_536
MAX_NAME: Final = 64
"""Bytes of a tensor's name, the zero at its end included."""
MAX_TEMPLATE: Final = 1024 * 1024
TEMPLATE: Final = b"tokenizer.chat_template"

_WIDTHS: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING: Final = 8
_ARRAY: Final = 9


def look_at_gguf(source: BoundedFile) -> HeaderFindings:
    """Raises OSError where the file does."""
    looked = HeaderFindings()
    try:
        _walk_gguf(looked, source)
    except Malformed as error:
        looked.say(str(error))
    return looked


def _walk_gguf(looked: HeaderFindings, source: BoundedFile) -> None:
    cursor = Cursor(source, 4, min(source.size, MAX_GGUF_HEADER))
    if (version := cursor.uint(4)) not in (2, 3):
        raise Malformed("a version that is not known, or big-endian", why=str(version))
    tensors, pairs = cursor.uint(8), cursor.uint(8)
    if tensors > MAX_TENSORS or pairs > MAX_PAIRS:
        raise Malformed("header too large", why=f"{tensors} tensors and {pairs} pairs")
    alignment = _walk_pairs(looked, cursor, pairs)
    ranges = [_gguf_tensor(looked, cursor, alignment) for _ in range(tensors)]
    names = [tensor.name for tensor in ranges]
    if len(set(names)) != len(names):
        looked.say("a tensor's name is given twice")
    data = cursor.position + -cursor.position % alignment
    tile(looked, ranges, source.size - data, tight=False)


def _walk_pairs(looked: HeaderFindings, cursor: Cursor, pairs: int) -> int:
    """The alignment that the file states, or 32."""
    alignment, keys = 32, set[bytes]()
    for _ in range(pairs):
        if (length := cursor.uint(8)) > MAX_KEY:
            raise Malformed("a key is too long", why=f"{length} bytes")
        key, kind = cursor.take(length), cursor.uint(4)
        if key in keys:
            looked.say(f"the key {_shown(key)} is given twice")
        keys.add(key)
        if key == b"general.alignment" and kind == 4:
            alignment = cursor.uint(4)
        elif key.startswith(TEMPLATE) and kind == _STRING:
            looked.templates.append(_template(cursor))
        else:
            _skip(cursor, kind)
    if not (1 <= alignment <= MAX_ALIGNMENT and alignment.bit_count() == 1):
        raise Malformed("no such alignment", why=str(alignment))
    if b"general.architecture" not in keys:
        looked.say("it names no architecture")
    return alignment


def _template(cursor: Cursor) -> bytes:
    """The beginning of a template, as much as is looked at."""
    length = cursor.uint(8)
    shown = cursor.take(min(length, MAX_TEMPLATE))
    cursor.skip(length - len(shown))
    return shown


def _skip(cursor: Cursor, kind: int) -> None:
    element, count = (cursor.uint(4), cursor.uint(8)) if kind == _ARRAY else (kind, 1)
    if element in _WIDTHS:
        cursor.skip(_WIDTHS[element] * count)
    elif element == _STRING:
        cursor.skip_strings(count)
    else:
        raise Malformed("a value of a type that is not known", why=str(element))


def _gguf_tensor(looked: HeaderFindings, cursor: Cursor, alignment: int) -> Range:
    if (length := cursor.uint(8)) > MAX_KEY:
        raise Malformed("a tensor's name is too long", why=f"{length} bytes")
    name = cursor.take(length)
    if length >= MAX_NAME:
        looked.say(f"the name {_shown(name)} has {length} bytes, {MAX_NAME - 1} at most are read")
    if (dimensions := cursor.uint(4)) > MAX_DIMENSIONS:
        raise Malformed("too many dimensions", why=f"{_shown(name)} has {dimensions}")
    sides = [cursor.uint(8) for _ in range(dimensions)]
    kind, offset = cursor.uint(4), cursor.uint(8)
    if offset % alignment:
        looked.say(f"{_shown(name)} is not aligned")
    text = name.decode("utf-8", "replace")
    return Range(text, offset, _gguf_end(looked, text, sides, kind, offset))


def _gguf_end(looked: HeaderFindings, name: str, sides: Sequence[int], kind: int, offset: int) -> int | None:
    elements = count_elements(looked, name, sides)
    if elements is None or kind not in BLOCKS:
        return None
    _, block, width = BLOCKS[kind]
    row = sides[0] if sides else 1
    if row % block:
        looked.say(f"{name[:80]!r}: rows of {row} elements, in blocks of {block}")
    return offset + elements // block * width


def _shown(name: bytes) -> str:
    return repr(name[:80].decode("utf-8", "replace"))


_BITS = {**BITS, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}


def look_at_safetensors(source: BoundedFile) -> HeaderFindings:
    """Raises OSError where the file does."""
    looked = HeaderFindings()
    try:
        start, tensors, twice = _safetensors_header(source)
        for name in twice:
            looked.say(f"the header gives {name[:80]!r} twice")
        ranges = []
        for name, described in tensors.items():
            if name != "__metadata__":
                ranges.append(_described(looked, name, described))
        tile(looked, [r for r in ranges if r is not None], source.size - start, tight=True)
    except Malformed as error:
        looked.say(str(error))
    return looked


def _safetensors_header(source: BoundedFile) -> tuple[int, Mapping[str, Any], list[str]]:
    length = int.from_bytes(source.exactly(0, 8), "little")
    if length > MAX_SAFETENSORS_HEADER_READ:
        raise Malformed("header too large", why=f"{length} bytes, at most {MAX_SAFETENSORS_HEADER_READ} are looked at")
    text, twice = source.exactly(8, length), list[str]()
    if sum(text.count(mark) for mark in (b"{", b"[", b",")) > MAX_VALUES:  # before memory is spent on them
        raise Malformed("header too large", why=f"more than {MAX_VALUES} values")

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, value in members:
            if name in made and len(twice) < MAX_FINDINGS:
                twice.append(name)
            made[name] = value
        return made

    try:
        tensors = json.loads(text.decode("utf-8"), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise Malformed("header is not JSON", why=str(error)[:120]) from error
    if not isinstance(tensors, dict):
        raise Malformed("header is not a JSON object")
    metadata = tensors.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Malformed("__metadata__ holds something else than texts")
    return 8 + length, tensors, twice


def _described(looked: HeaderFindings, name: str, described: object) -> Range | None:
    match described:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            looked.say(f"{name[:80]!r} has no dtype, shape and data_offsets")
            return None
    elements = count_elements(looked, name, shape)
    if dtype not in _BITS:
        looked.say(f"{name[:80]!r} is of the unknown type {dtype[:20]!r}")
    elif elements is not None and elements * _BITS[dtype] != (end - begin) * 8:
        looked.say(f"{name[:80]!r}: {end - begin} bytes for {elements} elements of {dtype}")
    return Range(name, begin, end)
