"""Files on their way into the store, and those who read them meanwhile.

Whoever fetches a file announces it here, whoever wants it before it is whole finds it here: so there is one fetch,
however many wait. What a reader gets was verified twice, as a piece when it came in, and as a slice in the memory that
it is sent from. The last piece is not for readers: they find it in the store, once the whole file has its hash.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from comity.node.coming import SLICE, Coming, changed, opened
from comity.transfer.plan import Wanted
from comity.trust.digest import Digest, short
from comity.trust.errors import ComityError, Unavailable
from comity.trust.pieces import PieceLayout

Key: TypeAlias = tuple[Digest, PieceLayout]
"""The bytes, and the pieces by which they are checked: who believes in other pieces does not fly along."""


class Flight(Coming):
    """One file under way: an `Audience` of its transfer.

    Attributes:
        driven: whether somebody is at work on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.driven = False
        self._want: Wanted | None = None
        self._partial = Path()
        self._here = bytearray()
        self._slices: dict[int, tuple[bytes, ...]] = {}
        self._awaited: Counter[int] = Counter()

    def depart(self, want: Wanted, partial: Path) -> None:
        """Its pieces are known, and where they will lie."""
        self._want, self._partial, self._here = want, partial, bytearray(len(want.records))
        self._tell()

    def arrived(self, piece: int) -> None:
        self._here[piece] = True
        self._tell()

    def awaited(self) -> Collection[int]:
        return sorted(self._awaited)

    def _ready(self, offset: int) -> bool:
        if self._want is None:
            return False
        piece = self._want.at(offset)
        return bool(self._here[piece]) and piece < len(self._here) - 1

    async def _wait(self, offset: int) -> None:
        if self._want is None:
            await super()._wait(offset)
            return
        piece = self._want.at(offset)
        self._awaited[piece] += 1
        try:
            await super()._wait(offset)
        finally:
            self._awaited -= Counter([piece])

    def _slice(self, offset: int, end: int) -> bytes | None:
        assert self._want is not None
        piece = self._want.at(offset)
        start, length = self._want.span(piece)
        number = (offset - start) // SLICE
        with opened(self._partial, self._name) as descriptor:
            if descriptor is None:
                return None
            if piece not in self._slices:
                self._slices[piece] = self._cut(descriptor, piece)
            begin = start + number * SLICE
            data = os.pread(descriptor, min(SLICE, start + length - begin), begin)
        if hashlib.sha256(data).digest() != self._slices[piece][number]:
            raise changed(self._name, f"piece {piece}")
        return data[offset - begin : end - begin]

    def _cut(self, descriptor: int, piece: int) -> tuple[bytes, ...]:
        """The hashes of a piece's slices, once for all readers, from bytes that have the piece's hash."""
        assert self._want is not None
        start, length = self._want.span(piece)
        whole, slices = hashlib.sha256(), []
        for at in range(start, start + length, SLICE):
            data = os.pread(descriptor, min(SLICE, start + length - at), at)
            whole.update(data)
            slices.append(hashlib.sha256(data).digest())
        if whole.digest() != self._want.records[piece].sha256:
            raise changed(self._name, f"piece {piece}")
        return tuple(slices)

    @property
    def _name(self) -> str:
        assert self._want is not None
        return f"blob {short(self._want.digest)}"


class Flights:
    """The files under way. Touched by the event loop only."""

    def __init__(self) -> None:
        self._all: dict[Key, Flight] = {}

    def find(self, key: Key) -> Flight | None:
        return self._all.get(key)

    def announce(self, key: Key) -> Flight:
        """The flight that is under way or will be: whoever announces it sees to it that it is driven, or given up."""
        return self._all.setdefault(key, Flight())

    @contextmanager
    def driven(self, key: Key) -> Iterator[Flight]:
        """Announced, at work inside the block, and over when it ends: well, unless something is raised."""
        flight = self.announce(key)
        flight.driven = True
        failure: ComityError | None = given_up()
        try:
            yield flight
            failure = None
        except ComityError as error:
            failure = error
            raise
        finally:
            self._all.pop(key, None)
            flight.end(failure)

    def give_up(self, key: Key, failure: ComityError) -> None:
        """End a flight that nobody drives; one that somebody does goes on."""
        flight = self._all.get(key)
        if flight is not None and not flight.driven:
            del self._all[key]
            flight.end(failure)


def given_up() -> Unavailable:
    return Unavailable("the file was not fetched to its end", why="the node stopped, or nobody waited", code="GIVEN-UP")
