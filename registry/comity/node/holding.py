"""Names that are being worked on: whoever wants one of them waits for its turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Iterable
from contextlib import asynccontextmanager


class Holding:
    """Exclusive rights to names, on one event loop. A set of names is had whole or waited for, so nobody deadlocks."""

    def __init__(self) -> None:
        self._held: set[Hashable] = set()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def holding(self, names: Iterable[Hashable]) -> AsyncIterator[None]:
        wanted = set(names)
        async with self._changed:
            await self._changed.wait_for(lambda: not wanted & self._held)
            self._held |= wanted
        try:
            yield
        finally:
            self._held -= wanted
            async with self._changed:
                self._changed.notify_all()
