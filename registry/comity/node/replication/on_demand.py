"""Partial files of fetches that were not finished: the beginnings of later ones, kept within a bound. Blocking.

Files that are fetched because somebody asks for them now, though the replication has not, or never would.

(1) the statement, the manifest and the publisher's own piece index are here: they say what the bytes must be
(2) one fetch a file, however many read it, and whoever began it, this or the replication
(3) so many fetches at once, each with room on the disk, an end in time, and buffers for a few pieces
(4) when the last reader has left, and nobody comes back, the fetch ends, unless the node wants the artifact anyway;
    what it has is kept for the next one, within a bound
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Final

import structlog

from comity.content.blobs import BlobStore, lock_if_free
from comity.content.durable import disk_errors
from comity.node.context import NodeContext
from comity.node.replication.files import FileDownload, FileFetcher, Key, given_up
from comity.node.uploads import Want, read_artifact
from comity.transfer.scheduler import TransferLimits
from comity.trust.artifact import FileEntry, PieceLayout
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, NotFound, OutOfSpace, Unavailable
from comity.trust.statements import Published
from comity.trust.upstream import Observed

MOST: Final = 32 * 1024**3
"""Bytes on the disk, all of them together."""
BLOCK: Final = 512


def trim(store: BlobStore, newest_first: Iterable[Digest], most: int = MOST) -> list[Digest]:
    """Throw away the oldest beyond `most` bytes; gives those that are left. One that somebody writes to stays.

    Raises Unavailable (DISK).
    """
    left, total = [], 0
    for digest in newest_first:
        path = store.scratch(digest)
        with disk_errors("what was fetched in part was not looked at"), lock_if_free(path.parent, digest) as free:
            size = path.stat().st_blocks * BLOCK if path.exists() else 0
            if size and free and total + size > most:
                path.unlink()
            elif size:
                total += size
                left.append(digest)
    return left


AT_ONCE: Final = 24
"""A stock client asks for eight files of a model at once, and takes a 503 for an end."""
MAX_WAITING: Final = 256
"""Files that are fetched or wait for their turn."""
LIMITS: Final = TransferLimits(patience=30.0, streams=3, buffers=4)
"""16 MiB of buffers a fetch."""
ANSWER: Final = 3.0
"""Seconds that a peer has to say whether it has the file: somebody waits."""
LONGEST: Final = 6 * 3600.0
"""Seconds that one fetch may take; what it has by then is where the next one begins."""
LINGER: Final = 15.0
"""Seconds that a fetch goes on without a reader: clients come back after a lost connection, or a 503."""
SPARE: Final = 1024**3
"""Bytes of the disk that stay free."""
MAX_LAYOUTS: Final = 4_096

_log: Final = structlog.get_logger("comity.node.artifacts")


class OnDemandFetch:
    """Touched by the event loop only."""

    def __init__(self, core: NodeContext, files: FileFetcher) -> None:
        self._core = core
        self._files = files
        self._flights = files.flights
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[Key, asyncio.Task[ComityError | None]] = {}
        self._claimed = 0
        self._partial: dict[Digest, None] = {}
        self._layouts: dict[tuple[Digest, str], PieceLayout] = {}

    async def read(
        self, published: Published | Observed, entry: FileEntry, offset: int, length: int
    ) -> AsyncGenerator[bytes, None]:
        """Verified bytes of a range of a file that is not here, as `Flight.read` gives them; begins to fetch it.

        Raises NotFound and Unavailable where no peer gives it, Untrusted where what they give is not it, OutOfSpace,
        Unavailable (COLD-BUSY).
        """
        key = entry.sha256, await self._layout(published, entry)
        with self._attended(key, published, entry) as flight:
            async with aclosing(flight.read(offset, length, self._core.pools)) as parts:
                async for part in parts:
                    yield part

    async def close(self) -> None:
        """End what is under way; what it has is kept."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _layout(self, published: Published | Observed, entry: FileEntry) -> PieceLayout:
        """How the publisher says that the file is cut."""
        known = published.pieces.digest, entry.path
        if known not in self._layouts:
            await self._files.require_objects((published.manifest, published.pieces))
            _, index = await self._core.pools.files(
                read_artifact, self._core.store, published.manifest, published.pieces
            )
            layout = dict(index.files).get(entry.path)
            if layout is None:
                raise NotFound("no piece index", why=short(entry.sha256), code="NO-RECORDS")
            if len(self._layouts) >= MAX_LAYOUTS:
                self._layouts.clear()
            self._layouts[known] = layout
        return self._layouts[known]

    @contextmanager
    def _attended(self, key: Key, published: Published | Observed, entry: FileEntry) -> Iterator[FileDownload]:
        flight = self._flights.find(key)
        if flight is None:
            self._begin(key, published, entry)
            flight = self._flights.announce(key)
        flight.readers += 1
        try:
            yield flight
        finally:
            flight.readers -= 1
            if not flight.readers and not self._core.config.replication.wants(str(published.name).rpartition("@")[0]):
                asyncio.get_running_loop().call_later(LINGER, self._look, key, flight)

    def _begin(self, key: Key, published: Published | Observed, entry: FileEntry) -> None:
        if len(self._tasks) >= MAX_WAITING:
            why = f"{MAX_WAITING} are being fetched, or wait"
            raise Unavailable("too many files at once", why=why, code="COLD-BUSY")
        want = Want(entry.sha256, entry.size, entry.path)
        task = asyncio.create_task(self._run(key, want, str(published.name)))
        self._tasks[key] = task
        task.add_done_callback(partial(self._done, key))

    def _done(self, key: Key, task: asyncio.Task[ComityError | None]) -> None:
        """Tell the readers what went wrong where nobody else has; another try may have begun already."""
        if self._tasks.get(key) is task:
            del self._tasks[key]
            failure = None if task.cancelled() else task.result()
            self._flights.give_up(key, failure or given_up())

    def _look(self, key: Key, flight: FileDownload) -> None:
        """Nobody reads it: end it, unless somebody came back."""
        if not flight.readers and self._flights.find(key) is flight and key in self._tasks:
            self._tasks[key].cancel()

    async def _run(self, key: Key, want: Want, name: str) -> ComityError | None:
        """A task. Returns what went wrong."""
        log = _log.bind(name=name, path=want.path, blob=want.digest)
        try:
            async with self._room, asyncio.timeout(LONGEST):
                await self._fetch(want, key[1], name)
        except ComityError as error:
            log.warning("not fetched", why=str(error), code=error.code)
            return error
        except TimeoutError:
            log.warning("not fetched", why=f"not whole after {LONGEST:g} s")
        except asyncio.CancelledError:
            log.info("nobody waits any more")
            raise
        except Exception:
            log.exception("a fetch broke")
        return None

    async def _fetch(self, want: Want, layout: PieceLayout, name: str) -> None:
        self._partial.pop(want.digest, None)
        newest_first = tuple(reversed(self._partial))
        left = set(await self._core.pools.files(trim, self._core.store, newest_first))
        for digest in set(newest_first) - left:
            self._partial.pop(digest, None)
        with self._space(want, await self._core.pools.files(self._core.store.free_bytes)):
            self._partial[want.digest] = None
            await self._files.fetch([(want, layout)], name=name, limits=LIMITS, answer=ANSWER)
            self._partial.pop(want.digest, None)

    @contextmanager
    def _space(self, want: Want, free: int | None) -> Iterator[None]:
        """Its bytes of the disk, spoken for. Raises OutOfSpace where all that is under way would fill it."""
        if free is not None and free - self._claimed - want.size < SPARE:
            why = f"{want.size} bytes, and the disk has {free} left, of which {self._claimed} are spoken for"
            raise OutOfSpace(f"no room for {want.path}", why=why)
        self._claimed += want.size
        try:
            yield
        finally:
            self._claimed -= want.size
