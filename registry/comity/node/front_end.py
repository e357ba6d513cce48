"""A front end: a process that only reads the ledger and the blobs that its node's writer writes, and serves them.

A front end has a home of its own with the node's `node.toml`, `inception.line`, `node-record.line`, `rotations.lines`
and federation file. Of the node's keys it reads `keys/tls.pem` alone, and that only for the open port. What it keeps is
in the folder `front-end` beside the setting `storage.ledger`: lists that can be deleted. One front end uses a home.

It follows what the writer commits: entries of logs, epochs, and nodes of members; and it tells how old that is.
Signatures of entries are verified by the writer, once for all front ends: here the proven tables are read. What a front
end verifies again are the few lines that say who is a member and which certificates its nodes have, as the writer does
at each of its starts.

Every front end has the open gRPC port with the calls that users make to find, fetch and verify, or no such port; and
its companion, the HTTP gateway. What only the writer does is refused with the writer's address; of the charter, the
certified epochs are served. A front end ends with an error where only another start helps, so a service manager starts
it again; while the database does not answer it stays, answers with errors, and goes on by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Final, Self

import structlog
from filelock import Timeout

from comity.content.blobs import BlobStore
from comity.content.durable import disk_errors, file_lock
from comity.content.heap import limit_arenas, return_freed
from comity.ledger.ledger import Ledger, LedgerFollower
from comity.node.app import HomeCheck
from comity.node.config import NodeConfig
from comity.node.draining import Drain, EndRequest, run_until_first_ends, run_until_signalled
from comity.node.epochs import EpochStore
from comity.node.home import ServedHome, draining_of, homes_of, location_providers, open_store, read_backing
from comity.node.home_files import blobs_not_here, check_blob_folder, check_ports, read_public_files, signing_keys
from comity.node.housekeeping import MEMORY_TIMING
from comity.node.listeners import Listeners, allow_descriptors
from comity.node.members import Membership
from comity.node.metrics import LocationProviders, Metrics, MetricsListener, Readiness, ServedBytes
from comity.node.own_log import cosigned_times
from comity.node.reading import ReadingProgress
from comity.node.replication.peers import PeerDiscovery
from comity.node.services.artifact import ArtifactServicer
from comity.node.services.blob import BlobServicer
from comity.node.services.charter import certified_epochs
from comity.node.services.log import LogServicer
from comity.node.services.node import NodeServicer
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.telemetry import configure_logging
from comity.node.threads import AsyncLedger, Clock, Pools
from comity.rules.cosigned_times import corroborated_time
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Conflict, NotFound, Refused
from comity.trust.frozen import frozen
from comity.trust.statement import Entry, parse_entry
from comity.trust.statement_kinds import ROTATED
from comity.trust.tlog.note import VerifierKey
from comity.wire.access import Caller
from comity.wire.charter import AskReceipt, JoinRequest
from comity.wire.messages import LocatedEntry
from comity.wire.node import Charter
from comity.wire.services import Services
from comity.wire.tls import TlsIdentity

if TYPE_CHECKING:
    from filelock import BaseFileLock

FOLDER: Final = "front-end"
LOCK_FILE: Final = "front-end.lock"
TRIED: Final = 8
"""Artifacts whose manifests are looked for at a start."""
LOOK_SECONDS: Final = 1.0
"""Seconds between two looks: the gateway keeps its answers for as long."""
ENDING: Final = frozenset({"LEDGER-REPLACED", "LEDGER-MOVED", "LEDGER-OLDER", "LEDGER-NEWER", "CHARTER-BRANCH"})
"""Codes of errors after which only another start helps."""
MEMBERS: Final = "members"
MEMBERS_TIMING: Final = LoopTiming(interval=60.0, deadline=1800.0)
SILENT_SECONDS: Final = 10.0
"""Seconds without a look after which readers are told that they see old things."""
MEMORY: Final = "memory"

_log: Final = structlog.get_logger("comity.node.front_end")


@frozen
class WriterOnly:
    """Refuses what only the writer of the node does. `writer` is where it is reached, or empty."""

    writer: str

    @classmethod
    def of(cls, config: NodeConfig) -> WriterOnly:
        """By the setting `node.writer`; without it, by the addresses of the mutual port, which no front end has."""
        return cls(config.node.writer or ", ".join(config.advertise.mutual))

    @property
    def operators(self) -> str:
        """What an operator does instead of a call at this front end."""
        where = f", which is reached at {self.writer}" if self.writer else ""
        return f"on the machine of the writer of this node{where}: comity status --node HOME"

    def refusal(self) -> Refused:
        """The error to raise."""
        where = f"ask the writer of this node: {self.writer}" if self.writer else "ask the writer of this node"
        return Refused(
            "this front end only reads",
            why="it has no key to sign with, and writes nothing",
            hint=where,
            code="FRONT-END",
        )


class CharterEpochs:
    """Implements `CharterService`: certified epochs. Votes and drafts are at the writer, which computes the tally."""

    def __init__(self, ledger: AsyncLedger, epochs: EpochStore | None, writer: WriterOnly) -> None:
        self._ledger = ledger
        self._epochs = epochs
        self._writer = writer

    async def epochs(self, start: int = 0) -> AsyncGenerator[Charter, None]:
        if self._epochs is None:
            raise NotFound("no such charter", why="this node belongs to no federation yet", code="NO-CHARTER")
        async for charter in certified_epochs(self._ledger, self._epochs, start):
            yield charter

    async def next_epoch_entries(self, prev: Digest | None = None) -> AsyncGenerator[LocatedEntry, None]:
        raise self._writer.refusal()
        yield

    async def ask(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
        raise self._writer.refusal()

    async def asks(self) -> AsyncGenerator[JoinRequest, None]:
        raise self._writer.refusal()
        yield


def front_end_settings(config: NodeConfig) -> NodeConfig:
    """The settings as a front end uses them: the gateway fetches nothing and has no second address, and what it keeps
    is in a folder of its own."""
    gateway = config.gateway.model_copy(update={"cold": "off", "files": "", "ranges": ""})
    file = config.storage.ledger
    storage = config.storage.model_copy(update={"ledger": file.parent / FOLDER / file.name})
    return config.model_copy(update={"gateway": gateway, "storage": storage})


@frozen
class FrontEndHome(ServedHome):
    """The opened home of a front end. `open` makes one. `tls` is None without an open port."""

    tls: TlsIdentity | None
    follower: LedgerFollower
    lock: BaseFileLock

    @classmethod
    def open(cls, config: NodeConfig, clock: Clock) -> Self:
        """Read the public files, open the ledger for reading, and the blobs. Blocking.

        Args:
            config: the result of `front_end_settings`.

        Raises Conflict (FRONT-END-RUNS) if another front end uses the home, NotFound (BLOBS-NOT-HERE) if the blobs of
        the node are not where the settings say, what `Ledger.read_only`, `EpochStore` and `load_tls` raise, and
        NotFound, Malformed and Untrusted for invalid files.
        """
        own_node, federation, tls = read_public_files(config)
        if found := signing_keys(config):
            hint = f"remove them from {config.keys}: a front end signs nothing"
            _log.warning("signing keys are in the home of a front end", files=found, hint=hint)
        lock = _lock(config)
        try:
            backing = read_backing(config)
            ledger = Ledger.read_only(backing, clock)
            try:
                branch = config.federation.branch
                epochs = EpochStore(ledger.epochs, federation, branch, writes=False) if federation else None
                membership = Membership(own_node, federation, epochs.bodies() if epochs else ())
                membership.name_homes(homes_of(membership.known, ledger))
                check_blob_folder(config)
                metrics, store = Metrics(), open_store(config)
                _check_blobs(config, ledger, store)
                served, locations = ServedBytes(metrics), LocationProviders(*location_providers(config, store))
                calls, follower = AsyncLedger(ledger), LedgerFollower(ledger, backing)
                parts = (
                    membership,
                    epochs,
                    calls,
                    store,
                    Pools(),
                    metrics,
                    served,
                    locations,
                    clock,
                    draining_of(config),
                )
                return cls(config, *parts, tls, follower, lock)
            except BaseException:
                ledger.close()
                raise
        except BaseException:
            lock.release()
            raise

    def close(self) -> None:
        self.pools.close()
        self.ledger.close()
        self.lock.release()


def _lock(config: NodeConfig) -> BaseFileLock:
    folder = config.storage.ledger.parent
    with disk_errors("the folder of the front end cannot be used"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = file_lock(folder / LOCK_FILE)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            hint = "give each front end a home of its own: it needs the public files of the node only"
            why = f"it holds {folder / LOCK_FILE}"
            raise Conflict("another front end uses this home", why=why, hint=hint, code="FRONT-END-RUNS") from error
    return lock


def _check_blobs(config: NodeConfig, ledger: Ledger, store: BlobStore) -> None:
    """Some artifacts that the node claims to hold are in the store: a store without any of them is of another node."""
    held = ledger.replicas.standing(None, TRIED)
    if held and not any(store.has(artifact) for artifact in held):
        raise blobs_not_here(config, f"no manifest of {len(held)} artifacts that the node holds is there")


@frozen
class ShownAge:
    """How old is what a front end shows.

    Attributes:
        writer: whether the writer ran at the last look.
        looked: seconds since the last look at the ledger.
        checkpoint: the `corroborated_time` of the cosignatures of the newest checkpoint of the node's own log; 0 if
            there is none.
    """

    writer: bool
    looked: float
    checkpoint: int

    @property
    def old(self) -> bool:
        """Whether new entries may be missing: the writer does not run, or the ledger does not answer."""
        return not self.writer or self.looked > SILENT_SECONDS

    def document(self) -> Mapping[str, object]:
        """The members are those of `front_end` in the answer of `/readyz`."""
        return {"writer_runs": self.writer, "looked_seconds": round(self.looked, 1), "checkpoint_time": self.checkpoint}


class FollowedNode:
    """The node whose ledger is read. `first_look` comes before everything else. Not thread-safe: call from the event
    loop."""

    def __init__(
        self,
        ledger: AsyncLedger,
        follower: LedgerFollower,
        membership: Membership,
        epochs: EpochStore | None,
        metrics: Metrics,
        clock: Clock,
        monotonic: Clock,
    ) -> None:
        """`clock` counts POSIX seconds; `monotonic` never goes back."""
        self._ledger = ledger
        self._follower = follower
        self._membership = membership
        self._epochs = epochs
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        self._discovery = PeerDiscovery(ledger, membership)
        self._rotations = -1
        """The number of the newest proven rotation that was followed."""
        self._looked_at = float("-inf")
        self._checkpoint = 0
        self._due = False
        """Whether another process has committed since everything was read."""
        self._reread = False
        """Whether more node records may be valid than were learned."""
        self._wake: Callable[[], None] = lambda: None

    def age(self) -> ShownAge:
        return ShownAge(self._follower.writer, self._monotonic() - self._looked_at, self._checkpoint)

    async def first_look(self) -> None:
        """Raises what `LedgerFollower.look` and `EpochStore.reread` raise."""
        self._metrics.ledger_look_age.set_function(lambda: self.age().looked)
        self._metrics.checkpoint_age.set_function(self._checkpoint_age)
        await self._look()
        await self.read_members()

    def begin(self, supervisor: Supervisor) -> None:
        """Read members in the background, after each look that found something new."""
        supervisor.loop(MEMBERS, self.read_members, MEMBERS_TIMING)
        self._wake = partial(supervisor.wake, MEMBERS)

    async def run(self) -> None:
        """Look until cancelled. Raises the errors of `ENDING`; during others, what was read before stays."""
        failed = False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look()
            except ComityError as error:
                if error.code in ENDING:
                    raise
                if not failed:
                    _log.warning("the ledger does not answer", what=error.what, why=error.why, code=error.code)
                failed = True
                continue
            if failed:
                _log.info("the ledger answers again")
            failed = False

    async def _look(self) -> None:
        began = self._monotonic()
        self._due |= await self._ledger.run(self._follower.look)
        self._metrics.writer_running.set(self._follower.writer)
        if self._due:
            for body in await self._ledger.run(self._epochs.reread) if self._epochs else ():
                self._membership.adopt(body)
                self._reread = True
                self._metrics.charter_epoch.set(body.epoch)
                _log.info("epoch adopted", epoch=body.epoch, body=body.digest, members=len(body.members))
            times = await self._ledger.run(cosigned_times, self._ledger.tables, self._membership, self._own_log)
            self._checkpoint = corroborated_time(times.values(), self._clock()) or 0
            heads = await self._ledger.run(self._ledger.tables.logs.heads)
            self._metrics.set_log_sizes({self._membership.log_title(log): size for log, (size, _) in heads.items()})
            self._due = False
            self._wake()
        self._looked_at = began

    async def read_members(self) -> None:
        """Take up rotations of members, node records and addresses. After a failure the next call does what is left."""
        members, proven = self._membership, self._ledger.tables.proven
        newest = await self._ledger.read(proven.last_number_of, (ROTATED,))
        if self._reread or newest != self._rotations:
            members.name_homes(await self._ledger.run(homes_of, members.known, self._ledger.tables))
            for member in members.known:
                self._reread |= await self._rotate(member)
            self._rotations = newest
        if self._reread:
            self._discovery.forget()
            self._reread = False
        await self._discovery.read()

    async def _rotate(self, member: Digest) -> bool:
        """Returns whether the member has new keys."""
        lines = await self._ledger.run(self._ledger.tables.proven.rotations, member)
        known = {step.entry.statement_digest for chain in self._membership.chains(member) for step in chain.steps}
        new: list[Entry] = [entry for entry in map(parse_entry, lines) if entry.statement_digest not in known]
        return bool(new) and self._membership.rotate(member, new)

    @property
    def _own_log(self) -> VerifierKey:
        return self._membership.own_node.record.log

    def _checkpoint_age(self) -> float:
        return self._clock() - self._checkpoint if self._checkpoint else 0.0


@frozen
class RunningFrontEnd:
    """The parts of a running front end that its companion uses."""

    home: FrontEndHome
    followed: FollowedNode
    readiness: Readiness
    writer: WriterOnly
    reading: ReadingProgress


FrontEndCompanion = Callable[[RunningFrontEnd], AbstractAsyncContextManager[str]]
"""As `comity.node.app.Companion`."""


@frozen
class FrontEndAddresses:
    """The address of the open port, and the URL of the gateway; each empty if there is none."""

    open: str
    http: str


@contextlib.asynccontextmanager
async def no_companion(front_end: RunningFrontEnd) -> AsyncIterator[str]:
    """Runs nothing beside the front end."""
    yield ""


async def serve_front_end(
    config: NodeConfig,
    *,
    clock: Clock,
    ready: Callable[[FrontEndAddresses], None] = lambda listening: None,
    companion: FrontEndCompanion = no_companion,
    request: EndRequest | None = None,
) -> None:
    """Run a front end until it is asked to end, or cancelled.

    Args:
        clock: POSIX seconds.
        ready: called when every listener is open.
        companion: what runs in this process with the front end, such as its gateway.
        request: asks it to end.

    Raises what `FrontEndHome.open` and `Listeners.listen_for_users` raise, and the errors of `ENDING`.
    """
    home = await asyncio.to_thread(FrontEndHome.open, front_end_settings(config), clock)
    try:
        async with contextlib.AsyncExitStack() as ending:
            await _run(home, ready, companion, request or EndRequest(), ending)
    finally:
        await asyncio.to_thread(home.close)
        _log.info("stopped", node=home.membership.own_node.record.name)


async def _run(
    home: FrontEndHome,
    ready: Callable[[FrontEndAddresses], None],
    companion: FrontEndCompanion,
    request: EndRequest,
    ending: contextlib.AsyncExitStack,
) -> None:
    config, ledger, membership, own_node = home.config, home.ledger, home.membership, home.membership.own_node
    followed = FollowedNode(ledger, home.follower, membership, home.epochs, home.metrics, home.clock, time.monotonic)
    await followed.first_look()
    writer = WriterOnly.of(config)
    reading = ReadingProgress(ledger, home.metrics)
    readiness = Readiness(
        ledger,
        home.store,
        home.pools,
        lambda: followed.age().document(),
        lambda: [each.document() for each in reading.behind],
    )
    front_end = RunningFrontEnd(home, followed, readiness, writer, reading)
    open_, tell_not_serving = "", _nothing
    if home.tls is not None:
        blob = BlobServicer(ledger, home.store, home.pools, membership, home.served, home.locations)
        services = Services(
            node=NodeServicer(ledger, own_node, home.epochs, config.gateway.advertised_url(), lambda: None),
            log=LogServicer(ledger),
            artifact=ArtifactServicer(ledger, membership, home.metrics, blob.manifest),
            blob=blob,
            charter=CharterEpochs(ledger, home.epochs, writer),
        )
        listeners = Listeners(config.listen, config.limits, home.tls, membership, services, home.draining)
        ending.push_async_callback(listeners.close)
        open_ = await listeners.listen_for_users(writer.refusal, writer.operators)
        tell_not_serving = listeners.tell_not_serving
    http = await ending.enter_async_context(companion(front_end))
    if config.listen.metrics:
        answer = MetricsListener(home.metrics, config.listen.metrics, readiness.from_thread)
        ending.callback(answer.close)
    supervisor = Supervisor(home.metrics)
    ending.push_async_callback(supervisor.stop)
    followed.begin(supervisor)
    reading.begin(supervisor)
    supervisor.loop(MEMORY, partial(_return_memory, home), MEMORY_TIMING)
    readiness.started = True
    _log.info("listening", node=own_node.record.name, role="front end", open=open_, http=http)
    ready(FrontEndAddresses(open_, http))
    drain = Drain(home.draining, readiness, config.node.drain_seconds, tell_not_serving, _nothing)
    try:
        await run_until_first_ends(followed.run(), drain.run(request))
    except ComityError as error:
        _log.error("the front end ends", what=error.what, why=error.why, code=error.code)
        raise


async def _nothing() -> None:
    pass


async def _return_memory(home: FrontEndHome) -> None:
    await home.pools.files(return_freed)


def check_front_end(config: NodeConfig) -> HomeCheck:
    """As `comity.node.app.check`, for the home of a front end."""
    own_node, federation, _ = read_public_files(config)
    check_blob_folder(config)
    check_ports(config.listeners)
    members = len(federation.body.members) if federation else None
    return HomeCheck(
        own_node.record.name, own_node.record.origin, config.federation.file, members, config.listeners, ()
    )


def run_front_end(config: NodeConfig, companion: FrontEndCompanion = no_companion) -> None:
    """Run a front end, and its `companion`, in this process, until SIGTERM or SIGINT."""
    limit_arenas()
    allow_descriptors()
    configure_logging()
    run_until_signalled(lambda request: serve_front_end(config, clock=time.time, companion=companion, request=request))
