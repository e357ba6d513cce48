"""A file that is read while it comes in, whatever brings it here.

What a reader gets is read from the disk in slices, and hashed in the memory that it is sent from. The end of the file
is not for readers until the whole has its hash: nobody can have all of a file that turns out to be another one.


Files on their way into the store, and those who read them meanwhile.

Whoever fetches a file announces it here, whoever wants it before it is whole finds it here: so there is one fetch,
however many wait. What a reader gets was verified twice, as a piece when it came in, and as a slice in the memory that
it is sent from. The last piece is not for readers: they find it in the store, once the whole file has its hash.


Single files from peers: who has them, by which pieces they are checked, and into the store."""

from __future__ import annotations

import asyncio
import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from comity.content.blobs import FolderStore, lock_if_free
from comity.content.durable import disk_errors
from comity.node.context import NodeContext, Pools
from comity.node.replication.link import PeerLink
from comity.node.replication.side_objects import SideObjectFetcher, absent
from comity.node.uploads import Uploads, Want
from comity.transfer.fetch import Fetched, fetch_file
from comity.transfer.scheduler import SourceHealth, TransferLimits, WantedFile
from comity.transfer.sources import BlobSource, LocalSource, RangeSource, SourceKey, offering
from comity.trust.artifact import PieceLayout, PieceRecord, check_records, encode_records
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, NotFound, Unavailable, Untrusted
from comity.trust.statement import SideObject
from comity.wire.limits import STAT_DIGESTS

SLICE: Final = 256 * 1024
"""Bytes that a reader gets at a time: all that a client that takes nothing costs."""


class GrowingFile(ABC):
    """Touched by the event loop, but for slices read in threads.

    Attributes:
        readers: how many read it now.
    """

    def __init__(self) -> None:
        self.readers = 0
        self._over = False
        self._failure: ComityError | None = None
        self._change = asyncio.Event()

    def end(self, failure: ComityError | None = None) -> None:
        """It is whole and in the store, or it will not be."""
        self._over, self._failure = True, failure
        self._tell()

    async def read(self, offset: int, length: int, pools: Pools) -> AsyncGenerator[bytes, None]:
        """Verified bytes of a range, in order, as they come in.

        Ends early once the whole file is in the store: whoever reads goes on there. Raises what ended the fetch, and
        Unavailable (DISK, BLOB-CHANGED) where the partial file is not what was written.
        """
        end = offset + length
        while offset < end and await self._reach(offset):
            data = await pools.files(self._slice, offset, end)
            if data is None:  # it was just moved to its place, or thrown away
                await self._until_over()
                continue
            yield data
            offset += len(data)

    async def _reach(self, offset: int) -> bool:
        """Wait for the slice at `offset`; False where the file is whole and in the store."""
        while not self._over:
            if self._ready(offset):
                return True
            await self._wait(offset)
        if self._failure is not None:
            raise self._failure
        return False

    @abstractmethod
    def _ready(self, offset: int) -> bool:
        """Whether a reader may have the byte at `offset`."""

    async def _wait(self, offset: int) -> None:
        """Until something has changed."""
        await self._change.wait()

    @abstractmethod
    def _slice(self, offset: int, end: int) -> bytes | None:
        """Blocking. Bytes from `offset` to the end of its slice, or `end`; None where the partial file is gone."""

    async def _until_over(self) -> None:
        while not self._over:
            await self._change.wait()

    def _tell(self) -> None:
        self._change.set()
        self._change = asyncio.Event()


@contextmanager
def opened(path: Path, what: str) -> Iterator[int | None]:
    """A descriptor to read a partial file by; None where it is gone. Raises Unavailable (DISK)."""
    with disk_errors(f"{what} was not read"):
        descriptor: int | None = None
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)


def changed(what: str, part: str) -> Unavailable:
    return Unavailable(f"{what} changed", why=f"{part} is no longer what was written", code="BLOB-CHANGED")


