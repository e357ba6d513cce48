"""Files on their way into the store, and those who read them meanwhile.

Whoever fetches a file announces it here, whoever wants it before it is whole finds it here: so there is one fetch,
however many wait. What a reader gets was verified twice, as a piece when it came in, and as a slice in the memory that
it is sent from. The last piece is not for readers: they find it in the store, once the whole file has its hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from comity.content.durable import disk_errors
from comity.node.pools import Pools
from comity.transfer.plan import Wanted
from comity.trust.digest import Digest, short
from comity.trust.errors import ComityError, Unavailable
from comity.trust.pieces import PieceLayout

SLICE: Final = 256 * 1024
"""Bytes that a reader gets at a time: all that a client that takes nothing costs."""

Key: TypeAlias = tuple[Digest, PieceLayout]
"""The bytes, and the pieces by which they are checked: who believes in other pieces does not fly along."""


class Flight:
    """One file under way: an `Audience` of its transfer. Touched by the event loop, but for slices read in threads.

    Attributes:
        readers: how many read it now.
        driven: whether somebody is at work on it.
    """

    def __init__(self) -> None:
        self.readers = 0
        self.driven = False
        self._want: Wanted | None = None
        self._partial = Path()
        self._here = bytearray()
        self._slices: dict[int, tuple[bytes, ...]] = {}
        self._awaited: Counter[int] = Counter()
        self._over = False
        self._failure: ComityError | None = None
        self._change = asyncio.Event()

    def depart(self, want: Wanted, partial: Path) -> None:
        """Its pieces are known, and where they will lie."""
        self._want, self._partial, self._here = want, partial, bytearray(len(want.records))
        self._tell()

    def arrived(self, piece: int) -> None:
        self._here[piece] = True
        self._tell()

    def awaited(self) -> Collection[int]:
        return sorted(self._awaited)

    def end(self, failure: ComityError | None = None) -> None:
        """It is whole and in the store, or it will not be."""
        self._over, self._failure = True, failure
        self._tell()

    async def read(self, offset: int, length: int, pools: Pools) -> AsyncGenerator[bytes, None]:
        """Verified bytes of a range, in order, as they come in.

        Ends early once the whole file is in the store: whoever reads goes on there. Raises what ended the fetch, and
        Unavailable (DISK, BLOB-CHANGED) where the partial file is not what was written.
        """
        end = offset + length
        while offset < end and await self._reach(offset):
            data = await pools.files(self._slice, offset, end)
            if data is None:  # it was just moved to its place, or thrown away
                await self._until_over()
                continue
            yield data
            offset += len(data)

    async def _reach(self, offset: int) -> bool:
        """Wait for the piece at `offset`; False where the file is whole."""
        while not self._over:
            if self._want is None:
                await self._change.wait()
                continue
            piece = self._want.at(offset)
            if self._here[piece] and piece < len(self._here) - 1:
                return True
            self._awaited[piece] += 1
            try:
                await self._change.wait()
            finally:
                self._awaited -= Counter([piece])
        if self._failure is not None:
            raise self._failure
        return False

    async def _until_over(self) -> None:
        while not self._over:
            await self._change.wait()

    def _tell(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    def _slice(self, offset: int, end: int) -> bytes | None:
        """Blocking. Bytes from `offset` to the end of its slice, or `end`; None where the partial file is gone."""
        assert self._want is not None
        piece = self._want.at(offset)
        start, length = self._want.span(piece)
        number = (offset - start) // SLICE
        with disk_errors(f"blob {short(self._want.digest)} was not read"):
            try:
                descriptor = os.open(self._partial, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                return None
            try:
                if piece not in self._slices:
                    self._slices[piece] = self._cut(descriptor, piece)
                begin = start + number * SLICE
                data = os.pread(descriptor, min(SLICE, start + length - begin), begin)
            finally:
                os.close(descriptor)
        if hashlib.sha256(data).digest() != self._slices[piece][number]:
            raise self._changed(piece)
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
            raise self._changed(piece)
        return tuple(slices)

    def _changed(self, piece: int) -> Unavailable:
        assert self._want is not None
        why = f"piece {piece} is no longer what was written"
        return Unavailable(f"blob {short(self._want.digest)} changed", why=why, code="BLOB-CHANGED")


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
