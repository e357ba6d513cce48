"""How far this node has read what its logs hold, at which rate, and how long it will still take.

After a fill, a restore or an update a node reads for minutes: it verifies the entries of its logs, and computes what it
keeps beside the ledger. Each reader says how much it has read of how much; a look every few seconds gives the rate. A
time is told only where it follows from a rate that was seen: otherwise it is unknown. How much the logs of peers have
that is not here yet is not known here; the status shows it for each peer.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from comity.node.metrics import Metrics
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Clock
from comity.trust.frozen import frozen

LOOKS: Final = LoopTiming(interval=5.0, deadline=600.0)
SAMPLES: Final = 25
"""Looks from which a rate is computed: those of two minutes."""
LEAST_BEHIND: Final = 1_000
"""A reader with less left to read is not told: it is done before anybody looks again."""
LAG_SECONDS: Final = 1.0
LAG_KEPT: Final = 60


@frozen
class ReadState:
    """How many items a reader has read, of how many; None where that is not known."""

    done: int
    total: int | None


@frozen
class UnfinishedReading:
    """A reader that is behind. `per_second` and `seconds_left` are None where they are not known."""

    what: str
    done: int
    total: int | None
    per_second: float | None
    seconds_left: int | None

    def document(self) -> dict[str, object]:
        """The members are those of each item of `reading` in the answer of `/readyz`."""
        rate = None if self.per_second is None else round(self.per_second, 1)
        return {
            "what": self.what,
            "done": self.done,
            "total": self.total,
            "per_second": rate,
            "seconds_left": self.seconds_left,
        }

    def __str__(self) -> str:
        """`reads log entries: 44,816 of 100,000, 310 a second, 178 s left`."""
        total = "an unknown number" if self.total is None else f"{self.total:,}"
        rate = "at an unknown rate" if self.per_second is None else f"{self.per_second:,.0f} a second"
        left = "unknown time left" if self.seconds_left is None else f"{self.seconds_left:,} s left"
        return f"reads {self.what}: {self.done:,} of {total}, {rate}, {left}"


class ReadingProgress:
    """Not thread-safe: call from the event loop."""

    def __init__(self, ledger: AsyncLedger, metrics: Metrics, monotonic: Clock = time.monotonic) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._monotonic = monotonic
        self._readers: dict[str, Callable[[], ReadState]] = {}
        self._seen: dict[str, deque[tuple[float, ReadState]]] = {}

    def follow(self, what: str, state: Callable[[], ReadState]) -> None:
        """Look at a reader from now on. `what` it reads, in words; `state` may block, and is called in a thread."""
        self._readers[what] = state
        self._seen[what] = deque(maxlen=SAMPLES)

    def begin(self, supervisor: Supervisor) -> None:
        supervisor.loop("reading progress", self.look, LOOKS)

    async def look(self) -> None:
        """Ask every reader how far it is."""
        for what, ask in list(self._readers.items()):
            state = await self._ledger.run(ask)
            seen = self._seen[what]
            if seen and state.done < seen[-1][1].done:
                seen.clear()  # it began again
            seen.append((self._monotonic(), state))
            self._metrics.read_items.labels(what).set(state.done)
            self._metrics.items_to_read.labels(what).set(float("nan") if state.total is None else state.total)

    @property
    def behind(self) -> tuple[UnfinishedReading, ...]:
        """The readers that have much left to read, as of the last look."""
        found = (_reading(what, seen) for what, seen in self._seen.items() if seen)
        return tuple(each for each in found if each.total is None or each.total - each.done >= LEAST_BEHIND)


def _reading(what: str, seen: deque[tuple[float, ReadState]]) -> UnfinishedReading:
    (first_at, first), (at, last) = seen[0], seen[-1]
    rate = (last.done - first.done) / (at - first_at) if at > first_at else None
    left = None if last.total is None or not rate else int((last.total - last.done) / rate)
    return UnfinishedReading(what, last.done, last.total, rate, left)


class EventLoopLag:
    """Measures how late the event loop runs what is due: the longest delay of the last minute, as a metric."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._seen = deque[float](maxlen=LAG_KEPT)

    def begin(self, supervisor: Supervisor) -> None:
        supervisor.loop("event loop lag", self.step, LoopTiming(interval=0.01, deadline=3_600.0))

    async def step(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        self._seen.append(max(0.0, loop.time() - due))
        self._metrics.event_loop_lag.set(max(self._seen))
