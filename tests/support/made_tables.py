"""Makes small tables by hand: the flat buffers of Arrow, and footers of Parquet in Thrift's compact protocol."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

SPARK: Final = b"org.apache.spark.sql.parquet.row.metadata"
Node: TypeAlias = tuple[bytes, int]
"""Bytes of a flat buffer, and where in them that begins to which others refer."""


def table(fields: Mapping[int, bytes | Node]) -> Node:
    """A table whose fields are numbers of at most 8 bytes, or refer to others."""
    count, start = max(fields, default=-1) + 1, {number: 4 + 8 * place for place, number in enumerate(fields)}
    before, size = 4 + 2 * count, 4 + 8 * len(fields)
    head = struct.pack("<HH", before, size) + b"".join(struct.pack("<H", start.get(n, 0)) for n in range(count))
    body, tail = struct.pack("<i", before), b""
    for number, value in fields.items():
        if isinstance(value, bytes):
            body += value.ljust(8, b"\0")
        else:
            body += struct.pack("<Q", size + len(tail) + value[1] - start[number])
            tail += value[0]
    return head + body + tail, before


def text(value: bytes) -> Node:
    return struct.pack("<L", len(value)) + value, 0


def vector(items: Sequence[Node]) -> Node:
    head, tail = struct.pack("<L", len(items)), b""
    for place, (data, entry) in enumerate(items):
        head += struct.pack("<L", 4 * (len(items) - place) + len(tail) + entry)
        tail += data
    return head + tail, 0


def field(extension: str = "", children: Sequence[Node] = ()) -> Node:
    """A field of a schema, of an extension type or a plain one."""
    pair = table({0: text(b"ARROW:extension:name"), 1: text(extension.encode())})
    return table({0: text(b"a"), 5: vector(children), 6: vector([pair] if extension else [])})


def schema(fields: Sequence[Node]) -> Node:
    return table({1: vector(fields)})


def shared_fields(levels: int) -> Node:
    """A schema in which each field has the next one twice as its child."""
    made = field()
    for _ in range(levels):
        data, entry = made
        made = table({0: text(b"a"), 5: (struct.pack("<LLL", 2, 8 + entry, 4 + entry) + data, 0)})
    return schema([made])


def root(node: Node) -> bytes:
    return struct.pack("<L", 4 + node[1]) + node[0]


def message(kind: int, header: Node, body: int = 0) -> bytes:
    """A message of Arrow with zeros after it."""
    made = root(table({1: bytes([kind]), 2: header, 3: struct.pack("<q", body)}))
    made += bytes(-len(made) % 8)
    return b"\xff" * 4 + struct.pack("<L", len(made)) + made + bytes(body)


def stream(fields: Sequence[Node]) -> bytes:
    """A schema and one batch, without an end mark."""
    return message(1, schema(fields)) + message(3, table({}), 64)


def arrow_file(fields: Sequence[Node], footer_fields: Sequence[Node] | None = None, offset: int = 8) -> bytes:
    content = b"ARROW1\0\0" + stream(fields)
    block = struct.pack("<L", 1) + struct.pack("<QLLQ", offset, 16, 0, 64), 0
    footer = root(table({1: schema(fields if footer_fields is None else footer_fields), 3: block}))
    return content + footer + struct.pack("<L", len(footer)) + b"ARROW1"


Value: TypeAlias = "int | bytes | Sequence[Value] | Mapping[int, Value]"


def thrift(value: Value) -> bytes:
    """A value in the compact protocol; a list is one of structures."""
    if isinstance(value, int):
        return _varint(value << 1 ^ value >> 63)
    if isinstance(value, bytes):
        return _varint(len(value)) + value
    if isinstance(value, Mapping):
        fields = (bytes([_kind(item)]) + thrift(number) + thrift(item) for number, item in value.items())
        return b"".join(fields) + b"\0"
    return b"\xfc" + _varint(len(value)) + b"".join(map(thrift, value))


def _kind(value: Value) -> int:
    return 6 if isinstance(value, int) else 8 if isinstance(value, bytes) else 12 if isinstance(value, Mapping) else 9


def _varint(value: int) -> bytes:
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*made, value))


def pair(key: bytes, value: bytes) -> bytes:
    """A footer with one pair of metadata."""
    return thrift({5: [{1: key, 2: value}]})


def parquet(
    pairs: Mapping[bytes, bytes], *, chunk: Value | None = None, more: Mapping[int, Value] | None = None
) -> bytes:
    """A file of one column of 100 bytes."""
    column: Value = chunk if chunk is not None else {2: 4, 3: {1: 2, 7: 100, 9: 4}}
    described = [{1: key, 2: value} for key, value in pairs.items()]
    footer = thrift({1: 2, 2: [{4: b"schema"}], 3: 1, 4: [{1: [column], 2: 100}], 5: described, **(more or {})})
    return b"PAR1" + bytes(100) + footer + struct.pack("<L", len(footer)) + b"PAR1"


def arrow_schema(fields: Sequence[Node]) -> dict[bytes, bytes]:
    """As writers of Arrow keep its schema in Parquet."""
    return {b"ARROW:schema": base64.b64encode(message(1, schema(fields)))}
