"""The threads for a node's blocking work, and the ledger as the event loop sees it.

`AsyncLedger` runs calls to the ledger in threads of its own, and keeps results while nothing is written. `Pools` runs
other blocking work in threads, with one pool for each kind, so that hashing does not delay the ledger. `NameLocks` are
exclusive locks by name, for work that awaits.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import islice, takewhile
from typing import Any, ParamSpec, TypeVar

from comity.ledger.ledger import Ledger

P = ParamSpec("P")
T = TypeVar("T")

Clock = Callable[[], float]
"""POSIX seconds."""


class AsyncLedger:
    """A ledger for the event loop. `tables` is the ledger itself, for code that runs in a thread."""

    def __init__(self, tables: Ledger) -> None:
        self.tables = tables
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="ledger")
        self._results: tuple[int, dict[Hashable, Any]] = (-1, {})
        """The version at which `read` got its results, and each result by its call."""

    @property
    def version(self) -> int:
        """A counter of commits. While it does not change, all reads return the same results."""
        return self.tables.version

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work`, which blocks on the ledger, in a thread. Raises what it raises."""
        return await _run(self._threads, work, *args, **kwargs)

    async def read(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work`, which only reads, and keep its result: the same call runs again only after the ledger was written
        to. So a loop that looks for new statements costs little while there are none. Do not change the result."""
        version = self.version  # read first: a later write makes the result stale
        if self._results[0] != version:
            self._results = version, {}
        results, call = self._results[1], (work, args, *kwargs.items())
        if call not in results:
            results[call] = await self.run(work, *args, **kwargs)
        result: T = results[call]
        return result

    async def in_steps(self, begin: Callable[[threading.Event], Iterator[T]], most: int) -> AsyncGenerator[T, None]:
        """Yield the items of an iterator that blocks on the ledger, `most` of which are read in one turn of a thread:
        to wake a thread costs as much as a query. For one who does not wait any longer, the item that is being read is
        the last. Raises what the iterator raises.

        Args:
            begin: makes the iterator. It gets an event that is set when nobody waits for an item any longer, for an
                iterator that reads much before one.
        """
        ended = threading.Event()
        items = begin(ended)
        try:
            while True:
                some = await self.run(_next_of, items, most, ended)
                for item in some:
                    yield item
                if len(some) < most:
                    return
        finally:
            ended.set()

    def close(self) -> None:
        """Wait for running work, drop what has not begun, and close the ledger."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.tables.close()


def _next_of(items: Iterator[T], most: int, ended: threading.Event) -> list[T]:
    return list(islice(takewhile(lambda _: not ended.is_set(), items), most))


class Pools:
    """Thread pools: `files` for reads and small writes, `hashing` for computation that is over within a second or so,
    such as verification, `whole_files` for work that reads files from their begin to their end, which may take minutes,
    and `imports` for calls to an upstream, which may take hours."""

    def __init__(self) -> None:
        self._files = ThreadPoolExecutor(8, thread_name_prefix="files")
        self.hashing_threads = ThreadPoolExecutor(4, thread_name_prefix="hashing")
        self._whole_files = ThreadPoolExecutor(4, thread_name_prefix="whole files")
        self._imports = ThreadPoolExecutor(8, thread_name_prefix="imports")

    async def files(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _run(self._files, work, *args, **kwargs)

    async def hashing(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _run(self.hashing_threads, work, *args, **kwargs)

    async def whole_files(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _run(self._whole_files, work, *args, **kwargs)

    async def imports(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _run(self._imports, work, *args, **kwargs)

    def close(self) -> None:
        """Wait for running work and drop what has not begun."""
        for pool in (self._files, self.hashing_threads, self._whole_files, self._imports):
            pool.shutdown(wait=True, cancel_futures=True)


async def _run(pool: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` with the context variables of the caller, so that what it logs names the call that it is part of."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(pool, lambda: context.run(work, *args, **kwargs))


class NameLocks:
    """Exclusive locks by name, on one event loop. All names of a call are locked together, so calls cannot deadlock."""

    def __init__(self) -> None:
        self._locked: set[Hashable] = set()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def acquire(self, names: Iterable[Hashable]) -> AsyncIterator[None]:
        wanted = set(names)
        async with self._changed:
            await self._changed.wait_for(lambda: not wanted & self._locked)
            self._locked |= wanted
        try:
            yield
        finally:
            self._locked -= wanted
            await asyncio.shield(self._notify())  # others wait for it, also if this caller has gone

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
