"""A node, put together: opened, listening, at work, and ended without leaving a task behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from comity.content.heap import bound_arenas
from comity.node import logs
from comity.node.allocation.room import Allocation
from comity.node.config import NodeConfig
from comity.node.core import Clock, Core
from comity.node.descriptors import allow_descriptors
from comity.node.doors import Doors, Listening
from comity.node.housekeeping import Housekeeping
from comity.node.importing.importer import Importer
from comity.node.importing.passages import Passages
from comity.node.metrics import MetricsListener
from comity.node.outside import OutsideWitnesses
from comity.node.publishing.desk import Desk
from comity.node.replication.assembly import Replication
from comity.node.scrub import Scrub
from comity.node.services.artifacts import Artifacts
from comity.node.services.blobs import Blobs
from comity.node.services.facts import Facts
from comity.node.services.governance import Governance
from comity.node.services.logs import Logs
from comity.node.services.offers import Offers
from comity.node.services.operators import Operators
from comity.node.services.status import Status
from comity.node.tasks import Supervisor
from comity.trust.errors import ComityError
from comity.wire.server import Services

Ready = Callable[[Listening], None]
Beside = Callable[[Core, Desk, Replication, Passages, Supervisor], AbstractAsyncContextManager[str]]
"""What else runs in the node's process, entered once the doors are open and left before they close; gives the URL at
which it listens, if any."""


@contextlib.asynccontextmanager
async def alone(
    core: Core, desk: Desk, replication: Replication, passages: Passages, supervisor: Supervisor
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
    core = await asyncio.to_thread(Core.open, config, clock)
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
    logs.configure()
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_until_signalled(NodeConfig.load(file), time.time, beside))


async def _until_signalled(config: NodeConfig, clock: Clock, beside: Beside) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await serve(config, clock=clock, beside=beside)


async def _run(core: Core, ready: Ready, beside: Beside, ending: contextlib.AsyncExitStack) -> None:
    supervisor = Supervisor(core.metrics)
    replication = Replication(core, supervisor)
    own_log = replication.own_log
    allocation = Allocation(core, own_log, supervisor)
    desk = Desk(core, own_log, replication.chamber, allocation.counter)
    importer = Importer(core, desk, own_log)
    passages = Passages(core, importer)
    governance = Governance(core, replication.chamber)
    services = Services(
        node=Facts(core),
        logs=Logs(core),
        artifacts=Artifacts(core),
        blobs=Blobs(core),
        publishing=desk,
        governance=governance,
        offers=Offers(core, allocation),
        operating=Operators(desk, Status(core, desk, replication, allocation.register), governance),
        importing=importer,
    )
    doors = Doors(core, services)
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


async def _locked(core: Core) -> None:
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
