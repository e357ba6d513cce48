"""Fetch the files of a pull from many nodes, piece by piece, with reuse of pieces that are already on disk.

Piece indexes come from statements; a wrong one costs a retry, never a wrong file, because the SHA-256 of the manifest
decides. The index of placed pieces is only a hint: bytes found by it are hashed, and entries of changed or missing
files are removed. It is one SQLite file; losing it costs bandwidth. Each file is fetched under a lock, so that two
pulls share the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.request import getproxies

from comity.content import fault
from comity.content.blobs import BlobLock
from comity.content.durable import disk_errors
from comity.hashing import ENGINE
from comity.rules.pieces import (
    CHAINED_LAYOUT,
    PieceIndex,
    PieceLayout,
    chained_records,
    check_records,
    derived_records,
    encode_records,
)
from comity.transfer.fetch import FetchOptions, FetchResult, fetch_file
from comity.transfer.pieces import WantedFile
from comity.transfer.range_source import RangeSource, sources_with_blob
from comity.transfer.scheduler import SourceHealth, TransferLimits
from comity.transfer.sources import BlobSource, LocalSource, SourceKey, names_of
from comity.trust.artifact import PIECE_SIZE, FileEntry, Manifest, PieceRecord, check_chained
from comity.trust.claims import ParsedClaims
from comity.trust.copies import hold_of
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.statement_kinds import HOLD_PREDICATES, OBSERVED
from comity.trust.statements import Published
from comity.trust.upstream import Observed
from comity.wire.tls import CertificatePin
from comity_client.events import FileDone, Note, OnEvent, Progress, SourceDropped, SourceFailed, Waiting, first_error
from comity_client.evidence.proofs import fetch_object
from comity_client.pull.destinations import has_file
from comity_client.session import RemoteNode, Session

CHAIN_TIMEOUT: Final = 5.0
"""Seconds that nodes have to give chained records; without them a file is fetched by the signed index."""
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
        self._parsed: dict[Digest, dict[str, PieceLayout]] = {}

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

    async def document(self) -> bytes:
        """Return the bytes of the first available index. Raises NotFound, Unavailable."""
        failure: ComityError = NotFound("no statement names a piece index")
        for digest in self._digests:
            try:
                return await fetch_object(self._session, digest)
            except ComityError as error:
                failure = error
        raise failure

    async def _index(self, digest: Digest) -> dict[str, PieceLayout]:
        if digest not in self._parsed:
            self._parsed[digest] = dict(PieceIndex.parse(await fetch_object(self._session, digest)).files)
        return self._parsed[digest]

    async def _records(self, entry: FileEntry, layout: PieceLayout) -> list[PieceRecord]:
        if (derived := derived_records(entry.size, entry.sha256, layout)) is not None:
            return derived
        refusal: ComityError | None = None
        asked = self._session.answers(lambda node: node.records(entry.sha256, layout.layout), first=self._holders)
        async with aclosing(asked) as offers:
            async for data in offers:
                try:
                    return check_records(data, size=entry.size, expected=layout)
                except (Malformed, Untrusted) as error:
                    refusal = error
        raise refusal or Unavailable("no records", why=f"no node serves those of {entry.path} in {layout.layout}")


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
        if not (address := await self._node.reached(self._failed)):
            self._failed.clear()  # each has failed since they were tried in turn
            address = await self._node.reached(self._failed)
        if not address:
            none_known = Unavailable(f"{self.name} cannot be reached", why="no open address is known")
            raise next(reversed(self._failed.values()), none_known)
        arrived = False
        try:
            async with aclosing(self._node.client(address).read(digest, offset, length)) as chunks:
                async for chunk in chunks:
                    arrived = True
                    if length >= PIECE_SIZE:
                        self._node.note_addresses()
                    yield chunk
        except NotFound:
            raise
        except Unavailable as error:
            self._leave(address, error)
            raise
        except asyncio.CancelledError:
            if not arrived:  # it may be silent for ever
                self._leave(address, Unavailable(f"{address} sends nothing", code="SLOW"))
            raise

    def _leave(self, address: str, why: ComityError) -> None:
        self._node.left(address)
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


CANDIDATES: Final = 4
"""Maximum number of copies of one piece that are tried."""
_VARIABLES: Final = 500
"""Values in one SQLite query; older versions allow 999."""

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS files (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, "
    "modified INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS pieces (sha256 BLOB NOT NULL, start INTEGER NOT NULL, "
    "file INTEGER NOT NULL REFERENCES files (id) ON DELETE CASCADE, "
    "PRIMARY KEY (sha256, file, start)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS pieces_of_file ON pieces (file)",
)


class PlacedPieces:
    """The index in `folder`, which must exist. Thread-safe. Raises Unavailable (PIECE-HINTS) if its database fails;
    callers continue without it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "pieces.sqlite"

    def remember(self, path: Path, records: Iterable[PieceRecord]) -> None:
        """Record that `path` has these pieces in this order. Also raises Unavailable (DISK) if it is not there."""
        offset, rows = 0, list[tuple[bytes, int]]()
        for record in records:
            rows.append((record.sha256, offset))
            offset += record.length
        with disk_errors(f"{path} was not remembered"):
            found = path.stat()
        with self._transaction() as database:
            database.execute("DELETE FROM files WHERE path = ?", (str(path),))
            made = database.execute(
                "INSERT INTO files (path, size, modified) VALUES (?, ?, ?)",
                (str(path), found.st_size, found.st_mtime_ns),
            )
            database.executemany(
                "INSERT OR IGNORE INTO pieces (sha256, file, start) VALUES (?, ?, ?)",
                ((sha256, made.lastrowid, start) for sha256, start in rows),
            )

    def any_of(self, records: Sequence[PieceRecord]) -> bool:
        """Return whether a place of any of these pieces is recorded, however old."""
        hashes = [record.sha256 for record in records]
        with self._transaction() as database:
            for start in range(0, len(hashes), _VARIABLES):
                asked = hashes[start : start + _VARIABLES]
                marks = ", ".join("?" * len(asked))
                if database.execute(f"SELECT 1 FROM pieces WHERE sha256 IN ({marks}) LIMIT 1", asked).fetchone():
                    return True
        return False

    def find(self, record: PieceRecord) -> list[tuple[Path, int]]:
        """Return possible places of the piece, as (file, offset)."""
        with self._transaction() as database:
            rows = database.execute(
                "SELECT files.id, path, size, modified, start FROM pieces JOIN files ON files.id = file "
                "WHERE sha256 = ? LIMIT ?",
                (record.sha256, CANDIDATES),
            ).fetchall()
            gone = {(row[0],) for row in rows if not _unchanged(Path(row[1]), row[2], row[3])}
            database.executemany("DELETE FROM files WHERE id = ?", sorted(gone))
        return [(Path(path), start) for identifier, path, _, _, start in rows if (identifier,) not in gone]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._file, timeout=10)) as database:
                with database:
                    database.execute("PRAGMA foreign_keys = ON")
                    for statement in _SCHEMA:
                        database.execute(statement)
                    yield database
                    fault.point("placed.before-commit")
                fault.point("placed.after-commit")
        except sqlite3.Error as error:
            why = f"{error}, in {self._file}"
            hint = f"rm {self._file}"
            raise Unavailable("the index of placed files failed", why=why, hint=hint, code="PIECE-HINTS") from error


