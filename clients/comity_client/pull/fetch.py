"""Fetch the files of a pull from many nodes, piece by piece, with reuse of pieces that are already on disk.

Piece indexes come from statements; a wrong one costs a retry, never a wrong file, because the SHA-256 of the manifest
decides. Small files are fetched in batches (`small_files`). Each file is fetched under a lock, so that two pulls share
the work; small ones have one lock together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.request import getproxies

from comity.content.blobs import BlobLock
from comity.content.durable import write_file
from comity.hashing import ENGINE
from comity.rules.pieces import (
    CHAINED_LAYOUT,
    FIXED_LAYOUT,
    TENSOR_LAYOUT,
    PieceIndex,
    PieceLayout,
    chained_records,
    check_records,
    derived_records,
    encode_records,
)
from comity.transfer.fetch import FetchOptions, FetchResult, fetch_file
from comity.transfer.limits import TransferLimits
from comity.transfer.links import SourceHealth
from comity.transfer.pieces import WantedFile
from comity.transfer.range_source import RangeSource, sources_with_blob
from comity.transfer.sources import BlobSource, LocalSource, SourceKey, names_of
from comity.trust.artifact import PIECE_SIZE, FileEntry, Manifest, PieceRecord, check_chained
from comity.trust.claims import ParsedClaims
from comity.trust.copies import hold_of
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.statement_kinds import HOLD_PREDICATES, OBSERVED
from comity.trust.statements import Published
from comity.trust.upstream import Observed
from comity.wire.client import NodeClient
from comity.wire.tls import CertificatePin

from comity_client.events import FileDone, Note, OnEvent, Progress, SourceDropped, SourceFailed, Waiting, first_error
from comity_client.evidence.proofs import fetch_object
from comity_client.pull.destinations import READ_ONLY, Destination, has_file
from comity_client.pull.first_files import ArrivedFile, FirstFiles
from comity_client.pull.placed_pieces import PlacedPieces
from comity_client.pull.small_files import SMALL_FILES, BytesBySource, SmallFiles, is_small, whole_record
from comity_client.session import RemoteNode, Session

CHAIN_TIMEOUT: Final = 5.0
"""Seconds that nodes have to give chained records; without them a file is fetched by the signed index."""
WEIGHTS: Final = (".safetensors", ".gguf")
"""How the names of files end that are cut between tensors."""
SECOND_TIMEOUT: Final = 1.0
"""Seconds that a second node has after the first answer."""


class Layouts:
    """The piece indexes of one artifact; each is fetched only if those before it failed.

    Args:
        holders: the nodes that claim a copy, which are asked for piece records before all others.
    """

    def __init__(
        self, session: Session, manifest: Manifest, indexes: Iterable[Digest], holders: Collection[RemoteNode] = ()
    ) -> None:
        self._session = session
        self._holders = holders
        self._manifest = manifest
        self._digests = tuple(dict.fromkeys(indexes))
        self._read: dict[Digest, bytes] = {}
        self._parsed: dict[Digest, dict[str, PieceLayout]] = {}
        self._reading = asyncio.Lock()

    @classmethod
    def named(
        cls,
        session: Session,
        manifest: Manifest,
        claims: ParsedClaims,
        published: Published | None,
        holders: Collection[RemoteNode] = (),
    ) -> Layouts:
        """The indexes that statements name for the artifact, that of `published` before the others."""
        first = published.pieces.digest if published else None
        return cls(session, manifest, named_indexes(claims, manifest.digest, first), holders)

    async def layouts_of(self, entry: FileEntry) -> AsyncGenerator[WantedFile, None]:
        """Yield the file as each index divides it. Raises Unavailable if no index gives records."""
        failures: list[str] = []
        usable = False
        for digest in self._digests:
            try:
                layout = (await self._index(digest))[entry.path]
                want = WantedFile(entry.sha256, entry.size, await self._records(entry, layout))
            except KeyError:
                failures.append(f"index {short(digest)} does not list it")
            except ComityError as error:
                failures.append(f"index {short(digest)}: {error}")
            else:
                usable = True
                yield want
        if not usable:
            why = "; ".join(failures) or "no statement names a piece index"
            raise Unavailable(f"no usable piece index for {entry.path}", why=why, code="PIECE-INDEX")

    async def chained(self, entry: FileEntry) -> WantedFile | None:
        """Return the file as unsigned chained records divide it, so that one hash of each byte proves it; None if it is
        one piece, if no node gives such records, or if this machine cannot use them.

        A second node is asked too, because false records let a node send wrong bytes that are found only later. If
        the two differ, one of them lies, and none is used.
        """
        if ENGINE is None or entry.size <= PIECE_SIZE:
            return None
        found: list[PieceRecord] | None = None
        asked = self._session.answers(lambda node: node.records(entry.sha256, CHAINED_LAYOUT), first=self._holders)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHAIN_TIMEOUT) as limit, aclosing(asked) as offers:
                async for data in offers:
                    with contextlib.suppress(Malformed, Untrusted):
                        records = check_chained(data, size=entry.size, digest=entry.sha256)
                        if found is not None:
                            found = records if records == found else None
                            break
                        found = records
                        limit.reschedule(asyncio.get_running_loop().time() + SECOND_TIMEOUT)
        return None if found is None else WantedFile(entry.sha256, entry.size, found, chained=True)

    def begin(self, entries: Iterable[FileEntry]) -> None:
        """Ask ahead for the records of the first few of these files, by the first index, and at the same time in the
        layout that the index will probably name."""
        if self._digests:
            few = [entry for entry in entries if not is_small(entry)][:FILES_AT_ONCE]
            for entry in few:
                if (layout := likely_layout(entry)) is not None:
                    self._session.ahead.begin(_guess(entry, layout), partial(self._first_records, entry, layout))
            self._session.ahead.begin(self, partial(self._begin_records, self._digests[0], few))

    async def _begin_records(self, digest: Digest, entries: Iterable[FileEntry]) -> None:
        with contextlib.suppress(ComityError):  # who needs them asks again
            index = await self._index(digest)
            for entry in entries:
                if (layout := index.get(entry.path)) and derived_records(entry.size, entry.sha256, layout) is None:
                    self._session.ahead.begin(*self._question(entry, layout))

    async def document(self) -> bytes:
        """Return the bytes of the first available index. Raises NotFound, Unavailable."""
        failure: ComityError = NotFound("no statement names a piece index")
        for digest in self._digests:
            try:
                return await self._bytes(digest)
            except ComityError as error:
                failure = error
        raise failure

    async def _index(self, digest: Digest) -> dict[str, PieceLayout]:
        if digest not in self._parsed:
            self._parsed[digest] = dict(PieceIndex.parse(await self._bytes(digest)).files)
        return self._parsed[digest]

    async def _bytes(self, digest: Digest) -> bytes:
        async with self._reading:
            if digest not in self._read:
                self._read[digest] = await fetch_object(self._session, digest)
        return self._read[digest]

    async def _records(self, entry: FileEntry, layout: PieceLayout) -> list[PieceRecord]:
        if (derived := derived_records(entry.size, entry.sha256, layout)) is not None:
            return derived
        return await self._session.ahead.take(*self._question(entry, layout))

    def _question(
        self, entry: FileEntry, layout: PieceLayout
    ) -> tuple[tuple[Layouts, Digest, PieceLayout], Callable[[], Coroutine[Any, Any, list[PieceRecord]]]]:
        """The question for the records of a file: its key, and how it is asked."""
        return (self, entry.sha256, layout), partial(self._ask_records, entry, layout)

    async def _first_records(self, entry: FileEntry, layout: str) -> bytes:
        """What the first node that has records of a file in a layout answers; not verified."""
        asked = self._session.answers(lambda node: node.records(entry.sha256, layout), first=self._holders)
        async with aclosing(asked) as offers:
            async for data in offers:
                return data
        raise Unavailable("no records", why=f"no node serves those of {entry.path} in {layout}")

    async def _ask_records(self, entry: FileEntry, layout: PieceLayout) -> list[PieceRecord]:
        with contextlib.suppress(ComityError):  # else nodes are asked again, now by what the index says
            if (data := await self._session.ahead.given(_guess(entry, layout.layout))) is not None:
                return check_records(data, size=entry.size, expected=layout)
        refusal: ComityError | None = None
        asked = self._session.answers(lambda node: node.records(entry.sha256, layout.layout), first=self._holders)
        async with aclosing(asked) as offers:
            async for data in offers:
                try:
                    return check_records(data, size=entry.size, expected=layout)
                except (Malformed, Untrusted) as error:
                    refusal = error
        raise refusal or Unavailable("no records", why=f"no node serves those of {entry.path} in {layout.layout}")


def likely_layout(entry: FileEntry) -> str | None:
    """The layout that an index will probably name for a file of several pieces; None for one that is probably one
    piece, whose records nobody needs to send."""
    if entry.path.lower().endswith(WEIGHTS):
        return TENSOR_LAYOUT
    return FIXED_LAYOUT if entry.size > PIECE_SIZE else None


def _guess(entry: FileEntry, layout: str) -> tuple[str, Digest, str]:
    """The key of a question for records that is asked before an index is read."""
    return "records", entry.sha256, layout


async def fetch_small_file(session: Session, entry: FileEntry) -> bytes:
    """Return one file of an artifact, of at most 64 MiB, from the first node that serves it; its hash is verified.
    Raises NotFound, Untrusted, Unavailable."""
    if not entry.size:
        return b""  # an empty file is no blob of a node
    return await session.first(lambda node: node.object(entry.sha256), f"no node serves {entry.path}")


def named_indexes(readings: ParsedClaims, artifact: Digest, first: Digest | None) -> list[Digest]:
    """Return the piece indexes that statements name for the artifact, `first` before the others."""
    found = [first] if first else []
    found += [publication.published.pieces.digest for publication in readings.publications]
    for entry in readings.entries:
        if entry.statement.predicate in HOLD_PREDICATES:
            with contextlib.suppress(Malformed):
                held = hold_of(entry.statement, artifact)
                found += [held.pieces.digest] if held is not None else []
        if entry.statement.predicate == OBSERVED:
            with contextlib.suppress(Malformed):
                found.append(Observed.parse(entry.statement).pieces.digest)
    return found


def holders(session: Session, readings: ParsedClaims, artifact: Digest) -> list[RemoteNode]:
    """Return the nodes that claim a copy of the artifact. A false claim costs a call that brings nothing."""
    claimed = set()
    for entry in readings.entries:
        with contextlib.suppress(Malformed):
            if entry.statement.predicate in HOLD_PREDICATES and hold_of(entry.statement, artifact) is not None:
                claimed.add(entry.statement.by)
    return [node for node in session.nodes if node.record.node in claimed]


@dataclass(slots=True)
class _Reached:
    """A client at an address of a node, and whether anything has arrived from there."""

    client: NodeClient
    arrived: bool = False


class NodeSource:
    """Reads blobs from one node; after a failure the next attempt uses another address, if there is one."""

    def __init__(self, node: RemoteNode) -> None:
        self._node = node
        self._failed: dict[str, ComityError] = {}
        self.key = SourceKey("node", sha256(node.line))

    @property
    def name(self) -> str:
        return self._node.name

    @property
    def host(self) -> SourceKey:
        return self.key

    def https_source(self) -> RangeSource:
        """Return a source that reads from the same node over HTTPS. The caller closes it."""
        return RangeSource(
            self.key,
            self.name,
            CertificatePin.of(self._node.record.tls),
            lambda digest: self._node.ask(lambda client: client.locations(digest)),
        )

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        async with self._reached() as reached, aclosing(reached.client.read(digest, offset, length)) as chunks:
            async for chunk in chunks:
                reached.arrived = True
                if length >= PIECE_SIZE:
                    self._node.note_addresses()
                yield chunk

    async def objects(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        """As `ObjectSource.objects`."""
        async with self._reached() as reached, aclosing(reached.client.objects(digests, uncompressed=True)) as objects:
            async for found in objects:
                reached.arrived = True
                yield found

    @asynccontextmanager
    async def _reached(self) -> AsyncIterator[_Reached]:
        """An address of the node, which is left for another one if it fails in the block."""
        if not (address := await self._node.reached(self._failed)):
            self._failed.clear()  # each has failed since they were tried in turn
            address = await self._node.reached(self._failed)
        if not address:
            none_known = Unavailable(f"{self.name} cannot be reached", why="no open address is known")
            raise next(reversed(self._failed.values()), none_known)
        reached = _Reached(self._node.client(address))
        try:
            yield reached
        except NotFound:
            raise
        except Unavailable as error:
            self._leave(address, error)
            raise
        except asyncio.CancelledError:
            if not reached.arrived:  # it may be silent for ever
                self._leave(address, Unavailable(f"{address} sends nothing", code="SLOW"))
            raise

    def _leave(self, address: str, why: ComityError) -> None:
        self._node.left(address, why)
        self._failed[address] = why


def node_sources(nodes: Iterable[RemoteNode]) -> list[NodeSource]:
    """Return one source for each distinct node. One whose address is not known yet is found by asking others."""
    sources = {source.key: source for source in map(NodeSource, nodes)}
    return list(sources.values())


def https_sources(sources: Iterable[NodeSource]) -> list[RangeSource]:
    """Return HTTPS sources for the same nodes; an empty list behind an HTTPS proxy, which only gRPC supports here."""
    if "https" in getproxies():
        return []
    return [source.https_source() for source in sources]


FILES_AT_ONCE: Final = 4
LARGE: Final = 16 * 1024 * 1024
"""Bytes from which a file uses all sources and buffers by itself. Such files are fetched one at a time, which bounds
memory to that of one transfer.
"""
LOCK_POLL: Final = 0.2
"""Seconds between two attempts to get a lock of another process."""


class PullFetch:
    """Fetches the files of one pull into `incoming` of its destination, verified. One that another pull has placed
    there since is hashed, and not fetched.

    After `run`, `tally` has the origin of the bytes, `records` the pieces of each file, and `chains` the encoded
    chained records of files of several pieces.
    """

    def __init__(
        self,
        destination: Destination,
        layouts: Layouts,
        sources: Sequence[NodeSource],
        placed: PlacedPieces,
        limits: TransferLimits,
        first: FirstFiles,
        on_event: OnEvent,
    ) -> None:
        self._incoming = destination.incoming
        self._place_of = destination.path_of
        self._first = first
        self._layouts = layouts
        self._sources = sources
        self._other_ways = https_sources(sources)
        self._placed = placed
        self._limits = limits
        self._on_event = on_event
        self._source_health: dict[SourceKey, SourceHealth] = {}
        self._names = names_of([*sources, *self._other_ways])
        self._small = SmallFiles(destination.incoming, destination.path_of, placed, on_event)
        self.tally = BytesBySource()
        self.records: dict[Digest, Sequence[PieceRecord]] = {}
        self.chains: dict[Digest, bytes] = {}

    async def run(self, entries: Sequence[FileEntry]) -> None:
        """Fetch all `entries`, whose digests are distinct, to `incoming/<sha256>`, but those that are in place now.

        Raises as `fetch_file` does for the first file that fails; verified data are kept for the next attempt.
        """
        try:
            await self._run(entries)
        finally:
            for source in self._other_ways:
                source.close()

    def remember(self, entries: Iterable[FileEntry]) -> None:
        """Keep the pieces of the fetched files for later pulls, but of those that another pull placed. Blocking."""
        fetched = (entry for entry in entries if entry.sha256 in self.records)
        try:
            self._placed.remember_all({self._place_of(entry): self.records[entry.sha256] for entry in fetched})
        except Unavailable as error:
            self._on_event(Note(str(error)))

    async def _run(self, entries: Sequence[FileEntry]) -> None:
        turn, alone = asyncio.Semaphore(FILES_AT_ONCE), asyncio.Lock()

        async def one(entry: FileEntry) -> None:
            semaphore = alone if entry.size >= LARGE else turn
            async with semaphore, locked(self._incoming, entry.sha256, entry.path, self._on_event):
                await self._fetch(entry)

        async def together(small: Sequence[FileEntry]) -> None:
            for entry in await self._fetch_small(small):
                tasks.create_task(one(entry))

        small = [entry for entry in entries if is_small(entry)]
        try:
            async with asyncio.TaskGroup() as tasks:
                if small:
                    tasks.create_task(together(small))
                for entry in entries:
                    if not is_small(entry):
                        tasks.create_task(one(entry))
        except* ComityError as failures:
            raise first_error(failures) from None

    async def _fetch_small(self, entries: Sequence[FileEntry]) -> Sequence[FileEntry]:
        """Fetch small files in batches. Returns those that no source gives this way."""
        options = FetchOptions(limits=self._limits, health=self._source_health)
        async with locked(self._incoming, SMALL_FILES, entries[0].path, self._on_event):
            left = await self._small.fetch(entries, self._sources, options, self._first)
        self.tally.add(self._small.tally)
        fetched = {entry.sha256 for entry in entries} - {entry.sha256 for entry in left}
        self.records |= {each.sha256: [whole_record(each)] for each in entries if each.sha256 in fetched and each.size}
        return left

    async def _fetch(self, entry: FileEntry) -> None:
        if await asyncio.to_thread(self._was_placed, entry):
            self.tally.reused += entry.size
            self._on_event(Progress(entry.path, entry.size))
            self._on_event(FileDone(entry.path, {}, entry.size))
            return
        if (arrived := await self._first.take(entry)) is not None:
            await self._keep(entry, arrived)
            return
        failure: ComityError = Unavailable(f"{entry.path} cannot be fetched", why="no piece index is known")
        second = await sources_with_blob(self._other_ways, entry.sha256, entry.size)
        sources: list[BlobSource] = [*self._sources, *second]
        async for want, records, reusable in self._ways(entry):
            try:
                fetched = await fetch_file(
                    want,
                    sources,
                    self._incoming / entry.sha256,
                    local=LocalSource(self._local_pieces) if reusable else None,
                    on_progress=lambda count: self._on_event(Progress(entry.path, count)),
                    options=FetchOptions(limits=self._limits, health=self._source_health),
                )
            except Untrusted as error:
                if error.code != "PIECE-INDEX":
                    raise
                failure = error
                continue
            self._done(entry, fetched)
            self.records[entry.sha256] = records
            if fetched.states:
                chained = chained_records(entry.size, fetched.states, entry.sha256)
                self.chains[entry.sha256] = encode_records(chained)
            return
        raise failure

    async def _keep(self, entry: FileEntry, arrived: ArrivedFile) -> None:
        """Write a file that was asked for before the verdict."""
        await asyncio.to_thread(write_file, self._incoming / entry.sha256, arrived.data, mode=READ_ONLY)
        self.records[entry.sha256] = await self._records(entry, arrived.data)
        by_node = {self._names[source]: count for source, count in arrived.by_source.items()}
        self.tally.add(BytesBySource(by_node))
        self._on_event(Progress(entry.path, entry.size))
        self._on_event(FileDone(entry.path, by_node, 0))

    async def _records(self, entry: FileEntry, data: bytes) -> Sequence[PieceRecord]:
        """The records by which later pulls find pieces of the file; its own where no index has right ones."""
        with contextlib.suppress(Unavailable):
            async with aclosing(self._layouts.layouts_of(entry)) as layouts:
                async for want in layouts:
                    pieces = zip(want.offsets, want.records, strict=False)
                    if all(sha256(data[at : at + r.length]) == r.sha256.hex() for at, r in pieces):
                        return want.records
        return [whole_record(entry)]

    def _was_placed(self, entry: FileEntry) -> bool:
        """Whether another pull has fetched and placed the file since this one looked. Blocking. Raises Unavailable."""
        place = self._place_of(entry)
        return not (self._incoming / entry.sha256).exists() and place.exists() and has_file(place, entry)

    async def _ways(self, entry: FileEntry) -> AsyncGenerator[tuple[WantedFile, Sequence[PieceRecord], bool], None]:
        """Yield the file as different records divide it, the records by which later pulls find its pieces, and whether
        some of these may be here.

        Chained records come first, unless pieces may be here already: only plain hashes find them. After a piece that
        does not match a chain, the records of signed indexes tell which source was wrong.
        """
        untried = True
        async for want in self._layouts.layouts_of(entry):
            reusable = await asyncio.to_thread(self._reusable, want)
            if untried and not reusable:
                chained = await self._layouts.chained(entry)
                if chained is not None:
                    yield chained, want.records, False
            untried = False
            yield want, want.records, reusable

    def _reusable(self, want: WantedFile) -> bool:
        try:
            return self._placed.any_of(want.records)
        except Unavailable:
            return False

    def _local_pieces(self, record: PieceRecord) -> list[tuple[Path, int]]:
        try:
            return self._placed.find(record)
        except Unavailable:
            return []  # the index is a hint: without it the piece is fetched

    def _done(self, entry: FileEntry, fetched: FetchResult) -> None:
        self.tally.add_fetched(fetched, self._names)
        for source, why in fetched.dropped.items():
            self._on_event(SourceDropped(self._names[source], entry.path, why))
        for source, faults in fetched.faults.items():
            if source not in fetched.dropped:
                self._on_event(SourceFailed(self._names[source], entry.path, "; ".join(faults)))
        by_node = {self._names[node]: count for node, count in fetched.bytes_by_host.items()}
        self._on_event(FileDone(entry.path, by_node, fetched.reused))


@asynccontextmanager
async def locked(incoming: Path, digest: Digest, path: str, on_event: OnEvent) -> AsyncIterator[None]:
    """Hold the lock for one file, or `SMALL_FILES`, while the block runs; does not block the event loop. `path` is told
    while another process holds it."""
    lock, reported = BlobLock(incoming, digest), False
    while not lock.try_acquire():
        if not reported:
            on_event(Waiting(path))
            reported = True
        await asyncio.sleep(LOCK_POLL)
    try:
        yield
    finally:
        lock.release()
