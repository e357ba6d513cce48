"""Answers that many clients ask for at once and that change with the ledger only: worked out once, then remembered."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Final, Generic, TypeVar

from comity.node.core import Core

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

LOOK_EVERY: Final = 1.0
LONGEST: Final = 30.0
"""Seconds after which an answer is worked out anew though no log has grown: cosignatures and blobs come and go too."""


class Generations:
    """Numbers the states of the ledger: the same number, the same answers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._sizes: dict[str, int] = {}
        self._number = 0
        self._looked = self._began = float("-inf")

    async def now(self) -> int:
        clock = asyncio.get_running_loop().time
        if clock() - self._looked < LOOK_EVERY:
            return self._number
        self._looked = clock()
        logs = await self._core.pools.ledger(self._core.ledger.logs.all)
        sizes = {log.vkey: log.size for log in logs}
        if sizes != self._sizes or clock() - self._began > LONGEST:
            self._sizes, self._began = sizes, clock()
            self._number += 1
        return self._number


class Memo(Generic[K, V]):
    """The most recent answers, each made by one task however many wait for it.

    An answer outlives the client that asked first. A failure is an answer too.

    Args:
        most: what all answers together may weigh; those longest unused give way.
        weigh: what an answer weighs, in any unit that bounds its memory.
    """

    def __init__(
        self, generation: Callable[[], Awaitable[int]], most: int, weigh: Callable[[V], int] = lambda answer: 1
    ) -> None:
        self._generation = generation
        self._most = most
        self._weigh = weigh
        self._answers: OrderedDict[K, tuple[int, asyncio.Task[V]]] = OrderedDict()

    async def get(self, key: K, make: Callable[[], Coroutine[Any, Any, V]]) -> V:
        generation = await self._generation()
        known = self._answers.get(key)
        if known is None or (known[0] != generation and known[1].done()):
            task = asyncio.create_task(make())
            task.add_done_callback(self._made)
            known = self._answers[key] = generation, task
        self._answers.move_to_end(key)
        return await asyncio.shield(known[1])

    async def close(self) -> None:
        """End what is still being worked out."""
        tasks = [task for _, task in self._answers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _made(self, task: asyncio.Task[V]) -> None:
        if not task.cancelled():
            task.exception()  # nobody may be left to hear of a failure
        weights = [self._weight(task) for _, task in self._answers.values()]
        total = sum(weights)
        for weight in weights[:-1]:
            if total <= self._most:
                return
            self._answers.popitem(last=False)
            total -= weight

    def _weight(self, task: asyncio.Task[V]) -> int:
        failed = not task.done() or task.cancelled() or task.exception() is not None
        return 1 if failed else self._weigh(task.result())
