"""Starts a node, runs it, and stops it without leaving tasks behind.

`serve` opens the node's home, the listeners, replication and background loops, and runs until it was asked to end and
has drained (`draining`), until cancelled, until the log ends or until the ledger's lock is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from comity.content.blobs import BlobStore
from comity.content.heap import limit_arenas
from comity.content.inspections import INSPECTIONS_FILE, KeptInspections
from comity.content.sqlite_cache import remove_sqlite_cache
from comity.ledger.ledger import Ledger
from comity.node.admission import Admission
from comity.node.capacity import Capacity, CountedParts, StoredUse
from comity.node.charter.admission import CharterAdmission, JoinRequests
from comity.node.config import NodeConfig
from comity.node.copies.controller import CopiesController
from comity.node.copies.index import CopiesIndex
from comity.node.copies.pins import PinServicer
from comity.node.descent import FILE_NAME as DESCENT_FILE
from comity.node.descent import DescentReader, DescentRows
from comity.node.draining import Drain, EndRequest, LastEntries, run_until_first_ends, run_until_signalled
from comity.node.file_index import FILE_NAME, FileIndex, FileIndexReader, index_basis
from comity.node.home import OpenedHome, standby_database
from comity.node.home_files import IMPORT_QUEUE_FILE, HomeFiles, check_ports
from comity.node.housekeeping import Housekeeping, StoreListing
from comity.node.importing.followed import FollowedRepositories
from comity.node.importing.importer import Importer
from comity.node.importing.queue import ImportQueue
from comity.node.importing.read_through import ReadThroughImports
from comity.node.inspector import Inspector
from comity.node.ledger_damage import explained
from comity.node.listeners import ListenAddresses, Listeners, allow_descriptors
from comity.node.metrics import MetricsListener, Readiness
from comity.node.offers.index import OfferIndex
from comity.node.offers.provider import OfferController
from comity.node.operator_acts import AuditCopies, OperatorActs, RecordedImports, RecordedLoads
from comity.node.outside_witnesses import OutsideWitnesses
from comity.node.policy_file import PolicyFile
from comity.node.publisher_watch import FILE_NAME as WATCH_FILE
from comity.node.publisher_watch import PublisherWatch, WatchReader
from comity.node.publishing import Submissions
from comity.node.reading import EventLoopLag, ReadingProgress
from comity.node.replication.setup import ReplicationTasks
from comity.node.scrub import LedgerScrub, Scrub
from comity.node.services.artifact import ArtifactServicer, WriterAnswers
from comity.node.services.audit import AuditServicer
from comity.node.services.blob import BlobServicer
from comity.node.services.charter import CharterServicer
from comity.node.services.concerns import ConcernFinder
from comity.node.services.descent import DescentCounter
from comity.node.services.files import FileFinder
from comity.node.services.index_records import FileIndexSender
from comity.node.services.log import LogServicer
from comity.node.services.news import NewsFeed
from comity.node.services.node import NodeServicer
from comity.node.services.offer import OfferServicer
from comity.node.services.operator import OperatorServicer, SignInLinks
from comity.node.standby import until_writer_ends
from comity.node.statement_groups import StatementGroups
from comity.node.status import StatusReport
from comity.node.supervisor import Supervisor
from comity.node.telemetry import Telemetry, configure_logging
from comity.node.threads import Clock, Pools
from comity.node.uploads import Uploads
from comity.node.webhook_deliveries import QUEUE_FILE, EventQueue, NodeConditions, StatementEvents, Webhooks
from comity.node.webhooks import read_hooks
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Conflict, Untrusted
from comity.trust.frozen import frozen
from comity.wire.addresses import Address
from comity.wire.calls import traced
from comity.wire.services import Services

Ready = Callable[[ListenAddresses], None]


@frozen
class RunningNode:
    """The parts of a running node that its companion uses."""

    home: OpenedHome
    replication: ReplicationTasks
    read_through: ReadThroughImports
    offers: OfferIndex
    copies: CopiesIndex
    status: StatusReport
    links: SignInLinks
    readiness: Readiness
    policy: PolicyFile
    reading: ReadingProgress
    files: FileIndexReader
    watch: WatchReader
    descent: DescentCounter


Companion = Callable[[RunningNode], AbstractAsyncContextManager[str]]
"""What else runs in the node's process: entered after the listeners are open, left before they close. Returns the URL
at which it listens, if any."""


@contextlib.asynccontextmanager
async def no_companion(node: RunningNode) -> AsyncIterator[str]:
    """Runs nothing beside the node."""
    yield ""


LOCK_CHECK_SECONDS: Final = 1.0
"""Seconds between two checks of the ledger's lock."""

