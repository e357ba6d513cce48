"""Rereads the whole store slowly and verifies each blob's SHA-256, so that disk damage is found early.

A pass reads the blobs in order of their digests, at the configured rate and in the configured hours of the day, at most
one pass a day. The position and the start of the last complete pass are in a small file, so that a restart continues.
Damaged blobs are quarantined, and replication fetches them again. The same pass gives the chained records of blobs that
have none yet.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from comity.content import durable
from comity.content.blobs import CHUNK, BlobStore, FolderStore
from comity.hashing import FileHash
from comity.node.metrics import Metrics
from comity.node.settings import Storage, within_hours
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import Clock, Pools
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, NotFound, Unavailable
from comity.wire.node_status import ScrubStatus

STEP_SECONDS: Final = 10.0
"""Seconds between two steps; each step reads as many bytes as the rate allows in this time."""
PASS_SECONDS: Final = 86_400.0
"""Minimum seconds between the starts of two passes."""
TIMING: Final = LoopTiming(interval=STEP_SECONDS, deadline=1800.0)

_log: Final = structlog.get_logger("comity.node.scrub")


@dataclass(frozen=True, slots=True)
class ScrubProgress:
    """The position of the scrub. Times are POSIX seconds of the node's clock.

    Attributes:
        begun: when this pass began.
        over: whether this pass is complete and the next one is not due.
        after: the last blob read in this pass; empty for none.
        whole: when the last complete pass began: every older blob was read since. None before the first.
    """

    begun: float
    over: bool = False
    after: str = ""
    whole: float | None = None

    @classmethod
    def load(cls, file: Path, now: float) -> ScrubProgress:
        """The saved progress; a new pass if there is none or it is unusable."""
        try:
            kept = json.loads(file.read_bytes())
            whole = None if kept["whole"] is None else float(kept["whole"])
            after = str(kept["after"])
            int(after or "0", 16)  # a digest
            return cls(float(kept["begun"]), bool(kept["over"]), after, whole)
        except (OSError, ValueError, KeyError, TypeError):
            return cls(now)

    def known_at(self, now: float) -> ScrubProgress:
        """Without times that are still to come: they are of a clock that was ahead, and nobody knows when that was."""
        whole = None if self.whole is None or self.whole > now else self.whole
        return replace(self, begun=min(self.begun, now), whole=whole)

    @property
    def per_mille(self) -> int:
        """How much of this pass is done. Digests are spread evenly, so the last one read says it."""
        return 1000 if self.over else int(self.after[:8] or "0", 16) * 1000 >> 32

    def save(self, file: Path) -> None:
        """Raises OutOfSpace, Unavailable."""
        durable.write_file(file, json.dumps(asdict(self)).encode(), point="scrub")


class Scrub:
    """Rereads `store`, and keeps its position beside the ledger.

    Args:
        on_damaged: called on the event loop after a blob was quarantined.
        on_intact: called in a thread with a right blob of several pieces, its size, and its states for chained records.
    """

    def __init__(
        self,
        settings: Storage,
        store: BlobStore,
        pools: Pools,
        clock: Clock,
        metrics: Metrics,
        on_damaged: Callable[[], None],
        on_intact: Callable[[Digest, int, Sequence[bytes]], None] = lambda digest, size, states: None,
    ) -> None:
        self._rate = settings.scrub_bytes_per_second
        self._hours = settings.scrub_hours
        self._store = store
        self._pools = pools
        self._clock = clock
        self._metrics = metrics
        self._on_damaged = on_damaged
        self._on_intact = on_intact
        self._file = settings.ledger.with_name("scrub.json")
        self._progress = ScrubProgress.load(self._file, clock())
        self._remaining: Iterator[Digest] | None = None
        self._reading: Iterator[int] | None = None
        self._quarantined = 0

    def begin(self, supervisor: Supervisor) -> None:
        if self._rate:
            self._metrics.scrub_age.set_function(self.age)
            supervisor.loop("scrub", self._step, TIMING)

    def status(self) -> ScrubStatus:
        """What was read again, for the operator."""
        progress = self._progress.known_at(self._clock())
        whole = None if progress.whole is None else int(progress.whole)
        return ScrubStatus(self._rate, self._hours, int(progress.begun), progress.per_mille, whole)

    async def _step(self) -> None:
        if within_hours(self._hours, self._clock()):
            before = self._quarantined
            await self._pools.whole_files(self.read, int(STEP_SECONDS * self._rate))
            if self._quarantined > before:
                self._on_damaged()

    def age(self) -> float:
        """Seconds since the last complete pass began; before the first one, since this pass began."""
        now = self._clock()
        progress = self._progress.known_at(now)
        return now - (progress.begun if progress.whole is None else progress.whole)

    def read(self, budget: int) -> None:
        """Read about `budget` bytes, or to the end of a pass. Blocking. Raises Unavailable, OutOfSpace."""
        before = self._progress
        self._progress = before.known_at(self._clock())
        while budget > 0 and (reading := self._reading or self._open_next()):
            self._reading = reading
            for count in reading:
                budget -= count
                if budget <= 0:
                    break
            else:
                self._reading = None
        if self._progress != before:
            self._progress.save(self._file)

    def _open_next(self) -> Iterator[int] | None:
        """Start the next blob; None if there is nothing to read now."""
        progress = self._progress
        if progress.over:
            if self._clock() - progress.begun < PASS_SECONDS:
                return None
            self._progress = progress = ScrubProgress(self._clock(), whole=progress.whole)
        if self._remaining is None:
            self._remaining = (digest for digest, _ in self._store.sizes(progress.after))
        try:
            following = next(self._remaining, None)
        except ComityError:
            self._remaining = None  # the list ended early: begin it again after the last blob that was read
            raise
        if following is not None:
            return self._reread(following)
        self._progress, self._remaining = ScrubProgress(progress.begun, over=True, whole=progress.begun), None
        return None

    def _reread(self, digest: Digest) -> Iterator[int]:
        """Read one blob and yield the number of bytes of each part; verify the hash at the end."""
        try:
            _drop_page_cache(self._store, digest)
            size = self._store.size(digest)
            hasher = FileHash(size)
            for data in self._store.iterate(digest, 0, size, CHUNK):
                hasher.update(data)
                yield len(data)
            found = Digest(hasher.digest().hex())
            if found != digest:
                self._quarantine(digest, f"its bytes hash to {short(found)}")
            elif hasher.states:
                self._keep_states(digest, size, hasher.states)
        except NotFound:
            pass  # removed or quarantined concurrently
        except Unavailable as error:
            self._metrics.verify_failures.labels("unreadable").inc()
            _log.error("blob cannot be read", blob=digest, why=str(error))
        self._progress = replace(self._progress, after=digest)

    def _keep_states(self, digest: Digest, size: int, states: Sequence[bytes]) -> None:
        try:
            self._on_intact(digest, size, states)
        except ComityError as error:  # only readers become slower
            _log.warning("chained records were not stored", blob=digest, why=str(error))

    def _quarantine(self, digest: Digest, why: str) -> None:
        self._store.quarantine(digest, why)
        self._metrics.verify_failures.labels("blob").inc()
        self._quarantined += 1
        _log.error("blob is damaged and was quarantined", blob=digest, why=why)


def _drop_page_cache(store: BlobStore, digest: Digest) -> None:
    """Drop the file from the page cache, so that its bytes are read from the disk."""
    if isinstance(store, FolderStore):
        with contextlib.suppress(OSError):
            descriptor = os.open(store.path(digest), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
