"""Background loops that nobody has to watch: each is tried again after a failure, measured, and ended with the node.

This is the one place where any exception is caught: a fault in one loop is logged with its trace and never takes
another loop, or the node, with it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from comity.node.context import Metrics
from comity.trust.errors import ComityError

Step = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often a step is made, how long one may take, and how long the loop rests at most after failures (seconds)."""

    every: float
    deadline: float
    longest_rest: float = 60.0

    def rest(self, failures: int) -> float:
        return min(self.every * 2 ** min(failures, 16), max(self.longest_rest, self.every)) if failures else self.every


class Supervisor:
    """Runs steps in loops, one task each, until `stop`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._bells: dict[str, asyncio.Event] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tasks)

    def loop(self, name: str, step: Step, rhythm: Rhythm) -> None:
        """Make `step` again and again; after a failure with growing rests. The same name again changes nothing."""
        if name not in self._tasks:
            self._bells[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._run(name, step, rhythm), name=name)

    def ring(self, name: str) -> None:
        """Have a loop make its next step now rather than at its time."""
        if name in self._bells:
            self._bells[name].set()

    async def stop(self) -> None:
        """Cancel every loop and wait until each has ended."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    async def _run(self, name: str, step: Step, rhythm: Rhythm) -> None:
        failures = 0
        while True:
            failures = 0 if await self._step(name, step, rhythm.deadline) else failures + 1
            await self._pause(name, rhythm.rest(failures) * random.uniform(0.8, 1.2))

    async def _step(self, name: str, step: Step, deadline: float) -> bool:
        log = structlog.get_logger("comity.node").bind(task=name)
        try:
            async with asyncio.timeout(deadline):
                await step()
        except TimeoutError:
            log.warning("step took too long", deadline=deadline)
        except ComityError as error:
            log.warning("step failed", what=error.what, why=error.why, code=error.code)
        except Exception:
            log.exception("step broke")
        else:
            self._metrics.task_steps.labels(name, "done").inc()
            return True
        self._metrics.task_steps.labels(name, "failed").inc()
        return False

    async def _pause(self, name: str, seconds: float) -> None:
        bell = self._bells[name]
        try:
            async with asyncio.timeout(seconds):
                await bell.wait()
        except TimeoutError:
            pass
        bell.clear()
