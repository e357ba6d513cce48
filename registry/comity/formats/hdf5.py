"""Walks the objects of an HDF5 file, and reads the attributes: Keras keeps its configuration there, PyTables pickles.

Object headers 1 and 2, groups of symbol tables and of links in the header, and attributes in the header are read; their
strings may be in a global heap. Groups and attributes that are kept in fractal heaps are not read, and reported.
Source: HDF5 File Format Specification, version 3.0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from comity.formats.pickles import is_pickle
from comity.formats.source import BoundedFile, NotInspected
from comity.trust.errors import Malformed

SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
MAX_OBJECTS: Final = 50_000
MAX_MESSAGES: Final = 500_000
MAX_ATTRIBUTE: Final = 16 * 1024 * 1024
MAX_STRINGS: Final = 10_000
NONE: Final = 2**64 - 1
_FIXED_STRING, _OPAQUE, _COMPOUND, _VARIABLE, _ARRAY = 3, 5, 6, 9, 10

ReadText = Callable[[bytes, str], Iterator[str]]
"""Active content of the JSON text in an attribute, and the attribute's name."""


def superblock_offset(source: BoundedFile) -> int | None:
    """Where the library finds the file: at 0, or at 512 and its doubles, after bytes of another format."""
    at = 0
    while at + len(SIGNATURE) <= source.size:
        if source.read_at(at, len(SIGNATURE)) == SIGNATURE:
            return at
        at = at * 2 or 512
    return None


@dataclass(slots=True)
class Hdf5Findings:
    active: dict[str, None] = field(default_factory=dict)
    malformed: dict[str, None] = field(default_factory=dict)


