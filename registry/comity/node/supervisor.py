"""Background loops: each step is timed, retried after a failure with growing delays, counted, and cancelled at
shutdown.

This is the only place that catches every exception: a fault in one loop is logged with its trace and does not stop
another loop or the node.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from prometheus_client import Counter

from comity.node.metrics import Metrics
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen

Step = Callable[[], Awaitable[None]]


@frozen
class LoopTiming:
    """Seconds between steps, time limit of a step, and longest delay after failures."""

    interval: float
    deadline: float
    max_delay: float = 60.0

    def delay(self, failures: int) -> float:
        return (
            min(self.interval * 2 ** min(failures, 16), max(self.max_delay, self.interval))
            if failures
            else self.interval
        )


class Supervisor:
    """Runs each loop as a task until `stop`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wakeups: dict[str, asyncio.Event] = {}
        self._done: dict[str, Counter] = {}
        self._suspected: Callable[[], None] = lambda: None

    def on_unexpected(self, suspected: Callable[[], None]) -> None:
        """Call `suspected` after a step that raised an unexpected error, which damaged data may have caused."""
        self._suspected = suspected

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tasks)

    def loop(self, name: str, step: Step, timing: LoopTiming) -> None:
        """Run `step` repeatedly; the delay grows after failures. Does nothing if a loop of this name runs."""
        if name not in self._tasks:
            self._wakeups[name] = asyncio.Event()
            self._done[name] = self._metrics.task_steps.labels(name, "done")
            self._tasks[name] = asyncio.create_task(self._run(name, step, timing), name=name)

    def wake(self, name: str) -> None:
        """Run the next step of a loop now."""
        if name in self._wakeups:
            self._wakeups[name].set()

    async def stop(self) -> None:
        """Cancel every loop and wait until each has ended."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    async def _run(self, name: str, step: Step, timing: LoopTiming) -> None:
        failures = 0
        while True:
            failures = 0 if await self._step(name, step, timing.deadline) else failures + 1
            await self._pause(name, timing.delay(failures) * random.uniform(0.8, 1.2))

    async def _step(self, name: str, step: Step, deadline: float) -> bool:
        try:
            async with asyncio.timeout(deadline):
                await step()
        except TimeoutError:
            _logger(name).warning("step timed out", deadline=deadline)
        except ComityError as error:
            _logger(name).warning("step failed", what=error.what, why=error.why, code=error.code)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            _logger(name).warning("step failed", what="what it waited for was cancelled")
        except Exception:
            _logger(name).exception("step raised an unexpected error")
            self._suspected()
        else:
            self._done[name].inc()
            return True
        self._metrics.task_steps.labels(name, "failed").inc()
        return False

    async def _pause(self, name: str, seconds: float) -> None:
        wakeup = self._wakeups[name]
        try:
            async with asyncio.timeout(seconds):
                await wakeup.wait()
        except TimeoutError:
            pass
        wakeup.clear()


def _logger(task: str) -> Any:
    return structlog.get_logger("comity.node").bind(task=task)
