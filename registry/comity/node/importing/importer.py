"""From what was hashed here to the `observed` statement: documents, counts, and the list of what nobody checked.

What logs here say was observed: by this node, and by others. Blocking.

Where imports collect their files: a folder for each, in the store's own place for what is not whole yet.

What threads report, for one reader on the event loop: summed up, so that it never falls behind, and never silent.

How an upstream stands now, against what this node mirrored from it: said in the log where that changed, once.

An import, from an operator's or a reader's wish to a line in the log.

(1) the commit that is wanted is pinned; one that this node observed before, and still has, is not fetched again
(2) its files are listed, and fetched into a folder of the node's own: resumed, hashed, held against the listing
(3) every file is hashed again, from the disk, cut into pieces, and taken into the store
(4) manifest, piece index and file-by-file observations are made of what was hashed here
(5) the desk logs the `observed` statement like anybody's: only with every object and every file here, whole
(6) the folder is removed

Whatever ends it in between leaves the folder to the next call for the same commit.


Commits under which nodes saw different bytes, as far as the logs here show it. Blocking.

Mirroring from elsewhere, and saying so: what this node fetched, hashed and compared itself, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import structlog

import comity
from comity.content.blobs import BlobStore, piece_lengths
from comity.content.durable import disk_errors, make_folders
from comity.ledger.log_store import EntryQuery
from comity.ledger.proven import MAX_ANSWER, ProvenLine, ProvenPublication
from comity.node.context import NodeContext
from comity.node.own_log import NameLocks, OwnLog, every
from comity.node.publishing import Submissions
from comity.node.uploads import Uploads, Want, missing_files, read_artifact
from comity.trust.artifact import FileEntry, Manifest, PieceIndex, PieceLayout, parse_records, records_root
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, Conflict, NotFound, Refused, Unavailable
from comity.trust.statement import Author, Entry, SideObject, Statement, parse_entry
from comity.trust.upstream import (
    CHANGED,
    FETCHED,
    GONE,
    OBSERVED,
    Changed,
    Conditions,
    Gone,
    Matched,
    Observed,
    Obtained,
    Upstream,
    UpstreamRequest,
    encode_observations,
    is_commit,
    matching_folders,
    parse_changed,
    parse_gone,
    sign_changed,
    sign_gone,
    sign_observed,
)
from comity.upstream import mirror
from comity.upstream.download import ImportObserver, NoImportObserver, Work
from comity.upstream.hub_api import HUB_ENDPOINT, AllowedHosts, RepositoryListing, RevisionInfo
from comity.upstream.mirror import MirrorOrder, MirrorResult, recognise_folder, take_folder
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


@dataclass(frozen=True, slots=True)
class ImportDetails:
    """What the importer knows beside the files: how they came, since when (POSIX seconds), and accepted terms."""

    how: str
    begun: int
    terms: bytes = b""


def describe(
    node: Digest, mirrored: MirrorResult, layouts: Sequence[PieceLayout], described: ImportDetails, ended: int
) -> tuple[Observed, dict[Digest, bytes]]:
    """The statement, and every side object that it names. Blocking: it reads card and licence."""
    listing = mirrored.listing
    manifest = Manifest.of(seen.entry for seen in mirrored.observations)
    paths = [seen.entry.path for seen in mirrored.observations]
    index = PieceIndex(tuple(zip(paths, layouts, strict=True)))
    card, licence = (
        _first(mirrored, lambda path: path in CARDS),
        _first(mirrored, lambda p: LICENCES.match(p) is not None),
    )
    bodies = [manifest.encode(), index.encode(), encode_observations(mirrored.observations)]
    documents = [SideObject.of(body) for body in bodies]
    conditions = Conditions(
        listing.standing.licence,
        SideObject.of(licence) if licence else None,
        SideObject.of(card) if card else None,
        listing.standing.gated,
        SideObject.of(described.terms) if described.terms else None,
    )
    observed = Observed(
        by=node,
        upstream=listing.standing.upstream,
        artifact=manifest.digest,
        manifest=documents[0],
        pieces=documents[1],
        files=documents[2],
        matched=_matched(mirrored),
        unchecked=tuple(_unchecked(mirrored, described)),
        obtained=Obtained(described.how, described.begun, max(described.begun, ended), _tool(described), mirrored.tls),
        conditions=conditions,
    )
    kept = [*bodies, *(text for text in (card, licence, described.terms) if text)]
    return observed, {SideObject.of(body).digest: body for body in kept}


def _matched(mirrored: MirrorResult) -> Matched:
    seen = mirrored.observations
    by_hash = [item for item in seen if item.match == "sha256"]
    return Matched(
        files=len(seen),
        sha256=len(by_hash),
        git_blob=sum(item.match == "git-blob" for item in seen),
        pointers=sum(item.pointer for item in by_hash),
        folders=matching_folders(seen, mirrored.listing.folders),
        folders_listed=len(mirrored.listing.folders),
    )


def _unchecked(mirrored: MirrorResult, described: ImportDetails) -> Iterator[str]:
    yield "commit"
    yield "author"
    if described.how != FETCHED:
        yield "upstream"
    elif mirrored.tls is None:
        yield "tls"
    if any(item.listed.xet for item in mirrored.observations):
        yield "xet"


def _first(mirrored: MirrorResult, wanted: Callable[[str], bool]) -> bytes | None:
    """The first file at the root that is `wanted`, as it was obtained; None where it is too large for a document."""
    for seen, path in zip(mirrored.observations, mirrored.paths, strict=True):
        if wanted(seen.entry.path) and 0 < seen.entry.size <= MAX_DOCUMENT:
            return path.read_bytes()
    return None


def _tool(described: ImportDetails) -> str:
    library = f", huggingface-hub {metadata.version('huggingface-hub')}" if described.how == FETCHED else ""
    return f"comity {comity.__version__}{library}"


MAX_OBSERVATIONS = 10_000


@dataclass(frozen=True, slots=True)
class RecordedObservation:
    """An `observed` line, read, and where it stands."""

    observed: Observed
    line: bytes
    origin: str
    vkey: str
    index: int


def own(core: NodeContext, name: str) -> list[RecordedObservation]:
    """What this node itself observed of a commit, in its own log, oldest first."""
    repository, _, commit = name.rpartition("@")
    answer = core.ledger.proven.observations(repository, (core.seat.record.node.id,), commit, MAX_ANSWER)
    found = (_read(item) for item in answer.found if item.vkey == core.log)
    return sorted((item for item in found if item.observed.upstream.name == name), key=lambda item: item.index)


def of_nodes(core: NodeContext) -> Iterator[RecordedObservation]:
    """What nodes of this federation observed: of each an even share, the first that it said."""
    nodes = core.membership.node_ids
    share = min(MAX_ANSWER, max(16, MAX_OBSERVATIONS // len(nodes)))
    for node in nodes:
        yield from (_read(item) for item in core.ledger.proven.by(node, OBSERVED, share).found)


def _read(found: ProvenLine | ProvenPublication) -> RecordedObservation:
    observed = Observed.parse(parse_entry(found.line).statement)
    return RecordedObservation(observed, found.line, found.origin, found.vkey, found.index)


FOLDER: Final = "imports"


def workplace(store: BlobStore, upstream: Upstream) -> Path:
    """The folder for one commit of one endpoint; it exists. Raises OutOfSpace, Unavailable (DISK)."""
    key = sha256(f"{upstream.endpoint} {upstream.name}".encode())
    folder = store.scratch(key).parent / FOLDER / key
    with disk_errors("no room was made for an import"):
        make_folders(folder)
    return folder


def clear(folder: Path) -> None:
    """Nobody goes on with it any more."""
    shutil.rmtree(folder, ignore_errors=True)


def forget(store: BlobStore, before: float) -> None:
    """Remove what imports left in which nothing was written since a time (POSIX seconds). Raises Unavailable (DISK)."""
    imports = store.scratch(sha256(b"")).parent / FOLDER
    with disk_errors("leftovers of imports were not looked at"), contextlib.suppress(FileNotFoundError):
        for folder in imports.iterdir():
            written = max((path.stat().st_mtime for path in (folder, *folder.iterdir())), default=before)
            if written < before:
                clear(folder)


TICK: Final = 0.5
ALIVE: Final = 5.0
"""Seconds after which something is said although nothing happened."""


class ImportCounter(Work):
    """Counts what arrives. `stop` makes every thread that reports raise."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._waiting: ImportWaiting | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def progress(self, path: str, count: int) -> None:
        self._require()
        with self._lock:
            self._counts[path] = self._counts.get(path, 0) + count

    def wait(self, seconds: float, why: str) -> None:
        with self._lock:
            self._waiting = ImportWaiting(why, round(seconds))
        self._stopped.wait(seconds)
        self._require()

    async def until(self, task: asyncio.Task[object]) -> AsyncGenerator[ImportEvent, None]:
        """What happens until `task` is done."""
        quiet = 0.0
        while not task.done():
            await asyncio.wait((task,), timeout=TICK)
            events = self._taken()
            quiet = 0.0 if events else quiet + TICK
            if quiet >= ALIVE:
                events, quiet = [ImportProgress("", 0)], 0.0
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
            raise Unavailable("the import was broken off", why="nobody waits for it any more")


