"""One run of pieces asked of one source: what the schedule hands to whoever drives the sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity.transfer.source_key import SourceKey

FIRST_BYTES: Final = 64 * 1024
"""A request that has brought less is judged as if this much had arrived: its promise falls as it waits."""


@dataclass(slots=True, eq=False)
class Request:
    """A run of pieces, [first, stop), asked of one source. While it runs, `at` is the piece under way, `stop` may move
    down, and `live` may turn False, for good: the driver must then end it."""

    source: SourceKey
    first: int
    stop: int
    started: float
    at: int
    received: int = 0
    live: bool = True

    def rate(self, now: float) -> float:
        """Bytes per second so far."""
        return self.received / max(now - self.started, 1e-6)

    def promise(self, now: float) -> float:
        """Bytes per second to count on from here, more than none."""
        return max(self.received, FIRST_BYTES) / max(now - self.started, 1e-6)
