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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from comity.transfer.range_answer import result_of
from comity.transfer.range_client import PIPELINED, RangeClient
from comity.trust.errors import ComityError, Refused, Unavailable
from comity.wire.addresses import RangeUrl

T = TypeVar("T")
CONNECTIONS: Final = 4
"""To a source that is far: as many as a node has to a peer from which it fetches a long log."""
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
class _Block:
    offset: int
    data: bytearray
    filled: int = 0
    taken: int = 0


class ParallelAnswer:
    """One open range over several connections: a `BlockingStream`.

    Args:
        clients: one at least, which is asked first.
        rate: of the source, read and updated.
        give: takes a connection that this answer needs no more. Called by any thread.
    """

    def __init__(
        self,
        clients: Iterable[RangeClient],
        threads: ThreadPoolExecutor,
        length: int,
        rate: ConnectionRate,
        give: Callable[[RangeClient], None],
    ) -> None:
        self._clients = list(clients)
        self._free: list[RangeClient] = []
        self._threads = threads
        self._left = length
        self._rate = rate
        self._give = give
        self._changed = threading.Condition()
        self._blocks: deque[_Block] = deque()
        self._again: list[_Block] = []
        self._repeats = CONNECTIONS
        self._failure: ComityError | None = None
        self._over = False
        self._url: RangeUrl | None = None
        self._timeout = self._newest = 0.0
        self._next = self._end = 0

    async def ask(self, url: RangeUrl, offset: int, read_timeout: float) -> None:
        """Request the first block by the first connection, and others by the others: after its answer, where only that
        shows that the server is no stranger. Raises as `RangeClient.ask` does. If cancelled, does not wait for a slow
        connection."""
        self._url, self._timeout = url, read_timeout
        self._next, self._end = offset, offset + self._left
        self._newest = time.monotonic()
        first, others = self._clients[0], self._clients[1:]
        block = self._take()
        assert block is not None, "a range has a first block"
        asked = self._threads.submit(first.ask, url, offset, len(block.data), read_timeout)
        at_once = others if first.settled else []
        for client in at_once:
            self._threads.submit(self._bring, client)
        try:
            await asyncio.wrap_future(asked)
        except BaseException:
            asked.add_done_callback(lambda _: first.close())
            raise
        self._threads.submit(self._bring, first, block)
        for client in others if not at_once else ():
            self._threads.submit(self._bring, client)

    def add(self, client: RangeClient) -> bool:
        """Have one more connection bring blocks. False if it would bring nothing, or to another address."""
        with self._changed:
            known = self._clients[0] if self._clients else client
            if self._over or self._failure or len(self._clients) >= CONNECTIONS or self._next >= self._end:
                return False
            if (client.address, client.pin) != (known.address, known.pin):
                return False
            self._clients.append(client)
        self._threads.submit(self._bring, client)
        return True

    def fill(self, view: memoryview, arrived: Callable[[int], None]) -> None:
        """As `BlockingStream.fill`."""
        if len(view) > self._left:
            raise Unavailable("wrong length", why="the answer is too short", code="WRONG-LENGTH")
        filled = 0
        while filled < len(view):
            block, count = self._wait()
            count = min(count, len(view) - filled)
            view[filled : filled + count] = memoryview(block.data)[block.taken : block.taken + count]
            filled += count
            block.taken += count
            arrived(count)
            if block.taken == len(block.data):
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
            self._over, free = True, self._free
            self._free = []
        for client in free:
            self._leave(client)

    def _abort(self) -> None:
        with self._changed:
            self._fail(Unavailable("the request was given up", code="CONNECTION"))
            for client in self._clients:
                client.abort()

    def _wait(self) -> tuple[_Block, int]:
        """The first block, and how many new bytes of it there are."""
        with self._changed:
            while True:
                block = self._blocks[0] if self._blocks else None
                if block is not None and (count := block.filled - block.taken):
                    return block, count
                if self._failure is not None:
                    raise self._failure
                self._changed.wait()

    def _drop_first(self) -> None:
        with self._changed:
            self._blocks.popleft()
        self._wake_free()

    def _wake_free(self) -> None:
        """Have the connections that waited for room in memory look for a block."""
        with self._changed:
            free, self._free = self._free, []
        for client in free:
            self._threads.submit(self._bring, client)

    def _take(self) -> _Block | None:
        """The next block that a connection should bring; None if there is none, or those in memory are enough."""
        with self._changed:
            if self._failure is not None:
                return None
            if self._again:
                return self._again.pop()
            if not (size := self._next_size()):
                return None
            block = _Block(self._next, bytearray(size))
            self._next += size
            self._blocks.append(block)
            return block

    def _next_size(self) -> int:
        """Bytes of the next block; 0 if there is none now."""
        rest, held = self._end - self._next, sum(len(block.data) for block in self._blocks)
        size = min(rest, max(LEAST_BLOCK, min(MOST_BLOCK, int(self._rate.newest * BLOCK_SECONDS))))
        return 0 if held and held + size > AHEAD else size

    def _bring(self, client: RangeClient, asked: _Block | None = None) -> None:
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

    @property
    def _is_long(self) -> bool:
        """Whether enough is left for all connections, so that none waits for what another one has requested ahead."""
        return self._end - self._next >= 2 * CONNECTIONS * LEAST_BLOCK

    def _take_into(self, mine: list[_Block]) -> bool:
        if (block := self._take()) is None:
            return False
        mine.append(block)
        return True

    def _bring_first(self, client: RangeClient, mine: list[_Block], *, asked: bool) -> None:
        """Bring the first of the blocks that a connection has taken, and request the next one meanwhile."""
        block, began, first = mine[0], time.monotonic(), mine[0].filled
        rest = len(block.data) - first
        assert self._url is not None, "call ask first"
        if not asked:
            client.ask(self._url, block.offset + first, rest, self._timeout)
        if rest >= PIPELINED and len(mine) == 1 and self._is_long and self._take_into(mine):
            ahead = mine[1]
            client.ask_ahead(self._url, ahead.offset + ahead.filled, len(ahead.data) - ahead.filled)
        client.fill(memoryview(block.data)[first:], partial(self._arrived, block))
        client.done()
        mine.pop(0)
        with self._changed:
            self._repeats = min(CONNECTIONS, self._repeats + 1)
            self._rate.newest = rest / max(time.monotonic() - began, 1e-3)

    def _arrived(self, block: _Block, count: int) -> None:
        with self._changed:
            block.filled += count
            self._newest = time.monotonic()
            if self._blocks and self._blocks[0] is block:
                self._changed.notify()

    def _repeat(self, blocks: Sequence[_Block], error: ComityError) -> bool:
        """Have what is missing of blocks requested once more. False if the range fails: nothing else brings bytes, or
        too many requests failed for the blocks that ended."""
        if isinstance(error, Refused) and error.code == "URL-EXPIRED":  # a later request gets a new location
            error = Unavailable(error.what, why=error.why, code="URL-EXPIRED")
        with self._changed:
            alive = time.monotonic() - self._newest < self._timeout and self._repeats > 0
            if isinstance(error, Unavailable) and error.code == "CONNECTION" and alive and self._failure is None:
                self._repeats -= 1
                self._again.extend(reversed(blocks))
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
            if not self._over and (self._again or self._next < self._end):
                if not self._failure and (self._again or self._next_size()):
                    self._threads.submit(self._bring, client)
                else:
                    self._free.append(client)
                return
            self._clients.remove(client)
        self._leave(client)

    def _leave(self, client: RangeClient) -> None:
        if self._failure is None:
            self._give(client)
        else:
            client.close()