News = Changed | Gone
_log: Final = structlog.get_logger("comity.node.importing")


class UpstreamWatch:
    """Asks upstreams again."""

    def __init__(self, core: NodeContext, own_log: OwnLog) -> None:
        self._core = core
        self._own_log = own_log

    async def check(self, name: str, token: str) -> UpstreamCheck:
        """Raises NotFound (NOT-OBSERVED), and what asking raises where it tells nothing about the upstream."""
        observed = await self._core.pools.ledger(self._observed, name)
        found = await self._core.pools.imports(_look, observed, token, int(self._core.clock()))
        if found is None:
            return UpstreamCheck("same")
        state = "changed" if isinstance(found, Changed) else "gone"
        known = await self._core.pools.ledger(self._said, found)
        if known is not None:
            return UpstreamCheck(state, known[0], known[1])
        entry = self._sign(found)
        index = await self._own_log.append(entry.line)
        _log.info("upstream news", name=name, state=state, index=index)
        return UpstreamCheck(state, entry.line, index)

    def _observed(self, name: str) -> Observed:
        fetched = [found.observed for found in own(self._core, name) if found.observed.fetched]
        if not fetched:
            why = "it did not fetch that commit itself"
            hint = "comity import hf:org/name"
            raise NotFound(f"this node says nothing of {name[:200]}", why=why, hint=hint, code="NOT-OBSERVED")
        return fetched[-1]

    def _said(self, news: News) -> tuple[bytes, int] | None:
        """The newest statement of this node's about the upstream, if it says the same."""
        predicate = CHANGED if isinstance(news, Changed) else GONE
        query = EntryQuery(subject=news.artifact, predicate=predicate, by=news.by, origin=self._core.log)
        lines = [(located.line, located.index) for located in every(self._core.ledger, query)]
        return next((found for found in reversed(lines) if _same(parse_entry(found[0]).statement, news)), None)

    def _sign(self, news: News) -> Entry:
        online = self._core.keys.online
        return sign_changed(news, online) if isinstance(news, Changed) else sign_gone(news, online)


