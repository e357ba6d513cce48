"""What has to be done now and then: leftovers removed, gauges read."""

from __future__ import annotations

import time
from collections.abc import Container
from typing import Final

from comity.content.blob_lock import lock_if_free
from comity.ledger.ledger import Ledger
from comity.node.core import Core
from comity.node.importing.workplace import forget as forget_imports
from comity.node.publishing.arrivals import Arrivals
from comity.node.tasks import Rhythm, Supervisor
from comity.trust.digest import Digest, sha256
from comity.trust.errors import NotFound
from comity.trust.tlog.note import VerifierKey

RHYTHM: Final = Rhythm(every=300.0, deadline=1800.0)
STALE_UPLOAD: Final = 7 * 86_400.0
"""Seconds after which an upload, or an import, that nobody went on with is removed."""
GONE: Final = 86_400.0
"""Seconds for which a blob was not here until its piece records go as well. They are worth having when it comes back,
and a disk that was not mounted for an hour must not cost hashing all that is on it."""


class Housekeeping:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._gone: dict[Digest, float] = {}

    def begin(self, supervisor: Supervisor) -> None:
        supervisor.loop("housekeeping", self._step, RHYTHM)

    async def _step(self) -> None:
        await self._core.pools.files(self._core.store.sweep)
        # File times are the system's own, whatever clock the node was given.
        await self._core.pools.files(Arrivals(self._core).forget, time.time() - STALE_UPLOAD)
        await self._core.pools.files(forget_imports, self._core.store, time.time() - STALE_UPLOAD)
        blobs = await self._core.pools.files(lambda: dict(self._core.store.sizes()))
        self._core.metrics.store_bytes.set(sum(blobs.values()))
        await self._core.pools.files(self.forget_records, blobs)
        newest = await self._core.pools.ledger(newest_cosignature, self._core.ledger, self._core.seat.record.log)
        if newest is not None:
            self._core.metrics.checkpoint_age.set(self._core.clock() - newest)

    def forget_records(self, here: Container[Digest]) -> None:
        """Drop the piece records of blobs that are not here, and were not at any look of a day. Blocking.

        Whoever brings a blob in holds its lock from before its records are kept until it is here.
        """
        core, now = self._core, self._core.clock()
        missing = (blob for blob in core.ledger.pieces.blobs() if blob not in here)
        self._gone = {blob: self._gone.get(blob, now) for blob in missing}
        locks = core.store.scratch(sha256(b"")).parent
        for blob in [blob for blob, since in self._gone.items() if now - since >= GONE]:
            with lock_if_free(locks, blob) as free:
                if free and not core.store.has(blob):
                    core.ledger.pieces.forget(blob)


def newest_cosignature(ledger: Ledger, log: VerifierKey) -> int | None:
    """When the newest checkpoint of a log was last cosigned, by its cosigners' own clocks. Blocking."""
    try:
        note = ledger.cosignatures.cosigned(str(log))
    except NotFound:
        return None
    times = [int.from_bytes(line.signature[:8], "big") for line in note.signatures if line.name != log.name]
    return max(times, default=None)
