"""Fair shares of slots, and rate limits of callers.

`FairShares` divides a fixed number of slots (connections, streams) between address blocks. One block may use all slots
while no other block needs one. When all are taken, the block with the most slots loses the slot that made no progress
for the longest time. So a client with thousands of connections takes slots only from itself, and a connection from
another block always gets a slot.

`Throttle` limits calls per second, concurrent calls and bytes per second of a caller, an address block, and all callers
together, with one token bucket per caller and per block, in memory. Calls above the rate are refused; for bytes, the
sender gets the time to wait. At the limit of concurrent calls, `FairShares` decides which call ends. What callers have
not received is charged to `Throttle.unsent`.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from comity.trust.errors import Refused
from comity.trust.frozen import frozen
from comity.wire.limits import AWAITED_REQUESTS, UNSENT_BYTES
from comity.wire.unsent import IDLE_LIMIT, AdmittedCall, UnsentBytes

K = TypeVar("K", bound=Hashable)


class FairShares(Generic[K]):
    """Divides `slots` slots between holders, by address block. Not thread-safe: use one lock or one event loop.

    Args:
        slots: the maximum number of holders; at least 1.
        clock: monotonic seconds.

    Memory: about 300 bytes per holder, and nothing for refused ones.
    """

    def __init__(self, slots: int, clock: Callable[[], float]) -> None:
        if slots < 1:
            raise ValueError(f"{slots} slots")
        self._slots = slots
        self._clock = clock
        self._blocks: dict[str, OrderedDict[K, float]] = {}
        self._block_of: dict[K, str] = {}

    def __len__(self) -> int:
        return len(self._block_of)

    def block_size(self, block: str) -> int:
        """Returns the number of slots of a block."""
        return len(self._blocks.get(block, ()))

    def acquire(self, item: K, block: str) -> K | None:
        """Give `item` a slot.

        Returns None if a slot was free. Otherwise returns the holder that lost its slot, which the caller must close;
        it is `item` itself if `item` is refused.
        """
        self._add(item, block)
        if len(self._block_of) <= self._slots:
            return None
        largest = self._largest(block)
        oldest, since = next(iter(self._blocks[largest].items()))
        if largest == block and (oldest == item or self._clock() - since < IDLE_LIMIT):
            oldest = item
        self.release(oldest)
        return oldest

    def acquire_from_others(self, item: K, block: str) -> K | None:
        """As `acquire`, but no holder of the item's own block loses its slot: `item` itself is refused instead."""
        full = len(self._block_of) >= self._slots
        if full and self.block_size(block) + 1 >= max(map(len, self._blocks.values())):
            return item
        return self.acquire(item, block)

    def progress(self, item: K) -> None:
        """Record that `item` made progress now. No effect if it has no slot."""
        block = self._block_of.get(item)
        if block is not None:
            holders = self._blocks[block]
            holders[item] = self._clock()
            holders.move_to_end(item)

    def release(self, item: K) -> None:
        """Release the slot of `item`. No effect if it has none."""
        block = self._block_of.pop(item, None)
        if block is not None:
            del self._blocks[block][item]
            if not self._blocks[block]:
                del self._blocks[block]

    def _add(self, item: K, block: str) -> None:
        self.release(item)
        self._block_of[item] = block
        self._blocks.setdefault(block, OrderedDict())[item] = self._clock()

    def _largest(self, newcomer: str) -> str:
        """Returns the block with the most slots; the newcomer's own block if it has as many as any other."""
        return max(self._blocks, key=lambda block: (len(self._blocks[block]), block == newcomer))


MAX_ACCOUNTS: Final = 16_384
"""Maximum number of accounts of callers, and of blocks. The least recently used one is deleted first."""
BLOCK_TIMES: Final = 4
"""The rate limit of a block, as a multiple of the rate limit of a caller."""
_RETRY_INTERVAL: Final = 0.02


@frozen
class Allowance:
    """The limits of one caller. `bytes_per_second` limits data streams; None means no limit.

    `block_at_once` limits the concurrent calls of one block; None means only `all_at_once` limits them. `unsent_bytes`
    is the budget of `unsent.UnsentBytes` for a port.
    """

    calls_per_second: float = 50.0
    burst: int = 200
    at_once: int = 32
    bytes_per_second: int | None = None
    all_at_once: int = 512
    block_at_once: int | None = None
    unsent_bytes: int = UNSENT_BYTES


@dataclass(slots=True)
class _Account:
    calls: float  # tokens left
    bytes: float  # negative: more was sent than the rate allows
    since: float
    running: int = 0


