"""Downloads of single files from peers into the store, and readers that read a file while it downloads.

One download runs for each file and layout, for any number of readers. A piece is verified when it arrives; a reader
gets it from the disk in slices, hashed again in the memory that is sent. The end of the file is withheld from readers
until the whole file has its hash: no reader gets all bytes of a wrong file.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from comity.content.blobs import BlobStore, FolderStore, lock_if_free, piece_lengths
from comity.content.durable import disk_errors
from comity.ledger.piece_records import FileRecords
from comity.node.metrics import Metrics
from comity.node.replication.copy_limits import PACED_LIMITS, Pace, PacedSource
from comity.node.replication.link import CopySource
from comity.node.replication.questions import PeerQuestions
from comity.node.replication.side_objects import SideObjectFetcher, missing_side_objects, next_batch
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import Uploads, Want
from comity.rules.pieces import (
    FIXED_LAYOUT,
    TENSOR_LAYOUT,
    PieceIndex,
    PieceLayout,
    check_records,
    derived_records,
    encode_records,
)
from comity.transfer.batches import FINAL, SmallFile, fetch_batches
from comity.transfer.fetch import FetchOptions, FetchResult, fetch_file
from comity.transfer.limits import TransferLimits
from comity.transfer.links import SourceHealth
from comity.transfer.pieces import WantedFile
from comity.transfer.range_source import LOCATE_TIMEOUT, MIN_RANGE_SIZE, RangeSource
from comity.transfer.sources import BlobSource, LocalSource, SourceKey
from comity.trust.artifact import PIECE_SIZE, RECORD_BYTES, Manifest, PieceRecord
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, NotFound, Refused, Unavailable, Untrusted
from comity.trust.statement import SideObject
from comity.wire.limits import RECORDS, SMALL_OBJECT, STAT_DIGESTS

SLICE: Final = 256 * 1024
"""Bytes that a reader gets at a time: the memory that a stalled client costs."""


class GrowingFile(ABC):
    """A file that can be read while it is received. Not thread-safe: call from the event loop, except the slice reads
    in threads.

    Attributes:
        readers: number of current readers.
    """

    def __init__(self) -> None:
        self.readers = 0
        self._over = False
        self._failure: ComityError | None = None
        self._change = asyncio.Event()

    def finish(self, failure: ComityError | None = None) -> None:
        """The file is complete and stored, or its download failed."""
        self._over, self._failure = True, failure
        self._notify()

    async def read(self, offset: int, length: int, pools: Pools) -> AsyncGenerator[bytes, None]:
        """Verified bytes of a range, in order, as they arrive.

        Ends early when the whole file is stored: the caller continues there. Raises what ended the download, and
        Unavailable (DISK, BLOB-CHANGED) if the partial file was changed.
        """
        end = offset + length
        while offset < end and await self._wait_for_slice(offset):
            data = await pools.files(self._slice, offset, end)
            if data is None:  # it was just stored or deleted
                await self._wait_until_over()
                continue
            yield data
            offset += len(data)

    async def _wait_for_slice(self, offset: int) -> bool:
        """Wait for the slice at `offset`; False if the whole file is stored."""
        while not self._over:
            if self._ready(offset):
                return True
            await self._wait(offset)
        if self._failure is not None:
            raise self._failure
        return False

    @abstractmethod
    def _ready(self, offset: int) -> bool:
        """Whether a reader may get the byte at `offset`."""

    async def _wait(self, offset: int) -> None:
        """Wait until something has changed."""
        await self._change.wait()

    @abstractmethod
    def _slice(self, offset: int, end: int) -> bytes | None:
        """Bytes from `offset` to the end of its slice, or `end`; None if the partial file is gone. Blocking."""

    async def _wait_until_over(self) -> None:
        while not self._over:
            await self._change.wait()

    def _notify(self) -> None:
        self._change.set()
        self._change = asyncio.Event()


@contextmanager
def open_partial(path: Path, what: str) -> Iterator[int | None]:
    """A descriptor to read a partial file; None if it is gone. Raises Unavailable (DISK)."""
    with disk_errors(f"{what} was not read"):
        descriptor: int | None = None
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)


def changed_error(what: str, part: str) -> Unavailable:
    return Unavailable(f"{what} changed concurrently", why=f"{part} does not match its hash", code="BLOB-CHANGED")


Key: TypeAlias = tuple[Digest, PieceLayout]
"""The digest, and the layout by which pieces are checked: downloads by other layouts are separate."""


class FileDownload(GrowingFile):
    """The download of one file; observes its transfer.

    Attributes:
        running: whether a task works on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.running = False
        self._want: WantedFile | None = None
        self._partial = Path()
        self._received = bytearray()
        self._slices: dict[int, tuple[bytes, ...]] = {}
        self._awaited: Counter[int] = Counter()

    def start(self, want: WantedFile, partial: Path) -> None:
        """Set the piece records and the partial file."""
        self._want, self._partial, self._received = want, partial, bytearray(len(want.records))
        self._notify()

    def arrived(self, piece: int) -> None:
        self._received[piece] = True
        self._notify()

    def awaited(self) -> Collection[int]:
        return sorted(self._awaited)

    def _ready(self, offset: int) -> bool:
        if self._want is None:
            return False
        piece = self._want.at(offset)
        return bool(self._received[piece]) and piece < len(self._received) - 1

    async def _wait(self, offset: int) -> None:
        if self._want is None:
            await super()._wait(offset)
            return
        piece = self._want.at(offset)
        self._awaited[piece] += 1
        try:
            await super()._wait(offset)
        finally:
            self._awaited -= Counter([piece])

    def _slice(self, offset: int, end: int) -> bytes | None:
        assert self._want is not None
        piece = self._want.at(offset)
        start, length = self._want.span(piece)
        number = (offset - start) // SLICE
        with open_partial(self._partial, self._name) as descriptor:
            if descriptor is None:
                return None
            if piece not in self._slices:
                self._slices[piece] = self._hash_slices(descriptor, piece)
            begin = start + number * SLICE
            data = os.pread(descriptor, min(SLICE, start + length - begin), begin)
        if hashlib.sha256(data).digest() != self._slices[piece][number]:
            raise changed_error(self._name, f"piece {piece}")
        return data[offset - begin : end - begin]

    def _hash_slices(self, descriptor: int, piece: int) -> tuple[bytes, ...]:
        """The hashes of a piece's slices, once for all readers, from bytes that match the piece's hash."""
        assert self._want is not None
        start, length = self._want.span(piece)
        whole, slices = hashlib.sha256(), []
        for at in range(start, start + length, SLICE):
            data = os.pread(descriptor, min(SLICE, start + length - at), at)
            whole.update(data)
            slices.append(hashlib.sha256(data).digest())
        if whole.digest() != self._want.records[piece].sha256:
            raise changed_error(self._name, f"piece {piece}")
        return tuple(slices)

    @property
    def _name(self) -> str:
        assert self._want is not None
        return f"blob {short(self._want.digest)}"