_log: Final = structlog.get_logger("comity.node")


async def serve(
    config: NodeConfig,
    *,
    clock: Clock,
    ready: Ready = lambda listening: None,
    companion: Companion = no_companion,
    request: EndRequest | None = None,
) -> None:
    """Run a node until it is asked to end, or cancelled.

    Args:
        clock: POSIX seconds.
        ready: called when every listener is open.
        companion: what runs in this process with the node, such as its gateway.
        request: asks it to end.

    Raises what `OpenedHome.open`, `Listeners.open` and `PolicyFile` raise, and what ended the log: Untrusted
    (LEDGER-CORRUPT) for a damaged ledger, which is never signed over, and Unavailable (LEDGER-LOCK-LOST) if another
    process may write it.
    """
    home = await _opened(config, clock)
    try:
        async with contextlib.AsyncExitStack() as ending:
            if config.telemetry.otlp:
                telemetry = await asyncio.to_thread(Telemetry, config.telemetry, home.membership.own_node.record.name)
                ending.push_async_callback(asyncio.to_thread, telemetry.close)
                ending.enter_context(traced(telemetry.start))
            await _run(home, ready, companion, request or EndRequest(), ending)
    except Exception as error:
        known = await asyncio.to_thread(explained, home.ledger.tables, error)
        raise known from (error if known is not error else error.__cause__)
    finally:
        await asyncio.to_thread(home.close)
        _log.info("stopped", node=home.membership.own_node.record.name)


async def _opened(config: NodeConfig, clock: Clock) -> OpenedHome:
    """Open the home; that of a standby when no other process writes the ledger any more."""
    while True:
        if config.is_standby:
            await until_writer_ends(standby_database(config))
        try:
            return await asyncio.to_thread(OpenedHome.open, config, clock)
        except Conflict as error:  # another standby was faster
            if not config.is_standby or error.code != "LEDGER-LOCKED":
                raise


@frozen
class HomeCheck:
    """What a node would start with: its name and log, its listeners by setting, and the advertised addresses that only
    this machine reaches. `members` is None if there is no federation file yet."""

    node: str
    origin: str
    federation_file: Path
    members: int | None
    listeners: Mapping[str, str]
    loopback: tuple[str, ...]


def check(file: Path) -> HomeCheck:
    """Check the settings, keys, federation file and ports of a `node.toml`, and start nothing. Raises what a start with
    them would raise."""
    config = NodeConfig.load(file)
    files = HomeFiles.read(config)
    check_ports(config.listeners)
    record, federation = files.own_node.record, files.federation
    advertised = (*config.advertise.mutual, *config.advertise.open)
    return HomeCheck(
        record.name,
        record.origin,
        config.federation.file,
        len(federation.body.members) if federation else None,
        config.listeners,
        tuple(address for address in advertised if Address.parse(address).is_loopback),
    )


def run(file: Path, companion: Companion = no_companion) -> None:
    """Run the node of a `node.toml`, and its `companion`, in this process, until SIGTERM or SIGINT."""
    limit_arenas()
    allow_descriptors()
    configure_logging()
    config = NodeConfig.load(file)
    run_until_signalled(lambda request: serve(config, clock=time.time, companion=companion, request=request))


async def _run(
    home: OpenedHome, ready: Ready, companion: Companion, request: EndRequest, ending: contextlib.AsyncExitStack
) -> None:
    config, membership, supervisor = home.config, home.membership, Supervisor(home.metrics)
    parts = await _make_parts(home, supervisor, ending)
    _measure_when_read(parts)
    listeners = Listeners(config.listen, config.limits, home.keys.tls, membership, _services(parts), home.draining)
    ending.push_async_callback(listeners.close)
    listening = await listeners.open()
    ending.callback(parts.news.close)
    ending.push_async_callback(parts.replication.close)
    ending.push_async_callback(parts.read_through.close)
    after_loops = await ending.enter_async_context(contextlib.AsyncExitStack())
    ending.push_async_callback(supervisor.stop)
    await parts.replication.misbehaviour.load()  # before any submission
    listening = replace(listening, http=await ending.enter_async_context(companion(parts.running)))
    _log.info(
        "listening",
        node=membership.own_node.record.name,
        mutual=listening.mutual,
        open=listening.open,
        operator=str(listening.operator),
        http=listening.http,
    )
    ready(listening)
    await _begin_loops(parts, supervisor, after_loops)
    last = LastEntries(home.ledger, membership, parts.replication.peers.links.values)
    drain = Drain(
        home.draining, parts.readiness, config.node.drain_seconds, listeners.tell_not_serving, last.until_copied
    )
    await run_until_first_ends(_sign(parts), drain.run(request), _probe_store(home.store, home.pools))


