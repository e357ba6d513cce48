"""Identifies the format of one file by its bytes.

Nothing is executed or unpickled. Pickles: opcodes are stepped over as `pickletools` describes them, with the stack
depth tracked, because text that begins with the letter `c` looks like an import at first. Pickles of protocol 2 and
later begin with a magic byte. A stream that goes on beyond the limit counts as a pickle. Protocol Buffers messages are
recognised by their field numbers (onnx.proto and sentencepiece_model.proto, ModelProto).
"""

from __future__ import annotations

import pickletools
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

from comity.formats.tensors import BoundedFile, BudgetExceeded, Cursor
from comity.trust.errors import Malformed

MAX_OPCODES: Final = 20_000
PICKLE_BUDGET: Final = 12 * 1024 * 1024
"""Bytes read to recognise a pickle."""
PICKLE_WINDOW: Final = 512
MAX_LINE: Final = 1024 * 1024
PROTOCOLS: Final = range(6)
_CALLS: Final = frozenset({"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"})
_IMPORTS: Final = frozenset({"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"})
_OPCODES: Final[Mapping[int, pickletools.OpcodeInfo]] = {ord(op.code): op for op in pickletools.opcodes}
_COUNTED: Final = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_LINES: Final = {"stringnl_noescape_pair": 2}


def is_pickle(source: BoundedFile, start: int = 0) -> bool:
    """Whether an unpickler that starts at `start` would call something, or read a pickle that has the magic byte.
    Raises OSError if the file does."""
    source = source.slice_from(start, PICKLE_BUDGET)
    try:
        has_magic = source.read_at(0, 1) == b"\x80"
        return _executes(Cursor(source, 0, source.size, PICKLE_WINDOW), has_magic)
    except _NotPickleError:
        return False  # an unpickler would stop here too
    except BudgetExceeded:
        return True
    except Malformed:
        return source.truncated


class _NotPickleError(Exception):
    """An unpickler would fail here."""


def _executes(cursor: Cursor, has_magic: bool) -> bool:
    """Whether the opcodes call something. Raises Malformed if the bytes end before any call, _NotPickleError if they
    are not valid."""
    stack: list[object] = []
    imported = False
    for _ in range(MAX_OPCODES):
        opcode = _OPCODES.get(cursor.take(1)[0])
        if opcode is None:
            raise _NotPickleError("unknown opcode")
        if not _step_over(cursor, opcode):
            return True
        _apply(stack, opcode)
        imported = imported or opcode.name in _IMPORTS
        if imported and opcode.name in _CALLS:
            return True
        if opcode.name == "STOP":
            if has_magic:
                return True
            stack = []  # a loader may read another pickle from here
    return True


def _step_over(cursor: Cursor, opcode: pickletools.OpcodeInfo) -> bool:
    """Step over the opcode's argument; False if a line exceeds MAX_LINE."""
    argument = opcode.arg
    if argument is None:
        return True
    if argument.n == pickletools.UP_TO_NEWLINE:
        for _ in range(_LINES.get(argument.name, 1)):
            line = cursor.line(MAX_LINE)
            if line is None:
                return False
            if opcode.name in _IMPORTS and (not line or line.split() != [line]):
                raise _NotPickleError("not a name")
    elif argument.n == 1 and opcode.name == "PROTO":
        if cursor.uint(1) not in PROTOCOLS:
            raise _NotPickleError("unknown protocol")
    elif argument.n in _COUNTED:
        cursor.skip(cursor.uint(_COUNTED[argument.n]))
    else:
        cursor.skip(argument.n)
    return True


def _apply(stack: list[object], opcode: pickletools.OpcodeInfo) -> None:
    """Apply the opcode's effect to the stack, as `pickletools.dis` does."""
    before = opcode.stack_before
    takes = len(before)
    on_mark = opcode.name == "POP" and bool(stack) and stack[-1] is pickletools.markobject
    if pickletools.markobject in before or on_mark:
        while stack and stack[-1] is not pickletools.markobject:
            stack.pop()
        if not stack:
            raise _NotPickleError("no mark on the stack")
        stack.pop()
        takes = 0 if on_mark else before.index(pickletools.markobject)
    if len(stack) < takes:
        raise _NotPickleError("stack underflow")
    del stack[len(stack) - takes :]
    stack.extend(opcode.stack_after)


