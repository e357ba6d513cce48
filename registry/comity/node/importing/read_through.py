"""Imports that readers start by asking for a repository, and reading of their files while they are fetched.

(1) only repositories in `[upstream] allow`, from the endpoint of `[upstream]`, without token or terms, so that gated
    and private ones are refused, and within `largest_bytes`
(2) a revision is pinned to a commit; the answer, also a failure, is cached for a short time
(3) one import for each commit, for any number of readers; it is an ordinary import: it continues without readers, and
    an interrupted one is continued by the next request
(4) a failure is not retried at once
(5) revisions that are asked for, and repositories that wait, are counted by the address block of the first reader:
    blocks take turns, and above a bound the block with most loses one to a reader in another block

The manifest is known before the bytes: LFS files are listed with their SHA-256, and the small files are fetched first.
Pieces of a file are not signed by anyone; only the SHA-256 of the whole file is known. So a range that stops before the
end waits for the whole file. A range that reaches the end starts at once, and is cut off before its last slice if the
hash does not match. Each slice is read from the disk and sent only if it equals what was received.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import structlog

from comity.node.importing.importer import ImportCounter, Importer
from comity.node.replication.fair_queue import FairSlots
from comity.node.replication.files import SLICE, GrowingFile, changed_error, open_partial
from comity.node.settings import ReadThrough
from comity.node.threads import Pools
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound, Unavailable
from comity.trust.upstream import Observed
from comity.upstream.download import FileObserver, Timeouts
from comity.upstream.guarded import AllowedHosts
from comity.upstream.listed_files import Observation, RepositoryListing, RevisionInfo, UpstreamRequest
from comity.upstream.mirror import MirrorOrder
from comity.wire.access import BLOCK
from comity.wire.throttle import FairShares


class ImportedFile(GrowingFile):
    """`on_data` and `on_discard` are called in the thread that fetches it; everything else as for any `GrowingFile`.

    Args:
        on_lost: called on the event loop when bytes were discarded that a reader may have.
    """

    def __init__(self, path: Path, size: int, loop: asyncio.AbstractEventLoop, on_lost: Callable[[], None]) -> None:
        super().__init__()
        self._path = path
        self._size = size
        self._loop = loop
        self._on_lost = on_lost
        self._whole = False
        self._begin()

    def _begin(self) -> None:
        self._received_bytes, self._hash = 0, hashlib.sha256()
        self._slices: list[bytes] = []

    def on_data(self, data: bytes) -> None:
        known, view = len(self._slices), memoryview(data)
        while view:
            part = view[: SLICE - self._received_bytes % SLICE]
            view = view[len(part) :]
            self._hash.update(part)
            self._received_bytes += len(part)
            if self._received_bytes % SLICE == 0 or self._received_bytes == self._size:
                self._slices.append(self._hash.digest())
                self._hash = hashlib.sha256()
        if len(self._slices) > known:
            self._loop.call_soon_threadsafe(self._notify)

    def on_discard(self) -> None:
        had = self._received_bytes
        self._begin()
        if had:
            self._loop.call_soon_threadsafe(self._on_lost)

    def verified(self) -> None:
        """The whole file has its listed hash."""
        self._whole = True
        self._notify()

    async def read(self, offset: int, length: int, pools: Pools) -> AsyncGenerator[bytes, None]:
        """As for any `GrowingFile`. Also raises Unavailable (BLOB-CHANGED) if earlier bytes were discarded."""
        if offset + length < self._size:
            while not (self._whole or self._over):
                await self._change.wait()
        slices = self._slices
        async with aclosing(super().read(offset, length, pools)) as parts:
            async for part in parts:
                self._require_same(slices)
                yield part
        self._require_same(slices)  # otherwise the store has the end of another file

    def _ready(self, offset: int) -> bool:
        number = offset // SLICE
        return number < len(self._slices) and (self._whole or number < (self._size - 1) // SLICE)

    def _slice(self, offset: int, end: int) -> bytes | None:
        slices, number = self._slices, offset // SLICE
        begin = number * SLICE
        with open_partial(self._path, self._name) as descriptor:
            if descriptor is None:
                return None
            data = os.pread(descriptor, min(SLICE, self._size - begin), begin)
        if number >= len(slices) or hashlib.sha256(data).digest() != slices[number]:
            raise self._changed()
        return data[offset - begin : end - begin]

    def _require_same(self, slices: list[bytes]) -> None:
        if self._slices is not slices:
            raise self._changed()

    @property
    def _name(self) -> str:
        return f"file {self._path.name} of an import"

    def _changed(self) -> Unavailable:
        return changed_error(self._name, "an earlier part")


class ReadThroughImport:
    """Observes an import. Create and read it on the event loop.

    Args:
        on_lost: called with the digest of a file of which a reader may have discarded bytes.

    Attributes:
        manifest: the manifest of the import; None until the files outside LFS are stored.
        over: whether the import has ended, successfully or not.
    """

    def __init__(self, revision_info: RevisionInfo, on_lost: Callable[[Digest], None]) -> None:
        self.revision = revision_info
        self.manifest: Manifest | None = None
        self.over = False
        self._failure: ComityError | None = None
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._known = asyncio.Event()
        self._files: tuple[ImportedFile, ...] = ()
        self._numbers: dict[Digest, int] = {}
        self._entries: list[FileEntry | None] = []
        self._unknown = 0

    @property
    def proven(self) -> bool:
        """Whether the upstream served all that it listed."""
        return self.over and self._failure is None

    async def described(self) -> Manifest | None:
        """The manifest, as soon as it is known; None if everything was stored already. Raises what ended the import."""
        await self._known.wait()
        if self._failure is not None:
            raise self._failure
        return self.manifest

    async def read(self, entry: FileEntry, offset: int, length: int, pools: Pools) -> AsyncGenerator[bytes, None]:
        """A range of one of its files, as `ImportedFile.read` returns it. Raises NotFound (NO-HOLDER) for any other
        file."""
        await self.described()
        number = self._numbers.get(entry.sha256)
        if number is None:
            if self.over and self.manifest is None:
                return
            why = f"{self.revision.upstream.name} has no such file"
            raise NotFound(f"{entry.path[:200]} not found", why=why, code="NO-HOLDER")
        file = self._files[number]
        file.readers += 1
        try:
            async with aclosing(file.read(offset, length, pools)) as parts:
                async for part in parts:
                    yield part
        finally:
            file.readers -= 1

    def finish(self, failure: ComityError | None = None) -> None:
        """All of it is in the store and logged, or will not be."""
        self.over, self._failure = True, None if failure is None else failure.without_traceback()
        for file in self._files:
            file.finish(self._failure)
        self._known.set()

    def on_listing(self, listing: RepositoryListing, paths: Sequence[Path]) -> None:
        """In the import's thread, like all that follows."""
        files = [
            self._new_file(listed.lfs, listed.size, path) for listed, path in zip(listing.files, paths, strict=True)
        ]
        self._files = tuple(files)
        self._entries = [
            FileEntry(listed.path, listed.size, listed.lfs) if listed.lfs else None for listed in listing.files
        ]
        self._unknown = self._entries.count(None)
        if not self._unknown:
            self._describe()

    def awaited(self) -> Collection[int]:
        return [number for number, file in enumerate(self._files) if file.readers]

    def file_observer(self, number: int) -> FileObserver:
        return self._files[number]

    def on_complete(self, number: int, observation: Observation) -> None:
        if self._entries[number] is None:
            self._entries[number] = observation.entry
            self._unknown -= 1
            if not self._unknown:
                self._describe()
        self._loop.call_soon_threadsafe(self._files[number].verified)

    def _new_file(self, lfs: Digest | None, size: int, path: Path) -> ImportedFile:
        def discarded() -> None:
            if lfs is not None:  # bytes without a listed SHA-256 were not sent to any reader
                self._on_lost(lfs)

        return ImportedFile(path, size, self._loop, discarded)

    def _describe(self) -> None:
        entries = [entry for entry in self._entries if entry is not None]
        manifest = Manifest.of(entries)
        numbers = {entry.sha256: number for number, entry in enumerate(entries)}
        self._loop.call_soon_threadsafe(self._set_manifest, manifest, numbers)

    def _set_manifest(self, manifest: Manifest, numbers: dict[Digest, int]) -> None:
        self.manifest, self._numbers = manifest, numbers
        self._known.set()


