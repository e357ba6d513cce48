"""Small HDF5 files with attributes, as the library writes them by default: superblock 0, object headers 1, old groups.

Source: HDF5 File Format Specification, version 3.0.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

_NONE = 2**64 - 1
_TREE, _HEAP, _LEAF = 544, 32 + 256, 8 + 8 * 40


def hdf5_with_attributes(attributes: Mapping[str, bytes], groups: tuple[str, ...] = ("model_weights",)) -> bytes:
    """A file whose root group has these attributes, each a string, and these groups, which are empty."""
    file = bytearray(96)
    children = [(name, _group(file, {}, ())) for name in sorted(groups)]
    root, tree, heap = _group(file, attributes, children)
    head = b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHI", 4, 16, 0)
    head += struct.pack("<QQQQ", 0, _NONE, len(file), _NONE) + struct.pack("<QQIIQQ", 0, root, 1, 0, tree, heap)
    file[: len(head)] = head
    return bytes(file)


def _group(
    file: bytearray, attributes: Mapping[str, bytes], children: tuple[()] | list[tuple[str, tuple[int, int, int]]]
) -> tuple[int, int, int]:
    """Append a group; returns the addresses of its header, its tree and its heap."""
    names, offsets = bytearray(8), []
    for name, _ in children:
        offsets.append(len(names))
        names += name.encode() + bytes(8 - len(name) % 8)
    tree = len(file)
    heap, leaf = tree + _TREE, tree + _TREE + _HEAP
    used = 1 if children else 0
    node = b"TREE" + struct.pack("<BBHQQ", 0, 0, used, _NONE, _NONE)
    node += struct.pack("<QQQ", 0, leaf, offsets[-1]) if children else b""
    file += node.ljust(_TREE, b"\0")
    free = len(names)
    names += struct.pack("<QQ", 1, 256 - free)
    file += b"HEAP" + bytes(4) + struct.pack("<QQQ", 256, free, heap + 32) + bytes(names).ljust(256, b"\0")
    if children:
        entries = b"".join(
            struct.pack("<QQIIQQ", offset, header, 1, 0, below, names_below)
            for offset, (_, (header, below, names_below)) in zip(offsets, children, strict=True)
        )
        file += (b"SNOD" + struct.pack("<BBH", 1, 0, len(children)) + entries).ljust(_LEAF, b"\0")
    messages = [_message(0x11, struct.pack("<QQ", tree, heap))]
    messages += [_message(0x0C, _attribute(name, value)) for name, value in attributes.items()]
    body = b"".join(messages)
    header = len(file)
    file += struct.pack("<BBHII", 1, 0, len(messages), 1, len(body)) + bytes(4) + body
    return header, tree, heap


def _message(kind: int, data: bytes) -> bytes:
    data += bytes(-len(data) % 8)
    return struct.pack("<HHB", kind, len(data), 0) + bytes(3) + data


def _attribute(name: str, value: bytes) -> bytes:
    label, value = name.encode() + b"\0", value + b"\0"
    datatype = bytes([0x13, 0, 0, 0]) + struct.pack("<I", len(value))
    space = bytes([1, 0, 0, 0]) + bytes(4)
    head = struct.pack("<BBHHH", 1, 0, len(label), len(datatype), len(space))
    return head + label + bytes(-len(label) % 8) + datatype + space + value
