"""Answers that are asked for before they are needed, so that questions which do not depend on each other overlap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar, cast

from comity.trust.errors import ComityError

T = TypeVar("T")


class AskedAhead:
    """The questions of a session that were begun ahead, by what they ask for. Each answer, or error, is given once.

    Who needs an answer asks as if nobody had asked before (`take`), so what is decided does not depend on what was
    begun.
    """

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[Any]] = {}

    def begin(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Ask now, unless that was begun already."""
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(ask())

    def give(self, key: Hashable, answer: object) -> None:
        """Have an answer that came without being asked for, unless it was asked for already."""

        async def given() -> object:
            return answer

        self.begin(key, given)

    async def take(self, key: Hashable, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the answer that was asked for ahead, or ask. Raises what the question raises."""
        task = self._tasks.pop(key, None)
        return await ask() if task is None else cast(T, await task)

    async def given(self, key: Hashable) -> Any:
        """Return the answer that was asked for ahead, or None if nobody asked. Raises what the question raises."""
        task = self._tasks.pop(key, None)
        return None if task is None else await task

    async def close(self) -> None:
        """End what runs and nobody took. What a node or this machine answered to it does not matter any more; raises
        what is no ComityError, which is an error of this program."""
        tasks = tuple(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, ComityError):
                raise outcome
