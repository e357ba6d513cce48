"""What limits when copies run: the free space of the disk, and the bytes a second of the hour.

Copies pause while the disk is nearly full, and in the hours that the operator names (`CopyPauses`). The node looks
every few seconds. Between the two marks of free space nothing changes, so copies do not stop and go on all the time. A
pause ends running copies too: their verified pieces stay, and they are queued again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Final

import structlog

from comity.content.blobs import BlobStore
from comity.node.settings import Replication, within_hours
from comity.node.threads import Clock, Pools
from comity.transfer.limits import TransferLimits
from comity.transfer.sources import BlobSource, SourceKey
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen

_log: Final = structlog.get_logger("comity.node.artifacts")

PACED_LIMITS: Final = TransferLimits(patience=3_600.0, streams=2, buffers=4, read_timeout=300.0)
"""A source that is read slowly on purpose must not look as if it had failed."""


@frozen
class Watermarks:
    """Bytes of free space: below `stop` copies stop, from `resume` on they go on."""

    stop: int
    resume: int

    def stopped(self, before: bool, free: int | None) -> bool:
        """Whether copies are stopped, if they were `before`. Unknown free space stops nothing."""
        return free is not None and free < (self.resume if before else self.stop)


def rate_at(bandwidth: Sequence[str], now: float) -> int | None:
    """The bytes a second at a POSIX time, by `replication.bandwidth`; None without a limit."""
    items = (item.split(" ") for item in bandwidth)
    return next((int(rate) for hours, rate in items if within_hours(hours, now)), None)


class Pace:
    """Shares a number of bytes a second among all readers. Not thread-safe: call from the event loop."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._next = 0.0

    def reserve(self, count: int, now: float) -> float:
        """Reserve bytes. Returns the seconds to wait before more may be read."""
        self._next = max(self._next, now) + count / self.rate
        return self._next - now


class PacedSource:
    """A source that is read at a pace, beside others with the same one."""

    def __init__(self, source: BlobSource, pace: Pace) -> None:
        self._source = source
        self._pace = pace

    @property
    def key(self) -> SourceKey:
        return self._source.key

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def host(self) -> SourceKey:
        return self._source.host

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """As `BlobSource.read`."""
        async with aclosing(self._source.read(digest, offset, length)) as parts:
            async for part in parts:
                await asyncio.sleep(self._pace.reserve(len(part), asyncio.get_running_loop().time()))
                yield part


class CopyPauses:
    """Not thread-safe: call from the event loop.

    Attributes:
        why: why no copy may begin now; empty if copies may begin.
        pace: the pace of copies; None without a limit.
    """

    def __init__(self, settings: Replication, store: BlobStore, pools: Pools, clock: Clock) -> None:
        self._marks = Watermarks(settings.stop_free_bytes, settings.resume_free_bytes)
        self._bandwidth = settings.bandwidth
        self._store = store
        self._pools = pools
        self._clock = clock
        self._full = False
        self._rate: int | None = None
        self._turns: set[asyncio.Timeout] = set()
        self.why = ""
        self.pace: Pace | None = None

    async def look(self) -> bool:
        """Look at the clock and the disk. Returns whether copies may go on that were paused."""
        free = await self._pools.files(self._store.free_bytes)
        rate, before = rate_at(self._bandwidth, self._clock()), self.why
        self._full = self._marks.stopped(self._full, free)
        self.why = self._reason(free, rate)
        if rate != self._rate:
            self._rate, self.pace = rate, Pace(rate) if rate else None
            self._end_turns()
        if self.why and not before:
            _log.warning("copies are paused", why=self.why)
            self._end_turns()
        elif before and not self.why:
            _log.info("copies go on")
        return bool(before) and not self.why

    @contextmanager
    def running(self, turn: asyncio.Timeout) -> Iterator[None]:
        """Inside the block, a pause or another pace ends the turn."""
        self._turns.add(turn)
        try:
            yield
        finally:
            self._turns.discard(turn)

    def _reason(self, free: int | None, rate: int | None) -> str:
        if self._full:
            return f"{free} bytes of the disk are free; copies go on from {self._marks.resume}"
        return "replication.bandwidth allows no copies in this hour" if rate == 0 else ""

    def _end_turns(self) -> None:
        now = asyncio.get_running_loop().time()
        for turn in self._turns:
            if not turn.expired():
                turn.reschedule(now)
