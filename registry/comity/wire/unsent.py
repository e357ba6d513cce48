"""One budget for the bytes of a port that are in memory because their callers have not received them.

A caller that reads nothing keeps what was made for it in memory until the call ends. So every call of a port charges
these bytes to one budget, by its address block:

    spare      bytes that only save time, such as reading ahead: while half is free, for one block a quarter
    reserve    bytes that are about to be made: the call waits for room
    charged    a message that exists

Where the budget is used up, the block with the most bytes gives way to others: of its calls, the one without progress
for the longest time is ended. Within one block a call is ended for another one only after `IDLE_LIMIT` seconds without
progress. So callers of one block that read nothing end each other, and take nothing from those of other blocks. Each
port has its own budget: strangers use none of that of members.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from comity.trust.errors import Refused
from comity.wire import limits

IDLE_LIMIT: Final = 5.0
"""Seconds without progress after which a call or a connection gives way to another one of its own block."""


@dataclass(slots=True, eq=False)
class AdmittedCall:
    """An admitted call that has not ended. `end` ends it early; None if it cannot be ended."""

    block: str
    end: Callable[[], None] | None = field(default=None)


@dataclass(slots=True)
class _Held:
    """Bytes of one call, and the time of its last progress."""

    size: int
    since: float


class UnsentBytes:
    """The budget of one port. Not thread-safe: call from the event loop.

    Args:
        budget: bytes.
        clock: monotonic seconds.
    """

    def __init__(self, budget: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget = budget
        self._clock = clock
        self._blocks: dict[str, OrderedDict[AdmittedCall, _Held]] = {}
        self._sizes: Counter[str] = Counter()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.used = 0

    def held(self, call: AdmittedCall) -> int:
        """Bytes of one call."""
        calls = self._blocks.get(call.block)
        return calls[call].size if calls is not None and call in calls else 0

    def spare(self, call: AdmittedCall, size: int) -> bool:
        """Take `size` bytes if there are plenty. Returns whether they were taken."""
        if self.used + size > self._budget // 2 or self._sizes[call.block] + size > self._budget // 4:
            return False
        self._add(call, size)
        return True

    async def reserve(self, call: AdmittedCall, size: int) -> None:
        """Wait until there is room for `size` bytes, and take them. What is larger than the budget takes all of it.

        Raises Refused (TOO-MANY-CALLS) after `limits.CALL_TIMEOUT` seconds.
        """
        size = min(size, self._budget)
        try:
            async with asyncio.timeout(limits.CALL_TIMEOUT):
                while self.used + size > self._budget:
                    if (loser := self._gives_way(call, size)) is None:
                        await self._freed()
                    else:
                        self._end(loser)
        except TimeoutError:
            raise _refused() from None
        self._add(call, size)
        self._wake()  # there may be room for another one

    @contextmanager
    def charged(self, call: AdmittedCall, size: int) -> Iterator[None]:
        """Charge a message while the caller receives it, as far as the call has not reserved its bytes. Raises Refused
        (TOO-MANY-CALLS) if this call has to give way."""
        size = min(max(0, size - self.held(call)), self._budget)
        if size:
            self._add(call, size)
        while self.used > self._budget:
            loser = self._gives_way(call, 0)
            if loser is None:
                self.release(call, size)
                raise _refused()
            self._end(loser)
        try:
            yield
        finally:
            self.release(call, size)

    def progress(self, call: AdmittedCall) -> None:
        """Record that the caller received a message now."""
        calls = self._blocks.get(call.block, OrderedDict())
        if call in calls:
            calls[call].since = self._clock()
            calls.move_to_end(call)

    def release(self, call: AdmittedCall, size: int) -> None:
        """The call has `size` bytes less; no effect on a call that was ended."""
        calls = self._blocks.get(call.block)
        if not size or calls is None or call not in calls:
            return
        freed = min(size, calls[call].size)
        calls[call].size -= freed
        self._sizes[call.block] -= freed
        self.used -= freed
        if not calls[call].size:
            del calls[call]
        if not calls:
            del self._blocks[call.block], self._sizes[call.block]
        self._wake()

    @contextmanager
    def serving(self, call: AdmittedCall) -> Iterator[CallBytes]:
        """The budget for one call, all of whose bytes are released at its end."""
        try:
            yield CallBytes(self, call)
        finally:
            self.release(call, self.held(call))

    def _add(self, call: AdmittedCall, size: int) -> None:
        if not size:
            return
        calls = self._blocks.setdefault(call.block, OrderedDict())
        if call in calls:
            calls[call].size += size
        else:
            calls[call] = _Held(size, self._clock())
        self._sizes[call.block] += size
        self.used += size

    def _gives_way(self, call: AdmittedCall, size: int) -> AdmittedCall | None:
        """The call that ends so that `call` may have `size` bytes more; None if `call` has to wait."""
        block = max(self._blocks, key=lambda name: (self._sizes[name], -next(iter(self._blocks[name].values())).since))
        loser, held = next(iter(self._blocks[block].items()))
        own = self._sizes[call.block] + size
        idle = self._clock() - held.since >= IDLE_LIMIT
        fair = block != call.block and self._sizes[block] >= own
        return loser if loser is not call and (idle or fair) else None

    def _end(self, call: AdmittedCall) -> None:
        self.release(call, self.held(call))
        if call.end is not None:
            call.end()

    async def _freed(self) -> None:
        """Wait until bytes are released, or a call may have become idle."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            await asyncio.wait((waiting,), timeout=IDLE_LIMIT)
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)

    def _wake(self) -> None:
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(None)
                return


class CallBytes:
    """The budget, as one call uses it."""

    def __init__(self, budget: UnsentBytes, call: AdmittedCall) -> None:
        self._budget = budget
        self._call = call

    async def take(self, *sizes: int) -> int:
        """Take the first of these sizes, the largest first, for which there is plenty of room; else the last one, once
        there is room. Returns the size. Raises Refused (TOO-MANY-CALLS)."""
        taken = self.try_take(*sizes)
        if not taken:
            await self._budget.reserve(self._call, taken := sizes[-1])
        return taken

    def try_take(self, *sizes: int) -> int:
        """As `take`, but returns 0 where `take` would wait."""
        return next((size for size in sizes if self._budget.spare(self._call, size)), 0)

    def release(self, size: int) -> None:
        """Bytes that were received, or not made."""
        self._budget.release(self._call, size)


UNSENT: ContextVar[CallBytes] = ContextVar("UNSENT")
"""The budget of the call that this task serves; `unsent` reads it."""


def unsent() -> CallBytes:
    """The budget of the call that this task serves; outside of a port's calls, one without a bound."""
    try:
        return UNSENT.get()
    except LookupError:
        return CallBytes(UnsentBytes(1 << 62), AdmittedCall(""))


def _refused() -> Refused:
    return Refused(
        "too many bytes wait to be received",
        why="callers of this port do not receive what was made for them",
        hint="read the answers of running calls",
        code="TOO-MANY-CALLS",
    )
