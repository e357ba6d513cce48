"""How much one caller may ask: calls a second, calls at once, bytes a second; and all callers together.

A token bucket a caller, in memory; the clock is an argument. Nothing here waits: calls beyond the rate are refused, and
for bytes the caller learns how long to wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from comity.trust.errors import Refused

MAX_CALLERS: Final = 16_384


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one caller may use. `bytes_per_second` bounds the data streams, None leaves them to the link."""

    calls_per_second: float = 50.0
    burst: int = 200
    at_once: int = 32
    bytes_per_second: int | None = None
    all_at_once: int = 512


@dataclass(slots=True)
class _Account:
    calls: float  # tokens left
    bytes: float  # negative: sent ahead of the rate
    since: float
    running: int = 0


class Throttle:
    """Keeps an account for each caller, by the name that its door gives it. Not thread-safe: one event loop uses it."""

    def __init__(self, allowance: Allowance, clock: Callable[[], float] = time.monotonic) -> None:
        self._allowance = allowance
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._running = 0

    @contextmanager
    def call(self, caller: str) -> Iterator[None]:
        """One call, from here to the end of the block. Raises Refused (RATE, TOO-MANY-CALLS)."""
        account = self._account(caller)
        if account.running >= self._allowance.at_once or self._running >= self._allowance.all_at_once:
            raise Refused("too many calls at once", hint="wait for running calls to end", code="TOO-MANY-CALLS")
        if account.calls < 1:
            wait = (1 - account.calls) / self._allowance.calls_per_second
            raise Refused("too many calls", hint=f"try again in {wait:.1f} s", code="RATE")
        account.calls -= 1
        account.running += 1
        self._running += 1
        try:
            yield
        finally:
            account.running -= 1
            self._running -= 1

    def sent(self, caller: str, size: int) -> float:
        """Charge `size` bytes to a caller; gives the seconds to wait before sending more."""
        rate = self._allowance.bytes_per_second
        if rate is None:
            return 0.0
        account = self._account(caller)
        account.bytes -= size
        return max(0.0, -account.bytes / rate)

    def _account(self, caller: str) -> _Account:
        now = self._clock()
        account = self._accounts.get(caller)
        if account is None:
            if len(self._accounts) >= MAX_CALLERS:
                self._forget_idle(now)
            account = self._accounts[caller] = self._fresh(now)
        else:
            self._refill(account, now)
        return account

    def _fresh(self, now: float) -> _Account:
        return _Account(self._allowance.burst, float(self._allowance.bytes_per_second or 0), now)

    def _refill(self, account: _Account, now: float) -> None:
        passed, account.since = now - account.since, now
        rate = self._allowance.bytes_per_second or 0
        account.calls = min(self._allowance.burst, account.calls + passed * self._allowance.calls_per_second)
        account.bytes = min(rate, account.bytes + passed * rate)

    def _forget_idle(self, now: float) -> None:
        """Drop the accounts that are as good as new. Where none is, strangers are too many: they are refused."""
        for caller, account in list(self._accounts.items()):
            self._refill(account, now)
            if not account.running and account == self._fresh(now):
                del self._accounts[caller]
        if len(self._accounts) >= MAX_CALLERS:
            raise Refused("too many callers", hint="try again in a minute", code="RATE")
