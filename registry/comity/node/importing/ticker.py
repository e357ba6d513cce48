"""What threads report, for one reader on the event loop: summed up, so that it never falls behind, and never silent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from typing import Final

from comity.trust.errors import Unavailable
from comity.upstream.download import Work
from comity.wire.upstream_values import ImportEvent, ImportProgress, ImportWaiting

TICK: Final = 0.5
ALIVE: Final = 5.0
"""Seconds after which something is said although nothing happened."""


class Ticker(Work):
    """Counts what arrives. `stop` makes every thread that reports raise."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._waiting: ImportWaiting | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def progress(self, path: str, count: int) -> None:
        self._require()
        with self._lock:
            self._counts[path] = self._counts.get(path, 0) + count

    def wait(self, seconds: float, why: str) -> None:
        with self._lock:
            self._waiting = ImportWaiting(why, round(seconds))
        self._stopped.wait(seconds)
        self._require()

    async def until(self, task: asyncio.Task[object]) -> AsyncGenerator[ImportEvent, None]:
        """What happens until `task` is done."""
        quiet = 0.0
        while not task.done():
            await asyncio.wait((task,), timeout=TICK)
            events = self._taken()
            quiet = 0.0 if events else quiet + TICK
            if quiet >= ALIVE:
                events, quiet = [ImportProgress("", 0)], 0.0
            for event in events:
                yield event

    def _taken(self) -> list[ImportEvent]:
        with self._lock:
            events: list[ImportEvent] = [ImportProgress(path, count) for path, count in self._counts.items()]
            if self._waiting is not None:
                events.append(self._waiting)
            self._counts, self._waiting = {}, None
        return events

    def _require(self) -> None:
        if self._stopped.is_set():
            raise Unavailable("the import was broken off", why="nobody waits for it any more")
