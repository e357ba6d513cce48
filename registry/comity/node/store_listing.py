"""Lists the blobs of the store in small steps, for two purposes: how many there are, and which piece records have none.

A pass goes through the store once, in the order of digests, and goes on in the next step where it stopped: a start of a
node with millions of blobs waits for no listing, and spends no more than a share of the time on it. The counts of the
last complete pass are those that a node shows; a pass that takes no time is made again when it is asked.

The records of a blob that was missing at every pass of one day are removed: the blob may come back, and a disk that was
unmounted for an hour must not cause rehashing of all its files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from comity.content.blobs import BlobStore, lock_if_free
from comity.ledger.records import PieceRecordTable
from comity.node.threads import Clock
from comity.trust.encoding import Digest, sha256

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


@dataclass(frozen=True, slots=True)
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