def _unchanged(path: Path, size: int, modified: int) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return (found.st_size, found.st_mtime_ns) == (size, modified)


FILES_AT_ONCE: Final = 4
LARGE: Final = 16 * 1024 * 1024
"""Bytes from which a file uses all sources and buffers by itself. Such files are fetched one at a time, which bounds
memory to that of one transfer.
"""
LOCK_POLL: Final = 0.2
"""Seconds between two attempts to get a lock of another process."""


@dataclass(slots=True)
class BytesBySource:
    """Origin of the bytes of a pull: by node, each under a unique name; `resumed` from an earlier attempt, `reused`
    from other files."""

    by_node: dict[str, int] = field(default_factory=dict)
    resumed: int = 0
    reused: int = 0

    def add(self, fetched: FetchResult, names: Mapping[SourceKey, str]) -> None:
        for node, count in fetched.bytes_by_host.items():
            self.by_node[names[node]] = self.by_node.get(names[node], 0) + count
        self.resumed += fetched.resumed
        self.reused += fetched.reused


class PullFetch:
    """Fetches the files of one pull into `incoming`, verified.

    Args:
        place_of: where a file is placed. One that another pull has placed there since is hashed, and not fetched.

    After `run`, `tally` has the origin of the bytes, `records` the pieces of each file, and `chains` the encoded
    chained records of files of several pieces.
    """

    def __init__(
        self,
        incoming: Path,
        place_of: Callable[[FileEntry], Path],
        layouts: Layouts,
        sources: Sequence[NodeSource],
        placed: PlacedPieces,
        limits: TransferLimits,
        on_event: OnEvent,
    ) -> None:
        self._incoming = incoming
        self._place_of = place_of
        self._layouts = layouts
        self._sources = sources
        self._other_ways = https_sources(sources)
        self._placed = placed
        self._limits = limits
        self._on_event = on_event
        self._source_health: dict[SourceKey, SourceHealth] = {}
        self._names = names_of([*sources, *self._other_ways])
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
        """Keep the pieces of the fetched files for later pulls. Blocking."""
        for entry in entries:
            records = self.records.get(entry.sha256)
            if records is None:
                continue  # another pull placed the file
            try:
                self._placed.remember(self._place_of(entry), records)
            except Unavailable as error:
                self._on_event(Note(str(error)))
                return

    async def _run(self, entries: Sequence[FileEntry]) -> None:
        turn, alone = asyncio.Semaphore(FILES_AT_ONCE), asyncio.Lock()

        async def one(entry: FileEntry) -> None:
            semaphore = alone if entry.size >= LARGE else turn
            async with semaphore, locked(self._incoming, entry, self._on_event):
                await self._fetch(entry)

        try:
            async with asyncio.TaskGroup() as tasks:
                for entry in entries:
                    tasks.create_task(one(entry))
        except* ComityError as failures:
            raise first_error(failures) from None

    async def _fetch(self, entry: FileEntry) -> None:
        if await asyncio.to_thread(self._was_placed, entry):
            self.tally.reused += entry.size
            self._on_event(Progress(entry.path, entry.size))
            self._on_event(FileDone(entry.path, {}, entry.size))
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
        self.tally.add(fetched, self._names)
        for source, why in fetched.dropped.items():
            self._on_event(SourceDropped(self._names[source], entry.path, why))
        for source, faults in fetched.faults.items():
            if source not in fetched.dropped:
                self._on_event(SourceFailed(self._names[source], entry.path, "; ".join(faults)))
        by_node = {self._names[node]: count for node, count in fetched.bytes_by_host.items()}
        self._on_event(FileDone(entry.path, by_node, fetched.reused))


@asynccontextmanager
async def locked(incoming: Path, entry: FileEntry, on_event: OnEvent) -> AsyncIterator[None]:
    """Hold the lock for the digest of one file while the block runs; does not block the event loop."""
    lock, reported = BlobLock(incoming, entry.sha256), False
    while not lock.try_acquire():
        if not reported:
            on_event(Waiting(entry.path))
            reported = True
        await asyncio.sleep(LOCK_POLL)
    try:
        yield
    finally:
        lock.release()
