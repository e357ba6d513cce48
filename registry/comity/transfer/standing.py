"""What is known of a source: how fast it is, how often it failed, whether it lied. A value that the schedule keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from comity.transfer.plan import Limits
from comity.trust.errors import ComityError

UNPROVEN_RATE: Final = 256 * 1024.0
"""Bytes per second expected of a source that has shown nothing yet."""


@dataclass(slots=True)
class Standing:
    """What is known of a source. May be shared by the transfers of one pull, so that none learns it anew.

    Attributes:
        rate: bytes per second, smoothed; None until it has shown something, if only that it is slow.
        failures: in a row.
        rests_until: not asked before this time.
        lied: why it is not asked at all; set when a finished transfer has proven a piece of this source bad.
        asked: requests made of it.
        last_asked: when the last one was.
    """

    rate: float | None = None
    failures: int = 0
    rests_until: float = -math.inf
    lied: ComityError | None = None
    asked: int = 0
    last_asked: float = -math.inf

    @property
    def untried(self) -> bool:
        return self.rate is None and not self.failures

    @property
    def expected(self) -> float:
        """Bytes per second to count on, more than none: a failure halves what a source has shown."""
        rate = UNPROVEN_RATE if self.rate is None else self.rate
        return max(1.0, rate * 0.5 ** min(self.failures, 16))

    def learn(self, rate: float) -> None:
        self.rate = rate if self.rate is None else 0.7 * self.rate + 0.3 * rate

    def rest(self, now: float, jitter: float, limits: Limits) -> None:
        self.failures += 1
        pause = min(limits.longest_rest, limits.first_rest * 2 ** min(self.failures - 1, 16))
        self.rests_until = now + pause * (0.5 + 0.5 * jitter)