class Throttle:
    """Rate limits by caller name and by block. Not thread-safe: call from the event loop.

    Attributes:
        unsent: the budget of bytes that callers have not received.
    """

    def __init__(self, allowance: Allowance, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowance = allowance
        self._clock = clock
        self._callers: OrderedDict[str, _Account] = OrderedDict()
        self._blocks: OrderedDict[str, _Account] = OrderedDict()
        self.unsent = UnsentBytes(allowance.unsent_bytes, clock)
        self._running: FairShares[AdmittedCall] = FairShares(allowance.all_at_once, clock)
        self._awaited: FairShares[AdmittedCall] = FairShares(AWAITED_REQUESTS, clock)

    @contextmanager
    def call(
        self, caller: str, block: str = "", end: Callable[[], None] | None = None, cost: int = 1
    ) -> Iterator[AdmittedCall]:
        """A context manager for one call. Raises Refused (RATE, TOO-MANY-CALLS).

        Args:
            block: the address block, or another group that shares an allowance; by default the caller itself.
            end: ends this call early, when another call gets its slot.
            cost: the calls that it counts as in the rate. The last call of an allowance may cost more than is left.
        """
        block = block or caller
        accounts = self._charged(caller, block)
        running = AdmittedCall(block, end)
        self._acquire_slot(running, accounts[0])
        for account in accounts:
            account.calls -= cost
            account.running += 1
        try:
            yield running
        finally:
            self._running.release(running)
            for account in accounts:
                account.running -= 1

    def progress(self, running: AdmittedCall) -> None:
        """Record that this call received or sent a message: a call without progress loses its slot first."""
        self._running.progress(running)

    @asynccontextmanager
    async def awaiting(self, running: AdmittedCall) -> AsyncIterator[None]:
        """A context manager for reading the next request of a call: waits for one of AWAITED_REQUESTS slots. A call
        that loses its slot is ended."""
        while (evicted := self._awaited.acquire(running, running.block)) is running:
            await asyncio.sleep(_RETRY_INTERVAL)
        if evicted is not None and evicted.end is not None:
            evicted.end()
        try:
            yield
        finally:
            self._awaited.release(running)

    def sent(self, caller: str, size: int) -> float:
        """Charge `size` bytes to a caller. Returns the seconds to wait before sending more."""
        rate = self._allowance.bytes_per_second
        if rate is None:
            return 0.0
        account = self._account(self._callers, caller, 1)
        account.bytes -= size
        return max(0.0, -account.bytes / rate)

    def _charged(self, caller: str, block: str) -> list[_Account]:
        """Returns the accounts to charge for a call. Raises Refused (RATE) if one has no calls left."""
        accounts = [(self._account(self._callers, caller, 1), 1)]
        if block != caller:
            accounts.append((self._account(self._blocks, block, BLOCK_TIMES), BLOCK_TIMES))
        for account, times in accounts:
            if account.calls < 1:
                wait = (1 - account.calls) / (times * self._allowance.calls_per_second)
                refusal = Refused("too many calls", hint=f"try again in {wait:.1f} s", code="RATE")
                refusal.retry_after = wait
                raise refusal
        return [account for account, _ in accounts]

    def _acquire_slot(self, running: AdmittedCall, caller: _Account) -> None:
        """Raises Refused (TOO-MANY-CALLS) if no slot is free and no other call must end."""
        most = self._allowance.block_at_once
        block_full = most is not None and self._running.block_size(running.block) >= most
        if block_full or caller.running >= self._allowance.at_once:
            raise _too_many_calls()
        evicted = self._running.acquire(running, running.block)
        if evicted is None:
            return
        if evicted is not running and evicted.end is not None:
            evicted.end()
            return
        self._running.release(running)
        if evicted is not running:
            self._running.acquire(evicted, evicted.block)
        raise _too_many_calls()

    def _account(self, accounts: OrderedDict[str, _Account], name: str, times: int) -> _Account:
        now = self._clock()
        account = accounts.get(name)
        if account is None:
            if len(accounts) >= MAX_ACCOUNTS:
                self._evict_account(accounts)
            rate = float(self._allowance.bytes_per_second or 0)
            account = accounts[name] = _Account(times * self._allowance.burst, rate, now)
        else:
            accounts.move_to_end(name)
            self._refill(account, now, times)
        return account

    def _refill(self, account: _Account, now: float, times: int) -> None:
        elapsed, account.since = now - account.since, now
        rate, allowance = self._allowance.bytes_per_second or 0, self._allowance
        account.calls = min(times * allowance.burst, account.calls + times * elapsed * allowance.calls_per_second)
        account.bytes = min(rate, account.bytes + elapsed * rate)

    def _evict_account(self, accounts: OrderedDict[str, _Account]) -> None:
        """Delete the least recently used account without running calls; at most `all_at_once` accounts have any."""
        for name, account in accounts.items():
            if not account.running:
                del accounts[name]
                return


def _too_many_calls() -> Refused:
    return Refused("too many concurrent calls", hint="wait until running calls have ended", code="TOO-MANY-CALLS")
