"""Imports that the operator queued: kept in a file, resumed after a restart, tried again for days.

    waiting    until its next try
    importing  now, one of `AT_ONCE`
    logged     done
    refused    the upstream or its answers do not allow it; not tried again until it is queued again

An outage or a limit on requests makes an import wait: a minute at first, twice as long each time, an hour at most, and
at least as long as the upstream asked for, up to a day. Received bytes stay in the folder of the import, and new ones
begin the waits again. All tries import the commit that the first one found, where the upstream keeps commits: a branch
that moves would begin again each time. Each is an ordinary import (`Importer`), without terms and without a token,
which would have to be stored. Imports begin only while copies are not paused.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.node.importing.importer import ImportCounter, Importer
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import Clock, Pools
from comity.trust.encoding import Fields, Json, parse_json
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, OutOfSpace, Unavailable
from comity.trust.names import GIT, UPSTREAM
from comity.trust.upstream import check_commit, check_endpoint
from comity.upstream import mirror
from comity.upstream.download import NoImportObserver, Timeouts
from comity.upstream.guarded import MAX_RETRY_AFTER, AllowedHosts
from comity.upstream.listed_files import RepositoryListing, UpstreamRequest
from comity.upstream.mirror import MirrorOrder
from comity.wire import limits
from comity.wire.upstream import (
    IMPORTING,
    LOGGED,
    QUEUE_STATES,
    REFUSED,
    WAITING,
    ImportEvent,
    ImportOrder,
    QueuedImport,
    UpstreamCheck,
)

SCHEMA: Final = "comity/import-queue/v1"
AT_ONCE: Final = 2
FIRST_WAIT: Final = 60
LONGEST_WAIT: Final = 3600
SHORT_WAIT: Final = 60.0
"""Seconds of `Retry-After` that an import waits for itself; for longer ones it goes back to the queue."""
TIMING: Final = LoopTiming(interval=5.0, deadline=7 * 86_400.0)
MAX_WHY: Final = 500
MAX_FILE: Final = 4 * 1024 * 1024

_log: Final = structlog.get_logger("comity.node.importing")


def encode_queue(queued: Sequence[QueuedImport]) -> bytes:
    """The file of a queue."""
    return json.dumps({"schema": SCHEMA, "imports": [asdict(item) for item in queued]}).encode() + b"\n"


def parse_queue(data: bytes) -> tuple[QueuedImport, ...]:
    """Parse the output of `encode_queue`. What was in progress waits again. Raises Malformed."""
    fields = Fields(parse_json(data, limit=MAX_FILE, what="import queue"), "import queue")
    fields.constant("schema", SCHEMA)
    items = fields.items("imports", most=limits.QUEUED_IMPORTS)
    fields.done()
    found = tuple(_item(Fields(item, "queued import")) for item in items)
    if len({item.name for item in found}) != len(found):
        raise Malformed("not an import queue", why="two imports have the same name")
    return found


def _item(fields: Fields) -> QueuedImport:
    name = str(UpstreamRequest.parse(fields.text("name", most=limits.NAME)))
    endpoint = check_endpoint(fields.text("endpoint", least=0, most=limits.NAME))
    hosts = tuple(map(_host, fields.items("hosts", most=limits.UPSTREAM_HOSTS)))
    state = fields.choice("state", QUEUE_STATES)
    item = QueuedImport(
        name=name,
        endpoint=endpoint,
        hosts=hosts,
        state=WAITING if state == IMPORTING else state,
        queued=fields.integer("queued"),
        failures=fields.integer("failures"),
        why=fields.text("why", least=0, most=MAX_WHY),
        next_try=fields.integer("next_try"),
        received=fields.integer("received"),
        size=fields.integer("size"),
        pinned=_pinned(fields.text("pinned", least=0, most=limits.NAME)),
    )
    fields.done()
    return item


def _pinned(name: str) -> str:
    if name:
        check_commit(UpstreamRequest.parse(name).revision)
    return name


def _host(value: Json) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= limits.ORIGIN or not value.isprintable():
        raise Malformed("not a host", why="expected 1 to 255 characters without control characters")
    return value


def next_wait(failures: int, asked: float) -> int:
    """Seconds until the next try after so many failed ones, where the upstream asked to wait for `asked` seconds."""
    own = min(LONGEST_WAIT, FIRST_WAIT << min(failures - 1, 10))
    return max(own, math.ceil(min(asked, MAX_RETRY_AFTER)))


class _QueuedRun(NoImportObserver):
    """An import in progress: what is here of it, and how large it is."""

    def __init__(self) -> None:
        self.counter = ImportCounter()
        self.size = 0
        self.cancelled = False

    def on_listing(self, listing: RepositoryListing, paths: Sequence[Path]) -> None:
        self.size = listing.size

    def cancel(self) -> None:
        self.cancelled = True
        self.counter.stop()


class ImportQueue:
    """Implements `UpstreamService`, with `Importer` for imports that a caller waits for. Not thread-safe: call from the
    event loop.

    Args:
        file: where the queue is kept.
        paused: why nothing may be copied now; empty if it may.
    """

    def __init__(self, file: Path, importer: Importer, pools: Pools, clock: Clock, paused: Callable[[], str]) -> None:
        self._file = file
        self._importer = importer
        self._pools = pools
        self._clock = clock
        self._paused = paused
        self._queued: dict[str, QueuedImport] = {}
        self._running: dict[str, _QueuedRun] = {}
        self._writing = asyncio.Lock()
        self._closed: Malformed | None = None
        """Why the file cannot be read."""

    async def load(self) -> None:
        """Read what was queued before. A file that cannot be read stays as it is, and the queue is closed: the node has
        more to do than these imports. Raises Unavailable (DISK)."""
        try:
            found = await self._pools.files(lambda: parse_queue(read_bounded(self._file, MAX_FILE)))
        except NotFound:
            return
        except Malformed as error:
            what, hint = (
                f"{self._file} cannot be read",
                "move the file away, start the node again, and queue its imports",
            )
            self._closed = Malformed(what, why=str(error), hint=hint, code="IMPORT-QUEUE-FILE")
            _log.error("queued imports are not tried", why=str(self._closed), code=self._closed.code)
            return
        self._queued = {item.name: item for item in found}

    def begin(self, supervisor: Supervisor) -> None:
        for number in range(AT_ONCE):
            supervisor.loop(f"queued imports {number + 1}", self.step, TIMING)

    async def run(self, order: ImportOrder) -> AsyncGenerator[ImportEvent, None]:
        """Raises as `Importer.run` does."""
        async with aclosing(self._importer.run(order)) as events:
            async for event in events:
                yield event

    async def check(self, name: str, token: str = "") -> UpstreamCheck:
        """Raises as `Importer.check` does."""
        return await self._importer.check(name, token)

    async def queued(self) -> AsyncGenerator[QueuedImport, None]:
        """Every queued import, as it is now. Raises Malformed (IMPORT-QUEUE-FILE)."""
        self._require_readable()
        for item in tuple(self._queued.values()):
            yield self._as_now(item)

    async def decide(self, name: str, endpoint: str = "", hosts: tuple[str, ...] = (), *, keep: bool = False) -> None:
        """Queue an import, or try a queued one again at once; end it unless `keep`. Raises Malformed (BAD-NAME,
        BAD-ENDPOINT, IMPORT-QUEUE-FILE), NotFound (NOT-QUEUED), OutOfSpace (IMPORT-QUEUE)."""
        self._require_readable()
        wanted = UpstreamRequest.parse(name)
        key, now = str(wanted), int(self._clock())
        allowed = AllowedHosts.to(endpoint or mirror.default_endpoint(wanted), hosts)
        async with self._writing:
            after = dict(self._queued)
            known = after.pop(key, None)
            if keep:
                _make_space(after)
                after[key] = QueuedImport(key, allowed.endpoint, hosts, WAITING, known.queued if known else now)
            elif known is None:
                hint = "comity import --queued"
                raise NotFound(f"{key} is not queued", why="no import of this name waits", hint=hint, code="NOT-QUEUED")
            await self._keep(after)
        if key in self._running:  # of the order before: what it received stays
            self._running[key].cancel()

    async def step(self) -> None:
        """Import what is to be tried now, if anything is."""
        now = int(self._clock())
        due = [item for item in self._queued.values() if item.state == WAITING and item.next_try <= now]
        item = next((item for item in due if item.name not in self._running), None)
        if item is None or self._paused():
            return
        run = self._running[item.name] = _QueuedRun()
        try:
            after = await self._tried(item, run)
        finally:
            run.counter.stop()
            del self._running[item.name]
        async with self._writing:
            if not run.cancelled:
                await self._keep({**self._queued, item.name: after})

    def warnings(self) -> Iterator[str]:
        """A sentence for each queued import that is refused or whose last try failed, or why none is tried."""
        if self._closed is not None:
            yield f"queued imports are not tried: {self._closed}"
        for item in self._queued.values():
            if item.state == REFUSED:
                yield f"the queued import of {item.name} is refused: {item.why}"
            elif item.why:
                yield f"the queued import of {item.name} waits for its next try: {item.why}"

    def _require_readable(self) -> None:
        """Raises Malformed (IMPORT-QUEUE-FILE)."""
        if self._closed is not None:
            raise self._closed

    def _as_now(self, item: QueuedImport) -> QueuedImport:
        run = self._running.get(item.name)
        if run is None or run.cancelled:
            return item
        return replace(item, state=IMPORTING, received=run.counter.received, size=run.size or item.size, next_try=0)

    async def _tried(self, item: QueuedImport, run: _QueuedRun) -> QueuedImport:
        """The import after one try."""
        wanted = UpstreamRequest.parse(item.name)
        hosts = AllowedHosts.to(item.endpoint, item.hosts)
        pinned = UpstreamRequest.parse(item.pinned) if item.pinned and wanted.origin in (UPSTREAM, GIT) else wanted
        order = MirrorOrder(pinned, hosts, timeouts=Timeouts(max_retry_after=SHORT_WAIT))
        try:
            found = await self._importer.pin(order, run.counter)
            upstream = replace(found.upstream, requested=wanted.revision)
            item = replace(item, pinned=upstream.name)
            await self._importer.mirror(order, replace(found, upstream=upstream), run.counter, run)
        except ComityError as error:
            return self._failed(item, run, error)
        _log.info("queued import is logged", name=item.pinned)
        size = run.size or item.size
        return replace(item, state=LOGGED, failures=0, why="", next_try=0, received=size, size=size)

    def _failed(self, item: QueuedImport, run: _QueuedRun, error: ComityError) -> QueuedImport:
        received = max(item.received, run.counter.received)
        failures = 1 if received > item.received else item.failures + 1
        why = "".join(sign if sign.isprintable() else " " for sign in str(error)[:MAX_WHY])
        after = replace(item, why=why, received=received, size=run.size or item.size)
        if isinstance(error, NotFound) or not isinstance(error, Unavailable | OutOfSpace | Conflict):
            _log.warning("queued import is refused", name=item.name, why=str(error), code=error.code)
            return replace(after, state=REFUSED, failures=failures, next_try=0)
        wait = next_wait(failures, error.retry_after)
        _log.info("queued import waits", name=item.name, why=str(error), code=error.code, seconds=wait)
        return replace(after, failures=failures, next_try=int(self._clock()) + wait)

    async def _keep(self, queued: dict[str, QueuedImport]) -> None:
        """Write the file, then follow it. Raises OutOfSpace, Unavailable (DISK), and Malformed for what could not be
        read from the file again."""
        data = encode_queue(tuple(queued.values()))
        parse_queue(data)
        await self._pools.files(partial(durable.write_file, self._file, data, point="queue"))
        self._queued = queued


def _make_space(queued: dict[str, QueuedImport]) -> None:
    """Forget the oldest imports that are logged, so that another one can be queued. Raises OutOfSpace."""
    while len(queued) >= limits.QUEUED_IMPORTS:
        logged = next((name for name, item in queued.items() if item.state == LOGGED), None)
        if logged is None:
            why, hint = f"{limits.QUEUED_IMPORTS} imports are queued", "comity import --queued"
            raise OutOfSpace("the import was not queued", why=why, hint=hint, code="IMPORT-QUEUE")
        del queued[logged]
