"""Imports repositories from upstreams, from an operator's or a reader's request to the `observed` statement in the log.

(1) the requested revision is pinned to a commit; a commit that this node observed and still stores is not fetched again
(2) its files are listed and fetched into a folder: resumed, hashed, compared with the listing
(3) every file is hashed again from the disk, cut into pieces, and stored
(4) manifest, piece index and per-file observations are made from these hashes
(5) the `observed` statement is submitted like any other: it is logged only if every object and file is stored
(6) the folder is removed

After a failure the folder stays for the next import of the same commit. `UpstreamWatch` compares an upstream with what
was mirrored from it and logs a change once. `disputes` lists commits for which nodes observed different bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Final

import structlog

import comity
from comity.content.blobs import BlobStore, piece_lengths
from comity.content.durable import disk_errors, make_folders
from comity.ledger.entry_index import EntryQuery
from comity.ledger.ledger import Ledger
from comity.ledger.proven import MAX_ANSWER, ProvenLine, ProvenPublication
from comity.node.members import Membership
from comity.node.own_log import OwnLog, iterate_entries
from comity.node.publishing import Submissions
from comity.node.threads import AsyncLedger, Clock, NameLocks, Pools
from comity.node.uploads import Uploads, Want, missing_files, read_artifact
from comity.rules.pieces import PieceIndex, PieceLayout, records_root
from comity.rules.signing import sign_content
from comity.trust.artifact import FileEntry, Manifest, parse_records
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, Conflict, NotFound, Refused, Unavailable
from comity.trust.frozen import frozen
from comity.trust.node_records import NodeRecord
from comity.trust.statement import Author, Entry, SideObject, Statement, parse_entry
from comity.trust.statement_kinds import OBSERVED, UPSTREAM_CHANGED, UPSTREAM_GONE
from comity.trust.upstream import (
    FETCHED,
    GIT_REPOSITORY,
    HUB,
    KINDS,
    Changed,
    Conditions,
    Gone,
    Matched,
    Observed,
    Obtained,
    Upstream,
    is_commit,
)
from comity.upstream import mirror
from comity.upstream.download import ImportControl, ImportObserver, NoImportObserver
from comity.upstream.guarded import AllowedHosts
from comity.upstream.listed_files import (
    RepositoryListing,
    RevisionInfo,
    UpstreamRequest,
    encode_observations,
    matching_folders,
)
from comity.upstream.mirror import MirrorOrder, MirrorResult, copy_folder, recognise_folder
from comity.wire.access import Caller
from comity.wire.upstream import (
    ImportDone,
    ImportEvent,
    ImportOrder,
    ImportProgress,
    ImportStarted,
    ImportWaiting,
    UpstreamCheck,
)

CARDS: Final = ("README.md",)
LICENCES: Final = re.compile(r"(?:licen[cs]e|copying)(?:\.(?:md|txt))?\Z", re.IGNORECASE)
MAX_DOCUMENT: Final = 4 * 1024 * 1024


@frozen
class ImportDetails:
    """How the files were obtained, since when (POSIX seconds), and the accepted terms."""

    how: str
    begun: int
    terms: bytes = b""


def describe(
    node: Digest, result: MirrorResult, layouts: Sequence[PieceLayout], details: ImportDetails, ended: int
) -> tuple[Observed, dict[Digest, bytes]]:
    """The statement, and every side object that it names. Blocking: reads card and licence."""
    listing, upstream = result.listing, result.listing.revision_info.upstream
    manifest = Manifest.of(seen.entry for seen in result.observations)
    paths = [seen.entry.path for seen in result.observations]
    index = PieceIndex(tuple(zip(paths, layouts, strict=True)))
    card, licence = (
        _first(result, lambda path: path in CARDS),
        _first(result, lambda p: LICENCES.match(p) is not None),
    )
    bodies = [manifest.encode(), index.encode(), encode_observations(result.observations)]
    documents = [SideObject.of(body) for body in bodies]
    conditions = Conditions(
        listing.revision_info.licence,
        SideObject.of(licence) if licence else None,
        SideObject.of(card) if card else None,
        listing.revision_info.gated,
        SideObject.of(details.terms) if details.terms else None,
    )
    observed = Observed(
        by=node,
        upstream=upstream,
        artifact=manifest.digest,
        manifest=documents[0],
        pieces=documents[1],
        files=documents[2],
        matched=_matched(result),
        unchecked=tuple(_unchecked(result, details)),
        obtained=Obtained(
            details.how,
            details.begun,
            max(details.begun, ended),
            _tool(upstream, details),
            result.tls,
        ),
        conditions=conditions,
    )
    kept = [*bodies, *(text for text in (card, licence, details.terms) if text)]
    return observed, {SideObject.of(body).digest: body for body in kept}


def _matched(result: MirrorResult) -> Matched:
    seen = result.observations
    by_hash = [item for item in seen if item.match == "sha256"]
    return Matched(
        files=len(seen),
        sha256=len(by_hash),
        git_blob=sum(item.match == "git-blob" for item in seen),
        pointers=sum(item.pointer for item in by_hash),
        folders=matching_folders(seen, result.listing.folders),
        folders_listed=len(result.listing.folders),
    )


def _unchecked(result: MirrorResult, details: ImportDetails) -> Iterator[str]:
    if result.listing.revision_info.upstream.kind == HUB:  # the commit of a list is computed from it, git's was hashed
        yield "commit"
    yield "author"
    if details.how != FETCHED:
        yield "upstream"
    elif result.tls is None:
        yield "tls"
    if any(item.listed.xet for item in result.observations):
        yield "xet"


def _first(result: MirrorResult, wanted: Callable[[str], bool]) -> bytes | None:
    """The first matching file at the root, as obtained; None if there is none or it is too large."""
    for seen, path in zip(result.observations, result.paths, strict=True):
        if wanted(seen.entry.path) and 0 < seen.entry.size <= MAX_DOCUMENT:
            return path.read_bytes()
    return None


def _tool(upstream: Upstream, details: ImportDetails) -> str:
    asked = details.how == FETCHED and upstream.kind == HUB
    library = f", huggingface-hub {metadata.version('huggingface-hub')}" if asked else ""
    return f"comity {comity.__version__}{library}"


MAX_OBSERVATIONS = 10_000


@frozen
class RecordedObservation:
    """A parsed `observed` statement and its position."""

    observed: Observed
    line: bytes
    origin: str
    vkey: str
    index: int


def own_observations(ledger: Ledger, record: NodeRecord, name: str) -> list[RecordedObservation]:
    """This node's observations of a commit in its own log, oldest first. Blocking."""
    repository, _, commit = name.rpartition("@")
    answer = ledger.proven.observations(repository, (record.node.id,), commit, MAX_ANSWER)
    found = (_read(item) for item in answer.found if item.vkey == str(record.log))
    return sorted((item for item in found if item.observed.upstream.name == name), key=lambda item: item.index)


