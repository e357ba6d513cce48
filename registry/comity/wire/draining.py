"""What a node that ends does with its calls: it refuses new ones, lets running transfers end, and cuts what is late.

A transfer is whatever a caller would have to begin again: each call at the gRPC ports, each request at the gateway, and
each file of the file server, but for those that tell how the node is and what its log is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from comity.trust.errors import Unavailable

DRAINING: Final = "DRAINING"
"""The code of what is refused, or cut, because the node ends."""
LOOK_SECONDS: Final = 0.05
"""Seconds between two looks at what still runs."""


class Draining:
    """Counts transfers, and ends them. Thread-safe, but for `transfer`, which is for one event loop.

    Args:
        elsewhere: what those do who are refused.
    """

    def __init__(self, elsewhere: str = "ask another node, or this one again in a minute") -> None:
        self._elsewhere = elsewhere
        self._lock = threading.Lock()
        self._running: dict[object, Callable[[], None]] = {}
        self._unsent: list[Callable[[], int]] = []
        self.begun = False
        """Whether new transfers are refused."""

    def begin(self) -> None:
        """Refuse new transfers from now on."""
        with self._lock:
            self.begun = True

    @contextmanager
    def counted(self, cut: Callable[[], None]) -> Iterator[None]:
        """Count a transfer while the block lasts. `cut` ends it; it is called from the thread of `Draining.cut`. Raises
        Unavailable (DRAINING) once draining has begun."""
        transfer = object()
        with self._lock:
            if self.begun:
                why = "it ends, and lets running transfers end only"
                raise Unavailable("this node takes no new work", why=why, hint=self._elsewhere, code="DRAINING")
            self._running[transfer] = cut
        try:
            yield
        finally:
            with self._lock:
                del self._running[transfer]

    @asynccontextmanager
    async def transfer(self) -> AsyncIterator[None]:
        """As `counted`, for a task. Raises Unavailable (DRAINING) in the block when it is cut."""
        bound = asyncio.timeout(None)
        with self.counted(lambda: bound.reschedule(0)):
            try:
                async with bound:
                    yield
            except TimeoutError:
                if not bound.expired():
                    raise
                why = "this node ends, and the transfer took longer than its node.drain_seconds allow"
                raise Unavailable("the transfer was cut", why=why, hint=self._elsewhere, code="DRAINING") from None

    def count_unsent(self, unsent: Callable[[], int]) -> None:
        """Wait for what `unsent` counts too: the connections with bytes that were not sent yet, also of transfers that
        have ended."""
        self._unsent.append(unsent)

    @property
    def running(self) -> int:
        """The number of transfers that run; when all have ended, of the connections over which not all was sent."""
        with self._lock:
            return len(self._running) or sum(unsent() for unsent in self._unsent)

    async def ended(self, seconds: float) -> int:
        """Wait until no transfer runs, at most `seconds`. Returns how many still do."""
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        while (running := self.running) and clock() < until:
            await asyncio.sleep(LOOK_SECONDS)
        return running

    def cut(self) -> None:
        """End every transfer that runs. Call from the event loop of the transfers."""
        with self._lock:
            running = [*self._running.values()]
        for cut in running:
            cut()
