"""Places for requests that hold memory while their client takes its time: bodies of files, and uploads.

When all are taken, a request waits for one. The address block that holds the most of them gives one up to requests
from elsewhere: its connection is cut, and a client that is served in good faith goes on where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from starlette.types import Scope

from comity.trust.errors import Unavailable
from comity.wire.address import address_block
from comity.wire.fair_shares import FairShares

WAIT: Final = 8.0
"""Seconds that a request waits for a place: stock clients wait for ten."""
AGAIN: Final = 1.0
"""Seconds after which a request that waits tries again."""
CUT: Final = "comity.cut"
"""Member of an ASGI scope: a function that ends its connection at once."""


class Places:
    """At most `places` holders. Call from one event loop.

    Args:
        what: the holders in the plural, for the error: `uploads`.
        wait: seconds that a request waits.
    """

    def __init__(self, places: int, what: str, *, wait: float = WAIT) -> None:
        self._shares: FairShares[object] = FairShares(places, time.monotonic)
        self._cuts: dict[object, Callable[[], None]] = {}
        self._what = what
        self._wait = wait
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def taken(self, scope: Scope) -> AsyncIterator[Callable[[], None]]:
        """Hold a place for the request of `scope`; gives the function to call whenever the client made progress.

        Raises Unavailable (NODE-BUSY) where none came free in time.
        """
        item = object()
        await self._take(item, address_block(str((scope.get("client") or ("",))[0])))
        self._cuts[item] = scope.get(CUT, lambda: None)
        try:
            yield lambda: self._shares.progress(item)
        finally:
            del self._cuts[item]
            self._shares.give_back(item)
            self._free()

    async def _take(self, item: object, block: str) -> None:
        try:
            async with asyncio.timeout(self._wait):
                while (out := self._shares.take(item, block)) is item:
                    with suppress(TimeoutError):  # a holder that stalls gives way though no place comes free
                        async with asyncio.timeout(AGAIN):
                            await self._freed.wait()
        except TimeoutError as error:
            why = f"it has as many {self._what} at once as it has room for"
            hint = "try again in a few seconds"
            raise Unavailable("this node is busy", why=why, hint=hint, code="NODE-BUSY") from error
        if out is not None:
            self._cuts[out]()

    def _free(self) -> None:
        """Wake all who wait: they try again, in the order in which they came."""
        self._freed.set()
        self._freed = asyncio.Event()