def _look(observed: Observed, token: str, now: int) -> News | None:
    """Blocking. What is new about the upstream, if anything."""
    upstream = observed.upstream

    def gone(lost: str) -> Gone:
        return Gone(observed.by, upstream, observed.artifact, lost, now)

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


def _commit(observed: Observed, token: str, revision: str) -> str:
    wanted = UpstreamRequest(observed.upstream.repository, revision)
    order = MirrorOrder(wanted, AllowedHosts.to(observed.upstream.endpoint, (), token))
    return mirror.revision_info(order, ImportCounter()).upstream.commit


def _same(statement: Statement, news: News) -> bool:
    try:
        if isinstance(news, Changed):
            said = parse_changed(statement)
            return (said.upstream, said.successor) == (news.upstream, news.successor)
        gone = parse_gone(statement)
        return (gone.upstream, gone.lost) == (news.upstream, news.lost)
    except ComityError:
        return False


OPERATOR: Final = Caller("operator", operator=True)
ADOPTED_AT_ONCE: Final = 3
BUSY_TRIES: Final = 60
BUSY_PAUSE: Final = 0.5


class Importer:
    """Imports, of one commit one at a time: for the node's operators, and for readers (`passages`)."""

    def __init__(self, core: NodeContext, desk: Submissions, own_log: OwnLog) -> None:
        self._core = core
        self._desk = desk
        self._arrivals = Uploads(core)
        self._watch = UpstreamWatch(core, own_log)
        self._under_way = NameLocks()

    async def check(self, name: str, token: str) -> UpstreamCheck:
        """Raises as `Watch.check` does."""
        return await self._watch.check(name, token)

    async def run(self, order: ImportOrder) -> AsyncGenerator[ImportEvent, None]:
        """What happens, `ImportDone` last. Raises what `upstream` and the desk raise."""
        ticker = ImportCounter()
        started: asyncio.Queue[ImportStarted] = asyncio.Queue()
        task = asyncio.create_task(self._run(order, ticker, started), name="import")
        try:
            async for event in ticker.until(task):
                while not started.empty():
                    yield started.get_nowait()
                yield event
            while not started.empty():
                yield started.get_nowait()
            yield await task
        finally:
            ticker.stop()
            await asyncio.gather(task, return_exceptions=True)

    async def standing(self, order: MirrorOrder, ticker: ImportCounter) -> RevisionInfo:
        """Step (1). Raises as `mirror.pin` does."""
        return await self._core.pools.imports(mirror.pin_revision, order, ticker)

    async def mirror(
        self, order: MirrorOrder, standing: RevisionInfo, ticker: ImportCounter, audience: ImportObserver
    ) -> ImportDone:
        """Steps (2) to (6). The audience expects nothing where all of it is here already."""
        async with self._claimed(standing.upstream) as work:
            if (before := await self._before(standing.upstream, work)) is not None:
                return before
            listing = await self._core.pools.imports(mirror.list_repository, order, standing, ticker)
            begun = int(self._core.clock())
            mirrored = await self._core.pools.imports(
                mirror.fetch_repository, order, listing, work, ticker, audience
            )  # (2)
            return await self._log_it(mirrored, ImportDetails(FETCHED, begun, order.terms), work)

    async def _run(
        self, order: ImportOrder, ticker: ImportCounter, started: asyncio.Queue[ImportStarted]
    ) -> ImportDone:
        if order.folder:
            return await self._carried(order, ticker, started)
        reach = AllowedHosts.to(order.endpoint or HUB_ENDPOINT, order.hosts, order.token)
        wanted = MirrorOrder(UpstreamRequest.parse(order.name), reach, order.terms)
        standing = await self.standing(wanted, ticker)
        return await self.mirror(wanted, standing, ticker, _Announcing(asyncio.get_running_loop(), started))

    async def _carried(
        self, order: ImportOrder, ticker: ImportCounter, started: asyncio.Queue[ImportStarted]
    ) -> ImportDone:
        """The same for a folder: steps (1) and (2) read it, and ask nobody."""
        named = UpstreamRequest.parse(order.name) if order.name else None
        found = await self._core.pools.imports(recognise_folder, Path(order.folder), named)
        upstream = found.listing.standing.upstream
        async with self._claimed(upstream) as work:
            started.put_nowait(ImportStarted(upstream.name, len(found.files), found.listing.size))
            begun = int(self._core.clock())
            mirrored = await self._core.pools.imports(take_folder, found, work, ticker)
            return await self._log_it(mirrored, ImportDetails(found.how, begun, order.terms), work)

    async def _before(self, upstream: Upstream, work: Path) -> ImportDone | None:
        """What this node said of the commit when it fetched it, if all of it is still here."""
        for found in await self._core.pools.ledger(own, self._core, upstream.name):
            if found.observed.fetched and not await self._core.pools.files(self._gaps, found.observed):
                await self._core.pools.files(clear, work)
                return ImportDone(found.line, found.origin, found.index, before=True)
        return None

    async def _log_it(self, mirrored: MirrorResult, described: ImportDetails, work: Path) -> ImportDone:
        """Steps (3) to (6)."""
        turn = asyncio.Semaphore(ADOPTED_AT_ONCE)

        async def one(number: int) -> PieceLayout:
            async with turn:
                return await self._adopt(mirrored.observations[number].entry, mirrored.paths[number])

        layouts = await asyncio.gather(*(one(number) for number in range(len(mirrored.paths))))
        node, now = self._core.seat.record.node.id, int(self._core.clock())
        observed, objects = await self._core.pools.files(describe, node, mirrored, layouts, described, now)  # (4)
        for digest, data in objects.items():
            await self._arrivals.put(digest, data)
        entry = sign_observed(observed, self._core.keys.online)
        submitted = await self._desk.submit(OPERATOR, [entry.line], [])  # (5)
        if not submitted.receipts:
            why = f"{len(submitted.missing)} objects went away meanwhile"
            raise Unavailable("nothing was logged", why=why, hint="import it again", code="IMPORT-INCOMPLETE")
        receipt = submitted.receipts[0]
        _log.info("observed", name=observed.upstream.name, artifact=observed.artifact, index=receipt.index)
        await self._core.pools.files(clear, work)  # (6)
        return ImportDone(entry.line, receipt.origin, receipt.index, before=False)

    async def _adopt(self, entry: FileEntry, path: Path) -> PieceLayout:
        """Step (3) for one file."""
        want = Want(entry.sha256, entry.size, entry.path)
        for _ in range(BUSY_TRIES):
            try:
                await self._arrivals.adopt(path, want)
                break
            except Conflict as error:  # the same bytes are on their way from a peer
                if error.code != "BLOB-BUSY":
                    raise
                await asyncio.sleep(BUSY_PAUSE)
        return await self._core.pools.hashing(self._layout, want, path)

    def _layout(self, want: Want, path: Path) -> PieceLayout:
        with path.open("rb") as file:
            layout, lengths = piece_lengths(want.path, file, want.size)
        known = self._core.ledger.pieces.records(want.digest, layout)
        if known is None:  # the blob was here before, cut in another way
            self._arrivals.records(want)
            known = self._core.ledger.pieces.records(want.digest, layout) or b""
        return PieceLayout(layout, len(lengths), records_root(parse_records(known, size=want.size)))

    def _gaps(self, observed: Observed) -> bool:
        try:
            manifest, _ = read_artifact(self._core.store, observed.manifest, observed.pieces)
            return bool(missing_files(self._core.store, manifest))
        except ComityError:
            return True

    @contextlib.asynccontextmanager
    async def _claimed(self, upstream: Upstream) -> AsyncIterator[Path]:
        """The folder in which a commit of one endpoint is collected; one import at a time has it."""
        async with self._under_way.holding([(upstream.endpoint, upstream.name)]):
            yield await self._core.pools.files(workplace, self._core.store, upstream)