class FileDownloads:
    """The current downloads. Not thread-safe: call from the event loop."""

    def __init__(self) -> None:
        self._all: dict[Key, FileDownload] = {}

    def find(self, key: Key) -> FileDownload | None:
        return self._all.get(key)

    def get_or_create(self, key: Key) -> FileDownload:
        """The current or coming download: the caller makes sure that it is run or failed."""
        return self._all.setdefault(key, FileDownload())

    @contextmanager
    def running(self, key: Key) -> Iterator[FileDownload]:
        """A download that runs inside the block and finishes when it ends: successfully, unless an error is raised."""
        download = self.get_or_create(key)
        download.running = True
        failure: ComityError | None = abandoned_error()
        try:
            yield download
            failure = None
        except ComityError as error:
            failure = error
            raise
        finally:
            self._all.pop(key, None)
            download.finish(failure)

    def fail_if_idle(self, key: Key, failure: ComityError) -> None:
        """Fail a download that no task runs; a running one continues."""
        download = self._all.get(key)
        if download is not None and not download.running:
            del self._all[key]
            download.finish(failure)


def abandoned_error() -> Unavailable:
    return Unavailable("the download was cancelled", why="the node stopped, or no reader was left", code="GIVEN-UP")


REPLICATION_LIMITS: Final = TransferLimits(patience=60.0, streams=4, buffers=6, faster=4.0)
"""A file without a verified piece for a minute is retried later. 24 MiB of buffers for each copy, and at most 8 MiB
for each host that is far. Nobody waits for a copy, so the cheaper way is left only where it is slowed, not where the
machines are busy."""
ANSWER_TIMEOUT: Final = 30.0
"""Seconds that a peer has to say which files of an artifact it has, and to return piece records."""
LOCK_POLL: Final = 0.2

_log: Final = structlog.get_logger("comity.node.artifacts")


