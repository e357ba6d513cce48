"""What a file is, by its bytes. Its name is asked only where bytes cannot say: which text is a program."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Final

from comity.formats import proto
from comity.formats.pickles import is_pickle
from comity.formats.source import Source

HEAD: Final = 4096
MAX_SAFETENSORS_HEADER: Final = 100_000_000
"""The format's own bound."""

_MARKS: Final[Mapping[bytes, str]] = {
    b"GGUF": "gguf",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x93NUMPY": "numpy",
    b"\x89HDF\r\n\x1a\n": "hdf5",
    b"\x7fELF": "executable",
    b"\xfe\xed\xfa\xce": "executable",
    b"\xfe\xed\xfa\xcf": "executable",
    b"\xce\xfa\xed\xfe": "executable",
    b"\xcf\xfa\xed\xfe": "executable",
    b"\xca\xfe\xba\xbe": "executable",
    b"\0asm": "executable",
    b"!<arch>\n": "executable",
    b"\x1f\x8b\x08": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "archive",
    b"\x04\x22\x4d\x18": "archive",
    b"7z\xbc\xaf\x27\x1c": "archive",
    b"Rar!\x1a\x07": "archive",
}
_LOOSE: Final[Mapping[bytes, str]] = {
    b"\x89PNG\r\n\x1a\n": "image",
    b"\xff\xd8\xff": "image",
    b"GIF8": "image",
    b"%PDF-": "pdf",
    b"OggS": "audio",
    b"fLaC": "audio",
    b"PAR1": "table",
    b"ARROW1": "table",
    b"SQLite format 3\0": "table",
    b"ggjt": "ggml",
    b"tjgg": "ggml",
    b"lmgg": "ggml",
}
"""Marks of letters that an unpickler could step over: what they begin may be a pickle all the same."""
_SCRIPT: Final = re.compile(rb"#! ?/[ -~]+(\n|\r|$)")
_BZIP2: Final = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
_JSON: Final = re.compile(rb'(\xef\xbb\xbf)?\s*(\{\s*["}]|\[\s*["{\[\]\-0-9tfn])')
_CONTROLS: Final = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")


def identify(source: Source) -> str:
    """The format's name. Raises Malformed once the source's budget is spent, OSError where the file does."""
    head = source.at(0, HEAD)
    if not head:
        return "empty"
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            return name
    if _is_safetensors(head, source.size):
        return "safetensors"
    if is_pickle(source):
        return "pickle"
    if found := _by_place(source, head):
        return found
    if _is_text(head, source.size):
        return "json" if _JSON.match(head) else "text"
    if proto.is_onnx(source):
        return "onnx"
    return "sentencepiece" if proto.is_sentencepiece(source) else "unknown"


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= min(size - 8, MAX_SAFETENSORS_HEADER)


def _by_place(source: Source, head: bytes) -> str:
    """Marks that are not at the beginning; "" where there is none."""
    for mark, name in _LOOSE.items():
        if head.startswith(mark):
            return name
    if _SCRIPT.match(head):
        return "script"
    if _BZIP2.match(head):
        return "bzip2"
    if head[257:262] == b"ustar":
        return "archive"
    if head[4:8] == b"TFL3":
        return "tflite"
    if head[:4] == b"RIFF" and head[8:12] in (b"WEBP", b"WAVE"):
        return "image" if head[8:12] == b"WEBP" else "audio"
    if head[:2] == b"MZ" and len(head) >= 64:
        where = int.from_bytes(head[60:64], "little")
        if where < source.size and source.at(where, 4) == b"PE\0\0":
            return "executable"
    if _opens_as_zlib(head):
        return "zlib"
    if head[2:4] == b"\r\n" and head[1] in (0x0C, 0x0D, 0x0E):
        return "bytecode"
    return ""


def _opens_as_zlib(head: bytes) -> bool:
    if head[:1] != b"x" or int.from_bytes(head[:2], "big") % 31:
        return False
    try:
        return bool(zlib.decompressobj().decompress(head, 16))
    except zlib.error:
        return False


def _is_text(head: bytes, size: int) -> bool:
    if not _CONTROLS.isdisjoint(head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return len(head) < size and error.start >= len(head) - 3
    return True
