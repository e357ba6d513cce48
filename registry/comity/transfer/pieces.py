"""The pieces of a wanted file: the records that verify them, sets of them, the hash of one, and the buffers that hold
them."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import mmap
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from comity.hashing import ENGINE, INITIAL_STATE, ContinuedHash, result_of
from comity.trust.artifact import PIECE_SIZE, PieceRecord
from comity.trust.encoding import Digest, short
from comity.trust.errors import Untrusted
from comity.trust.frozen import frozen


@frozen
class WantedFile:
    """One file: its SHA-256, which is authoritative, its size in bytes, and the records that verify its pieces; if
    `chained`, by states (`comity.trust.artifact`) that nobody has signed: a piece that does not match accuses them.

    Raises Untrusted (code PIECE-INDEX) if the records do not tile `size` bytes in pieces of 1 byte to 4 MiB.
    """

    digest: Digest
    size: int
    records: Sequence[PieceRecord]
    chained: bool = False
    offsets: Sequence[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        offsets = list(itertools.accumulate((record.length for record in self.records), initial=0))
        if offsets[-1] != self.size or not all(0 < record.length <= PIECE_SIZE for record in self.records):
            raise Untrusted(
                f"the piece records of {short(self.digest)} are invalid",
                why=f"they do not tile {self.size} bytes in pieces of 1 to {PIECE_SIZE} bytes",
                hint="try another piece index",
                code="PIECE-INDEX",
            )
        object.__setattr__(self, "offsets", offsets)

    def at(self, offset: int) -> int:
        """The piece that contains the byte at `offset`."""
        return bisect_right(self.offsets, offset) - 1

    def span(self, piece: int) -> tuple[int, int]:
        """(offset, length) of a piece."""
        return self.offsets[piece], self.records[piece].length


ALIGNMENT: Final = 4096
"""Bytes: offset, length and memory of a direct write are multiples of it. No disk in use has larger sectors."""


class PieceRuns:
    """A set of piece numbers, stored as ascending runs of adjacent pieces."""

    def __init__(self, pieces: Iterable[int] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._count = 0
        for piece in pieces:
            self.add(piece)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, piece: int) -> bool:
        at = bisect_right(self._starts, piece) - 1
        return at >= 0 and piece < self._stops[at]

    def add(self, piece: int) -> None:
        if piece in self:
            return
        at = bisect_right(self._starts, piece)
        joins_left = at > 0 and self._stops[at - 1] == piece
        joins_right = at < len(self._starts) and self._starts[at] == piece + 1
        if joins_left and joins_right:
            self._stops[at - 1] = self._stops[at]
            del self._starts[at], self._stops[at]
        elif joins_left:
            self._stops[at - 1] = piece + 1
        elif joins_right:
            self._starts[at] = piece
        else:
            self._starts.insert(at, piece)
            self._stops.insert(at, piece + 1)
        self._count += 1

    @property
    def first(self) -> int:
        """The lowest piece. The set must not be empty."""
        return self._starts[0]

    def take(self, most: int, start: int) -> range:
        """Remove and return `start`, which must be in the set, and the adjacent pieces, at most `most` in all."""
        at = bisect_right(self._starts, start) - 1
        first, end = self._starts[at], self._stops[at]
        stop = min(end, start + most)
        kept = [run for run in ((first, start), (stop, end)) if run[0] < run[1]]
        self._starts[at : at + 1] = [first for first, _ in kept]
        self._stops[at : at + 1] = [stop for _, stop in kept]
        self._count -= stop - start
        return range(start, stop)


class PieceHash:
    """The hash of one piece of `want`, in parts. Not thread-safe; releases the interpreter lock while it hashes."""

    def __init__(self, want: WantedFile, piece: int) -> None:
        self._want = want
        self._piece = piece
        self._continued: ContinuedHash | None = None
        self._plain = hashlib.sha256()
        if want.chained:
            assert ENGINE is not None, "chained records need an engine"
            before = want.records[piece - 1].sha256 if piece else INITIAL_STATE
            self._continued = ENGINE(before, want.offsets[piece])

    def update(self, data: memoryview) -> None:
        (self._continued or self._plain).update(data)

    def result(self) -> bytes:
        """What the record of the piece must say. May be called once."""
        if self._continued is None:
            return self._plain.digest()
        return result_of(self._want.records, self._piece, self._continued)


def hash_piece(want: WantedFile, piece: int, view: memoryview) -> bytes:
    """What the record of `piece` must say if its bytes are those in `view`."""
    hashed = PieceHash(want, piece)
    hashed.update(view)
    return hashed.result()


PieceBuffer: TypeAlias = bytearray | mmap.mmap
"""Memory for one piece; an `mmap` begins at a page."""


class PieceBuffers:
    """A fixed number of reusable piece buffers. They give back-pressure: a stream that waits for a buffer does not read
    further from its source. With `aligned`, the bytes in a buffer are as far from the beginning of a page as in the
    file from the beginning of a block."""

    def __init__(self, count: int, size: int, *, aligned: bool = False) -> None:
        self._size = size
        self._aligned = aligned and size > 0
        self._free: list[PieceBuffer] = []
        self._semaphore = asyncio.Semaphore(count)

    async def take(self) -> PieceBuffer:
        await self._semaphore.acquire()
        if self._free:
            return self._free.pop()
        return mmap.mmap(-1, self._size + ALIGNMENT) if self._aligned else bytearray(self._size)

    def view(self, buffer: PieceBuffer, want: WantedFile, piece: int) -> memoryview:
        """Where the bytes of a piece are in a buffer."""
        offset, length = want.span(piece)
        start = offset % ALIGNMENT if self._aligned else 0
        return memoryview(buffer)[start : start + length]

    def give(self, buffer: PieceBuffer) -> None:
        self._free.append(buffer)
        self._semaphore.release()


@dataclass(frozen=True, slots=True, eq=False)
class HeldPiece:
    """Piece `number` of the file in a buffer; `view` is where its bytes are, or are to be."""

    number: int
    view: memoryview
    buffer: PieceBuffer
    buffers: PieceBuffers

    def release(self) -> None:
        """Give the buffer back. Call once; nothing reads or writes `view` from then on."""
        self.buffers.give(self.buffer)
