"""Threads for blocking work, bounded by kind, so that hashing a model never keeps the ledger waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Pools:
    """Four pools: `ledger` for the database, `files` for reads and small writes, `hashing` for whole files, and one for
    `imports`, which wait for an upstream and may take hours."""

    def __init__(self) -> None:
        self._ledger = ThreadPoolExecutor(8, thread_name_prefix="ledger")
        self._files = ThreadPoolExecutor(8, thread_name_prefix="files")
        self.hashing_threads = ThreadPoolExecutor(4, thread_name_prefix="hashing")
        self._imports = ThreadPoolExecutor(8, thread_name_prefix="imports")

    async def ledger(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _run(self._ledger, work, *args, **kwargs)

    async def files(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _run(self._files, work, *args, **kwargs)

    async def hashing(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _run(self.hashing_threads, work, *args, **kwargs)

    async def imports(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await _run(self._imports, work, *args, **kwargs)

    def close(self) -> None:
        """Wait for what runs, drop what has not begun."""
        for pool in (self._ledger, self._files, self.hashing_threads, self._imports):
            pool.shutdown(wait=True, cancel_futures=True)


async def _run(pool: ThreadPoolExecutor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, lambda: work(*args, **kwargs))