class _SourceSet:
    """Shared by the files of one artifact: the health of each source, and the HTTPS sources of the peers."""

    def __init__(self, peers: PeerQuestions, pace: Pace | None) -> None:
        self._peers = peers
        self._pace = pace
        self.health: dict[SourceKey, SourceHealth] = {}
        self.names: dict[SourceKey, str] = {}
        self._over_https: dict[SourceKey, RangeSource] = {}

    async def sources_of(self, holders: Sequence[CopySource], want: Want) -> list[BlobSource]:
        """Every source of a blob that the peers are or know of."""
        for link in holders:
            if link.key not in self._over_https and (over_https := link.over_https()) is not None:
                self._over_https[link.key] = over_https
        sources: list[BlobSource] = [*holders, *await self._found_over_https(holders, want)]
        self.names |= {source.key: source.name for source in sources}
        pace = self._pace
        return sources if pace is None else [PacedSource(source, pace) for source in sources]

    async def _found_over_https(self, holders: Sequence[CopySource], want: Want) -> list[RangeSource]:
        """The HTTPS sources of the holders that give a location of the blob without delay; none for a small blob."""
        if want.size < MIN_RANGE_SIZE:
            return []

        async def find(holder: CopySource) -> bool:
            return await self._over_https[holder.key].find(want.digest)

        asked = [holder for holder in holders if holder.key in self._over_https]
        answers = await self._peers.everyone(find, LOCATE_TIMEOUT, among=asked, enough=lambda found: True)
        return [self._over_https[holder.key] for holder in holders if answers.found.get(holder)]

    def close(self) -> None:
        for source in self._over_https.values():
            source.close()


