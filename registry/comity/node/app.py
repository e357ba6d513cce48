"""What has to be done now and then: leftovers removed, gauges read.

The node's log of events, one a line: JSON where nobody watches, words on a terminal. Never a secret or a URL.

A node, put together: opened, listening, at work, and ended without leaving a task behind.

The running node: what it serves, how it follows the others, what it signs.

    config, keys, membership   what the operator decides, which keys there are, who is who
    app, core, doors           assembly: an opened home, three doors, an orderly end
    services/                  the thinking halves of the calls
    publishing/                statements and bytes coming in from publishers
    replication/               following peers: logs, cosignatures, artifacts, misbehaviour
    own_log, tasks, status     the log it writes, its background loops, how it is

What is true is decided in `comity.trust`, how bytes travel in `comity.wire`, what is remembered in `comity.ledger`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Container, Coroutine, MutableMapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import structlog

from comity.content.blobs import lock_if_free
from comity.content.heap import bound_arenas
from comity.ledger.ledger import Ledger
from comity.node.config import NodeConfig
from comity.node.context import Clock, MetricsListener, NodeContext
from comity.node.importing.importer import Importer
from comity.node.importing.importer import forget as forget_imports
from comity.node.importing.read_through import ReadThroughImports
from comity.node.listeners import ListenAddresses, Listeners, allow_descriptors
from comity.node.offers.provider import OfferService
from comity.node.outside_witnesses import OutsideWitnesses
from comity.node.publishing import Submissions
from comity.node.replication.setup import ReplicationTasks
from comity.node.scrub import Scrub
from comity.node.services.artifacts import ArtifactService
from comity.node.services.blobs import BlobService
from comity.node.services.charter import CharterService
from comity.node.services.logs import LogService
from comity.node.services.node import NodeFactsService, OperatorService, StatusReport
from comity.node.services.offers import OfferRpcService
from comity.node.supervisor import Rhythm, Supervisor
from comity.node.uploads import Uploads
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound
from comity.trust.tlog.note import VerifierKey
from comity.wire.access import CALL
from comity.wire.server import Services

RHYTHM: Final = Rhythm(every=300.0, deadline=1800.0)
STALE_UPLOAD: Final = 7 * 86_400.0
"""Seconds after which an upload, or an import, that nobody went on with is removed."""
GONE: Final = 86_400.0
"""Seconds for which a blob was not here until its piece records go as well. They are worth having when it comes back,
and a disk that was not mounted for an hour must not cost hashing all that is on it."""


class Housekeeping:
    def __init__(self, core: NodeContext) -> None:
        self._core = core
        self._gone: dict[Digest, float] = {}

    def begin(self, supervisor: Supervisor) -> None:
        supervisor.loop("housekeeping", self._step, RHYTHM)

    async def _step(self) -> None:
        await self._core.pools.files(self._core.store.sweep)
        # File times are the system's own, whatever clock the node was given.
        await self._core.pools.files(Uploads(self._core).forget, time.time() - STALE_UPLOAD)
        await self._core.pools.files(forget_imports, self._core.store, time.time() - STALE_UPLOAD)
        blobs = await self._core.pools.files(lambda: dict(self._core.store.sizes()))
        self._core.metrics.store_bytes.set(sum(blobs.values()))
        await self._core.pools.files(self.forget_records, blobs)
        newest = await self._core.pools.ledger(newest_cosignature, self._core.ledger, self._core.seat.record.log)
        if newest is not None:
            self._core.metrics.checkpoint_age.set(self._core.clock() - newest)

    def forget_records(self, here: Container[Digest]) -> None:
        """Drop the piece records of blobs that are not here, and were not at any look of a day. Blocking.

        Whoever brings a blob in holds its lock from before its records are kept until it is here.
        """
        core, now = self._core, self._core.clock()
        missing = (blob for blob in core.ledger.pieces.blobs() if blob not in here)
        self._gone = {blob: self._gone.get(blob, now) for blob in missing}
        locks = core.store.scratch(sha256(b"")).parent
        for blob in [blob for blob, since in self._gone.items() if now - since >= GONE]:
            with lock_if_free(locks, blob) as free:
                if free and not core.store.has(blob):
                    core.ledger.pieces.forget(blob)


def newest_cosignature(ledger: Ledger, log: VerifierKey) -> int | None:
    """When the newest checkpoint of a log was last cosigned, by its cosigners' own clocks. Blocking."""
    try:
        note = ledger.cosignatures.cosigned(str(log))
    except NotFound:
        return None
    times = [int.from_bytes(line.signature[:8], "big") for line in note.signatures if line.name != log.name]
    return max(times, default=None)


