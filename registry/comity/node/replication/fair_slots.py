"""A bounded number of things at once, shared fairly by those for whom they are done."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from comity.node.replication.fair_queue import FairQueue
from comity.trust.errors import Unavailable


class FairSlots:
    """So many slots, of which one key has at most a part, so that who is slow never keeps all of them. Who waits gets
    one in turn with the other keys. Touched by the event loop only.

    Args:
        each: slots that one key may have; fewer than `slots`.
        most: calls of one key that may wait.
    """

    def __init__(self, slots: int, *, each: int, most: int) -> None:
        self._free = slots
        self._each = each
        self._used: Counter[Hashable] = Counter()
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue(most)

    @asynccontextmanager
    async def slot(self, key: Hashable) -> AsyncIterator[None]:
        """Have a slot inside the block. Raises Unavailable (BUSY) where too many calls of this key wait already."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiting.put((key,), turn) is not None:
            raise Unavailable("too much waits already", why="for the same peer", code="BUSY")
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(key)
            raise
        try:
            yield
        finally:
            self._give_back(key)

    def _give_back(self, key: Hashable) -> None:
        self._free += 1
        self._used[key] -= 1
        if not self._used[key]:
            del self._used[key]
        self._hand_out()

    def _hand_out(self) -> None:
        while self._free:
            taken = self._waiting.take(lambda path: self._used[path[0]] < self._each)
            if taken is None:
                return
            (key,), turn = taken
            if not turn.done():  # else whoever waited has gone
                self._free -= 1
                self._used[key] += 1
                turn.set_result(None)
