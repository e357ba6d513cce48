"""One file of an import, for those who read it while it comes.

No signature says what its pieces are; what is known is the SHA-256 that the upstream lists for the whole. So a range
that stops before the end waits for it: it would be a whole answer of bytes that nobody has verified. An answer that
reaches the end begins at once, and is cut off before its last slice where the hash turns out to be another one. Each
slice is read from the disk, and sent only if it is still what came in.


A commit of an upstream on its way into the store, for those who wait for it.

Its manifest is known long before its bytes are: what is in LFS is listed with its SHA-256, and the small files beside
it are fetched first. It is the manifest that the import will log, if the upstream keeps its word about every file.


Imports that nobody ordered but readers: repositories that the node's settings let them have mirrored here.

(1) only what `[upstream] allow` names, from the one endpoint that `[upstream]` names, without token and terms, so that
    what is gated or private is refused, and within `largest_bytes`
(2) a revision is pinned to a commit; the answer, also that there is none, is remembered for a moment
(3) of a commit there is one import, however many wait for it, and it is an import like an operator's: nobody has to
    stay for it to go on, and one that was killed is taken up by the next request
(4) what failed is not tried again at once
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from comity.node.context import NodeContext, Pools
from comity.node.importing.importer import ImportCounter, Importer
from comity.node.replication.files import SLICE, GrowingFile, changed, opened
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound, Unavailable
from comity.trust.upstream import Observation, Observed, UpstreamRequest
from comity.upstream.download import FileObserver, Timeouts
from comity.upstream.hub_api import AllowedHosts, RepositoryListing, RevisionInfo
from comity.upstream.mirror import MirrorOrder


class ImportedFile(GrowingFile):
    """`came` and `lost` are called in the thread that fetches it; everything else as for any `Coming`.

    Args:
        on_lost: called on the event loop where bytes were thrown away that somebody may have.
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
        self._had, self._hash = 0, hashlib.sha256()
        self._slices: list[bytes] = []

    def came(self, data: bytes) -> None:
        known, view = len(self._slices), memoryview(data)
        while view:
            part = view[: SLICE - self._had % SLICE]
            view = view[len(part) :]
            self._hash.update(part)
            self._had += len(part)
            if self._had % SLICE == 0 or self._had == self._size:
                self._slices.append(self._hash.digest())
                self._hash = hashlib.sha256()
        if len(self._slices) > known:
            self._loop.call_soon_threadsafe(self._tell)

    def lost(self) -> None:
        had = self._had
        self._begin()
        if had:
            self._loop.call_soon_threadsafe(self._on_lost)

    def verified(self) -> None:
        """The whole of it has the hash that it should have."""
        self._whole = True
        self._tell()

    async def read(self, offset: int, length: int, pools: Pools) -> AsyncGenerator[bytes, None]:
        """As for any `Coming`. Raises Unavailable (BLOB-CHANGED) too where what came before was thrown away."""
        if offset + length < self._size:
            while not (self._whole or self._over):
                await self._change.wait()
        slices = self._slices
        async with aclosing(super().read(offset, length, pools)) as parts:
            async for part in parts:
                self._require_same(slices)
                yield part
        self._require_same(slices)  # the store has the end of another file

    def _ready(self, offset: int) -> bool:
        number = offset // SLICE
        return number < len(self._slices) and (self._whole or number < (self._size - 1) // SLICE)

    def _slice(self, offset: int, end: int) -> bytes | None:
        slices, number = self._slices, offset // SLICE
        begin = number * SLICE
        with opened(self._path, self._name) as descriptor:
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
        return changed(self._name, "what came before")


class ReadThroughImport:
    """The `Audience` of an import. Made, and asked, on the event loop.

    Args:
        on_lost: called with the digest of a file of which a reader may have bytes that were thrown away.

    Attributes:
        manifest: what it will be; None until the files outside LFS are here.
        over: whether the import has ended, well or not.
    """

    def __init__(self, standing: RevisionInfo, on_lost: Callable[[Digest], None]) -> None:
        self.standing = standing
        self.manifest: Manifest | None = None
        self.over = False
        self._failure: ComityError | None = None
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._known = asyncio.Event()
        self._inflows: tuple[ImportedFile, ...] = ()
        self._numbers: dict[Digest, int] = {}
        self._entries: list[FileEntry | None] = []
        self._unknown = 0

    @property
    def proven(self) -> bool:
        """Whether the upstream gave all that it listed."""
        return self.over and self._failure is None

    async def described(self) -> Manifest | None:
        """The manifest, as soon as it is known; None where all of it turns out to be here already. Raises what ended
        the import."""
        await self._known.wait()
        if self._failure is not None:
            raise self._failure
        return self.manifest

    async def read(self, entry: FileEntry, offset: int, length: int, pools: Pools) -> AsyncGenerator[bytes, None]:
        """A range of one of its files, as `Inflow.read` gives it. Raises NotFound (NO-HOLDER) for any other file."""
        await self.described()
        number = self._numbers.get(entry.sha256)
        if number is None:
            if self.over and self.manifest is None:
                return
            why = f"{self.standing.upstream.name} has no such file"
            raise NotFound(f"{entry.path[:200]} is nowhere whole", why=why, code="NO-HOLDER")
        inflow = self._inflows[number]
        inflow.readers += 1
        try:
            async with aclosing(inflow.read(offset, length, pools)) as parts:
                async for part in parts:
                    yield part
        finally:
            inflow.readers -= 1

    def end(self, failure: ComityError | None = None) -> None:
        """All of it is in the store and logged, or will not be."""
        self.over, self._failure = True, failure
        for inflow in self._inflows:
            inflow.end(failure)
        self._known.set()

    def expected(self, listing: RepositoryListing, paths: Sequence[Path]) -> None:
        """In the import's thread, like all that follows."""
        inflows = [
            self._inflow(listed.lfs, listed.size, path) for listed, path in zip(listing.files, paths, strict=True)
        ]
        self._inflows = tuple(inflows)
        self._entries = [
            FileEntry(listed.path, listed.size, listed.lfs) if listed.lfs else None for listed in listing.files
        ]
        self._unknown = self._entries.count(None)
        if not self._unknown:
            self._describe()

    def awaited(self) -> Collection[int]:
        return [number for number, inflow in enumerate(self._inflows) if inflow.readers]

    def of(self, number: int) -> FileObserver:
        return self._inflows[number]

    def whole(self, number: int, observation: Observation) -> None:
        if self._entries[number] is None:
            self._entries[number] = observation.entry
            self._unknown -= 1
            if not self._unknown:
                self._describe()
        self._loop.call_soon_threadsafe(self._inflows[number].verified)

    def _inflow(self, lfs: Digest | None, size: int, path: Path) -> ImportedFile:
        def lost() -> None:
            if lfs is not None:  # of what had no listed SHA-256 nobody was given anything
                self._on_lost(lfs)

        return ImportedFile(path, size, self._loop, lost)

    def _describe(self) -> None:
        entries = [entry for entry in self._entries if entry is not None]
        manifest = Manifest.of(entries)
        numbers = {entry.sha256: number for number, entry in enumerate(entries)}
        self._loop.call_soon_threadsafe(self._tell, manifest, numbers)

    def _tell(self, manifest: Manifest, numbers: dict[Digest, int]) -> None:
        self.manifest, self._numbers = manifest, numbers
        self._known.set()


AT_ONCE: Final = 2
"""Repositories that are imported, and as many that are asked about: half of the threads for imports are operators'."""
MAX_WAITING: Final = 16
"""Repositories that are imported or wait for their turn."""
MAX_PINS: Final = 1_024
ASKING: Final = Timeouts(silence=5.0, later=2.0, pause=0.25)
"""For the first question: somebody waits."""
PINNED: Final = 60.0
"""Seconds for which a branch stands where it stood."""
REFUSED: Final = 10.0
"""Seconds for which what the upstream refused, or did not answer, is not asked again."""
LINGER: Final = 30.0
"""Seconds for which an import that ended is remembered: a failure, or what the catalogue has yet to read in the log."""
MAX_SPOILED: Final = 4_096

_log: Final = structlog.get_logger("comity.node.importing")


class ReadThroughImports:
    """Touched by the event loop only.

    Attributes:
        on: whether readers may have anything mirrored.
    """

    def __init__(self, core: NodeContext, importer: Importer) -> None:
        self._core = core
        self._importer = importer
        self._settings = core.config.upstream
        self.on = core.config.gateway.cold == "upstream"
        self._room, self._counter = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_ONCE)
        self._pins: dict[tuple[str, str], asyncio.Task[RevisionInfo]] = {}
        self._passages: dict[tuple[str, str], ReadThroughImport] = {}
        self._work: dict[asyncio.Task[Any], ImportCounter] = {}
        self._spoiled: dict[Digest, None] = {}

    def allows(self, repository: str) -> bool:
        """Whether readers may have `org/name` mirrored."""
        name = repository.lower()
        return self.on and any(fnmatchcase(name, pattern.lower()) for pattern in self._settings.allow)

    def spoiled(self, digest: Digest) -> bool:
        """Whether somebody may have a beginning of this file that is not its own: who goes on from there would put a
        wrong file together."""
        return digest in self._spoiled

    async def standing(self, repository: str, revision: str) -> RevisionInfo:
        """The commit that a revision stands for. Raises NotFound (UPSTREAM-NOT-ALLOWED) where readers may not have it
        mirrored, Unavailable (COLD-BUSY), and as `mirror.pin`."""
        self._require_allowed(repository)
        known = self._passages.get((repository.lower(), revision))
        if known is not None:
            return known.standing
        key = repository.lower(), revision
        if key not in self._pins:
            if len(self._pins) >= MAX_PINS:
                raise _busy(f"{MAX_PINS} names were asked for just now")
            order, ticker = self._order(repository, revision, ASKING), ImportCounter()
            pin = self._pins[key] = asyncio.create_task(self._ask(order, ticker))
            self._attend(pin, ticker)
            pin.add_done_callback(partial(self._pinned, key))
        standing = await asyncio.shield(self._pins[key])
        self._require_allowed(standing.upstream.repository)  # it may have another name by now
        return standing

    def passage(self, standing: RevisionInfo) -> ReadThroughImport:
        """The import of a commit: the one that is under way, or one that begins. Raises Unavailable (COLD-BUSY)."""
        key = standing.upstream.repository.lower(), standing.upstream.commit
        if key not in self._passages:
            if sum(not passage.over for passage in self._passages.values()) >= MAX_WAITING:
                raise _busy(f"{MAX_WAITING} repositories are being mirrored, or wait")
            passage = self._passages[key] = ReadThroughImport(standing, self._spoil)
            ticker = ImportCounter()
            self._attend(asyncio.create_task(self._run(passage, ticker)), ticker)
        return self._passages[key]

    async def again(self, observed: Observed) -> ReadThroughImport:
        """The import of a commit that somebody mirrored before. Raises as `standing` and `passage`."""
        return self.passage(await self.standing(observed.upstream.repository, observed.upstream.commit))

    async def close(self) -> None:
        """End what is under way; what it has is kept for the next request."""
        for task, ticker in self._work.items():
            ticker.stop()
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    async def _ask(self, order: MirrorOrder, ticker: ImportCounter) -> RevisionInfo:
        """A task."""
        async with self._counter:
            return await self._importer.standing(order, ticker)

    async def _run(self, passage: ReadThroughImport, ticker: ImportCounter) -> None:
        """A task."""
        upstream = passage.standing.upstream
        log = _log.bind(name=upstream.name)
        failure: ComityError = Unavailable("the import was not ended", why="the node stopped", code="GIVEN-UP")
        try:
            async with self._room:
                log.info("mirroring for a reader")
                order = self._order(upstream.repository, upstream.requested, Timeouts())
                await self._importer.mirror(order, passage.standing, ticker, passage)
            passage.end()
        except ComityError as error:
            log.warning("not mirrored", why=str(error), code=error.code)
            failure = error
        except Exception:
            log.exception("an import broke")
        finally:
            if not passage.over:
                passage.end(failure)
            key = upstream.repository.lower(), upstream.commit
            asyncio.get_running_loop().call_later(LINGER, self._passages.pop, key, None)

    def _order(self, repository: str, revision: str, patience: Timeouts) -> MirrorOrder:
        settings = self._settings
        reach = AllowedHosts.to(settings.endpoint, settings.hosts)
        return MirrorOrder(UpstreamRequest(repository, revision), reach, patience=patience, most=settings.largest_bytes)

    def _attend(self, task: asyncio.Task[Any], ticker: ImportCounter) -> None:
        self._work[task] = ticker
        task.add_done_callback(self._work.pop)

    def _pinned(self, key: tuple[str, str], pin: asyncio.Task[RevisionInfo]) -> None:
        well = not pin.cancelled() and pin.exception() is None
        pin.get_loop().call_later(PINNED if well else REFUSED, self._pins.pop, key, None)

    def _require_allowed(self, repository: str) -> None:
        if not self.allows(repository):
            why = "nobody here has it, and readers may not have it mirrored"
            raise NotFound(f"this node serves no {repository[:200]!r}", why=why, code="UPSTREAM-NOT-ALLOWED")

    def _spoil(self, digest: Digest) -> None:
        if len(self._spoiled) >= MAX_SPOILED:
            self._spoiled.pop(next(iter(self._spoiled)))
        self._spoiled[digest] = None


def _busy(why: str) -> Unavailable:
    return Unavailable("too much is asked for at once", why=why, code="COLD-BUSY")