def _add_call(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Name the call that is being served, so that its events can be found together."""
    call = CALL.get("")
    if call:
        event["call"] = call
    return event


def configure_logging(*, level: int = logging.INFO) -> None:
    """Send structured events, and those of libraries that use `logging`, to standard error."""
    shared: list[Any] = [
        _add_call,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    terminal = sys.stderr.isatty()
    # A trace that shows variables would show the headers of a request.
    words = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    finish: list[Any] = [words] if terminal else [structlog.processors.JSONRenderer()]
    if not terminal:
        shared.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler()
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
    )
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("alembic", "sqlalchemy", "grpc"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


Ready = Callable[[ListenAddresses], None]
Beside = Callable[
    [NodeContext, Submissions, ReplicationTasks, ReadThroughImports, Supervisor], AbstractAsyncContextManager[str]
]
"""What else runs in the node's process, entered once the doors are open and left before they close; gives the URL at
which it listens, if any."""


@contextlib.asynccontextmanager
async def alone(
    core: NodeContext,
    desk: Submissions,
    replication: ReplicationTasks,
    passages: ReadThroughImports,
    supervisor: Supervisor,
) -> AsyncIterator[str]:
    """Nothing beside the node."""
    yield ""


LOOK: Final = 1.0
"""Seconds between two looks at the ledger's lock."""

_log: Final = structlog.get_logger("comity.node")


async def serve(
    config: NodeConfig, *, clock: Clock, ready: Ready = lambda listening: None, beside: Beside = alone
) -> None:
    """Run a node until cancelled.

    Args:
        clock: POSIX seconds.
        ready: called once every door is open.
        beside: what runs in this process with the node, such as its gateway.

    Raises what `Core.open` and `Doors.open` raise, and what ended the log: Untrusted (LEDGER-CORRUPT) for a damaged
    ledger, which is never signed over, and Unavailable (LEDGER-LOCK-LOST) where another process may write it.
    """
    core = await asyncio.to_thread(NodeContext.open, config, clock)
    try:
        async with contextlib.AsyncExitStack() as ending:
            await _run(core, ready, beside, ending)
    finally:
        await asyncio.to_thread(core.close)
        _log.info("stopped", node=core.seat.record.name)


def run(file: Path, beside: Beside = alone) -> None:
    """Run the node of a `node.toml`, and what is `beside` it, in this process, until SIGTERM or SIGINT."""
    import time

    bound_arenas()
    allow_descriptors()
    configure_logging()
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_until_signalled(NodeConfig.load(file), time.time, beside))


async def _until_signalled(config: NodeConfig, clock: Clock, beside: Beside) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await serve(config, clock=clock, beside=beside)


async def _run(core: NodeContext, ready: Ready, beside: Beside, ending: contextlib.AsyncExitStack) -> None:
    supervisor = Supervisor(core.metrics)
    replication = ReplicationTasks(core, supervisor)
    own_log = replication.own_log
    allocation = OfferService(core, own_log, supervisor)
    desk = Submissions(core, own_log, replication.chamber, allocation.counter)
    importer = Importer(core, desk, own_log)
    passages = ReadThroughImports(core, importer)
    governance = CharterService(core, replication.chamber)
    services = Services(
        node=NodeFactsService(core),
        logs=LogService(core),
        artifacts=ArtifactService(core),
        blobs=BlobService(core),
        publishing=desk,
        governance=governance,
        offers=OfferRpcService(core, allocation),
        operating=OperatorService(desk, StatusReport(core, desk, replication, allocation.register), governance),
        importing=importer,
    )
    doors = Listeners(core, services)
    ending.push_async_callback(doors.close)
    listening = await doors.open()
    ending.push_async_callback(replication.close)
    ending.push_async_callback(passages.close)
    ending.push_async_callback(supervisor.stop)
    await replication.convictions.load()  # before anybody submits anything
    http = await ending.enter_async_context(beside(core, desk, replication, passages, supervisor))
    listening = replace(listening, http=http)
    _log.info(
        "listening",
        node=core.seat.record.name,
        mutual=listening.mutual,
        open=listening.open,
        operator=str(listening.operator),
        http=listening.http,
    )
    ready(listening)
    await replication.begin()
    allocation.begin()
    if core.config.listen.metrics:  # not before it is known which logs stand convicted
        ending.callback(MetricsListener(core.metrics, core.config.listen.metrics).close)
    Housekeeping(core).begin(supervisor)
    Scrub(core, replication.blob_lost).begin(supervisor)
    OutsideWitnesses(core).begin(supervisor)
    try:
        await _either(own_log.run(), _locked(core))
    except ComityError as error:
        _log.error("nothing is signed any more", what=error.what, why=error.why, code=error.code)
        raise


async def _locked(core: NodeContext) -> None:
    """Raises Unavailable (LEDGER-LOCK-LOST) once the ledger's lock is lost."""
    while True:
        core.ledger.require_lock()
        await asyncio.sleep(LOOK)


async def _either(*works: Coroutine[None, None, None]) -> None:
    """Do all of `works` until one of them ends, which ends the others; what it raises is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