class Hdf5Reader:
    """Reads one file once."""

    def __init__(self, source: BoundedFile, read_text: ReadText) -> None:
        self._file = source
        self._read_text = read_text
        self._base = superblock_offset(source) or 0
        self._found = Hdf5Findings()
        self._messages = 0

    def read(self) -> Hdf5Findings:
        """Raises Malformed, NotInspected."""
        waiting, seen = [self._root()], set[int]()
        while waiting:
            address = waiting.pop()
            if address in seen or address == NONE:
                continue
            seen.add(address)
            if len(seen) > MAX_OBJECTS:
                raise NotInspected(f"more than {MAX_OBJECTS} objects")
            try:
                waiting.extend(self._object(address))
            except IndexError as error:
                raise Malformed("hdf5: a message ends early") from error
        return self._found

    def _at(self, address: int, length: int) -> bytes:
        return self._file.read_exactly(self._base + address, length)

    def _number(self, address: int, width: int = 8) -> int:
        return int.from_bytes(self._at(address, width), "little")

    def _root(self) -> int:
        version = self._at(8, 1)[0]
        if version not in (0, 1, 2, 3):
            raise Malformed("hdf5: an unknown version", why=str(version))
        sizes, place = (13, 24 if version == 0 else 28) if version < 2 else (9, 12)
        if self._at(sizes, 2) != b"\x08\x08":
            raise NotInspected("HDF5 with addresses that have not 8 bytes")
        if self._number(place) != self._base:
            raise NotInspected("HDF5 whose addresses count from elsewhere")
        return self._number(place + 40) if version < 2 else self._number(place + 24)

    def _object(self, address: int) -> Iterator[int]:
        """Read the messages of one object; yields the addresses of the objects in it."""
        for kind, flags, data in self._all_messages(address):
            if kind == 0x0C:
                if flags & 2:
                    raise NotInspected("HDF5 attributes that are shared")
                self._attribute(data)
            elif kind == 0x11:
                yield from self._symbols(_uint(data, 0), _uint(data, 8))
            elif kind == 0x06:
                yield from self._link(data)
            elif kind == 0x02 and _uint(data, 2 + 8 * (data[1] & 1)) != NONE:
                raise NotInspected("HDF5 groups in a fractal heap")
            elif kind == 0x15 and _uint(data, 2 + 2 * (data[1] & 1)) != NONE:
                raise NotInspected("HDF5 attributes in a fractal heap")
            elif kind == 0x07:
                self._found.malformed["hdf5: data in other files"] = None

    def _all_messages(self, address: int) -> Iterator[tuple[int, int, bytes]]:
        """(type, flags, data) of each message of an object header, with its continuations."""
        second = self._at(address, 4) == b"OHDR"
        order = False
        if second:
            flags = self._at(address + 5, 1)[0]
            place = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
            width, order = 1 << (flags & 3), bool(flags & 4)
            blocks = [(place + width, self._number(place, width))]
        elif self._at(address, 1) == b"\x01":
            blocks = [(address + 16, self._number(address + 8, 4))]
        else:
            raise Malformed("hdf5: an object has no header")
        seen = set[int]()
        while blocks:
            start, length = blocks.pop()
            if start in seen:
                raise Malformed("hdf5: an object header contains itself")
            seen.add(start)
            for kind, flags, data in self._block(self._at(start, length), second, order):
                if kind == 0x10:
                    at, size = _uint(data, 0), _uint(data, 8)
                    blocks.append((at + 4, size - 8) if second else (at, size))
                else:
                    yield kind, flags, data

    def _block(self, block: bytes, second: bool, order: bool) -> Iterator[tuple[int, int, bytes]]:
        position, head = 0, (4 + 2 * order) if second else 8
        while position + head <= len(block):
            self._messages += 1
            if self._messages > MAX_MESSAGES:
                raise NotInspected(f"more than {MAX_MESSAGES} messages")
            if second:
                kind, size, flags = block[position], _uint(block, position + 1, 2), block[position + 3]
            else:
                kind, size, flags = _uint(block, position, 2), _uint(block, position + 2, 2), block[position + 4]
            position += head
            if position + size > len(block):
                raise Malformed("hdf5: a message exceeds its header")
            yield kind, flags, block[position : position + size]
            position += size

    def _symbols(self, tree: int, heap: int) -> Iterator[int]:
        """The objects of an old group."""
        names = self._number(heap + 24)
        waiting, seen = [tree], set[int]()
        while waiting:
            node = waiting.pop()
            if node in seen or len(seen) > MAX_OBJECTS:
                raise Malformed("hdf5: a group contains itself")
            seen.add(node)
            mark = self._at(node, 4)
            if mark == b"TREE":
                used = self._number(node + 6, 2)
                waiting.extend(self._number(node + 32 + 16 * place) for place in range(used))
            elif mark == b"SNOD":
                for place in range(self._number(node + 6, 2)):
                    entry = self._at(node + 8 + 40 * place, 40)
                    self._at(names + _uint(entry, 0), 1)
                    if _uint(entry, 16, 4) != 2:  # 2: a link within the file
                        yield _uint(entry, 8)
            else:
                raise Malformed("hdf5: a group has no tree")

    def _link(self, data: bytes) -> Iterator[int]:
        flags, position = data[1], 2
        kind = data[position] if flags & 8 else 0
        position += (1 if flags & 8 else 0) + (8 if flags & 4 else 0) + (1 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        position += width + _uint(data, position, width)
        if kind == 0:
            yield _uint(data, position)
        elif kind != 1:
            self._found.malformed["hdf5: a link to another file"] = None

    def _attribute(self, data: bytes) -> None:
        version, flags = data[0], data[1]
        if version not in (1, 2, 3):
            raise Malformed("hdf5: an attribute of an unknown version")
        sizes = [_uint(data, at, 2) for at in (2, 4, 6)]
        position, parts = 8 + (version == 3), list[bytes]()
        for size in sizes:
            parts.append(data[position : position + size])
            position += size + (-size % 8 if version == 1 else 0)
        name = parts[0].split(b"\0")[0].decode("utf-8", "replace")
        if flags & 1 and version > 1:
            raise NotInspected("HDF5 attributes whose type is shared")
        if not parts[1]:
            raise Malformed("hdf5: an attribute without a type")
        kind, value = parts[1][0] & 15, data[position:]
        if kind in (_FIXED_STRING, _OPAQUE, _COMPOUND, _ARRAY):
            self._value(name, value)
        elif kind == _VARIABLE:
            for text in self._variable(value, _elements(parts[2])):
                self._value(name, text)

    def _variable(self, value: bytes, count: int) -> Iterator[bytes]:
        """The strings that are kept in global heaps."""
        if count > MAX_STRINGS:
            raise NotInspected(f"an HDF5 attribute of more than {MAX_STRINGS} strings")
        for at in range(0, 16 * count, 16):
            address, index = _uint(value, at + 4), _uint(value, at + 12, 4)
            if address not in (0, NONE):
                yield self._heap_object(address, index)

    def _heap_object(self, address: int, index: int) -> bytes:
        if self._at(address, 4) != b"GCOL":
            raise Malformed("hdf5: a string is not in a heap")
        position, end = address + 16, address + self._number(address + 8)
        for _ in range(MAX_STRINGS):
            if position + 16 > end:
                break
            head = self._at(position, 16)
            size = _uint(head, 8)
            if _uint(head, 0, 2) == index:
                if size > MAX_ATTRIBUTE:
                    raise NotInspected(f"an HDF5 attribute of {size} bytes")
                return self._at(position + 16, size)
            position += 16 + size + -size % 8
        raise Malformed("hdf5: a string is missing from its heap")

    def _value(self, name: str, value: bytes) -> None:
        if is_pickle(BoundedFile.of(value, self._file.work)) or (name == "PSEUDOATOM" and value.startswith(b"object")):
            self._found.active[f"pickle: the attribute {name[:60]}"] = None
        text = value.rstrip(b"\0")
        if text.lstrip()[:1] in (b"{", b"["):
            for active in self._read_text(text, name):
                self._found.active[active] = None


def _uint(data: bytes, at: int, width: int = 8) -> int:
    """A little-endian number. Raises Malformed if the data is shorter."""
    if at + width > len(data):
        raise Malformed("hdf5: a message ends early")
    return int.from_bytes(data[at : at + width], "little")


def _elements(space: bytes) -> int:
    """The elements of a dataspace."""
    version, rank = space[:1], space[1] if len(space) > 1 else 0
    start = 8 if version == b"\x01" else 4
    if version == b"\x02" and space[3:4] == b"\x02":  # none
        return 0
    return math.prod(_uint(space, start + 8 * place) for place in range(rank))