AT_ONCE: Final = 2
"""Repositories imported, and revisions pinned, at once: half of the import threads are reserved for operators. Readers
in one address block start one of them at a time."""
MAX_WAITING: Final = 16
"""Repositories that wait to be imported."""
MAX_PINS: Final = 1_024
"""Revisions that wait to be pinned, and as many whose commit is cached."""
PIN_TIMEOUTS: Final = Timeouts(read_timeout=5.0, max_retry_after=2.0, first_delay=0.25)
"""For pinning: short, because a reader waits."""
PIN_SECONDS: Final = 60.0
"""Seconds for which the commit of a revision is cached."""
FAILURE_SECONDS: Final = 10.0
"""Seconds for which a failed request is not repeated."""
ENDED_SECONDS: Final = 30.0
"""Seconds for which an ended import is kept: to repeat its failure, or until the catalogue has read the log."""
MAX_TAINTED: Final = 4_096

RevisionKey: TypeAlias = tuple[str, str]
"""A repository in lower case, and its revision or commit."""

_log: Final = structlog.get_logger("comity.node.importing")


class ReadThroughImports:
    """Not thread-safe: call from the event loop.

    Attributes:
        enabled: whether readers may start imports.
    """

    def __init__(self, settings: ReadThrough, importer: Importer, *, enabled: bool) -> None:
        self._importer = importer
        self._settings = settings
        self.enabled = enabled
        self._import_slots = FairSlots(AT_ONCE, per_key=1, max_per_key=MAX_WAITING)
        self._pin_slots = FairSlots(AT_ONCE, per_key=1, max_per_key=MAX_PINS)
        self._waiting_imports: FairShares[RevisionKey] = FairShares(MAX_WAITING, time.monotonic)
        self._waiting_pins: FairShares[RevisionKey] = FairShares(MAX_PINS, time.monotonic)
        self._pins: dict[RevisionKey, asyncio.Task[RevisionInfo]] = {}
        self._imports: dict[RevisionKey, ReadThroughImport] = {}
        self._import_tasks: dict[RevisionKey, asyncio.Task[ComityError | None]] = {}
        self._work: dict[asyncio.Task[Any], ImportCounter] = {}
        self._tainted: dict[Digest, None] = {}

    def allows(self, repository: str) -> bool:
        """Whether readers may have `org/name` imported."""
        name = repository.lower()
        return self.enabled and any(fnmatchcase(name, pattern.lower()) for pattern in self._settings.allow)

    def is_tainted(self, digest: Digest) -> bool:
        """Whether a reader may have wrong first bytes of this file: resuming from there would assemble a wrong file."""
        return digest in self._tainted

    async def pin(self, repository: str, revision: str) -> RevisionInfo:
        """The commit of a revision. Raises as `mirror.pin_revision`, NotFound (UPSTREAM-NOT-ALLOWED) if readers may not
        have it imported, and Unavailable (COLD-BUSY)."""
        self._require_allowed(repository)
        known = self._imports.get((repository.lower(), revision))
        if known is not None:
            return known.revision
        key = repository.lower(), revision
        if key not in self._pins:
            gives_way = self._waiting_pins.acquire_from_others(key, BLOCK.get())
            if gives_way == key:
                raise _busy(f"{MAX_PINS} revisions wait, most of them for your addresses")
            if gives_way is not None:
                self._pins[gives_way].cancel()
            self._drop_cached_pins()
            order, counter = self._order(repository, revision, PIN_TIMEOUTS), ImportCounter()
            pin = self._pins[key] = asyncio.create_task(self._ask(key, order, counter))
            self._attend(pin, counter)
            pin.add_done_callback(partial(self._pinned, key))
        pin = self._pins[key]
        await asyncio.wait((pin,))
        if pin.cancelled():
            raise _busy("the request gave way to those from other addresses")
        revision_info = pin.result()
        self._require_allowed(revision_info.upstream.repository)  # the upstream may have renamed it
        return revision_info

    def import_of(self, revision_info: RevisionInfo) -> ReadThroughImport:
        """The import of a commit, started if none runs. Raises Unavailable (COLD-BUSY)."""
        key = revision_info.upstream.repository.lower(), revision_info.upstream.commit
        if key not in self._imports:
            gives_way = self._waiting_imports.acquire_from_others(key, BLOCK.get())
            if gives_way == key:
                raise _busy(f"{MAX_WAITING} repositories wait, most of them for your addresses")
            if gives_way is not None:
                self._import_tasks[gives_way].cancel()
            running = self._imports[key] = ReadThroughImport(revision_info, self._taint)
            counter = ImportCounter()
            task = self._import_tasks[key] = asyncio.create_task(self._run(key, running, counter))
            self._attend(task, counter)
            task.add_done_callback(partial(self._ended, key, running))
        return self._imports[key]

    async def import_observed(self, observed: Observed) -> ReadThroughImport:
        """The import of a commit that a node mirrored before. Raises as `pin` and `import_of`."""
        return self.import_of(await self.pin(observed.upstream.repository, observed.upstream.commit))

    async def close(self) -> None:
        """Cancel running imports; their folders are kept for the next request."""
        for task, counter in self._work.items():
            counter.stop()
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    async def _ask(self, key: RevisionKey, order: MirrorOrder, counter: ImportCounter) -> RevisionInfo:
        """Runs as a task."""
        async with self._pin_slots.slot(BLOCK.get()):
            self._waiting_pins.release(key)
            return await self._importer.pin(order, counter)

    async def _run(self, key: RevisionKey, running: ReadThroughImport, counter: ImportCounter) -> ComityError | None:
        """Runs as a task. Returns the failure, or None if the import succeeded or raised an unexpected error."""
        upstream = running.revision.upstream
        log = _log.bind(name=upstream.name)
        try:
            async with self._import_slots.slot(BLOCK.get()):
                self._waiting_imports.release(key)
                log.info("import started for a reader")
                order = self._order(upstream.repository, upstream.requested, Timeouts())
                await self._importer.mirror(order, running.revision, counter, running)
            running.finish()
        except ComityError as error:
            log.warning("import failed", why=str(error), code=error.code)
            return error
        except Exception:
            log.exception("import raised an unexpected error")
        return None

    def _ended(self, key: RevisionKey, running: ReadThroughImport, task: asyncio.Task[ComityError | None]) -> None:
        """Tell the readers of an import that did not succeed why, also where its task was cancelled before it began."""
        self._waiting_imports.release(key)
        del self._import_tasks[key]
        failure = None if task.cancelled() else task.result()
        if not running.over:
            why = "the node stopped, or the import gave way to those for other addresses"
            running.finish(failure or Unavailable("the import was cancelled", why=why, code="GIVEN-UP"))
        asyncio.get_running_loop().call_later(ENDED_SECONDS, self._imports.pop, key, None)

    def _order(self, repository: str, revision: str, patience: Timeouts) -> MirrorOrder:
        settings = self._settings
        hosts = AllowedHosts.to(settings.endpoint, settings.hosts)
        return MirrorOrder(
            UpstreamRequest(repository, revision), hosts, timeouts=patience, max_bytes=settings.largest_bytes
        )

    def _attend(self, task: asyncio.Task[Any], counter: ImportCounter) -> None:
        self._work[task] = counter
        task.add_done_callback(self._work.pop)

    def _pinned(self, key: RevisionKey, pin: asyncio.Task[RevisionInfo]) -> None:
        self._waiting_pins.release(key)
        if pin.cancelled():
            self._forget_pin(key, pin)
            return
        seconds = PIN_SECONDS if pin.exception() is None else FAILURE_SECONDS
        pin.get_loop().call_later(seconds, self._forget_pin, key, pin)

    def _forget_pin(self, key: RevisionKey, pin: asyncio.Task[RevisionInfo]) -> None:
        if self._pins.get(key) is pin:
            del self._pins[key]

    def _drop_cached_pins(self) -> None:
        """Drop the oldest pins that have ended, above `MAX_PINS`: their revisions are asked for again."""
        ended = [key for key, pin in self._pins.items() if pin.done() and not pin.cancelled()]
        for key in ended[: max(0, len(ended) + 1 - MAX_PINS)]:
            del self._pins[key]

    def _require_allowed(self, repository: str) -> None:
        if not self.allows(repository):
            why = "no node of the federation has it, and readers may not have it imported"
            raise NotFound(f"this node serves no {repository[:200]!r}", why=why, code="UPSTREAM-NOT-ALLOWED")

    def _taint(self, digest: Digest) -> None:
        if len(self._tainted) >= MAX_TAINTED:
            self._tainted.pop(next(iter(self._tainted)))
        self._tainted[digest] = None


def _busy(why: str) -> Unavailable:
    return Unavailable("too many requests at once", why=why, code="COLD-BUSY")
