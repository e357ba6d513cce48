"""How many nodes are taken at each instant: a step function over time, in integers.

Times are POSIX seconds and intervals half open: what ends at t leaves room for what begins at t.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

_BEGINNING: Final = -1
"""Before every time that there is."""


class Profile:
    """A level for each instant, 0 until something is added. One step a boundary: a window with few granules stays small
    however much is added."""

    def __init__(self) -> None:
        self._times = [_BEGINNING]
        self._levels = [0]

    def add(self, start: int, end: int, nodes: int) -> None:
        """Raise the level by `nodes` (negative to lower it) from `start` up to `end`."""
        if start >= end or nodes == 0:
            return
        first, last = self._cut(start), self._cut(end)
        for step in range(first, last):
            self._levels[step] += nodes
        self._join(last)
        self._join(first)

    def peak(self, start: int, end: int) -> int:
        """The highest level from `start` up to `end`; 0 where nothing lies between."""
        if start >= end:
            return 0
        first = bisect_right(self._times, start) - 1
        return max(self._levels[first : bisect_left(self._times, end)])

    def steps(self) -> tuple[tuple[int, int], ...]:
        """Where the level changes, and to what, in order of time."""
        return tuple(zip(self._times[1:], self._levels[1:], strict=True))

    def _cut(self, time: int) -> int:
        """Make `time` a boundary; where its step stands."""
        at = bisect_left(self._times, time)
        if at == len(self._times) or self._times[at] != time:
            self._times.insert(at, time)
            self._levels.insert(at, self._levels[at - 1])
        return at

    def _join(self, at: int) -> None:
        """Forget a boundary at which nothing changes."""
        if at > 0 and self._levels[at] == self._levels[at - 1]:
            del self._times[at], self._levels[at]
