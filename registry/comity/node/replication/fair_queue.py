"""Work of many, served in turn: whoever brings much waits for itself, and nobody else waits for it.

Items wait under paths, such as (source, publisher). At each step of a path its keys take turns: every source one item,
and within a source every publisher one. A key that is new goes behind those that wait, so none is overtaken twice by
another. A turn that cost more than others is charged: its key sits out as many turns as it was charged.

Nothing here does I/O, reads a clock or knows what an item is.


A bounded number of things at once, shared fairly by those for whom they are done."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeAlias, TypeVar

from comity.trust.errors import Unavailable

T = TypeVar("T")

Path: TypeAlias = tuple[Hashable, ...]
"""From the source down; at least one key, and in one queue always the same number of keys."""

MAX_DEBT: Final = 64.0
"""Turns that a key sits out at most, however much it is charged."""
MAX_OWING: Final = 4_096
"""Debts of keys without work that are remembered; the oldest is forgotten first, in favour of who owed it."""


@dataclass(slots=True)
class _Line(Generic[T]):
    """What waits under one key: the lines of its keys in turn, or at the end of a path the items themselves."""

    lines: OrderedDict[Hashable, _Line[T]] = field(default_factory=OrderedDict)
    items: deque[T] = field(default_factory=deque)
    debt: float = 0.0

    @property
    def empty(self) -> bool:
        return not self.lines and not self.items


class FairQueue(Generic[T]):
    """Items that wait under paths.

    Args:
        most: items that wait under one first key. Beyond, a path that has fewer than the longest one of this key takes
            that one's newest place; else the new item itself is left out.

    Attributes:
        left_out: items that found no place, or lost theirs, so far.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._root: _Line[T] = _Line()
        self._owing: OrderedDict[Path, float] = OrderedDict()
        self._counts: dict[Hashable, _Counts] = {}
        self.left_out = 0

    def __len__(self) -> int:
        return sum(counts.total for counts in self._counts.values())

    def waiting(self, first: Hashable) -> int:
        """Items that wait under a first key."""
        counts = self._counts.get(first)
        return counts.total if counts else 0

    def put(self, path: Path, item: T) -> tuple[Path, T] | None:
        """Let `item` wait under `path`. Returns what had to be left out for it, or itself where it was that."""
        counts = self._counts.setdefault(path[0], _Counts())
        out: tuple[Path, T] | None = None
        if counts.total >= self._most:
            self.left_out += 1
            if counts.longest <= counts.of(path) + 1:
                return path, item
            longest = counts.a_longest()
            out = longest, self._pop_newest(longest)
        line = self._root
        for depth, key in enumerate(path, 1):
            if key not in line.lines:
                line.lines[key] = _Line(debt=self._owing.pop(path[:depth], 0.0))
            line = line.lines[key]
        line.items.append(item)
        counts.add(path, 1)
        return out

    def take(self, allowed: Callable[[Path], bool] = lambda path: True) -> tuple[Path, T] | None:
        """The next item and its path; None where nothing waits that may be taken now.

        Args:
            allowed: whether something under a path, or the beginning of one, may be taken now. Keys that may not keep
                their place.
        """
        taken = self._take(self._root, (), allowed)
        if taken is not None:
            self._count(taken[0], -1)
        return taken

    def waits(self, allowed: Callable[[Path], bool]) -> bool:
        """Whether something waits under a path that is `allowed`, as its beginnings are."""

        def any_of(line: _Line[T], path: Path) -> bool:
            return bool(line.items) or any(
                allowed((*path, key)) and any_of(child, (*path, key)) for key, child in line.lines.items()
            )

        return any_of(self._root, ())

    def charge(self, path: Path, turns: float) -> None:
        """Have each key of `path` sit out so many turns: something that was taken under it cost more than others."""
        line: _Line[T] | None = self._root
        for depth, key in enumerate(path, 1):
            line = line.lines.get(key) if line else None
            if line is not None:
                line.debt = min(MAX_DEBT, line.debt + turns)
            else:
                self._owe(path[:depth], turns)

    def _take(self, line: _Line[T], path: Path, allowed: Callable[[Path], bool]) -> tuple[Path, T] | None:
        if line.items:
            return path, line.items.popleft()
        while True:
            found, debts = self._first(line, path, allowed)
            if found is not None or not debts:
                return found
            passing = min(debts.values())  # all of them sit out: so many turns pass at once
            for key in debts:
                line.lines[key].debt -= passing

    def _first(
        self, line: _Line[T], path: Path, allowed: Callable[[Path], bool]
    ) -> tuple[tuple[Path, T] | None, dict[Hashable, int]]:
        """What is first in turn, or the debts of the keys that sat out."""
        debts: dict[Hashable, int] = {}
        for key in list(line.lines):
            child, below = line.lines[key], (*path, key)
            if not allowed(below):
                continue
            if child.debt >= 1:
                child.debt -= 1
                line.lines.move_to_end(key)
                debts[key] = math.floor(child.debt)
                continue
            if (taken := self._take(child, below, allowed)) is not None:
                line.lines.move_to_end(key)
                self._drop_if_empty(line, key, below)
                return taken, {}
        return None, debts

    def _pop_newest(self, path: Path) -> T:
        lines = [self._root]
        for key in path:
            lines.append(lines[-1].lines[key])
        item = lines[-1].items.pop()
        for depth in range(len(path), 0, -1):
            self._drop_if_empty(lines[depth - 1], path[depth - 1], path[:depth])
        self._count(path, -1)
        return item

    def _drop_if_empty(self, line: _Line[T], key: Hashable, path: Path) -> None:
        if line.lines[key].empty:
            debt = line.lines.pop(key).debt
            if debt > 0:
                self._owe(path, debt)

    def _owe(self, path: Path, turns: float) -> None:
        self._owing[path] = min(MAX_DEBT, self._owing.pop(path, 0.0) + turns)
        if len(self._owing) > MAX_OWING:
            self._owing.popitem(last=False)

    def _count(self, path: Path, change: int) -> None:
        counts = self._counts[path[0]]
        counts.add(path, change)
        if not counts.total:
            del self._counts[path[0]]