MAX_PROTO_FIELDS: Final = 512
PROTO_WINDOW: Final = 4096
_LENGTH_DELIMITED: Final = 2
_ONNX: Final = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
"""Wire types of the fields of an ONNX ModelProto, by field number."""


def is_onnx(source: BoundedFile) -> bool:
    """Whether the whole file is fields of an ONNX model, including version and graph."""
    seen = set()
    try:
        for number, kind, _ in _fields(source, 0, source.size):
            if _ONNX.get(number) != kind:
                return False
            seen.add(number)
    except Malformed:
        return False
    return {1, 7} <= seen


def is_sentencepiece(source: BoundedFile) -> bool:
    """Whether the file begins with SentencePiece pieces, each a text and a score."""
    pieces = 0
    try:
        for number, kind, at in _fields(source, 0, source.size):
            if (number, kind) != (1, _LENGTH_DELIMITED) or source.read_at(at, 1) != b"\n":
                return False
            pieces += 1
            if pieces == 3:
                return True
    except Malformed:
        return False
    return False


def _fields(source: BoundedFile, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, wire type, offset of its bytes) of each field. Raises Malformed."""
    cursor = Cursor(source, start, end, PROTO_WINDOW)
    for _ in range(MAX_PROTO_FIELDS):
        if cursor.position == end:
            return
        key = _varint(cursor)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _varint(cursor)
            yield number, kind, cursor.position
        elif kind == _LENGTH_DELIMITED:
            length = _varint(cursor)
            at = cursor.position
            cursor.skip(length)
            yield number, kind, at
        elif kind in (1, 5):
            cursor.skip(8 if kind == 1 else 4)
            yield number, kind, cursor.position
        else:
            raise Malformed("not a message", why="unknown wire type")
    raise Malformed("not a message", why=f"more than {MAX_PROTO_FIELDS} fields")


def _varint(cursor: Cursor) -> int:
    value = 0
    for shift in range(0, 63, 7):
        byte = cursor.uint(1)
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
    raise Malformed("not a message", why="a number of more than 9 bytes")


FILE_HEAD: Final = 4096
MAX_SAFETENSORS_HEADER: Final = 100_000_000
"""The limit that the format sets."""
_MAGIC: Final[Mapping[bytes, str]] = {
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
_WEAK_MAGIC: Final[Mapping[bytes, str]] = {
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
"""Magic strings of letters that an unpickler could step over: the file may still be a pickle."""
_SCRIPT: Final = re.compile(rb"#! ?/[ -~]+(\n|\r|$)")
_BZIP2: Final = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
_JSON: Final = re.compile(rb'(\xef\xbb\xbf)?\s*(\{\s*["}]|\[\s*["{\[\]\-0-9tfn])')
_CONTROLS: Final = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")


def identify(source: BoundedFile) -> str:
    """The format's name. Raises Malformed if the source's read budget is exhausted, OSError if the file does."""
    head = source.read_at(0, FILE_HEAD)
    if not head:
        return "empty"
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    if _is_safetensors(head, source.size):
        return "safetensors"
    if is_pickle(source):
        return "pickle"
    if found := _identify_weak(source, head):
        return found
    if _is_text(head, source.size):
        return "json" if _JSON.match(head) else "text"
    if is_onnx(source):
        return "onnx"
    return "sentencepiece" if is_sentencepiece(source) else "unknown"


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and 2 <= length <= min(size - 8, MAX_SAFETENSORS_HEADER)


def _identify_weak(source: BoundedFile, head: bytes) -> str:
    """The format by weak magic strings and by magic at other offsets; "" if none matches."""
    for magic, name in _WEAK_MAGIC.items():
        if head.startswith(magic):
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
        if where < source.size and source.read_at(where, 4) == b"PE\0\0":
            return "executable"
    if _is_zlib(head):
        return "zlib"
    if head[2:4] == b"\r\n" and head[1] in (0x0C, 0x0D, 0x0E):
        return "bytecode"
    return ""


def _is_zlib(head: bytes) -> bool:
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
