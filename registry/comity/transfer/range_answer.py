"""One open range of a blob over one connection, read by threads.

Loaded where files are fetched only, as `range_client`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from comity.transfer.range_client import RangeClient
from comity.trust.errors import Unavailable
from comity.wire.addresses import RangeUrl

T = TypeVar("T")


class RangeAnswer:
    """One open range request over one connection: a `BlockingStream`."""

    def __init__(
        self, client: RangeClient, threads: ThreadPoolExecutor, length: int, give: Callable[[RangeClient], None]
    ) -> None:
        self.client = client
        self._give = give
        self._threads = threads
        self._left = length
        self._work: Future[Any] = Future()
        self._work.set_result(None)

    async def connect(self, read_timeout: float) -> None:
        """Connect ahead of the request. Raises as `RangeClient.connect` does."""
        self._work = self._threads.submit(self.client.connect, read_timeout)
        await asyncio.wrap_future(self._work)

    async def ask(self, url: RangeUrl, offset: int, read_timeout: float) -> None:
        """Send the request; returns when the answer begins. If cancelled, does not wait for a slow connection."""
        self._work = self._threads.submit(self.client.ask, url, offset, self._left, read_timeout)
        await asyncio.wrap_future(self._work)

    def fill(self, view: memoryview, arrived: Callable[[int], None]) -> None:
        if len(view) > self._left:
            raise Unavailable("wrong length", why="the answer is too short", code="WRONG-LENGTH")
        self.client.fill(view, arrived)
        self._left -= len(view)

    async def run(self, work: Callable[[], T]) -> T:
        self._work = job = self._threads.submit(work)
        return await result_of(job, self.client.abort)

    def end(self) -> None:
        """The answer is not read any more. A connection whose answer was read whole can be used again; another one is
        aborted, and closed when its thread has ended."""
        if not self._left:
            self.client.done()
            self._give(self.client)
            return
        self.client.abort()
        self._work.cancel()
        self._work.add_done_callback(lambda _: self.client.close())


def end_of(job: Future[Any]) -> asyncio.Future[None]:
    """A future that is done when `job` has ended, however. Fewer turns of the event loop than `wrap_future`."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def set_ended() -> None:
        if not ended.done():
            ended.set_result(None)

    def wake(_: Future[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(set_ended)

    job.add_done_callback(wake)
    return ended


async def result_of(job: Future[T], abort: Callable[[], None]) -> T:
    """The result of `job`, which a thread runs. If cancelled, calls `abort`, and returns when the thread has ended."""
    ended = end_of(job)
    try:
        await ended
    except asyncio.CancelledError:
        abort()
        if not job.cancel():  # its thread gets an error soon
            await end_of(job)
        raise
    return job.result()
