"""Unpacks compressed streams within the bounds of one inspection: gzip, zlib, bzip2, xz and legacy lzma.

All members of a stream are unpacked, as `gzip`, `bz2`, `lzma` and joblib do; what follows the last one is an error.
What was unpacked before an error is kept, because a loader has read it by then. Formats that the standard library of
Python 3.11 cannot unpack (zstd, lz4, 7z, rar, lzip, compress, brotli, snappy) are named by their magic bytes.
"""

from __future__ import annotations

import bz2
import contextlib
import lzma
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from comity.formats.source import MAX_UNPACKED, BoundedFile, BudgetExceeded, NotInspected, Work

CHUNK: Final = 64 * 1024
PIECE: Final = 4 * 1024
"""Bytes that are unpacked at a time by decoders whose state cannot be copied: an error loses at most these."""
FIRST: Final = 256
PROBE: Final = 1024
"""Bytes of a step where the first bytes say little: what was unpacked in the steps before an error is kept."""
EMPTY_LZMA: Final = 18
"""Zero bytes that are an empty stream of legacy lzma: numbers often begin with many of them."""
MAX_STREAMS: Final = 10_000
STEPS_OF_STREAM: Final = 16
MAX_MEMORY: Final = 96 * 1024 * 1024
DECODERS: Final[Mapping[str, Callable[[], Any]]] = {
    "gzip": lambda: zlib.decompressobj(31),
    "zlib": lambda: zlib.decompressobj(15),
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_MEMORY),
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_MEMORY),
    "deflate": lambda: zlib.decompressobj(-15),
}
PACKED_MAGIC: Final = (
    b"\x28\xb5\x2f\xfd",  # zstd
    *(bytes([kind]) + b"\x2a\x4d\x18" for kind in range(0x50, 0x60)),  # frames that zstd and lz4 skip
    b"\x04\x22\x4d\x18",  # lz4
    b"\x02\x21\x4c\x18",  # lz4, legacy
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"LZIP",
    b"\x1f\x9d",  # compress
    b"\x1f\xa0",
    b"\xff\x06\x00\x00sNaPpY",
    b"MSCF",
    b"xar!",
)


@dataclass(slots=True)
class Unpacked:
    """What a stream unpacks to, and why it cannot be unpacked to its end; empty if it was."""

    data: bytearray
    error: str = ""


def begins_stream(kind: str, head: bytes) -> bool:
    """Whether a loader of this kind would begin to unpack. For zlib and lzma only `unpack` shows whether it can."""
    if kind == "gzip":
        return head[:2] == b"\x1f\x8b"
    if kind == "bzip2":
        return head[:3] == b"BZh" and head[3:4].isdigit() and head[3:4] != b"0"
    if kind == "xz":
        return head[:6] == b"\xfd7zXZ\0"
    if kind == "zlib":
        return len(head) > 2 and head[0] & 15 == 8 and head[0] >> 4 <= 7 and int.from_bytes(head[:2], "big") % 31 == 0
    if len(head) < 14 or head[13] or head[0] >= 225:  # the first byte of the range coder is zero
        return False
    rest, context = divmod(head[0], 9)
    return context + rest % 5 <= 4


def unpack(kind: str, source: BoundedFile) -> Unpacked:
    """Raises NotInspected beyond the bounds, OSError if the file does."""
    result, position, streams, decoder, step = Unpacked(bytearray()), 0, 0, DECODERS[kind](), FIRST
    pending, begun, kept = b"", 0, 0
    while True:
        if not pending:
            try:
                pending = source.read_at(position, step)
            except BudgetExceeded as error:
                raise NotInspected("more packed bytes than one inspection reads") from error
            source.work.take_packed(len(pending))
            position, step = position + len(pending), PROBE if kind in ("zlib", "lzma") else CHUNK
            if kind == "lzma" and not result.data and pending and position == len(pending):
                pending = _small_dictionary(pending)
        if decoder.eof:
            if kind in ("gzip", "xz"):
                pending = pending.lstrip(b"\0")
            elif kind == "lzma":
                pending, position = _skip_empty(source, pending, position)
                pending = _small_dictionary(pending)
            if not pending and position >= source.size:
                return result
            if not pending:
                continue
            streams += 1
            source.work.step(STEPS_OF_STREAM)
            if streams > MAX_STREAMS:
                raise NotInspected(f"more than {MAX_STREAMS} streams in one file")
            decoder, begun, kept = DECODERS[kind](), position - len(pending), len(result.data)
        before, length = (decoder.copy() if hasattr(decoder, "copy") else None), len(result.data)
        try:
            pending = _step(decoder, pending, result.data, source.work)
        except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as error:
            if isinstance(error, lzma.LZMAError) and "memory" in str(error).lower():
                raise NotInspected("it needs more memory to unpack than an inspection takes") from error
            result.error = str(error)[:80] or "damaged"
            if before is not None:
                del result.data[length:]
                _step_by_byte(before, pending, result.data, source.work)
            elif kind != "bzip2" and position - begun <= MAX_AGAIN:  # bzip2 unpacks a whole block with its last byte
                del result.data[kept:]
                again = source.read_at(begun, position - begun)
                again = _small_dictionary(again) if kind == "lzma" else again
                _step_by_byte(DECODERS[kind](), again, result.data, source.work)
            return result
        if not pending and not decoder.eof and position >= source.size:
            result.error = "it ends early"
            return result


def _step(decoder: Any, packed: bytes, into: bytearray, work: Work) -> bytes:
    """Unpack until the input is used or the stream ends; returns the bytes after its end."""
    most = PIECE if hasattr(decoder, "needs_input") else CHUNK
    while True:
        data = decoder.decompress(packed, most)
        work.unpack(len(data))
        into += data
        if decoder.eof:
            return bytes(decoder.unused_data)
        packed = getattr(decoder, "unconsumed_tail", b"")
        if not packed and (getattr(decoder, "needs_input", True)) and len(data) < most:
            return b""
        if not packed and not hasattr(decoder, "needs_input") and not data:
            return b""


def _skip_empty(source: BoundedFile, pending: bytes, position: int) -> tuple[bytes, int]:
    """What follows empty streams of legacy lzma, and where the next read begins. Raises Malformed."""
    while True:
        zeros = len(pending) - len(pending.lstrip(b"\0"))
        pending = pending[zeros - zeros % EMPTY_LZMA :]
        if len(pending) >= EMPTY_LZMA or position >= source.size:
            return pending, position
        more = source.read_at(position, CHUNK)
        source.work.take_packed(len(more))
        pending, position = pending + more, position + len(more)


def _step_by_byte(decoder: Any, packed: bytes, into: bytearray, work: Work) -> None:
    """Unpack what precedes an error. Raises NotInspected."""
    work.step(len(packed) // BYTES_OF_STEP)
    with contextlib.suppress(zlib.error, lzma.LZMAError, EOFError):
        for place in range(len(packed)):
            into += decoder.decompress(packed[place : place + 1])


MAX_AGAIN: Final = 128 * 1024
"""Bytes of a damaged stream that are unpacked again, byte by byte."""
BYTES_OF_STEP: Final = 16
"""Bytes that are unpacked one by one in the time of one step."""


def _small_dictionary(head: bytes) -> bytes:
    """The head of a legacy lzma stream with a dictionary of at most what is unpacked, which gives the same bytes."""
    if len(head) < 5:
        return head
    size = min(int.from_bytes(head[1:5], "little"), MAX_UNPACKED)
    return head[:1] + size.to_bytes(4, "little") + head[5:]
