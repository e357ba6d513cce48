"""Sanity of a GGUF header, and the chat templates in it.

Sources: ggml, docs/gguf.md, and the block sizes of ggml-common.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from comity.formats.gguf import MAX_ALIGNMENT, MAX_DIMENSIONS, MAX_HEADER, MAX_KEY, MAX_TENSORS
from comity.formats.sanity import Looked, Range, count_elements, tile
from comity.formats.source import Cursor, Source
from comity.formats.tensors import BLOCKS
from comity.trust.errors import Malformed

MAX_PAIRS: Final = 65_536
MAX_NAME: Final = 64
"""Bytes of a tensor's name, the zero at its end included."""
MAX_TEMPLATE: Final = 1024 * 1024
TEMPLATE: Final = b"tokenizer.chat_template"

_WIDTHS: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING: Final = 8
_ARRAY: Final = 9


def look_at_gguf(source: Source) -> Looked:
    """Raises OSError where the file does."""
    looked = Looked()
    try:
        _walk_gguf(looked, source)
    except Malformed as error:
        looked.say(str(error))
    return looked


def _walk_gguf(looked: Looked, source: Source) -> None:
    cursor = Cursor(source, 4, min(source.size, MAX_HEADER))
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


def _walk_pairs(looked: Looked, cursor: Cursor, pairs: int) -> int:
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


def _gguf_tensor(looked: Looked, cursor: Cursor, alignment: int) -> Range:
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


def _gguf_end(looked: Looked, name: str, sides: Sequence[int], kind: int, offset: int) -> int | None:
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
