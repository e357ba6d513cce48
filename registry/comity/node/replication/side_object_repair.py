"""Side objects, looked after. No entry counts before the bodies that it names are here, but a ledger restored from a
backup may stand beside a store that lacks them. So every entry is looked at once, all of them again where the ledger is
a copy or a blob was lost, and what is missing is fetched from whichever peer has it, for as long as it takes. How far
that came is kept in the ledger while nothing is missing: a start looks at what is new."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

import structlog

from comity.ledger.ledger import Ledger
from comity.node.context import NodeContext
from comity.node.replication.files import FileFetcher
from comity.node.replication.mirror import statement_of
from comity.node.replication.side_objects import absent
from comity.node.supervisor import Rhythm, Supervisor
from comity.trust.errors import ComityError, Unavailable
from comity.trust.statement import SideObject

WINDOW: Final = 256
"""Entries looked at in one go."""
MAX_MISSING: Final = 100_000
"""Objects looked for at a time; until some are found, no further entries are looked at."""
DEADLINE: Final = 7 * 86_400.0

_log: Final = structlog.get_logger("comity.node")


class SideObjectRepair:
    """Knows which side objects of logged entries are missing here. Touched by the event loop only."""

    def __init__(self, core: NodeContext, files: FileFetcher) -> None:
        self._core = core
        self._files = files
        self._looked_at: dict[str, int] = {}
        self._kept: dict[str, int] = {}
        self.missing: dict[SideObject, None] = {}

    async def begin(self, supervisor: Supervisor, *, anew: bool) -> None:
        """`anew`: the ledger is a copy, and may be older or newer than the store."""
        self._kept = await self._core.pools.ledger(self._core.ledger.custody.positions)
        if not anew:
            self._looked_at = dict(self._kept)
        rhythm = Rhythm(max(1.0, self._core.config.replication.interval_seconds), DEADLINE)
        supervisor.loop("side objects", self._step, rhythm)

    def look_again(self, supervisor: Supervisor) -> None:
        """Something that was here is not: go through every entry once more."""
        self._looked_at.clear()
        supervisor.ring("side objects")

    async def _step(self) -> None:
        if not self._looked_at:
            await self._keep()
        await self._look()
        failure = ""
        for item in list(self.missing):
            try:
                await self._files.require_objects((item,))
            except (ComityError, TimeoutError) as error:
                failure = str(error)
                continue
            del self.missing[item]
            _log.info("side object fetched", object=item.digest, size=item.size)
        if self.missing:
            raise Unavailable(f"{len(self.missing)} side objects of logged entries are missing here", why=failure)

        await self._keep()

    async def _keep(self) -> None:
        """Up to where nothing is missing stands in the ledger."""
        if self._looked_at != self._kept:
            kept = dict(self._looked_at)
            await self._core.pools.ledger(self._core.ledger.custody.keep, kept)
            self._kept = kept

    async def _look(self) -> None:
        for log in await self._core.pools.ledger(self._core.ledger.logs.all):
            at = self._looked_at.get(log.vkey, 0)
            while at < log.size and len(self.missing) < MAX_MISSING:
                end = min(at + WINDOW, log.size)
                named = await self._core.pools.ledger(_named, self._core.ledger, log.vkey, at, end)
                self.missing |= dict.fromkeys(await self._core.pools.files(absent, self._core.store, named))
                self._looked_at[log.vkey] = at = end
                await asyncio.sleep(0)


def _named(ledger: Ledger, log: str, start: int, end: int) -> list[SideObject]:
    """Blocking. What the entries of a stretch name, each object once."""

    def objects() -> Iterator[SideObject]:
        for line in ledger.history.entries(log, start, end):
            statement = statement_of(line)
            yield from statement.objects if statement else ()

    return list(dict.fromkeys(objects()))
