"""Fair queues: items of many sources are served in turn, so that a source with many items delays only itself.

Items wait under paths, such as (source, publisher). At each level of a path the keys take turns: one item for every
source, and within a source one for every publisher. A new key is placed behind the waiting ones, so that no key is
overtaken twice by another. A turn that cost more than others is charged: its key skips as many turns. `FairQueue` does
no I/O and reads no clock; `FairSlots` limits concurrent work with it.
"""

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
"""Keys from the source down; at least one key, and the same number of keys for all items of a queue."""

MAX_DEBT: Final = 64.0
"""Turns that a key skips at most."""
MAX_DEBTS: Final = 4_096
"""Remembered debts of keys without items; the oldest is dropped first."""


@dataclass(slots=True)
class _Node(Generic[T]):
    """A key: its child keys in turn order or, at the end of a path, its items."""

    children: OrderedDict[Hashable, _Node[T]] = field(default_factory=OrderedDict)
    items: deque[T] = field(default_factory=deque)
    debt: float = 0.0

    @property
    def empty(self) -> bool:
        return not self.children and not self.items


class FairQueue(Generic[T]):
    """Items that wait under paths.

    Args:
        max_per_key: items under one first key. Above it, a path with fewer items than the longest one of this key
            replaces the newest item of that path; otherwise the new item is dropped.

    Attributes:
        left_out: number of items dropped so far.
    """

    def __init__(self, max_per_key: int) -> None:
        self._max_per_key = max_per_key
        self._root: _Node[T] = _Node()
        self._debts: OrderedDict[Path, float] = OrderedDict()
        self._counts: dict[Hashable, _Counts] = {}
        self.left_out = 0

    def __len__(self) -> int:
        return sum(counts.total for counts in self._counts.values())

    def waiting(self, first: Hashable) -> int:
        """Number of items under a first key."""
        counts = self._counts.get(first)
        return counts.total if counts else 0

    def put(self, path: Path, item: T) -> tuple[Path, T] | None:
        """Add `item` under `path`. Returns the item dropped for it, which may be itself; else None."""
        counts = self._counts.setdefault(path[0], _Counts())
        displaced: tuple[Path, T] | None = None
        if counts.total >= self._max_per_key:
            self.left_out += 1
            if counts.longest <= counts.of(path) + 1:
                return path, item
            longest = counts.longest_path()
            displaced = longest, self._pop_newest(longest)
        node = self._root
        for depth, key in enumerate(path, 1):
            if key not in node.children:
                node.children[key] = _Node(debt=self._debts.pop(path[:depth], 0.0))
            node = node.children[key]
        node.items.append(item)
        counts.add(path, 1)
        return displaced

    def take(self, allowed: Callable[[Path], bool] = lambda path: True) -> tuple[Path, T] | None:
        """The next item and its path; None if no item may be taken now.

        Args:
            allowed: whether an item under a path, or under a prefix of a path, may be taken now. Keys that may not keep
                their place.
        """
        item_found = self._take(self._root, (), allowed)
        if item_found is not None:
            self._count(item_found[0], -1)
        return item_found

    def has_waiting(self, allowed: Callable[[Path], bool]) -> bool:
        """Whether an item waits under a path that is `allowed`, with all its prefixes."""

        def any_of(node: _Node[T], path: Path) -> bool:
            return bool(node.items) or any(
                allowed((*path, key)) and any_of(child, (*path, key)) for key, child in node.children.items()
            )

        return any_of(self._root, ())

    def charge(self, path: Path, turns: float) -> None:
        """Let each key of `path` skip `turns` turns: an item taken under it cost more than others."""
        node: _Node[T] | None = self._root
        for depth, key in enumerate(path, 1):
            node = node.children.get(key) if node else None
            if node is not None:
                node.debt = min(MAX_DEBT, node.debt + turns)
            else:
                self._add_debt(path[:depth], turns)

    def _take(self, node: _Node[T], path: Path, allowed: Callable[[Path], bool]) -> tuple[Path, T] | None:
        if node.items:
            return path, node.items.popleft()
        while True:
            found, debts = self._first(node, path, allowed)
            if found is not None or not debts:
                return found
            elapsed = min(debts.values())  # all keys skip: let that many turns elapse at once
            for key in debts:
                node.children[key].debt -= elapsed

    def _first(
        self, node: _Node[T], path: Path, allowed: Callable[[Path], bool]
    ) -> tuple[tuple[Path, T] | None, dict[Hashable, int]]:
        """The next item in turn, or the debts of the keys that skipped."""
        debts: dict[Hashable, int] = {}
        for key in list(node.children):
            child, child_path = node.children[key], (*path, key)
            if not allowed(child_path):
                continue
            if child.debt >= 1:
                child.debt -= 1
                node.children.move_to_end(key)
                debts[key] = math.floor(child.debt)
                continue
            if (item_found := self._take(child, child_path, allowed)) is not None:
                node.children.move_to_end(key)
                self._drop_if_empty(node, key, child_path)
                return item_found, {}
        return None, debts

    def discard(self, path: Path, item: T) -> None:
        """Remove an item that waits under `path`. No effect if it does not wait."""
        if self._counts.get(path[0], _Counts()).of(path) and item in (nodes := self._nodes_of(path))[-1].items:
            nodes[-1].items.remove(item)
            self._removed(path, nodes)

    def _pop_newest(self, path: Path) -> T:
        nodes = self._nodes_of(path)
        item = nodes[-1].items.pop()
        self._removed(path, nodes)
        return item

    def _nodes_of(self, path: Path) -> list[_Node[T]]:
        nodes = [self._root]
        for key in path:
            nodes.append(nodes[-1].children[key])
        return nodes

    def _removed(self, path: Path, nodes: list[_Node[T]]) -> None:
        """An item was removed from the last of the nodes of `path`."""
        for depth in range(len(path), 0, -1):
            self._drop_if_empty(nodes[depth - 1], path[depth - 1], path[:depth])
        self._count(path, -1)

    def _drop_if_empty(self, node: _Node[T], key: Hashable, path: Path) -> None:
        if node.children[key].empty:
            debt = node.children.pop(key).debt
            if debt > 0:
                self._add_debt(path, debt)

    def _add_debt(self, path: Path, turns: float) -> None:
        self._debts[path] = min(MAX_DEBT, self._debts.pop(path, 0.0) + turns)
        if len(self._debts) > MAX_DEBTS:
            self._debts.popitem(last=False)

    def _count(self, path: Path, change: int) -> None:
        counts = self._counts[path[0]]
        counts.add(path, change)
        if not counts.total:
            del self._counts[path[0]]


