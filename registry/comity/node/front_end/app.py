"""Starts a front end and runs it until it is stopped, or until the ledger that it reads is another one.

Every front end has the open gRPC port with the calls that users make to find, fetch and verify, or no such port; and
its companion, the HTTP gateway. It ends with an error where only another start helps, so a service manager starts it
again; while the database does not answer it stays, answers with errors, and goes on by itself. What only the writer of
the node does is refused with the writer's address; of the charter, the certified epochs are served.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from comity.content.heap import limit_arenas, return_freed
from comity.node.app import HomeCheck, run_until_signalled
from comity.node.config import NodeConfig
from comity.node.epochs import EpochStore
from comity.node.front_end.following import FollowedNode
from comity.node.front_end.home import FrontEndHome, check_blob_folder, front_end_settings, read_public_files
from comity.node.home import check_ports
from comity.node.housekeeping import MEMORY_TIMING
from comity.node.listeners import Listeners, allow_descriptors
from comity.node.metrics import MetricsListener, Readiness
from comity.node.services.artifact import ArtifactService
from comity.node.services.blob import BlobService
from comity.node.services.charter import certified_epochs
from comity.node.services.log import LogService
from comity.node.services.node import NodeFactsService
from comity.node.supervisor import Supervisor
from comity.node.telemetry import configure_logging
from comity.node.threads import AsyncLedger, Clock
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound, Refused
from comity.wire.access import Caller
from comity.wire.charter import AskReceipt, JoinRequest
from comity.wire.messages import LocatedEntry
from comity.wire.node import Charter
from comity.wire.server import Services

MEMORY: Final = "memory"

_log: Final = structlog.get_logger("comity.node.front_end")


@dataclass(frozen=True, slots=True)
class WriterOnly:
    """Refuses what only the writer of the node does. `writer` is where it is reached, or empty."""

    writer: str

    @classmethod
    def of(cls, config: NodeConfig) -> WriterOnly:
        """By the setting `node.writer`; without it, by the addresses of the mutual port, which no front end has."""
        return cls(config.node.writer or ", ".join(config.advertise.mutual))

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
    """Implements `CharterReads`: the certified epochs. Votes and drafts are at the writer, which computes the tally."""

    def __init__(self, ledger: AsyncLedger, epochs: EpochStore | None, writer: WriterOnly) -> None:
        self._ledger = ledger
        self._epochs = epochs
        self._writer = writer

    async def epochs(self, start: int) -> AsyncGenerator[Charter, None]:
        if self._epochs is None:
            raise NotFound("no such charter", why="this node belongs to no federation yet", code="NO-CHARTER")
        async for charter in certified_epochs(self._ledger, self._epochs, start):
            yield charter

    async def next_epoch_entries(self, prev: Digest | None) -> AsyncGenerator[LocatedEntry, None]:
        raise self._writer.refusal()
        yield

    async def ask(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
        raise self._writer.refusal()

    async def asks(self) -> AsyncGenerator[JoinRequest, None]:
        raise self._writer.refusal()
        yield


@dataclass(frozen=True, slots=True)
class RunningFrontEnd:
    """The parts of a running front end that its companion uses."""

    home: FrontEndHome
    followed: FollowedNode
    readiness: Readiness
    writer: WriterOnly


FrontEndCompanion = Callable[[RunningFrontEnd], AbstractAsyncContextManager[str]]
"""As `comity.node.app.Companion`."""


@dataclass(frozen=True, slots=True)
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
) -> None:
    """Run a front end until cancelled.

    Args:
        clock: POSIX seconds.
        ready: called when every listener is open.
        companion: what runs in this process with the front end, such as its gateway.

    Raises what `FrontEndHome.open` and `Listeners.listen_for_users` raise, and the errors of `following.ENDING`.
    """
    home = await asyncio.to_thread(FrontEndHome.open, front_end_settings(config), clock)
    try:
        async with contextlib.AsyncExitStack() as ending:
            await _run(home, ready, companion, ending)
    finally:
        await asyncio.to_thread(home.close)
        _log.info("stopped", node=home.membership.seat.record.name)


async def _run(
    home: FrontEndHome,
    ready: Callable[[FrontEndAddresses], None],
    companion: FrontEndCompanion,
    ending: contextlib.AsyncExitStack,
) -> None:
    config, ledger, membership, seat = home.config, home.ledger, home.membership, home.membership.seat
    followed = FollowedNode(ledger, home.follower, membership, home.epochs, home.metrics, home.clock, time.monotonic)
    await followed.first_look()
    writer = WriterOnly.of(config)
    readiness = Readiness(ledger, home.store, home.pools, lambda: followed.age().document())
    front_end = RunningFrontEnd(home, followed, readiness, writer)
    open_ = ""
    if home.tls is not None:
        services = Services(
            node=NodeFactsService(ledger, seat, home.epochs, config.gateway.advertised_url(), lambda: None),
            logs=LogService(ledger),
            artifacts=ArtifactService(ledger, membership, home.metrics),
            blobs=BlobService(ledger, home.store, home.pools, membership, home.served, home.locations),
            governance=CharterEpochs(ledger, home.epochs, writer),
        )
        listeners = Listeners(config.listen, config.limits, home.tls, membership, services)
        ending.push_async_callback(listeners.close)
        open_ = await listeners.listen_for_users(writer.refusal)
    http = await ending.enter_async_context(companion(front_end))
    if config.listen.metrics:
        answer = MetricsListener(home.metrics, config.listen.metrics, readiness.from_thread)
        ending.callback(answer.close)
    supervisor = Supervisor(home.metrics)
    ending.push_async_callback(supervisor.stop)
    followed.begin(supervisor)
    supervisor.loop(MEMORY, partial(_return_memory, home), MEMORY_TIMING)
    readiness.started = True
    _log.info("listening", node=seat.record.name, role="front end", open=open_, http=http)
    ready(FrontEndAddresses(open_, http))
    try:
        await followed.run()
    except ComityError as error:
        _log.error("the front end ends", what=error.what, why=error.why, code=error.code)
        raise


async def _return_memory(home: FrontEndHome) -> None:
    await home.pools.files(return_freed)


def check_front_end(config: NodeConfig) -> HomeCheck:
    """As `comity.node.app.check`, for the home of a front end."""
    seat, federation, _ = read_public_files(config)
    check_blob_folder(config)
    check_ports(config.listeners)
    members = len(federation.body.members) if federation else None
    return HomeCheck(seat.record.name, seat.record.origin, config.federation.file, members, config.listeners, ())


def run_front_end(config: NodeConfig, companion: FrontEndCompanion = no_companion) -> None:
    """Run a front end, and its `companion`, in this process, until SIGTERM or SIGINT."""
    limit_arenas()
    allow_descriptors()
    configure_logging()
    run_until_signalled(serve_front_end(config, clock=time.time, companion=companion))