@frozen
class _Parts:
    """The parts of a node, made and not begun."""

    home: OpenedHome
    uploads: Uploads
    replication: ReplicationTasks
    offers: OfferController
    copies: CopiesController
    acts: OperatorActs
    charter: CharterServicer
    submissions: Submissions
    importer: Importer
    read_through: ReadThroughImports
    followed: FollowedRepositories
    queue: ImportQueue
    scrub: Scrub
    ledger_scrub: LedgerScrub
    listing: StoreListing
    capacity: Capacity
    status: StatusReport
    inspector: Inspector
    files: FileIndexReader
    watch: WatchReader
    descent: DescentReader
    descent_counter: DescentCounter
    links: SignInLinks
    readiness: Readiness
    news: NewsFeed
    policy: PolicyFile
    reading: ReadingProgress

    @property
    def running(self) -> RunningNode:
        return RunningNode(
            self.home,
            self.replication,
            self.read_through,
            self.offers.index,
            self.copies.index,
            self.status,
            self.links,
            self.readiness,
            self.policy,
            self.reading,
            self.files,
            self.watch,
            self.descent_counter,
        )


async def _make_parts(home: OpenedHome, supervisor: Supervisor, ending: contextlib.AsyncExitStack) -> _Parts:
    ledger, store, pools, membership, config = home.ledger, home.store, home.pools, home.membership, home.config
    uploads = Uploads(ledger, store, pools, home.metrics, reserve_bytes=config.storage.reserve_bytes)
    replication = ReplicationTasks(home, uploads, supervisor)
    own_log, follower = replication.own_log, replication.charter_follower
    offers = OfferController(home, own_log, supervisor)
    copies = await asyncio.to_thread(CopiesController, home, replication, supervisor)
    ending.callback(copies.close)
    kept = await asyncio.to_thread(KeptInspections, config.storage.ledger.with_name(INSPECTIONS_FILE))
    ending.callback(kept.close)
    index_file, basis = config.storage.ledger.with_name(FILE_NAME), index_basis(membership)
    file_index = await asyncio.to_thread(FileIndex, index_file, basis)
    ending.callback(file_index.close)
    files = FileIndexReader(ledger, store, pools, membership, file_index)
    rows = await asyncio.to_thread(PublisherWatch, index_file.with_name(WATCH_FILE), basis)
    ending.callback(rows.close)
    watch = WatchReader(ledger, store, pools, membership, files, rows)
    descent_rows = await asyncio.to_thread(DescentRows, index_file.with_name(DESCENT_FILE), basis)
    ending.callback(descent_rows.close)
    descent = DescentReader(ledger, store, pools, membership, descent_rows)
    policy = await asyncio.to_thread(PolicyFile, config.gateway.policy)
    acts = OperatorActs(home.audit_log, pools)
    charter_admission = CharterAdmission(ledger, membership, follower)
    admission = Admission(ledger, membership, config.publishing, config.limits, charter_admission, offers.admission)
    submissions = Submissions(
        home.context,
        uploads,
        own_log,
        admission,
        config.limits.upload_bytes,
        acts,
        replication.submitted,
    )
    importer = Importer(ledger, store, pools, home.clock, uploads, submissions, own_log)
    followed = FollowedRepositories(config.upstream, importer, lambda: replication.pauses.why)
    queue_file = config.storage.ledger.with_name(IMPORT_QUEUE_FILE)
    queue = ImportQueue(queue_file, importer, pools, home.clock, lambda: replication.pauses.why)
    await queue.load()
    scrub = Scrub(
        config.storage, store, pools, home.clock, home.metrics, replication.blob_lost, uploads.remember_states
    )
    ledger_scrub = LedgerScrub(config.storage, ledger, home.clock, home.metrics, replication.questions)
    reading = ReadingProgress(ledger, home.metrics)
    reading.follow("log entries", replication.intake.progress)
    for what, progress in copies.readers().items():
        reading.follow(what, progress)
    reading.follow("files of artifacts", files.progress)
    reading.follow("what concerns publishers", watch.progress)
    reading.follow("descent of artifacts", descent.progress)
    listing = StoreListing(store, ledger.tables.pieces, home.clock)
    counted = CountedParts(
        membership,
        submissions.pending,
        replication.replicas,
        replication.side_object_repair,
        offers.index,
        copies.index,
    )
    capacity = Capacity(counted, StoredUse(config, ledger.tables), ledger, home.metrics)
    return _Parts(
        home=home,
        uploads=uploads,
        replication=replication,
        offers=offers,
        copies=copies,
        acts=acts,
        charter=CharterServicer(ledger, membership, follower, JoinRequests(ledger, pools, membership, time.monotonic)),
        submissions=submissions,
        importer=importer,
        read_through=ReadThroughImports(config.upstream, importer, enabled=config.gateway.cold == "upstream"),
        followed=followed,
        queue=queue,
        scrub=scrub,
        ledger_scrub=ledger_scrub,
        listing=listing,
        capacity=capacity,
        status=StatusReport(
            ledger=ledger,
            pools=pools,
            clock=home.clock,
            started=int(home.clock()),
            membership=membership,
            replication=replication,
            listing=listing,
            served=home.served,
            metrics=home.metrics,
            offers=offers.index,
            copies=copies.counter,
            scrub=scrub,
            ledger_scrub=ledger_scrub,
            capacity=capacity,
            followed=followed,
            queue=queue,
            policy=policy,
            reading=reading,
        ),
        policy=policy,
        reading=reading,
        inspector=Inspector(ledger, store, pools, membership, kept),
        files=files,
        watch=watch,
        descent=descent,
        descent_counter=DescentCounter(descent, copies.index, membership, home.pulls, pools, home.clock),
        links=SignInLinks(time.monotonic),
        readiness=Readiness(ledger, store, pools, reading=lambda: [each.document() for each in reading.behind]),
        news=NewsFeed(
            ledger,
            [key.key_id for key in home.keys.record.cosigners],
            lambda: home.epochs.newest.digest if home.epochs else None,
            replication.cosigner.assigned.is_told,
        ),
    )


