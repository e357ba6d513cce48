"""Finds and fetches missing side objects of logged entries.

An entry counts only when its side objects are stored, but after a restore the ledger may be newer than the blob store.
So every entry is checked once, and all again if the ledger is a copy or a blob was lost; missing objects are fetched
from any peer until found, one of each log in turn: a log whose objects nobody shows delays no other's. The position is
saved in the ledger while nothing is missing: a restart checks only new entries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import zip_longest
from typing import Final

import structlog

from comity.content.blobs import BlobStore
from comity.ledger.ledger import Ledger
from comity.node.replication.side_objects import missing_side_objects
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Pools
from comity.trust.errors import ComityError, Unavailable
from comity.trust.statement import SideObject

WINDOW: Final = 256
"""Entries checked at a time."""
MAX_MISSING: Final = 10_000
"""Missing objects of one log tracked at a time; its further entries are checked only after some were found."""
DEADLINE: Final = 7 * 86_400.0

_log: Final = structlog.get_logger("comity.node")


RequireObjects = Callable[[Sequence[SideObject]], Awaitable[None]]
"""Fetches missing side objects. Raises what `FileFetcher.require_objects` raises."""


class SideObjectRepair:
    """Tracks the missing side objects of logged entries. Not thread-safe: call from the event loop."""

    def __init__(
        self, ledger: AsyncLedger, store: BlobStore, pools: Pools, interval: float, require_objects: RequireObjects
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._interval = interval
        self._require_objects = require_objects
        self._checked: dict[str, int] = {}
        self._saved: dict[str, int] = {}
        self._missing: dict[str, dict[SideObject, None]] = {}
        """By log."""

    @property
    def missing(self) -> frozenset[SideObject]:
        return frozenset(item for items in self._missing.values() for item in items)

    @property
    def most_missing(self) -> int:
        """The most objects that are missing of one log, at most `MAX_MISSING`."""
        return max(map(len, self._missing.values()), default=0)

    async def begin(self, supervisor: Supervisor, *, recheck: bool) -> None:
        """Start the loop. With `recheck`, check all entries: the ledger is a copy and may be older or newer than the
        store."""
        self._saved = await self._ledger.run(self._ledger.tables.side_object_positions.positions)
        if not recheck:
            self._checked = dict(self._saved)
        timing = LoopTiming(max(1.0, self._interval), DEADLINE)
        supervisor.loop("side objects", self._step, timing)

    def recheck_all(self, supervisor: Supervisor) -> None:
        """A stored object was lost: check every entry again."""
        self._checked.clear()
        supervisor.wake("side objects")

    async def _step(self) -> None:
        if not self._checked:
            await self._save()
        await self._check()
        failure = ""
        for items, item in self._in_turn():
            try:
                await self._require_objects((item,))
            except (ComityError, TimeoutError) as error:
                failure = str(error)
                continue
            del items[item]
            _log.info("side object fetched", object=item.digest, size=item.size)
        if self.missing:
            raise Unavailable(f"{len(self.missing)} side objects of logged entries are missing", why=failure)
        await self._save()

    def _in_turn(self) -> list[tuple[dict[SideObject, None], SideObject]]:
        """The missing objects, one of each log in turn, each with those of its log."""
        columns = ([(items, item) for item in items] for items in self._missing.values())
        return [each for row in zip_longest(*columns) for each in row if each is not None]

    async def _save(self) -> None:
        """Save the position up to which nothing is missing."""
        if self._checked != self._saved:
            saved = dict(self._checked)
            await self._ledger.run(self._ledger.tables.side_object_positions.replace, saved)
            self._saved = saved

    async def _check(self) -> None:
        for log in await self._ledger.read(self._ledger.tables.logs.all):
            at, missing = self._checked.get(log.vkey, 0), self._missing.setdefault(log.vkey, {})
            while at < log.size and len(missing) < MAX_MISSING:
                end = min(at + WINDOW, log.size)
                named = await self._ledger.run(_named, self._ledger.tables, log.vkey, at, end)
                missing |= dict.fromkeys(await self._pools.files(missing_side_objects, self._store, named))
                self._checked[log.vkey] = at = end
                await asyncio.sleep(0)


def _named(ledger: Ledger, log: str, start: int, end: int) -> list[SideObject]:
    """The side objects that a range of entries names, and no entry before it. Blocking."""
    return ledger.side_object_positions.first_named(log, start, end)
