"""Fetches files that a reader asks for and that the replication has not fetched, and keeps partial files within a
bound.

(1) the statement, the manifest and the publisher's piece index are stored: they determine the bytes
(2) one download for each file, for any number of readers, shared with the replication
(3) a bounded number of downloads at once, each with reserved disk space, a time limit and a few pieces of buffers; one
    address block uses a part of them, and blocks take turns. A slow peer holds both for hours: the block with most of
    the downloads, or of the reserved space, loses one to a block with less
(4) a download without readers ends after a short time, unless the node wants the artifact anyway; its partial file is
    kept for the next download, within a bound
"""

from __future__ import annotations

import asyncio
import stat
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from comity.content.blobs import BlobStore, lock_if_free
from comity.content.durable import disk_errors
from comity.node.replication.fair_queue import FairSlots
from comity.node.replication.files import FileDownload, FileFetcher, Key, abandoned_error
from comity.node.threads import NameLocks, Pools
from comity.node.uploads import Want, read_artifact
from comity.rules.pieces import PieceLayout
from comity.transfer.limits import TransferLimits
from comity.trust.artifact import FileEntry
from comity.trust.encoding import Digest, parse_digest, sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, OutOfSpace, Unavailable
from comity.trust.statements import Published
from comity.trust.upstream import Observed
from comity.wire.access import BLOCK
from comity.wire.throttle import FairShares

MAX_PARTIAL_BYTES: Final = 32 * 1024**3
"""Bytes on the disk of all partial files together."""
BLOCK_BYTES: Final = 512


def trim(store: BlobStore, newest_first: Iterable[Digest], limit: int = MAX_PARTIAL_BYTES) -> list[Digest]:
    """Delete the oldest partial files above `limit` bytes; files being written stay. Returns the remaining ones.
    Blocking.

    Raises Unavailable (DISK).
    """
    kept, total = [], 0
    for digest in newest_first:
        path = store.partial_path(digest)
        with disk_errors("what was fetched in part was not looked at"), lock_if_free(path.parent, digest) as free:
            size = path.stat().st_blocks * BLOCK_BYTES if path.exists() else 0
            if size and free and total + size > limit:
                path.unlink()
            elif size:
                total += size
                kept.append(digest)
    return kept


def remove_abandoned(store: BlobStore, before: float) -> None:
    """Delete partial files, of copies too, that were last written before a time (POSIX seconds); files being written
    stay. Nothing else remembers them after a restart. Blocking.

    Raises Unavailable (DISK).
    """
    folder = store.partial_path(sha256(b"")).parent
    with disk_errors("what was fetched in part was not looked at"):
        for path in folder.iterdir():
            if not _is_old_partial(path, before):
                continue
            with lock_if_free(folder, Digest(path.name)) as free:
                if free and _is_old_partial(path, before):
                    path.unlink()


def _is_old_partial(path: Path, before: float) -> bool:
    try:
        found = path.lstat()
        return bool(parse_digest(path.name)) and stat.S_ISREG(found.st_mode) and found.st_mtime < before
    except (FileNotFoundError, Malformed):
        return False


MAX_CONCURRENT: Final = 24
MAX_OF_A_BLOCK: Final = 16
"""Downloads at once that readers in one address block have started. A stock client requests eight files of a model at
once, and treats a 503 as final."""
MAX_WAITING: Final = 256
"""Files that wait to be fetched. Above it, the address block with most loses one to a reader in another block."""
LIMITS: Final = TransferLimits(patience=30.0, streams=3, buffers=4)
"""16 MiB of buffers for each download."""
ANSWER_TIMEOUT: Final = 3.0
"""Seconds that a peer has to say whether it has the file; short, because a reader waits."""
FETCH_TIMEOUT: Final = 6 * 3600.0
"""Seconds that one download may take; the next one continues from its partial file."""
TURN: Final = 60.0
"""Seconds after which a download may lose its slot to a block that has none."""
LINGER: Final = 15.0
"""Seconds that a download continues without a reader: clients retry after a lost connection or a 503."""
SPARE_FACTOR: Final = 4
"""Readers leave this many times as much of the disk free as uploads do, because any reader causes a fetch."""
MAX_LAYOUTS: Final = 100_000
"""Files of the piece indexes that are kept, some 30 MB; the last one is kept whatever it has."""

_log: Final = structlog.get_logger("comity.node.artifacts")


