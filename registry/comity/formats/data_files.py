"""Recognises files that hold data or programs by their magic bytes, and reads those of them that can hold more:
MessagePack, TensorFlow Lite, images and audio.

Sources: the specifications of these formats; flax.serialization.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from comity.formats import binaries, fonts
from comity.formats.source import BoundedFile, Cursor, NotInspected
from comity.trust.errors import Malformed

PROGRAM_MAGIC: Final[Mapping[bytes, str]] = {
    b"\x7fELF": "executable",
    b"\xfe\xed\xfa\xce": "executable",
    b"\xfe\xed\xfa\xcf": "executable",
    b"\xce\xfa\xed\xfe": "executable",
    b"\xcf\xfa\xed\xfe": "executable",
    b"\xca\xfe\xba\xbe": "executable",
    b"\xca\xfe\xba\xbf": "executable",
    b"\0asm": "executable",
    b"!<arch>\n": "executable",
    b"dex\n": "executable",
    b"\x1bLua": "bytecode",
    b"\x1bLJ": "bytecode",
    b"BC\xc0\xde": "executable",
}
SERIALIZED_MAGIC: Final[Mapping[bytes, str]] = {
    b"\xac\xed\0\x05": "Java",
    b"\0\x01\0\0\0\xff\xff\xff\xff\x01\0\0\0\0\0\0\0": ".NET",
    b"RDX2\n": "R",
    b"RDX3\n": "R",
    b"RDA2\n": "R",
    b"RDA3\n": "R",
    b"X\n\0\0\0\x02": "R",
    b"X\n\0\0\0\x03": "R",
    b"B\n\x02\0\0\0": "R",
    b"B\n\x03\0\0\0": "R",
    b"MATLAB 5.0 MAT-file": "MATLAB",
}
DATA_MAGIC: Final[Mapping[bytes, str]] = {
    b"\x89PNG\r\n\x1a\n": "image",
    b"\xff\xd8\xff": "image",
    b"GIF87a": "image",
    b"GIF89a": "image",
    b"II*\0": "image",
    b"MM\0*": "image",
    b"BM": "image",
    b"%PDF-": "pdf",
    b"OggS": "audio",
    b"fLaC": "audio",
    b"ID3": "audio",
    b"PAR1": "table",
    b"ARROW1": "table",
    b"SQLite format 3\0": "table",
    b"ggjt": "ggml",
    b"tjgg": "ggml",
    b"lmgg": "ggml",
    binaries.FASTTEXT_MAGIC: "fasttext",
    b"fmgg": "ggml",
}
_SCRIPT: Final = re.compile(rb"#![ \t]*[^\s\[]")
"""As the kernel reads it: what follows the interpreter, also blanks and other bytes, is its argument."""
_PYTHON_MAGIC: Final = frozenset({0x0C, 0x0D, 0x0E, 0x0F, 0xF1, 0xF2, 0xF3})
"""Second bytes of the magic numbers of Python's bytecode, which end with a carriage return and a line feed."""


def program_format(source: BoundedFile, head: bytes) -> str:
    """`executable`, `script` or `bytecode` by the first bytes; empty for others."""
    for magic, name in PROGRAM_MAGIC.items():
        if head.startswith(magic):
            return name
    if head[2:4] == b"\r\n" and len(head) >= 16 and head[1] in _PYTHON_MAGIC:
        return "bytecode"
    if head[:2] == b"MZ" and len(head) >= 64:
        where = int.from_bytes(head[60:64], "little")
        if where < source.size and source.read_at(where, 2) in (b"PE", b"NE", b"LE", b"LX"):
            return "executable"
    return "script" if _SCRIPT.match(head) else ""


def serialized_by(head: bytes) -> str:
    """The language whose objects are serialised in the file; empty for others."""
    if _R_TEXT.match(head):
        return "R"
    return next((name for magic, name in SERIALIZED_MAGIC.items() if head.startswith(magic)), "")


_R_TEXT: Final = re.compile(rb"A\r?\n[23]\r?\n\d{5,7}\r?\n")


