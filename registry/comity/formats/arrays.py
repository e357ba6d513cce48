"""Reads the headers of NumPy's .npy files. Source: numpy.lib.format.

A header is a dictionary as NumPy writes it: string keys, a type that is a string or a list of fields, a boolean and a
tuple of integers. Whatever else Python would accept as a literal there is refused: escapes, joined literals, prefixes.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

from comity.formats.source import BoundedFile
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

MAGIC: Final = b"\x93NUMPY"
MAX_HEADER: Final = 64 * 1024
MAX_NESTED: Final = 8
MAX_ARRAYS: Final = 1_000
MAX_DIMENSIONS: Final = 64
"""As in NumPy 2."""
_TOKEN: Final = re.compile(r"\s*('[^'\\\n]*'|\"[^\"\\\n]*\"|True|False|\d{1,19}L?|[{}()\[\],:])")
_TYPE: Final = re.compile(r"[<>|=]?(?:[biufcSaUV?](\d{0,9})|[mM]8(?:\[\d{0,4}[A-Za-z]{1,7}\])?)")
_WIDTHS: Final = {"?": 1, "U": 4}


@frozen
class ArrayHeader:
    """A header: where the data begins, the bytes of it, and whether they are a pickle of Python objects."""

    start: int
    length: int
    objects: bool


def is_array(source: BoundedFile) -> bool:
    return source.read_at(0, len(MAGIC)) == MAGIC


def read_arrays(source: BoundedFile, *, whole: bool = True) -> bool:
    """Whether one of the arrays of a file holds Python objects, which are a pickle. `numpy.save` can write several
    arrays into one file.

    Args:
        whole: False if the source is only the beginning of one array.

    Raises Malformed if the file is not arrays to its end.
    """
    position = 0
    for _ in range(MAX_ARRAYS):
        header = read_array_header(source, position)
        if header.objects:
            return True
        if not whole:
            return False
        position = header.start + header.length
        if position == source.size:
            return False
        if position > source.size:
            raise Malformed("numpy: the data is shorter than its header says")
    raise Malformed(f"numpy: more than {MAX_ARRAYS} arrays")


def read_array_header(source: BoundedFile, at: int) -> ArrayHeader:
    """Raises Malformed."""
    head = source.read_exactly(at, 8)
    version = head[6]
    if head[:6] != MAGIC or version not in (1, 2, 3):
        raise Malformed("numpy: other bytes where an array would begin")
    width = 2 if version == 1 else 4
    length = int.from_bytes(source.read_exactly(at + 8, width), "little")
    if length > MAX_HEADER:
        raise Malformed(f"numpy: a header of {length} bytes, at most {MAX_HEADER} are read")
    start = at + 8 + width + length
    try:
        text = source.read_exactly(at + 8 + width, length).decode("utf-8" if version == 3 else "latin-1")
        source.work.step(length // 2)
        header = _Literal(text).whole()
    except UnicodeDecodeError as error:
        raise Malformed("numpy: a header that is not text") from error
    match header:
        case {"descr": descr, "fortran_order": bool(), "shape": tuple(shape)} if len(header) == 3:
            pass
        case _:
            raise Malformed("numpy: a header that numpy does not write")
    size = _size(descr)
    if size is None:
        return ArrayHeader(start, 0, True)
    if not _is_shape(shape):
        raise Malformed("numpy: a shape that numpy does not write")
    return ArrayHeader(start, size * math.prod(shape), False)


def _size(descr: object) -> int | None:
    """The bytes of an element; None if it holds Python objects. Raises Malformed for an unknown type."""
    if isinstance(descr, list):
        sizes = [_field_size(item) for item in descr]
        return None if None in sizes else sum(size for size in sizes if size is not None)
    if isinstance(descr, str) and (found := _TYPE.fullmatch(descr)):
        digits = found[1]
        letter = descr.lstrip("<>|=")[0]
        return 8 if digits is None else int(digits or "1") * _WIDTHS.get(letter, 1)
    if isinstance(descr, str) and "O" in descr.upper():
        return None
    raise Malformed(f"numpy: the unknown type {str(descr)[:40]!r}")


def _field_size(item: object) -> int | None:
    match item:
        case (str() | (str(), str()), descr):
            return _size(descr)
        case (str() | (str(), str()), descr, tuple(shape)) if _is_shape(shape):
            size = _size(descr)
            return None if size is None else size * math.prod(shape)
    raise Malformed("numpy: a field that numpy does not write")


def _is_shape(shape: tuple[object, ...]) -> bool:
    return len(shape) <= MAX_DIMENSIONS and all(type(side) is int for side in shape)


class _Literal:
    """Parses the few literals of a header: strings, integers, booleans, tuples, lists, dictionaries."""

    def __init__(self, text: str) -> None:
        self._tokens = list[str]()
        position = 0
        text = text.rstrip()
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise Malformed("numpy: a header that numpy does not write")
            self._tokens.append(found[1])
            position = found.end()
        self._next = 0

    def whole(self) -> Any:
        value = self._value(0)
        if self._next != len(self._tokens):
            raise Malformed("numpy: a header that numpy does not write")
        return value

    def _take(self) -> str:
        if self._next >= len(self._tokens):
            raise Malformed("numpy: a header that ends early")
        self._next += 1
        return self._tokens[self._next - 1]

    def _value(self, depth: int) -> Any:
        token = self._take()
        if depth > MAX_NESTED:
            raise Malformed("numpy: a header of too many levels")
        if token[0] in "'\"":
            return token[1:-1]
        if token in ("True", "False"):
            return token == "True"
        if token[0].isdigit():
            return int(token.removesuffix("L"))
        if token == "[":
            return self._items("]", depth)[0]
        if token == "(":
            items, commas = self._items(")", depth)
            return items[0] if len(items) == 1 and not commas else tuple(items)
        if token == "{":
            return self._members(depth)
        raise Malformed("numpy: a header that numpy does not write")

    def _items(self, end: str, depth: int) -> tuple[list[Any], int]:
        """The values up to `end`, and the number of commas."""
        items, commas = list[Any](), 0
        while self._peek() != end:
            items.append(self._value(depth + 1))
            if self._peek() != ",":
                break
            self._take()
            commas += 1
        self._expect(end)
        return items, commas

    def _members(self, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        while self._peek() != "}":
            key = self._value(depth + 1)
            self._expect(":")
            if not isinstance(key, str) or key in members:
                raise Malformed("numpy: a header that numpy does not write")
            members[key] = self._value(depth + 1)
            if self._peek() != ",":
                break
            self._take()
        self._expect("}")
        return members

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _expect(self, token: str) -> None:
        if self._take() != token:
            raise Malformed("numpy: a header that numpy does not write")
