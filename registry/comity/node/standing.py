"""Answers that stand until something is written: peers ask for the same ones every few seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from comity.node.core import Core

T = TypeVar("T")


class Standing(Generic[T]):
    """What `read`, which blocks, makes of the ledger. One event loop uses it."""

    def __init__(self, core: Core, read: Callable[[], T]) -> None:
        self._core = core
        self._read = read
        self._answer: tuple[int, T] | None = None

    async def get(self) -> T:
        """As the ledger stands now, or stood when it was asked. Raises what `read` raises."""
        version = self._core.ledger.version  # before reading: what is written meanwhile makes the answer old
        if self._answer is None or self._answer[0] != version:
            answer = await self._core.pools.ledger(self._read)
            self._answer = version, answer
            return answer
        return self._answer[1]