def _services(parts: _Parts) -> Services:
    """What the listeners serve."""
    home, copies, acts = parts.home, parts.copies, parts.acts
    ledger, membership = home.ledger, home.membership
    gateway = home.config.gateway.advertised_url()
    blob = BlobServicer(ledger, home.store, home.pools, membership, home.served, home.locations)
    return Services(
        node=NodeServicer(ledger, membership.own_node, home.epochs, gateway, copies.counter.counts),
        log=LogServicer(ledger),
        news=parts.news,
        artifact=ArtifactServicer(
            ledger,
            membership,
            home.metrics,
            blob.manifest,
            WriterAnswers(
                FileFinder(parts.files, home.pools),
                FileIndexSender(parts.files, ledger, home.pools, home.keys.signer, home.clock),
                ConcernFinder(ledger, home.pools, parts.watch),
                parts.descent_counter,
            ),
        ),
        blob=blob,
        publish=parts.submissions,
        charter=parts.charter,
        offer=OfferServicer(ledger, parts.offers, acts),
        operator=OperatorServicer(parts.submissions, parts.status, parts.charter, parts.links, acts),
        upstream=RecordedImports(parts.queue, acts),
        bundle=RecordedLoads(parts.replication.bundles, acts),
        pin=PinServicer(copies.pins, membership, acts),
        audit=AuditServicer(ledger, membership, home.clock, copies, acts),
    )