class _Counts:
    """How many items wait under each path of one first key, and which path has the most."""

    def __init__(self) -> None:
        self._of: dict[Path, int] = {}
        self._having: dict[int, dict[Path, None]] = {}
        self.total = 0
        self.longest = 0

    def of(self, path: Path) -> int:
        return self._of.get(path, 0)

    def a_longest(self) -> Path:
        return next(iter(self._having[self.longest]))

    def add(self, path: Path, change: int) -> None:
        before = self._of.pop(path, 0)
        if before:
            del self._having[before][path]
        after = before + change
        if after:
            self._of[path] = after
            self._having.setdefault(after, {})[path] = None
        if not self._having.get(before):
            self._having.pop(before, None)
        self.total += change
        self.longest = max(self.longest, after)
        while self.longest and not self._having.get(self.longest):
            self.longest -= 1


class FairSlots:
    """So many slots, of which one key has at most a part, so that who is slow never keeps all of them. Who waits gets
    one in turn with the other keys. Touched by the event loop only.

    Args:
        each: slots that one key may have; fewer than `slots`.
        most: calls of one key that may wait.
    """

    def __init__(self, slots: int, *, each: int, most: int) -> None:
        self._free = slots
        self._each = each
        self._used: Counter[Hashable] = Counter()
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue(most)

    @asynccontextmanager
    async def slot(self, key: Hashable) -> AsyncIterator[None]:
        """Have a slot inside the block. Raises Unavailable (BUSY) where too many calls of this key wait already."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiting.put((key,), turn) is not None:
            raise Unavailable("too much waits already", why="for the same peer", code="BUSY")
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give_back(key)
            raise
        try:
            yield
        finally:
            self._give_back(key)

    def _give_back(self, key: Hashable) -> None:
        self._free += 1
        self._used[key] -= 1
        if not self._used[key]:
            del self._used[key]
        self._hand_out()

    def _hand_out(self) -> None:
        while self._free:
            taken = self._waiting.take(lambda path: self._used[path[0]] < self._each)
            if taken is None:
                return
            (key,), turn = taken
            if not turn.done():  # else whoever waited has gone
                self._free -= 1
                self._used[key] += 1
                turn.set_result(None)
