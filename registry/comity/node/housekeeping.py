"""Housekeeping: removes what was abandoned, counts the blobs of the store, and sets gauges.

The blobs of the store are listed in small steps, for two purposes: how many there are, and which piece records have
none. A pass goes through the store once, in the order of digests, and goes on in the next step where it stopped: a
start of a node with millions of blobs waits for no listing, and spends no more than a share of the time on it. The
counts of the last complete pass are those that a node shows; a pass that takes no time is made again when it is asked.

The records of a blob that was missing at every pass of one day are removed: the blob may come back, and a disk that was
unmounted for an hour must not cause rehashing of all its files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Final

from comity.content.blobs import BlobStore, lock_if_free
from comity.content.heap import return_freed
from comity.ledger.piece_records import PieceRecordTable
from comity.node.context import NodeContext
from comity.node.importing.importer import remove_stale as remove_stale_imports
from comity.node.own_log import cosigned_times
from comity.node.replication.on_demand import remove_abandoned
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import Clock
from comity.node.uploads import Uploads
from comity.rules.cosigned_times import corroborated_time
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.trust.tlog.note import VerifierKey
from comity.wire.node_status import ScrubStatus, StoreStatus

STEP_SECONDS: Final = 0.1
"""Seconds of one step of the listing."""
CHEAP_SECONDS: Final = 0.05
"""A pass that took less is made again by who asks for the counts."""
BLOBS_AT_A_TIME: Final = 1_000
"""Blobs between two looks at the clock."""
RECORD_RETENTION: Final = 86_400.0
"""Seconds that the piece records of a missing blob are kept."""
FORGOTTEN_AT_A_TIME: Final = 200
"""Blobs whose records are removed after one pass: each costs a commit, and who asks for the counts waits for it."""


@frozen
class StoreCount:
    """Blobs of the store and their bytes, at a complete pass."""

    blobs: int
    bytes: int


@dataclass(slots=True)
class _Pass:
    """A pass that is not complete."""

    steps: Iterator[None]
    blobs: int = 0
    bytes: int = 0
    seconds: float = 0.0
    missing: list[Digest] = field(default_factory=list)


class StoreListing:
    """Passes over `store`. Blocking; thread-safe."""

    def __init__(
        self,
        store: BlobStore,
        pieces: PieceRecordTable,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._pieces = pieces
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._running: _Pass | None = None
        self._count: StoreCount | None = None
        self._seconds = 0.0
        self._missing_since: dict[Digest, float] = {}

    @property
    def counted(self) -> StoreCount | None:
        """The counts of the last complete pass; None before the first."""
        return self._count

    def step(self, seconds: float = STEP_SECONDS) -> None:
        """Go on with a pass for about `seconds`, or begin one. Raises Unavailable."""
        with self._lock:
            self._go_on(seconds)

    def count(self) -> StoreCount:
        """The counts: of now if a pass takes no time, or if there was none; else of the last pass. Raises
        Unavailable."""
        with self._lock:
            if self._count is None or self._seconds < CHEAP_SECONDS:
                self._running = None
                self._go_on(float("inf"))
            assert self._count is not None
            return self._count

    def status(self, scrub: ScrubStatus) -> StoreStatus:
        """The status of the store, with that of its scrub. Raises as `count`."""
        count = self.count()
        return StoreStatus(count.blobs, count.bytes, self._store.free_bytes(), self._store.quarantined(), scrub)

    def _go_on(self, seconds: float) -> None:
        running = self._running
        if running is None:
            running = self._running = _Pass(iter(()))
            running.steps = self._list(running)
        begun = self._monotonic()
        try:
            for _ in running.steps:
                if self._monotonic() - begun >= seconds:
                    running.seconds += self._monotonic() - begun
                    return
        except BaseException:
            self._running = None  # the listing ended early: the next step begins another one
            raise
        self._seconds = running.seconds + self._monotonic() - begun
        self._running, self._count = None, StoreCount(running.blobs, running.bytes)
        self.forget_records(running.missing)

    def _list(self, running: _Pass) -> Iterator[None]:
        recorded = self._pieces.ordered_blobs()
        blob = next(recorded, None)
        for digest, size in self._store.sizes():
            running.blobs, running.bytes = running.blobs + 1, running.bytes + size
            while blob is not None and blob < digest:
                running.missing.append(blob)
                blob = next(recorded, None)
            if blob == digest:
                blob = next(recorded, None)
            if running.blobs % BLOBS_AT_A_TIME == 0:
                yield
        if blob is not None:
            running.missing += (blob, *recorded)

    def forget_records(self, missing: Iterable[Digest]) -> None:
        """Remove the piece records of blobs that were missing at every pass of one day.

        A writer of a blob holds its lock from before its records are stored until the blob is stored.
        """
        now = self._clock()
        self._missing_since = {blob: self._missing_since.get(blob, now) for blob in missing}
        locks = self._store.partial_path(sha256(b"")).parent
        gone = (blob for blob, since in self._missing_since.items() if now - since >= RECORD_RETENTION)
        for blob in list(islice(gone, FORGOTTEN_AT_A_TIME)):
            with lock_if_free(locks, blob) as free:
                if free and not self._store.has(blob):
                    self._pieces.delete_records(blob)


TIMING: Final = LoopTiming(interval=300.0, deadline=1800.0)
MEMORY_TIMING: Final = LoopTiming(interval=10.0, deadline=60.0)
LOG_SIZES_TIMING: Final = LoopTiming(interval=5.0, deadline=60.0)
STORE_SIZE_TIMING: Final = LoopTiming(interval=5.0, deadline=1800.0)
STALE_SECONDS: Final = 7 * 86_400.0
"""Seconds after which an upload or import that was not continued is removed."""
PARTIAL_SECONDS: Final = 30 * 86_400.0
"""Seconds after which a file that was fetched in part from peers is removed: they may be away for weeks."""


class Housekeeping:
    """Removes what was abandoned, and measures the store and the logs."""

    def __init__(self, context: NodeContext, uploads: Uploads, listing: StoreListing) -> None:
        self._ledger = context.ledger
        self._store = context.store
        self._pools = context.pools
        self._metrics = context.metrics
        self._clock = context.clock
        self._membership = context.membership
        self._uploads = uploads
        self._listing = listing
        self._cosigned_at: int | None = None

    def begin(self, supervisor: Supervisor) -> None:
        supervisor.loop("housekeeping", self._step, TIMING)
        supervisor.loop("memory", self._return_memory, MEMORY_TIMING)
        supervisor.loop("log sizes", self._measure_logs, LOG_SIZES_TIMING)
        supervisor.loop("store size", self.measure_store, STORE_SIZE_TIMING)

    async def measure_store(self) -> None:
        """List the next blobs, and set the gauge of the store's bytes."""
        await self._pools.files(self._listing.step)
        if (count := self._listing.counted) is not None:
            self._metrics.store_bytes.set(count.bytes)

    async def _measure_logs(self) -> None:
        logs = await self._ledger.read(self._ledger.tables.logs.all)
        self._metrics.set_log_sizes({self._membership.log_title(log.vkey): log.size for log in logs})
        times = await self._ledger.run(cosigned_times, self._ledger.tables, self._membership, self._own_log)
        cosigned = corroborated_time(times.values(), self._clock())
        if cosigned is not None and self._cosigned_at is None:
            self._metrics.checkpoint_age.set_function(self.checkpoint_age)
        self._cosigned_at = cosigned or self._cosigned_at

    async def _return_memory(self) -> None:
        """Large requests leave free memory in the heaps, which would stay when their senders are gone."""
        await self._pools.files(return_freed)

    async def _step(self) -> None:
        """Remove each kind of what was abandoned, also where another kind cannot be removed; make a checkpoint."""
        now, failure = time.time(), None  # file times use the system clock, not the node's clock
        for work in (
            self._store.sweep,
            partial(self._uploads.remove_stale, now - STALE_SECONDS),
            partial(remove_stale_imports, self._store, now - STALE_SECONDS),
            partial(remove_abandoned, self._store, now - PARTIAL_SECONDS),
            self._ledger.tables.checkpoint,  # a young node commits too little for the checkpoints of the ledger itself
        ):
            try:
                await self._pools.files(work)
            except ComityError as error:
                failure = error
        if failure is not None:
            raise failure

    @property
    def _own_log(self) -> VerifierKey:
        return self._membership.own_node.record.log

    def checkpoint_age(self) -> float:
        """Seconds, when a metric is read: 0 before the first cosignature."""
        return self._clock() - self._cosigned_at if self._cosigned_at else 0.0