class _Counts:
    """Number of items under each path of one first key, and the path with the most."""

    def __init__(self) -> None:
        self._of: dict[Path, int] = {}
        self._by_count: dict[int, dict[Path, None]] = {}
        self.total = 0
        self.longest = 0

    def of(self, path: Path) -> int:
        return self._of.get(path, 0)

    def longest_path(self) -> Path:
        return next(iter(self._by_count[self.longest]))

    def add(self, path: Path, change: int) -> None:
        before = self._of.pop(path, 0)
        if before:
            del self._by_count[before][path]
        after = before + change
        if after:
            self._of[path] = after
            self._by_count.setdefault(after, {})[path] = None
        if not self._by_count.get(before):
            self._by_count.pop(before, None)
        self.total += change
        self.longest = max(self.longest, after)
        while self.longest and not self._by_count.get(self.longest):
            self.longest -= 1


class FairSlots:
    """A fixed number of slots, of which one key has at most a part, so that a slow key never uses all. Waiting calls
    get slots in turn by key, those of keys without a slot first. Not thread-safe: call from the event loop.

    Args:
        per_key: slots that one key may use; fewer than `slots`.
        max_per_key: waiting calls of one key.
    """

    def __init__(self, slots: int, *, per_key: int, max_per_key: int) -> None:
        self._free = slots
        self._per_key = per_key
        self._used: Counter[Hashable] = Counter()
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue(max_per_key)

    @asynccontextmanager
    async def slot(self, key: Hashable) -> AsyncIterator[None]:
        """Use a slot inside the block. Raises Unavailable (BUSY) if too many calls of this key wait."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiting.put((key,), turn) is not None:
            raise Unavailable("too many calls are waiting", why="for the same peer", code="BUSY")
        self._assign()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release(key)
            else:
                self._waiting.discard((key,), turn)
            raise
        try:
            yield
        finally:
            self._release(key)

    def _release(self, key: Hashable) -> None:
        self._free += 1
        self._used[key] -= 1
        if not self._used[key]:
            del self._used[key]
        self._assign()

    def _assign(self) -> None:
        while self._free:
            item_found = self._waiting.take(lambda path: not self._used[path[0]])
            item_found = item_found or self._waiting.take(lambda path: self._used[path[0]] < self._per_key)
            if item_found is None:
                return
            (key,), turn = item_found
            if not turn.done():  # else the waiting call was cancelled just now
                self._free -= 1
                self._used[key] += 1
                turn.set_result(None)
