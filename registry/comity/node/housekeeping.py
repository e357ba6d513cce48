"""What has to be done now and then: leftovers removed, gauges read."""

from __future__ import annotations

import time
from typing import Final

from comity.ledger.ledger import Ledger
from comity.node.core import Core
from comity.node.importing.workplace import forget as forget_imports
from comity.node.publishing.arrivals import Arrivals
from comity.node.tasks import Rhythm, Supervisor
from comity.trust.errors import NotFound
from comity.trust.tlog.note import VerifierKey

RHYTHM: Final = Rhythm(every=300.0, deadline=1800.0)
STALE_UPLOAD: Final = 7 * 86_400.0
"""Seconds after which an upload, or an import, that nobody went on with is removed."""


class Housekeeping:
    def __init__(self, core: Core) -> None:
        self._core = core

    def begin(self, supervisor: Supervisor) -> None:
        supervisor.loop("housekeeping", self._step, RHYTHM)

    async def _step(self) -> None:
        await self._core.pools.files(self._core.store.sweep)
        # File times are the system's own, whatever clock the node was given.
        await self._core.pools.files(Arrivals(self._core).forget, time.time() - STALE_UPLOAD)
        await self._core.pools.files(forget_imports, self._core.store, time.time() - STALE_UPLOAD)
        self._core.metrics.store_bytes.set(await self._core.pools.files(self._stored))
        newest = await self._core.pools.ledger(newest_cosignature, self._core.ledger, self._core.seat.record.log)
        if newest is not None:
            self._core.metrics.checkpoint_age.set(self._core.clock() - newest)

    def _stored(self) -> int:
        return sum(size for _, size in self._core.store.sizes())


def newest_cosignature(ledger: Ledger, log: VerifierKey) -> int | None:
    """When the newest checkpoint of a log was last cosigned, by its cosigners' own clocks. Blocking."""
    try:
        note = ledger.cosignatures.cosigned(str(log))
    except NotFound:
        return None
    times = [int.from_bytes(line.signature[:8], "big") for line in note.signatures if line.name != log.name]
    return max(times, default=None)
