"""How a blob is cut into pieces that can be verified one by one: compactly, for blobs of any size."""

from __future__ import annotations

import hashlib
import itertools
from abc import abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol, Self

from comity.trust.digest import Digest
from comity.trust.pieces import PieceRecord, fixed_pieces

HASH: Final = 32


class Records(Protocol):
    """The piece records of blobs, 36 bytes a piece, over restarts. Called from many threads."""

    @abstractmethod
    def of(self, digest: Digest) -> bytes | None:
        """None where there are none."""

    @abstractmethod
    def keep(self, digest: Digest, size: int, records: bytes) -> None:
        """Remember how a blob is cut every 4 MiB, for the next time. What cannot be kept is left: nothing is raised."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Pieces: their bounds, which begin with 0 and end with the blob's size, and their SHA-256, one after the other."""

    bounds: array[int]
    hashes: bytes

    @classmethod
    def of(cls, records: Iterable[PieceRecord]) -> Self:
        records = tuple(records)
        bounds = itertools.accumulate((record.length for record in records), initial=0)
        return cls(array("Q", bounds), b"".join(record.sha256 for record in records))

    @classmethod
    def whole(cls, digest: Digest, size: int) -> Self:
        """A blob of at most 4 MiB is its own piece: its name is its hash."""
        return cls.of([PieceRecord(size, bytes.fromhex(digest))])

    @property
    def size(self) -> int:
        return self.bounds[-1]

    @property
    def count(self) -> int:
        return len(self.bounds) - 1

    def at(self, offset: int) -> int:
        """The piece in which the byte at `offset` stands."""
        return bisect_right(self.bounds, offset) - 1

    def span(self, piece: int) -> tuple[int, int]:
        """(start, end) of a piece."""
        return self.bounds[piece], self.bounds[piece + 1]

    def hash(self, piece: int) -> bytes:
        return self.hashes[HASH * piece : HASH * (piece + 1)]


class FixedCut:
    """Cuts a blob every 4 MiB while it is hashed as a whole: the pieces are as good as the whole hash."""

    def __init__(self, size: int) -> None:
        self._lengths = fixed_pieces(size)
        self._records: list[PieceRecord] = []
        self._whole, self._piece, self._filled = hashlib.sha256(), hashlib.sha256(), 0

    @property
    def room(self) -> int:
        """The most that `add` takes next."""
        return self._lengths[len(self._records)] - self._filled

    def add(self, data: memoryview) -> None:
        self._whole.update(data)
        self._piece.update(data)
        self._filled += len(data)
        if not self.room:
            self._records.append(PieceRecord(self._filled, self._piece.digest()))
            self._piece, self._filled = hashlib.sha256(), 0

    def done(self) -> tuple[Digest, list[PieceRecord]]:
        return Digest(self._whole.hexdigest()), self._records
