"""How much one caller may ask: calls a second, calls at once, bytes a second; an address block; and all together.

A token bucket a caller and one a block, in memory; the clock is an argument. Nothing here waits: calls beyond the rate
are refused, and for bytes the caller learns how long to wait. When all calls that may run at once do, the block that
has the most of them gives one up for a newcomer from another one (`FairShares`).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final

from comity.trust.errors import Refused
from comity.wire import limits
from comity.wire.fair_shares import FairShares

MAX_ACCOUNTS: Final = 16_384
"""Callers, and as many blocks, that are remembered. The one that has not called for longest is forgotten first."""
BLOCK_TIMES: Final = 4
"""A block may make as many calls a second as this many callers."""
_AGAIN: Final = 0.02


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one caller may use. `bytes_per_second` bounds the data streams, None leaves them to the link.

    `block_at_once` bounds the running calls of one block, None leaves that to `all_at_once`.
    """

    calls_per_second: float = 50.0
    burst: int = 200
    at_once: int = 32
    bytes_per_second: int | None = None
    all_at_once: int = 512
    block_at_once: int | None = None


@dataclass(slots=True)
class _Account:
    calls: float  # tokens left
    bytes: float  # negative: sent ahead of the rate
    since: float
    running: int = 0


@dataclass(slots=True, eq=False)
class Running:
    """A call from its admission to its end. `end` makes it end early; None where that cannot be done."""

    block: str
    end: Callable[[], None] | None = field(default=None)


class Throttle:
    """Keeps an account for each caller, by the name that its port gives it. Not thread-safe: one event loop uses it."""

    def __init__(self, allowance: Allowance, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowance = allowance
        self._clock = clock
        self._callers: OrderedDict[str, _Account] = OrderedDict()
        self._blocks: OrderedDict[str, _Account] = OrderedDict()
        self._running: FairShares[Running] = FairShares(allowance.all_at_once, clock)
        self._awaited: FairShares[Running] = FairShares(limits.AWAITED, clock)

    @contextmanager
    def call(self, caller: str, block: str = "", end: Callable[[], None] | None = None) -> Iterator[Running]:
        """One call, from here to the end of the block. Raises Refused (RATE, TOO-MANY-CALLS).

        Args:
            block: the address block, or whatever else the caller shares its allowance with; by default itself.
            end: ends this call early, where its place is given to somebody else's.
        """
        block = block or caller
        accounts = self._charged(caller, block)
        running = Running(block, end)
        self._place(running, accounts[0])
        for account in accounts:
            account.calls -= 1
            account.running += 1
        try:
            yield running
        finally:
            self._running.give_back(running)
            for account in accounts:
                account.running -= 1

    def progress(self, running: Running) -> None:
        """A message of this call came or went: of two calls the one that stands still gives way."""
        self._running.progress(running)

    @asynccontextmanager
    async def awaiting(self, running: Running) -> AsyncIterator[None]:
        """Wait for a place among the calls whose next request is awaited, and hold it to the end of the block. A call
        that has to give its place up is ended."""
        while (gives := self._awaited.take(running, running.block)) is running:
            await asyncio.sleep(_AGAIN)
        if gives is not None and gives.end is not None:
            gives.end()
        try:
            yield
        finally:
            self._awaited.give_back(running)

    def sent(self, caller: str, size: int) -> float:
        """Charge `size` bytes to a caller; gives the seconds to wait before sending more."""
        rate = self._allowance.bytes_per_second
        if rate is None:
            return 0.0
        account = self._account(self._callers, caller, 1)
        account.bytes -= size
        return max(0.0, -account.bytes / rate)

    def _charged(self, caller: str, block: str) -> list[_Account]:
        """The accounts that pay for one more call. Raises Refused (RATE) where one of them cannot."""
        accounts = [(self._account(self._callers, caller, 1), 1)]
        if block != caller:
            accounts.append((self._account(self._blocks, block, BLOCK_TIMES), BLOCK_TIMES))
        for account, times in accounts:
            if account.calls < 1:
                wait = (1 - account.calls) / (times * self._allowance.calls_per_second)
                raise Refused("too many calls", hint=f"try again in {wait:.1f} s", code="RATE")
        return [account for account, _ in accounts]

    def _place(self, running: Running, caller: _Account) -> None:
        """Raises Refused (TOO-MANY-CALLS) where neither a place is free nor somebody else has to give one up."""
        most = self._allowance.block_at_once
        crowded = most is not None and self._running.held_by(running.block) >= most
        if crowded or caller.running >= self._allowance.at_once:
            raise _too_many()
        gives = self._running.take(running, running.block)
        if gives is None:
            return
        if gives is not running and gives.end is not None:
            gives.end()
            return
        self._running.give_back(running)
        if gives is not running:
            self._running.take(gives, gives.block)
        raise _too_many()

    def _account(self, accounts: OrderedDict[str, _Account], name: str, times: int) -> _Account:
        now = self._clock()
        account = accounts.get(name)
        if account is None:
            if len(accounts) >= MAX_ACCOUNTS:
                self._forget(accounts)
            rate = float(self._allowance.bytes_per_second or 0)
            account = accounts[name] = _Account(times * self._allowance.burst, rate, now)
        else:
            accounts.move_to_end(name)
            self._refill(account, now, times)
        return account

    def _refill(self, account: _Account, now: float, times: int) -> None:
        passed, account.since = now - account.since, now
        rate, allowance = self._allowance.bytes_per_second or 0, self._allowance
        account.calls = min(times * allowance.burst, account.calls + times * passed * allowance.calls_per_second)
        account.bytes = min(rate, account.bytes + passed * rate)

    def _forget(self, accounts: OrderedDict[str, _Account]) -> None:
        """Forget the account that was not used for longest and has no call running: `all_at_once` have one at most."""
        for name, account in accounts.items():
            if not account.running:
                del accounts[name]
                return


def _too_many() -> Refused:
    return Refused("too many calls at once", hint="wait for running calls to end", code="TOO-MANY-CALLS")
