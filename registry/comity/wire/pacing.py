"""Waiting where a node limits the rate of calls: such a refusal is no failure, it says when to ask again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from comity.trust.errors import ComityError, Refused

T = TypeVar("T")
PAUSE: Final = 0.5
"""Seconds to wait where the node does not say how long: one of an older version."""
PATIENCE: Final = 120.0
"""Seconds that one question may wait in all."""
_BUSY: Final = frozenset({"RATE", "TOO-MANY-CALLS"})


def pause_of(error: ComityError) -> float | None:
    """Seconds to wait before the same call is made again, if a node refused it only because there are too many; else
    None."""
    if not isinstance(error, Refused) or error.code not in _BUSY:
        return None
    return error.retry_after or PAUSE


async def patiently(call: Callable[[], Awaitable[T]], patience: float = PATIENCE) -> T:
    """Make a call, again after a pause while the node limits the rate of calls.

    Args:
        patience: seconds to wait in all. A node that names a longer time has failed: raises its refusal.
    """
    while True:
        try:
            return await call()
        except Refused as error:
            pause = pause_of(error)
            if pause is None or pause > patience:
                raise
            patience -= pause
            await asyncio.sleep(pause)
