"""The whole store, read again slowly: what rots on a disk is found before somebody needs it.

In rounds, blob after blob in the order of their digests, at the pace that the operator has set and one a day at most.
Where a round is, and when the last whole one began, is kept in a small file: a restart goes on from there. Damaged
blobs are put aside, and replication looks for them anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from comity.content import durable
from comity.content.blobs import CHUNK, FolderStore
from comity.node.context import NodeContext
from comity.node.supervisor import Rhythm, Supervisor
from comity.trust.encoding import Digest, short
from comity.trust.errors import NotFound, Unavailable

EVERY: Final = 10.0
"""Seconds between two steps; each reads what may be read in that time."""
ROUND: Final = 86_400.0
"""Seconds from the beginning of one round to that of the next, at least."""
RHYTHM: Final = Rhythm(every=EVERY, deadline=1800.0)

_log: Final = structlog.get_logger("comity.node.scrub")


@dataclass(frozen=True, slots=True)
class ScrubProgress:
    """How far it is, in POSIX seconds of the node's clock.

    Attributes:
        begun: when this round began.
        over: whether it is over, and the next one waits for its time.
        after: the last blob that was read in it; empty for none.
        whole: when the last whole round began: every blob that is older was read again since. None before the first.
    """

    begun: float
    over: bool = False
    after: str = ""
    whole: float | None = None

    @classmethod
    def load(cls, file: Path, now: float) -> ScrubProgress:
        """As it was kept; from the beginning where nothing usable was."""
        try:
            kept = json.loads(file.read_bytes())
            whole = None if kept["whole"] is None else float(kept["whole"])
            return cls(float(kept["begun"]), bool(kept["over"]), str(kept["after"]), whole)
        except (OSError, ValueError, KeyError, TypeError):
            return cls(now)

    def save(self, file: Path) -> None:
        """Raises OutOfSpace, Unavailable."""
        durable.write_file(file, json.dumps(asdict(self)).encode(), point="scrub")


class Scrub:
    """Reads the store of `core` again. `damaged` is told, on the event loop, that a blob was put aside."""

    def __init__(self, core: NodeContext, damaged: Callable[[], None]) -> None:
        self._core = core
        self._damaged = damaged
        self._file = core.config.storage.ledger.with_name("scrub.json")
        self._progress = ScrubProgress.load(self._file, core.clock())
        self._todo: deque[Digest] | None = None
        self._reading: Iterator[int] | None = None
        self._put_aside = 0

    def begin(self, supervisor: Supervisor) -> None:
        if self._core.config.storage.scrub_bytes_per_second:
            supervisor.loop("scrub", self._step, RHYTHM)

    async def _step(self) -> None:
        before = self._put_aside
        await self._core.pools.hashing(self.read, int(EVERY * self._core.config.storage.scrub_bytes_per_second))
        if self._put_aside > before:
            self._damaged()
        since = self._progress.begun if self._progress.whole is None else self._progress.whole
        self._core.metrics.scrub_age.set(self._core.clock() - since)

    def read(self, budget: int) -> None:
        """Go on for about `budget` bytes, or to the end of a round. Blocking. Raises Unavailable, OutOfSpace."""
        before = self._progress
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
        """Begin with the next blob; None where there is none to read now."""
        progress = self._progress
        if progress.over:
            if self._core.clock() - progress.begun < ROUND:
                return None
            self._progress = progress = ScrubProgress(self._core.clock(), whole=progress.whole)
        if self._todo is None:
            digests = sorted(digest for digest, _ in self._core.store.sizes())
            self._todo = deque(digest for digest in digests if digest > progress.after)
        if self._todo:
            return self._reread(self._todo.popleft())
        self._progress, self._todo = ScrubProgress(progress.begun, over=True, whole=progress.begun), None
        return None

    def _reread(self, digest: Digest) -> Iterator[int]:
        """Read one blob, giving the number of bytes of each part; at its end, judge it."""
        hasher = hashlib.sha256()
        try:
            _forget_cached(self._core, digest)
            for data in self._core.store.iterate(digest, 0, self._core.store.size(digest), CHUNK):
                hasher.update(data)
                yield len(data)
            if hasher.hexdigest() != digest:
                self._condemn(digest, f"its bytes hash to {short(Digest(hasher.hexdigest()))}")
        except NotFound:
            pass  # removed, or put aside, meanwhile
        except Unavailable as error:
            self._core.metrics.verify_failures.labels("unreadable").inc()
            _log.error("a blob cannot be read", blob=digest, why=str(error))
        self._progress = replace(self._progress, after=digest)

    def _condemn(self, digest: Digest, why: str) -> None:
        self._core.store.quarantine(digest, why)
        self._core.metrics.verify_failures.labels("blob").inc()
        self._put_aside += 1
        _log.error("a blob is damaged and was put aside", blob=digest, why=why)


def _forget_cached(core: NodeContext, digest: Digest) -> None:
    """Have the bytes come from the disk: what memory still holds of a file says nothing about the file."""
    if isinstance(core.store, FolderStore):
        with contextlib.suppress(OSError):
            descriptor = os.open(core.store.path(digest), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