def federation_observations(ledger: Ledger, nodes: Collection[Digest]) -> Iterator[RecordedObservation]:
    """Observations of this federation's nodes: an equal share of each, oldest first. Blocking."""
    share = min(MAX_ANSWER, max(16, MAX_OBSERVATIONS // len(nodes)))
    for node in nodes:
        yield from (_read(item) for item in ledger.proven.by(node, OBSERVED, share).found)


def _read(found: ProvenLine | ProvenPublication) -> RecordedObservation:
    observed = Observed.parse(parse_entry(found.line).statement)
    return RecordedObservation(observed, found.line, found.origin, found.vkey, found.index)


FOLDER: Final = "imports"


def import_folder(store: BlobStore, upstream: Upstream) -> Path:
    """The folder for one commit of one endpoint; creates it. Raises OutOfSpace, Unavailable (DISK)."""
    key = sha256(f"{upstream.endpoint} {upstream.name}".encode())
    folder = store.partial_path(key).parent / FOLDER / key
    with disk_errors("the folder of an import was not created"):
        make_folders(folder)
    return folder


def remove_folder(folder: Path) -> None:
    """Remove an import's folder."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_stale(store: BlobStore, before: float) -> None:
    """Remove import folders without writes since a time (POSIX seconds). Raises Unavailable (DISK)."""
    imports = store.partial_path(sha256(b"")).parent / FOLDER
    with disk_errors("stale imports were not removed"), contextlib.suppress(FileNotFoundError):
        for folder in imports.iterdir():
            written = max((path.stat().st_mtime for path in (folder, *folder.iterdir())), default=before)
            if written < before:
                remove_folder(folder)


POLL_SECONDS: Final = 0.5
KEEPALIVE_SECONDS: Final = 5.0
"""Seconds without events after which an empty progress event is sent."""


class ImportCounter(ImportControl):
    """Sums up the progress that threads report, for one reader on the event loop. `stop` makes every reporting thread
    raise."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._waiting: ImportWaiting | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    @property
    def received(self) -> int:
        """Bytes that are here, of all files, as long as no reader takes the events."""
        with self._lock:
            return sum(self._counts.values())

    def progress(self, path: str, count: int) -> None:
        self._require()
        with self._lock:
            self._counts[path] = self._counts.get(path, 0) + count

    def wait(self, seconds: float, why: str) -> None:
        with self._lock:
            self._waiting = ImportWaiting(why, round(seconds))
        self._stopped.wait(seconds)
        self._require()

    async def events_until(self, task: asyncio.Task[object]) -> AsyncGenerator[ImportEvent, None]:
        """The events until `task` is done."""
        silent = 0.0
        while not task.done():
            await asyncio.wait((task,), timeout=POLL_SECONDS)
            events = self._taken()
            silent = 0.0 if events else silent + POLL_SECONDS
            if silent >= KEEPALIVE_SECONDS:
                events, silent = [ImportProgress("", 0)], 0.0
            for event in events:
                yield event

    def _taken(self) -> list[ImportEvent]:
        with self._lock:
            events: list[ImportEvent] = [ImportProgress(path, count) for path, count in self._counts.items()]
            if self._waiting is not None:
                events.append(self._waiting)
            self._counts, self._waiting = {}, None
        return events

    def _require(self) -> None:
        if self._stopped.is_set():
            raise Unavailable("the import was cancelled", why="the caller disconnected or the node stopped")


UpstreamChange = Changed | Gone
_log: Final = structlog.get_logger("comity.node.importing")


class UpstreamWatch:
    """Compares upstreams with earlier imports."""

    def __init__(self, ledger: AsyncLedger, pools: Pools, clock: Clock, own_log: OwnLog) -> None:
        self._ledger = ledger
        self._pools = pools
        self._clock = clock
        self._signer = own_log.signer
        self._own_log = own_log

    async def check(self, name: str, token: str = "") -> UpstreamCheck:
        """Log a change of the upstream, once. Raises NotFound (NOT-OBSERVED), and what the request raises if it gives
        no result."""
        observed = await self._ledger.run(self._observed, name)
        found = await self._pools.imports(_compare, observed, token, int(self._clock()))
        if found is None:
            return UpstreamCheck("same")
        state = "changed" if isinstance(found, Changed) else "gone"
        known = await self._ledger.run(self._logged, found)
        if known is not None:
            return UpstreamCheck(state, known[0], known[1])
        entry = self._sign(found)
        index = await self._own_log.append(entry.line)
        _log.info("upstream changed", name=name, state=state, index=index)
        return UpstreamCheck(state, entry.line, index)

    def _observed(self, name: str) -> Observed:
        fetched = [
            found.observed
            for found in own_observations(self._ledger.tables, self._signer.record, name)
            if found.observed.fetched
        ]
        if not fetched:
            why = "this node did not fetch that commit"
            hint = "comity import hf:org/name"
            raise NotFound(f"no observation of {name[:200]}", why=why, hint=hint, code="NOT-OBSERVED")
        return fetched[-1]

    def _logged(self, change: UpstreamChange) -> tuple[bytes, int] | None:
        """This node's newest statement with the same content about the upstream, with its index."""
        predicate = UPSTREAM_CHANGED if isinstance(change, Changed) else UPSTREAM_GONE
        query = EntryQuery(
            subject=change.artifact, predicate=predicate, by=change.by, origin=str(self._signer.record.log)
        )
        lines = [(located.line, located.index) for located in iterate_entries(self._ledger.tables, query)]
        return next((found for found in reversed(lines) if _same(parse_entry(found[0]).statement, change)), None)

    def _sign(self, change: UpstreamChange) -> Entry:
        online = self._signer.online
        return sign_content(change, online)


def _compare(observed: Observed, token: str, now: int) -> UpstreamChange | None:
    """The upstream's change since the import, or None. Blocking."""
    upstream = observed.upstream

    def gone(lost: str) -> Gone:
        return Gone(observed.by, upstream, observed.artifact, lost, now)

    if upstream.kind not in (HUB, GIT_REPOSITORY):
        return _compare_list(observed, token, now)
    try:
        _commit(observed, token, upstream.commit)
    except NotFound:
        try:
            _commit(observed, token, "main")
        except (NotFound, Refused):
            return gone("repository")
        return gone("commit")
    except Refused:
        return gone("access")
    if is_commit(upstream.requested):
        return None
    try:
        commit = _commit(observed, token, upstream.requested)
    except NotFound:
        return gone("revision")
    return Changed(observed.by, upstream, observed.artifact, commit, now) if commit != upstream.commit else None


def _compare_list(observed: Observed, token: str, now: int) -> UpstreamChange | None:
    """The same for an upstream without a history: what was requested is there, is something else, or is gone."""
    upstream = observed.upstream
    try:
        current = _commit(observed, token, "main" if is_commit(upstream.requested) else upstream.requested)
    except (NotFound, Refused) as error:
        lost = "repository" if isinstance(error, NotFound) else "access"
        return Gone(observed.by, upstream, observed.artifact, lost, now)
    return Changed(observed.by, upstream, observed.artifact, current, now) if current != upstream.commit else None


def _commit(observed: Observed, token: str, revision: str) -> str:
    wanted = UpstreamRequest(observed.upstream.repository, revision, KINDS[observed.upstream.kind])
    order = MirrorOrder(wanted, AllowedHosts.to(observed.upstream.endpoint, (), token))
    return mirror.fetch_revision(order, ImportCounter()).upstream.commit


def _same(statement: Statement, change: UpstreamChange) -> bool:
    try:
        if isinstance(change, Changed):
            logged = Changed.parse(statement)
            return (logged.upstream, logged.successor) == (change.upstream, change.successor)
        gone = Gone.parse(statement)
        return (gone.upstream, gone.lost) == (change.upstream, change.lost)
    except ComityError:
        return False


OPERATOR: Final = Caller("operator", operator=True)
ADOPT_CONCURRENCY: Final = 3
BUSY_TRIES: Final = 60
BUSY_PAUSE: Final = 0.5


class Importer:
    """Imports for operators and for readers (`read_through`), one at a time for each commit."""

    def __init__(
        self,
        ledger: AsyncLedger,
        store: BlobStore,
        pools: Pools,
        clock: Clock,
        uploads: Uploads,
        submissions: Submissions,
        own_log: OwnLog,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._clock = clock
        self._signer = own_log.signer
        self._uploads = uploads
        self._submissions = submissions
        self._watch = UpstreamWatch(ledger, pools, clock, own_log)
        self._locks = NameLocks()

    async def check(self, name: str, token: str = "") -> UpstreamCheck:
        """Raises as `UpstreamWatch.check` does."""
        return await self._watch.check(name, token)

    async def run(self, order: ImportOrder) -> AsyncGenerator[ImportEvent, None]:
        """The events of an import, `ImportDone` last. Raises what `comity.upstream` and `Submissions` raise."""
        counter = ImportCounter()
        started: asyncio.Queue[ImportStarted] = asyncio.Queue()
        task = asyncio.create_task(self._run(order, counter, started), name="import")
        try:
            async for event in counter.events_until(task):
                while not started.empty():
                    yield started.get_nowait()
                yield event
            while not started.empty():
                yield started.get_nowait()
            yield await task
        finally:
            counter.stop()
            await asyncio.gather(task, return_exceptions=True)

    async def pin(self, order: MirrorOrder, counter: ImportCounter) -> RevisionInfo:
        """Step (1). Raises as `mirror.pin_revision` does."""
        return await self._pools.imports(mirror.pin_revision, order, counter)

    async def mirror(
        self, order: MirrorOrder, revision_info: RevisionInfo, counter: ImportCounter, observer: ImportObserver
    ) -> ImportDone:
        """Steps (2) to (6). The observer is not called if everything is stored already."""
        async with self._locked_folder(revision_info.upstream) as folder:
            if (before := await self._previous(revision_info.upstream, folder)) is not None:
                return before
            listing = await self._pools.imports(mirror.list_repository, order, revision_info, counter)
            begun = int(self._clock())
            result = await self._pools.imports(
                partial(mirror.fetch_repository, reserve_bytes=self._uploads.reserve_bytes),
                order,
                listing,
                folder,
                counter,
                observer,
            )  # (2)
            return await self._store_and_log(result, ImportDetails(FETCHED, begun, order.terms), folder)

    async def _run(
        self, order: ImportOrder, counter: ImportCounter, started: asyncio.Queue[ImportStarted]
    ) -> ImportDone:
        if order.folder:
            return await self._import_folder(order, counter, started)
        requested = UpstreamRequest.parse(order.name)
        hosts = AllowedHosts.to(order.endpoint or mirror.default_endpoint(requested), order.hosts, order.token)
        wanted = MirrorOrder(requested, hosts, order.terms)
        revision_info = await self.pin(wanted, counter)
        return await self.mirror(wanted, revision_info, counter, _StartAnnouncer(asyncio.get_running_loop(), started))

    async def _import_folder(
        self, order: ImportOrder, counter: ImportCounter, started: asyncio.Queue[ImportStarted]
    ) -> ImportDone:
        """The same for a folder: steps (1) and (2) read it and contact no upstream."""
        named = UpstreamRequest.parse(order.name) if order.name else None
        found = await self._pools.imports(recognise_folder, Path(order.folder), named)
        upstream = found.listing.revision_info.upstream
        async with self._locked_folder(upstream) as folder:
            started.put_nowait(ImportStarted(upstream.name, len(found.files), found.listing.size))
            begun = int(self._clock())
            result = await self._pools.imports(
                partial(copy_folder, reserve_bytes=self._uploads.reserve_bytes), found, folder, counter
            )
            return await self._store_and_log(result, ImportDetails(found.how, begun, order.terms), folder)

    async def _previous(self, upstream: Upstream, folder: Path) -> ImportDone | None:
        """This node's observation of a commit that it fetched, if all files are still stored."""
        for found in await self._ledger.run(own_observations, self._ledger.tables, self._signer.record, upstream.name):
            if found.observed.fetched and not await self._pools.files(self._gaps, found.observed):
                await self._pools.files(remove_folder, folder)
                return ImportDone(found.line, found.origin, found.index, before=True)
        return None

    async def _store_and_log(self, result: MirrorResult, details: ImportDetails, folder: Path) -> ImportDone:
        """Steps (3) to (6)."""
        slots = asyncio.Semaphore(ADOPT_CONCURRENCY)

        async def adopt(number: int) -> PieceLayout:
            async with slots:
                return await self._adopt(result.observations[number].entry, result.paths[number])

        layouts = await asyncio.gather(*(adopt(number) for number in range(len(result.paths))))
        node, now = self._signer.record.node.id, int(self._clock())
        observed, objects = await self._pools.files(describe, node, result, layouts, details, now)  # (4)
        for digest, data in objects.items():
            await self._uploads.put(digest, data)
        entry = sign_content(observed, self._signer.online)
        submitted = await self._submissions.submit(OPERATOR, [entry.line], [])  # (5)
        if not submitted.receipts:
            why = f"{len(submitted.missing)} objects were removed concurrently"
            raise Unavailable("nothing was logged", why=why, hint="import it again", code="IMPORT-INCOMPLETE")
        receipt = submitted.receipts[0]
        _log.info("observed", name=observed.upstream.name, artifact=observed.artifact, index=receipt.index)
        await self._pools.files(remove_folder, folder)  # (6)
        return ImportDone(entry.line, receipt.origin, receipt.index, before=False)

    async def _adopt(self, entry: FileEntry, path: Path) -> PieceLayout:
        """Step (3) for one file."""
        want = Want(entry.sha256, entry.size, entry.path)
        for _ in range(BUSY_TRIES):
            try:
                await self._uploads.adopt(path, want)
                break
            except Conflict as error:  # the same blob is being received from a peer
                if error.code != "BLOB-BUSY":
                    raise
                await asyncio.sleep(BUSY_PAUSE)
        return await self._pools.whole_files(self._layout, want, path)

    def _layout(self, want: Want, path: Path) -> PieceLayout:
        with path.open("rb") as file:
            layout, lengths = piece_lengths(want.path, file, want.size)
        known = self._ledger.tables.pieces.records(want.digest, layout)
        if known is None:  # the blob was stored before with another layout
            self._uploads.records(want, layout)
            known = self._ledger.tables.pieces.records(want.digest, layout) or b""
        return PieceLayout(layout, len(lengths), records_root(parse_records(known, size=want.size)))

    def _gaps(self, observed: Observed) -> bool:
        try:
            manifest, _ = read_artifact(self._store, observed.manifest, observed.pieces)
            return bool(missing_files(self._store, manifest))
        except ComityError:
            return True

    @contextlib.asynccontextmanager
    async def _locked_folder(self, upstream: Upstream) -> AsyncIterator[Path]:
        """The folder in which a commit is collected, locked for one import."""
        async with self._locks.acquire([(upstream.endpoint, upstream.name)]):
            yield await self._pools.files(import_folder, self._store, upstream)


class _StartAnnouncer(NoImportObserver):
    """Reports the listing to an operator before the first byte."""

    def __init__(self, loop: asyncio.AbstractEventLoop, started: asyncio.Queue[ImportStarted]) -> None:
        self._loop = loop
        self._started = started

    def on_listing(self, listing: RepositoryListing, paths: Sequence[Path]) -> None:
        event = ImportStarted(listing.revision_info.upstream.name, len(listing.files), listing.size)
        self._loop.call_soon_threadsafe(self._started.put_nowait, event)


MAX_DISPUTES = 16
"""Commits listed at a time."""


def disputes(ledger: Ledger, membership: Membership) -> list[str]:
    """A sentence for each commit for which nodes of this federation observed different bytes. Blocking."""
    by_name: dict[str, dict[Digest, list[RecordedObservation]]] = {}
    for found in federation_observations(ledger, membership.node_ids):
        by_name.setdefault(found.observed.upstream.name, {}).setdefault(found.observed.artifact, []).append(found)
    disputed = ((name, _observers(membership, claims)) for name, claims in by_name.items() if len(claims) > 1)
    sentences = (_sentence(name, claims) for name, claims in disputed)
    return [sentence for sentence, _ in zip(sentences, range(MAX_DISPUTES), strict=False)]


def _observers(membership: Membership, claims: dict[Digest, list[RecordedObservation]]) -> dict[Digest, list[str]]:
    """The names of the observing nodes, by artifact."""
    records = {a: [membership.node(Author("node", item.observed.by)) for item in f] for a, f in claims.items()}
    return {a: list(dict.fromkeys(record.name for record in found if record)) for a, found in records.items()}


def _sentence(name: str, claims: dict[Digest, list[str]]) -> str:
    versions = "; ".join(f"{short(artifact)} by {', '.join(nodes)}" for artifact, nodes in sorted(claims.items()))
    return f"different bytes were observed under {name}: {versions}"