Key: TypeAlias = tuple[Digest, PieceLayout]
"""The bytes, and the pieces by which they are checked: who believes in other pieces does not fly along."""


class FileDownload(GrowingFile):
    """One file under way: an `Audience` of its transfer.

    Attributes:
        driven: whether somebody is at work on it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.driven = False
        self._want: WantedFile | None = None
        self._partial = Path()
        self._here = bytearray()
        self._slices: dict[int, tuple[bytes, ...]] = {}
        self._awaited: Counter[int] = Counter()

    def depart(self, want: WantedFile, partial: Path) -> None:
        """Its pieces are known, and where they will lie."""
        self._want, self._partial, self._here = want, partial, bytearray(len(want.records))
        self._tell()

    def arrived(self, piece: int) -> None:
        self._here[piece] = True
        self._tell()

    def awaited(self) -> Collection[int]:
        return sorted(self._awaited)

    def _ready(self, offset: int) -> bool:
        if self._want is None:
            return False
        piece = self._want.at(offset)
        return bool(self._here[piece]) and piece < len(self._here) - 1

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
        with opened(self._partial, self._name) as descriptor:
            if descriptor is None:
                return None
            if piece not in self._slices:
                self._slices[piece] = self._cut(descriptor, piece)
            begin = start + number * SLICE
            data = os.pread(descriptor, min(SLICE, start + length - begin), begin)
        if hashlib.sha256(data).digest() != self._slices[piece][number]:
            raise changed(self._name, f"piece {piece}")
        return data[offset - begin : end - begin]

    def _cut(self, descriptor: int, piece: int) -> tuple[bytes, ...]:
        """The hashes of a piece's slices, once for all readers, from bytes that have the piece's hash."""
        assert self._want is not None
        start, length = self._want.span(piece)
        whole, slices = hashlib.sha256(), []
        for at in range(start, start + length, SLICE):
            data = os.pread(descriptor, min(SLICE, start + length - at), at)
            whole.update(data)
            slices.append(hashlib.sha256(data).digest())
        if whole.digest() != self._want.records[piece].sha256:
            raise changed(self._name, f"piece {piece}")
        return tuple(slices)

    @property
    def _name(self) -> str:
        assert self._want is not None
        return f"blob {short(self._want.digest)}"


class FileDownloads:
    """The files under way. Touched by the event loop only."""

    def __init__(self) -> None:
        self._all: dict[Key, FileDownload] = {}

    def find(self, key: Key) -> FileDownload | None:
        return self._all.get(key)

    def announce(self, key: Key) -> FileDownload:
        """The flight that is under way or will be: whoever announces it sees to it that it is driven, or given up."""
        return self._all.setdefault(key, FileDownload())

    @contextmanager
    def driven(self, key: Key) -> Iterator[FileDownload]:
        """Announced, at work inside the block, and over when it ends: well, unless something is raised."""
        flight = self.announce(key)
        flight.driven = True
        failure: ComityError | None = given_up()
        try:
            yield flight
            failure = None
        except ComityError as error:
            failure = error
            raise
        finally:
            self._all.pop(key, None)
            flight.end(failure)

    def give_up(self, key: Key, failure: ComityError) -> None:
        """End a flight that nobody drives; one that somebody does goes on."""
        flight = self._all.get(key)
        if flight is not None and not flight.driven:
            del self._all[key]
            flight.end(failure)


def given_up() -> Unavailable:
    return Unavailable("the file was not fetched to its end", why="the node stopped, or nobody waited", code="GIVEN-UP")


AT_LEISURE: Final = TransferLimits(patience=60.0, streams=4, buffers=6)
"""A file of which no verified piece comes for a minute is left for a later try. 24 MiB of buffers a copy."""
LEISURE: Final = 30.0
"""Seconds that a peer has to say which files of an artifact it has, and to give the records of one."""
LOCK_POLL: Final = 0.2

_log: Final = structlog.get_logger("comity.node.artifacts")


class _Ways:
    """What the files of one artifact share: what is known of each source, and the second ways to the holders."""

    def __init__(self) -> None:
        self.standings: dict[SourceKey, SourceHealth] = {}
        self.names: dict[SourceKey, str] = {}
        self._over_https: dict[SourceKey, RangeSource] = {}

    async def to(self, holders: Sequence[PeerLink], want: Want) -> list[BlobSource]:
        """Every source of a blob that the holders are, or know of."""
        for link in holders:
            if link.key not in self._over_https:
                self._over_https[link.key] = link.over_https()
        second = await offering((self._over_https[link.key] for link in holders), want.digest, want.size)
        sources: list[BlobSource] = [*holders, *second]
        self.names |= {source.key: source.name for source in sources}
        return sources

    def close(self) -> None:
        for source in self._over_https.values():
            source.close()


class FileFetcher:
    """Fetches files into the store. Several calls may run at once.

    Args:
        links: the peers there are now.

    Attributes:
        flights: the files that are being fetched.
    """

    def __init__(
        self, core: NodeContext, links: Callable[[], Iterable[PeerLink]], side_objects: SideObjectFetcher
    ) -> None:
        self._core = core
        self._side_objects = side_objects
        self._links = links
        self._arrivals = Uploads(core)
        self.flights = FileDownloads()

    async def fetch(
        self,
        files: Sequence[tuple[Want, PieceLayout]],
        *,
        name: str,
        limits: TransferLimits = AT_LEISURE,
        answer: float = LEISURE,
    ) -> None:
        """Have every file, whole, verified and durable.

        Args:
            answer: seconds that a peer has to say which of them it has.

        Raises Unavailable and NotFound where no peer gives one, Untrusted where the pieces are not the file's,
        OutOfSpace. What was verified is kept for the next try.
        """
        if not files:
            return
        holders = await self._holders([want.digest for want, _ in files], answer)
        with closing(_Ways()) as ways:
            for want, layout in files:
                async with self._claim(want.digest):
                    with self.flights.driven((want.digest, layout)) as flight:
                        if not await self._core.pools.files(self._core.store.has, want.digest):
                            fetched = await self._fetch(want, layout, holders[want.digest], ways, flight, limits)
                            self._account(want, fetched, name, ways.names)

    async def require_objects(self, objects: Sequence[SideObject]) -> None:
        """Have side objects, each from whoever has it. Raises the last peer's failure, or NotFound (NO-HOLDER)."""
        for item in await self._core.pools.files(absent, self._core.store, objects):
            await self._require_object(item)

    async def _require_object(self, item: SideObject) -> None:
        why = f"no peer answers that has {short(item.digest)}"
        failure: Exception = NotFound("a side object is nowhere to be had", why=why, code="NO-HOLDER")
        for link in sorted(self._links(), key=lambda link: not link.state.reachable):
            try:
                await self._side_objects.fetch_all(link.client, (item,), link.peer_key)
                return
            except (ComityError, TimeoutError) as error:
                failure = error
        raise failure

    async def require_records(self, want: Want, layout: PieceLayout) -> None:
        """Make sure of the piece records of a blob that is here. Raises Untrusted where `layout` is not its own."""
        if await self._known(want, layout) is None:
            await self._core.pools.hashing(self._arrivals.records, want)
            if await self._known(want, layout) is None:
                why = f"{want.path} is not cut as {layout.layout}"
                raise Untrusted("piece index refused", why=why, code="PIECE-INDEX")

    async def _fetch(
        self,
        want: Want,
        layout: PieceLayout,
        holders: Sequence[PeerLink],
        ways: _Ways,
        flight: FileDownload,
        limits: TransferLimits,
    ) -> Fetched:
        if not holders:
            why = f"no peer that answers has it ({short(want.digest)})"
            raise NotFound(f"{want.path} is nowhere whole", why=why, code="NO-HOLDER")
        records = await self._records(want, layout, holders)
        partial = await self._core.pools.files(self._core.store.scratch, want.digest)
        wanted = WantedFile(want.digest, want.size, records)
        flight.depart(wanted, partial)
        fetched = await fetch_file(
            wanted,
            await ways.to(holders, want),
            partial,
            local=self._local(),
            limits=limits,
            audience=flight,
            standings=ways.standings,
            executor=self._core.pools.hashing_threads,
        )
        # The records first: a node that dies in between has some of no blob, and never a blob without any.
        remember = self._core.ledger.pieces.remember_records
        await self._core.pools.ledger(remember, want.digest, want.size, layout.layout, encode_records(records))
        await self._core.pools.files(self._core.store.admit, partial, want.digest, want.size)
        return fetched

    def _account(self, want: Want, fetched: Fetched, name: str, names: Mapping[SourceKey, str]) -> None:
        for peer, count in fetched.bytes_by_host.items():
            self._core.metrics.pull_bytes.labels(names[peer]).inc(count)
        for source in fetched.dropped:
            self._core.metrics.verify_failures.labels("piece").inc()
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

    async def _holders(self, digests: Sequence[Digest], answer: float) -> dict[Digest, list[PeerLink]]:
        """Which peers say that they have each blob. All are asked at once; who does not answer has nothing."""
        links = [link for link in self._links() if link.address]
        answers = await asyncio.gather(*(self._held_by(link, digests, answer) for link in links))
        return {
            digest: [link for link, held in zip(links, answers, strict=True) if digest in held] for digest in digests
        }

    async def _held_by(self, link: PeerLink, digests: Sequence[Digest], answer: float) -> set[Digest]:
        held: set[Digest] = set()
        try:
            async with asyncio.timeout(answer):
                for start in range(0, len(digests), STAT_DIGESTS):
                    stats = await link.client.stat(digests[start : start + STAT_DIGESTS])
                    held.update(stat.digest for stat in stats if stat.have)
        except (ComityError, TimeoutError) as error:
            _log.info("a peer was not asked", peer=link.name, why=str(error) or f"no answer in {answer:g} s")
        return held

    async def _records(self, want: Want, layout: PieceLayout, holders: Sequence[PeerLink]) -> list[PieceRecord]:
        """The records that the piece index names: from here, or from the first peer that has them."""
        known = await self._known(want, layout)
        if known is not None:
            return known
        failure: ComityError = NotFound("no piece records", why=short(want.digest), code="NO-RECORDS")
        for link in holders:
            try:
                async with asyncio.timeout(LEISURE):
                    data = await link.client.records(want.digest, layout.layout)
                return check_records(data, size=want.size, expected=layout)
            except ComityError as error:
                failure = error
            except TimeoutError:
                failure = Unavailable("no piece records yet", why=f"{link.name} is slow", code="SLOW")
        raise failure

    async def _known(self, want: Want, layout: PieceLayout) -> list[PieceRecord] | None:
        data = await self._core.pools.ledger(self._core.ledger.pieces.records, want.digest, layout.layout)
        return None if data is None else check_records(data, size=want.size, expected=layout)

    def _local(self) -> LocalSource | None:
        """Pieces of files that are here already; their bytes are hashed like anybody's."""
        store, pieces = self._core.store, self._core.ledger.pieces
        if not isinstance(store, FolderStore):
            return None

        def find(record: PieceRecord) -> Iterator[tuple[Path, int]]:
            for place in pieces.find_piece(record.sha256):
                yield store.path(place.blob), place.offset

        return LocalSource(find)

    @asynccontextmanager
    async def _claim(self, digest: Digest) -> AsyncIterator[None]:
        """The right to write the partial file of a blob, once nobody else has it."""
        while True:
            with lock_if_free(self._core.store.scratch(digest).parent, digest) as free:
                if free:
                    yield
                    return
            await asyncio.sleep(LOCK_POLL)