def data_format(head: bytes) -> str:
    """The format of a file that holds data, by its first bytes; empty for others."""
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"WAVE", b"AVI "):
        return "image" if head[8:12] == b"WEBP" else "audio"
    if head[4:8] == b"TFL3":
        return "tflite"
    if fonts.is_font(head):
        return "font"
    if binaries.is_coreml_weights(head):
        return "coreml"
    if head[4:8] == b"ftyp":
        return "image" if head[8:12] in (b"avif", b"heic", b"mif1") else "audio"
    if head[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"):
        return "audio"
    found = next((name for magic, name in DATA_MAGIC.items() if head.startswith(magic)), "")
    return "" if head[:2] == b"BM" and head[6:10] != bytes(4) else found


def check_media(source: BoundedFile, head: bytes) -> None:
    """Step over the parts of a PNG, JPEG, RIFF, FLAC or Ogg file, whose lengths say where each ends. Raises Malformed,
    NotInspected."""
    for magic, check in _MEDIA.items():
        if head.startswith(magic):
            check(source)


def _check_riff(source: BoundedFile) -> None:
    length = u32(source, 4)
    end = 8 + length + length % 2
    if source.size > end:
        raise Malformed(f"{source.size - end} bytes after its end")
    position, parts = 12, 0
    while position + 8 <= min(end, source.size):
        position += 8 + u32(source, position + 4)
        position += position % 2
        parts = _count_part(parts)
    if position > source.size + 1:
        raise Malformed("riff: it has no end")


def _check_png(source: BoundedFile) -> None:
    position, parts = 8, 0
    while position + 12 <= source.size:
        chunk = source.read_at(position, 8)
        position += 12 + int.from_bytes(chunk[:4], "big")
        if chunk[4:] == b"IEND" and position < source.size:
            raise Malformed(f"{source.size - position} bytes after its end")
        if chunk[4:] == b"IEND" and position == source.size:
            return
        parts = _count_part(parts)
    raise Malformed("png: it has no end")


def _check_jpeg(source: BoundedFile) -> None:
    """The segments up to the first scan: where the scans end, decoders alone know."""
    position, parts = 2, 0
    while True:
        mark = source.read_exactly(position, 4)
        if mark[0] != 0xFF:
            raise Malformed("jpeg: a segment without a mark")
        if mark[1] == _START_OF_SCAN:
            return
        position += 1 if mark[1] == 0xFF else 2 + int.from_bytes(mark[2:], "big")  # marks may be padded
        parts = _count_part(parts)


_START_OF_SCAN: Final = 0xDA


def _check_flac(source: BoundedFile) -> None:
    """The blocks of metadata, which precede the frames."""
    position, parts, last = 4, 0, False
    while not last:
        block = source.read_exactly(position, 4)
        last = block[0] >= 0x80
        position += 4 + int.from_bytes(block[1:], "big")
        parts = _count_part(parts)
    if source.read_at(min(position, source.size), 1) not in (b"\xff", b""):
        raise Malformed("flac: no frame after its metadata")
    if position > source.size:
        raise Malformed("flac: it has no end")


def _check_ogg(source: BoundedFile) -> None:
    position, parts = 0, 0
    while position < source.size:
        head = source.read_exactly(position, 27)
        if head[:4] != b"OggS":
            raise Malformed(f"{source.size - position} bytes after its end")
        position += 27 + head[26] + sum(source.read_exactly(position + 27, head[26]))
        parts = _count_part(parts)
    if position > source.size:
        raise Malformed("ogg: it has no end")


def _count_part(parts: int) -> int:
    if parts >= MAX_CHUNKS:
        raise NotInspected(f"more than {MAX_CHUNKS} parts")
    return parts + 1


_MEDIA: Final[Mapping[bytes, Callable[[BoundedFile], None]]] = {
    b"RIFF": _check_riff,
    b"\x89PNG": _check_png,
    b"\xff\xd8\xff": _check_jpeg,
    b"fLaC": _check_flac,
    b"OggS": _check_ogg,
}


MAX_RECORDS: Final = 200_000
STEPS_OF_CHECKSUM: Final = 4
_POLYNOMIAL: Final = 0x82F63B78
"""Of CRC-32C, its bits reversed."""


def is_record_file(source: BoundedFile) -> bool:
    """Whether the whole file is records of TensorFlow, each after its length and the checksum of that. Raises
    NotInspected."""
    position = 0
    for _ in range(MAX_RECORDS):
        if position + 16 > source.size:
            return False
        source.work.step(STEPS_OF_CHECKSUM)
        head = source.read_at(position, 12)
        if int.from_bytes(head[8:], "little") != _masked_checksum(head[:8]):
            return False
        position += 16 + int.from_bytes(head[:8], "little")
        if position == source.size:
            return True
    raise NotInspected(f"more than {MAX_RECORDS} records")


def _masked_checksum(data: bytes) -> int:
    """CRC-32C, rotated and raised by a constant, as TensorFlow stores it."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


MAX_CHUNKS: Final = 100_000
MAX_ITEMS: Final = 2_000_000
_WIDTHS: Final = {
    0xC4: (1, 0),
    0xC5: (2, 0),
    0xC6: (4, 0),
    0xC7: (1, 1),
    0xC8: (2, 1),
    0xC9: (4, 1),
    0xD9: (1, 0),
    0xDA: (2, 0),
    0xDB: (4, 0),
}
"""By the first byte of a text, a byte string or an extension: the bytes of its length, and of its type."""
_FIXED: Final = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FIXED_EXT: Final = {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
_CONTAINERS: Final = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def is_message_pack(source: BoundedFile) -> bool:
    """Whether the whole file is one MessagePack map, as flax writes it. Raises NotInspected."""
    cursor, waiting, items = Cursor(source, 0, source.size, 4096), 1, 0
    try:
        if cursor.take(1)[0] not in (*range(0x80, 0x90), 0xDE, 0xDF):
            return False
        cursor = Cursor(source, 0, source.size, 4096)
        while waiting:
            cursor.step()
            waiting += _message_pack_item(cursor) - 1
            items += 1
            if items > MAX_ITEMS:
                raise NotInspected(f"more than {MAX_ITEMS} items")
    except Malformed as error:
        if isinstance(error, NotInspected):
            raise
        return False
    return cursor.position == source.size


def _message_pack_item(cursor: Cursor) -> int:
    """Step over one item; returns the number of items in it."""
    first = cursor.take(1)[0]
    if first < 0x80 or first >= 0xE0 or first in (0xC0, 0xC2, 0xC3):
        return 0
    if first < 0xA0:
        return (first & 15) * (2 if first < 0x90 else 1)
    if first < 0xC0:
        cursor.skip(first & 31)
    elif first in _WIDTHS:
        width, kind = _WIDTHS[first]
        length = int.from_bytes(cursor.take(width), "big")
        cursor.skip(length + kind)
    elif first in _FIXED or first in _FIXED_EXT:
        cursor.skip(_FIXED.get(first) or _FIXED_EXT[first])
    elif first in _CONTAINERS:
        width, each = _CONTAINERS[first]
        return int.from_bytes(cursor.take(width), "big") * each
    else:
        raise Malformed("not MessagePack")
    return 0


_KNOWN_TFLITE: Final = frozenset(
    {
        *("TFLite_Detection_PostProcess", "Mfcc", "AudioSpectrogram", "Convolution2DTransposeBias"),
        *("MaxPoolingWithArgmax2D", "MaxUnpooling2D", "TransformTensorBilinear", "TransformLandmarks"),
        *("Landmarks2TransformMatrix", "RandomStandardNormal", "Multinomial", "SignalRfft"),
    }
)
MAX_OPERATORS: Final = 10_000


def tflite_operators(source: BoundedFile) -> Iterator[str]:
    """The operators of a TensorFlow Lite model that are not its own. Raises Malformed."""
    root = u32(source, 0)
    vector = table_field(source, root, 1)
    if vector is None:
        raise Malformed("tflite: it has no operators")
    vector += u32(source, vector)
    count = u32(source, vector)
    if count > MAX_OPERATORS:
        raise NotInspected(f"more than {MAX_OPERATORS} operators")
    for place in range(count):
        at = vector + 4 + 4 * place
        name = table_field(source, at + u32(source, at), 1)
        if name is not None:
            name += u32(source, name)
            custom = source.read_exactly(name + 4, min(u32(source, name), 200)).decode("utf-8", "replace")
            if custom and custom not in _KNOWN_TFLITE:
                yield custom


def table_field(source: BoundedFile, table: int, number: int) -> int | None:
    """The position of a field of a table of a flat buffer; None if it is missing. Raises Malformed."""
    vtable = table - int.from_bytes(source.read_exactly(table, 4), "little", signed=True)
    if 4 + 2 * number + 2 > int.from_bytes(source.read_exactly(vtable, 2), "little"):
        return None
    offset = int.from_bytes(source.read_exactly(vtable + 4 + 2 * number, 2), "little")
    return table + offset if offset else None


def u32(source: BoundedFile, at: int) -> int:
    """A number of a flat buffer. Raises Malformed."""
    return int.from_bytes(source.read_exactly(at, 4), "little")