async def _begin_loops(parts: _Parts, supervisor: Supervisor, after_loops: contextlib.AsyncExitStack) -> None:
    """`after_loops` closes, when every loop has ended, what the loops use."""
    home, replication, copies = parts.home, parts.replication, parts.copies
    config, pools = home.config, home.pools
    await copies.withdrawals.recover()  # before the replication looks for missing files
    replication.cosigner.assigned.watch(parts.news.begin(supervisor))
    await replication.begin()
    parts.offers.begin()
    copies.begin()
    if config.listen.metrics:  # only after the misbehaviour proofs are loaded
        listener = MetricsListener(home.metrics, config.listen.metrics, parts.readiness.from_thread)
        after_loops.callback(listener.close)
    Housekeeping(home.context, parts.uploads, parts.listing).begin(supervisor)
    audit_copies = AuditCopies(config.home, config.audit_log, pools)
    after_loops.callback(audit_copies.close)
    audit_copies.begin(supervisor)
    for part in (
        parts.reading,
        EventLoopLag(home.metrics),
        parts.scrub,
        parts.ledger_scrub,
        parts.capacity,
        home.pulls,
        parts.followed,
        parts.queue,
        parts.inspector,
        parts.files,
        parts.watch,
        parts.descent,
    ):
        part.begin(supervisor)
    webhooks = await asyncio.to_thread(_webhooks, parts)
    if webhooks is not None:
        after_loops.callback(webhooks.queue.close)
        after_loops.callback(webhooks.close)
        webhooks.begin(supervisor)
    parts.policy.begin(supervisor, pools)
    log = str(home.membership.own_node.record.log)
    OutsideWitnesses(home.ledger, pools, log, home.clock, home.metrics, config.tlog.submit).begin(supervisor)
    parts.readiness.started = True


def _measure_when_read(parts: _Parts) -> None:
    """Let gauges ask the parts when they are read."""
    home, counter, follower = parts.home, parts.copies.counter, parts.replication.charter_follower
    home.metrics.copies_short.set_function(lambda: counter.counts().short)
    if follower is not None:
        member = home.membership.own_node.inception.id
        home.metrics.proposals_waiting.set_function(lambda: follower.votes_waiting(member))


def _webhooks(parts: _Parts) -> Webhooks | None:
    """None without webhooks: then nothing is remembered, and a later one begins with what comes next. Blocking. Raises
    NotFound, Unavailable, Malformed (WEBHOOKS)."""
    home, replication = parts.home, parts.replication
    config, own_node = home.config, home.membership.own_node
    hooks = read_hooks(config.webhooks.file) if config.webhooks.file else ()
    folder = config.storage.ledger.parent
    if not hooks:
        remove_sqlite_cache(folder / QUEUE_FILE)
        return None
    queue = EventQueue(folder)
    queue.forget_others(hooks)
    proven = home.ledger.tables.proven
    groups = StatementGroups(proven, home.membership, parts.policy.named)
    conditions = NodeConditions(
        home.ledger,
        replication,
        parts.copies.counter,
        replication.charter_follower,
        home.membership,
        parts.inspector,
    )
    return Webhooks(
        hooks,
        queue,
        config.home,
        home.context,
        own_node.record.origin,
        conditions,
        StatementEvents(proven, groups, parts.watch, (Digest(hook.publisher) for hook in hooks if hook.publisher)),
    )


async def _sign(parts: _Parts) -> None:
    """Runs the own log, and ends when it may not sign any more. Raises what ended it."""
    try:
        await run_until_first_ends(parts.replication.own_log.run(), _watch_lock(parts.home.ledger.tables))
    except ComityError as error:
        _log.error("own log ended: the node stops signing", what=error.what, why=error.why, code=error.code)
        raise


async def _watch_lock(ledger: Ledger) -> None:
    """Raises Unavailable (LEDGER-LOCK-LOST) when the ledger's lock is lost."""
    while True:
        ledger.require_lock()
        await asyncio.sleep(LOCK_CHECK_SECONDS)


async def _probe_store(store: BlobStore, pools: Pools) -> None:
    """Log what the blob store does not keep of what it says, beside the running node: a service that does not answer
    delays no start. Ends only by Untrusted (S3-OTHER-BYTES, S3-RANGE), for a store that can hold nothing."""
    try:
        for found in await pools.files(store.probe):
            _log.warning("the bucket does not do what it says", what=found.what, why=found.why, code=found.code)
    except Untrusted as error:
        _log.error("the bucket keeps no bytes: the node ends", what=error.what, why=error.why, code=error.code)
        raise
    except ComityError as error:
        _log.warning("the bucket was not probed", what=error.what, why=error.why, code=error.code)
    await asyncio.get_running_loop().create_future()
