"""Sources in memory, honest and not: the real transfer runs against them."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import TypeVar

from comity.transfer.limits import TransferLimits
from comity.transfer.pieces import WantedFile
from comity.transfer.sources import SourceKey
from comity.trust.artifact import PieceRecord
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError

T = TypeVar("T")

PIECE_SIZE = 64 * 1024
QUICK = TransferLimits(read_timeout=0.1, patience=60.0, first_delay=0.01, max_delay=0.05)
"""The timeout of a silent source: the default of three seconds is too long for a test."""


def weights(pieces: int, *, seed: int = 0) -> bytes:
    """Bytes of that many test pieces, the last one not full; the same in every run."""
    return random.Random(seed).randbytes(pieces * PIECE_SIZE - 100)


def cut(data: bytes, size: int = PIECE_SIZE) -> list[PieceRecord]:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return [PieceRecord(len(part), hashlib.sha256(part).digest()) for part in parts]


def wanted(data: bytes) -> WantedFile:
    return WantedFile(sha256(data), len(data), cut(data))


def source_key(name: str) -> SourceKey:
    return SourceKey("memory", name)


def named(found: Mapping[SourceKey, T]) -> dict[str, T]:
    """The findings about sources in memory, by their names."""
    return {key.value: value for key, value in found.items()}


class MemorySource:
    """Answers from memory, message by message, and yields to other tasks after each.

    Attributes:
        asked: (offset, length) of every request.
        served: bytes handed out.
        streams: open answers now.
    """

    def __init__(self, name: str, data: bytes, *, message: int = 16 * 1024, pause: float = 0.0) -> None:
        self.name = name
        self.key = self.host = source_key(name)
        self.data = data
        self.message = message
        self.pause = pause
        self.asked: list[tuple[int, int]] = []
        self.served = 0
        self.streams = 0

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        self.asked.append((offset, length))
        self.streams += 1
        try:
            async for part in self.answer(offset, length):
                self.served += len(part)
                yield part
                await asyncio.sleep(self.pause)
        finally:
            self.streams -= 1

    async def answer(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        for at in range(offset, offset + length, self.message):
            yield self.data[at : min(at + self.message, offset + length)]


class Liar(MemorySource):
    """Sends other bytes in the named pieces; in all of them where none is named."""

    def __init__(self, name: str, data: bytes, *, pieces: Sequence[int] = (), times: int = 1_000_000) -> None:
        wrong = bytearray(data)
        for piece in pieces or range(-(-len(data) // PIECE_SIZE)):
            wrong[piece * PIECE_SIZE] ^= 0xFF
        super().__init__(name, bytes(wrong))
        self.right = data
        self.times = times

    async def answer(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        lies = self.data[offset : offset + length] != self.right[offset : offset + length]
        data = self.data if lies and self.times > 0 else self.right
        self.times -= lies
        yield data[offset : offset + length]


class Short(MemorySource):
    """Ends every answer a byte early."""

    async def answer(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        yield self.data[offset : offset + length - 1]


class Endless(MemorySource):
    """Sends the requested bytes, and does not stop."""

    async def answer(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        yield self.data[offset : offset + length]
        while True:
            yield bytes(self.message)


class Empty(MemorySource):
    """Sends messages without bytes, as fast as they are read."""

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        while True:
            yield b""


class Silent(MemorySource):
    """Serves `budget` bytes in all, then keeps every stream open and sends nothing."""

    def __init__(self, name: str, data: bytes, *, budget: int = 0) -> None:
        super().__init__(name, data)
        self.budget = budget

    async def answer(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        async for part in super().answer(offset, length):
            if self.served >= self.budget:
                await asyncio.Event().wait()
            yield part


class Failing(MemorySource):
    """Raises `error()` at the start of the first `times` answers; an honest source afterwards."""

    def __init__(
        self, name: str, data: bytes, error: Callable[[], ComityError | OSError], *, times: int = 1_000_000
    ) -> None:
        super().__init__(name, data)
        self.error = error
        self.times = times

    async def answer(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        self.times -= 1
        if self.times >= 0:
            raise self.error()
        async for part in super().answer(offset, length):
            yield part


class Dripping(MemorySource):
    """One byte at a time, just often enough not to count as silent."""

    def __init__(self, name: str, data: bytes, *, every: float) -> None:
        super().__init__(name, data, message=1, pause=every)


class Link(MemorySource):
    """A source behind a link of so many Mbit/s, shared by its streams, 50 ms away. For a virtual clock."""

    def __init__(self, name: str, data: bytes, mbit: float) -> None:
        super().__init__(name, data)
        self.rate = mbit * 1e6 / 8
        self.free = 0.0

    async def answer(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        clock = asyncio.get_running_loop().time
        await asyncio.sleep(0.05)
        async for part in super().answer(offset, length):
            self.free = max(self.free, clock()) + len(part) / self.rate
            await asyncio.sleep(self.free - clock())
            yield part


class FarLink(MemorySource):
    """A source behind a link of so many Mbit/s, shared by its streams. For a virtual clock.

    A request is answered after `round_trip` seconds. What was under way when a stream is closed takes its time on the
    link. The stream stands for a round trip after each message with the probability `loss`. After `budget` served bytes
    every stream is silent.
    """

    def __init__(self, name: str, data: bytes, mbit: float, round_trip: float) -> None:
        super().__init__(name, data)
        self.rate = mbit * 1e6 / 8
        self.round_trip = round_trip
        self.loss = 0.0
        self.budget: float = math.inf
        self._free = 0.0
        self._random = random.Random(name)

    async def answer(self, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        clock, left = asyncio.get_running_loop().time, length
        await asyncio.sleep(self.round_trip)
        try:
            async for part in super().answer(offset, length):
                if self.served >= self.budget:
                    await asyncio.Event().wait()
                self._free = max(self._free, clock()) + len(part) / self.rate
                await asyncio.sleep(self._free - clock())
                left -= len(part)
                if self._random.random() < self.loss:
                    await asyncio.sleep(self.round_trip)
                yield part
        finally:
            under_way = 0.0 if self.served >= self.budget else min(left, self.rate * self.round_trip)
            self._free = max(self._free, clock()) + under_way / self.rate
