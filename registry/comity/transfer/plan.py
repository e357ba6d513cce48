"""What a transfer is asked for, which pieces are still to do, and the bounds it keeps. Values only, no I/O."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.trust.digest import Digest, short
from comity.trust.errors import Untrusted
from comity.trust.pieces import PIECE, PieceRecord

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file: the SHA-256 that decides, its size in bytes, and the records by which its pieces are checked.

    Raises Untrusted (code PIECE-INDEX) where the records do not tile `size` bytes in pieces of 1 byte to 4 MiB.
    """

    digest: Digest
    size: int
    records: Sequence[PieceRecord]
    offsets: Sequence[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        offsets = list(itertools.accumulate((record.length for record in self.records), initial=0))
        if offsets[-1] != self.size or not all(0 < record.length <= PIECE for record in self.records):
            raise Untrusted(
                f"the pieces of {short(self.digest)} cannot be right",
                why=f"they do not tile {self.size} bytes in pieces of 1 to {PIECE} bytes",
                hint="try another piece index",
                code="PIECE-INDEX",
            )
        object.__setattr__(self, "offsets", offsets)

    def at(self, offset: int) -> int:
        """The piece in which the byte at `offset` stands."""
        return bisect_right(self.offsets, offset) - 1

    def span(self, piece: int) -> tuple[int, int]:
        """(offset, length) of a piece."""
        return self.offsets[piece], self.records[piece].length


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds and patience of one transfer. Buffers take at most `buffers` pieces of 4 MiB, whoever sends what.

    Attributes:
        silence: seconds without a byte after which a request has failed.
        patience: seconds without a newly verified piece after which the transfer gives up with Unavailable. A
            deadline for the whole is `asyncio.timeout` around the call: what is verified stays for the next try.
        streams: open requests at a time, all sources together; below `buffers`, or the two would wait for each other.
        buffers: piece buffers in memory, all uses together.
        run_bytes: the longest range of one request; a slower source gets about `run_seconds` worth of pieces.
        first_rest, longest_rest: seconds of the back-off of a source that failed once, and at most.
    """

    silence: float = 3.0
    patience: float = 600.0
    streams: int = 8
    buffers: int = 12
    run_bytes: int = 128 * MIB
    run_seconds: float = 2.0
    first_rest: float = 0.5
    longest_rest: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.streams < self.buffers:
            raise ValueError("a transfer needs a stream, and more buffers than streams")


class Runs:
    """A set of piece numbers, held as ascending runs of neighbours."""

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
        """The lowest piece of a set that is not empty."""
        return self._starts[0]

    def take(self, most: int, start: int) -> range:
        """Remove and return `start`, which is in the set, and its next neighbours, at most `most` pieces in all."""
        at = bisect_right(self._starts, start) - 1
        first, end = self._starts[at], self._stops[at]
        stop = min(end, start + most)
        kept = [run for run in ((first, start), (stop, end)) if run[0] < run[1]]
        self._starts[at : at + 1] = [first for first, _ in kept]
        self._stops[at : at + 1] = [stop for _, stop in kept]
        self._count -= stop - start
        return range(start, stop)
