"""Whether this node can serve: `/readyz` of the gateway and of the metrics listener.

A node is ready when it has started, and its ledger and its blob store answer within `SECONDS`. A node that signs
nothing, or that no peer answers, serves what it has and is ready; the status and the metrics tell these. The result is
kept for `FRESH` seconds, so that nobody makes the node work by asking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from typing import Final

from comity.content.blobs import BlobStore
from comity.node.threads import AsyncLedger, Pools
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError

SECONDS: Final = 2.0
"""Seconds for which one check is waited for."""
FRESH: Final = 1.0
FROM_THREAD: Final = 3 * SECONDS
_EMPTY: Final = sha256(b"")


@dataclass(frozen=True, slots=True)
class ReadinessChecks:
    """What was checked, and whether it held."""

    started: bool
    ledger: bool
    store: bool
    front_end: Mapping[str, object] | None = None
    """How old is what a front end shows; None in the process that writes."""

    @property
    def ready(self) -> bool:
        return self.started and self.ledger and self.store

    def document(self) -> dict[str, object]:
        checks = {"started": self.started, "ledger": self.ledger, "store": self.store}
        found: dict[str, object] = {"status": "ready" if self.ready else "not ready", "checks": checks}
        return found if self.front_end is None else {**found, "front_end": self.front_end}


NOT_STARTED: Final = ReadinessChecks(started=False, ledger=False, store=False)


class Readiness:
    """Make it on the event loop of the node. Not thread-safe, but for `from_thread`. `front_end` returns how old is
    what a front end shows."""

    def __init__(
        self,
        ledger: AsyncLedger,
        store: BlobStore,
        pools: Pools,
        front_end: Callable[[], Mapping[str, object] | None] = lambda: None,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._front_end = front_end
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._kept: tuple[float, ReadinessChecks] | None = None
        self.started = False
        """Set when the node has opened its listeners and begun its loops."""

    async def check(self) -> ReadinessChecks:
        async with self._lock:
            now = self._loop.time()
            if self._kept is None or now - self._kept[0] > FRESH:
                ledger, store = await asyncio.gather(self._ledger_answers(), self._store_answers())
                self._kept = self._loop.time(), ReadinessChecks(self.started, ledger, store, self._front_end())
            return self._kept[1]

    def from_thread(self) -> ReadinessChecks:
        """As `check`, from another thread. A node whose event loop does not answer is not ready."""
        asked = asyncio.run_coroutine_threadsafe(self.check(), self._loop)
        try:
            return asked.result(FROM_THREAD)
        except (Late, RuntimeError):
            asked.cancel()
            return NOT_STARTED

    async def _ledger_answers(self) -> bool:
        return await _answers(lambda: self._ledger.run(self._ledger.tables.logs.keys))

    async def _store_answers(self) -> bool:
        return await _answers(lambda: self._pools.files(lambda: (self._store.free_bytes(), self._store.has(_EMPTY))))


async def _answers(ask: Callable[[], Awaitable[object]]) -> bool:
    try:
        async with asyncio.timeout(SECONDS):
            await ask()
    except (ComityError, TimeoutError, OSError, RuntimeError):
        return False
    return True