class _Announcing(NoImportObserver):
    """Tells an operator what is about to come."""

    def __init__(self, loop: asyncio.AbstractEventLoop, started: asyncio.Queue[ImportStarted]) -> None:
        self._loop = loop
        self._started = started

    def expected(self, listing: RepositoryListing, paths: Sequence[Path]) -> None:
        said = ImportStarted(listing.standing.upstream.name, len(listing.files), listing.size)
        self._loop.call_soon_threadsafe(self._started.put_nowait, said)


MOST = 16
"""Commits that are named at a time."""


def disputes(core: NodeContext) -> list[str]:
    """A sentence for each commit under which nodes of this federation observed different bytes."""
    by_name: dict[str, dict[Digest, list[RecordedObservation]]] = {}
    for found in of_nodes(core):
        by_name.setdefault(found.observed.upstream.name, {}).setdefault(found.observed.artifact, []).append(found)
    contested = ((name, _speakers(core, claims)) for name, claims in by_name.items() if len(claims) > 1)
    sentences = (_sentence(name, claims) for name, claims in contested)
    return [sentence for sentence, _ in zip(sentences, range(MOST), strict=False)]


def _speakers(core: NodeContext, claims: dict[Digest, list[RecordedObservation]]) -> dict[Digest, list[str]]:
    """By artifact, the nodes that say so."""
    records = {a: [core.membership.node(Author("node", item.observed.by)) for item in f] for a, f in claims.items()}
    return {a: list(dict.fromkeys(record.name for record in found if record)) for a, found in records.items()}


def _sentence(name: str, claims: dict[Digest, list[str]]) -> str:
    said = "; ".join(f"{short(artifact)} by {', '.join(nodes)}" for artifact, nodes in sorted(claims.items()))
    return f"different bytes were observed under {name}: {said}"
