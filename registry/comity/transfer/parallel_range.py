"""One range of a blob over several connections to a host that is far away, as one stream.

Losses bound the rate of one TCP connection over a long way, whatever the link carries: to about 1 Mbit/s where a round
trip takes 150 ms and one packet of a hundred is lost. So the range is cut in blocks, each connection brings one at a
time, and they are read in order.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from comity.transfer.limits import CONNECTIONS
from comity.transfer.range_answer import result_of
from comity.transfer.range_client import PIPELINED, RangeClient
from comity.trust.errors import ComityError, Refused, Unavailable
from comity.trust.frozen import frozen
from comity.wire.addresses import RangeUrl

T = TypeVar("T")
FIRST_BLOCK: Final = 128 * 1024
LEAST_BLOCK: Final = 64 * 1024
MOST_BLOCK: Final = 1024 * 1024
BLOCK_SECONDS: Final = 0.3
"""Seconds for which a connection brings one block. What others have brought after a block that is slow is not seen by
the schedule, so they are short; and each connection has requested the next one already."""
AHEAD: Final = 2 * CONNECTIONS * MOST_BLOCK
"""Bytes that blocks may have in memory."""


@dataclass(slots=True)
class ConnectionRate:
    """Bytes per second that one connection of a source brought, in its newest block."""

    newest: float = FIRST_BLOCK / BLOCK_SECONDS


@dataclass(slots=True, eq=False)
class Block:
    """A part of a range, from `offset` of the blob: `filled` bytes have arrived, and `read` of them are read."""

    offset: int
    data: bytearray
    filled: int = 0
    read: int = 0

    @property
    def missing(self) -> int:
        return len(self.data) - self.filled


class BlockQueue:
    """The blocks of one range that are in memory, in order, and which one a connection should request next. Not
    thread-safe."""

    def __init__(self, offset: int, length: int, rate: ConnectionRate) -> None:
        self._next, self._end = offset, offset + length
        self._rate = rate
        self._blocks: deque[Block] = deque()
        self._again: list[Block] = []

    @property
    def first(self) -> Block | None:
        """The block that is read now."""
        return self._blocks[0] if self._blocks else None

    @property
    def unrequested(self) -> int:
        """Bytes of the range that are in no block yet."""
        return self._end - self._next

    @property
    def all_requested(self) -> bool:
        return not self.unrequested and not self._again

    @property
    def has_next(self) -> bool:
        """Whether `take` returns a block."""
        return bool(self._again or self._next_size())

    def take(self) -> Block | None:
        """The block to request next; None if there is none, or those in memory are enough."""
        if self._again:
            return self._again.pop()
        if not (size := self._next_size()):
            return None
        block = Block(self._next, bytearray(size))
        self._next += size
        self._blocks.append(block)
        return block

    def put_back(self, blocks: Sequence[Block]) -> None:
        """What is missing of these must be requested again, in their order."""
        self._again.extend(reversed(blocks))

    def drop_first(self) -> None:
        """The first block is read."""
        self._blocks.popleft()

    def _next_size(self) -> int:
        held = sum(len(block.data) for block in self._blocks)
        size = min(self.unrequested, max(LEAST_BLOCK, min(MOST_BLOCK, int(self._rate.newest * BLOCK_SECONDS))))
        return 0 if held and held + size > AHEAD else size


@frozen
class WantedRange:
    """`length` bytes of a blob from `offset` on; a request for some of them fails after `read_timeout` seconds without
    a byte."""

    url: RangeUrl
    offset: int
    length: int
    read_timeout: float


class ParallelAnswer:
    """One open range over several connections: a `BlockingStream`.

    Args:
        clients: one at least, which is asked first.
        rate: of the source, read and updated.
        give: takes a connection that this answer needs no more. Called by any thread.
    """

    def __init__(
        self,
        wanted: WantedRange,
        clients: Iterable[RangeClient],
        threads: ThreadPoolExecutor,
        rate: ConnectionRate,
        give: Callable[[RangeClient], None],
    ) -> None:
        self._clients = list(clients)
        self._free = list(self._clients)
        """Those that no thread uses."""
        self._threads = threads
        self._url, self._timeout = wanted.url, wanted.read_timeout
        self._left = wanted.length
        self._rate = rate
        self._give = give
        self._changed = threading.Condition()
        self._queue = BlockQueue(wanted.offset, wanted.length, rate)
        self._asked_first = self._queue.take()
        self._repeats = CONNECTIONS
        self._failure: ComityError | None = None
        self._open = False
        self._newest = time.monotonic()

    async def ask(self) -> None:
        """Request the first block by the first connection, and others by the others: after its answer, where only that
        shows that the server is no stranger. Raises as `RangeClient.ask` does. If cancelled, does not wait for a slow
        connection."""
        first, block = self._clients[0], self._asked_first
        assert block is not None, "a range has a first block"
        asked = self._threads.submit(first.ask, self._url, block.offset, block.missing, self._timeout)
        self._free.remove(first)
        self._open = True
        if first.settled:
            self._start_free()
        try:
            await asyncio.wrap_future(asked)
        except BaseException:
            asked.add_done_callback(lambda _: first.close())
            raise
        self._start(first, block)
        self._start_free()

    def add(self, client: RangeClient) -> bool:
        """Have one more connection bring blocks. False if it would bring nothing, or to another address."""
        with self._changed:
            known = self._clients[0] if self._clients else client
            if not self._open or self._failure or len(self._clients) >= CONNECTIONS or not self._queue.unrequested:
                return False
            if (client.address, client.pin) != (known.address, known.pin):
                return False
            self._clients.append(client)
        self._start(client)
        return True

    def fill(self, view: memoryview, arrived: Callable[[int], None]) -> None:
        """As `BlockingStream.fill`."""
        if len(view) > self._left:
            raise Unavailable("wrong length", why="the answer is too short", code="WRONG-LENGTH")
        filled = 0
        while filled < len(view):
            block, count = self._wait()
            count = min(count, len(view) - filled)
            view[filled : filled + count] = memoryview(block.data)[block.read : block.read + count]
            filled += count
            block.read += count
            arrived(count)
            if block.read == len(block.data):
                self._drop_first()
        self._left -= len(view)

    async def run(self, work: Callable[[], T]) -> T:
        """As `BlockingStream.run`."""
        return await result_of(self._threads.submit(work), self._abort)

    def end(self) -> None:
        """The answer is not read any more. If it was read whole, its connections can be used again."""
        if self._left:
            self._abort()
        with self._changed:
            self._open, free = False, self._free
            self._free = []
        for client in free:
            self._leave(client)

    def _abort(self) -> None:
        with self._changed:
            self._fail(Unavailable("the request was given up", code="CONNECTION"))
            for client in self._clients:
                client.abort()

    def _start(self, client: RangeClient, asked: Block | None = None) -> None:
        """Have a connection bring blocks, in a thread. Must not be called with the lock: `shutdown` of the threads
        calls back with theirs."""

        def ended(job: Future[None]) -> None:
            if job.cancelled():
                self._stop(client)

        try:
            job = self._threads.submit(self._bring, client, asked)
        except RuntimeError:  # after `shutdown`
            self._stop(client)
        else:
            job.add_done_callback(ended)

    def _start_free(self) -> None:
        with self._changed:
            free, self._free = self._free, []
        for client in free:
            self._start(client)

    def _stop(self, client: RangeClient) -> None:
        """There are no threads any more."""
        client.close()
        self._fail(Unavailable("the source was closed", code="CONNECTION"))

    def _wait(self) -> tuple[Block, int]:
        """The first block, and how many new bytes of it there are."""
        with self._changed:
            while True:
                block = self._queue.first
                if block is not None and (count := block.filled - block.read):
                    return block, count
                if self._failure is not None:
                    raise self._failure
                self._changed.wait()

    def _drop_first(self) -> None:
        """There is room in memory: connections that waited for it look for a block."""
        with self._changed:
            self._queue.drop_first()
        self._start_free()

    def _take_into(self, mine: list[Block]) -> bool:
        """Whether there was a block for a connection, which has it now."""
        with self._changed:
            block = self._queue.take() if self._failure is None else None
            if block is not None:
                mine.append(block)
            return block is not None

    def _bring(self, client: RangeClient, asked: Block | None = None) -> None:
        """Bring blocks by one connection while there are some. In a thread."""
        mine = [asked] if asked else []
        try:
            while mine or self._take_into(mine):
                self._bring_first(client, mine, asked=mine[0] is asked)
        except ComityError as error:
            client.close()
            if not self._repeat(mine, error):
                return
        except BaseException as error:
            client.close()
            self._fail(Unavailable("a request ended by an unexpected error", why=repr(error), code="CONNECTION"))
            raise
        self._rest(client)

    def _bring_first(self, client: RangeClient, mine: list[Block], *, asked: bool) -> None:
        """Bring the first of the blocks that a connection has taken, and request the next one meanwhile. Not near the
        end, where no connection should wait for what another one has requested ahead."""
        block, began, missing = mine[0], time.monotonic(), mine[0].missing
        if not asked:
            client.ask(self._url, block.offset + block.filled, missing, self._timeout)
        long = self._queue.unrequested >= 2 * CONNECTIONS * LEAST_BLOCK
        if long and missing >= PIPELINED and len(mine) == 1 and self._take_into(mine):
            client.ask_ahead(self._url, mine[1].offset + mine[1].filled, mine[1].missing)
        client.fill(memoryview(block.data)[block.filled :], partial(self._arrived, block))
        client.done()
        mine.pop(0)
        with self._changed:
            self._repeats = min(CONNECTIONS, self._repeats + 1)
            self._rate.newest = missing / max(time.monotonic() - began, 1e-3)

    def _arrived(self, block: Block, count: int) -> None:
        with self._changed:
            block.filled += count
            self._newest = time.monotonic()
            if self._queue.first is block:
                self._changed.notify()

    def _repeat(self, blocks: Sequence[Block], error: ComityError) -> bool:
        """Have what is missing of blocks requested once more. False if the range fails: nothing else brings bytes, or
        too many requests failed for the blocks that ended."""
        if isinstance(error, Refused) and error.code == "URL-EXPIRED":  # a later request gets a new location
            error = Unavailable(error.what, why=error.why, code="URL-EXPIRED")
        with self._changed:
            alive = time.monotonic() - self._newest < self._timeout and self._repeats > 0
            if isinstance(error, Unavailable) and error.code == "CONNECTION" and alive and self._failure is None:
                self._repeats -= 1
                self._queue.put_back(blocks)
                return True
            self._fail(error)
            return False

    def _fail(self, error: ComityError) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def _rest(self, client: RangeClient) -> None:
        """A connection has nothing to bring now: it waits for room in memory, or is not needed any more."""
        with self._changed:
            stays = self._open and not self._queue.all_requested
            again = stays and not self._failure and self._queue.has_next
            if not stays:
                self._clients.remove(client)
            elif not again:
                self._free.append(client)
        if again:
            self._start(client)
        elif not stays:
            self._leave(client)

    def _leave(self, client: RangeClient) -> None:
        if self._failure is None:
            self._give(client)
        else:
            client.close()