class _SmallSource:
    """The small files of a holder, at a pace."""

    def __init__(self, source: CopySource, pace: Pace | None) -> None:
        self.key = source.key
        self.name = source.name
        self.host = source.host
        self._source = source
        self._pace = pace

    async def objects(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        """As `ObjectSource.objects`."""
        async with aclosing(self._source.client.objects(digests, uncompressed=True)) as objects:
            async for digest, data in objects:
                if self._pace is not None:
                    await asyncio.sleep(self._pace.reserve(len(data), asyncio.get_running_loop().time()))
                yield digest, data


class FileFetcher:
    """Fetches files into the store. Several calls may run at once.

    Attributes:
        downloads: the current downloads.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        store: BlobStore,
        pools: Pools,
        metrics: Metrics,
        uploads: Uploads,
        peers: PeerQuestions,
        side_objects: SideObjectFetcher,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._metrics = metrics
        self._uploads = uploads
        self._side_objects = side_objects
        self._peers = peers
        self.downloads = FileDownloads()

    async def fetch(
        self,
        files: Sequence[tuple[Want, PieceLayout]],
        *,
        name: str,
        limits: TransferLimits = REPLICATION_LIMITS,
        answer: float = ANSWER_TIMEOUT,
        pace: Pace | None = None,
        received: Callable[[int], None] = lambda count: None,
    ) -> None:
        """Fetch every file completely, verified and durable.

        Args:
            pace: shares a number of bytes a second; None reads as fast as sources send.
            answer: seconds that a peer has to say which files it has.
            received: called with the number of newly verified bytes, those of an earlier try first.

        Raises Unavailable and NotFound if no peer serves a file, Untrusted if the pieces do not match the file,
        OutOfSpace. Verified pieces are kept for the next try.
        """
        if not files:
            return
        holders = await self._holders([want.digest for want, _ in files], answer)
        limits = limits if pace is None else PACED_LIMITS
        with closing(_SourceSet(self._peers, pace)) as source_set:
            await self._fetch_small([want for want, _ in files], holders, limits, pace, received)
            for want, layout in files:
                async with self._lock(want.digest):
                    with self.downloads.running((want.digest, layout)) as download:
                        if not await self._pools.files(self._store.has, want.digest):
                            fetched = await self._fetch(
                                want, layout, holders[want.digest], source_set, download, limits, received
                            )
                            self._record_transfer(want, fetched, name, source_set.names)

    async def _fetch_small(
        self,
        files: Sequence[Want],
        holders: Mapping[Digest, Sequence[CopySource]],
        limits: TransferLimits,
        pace: Pace | None,
        received: Callable[[int], None],
    ) -> None:
        """Fetch the small ones of some files in batches. Those that no holder gives this way are left.

        Raises Unavailable (PATIENCE, DISK) and OutOfSpace.
        """
        small = [want for want in files if 0 < want.size <= SMALL_OBJECT]
        wants = {want.digest: want for want in await self._pools.files(self._not_stored, small)}
        sources = list(dict.fromkeys(source for digest in wants for source in holders[digest]))
        if len(wants) < 2 or not sources:
            return

        def keep(found: Mapping[Digest, bytes]) -> None:
            self._uploads.keep_small([(wants[digest], data) for digest, data in found.items()])

        def kept(some: Sequence[SmallFile], source: str) -> None:
            size = sum(file.size for file in some)
            received(size)
            self._metrics.pull_bytes.labels(source).inc(size)

        try:
            await fetch_batches(
                [SmallFile(want.digest, want.size) for want in wants.values()],
                [_SmallSource(source, pace) for source in sources],
                keep,
                on_kept=kept,
                options=FetchOptions(limits=limits, executor=self._pools.hashing_threads),
            )
        except (Unavailable, Refused, Untrusted) as error:
            if error.code in FINAL:
                raise
            _log.info("small files are fetched one by one", count=len(wants), why=str(error))

    def _not_stored(self, files: Sequence[Want]) -> list[Want]:
        return [want for want in files if not self._store.has(want.digest)]

    async def require_objects(self, objects: Sequence[SideObject]) -> None:
        """Fetch missing side objects, each from any peer. Raises what a peer failed with, or NotFound (NO-HOLDER)."""
        for failure in (await self.fetch_objects(objects)).values():
            raise failure

    async def fetch_objects(self, objects: Sequence[SideObject]) -> dict[SideObject, ComityError]:
        """Fetch missing side objects, each from any peer, many with one call. Returns those that are still missing,
        each with the reason. Raises OutOfSpace."""

        async def fetch(source: CopySource, batch: Sequence[SideObject]) -> Collection[SideObject]:
            return await self._side_objects.fetch_some(source.client, batch, source.peer_key)

        missing = await self._pools.files(missing_side_objects, self._store, objects)
        return await self._peers.share(missing, next_batch, fetch) if missing else {}

    async def require_records(self, manifest: Manifest, index: PieceIndex) -> None:
        """Make sure that the piece records of the files of an artifact, which are stored, are stored too in the layouts
        of this index. Raises Untrusted if a layout does not match its file."""
        derived, larger = list[FileRecords](), list[tuple[Want, PieceLayout]]()
        for want, layout in await self._pools.hashing(self._uploads.unrecorded, manifest, index):
            records = derived_records(want.size, want.digest, layout) if layout.layout == FIXED_LAYOUT else None
            if records is None:  # how many pieces a tensor layout has, the header of the file says
                larger.append((want, layout))
            else:
                derived.append(FileRecords(want.digest, want.size, layout.layout, encode_records(records)))
        if derived:
            await self._ledger.run(self._ledger.tables.pieces.store_all, derived)
        for want, layout in larger:
            await self._pools.whole_files(self._uploads.records, want, layout.layout)
            await self._known(want, layout)  # compares the root

    async def _store_records(self, want: Want, layout: PieceLayout, records: Sequence[PieceRecord]) -> None:
        store = self._ledger.tables.pieces.store_records
        await self._ledger.run(store, want.digest, want.size, layout.layout, encode_records(records))

    async def _fetch(
        self,
        want: Want,
        layout: PieceLayout,
        holders: Sequence[CopySource],
        source_set: _SourceSet,
        download: FileDownload,
        limits: TransferLimits,
        received: Callable[[int], None],
    ) -> FetchResult:
        if not holders:
            why = f"no reachable peer has a complete copy ({short(want.digest)})"
            raise NotFound(f"{want.path} not found", why=why, code="NO-HOLDER")
        records = await self._records(want, layout, holders)
        partial = await self._pools.files(self._store.partial_path, want.digest)
        wanted = WantedFile(want.digest, want.size, records)
        download.start(wanted, partial)
        fetched = await fetch_file(
            wanted,
            await source_set.sources_of(holders, want),
            partial,
            local=self._local_source(),
            on_progress=received,
            observer=download,
            options=FetchOptions(
                limits=limits,
                health=source_set.health,
                executor=self._pools.hashing_threads,
                past_cache=lambda: want.size > PIECE_SIZE and not download.readers,  # who waits for the next pieces
            ),
        )
        await self._pools.files(_require_cut, partial, want, layout, records)
        # Records first: after a crash in between there may be records without a blob, never a blob without records.
        await self._store_records(want, layout, records)
        if fetched.states:
            await self._ledger.run(self._uploads.remember_states, want.digest, want.size, fetched.states)
        await self._pools.files(self._store.admit, partial, want.digest, want.size)
        return fetched

    def _record_transfer(self, want: Want, fetched: FetchResult, name: str, names: Mapping[SourceKey, str]) -> None:
        for peer, count in fetched.bytes_by_host.items():
            self._metrics.pull_bytes.labels(names[peer]).inc(count)
        for source in fetched.dropped:
            self._metrics.verify_failures.labels("piece").inc()
            _log.warning("source dropped", peer=names[source], blob=want.digest, why=fetched.dropped[source])
        for source, faults in fetched.faults.items():
            if source not in fetched.dropped:
                _log.warning("source failed", peer=names[source], blob=want.digest, why="; ".join(faults))
        _log.info(
            "fetched",
            name=name,
            path=want.path,
            blob=want.digest,
            size=want.size,
            sources={names[source]: count for source, count in fetched.bytes_by_source.items()},
            reused=fetched.reused,
            resumed=fetched.resumed,
        )

    async def _holders(self, digests: Sequence[Digest], answer: float) -> dict[Digest, list[CopySource]]:
        """The peers that have each blob, of those that answer within `answer` seconds. One that takes longer than usual
        is waited for only while a blob has no other holder."""
        holders: dict[Digest, list[CopySource]] = {digest: [] for digest in digests}
        for start in range(0, len(digests), STAT_DIGESTS):
            asked = digests[start : start + STAT_DIGESTS]

            async def present(source: CopySource, asked: Sequence[Digest] = asked) -> frozenset[Digest]:
                return frozenset(stat.digest for stat in await source.client.stat(asked) if stat.have)

            def all_held(found: Mapping[CopySource, frozenset[Digest]], asked: Sequence[Digest] = asked) -> bool:
                return frozenset(asked) <= frozenset().union(*found.values())

            answers = await self._peers.everyone(present, answer, enough=all_held)
            for source, have in answers.found.items():
                for digest in have:
                    holders[digest].append(source)
            for source, error in answers.failed.items():
                _log.info("peer did not answer", peer=source.name, why=str(error))
        return holders

    async def _records(self, want: Want, layout: PieceLayout, holders: Sequence[CopySource]) -> list[PieceRecord]:
        """The records that the piece index names: derived or stored ones, or from the first holder that has them."""
        known = derived_records(want.size, want.digest, layout) or await self._known(want, layout)
        if known is not None:
            return known
        most = min(RECORDS, layout.count * RECORD_BYTES)

        async def ask(source: CopySource) -> list[PieceRecord]:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                data = await source.client.records(want.digest, layout.layout, most)
            return check_records(data, size=want.size, expected=layout)

        otherwise = NotFound("no piece records", why=short(want.digest), code="NO-RECORDS")
        return await self._peers.first(ask, otherwise, holders)

    async def _known(self, want: Want, layout: PieceLayout) -> list[PieceRecord] | None:
        data = await self._ledger.run(self._ledger.tables.pieces.records, want.digest, layout.layout)
        return None if data is None else check_records(data, size=want.size, expected=layout)

    def _local_source(self) -> LocalSource | None:
        """Pieces of files that are stored already; their bytes are verified as a peer's are."""
        store, pieces = self._store, self._ledger.tables.pieces
        if not isinstance(store, FolderStore):
            return None

        def find(record: PieceRecord) -> Iterator[tuple[Path, int]]:
            for place in pieces.find_piece(record.sha256):
                yield store.path(place.blob), place.offset

        return LocalSource(find)

    @asynccontextmanager
    async def _lock(self, digest: Digest) -> AsyncIterator[None]:
        """Lock the partial file of a blob; waits for other processes and tasks."""
        while True:
            with lock_if_free(self._store.partial_path(digest).parent, digest) as free:
                if free:
                    yield
                    return
            await asyncio.sleep(LOCK_POLL)


def _require_cut(partial: Path, want: Want, layout: PieceLayout, records: Sequence[PieceRecord]) -> None:
    """Compare the lengths of the records of a tensor layout with the header of the file: those of a false index would
    be stored for every artifact that has the file. Blocking. Raises Untrusted (PIECE-INDEX); the partial file stays
    for another index."""
    if layout.layout != TENSOR_LAYOUT:
        return
    with disk_errors(f"{want.path} was not read"), partial.open("rb") as file:
        cut = piece_lengths(want.path, file, want.size)
    if cut != (TENSOR_LAYOUT, [record.length for record in records]):
        why = f"it does not cut {want.path} as the header of the file says"
        raise Untrusted("piece index refused", why=why, code="PIECE-INDEX")
