"""The whole-file hash, in file order, close behind the pieces, so that no second pass over the disk is needed."""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import Executor

from comity.transfer.partial import Partial
from comity.transfer.plan import Wanted
from comity.trust.digest import Digest


class Buffers:
    """A fixed number of reusable piece buffers: the back-pressure of the transfer. Whoever waits for one reads no
    further from its source."""

    def __init__(self, count: int, size: int) -> None:
        self._size = size
        self._free: list[bytearray] = []
        self._room = asyncio.Semaphore(count)

    async def take(self) -> bytearray:
        await self._room.acquire()
        return self._free.pop() if self._free else bytearray(self._size)

    def give(self, buffer: bytearray) -> None:
        self._free.append(buffer)
        self._room.release()


class Trail:
    """Hashes pieces in file order as they become verified.

    A buffer is kept until it is hashed if its piece extends the verified beginning of the file, or is less than `ahead`
    pieces beyond it. The former wait for no source; `ahead` plus the open streams must leave a buffer to each stream.
    Every other piece is read back from the partial file when its turn comes, into a buffer of the trail's own: the
    others may all be kept for later pieces then.
    """

    def __init__(self, want: Wanted, partial: Partial, buffers: Buffers, *, ahead: int) -> None:
        self._want = want
        self._partial = partial
        self._buffers = buffers
        self._ahead = ahead
        self._verified = bytearray(len(want.records) + 1)
        self._beginning = 0
        self._kept: dict[int, bytearray] = {}
        self._more = asyncio.Event()

    def add(self, piece: int, buffer: bytearray) -> None:
        """`piece` is verified and in the partial file; its bytes are the first of `buffer`, which is taken over."""
        self._verified[piece] = True
        while self._verified[self._beginning]:
            self._beginning += 1
        if piece < self._beginning + self._ahead:
            self._kept[piece] = buffer
        else:
            self._buffers.give(buffer)
        self._more.set()

    async def digest(self, executor: Executor | None) -> Digest:
        """The whole file's SHA-256, once every piece has been added. Raises Unavailable where one cannot be read."""
        loop, sha, own = asyncio.get_running_loop(), hashlib.sha256(), bytearray()
        for piece, record in enumerate(self._want.records):
            while piece >= self._beginning:
                self._more.clear()
                await self._more.wait()
            buffer = self._kept.pop(piece, None)
            if buffer is not None:
                await loop.run_in_executor(executor, sha.update, memoryview(buffer)[: record.length])
                self._buffers.give(buffer)
                continue
            own = own or bytearray(max(record.length for record in self._want.records))
            view = memoryview(own)[: record.length]
            await loop.run_in_executor(executor, self._partial.read, piece, view)
            await loop.run_in_executor(executor, sha.update, view)
        return Digest(sha.hexdigest())