@dataclass(slots=True)
class _RunningFetch:
    """A download that has a slot: the address block of its first reader, when it began (monotonic seconds), and the
    bytes of the disk that are reserved for it."""

    block: str
    begun: float
    reserved_bytes: int = 0


class OnDemandFetch:
    """Not thread-safe: call from the event loop."""

    def __init__(
        self,
        store: BlobStore,
        pools: Pools,
        wants: Callable[[str], bool],
        files: FileFetcher,
        withdrawn: Callable[[Digest], Awaitable[bool]],
        *,
        reserve_bytes: int,
    ) -> None:
        """`reserve_bytes`: what uploads leave free on the disk. `withdrawn`: whether this node withdrew an artifact:
        then none of its files are fetched for readers."""
        self._withdrawn = withdrawn
        self._store = store
        self._reserve_bytes = reserve_bytes
        self._pools = pools
        self._wants = wants
        self._files = files
        self._downloads = files.downloads
        self._slots = FairSlots(MAX_CONCURRENT, per_key=MAX_OF_A_BLOCK, max_per_key=MAX_WAITING)
        self._waiting: FairShares[Key] = FairShares(MAX_WAITING, time.monotonic)
        self._tasks: dict[Key, asyncio.Task[ComityError | None]] = {}
        self._running: dict[Key, _RunningFetch] = {}
        self._partial: dict[Digest, None] = {}
        self._indexes: OrderedDict[Digest, Mapping[str, PieceLayout]] = OrderedDict()
        """By piece index, the layout of each file; the least recently used first."""
        self._locks = NameLocks()

    async def read(
        self, published: Published | Observed, entry: FileEntry, offset: int, length: int
    ) -> AsyncGenerator[bytes, None]:
        """Verified bytes of a range of a file that is not stored, as `FileDownload.read` returns them; starts the
        download.

        Raises NotFound and Unavailable if no peer serves it, Untrusted if the bytes do not match, OutOfSpace and
        Unavailable (COLD-BUSY).
        """
        if await self._withdrawn(published.artifact):
            why = "this node withdrew its copy"
            raise NotFound(f"{entry.path[:200]} is not served here", why=why, code="NOT-HELD")
        key = entry.sha256, await self._layout(published, entry)
        with self._reading(key, published, entry) as download:
            async with aclosing(download.read(offset, length, self._pools)) as parts:
                async for part in parts:
                    yield part

    async def close(self) -> None:
        """Cancel running downloads; partial files are kept."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _layout(self, published: Published | Observed, entry: FileEntry) -> PieceLayout:
        """The file's layout in the publisher's piece index, which is read once for all its files."""
        digest = published.pieces.digest
        async with self._locks.acquire((digest,)):
            if digest not in self._indexes:
                await self._files.require_objects((published.manifest, published.pieces))
                _, index = await self._pools.files(read_artifact, self._store, published.manifest, published.pieces)
                self._indexes[digest] = dict(index.files)
                total = sum(map(len, self._indexes.values()))
                while total > MAX_LAYOUTS and len(self._indexes) > 1:
                    total -= len(self._indexes.popitem(last=False)[1])
            self._indexes.move_to_end(digest)
            layout = self._indexes[digest].get(entry.path)
        if layout is None:
            raise NotFound("no piece index", why=short(entry.sha256), code="NO-RECORDS")
        return layout

    @contextmanager
    def _reading(self, key: Key, published: Published | Observed, entry: FileEntry) -> Iterator[FileDownload]:
        download = self._downloads.find(key)
        if download is None:
            self._begin(key, published, entry)
            download = self._downloads.get_or_create(key)
        if key in self._tasks and key not in self._running:
            self._end_one_for(BLOCK.get())
        download.readers += 1
        try:
            yield download
        finally:
            download.readers -= 1
            if not download.readers and not self._wants(str(published.name).rpartition("@")[0]):
                asyncio.get_running_loop().call_later(LINGER, self._cancel_if_unread, key, download)

    def _begin(self, key: Key, published: Published | Observed, entry: FileEntry) -> None:
        gives_way = self._waiting.acquire_from_others(key, BLOCK.get())
        if gives_way == key:
            why = f"{MAX_WAITING} wait, most of them for your addresses"
            raise Unavailable("too many files at once", why=why, code="COLD-BUSY")
        if gives_way is not None:
            self._tasks[gives_way].cancel()
        want = Want(entry.sha256, entry.size, entry.path)
        task = asyncio.create_task(self._run(key, want, str(published.name)))
        self._tasks[key] = task
        task.add_done_callback(partial(self._done, key))

    def _end_one_for(self, block: str) -> None:
        """If all slots are used, and none by `block`: cancel the download that has run for longest of the block with
        most, if it has more than one and has had its turn."""
        counts = Counter(running.block for running in self._running.values())
        if len(self._running) < MAX_CONCURRENT or counts[block]:
            return
        largest, most = counts.most_common(1)[0]
        oldest = next(key for key, running in self._running.items() if running.block == largest)
        if most > 1 and time.monotonic() - self._running[oldest].begun > TURN:
            self._tasks[oldest].cancel()

    def _done(self, key: Key, task: asyncio.Task[ComityError | None]) -> None:
        """Report the failure to readers if nothing else did; another download may have started already."""
        if self._tasks.get(key) is task:
            del self._tasks[key]
            self._waiting.release(key)
            failure = None if task.cancelled() else task.result()
            self._downloads.fail_if_idle(key, failure or abandoned_error())

    def _cancel_if_unread(self, key: Key, download: FileDownload) -> None:
        """Cancel the download unless it has a reader again."""
        if not download.readers and self._downloads.find(key) is download and key in self._tasks:
            self._tasks[key].cancel()

    async def _run(self, key: Key, want: Want, name: str) -> ComityError | None:
        """Runs as a task. Returns the failure, or None."""
        log = _log.bind(name=name, path=want.path, blob=want.digest)
        try:
            async with self._slots.slot(BLOCK.get()), asyncio.timeout(FETCH_TIMEOUT):
                self._waiting.release(key)
                running = self._running[key] = _RunningFetch(BLOCK.get(), time.monotonic())
                try:
                    await self._fetch(running, want, key[1], name)
                finally:
                    if self._running.get(key) is running:
                        del self._running[key]
        except ComityError as error:
            log.warning("not fetched", why=str(error), code=error.code)
            return error
        except TimeoutError:
            log.warning("not fetched", why=f"timed out after {FETCH_TIMEOUT:g} s")
        except asyncio.CancelledError:
            log.info("download cancelled: no reader is left, or those of other addresses waited")
            raise
        except Exception:
            log.exception("download raised an unexpected error")
        return None

    async def _fetch(self, running: _RunningFetch, want: Want, layout: PieceLayout, name: str) -> None:
        self._partial.pop(want.digest, None)
        newest_first = tuple(reversed(self._partial))
        kept = set(await self._pools.files(trim, self._store, newest_first))
        for digest in set(newest_first) - kept:
            self._partial.pop(digest, None)
        self._reserve(running, want, await self._pools.files(self._store.free_bytes))
        self._partial[want.digest] = None
        await self._files.fetch([(want, layout)], name=name, limits=LIMITS, answer=ANSWER_TIMEOUT)
        self._partial.pop(want.digest, None)

    def _reserve(self, own: _RunningFetch, want: Want, free: int | None) -> None:
        """Reserve the file's bytes on the disk, until the download ends. Blocks for which more is reserved lose their
        largest downloads to it. Raises OutOfSpace if all other running downloads would fill the disk nevertheless."""
        spare = SPARE_FACTOR * self._reserve_bytes
        others = {other: running for other, running in self._running.items() if running is not own}
        block, give_way = own.block, list[Key]()
        while free is not None and free - _reserved(others) - want.size < spare:
            largest = max({running.block for running in others.values()}, key=partial(_reserved, others), default=block)
            if _reserved(others, largest) <= _reserved(others, block) + want.size:
                reserved = _reserved(self._running)
                why = (
                    f"it has {want.size} bytes, and the disk has {free} left: {reserved} for running fetches, "
                    f"and {spare} stay free, {SPARE_FACTOR} times reserve_bytes in [storage] of node.toml"
                )
                raise OutOfSpace(f"not enough disk space for {want.path}", why=why)
            of_block = (other for other, running in others.items() if running.block == largest)
            give_way.append(max(of_block, key=lambda other: others[other].reserved_bytes))
            del others[give_way[-1]]
        for other in give_way:
            self._running[other].reserved_bytes = 0
            self._tasks[other].cancel()
        own.reserved_bytes = want.size


def _reserved(running: Mapping[Key, _RunningFetch], block: str | None = None) -> int:
    """The bytes that are reserved for downloads, or for those of one block."""
    return sum(each.reserved_bytes for each in running.values() if block in (None, each.block))
