"""The end of a node or front end that was asked to end, so that those who use it lose nothing.

(1) It is not ready any more, in `/readyz` and for the health checks of gRPC, and refuses new work.
(2) Running transfers end; those that take longer than `node.drain_seconds` are cut.
(3) A node waits until another one has the last entries of its log, if one can be reached; otherwise it says so.
(4) The listeners close, and what is under way in threads ends.

A second signal ends it at once. Work of minutes in a thread does not delay the end: what is on disk outlasts the death
of the process at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from comity.node.threads import AsyncLedger
from comity.trust.errors import NotFound
from comity.trust.frozen import frozen
from comity.wire.draining import Draining

if TYPE_CHECKING:
    from comity.node.members import Membership
    from comity.node.metrics import Readiness

COPY_SECONDS: Final = 5.0
"""Seconds that a node waits until another one has its last entries."""
LOOK_SECONDS: Final = 0.1
"""Seconds between two looks at who has them."""
CLOSING_SECONDS: Final = 10.0
"""Seconds that a process has to end when nothing more is served."""

_log: Final = structlog.get_logger("comity.node")


class EndRequest:
    """Whether the process was asked to end. Not thread-safe: for the event loop.

    Args:
        at_once: ends the work without draining.
        bound: ends the process soon, whatever still runs in it.
    """

    def __init__(self, at_once: Callable[[], object] = lambda: None, bound: Callable[[], None] = lambda: None) -> None:
        self._at_once = at_once
        self.bound = bound
        self._asked = asyncio.Event()
        self._awaited = False

    def signalled(self) -> None:
        """Ask to end: at once if it was asked before, or if nothing is served yet."""
        if self._awaited and not self._asked.is_set():
            self._asked.set()
            return
        _log.warning("ending at once")
        self.bound()
        self._at_once()

    async def wait(self) -> None:
        """Return when the process was asked to end. From this call on the first signal does not end it at once."""
        self._awaited = True
        await self._asked.wait()


def run_until_signalled(work: Callable[[EndRequest], Coroutine[None, None, None]]) -> None:
    """Run `work` in this process until it ends; SIGTERM and SIGINT ask it to end. Raises what it raises."""

    async def work_until_signalled() -> None:
        task = asyncio.current_task()
        assert task is not None
        request, loop = EndRequest(task.cancel, _end_soon), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, request.signalled)
        await work(request)

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(work_until_signalled())


async def run_until_first_ends(*works: Coroutine[None, None, None]) -> None:
    """Run all of `works` until one ends, then cancel the others. Raises what the first one raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _end_soon() -> None:
    threading.Thread(target=_end_late, name="end", daemon=True).start()


def _end_late() -> None:
    time.sleep(CLOSING_SECONDS)
    _log.warning("ending although threads still work", threads=_working())
    sys.stderr.flush()
    os._exit(0)


def _working() -> Mapping[str, str]:
    """By thread, the innermost function of this program that it runs."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    found = dict[str, str]()
    for ident, innermost in sys._current_frames().items():
        frame: Any = innermost
        while frame is not None and not frame.f_globals.get("__name__", "").startswith("comity"):
            frame = frame.f_back
        if frame is not None and ident != threading.get_ident():
            found[names.get(ident, str(ident))] = f"{frame.f_globals['__name__']}.{frame.f_code.co_name}"
    return found


@frozen
class Drain:
    """What is done when the process is asked to end.

    Attributes:
        seconds: how long running transfers may take.
        tell_not_serving: tells the health checks of gRPC.
        last_entries: waits until another node has them.
    """

    draining: Draining
    readiness: Readiness
    seconds: float
    tell_not_serving: Callable[[], Awaitable[None]]
    last_entries: Callable[[], Awaitable[None]]

    async def run(self, request: EndRequest) -> None:
        """Return when the process was asked to end, and may. Cancelled before that, it cuts what runs."""
        await request.wait()
        self.readiness.drain()
        self.draining.begin()
        try:
            await self.tell_not_serving()
            _log.info("draining", transfers=self.draining.running, seconds=self.seconds)
            if late := await self.draining.ended(self.seconds):
                _log.warning("cutting transfers", transfers=late, why=f"they took longer than {self.seconds:g} s")
        finally:
            self.draining.cut()
        await self.last_entries()
        request.bound()


class PeerLinkState(Protocol):
    reachable: bool


class LinkToPeer(Protocol):
    """Part of `replication.link.PeerLink`."""

    @property
    def state(self) -> PeerLinkState: ...


class LastEntries:
    """Who has the last entries of the own log: a member's node that cosigned its newest checkpoint, since it cosigns
    what it stored. `links` returns those to peers."""

    def __init__(
        self, ledger: AsyncLedger, membership: Membership, links: Callable[[], Collection[LinkToPeer]]
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._links = links

    async def until_copied(self) -> None:
        """Wait until another member's node has them, at most `COPY_SECONDS`, and only while a peer can be reached; say
        so if none has them then."""
        if not self._membership.peers:
            return
        until = time.monotonic() + COPY_SECONDS
        while not await self._ledger.run(self._copied):
            if time.monotonic() > until or not any(link.state.reachable for link in self._links()):
                hint = "start this node again before its ledger is moved or given up"
                _log.warning("no other node has the last entries of this log", hint=hint)
                return
            await asyncio.sleep(LOOK_SECONDS)

    def _copied(self) -> bool:
        """Blocking."""
        own = self._membership.own_node
        try:
            note = self._ledger.tables.cosignatures.cosigned(str(own.record.log))
        except NotFound:  # nothing was ever signed
            return True
        return bool(self._membership.cosigned_times(note).keys() - {own.inception.id})
