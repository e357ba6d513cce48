"""Small files as whisper.cpp, fastText and Core ML write them, and fonts."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

WORDS = ("<s>", "größe", "the")


def whisper(words: Sequence[str] = WORDS) -> bytes:
    """A ggml file of whisper.cpp with one tensor of each of two types."""
    made = b"lmgg" + struct.pack("<11i", len(words), 8, 8, 2, 1, 8, 8, 2, 1, 4, 1)
    made += struct.pack("<2i", 4, 3) + bytes(4 * 4 * 3)
    made += struct.pack("<i", len(words))
    for word in words:
        made += struct.pack("<i", len(word.encode())) + word.encode()
    for name, kind, sides, width in ((b"a.weight", 0, (4, 2), 4 * 8), (b"b.weight", 8, (32, 2), 2 * 34)):
        made += struct.pack("<3i", len(sides), len(name), kind) + struct.pack(f"<{len(sides)}i", *sides) + name
        made += bytes(width)
    return made


def fasttext(*, quantised: bool = False, words: Sequence[str] = WORDS) -> bytes:
    """A fastText model of vectors with four dimensions."""
    made = struct.pack("<2i", 793712314, 12) + struct.pack("<12id", 4, 5, 5, 1, 5, 1, 1, 2, 2, 3, 6, 100, 1e-4)
    made += struct.pack("<3i2q", len(words), len(words), 0, 9, -1)
    for word in words:
        made += word.encode() + b"\0" + struct.pack("<qb", 3, 0)
    rows = len(words) + 2
    made += bytes([quantised])
    if quantised:
        quantiser = struct.pack("<4i", 4, 2, 2, 2) + bytes(4 * 256 * 4)
        made += b"\1" + struct.pack("<2qi", rows, 4, 2 * rows) + bytes(2 * rows) + quantiser + bytes(rows) + quantiser
    else:
        made += struct.pack("<2q", rows, 4) + bytes(rows * 4 * 4)
    return made + b"\0" + struct.pack("<2q", 2, 4) + bytes(2 * 4 * 4)


def message(*fields: tuple[int, bytes | int]) -> bytes:
    """A Protocol Buffers message: a number is a varint, bytes are bytes."""
    made = b""
    for number, value in fields:
        made += _varint(number << 3 | (2 if isinstance(value, bytes) else 0))
        made += _varint(len(value)) + value if isinstance(value, bytes) else _varint(value)
    return made


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def coreml(kind: int, body: bytes) -> bytes:
    """A Core ML model whose type is the field `kind`."""
    return message((1, 4), (2, message((100, b"a model"))), (kind, body))


def coreml_network(*layers: bytes) -> bytes:
    return message(*((1, layer) for layer in layers))


def coreml_layer(kind: int, body: bytes = b"") -> bytes:
    return message((1, b"a layer"), (2, b"x"), (3, b"y"), (kind, body))


def coreml_program(file: str) -> bytes:
    """A program with a constant from a file."""
    value = message((2, b""), (5, message((1, file.encode()), (2, 64))))
    operation = message((1, b"const"), (5, message((1, b"val"), (2, value))))
    block = message((2, b"out"), (3, operation))
    function = message((2, b"CoreML5"), (3, message((1, b"CoreML5"), (2, block))))
    return message((1, 1), (2, message((1, b"main"), (2, function))))


def coreml_weights(*blobs: bytes) -> bytes:
    made = struct.pack("<2I", len(blobs), 2) + bytes(56)
    for blob in blobs:
        made += struct.pack("<4sIQQ", b"\xef\xbe\xad\xde", 1, len(blob), len(made) + 64) + bytes(40) + blob
        made += bytes(-len(made) % 64)
    return made


TABLES: Mapping[bytes, bytes] = {b"OS/2": bytes(8), b"cmap": bytes(4), b"head": bytes(54), b"maxp": bytes(6)}


def font(tables: Mapping[bytes, bytes] = TABLES) -> bytes:
    """A TrueType font with these tables, and one of names."""
    tables = {**tables, b"name": bytes(6)}
    directory, data, start = b"", b"", 12 + 16 * len(tables)
    for tag, body in sorted(tables.items()):
        directory += tag + struct.pack(">3I", 0, start + len(data), len(body))
        data += body + bytes(-len(body) % 4)
    return b"\0\1\0\0" + struct.pack(">4H", len(tables), 0, 0, 0) + directory + data
