"""Fetches one file from many sources: reads streams, verifies and writes each piece, and resumes earlier tries.

The scheduler decides which source is asked for which piece; this module has the tasks and the clock. `receiver` has the
buffers, the disk and the hashes. A source that can be read by blocking calls has a thread for each stream, which
receives a piece into a buffer and hashes each part while it is in the core's cache; the event loop only says which
piece is next. The bytes of another source come over the event loop. A second thread writes a piece while the next one
arrives.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import Final

from comity.transfer.answers import Check, EndReader, PieceAnswer, PieceReader, Writing, request_range
from comity.transfer.limits import TransferLimits
from comity.transfer.links import RangeRequest, SourceHealth
from comity.transfer.pieces import HeldPiece, WantedFile
from comity.transfer.receiver import NoObserver, PieceReceiver, TransferObserver, TransferReceiver
from comity.transfer.scheduler import Schedule
from comity.transfer.sources import (
    BlobSource,
    BlockingSource,
    LocalSource,
    SourceKey,
    names_of,
)
from comity.trust.encoding import short
from comity.trust.errors import ComityError, NotFound, Refused, Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.wire.asking import pause_of
from comity.wire.calls import span

TICK: Final = 0.25
"""Seconds after which the schedule is asked again without an event, because a source may have become slow."""
RESUME: Final = "run the same command again: it continues from here"


@frozen
class FetchResult:
    """The result of a finished transfer.

    Attributes:
        bytes_by_source: verified bytes that counted.
        bytes_by_host: the same per host.
        resumed: bytes that an earlier try left in the partial file.
        reused: bytes found in other local files.
        refetched: received bytes that did not count: bad, incomplete, or duplicate.
        wrong: those of them that came from sources that lied.
        dropped: dropped sources, and why.
        faults: all faults of each source, dropped or not; each kind once.
        states: the file's states for chained records; None if they are not known.
    """

    bytes_by_source: Mapping[SourceKey, int]
    bytes_by_host: Mapping[SourceKey, int]
    resumed: int
    reused: int
    refetched: int
    wrong: int
    dropped: Mapping[SourceKey, str]
    faults: Mapping[SourceKey, Sequence[str]]
    states: Sequence[bytes] | None = None


@frozen
class FetchOptions:
    """How a file is fetched.

    Attributes:
        limits: those of the transfer.
        health: measurements of sources, read and updated: pass the same one to all transfers of a pull.
        jitter: numbers in [0, 1) that spread the retries of many pullers.
        executor: threads for hashing, reading and writing; default: those of the event loop.
        past_cache: asked in a thread before each piece is written whether it is written past the page cache; default:
            if the records are chained.
    """

    limits: TransferLimits = field(default_factory=TransferLimits)
    health: dict[SourceKey, SourceHealth] = field(default_factory=dict)
    jitter: Callable[[], float] = random.random
    executor: Executor | None = None
    past_cache: Callable[[], bool] | None = None


async def fetch_file(
    want: WantedFile,
    sources: Sequence[BlobSource],
    into: Path,
    *,
    local: LocalSource | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
    observer: TransferObserver | None = None,
    options: FetchOptions | None = None,
) -> FetchResult:
    """Fetch `want` completely to `into`, verified and durable; the caller moves the file to its final path.

    Args:
        into: the partial file, in an existing folder. Its content is verified and used. The caller holds the lock of
            this blob: two transfers into one file would do the work twice.
        local: pieces on this machine, tried before any source.
        on_progress: called with the number of newly verified bytes; the sum is the size.
        observer: sees verified pieces and names those that readers wait for.

    Raises:
        Untrusted: no honest source (code BAD-PIECES), or pieces and file contradict each other (code PIECE-INDEX:
            another piece index may help; if the whole-file hash proved it, `into` is removed).
        Unavailable: no verified piece for the seconds of `patience`, or every source failed; NotFound or Refused if
            all sources answered so.
        OutOfSpace: the disk is full.
        Otherwise, and after cancellation, the partial file keeps every verified piece for the next try.
    """
    options = options or FetchOptions()
    known = {source.key: options.health.setdefault(source.key, SourceHealth()) for source in sources}
    if len(known) != len(sources):
        raise ValueError("duplicate source key")
    hosts = {source.key: source.host for source in sources}
    limits, observer = options.limits, observer or NoObserver()
    receiver = TransferReceiver(want, into, limits, on_progress, observer, options.executor, options.past_cache)
    try:
        with span("fetch file", comity_bytes=want.size, comity_sources=len(sources)):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(receiver.hash_file())
                resumed = await receiver.resume()
                reused = await receiver.reuse(local) if local else 0
                await receiver.require_space()
                cheaper = [source.key for source in sources if isinstance(source, BlockingSource)]
                if not want.chained:  # the hash of the file would read what arrives out of order again
                    limits = replace(limits, fast=math.inf)
                schedule = Schedule(want.offsets, receiver.missing(), known, limits, hosts, observer.awaited, cheaper)
                requests = PieceRequests(want, sources, limits, schedule, receiver, tasks, options.jitter)
                await requests.run()
    except BaseExceptionGroup as failures:
        cause = first_cause(failures)
        raise cause from cause.__cause__
    schedule.accuse()  # proven only now: before the whole file matched, the index could be wrong
    return replace(requests.result(), resumed=resumed, reused=reused, states=receiver.states)


def first_cause(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure of the tasks of a transfer; the others were cancelled because of it."""
    first = failures.exceptions[0]
    return first_cause(first) if isinstance(first, BaseExceptionGroup) else first


class _Checks:
    """The pieces that threads write now. They are no tasks: a piece costs one turn of the event loop.

    Args:
        changed: set when a failure of this machine ends the transfer.
    """

    def __init__(self, receiver: PieceReceiver, changed: asyncio.Event) -> None:
        self._receiver = receiver
        self._changed = changed
        self._running: set[Check] = set()
        self._failure: BaseException | None = None
        self._over = False

    def start(self, counted: Callable[[HeldPiece, bytes], None], held: HeldPiece, writing: Writing) -> Check:
        """Run `writing` in a thread, then call `counted` with the piece and its hash."""
        check = self._receiver.start(writing)
        self._running.add(check)
        check.add_done_callback(partial(self._done, counted, held))
        return check

    async def wait(self) -> None:
        """Return when no piece is being written."""
        if self._running:
            await asyncio.wait(self._running)

    def raise_failure(self) -> None:
        """Raise the first error of this machine, if there was one."""
        if self._failure:
            raise self._failure

    def stop(self) -> None:
        """The transfer is over: count nothing any more."""
        self._over = True

    def _done(self, counted: Callable[[HeldPiece, bytes], None], held: HeldPiece, check: Check) -> None:
        self._running.discard(check)
        if check.cancelled() or (self._over and check.exception()):
            return
        try:
            found = check.result()
            if not self._over:
                counted(held, found)
        except BaseException as error:  # raised by `raise_failure`, in the task that waits
            self._failure = self._failure or error
            self._changed.set()


class PieceRequests:
    """The open requests, a task each, until every piece is written.

    Attributes:
        counted: verified bytes that counted, by source.
        arrived: received bytes, by source.
    """

    def __init__(
        self,
        want: WantedFile,
        sources: Sequence[BlobSource],
        limits: TransferLimits,
        schedule: Schedule,
        receiver: PieceReceiver,
        tasks: asyncio.TaskGroup,
        jitter: Callable[[], float],
    ) -> None:
        self._want = want
        self._sources = {source.key: source for source in sources}
        self._names = names_of(sources)
        self._limits = limits
        self._schedule = schedule
        self._receiver = receiver
        self._tasks = tasks
        self._jitter = jitter
        self._now = asyncio.get_running_loop().time
        self._progressed = self._now()
        self._running: dict[RangeRequest, asyncio.Task[ComityError | None]] = {}
        self._readers: dict[RangeRequest, PieceReader] = {}
        self._changed = asyncio.Event()
        self._checks = _Checks(receiver, self._changed)
        self.counted: Counter[SourceKey] = Counter()
        self.arrived: Counter[SourceKey] = Counter()

    async def run(self) -> None:
        """Run until every piece is written."""
        try:
            while not self._schedule.finished:
                await self._turn()
            for task in self._running.values():  # their pieces came from other requests
                task.cancel()
            await self._checks.wait()
            self._checks.raise_failure()
        finally:
            self._checks.stop()

    def result(self) -> FetchResult:
        """What was fetched, after `run`."""
        dropped, hosts = self._schedule.dropped, {key: source.host for key, source in self._sources.items()}
        lying = [source for source, error in dropped.items() if error.code == "BAD-PIECE"]
        return FetchResult(
            bytes_by_source=self.counted,
            bytes_by_host=_by_host(self.counted, hosts),
            resumed=0,
            reused=0,
            refetched=self.arrived.total() - self.counted.total(),
            wrong=sum(self.arrived[source] - self.counted[source] for source in lying),
            dropped={source: str(error) for source, error in dropped.items()},
            faults={source: tuple(faults) for source, faults in self._schedule.faults.items()},
        )

    async def _turn(self) -> None:
        """Begin the requests that are due, and wait until something has changed."""
        schedule, now = self._schedule, self._now()
        for request in schedule.assign(now):
            task = self._tasks.create_task(self._stream(request))
            task.add_done_callback(partial(self._request_done, request))
            self._running[request] = task
        if schedule.exhausted:
            raise self._no_source_error()
        if now - self._progressed >= self._limits.patience:
            raise self._timeout_error()
        self._cancel_inactive()
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(TICK, schedule.next_wake(now) or TICK)):
                await self._changed.wait()
        self._checks.raise_failure()

    async def _stream(self, request: RangeRequest) -> ComityError | None:
        """Read a run of pieces. Returns an error of the source; raises an error of this machine."""
        try:
            if request.skip:
                await self._read_end(request)
            else:
                await self._read_run(request)
        except ComityError as error:
            return error
        return None

    async def _read_run(self, request: RangeRequest) -> None:
        piece, stop = request.first, request.stop
        async with self._read_pieces(request) as reader:
            while self._schedule.begin(request, piece, self._now()):
                if piece == request.stop - 1 or self._schedule.unserved:  # another request may be due
                    self._changed.set()
                await reader.read(piece)
                piece += 1
            if piece == stop:
                await reader.end()

    async def _read_end(self, request: RangeRequest) -> None:
        reader = EndReader(
            request, self._want, self._schedule, self._receiver, partial(self._request_range, request), self._receiving
        )
        joined = partial(partial, self._count_joined, request)
        await reader.read(
            partial(self._checks.start, partial(self._count_piece, request)),
            lambda head, held, writing: self._checks.start(joined(head), held, writing),
        )

    def _receiving(self, request: RangeRequest) -> HeldPiece | None:
        return self._readers[request].receiving if request in self._readers else None

    @asynccontextmanager
    async def _read_pieces(self, request: RangeRequest) -> AsyncIterator[PieceReader]:
        """Returns when the last piece that was received is checked."""
        offsets, count = self._want.offsets, partial(self._count_piece, request)
        async with self._request_range(
            request, offsets[request.first], offsets[request.stop] - offsets[request.first]
        ) as answer:
            reader = self._readers[request] = PieceReader(self._receiver, answer, partial(self._checks.start, count))
            try:
                yield reader
            finally:
                del self._readers[request]
                await reader.settle()

    def _request_range(
        self, request: RangeRequest, offset: int, length: int
    ) -> AbstractAsyncContextManager[PieceAnswer]:
        source, arrived, timeout = (
            self._sources[request.source],
            partial(self._arrived, request),
            self._limits.read_timeout,
        )
        return request_range(self._want, source, self._receiver, (offset, length), timeout, arrived)

    def _arrived(self, request: RangeRequest, count: int) -> None:
        """Called where the bytes arrive: on the event loop, or in the one thread of the request."""
        if request.answered is None:
            request.answered = self._now()
        request.received += count

    def _count_piece(self, request: RangeRequest, held: HeldPiece, found: bytes) -> None:
        now, record = self._now(), self._want.records[held.number]
        if found != record.sha256:
            held.release()
            if self._want.chained:
                raise self._chain_error(request, held.number)
            self._schedule.bad(request, held.number, found, now, self._jitter())
            self._changed.set()
        elif self._schedule.verified(request, held.number, now):
            self._accept(held, {request.source: record.length})
        else:
            held.release()
        self._look_again()

    def _count_joined(self, request: RangeRequest, head: RangeRequest, held: HeldPiece, found: bytes) -> None:
        """Count a piece whose start came by `head`. It is taken only if it is right."""
        record = self._want.records[held.number]
        if found != record.sha256:
            self._schedule.mixed(request, head)
        elif self._schedule.verified(request, held.number, self._now(), head):
            self._accept(held, {head.source: request.skip, request.source: record.length - request.skip})
        else:
            held.release()
        self._look_again()

    def _accept(self, held: HeldPiece, brought: Mapping[SourceKey, int]) -> None:
        self._receiver.accept(held, " and ".join(self._names[source] for source in brought))
        self.counted.update(brought)
        self._progressed = self._now()

    def _look_again(self) -> None:
        self._cancel_inactive()
        if self._schedule.finished or self._schedule.unserved:
            self._changed.set()

    def _request_done(self, request: RangeRequest, task: asyncio.Task[ComityError | None]) -> None:
        self._running.pop(request, None)
        self.arrived[request.source] += request.received
        error = None if task.cancelled() or task.exception() else task.result()
        if error is None:
            self._schedule.ended(request)
        elif (pause := pause_of(error)) is not None:
            self._schedule.paused(request, pause, self._now())
        elif isinstance(error, Unavailable) and not isinstance(error, NotFound):
            self._schedule.failed(request, error, self._now(), self._jitter())
        else:
            self._schedule.refused(request, error)
        self._cancel_inactive()
        self._changed.set()

    def _cancel_inactive(self) -> None:
        for request in [request for request in self._running if not request.active]:
            self._running.pop(request).cancel()

    def _chain_error(self, request: RangeRequest, piece: int) -> Untrusted:
        """Nobody signed the states, so they may be wrong as well as the bytes. Signed records tell which."""
        return Untrusted(
            f"the chained records of {short(self._want.digest)} do not prove it",
            why=f"piece {piece}, from {self._names[request.source]}, does not match them",
            hint="try the records of a piece index",
            code="PIECE-INDEX",
        )

    def _no_source_error(self) -> ComityError:
        dropped = self._schedule.dropped
        what = f"no source delivers {short(self._want.digest)}"
        why = self._format_faults({source: [str(error)] for source, error in dropped.items()})
        if any(error.code == "BAD-PIECE" for error in dropped.values()):
            if self._schedule.index_suspect:
                why = f"the same bytes arrived twice and do not match the piece index: {why}"
                return Untrusted(what, why=why, hint="try another piece index", code="PIECE-INDEX")
            return Untrusted(what, why=why, hint="try other sources", code="BAD-PIECES")
        if dropped and all(isinstance(error, NotFound) for error in dropped.values()):
            return NotFound(what, why=why)
        if dropped and all(isinstance(error, Refused) for error in dropped.values()):
            return Refused(what, why=why)
        return Unavailable(what, why=why or "there is no source", code="NO-SOURCE")

    def _timeout_error(self) -> ComityError:
        why = f"no new piece for {self._limits.patience:g} s. {self._format_faults(self._schedule.faults)}".rstrip()
        return Unavailable(f"transfer of {short(self._want.digest)} timed out", why=why, hint=RESUME, code="PATIENCE")

    def _format_faults(self, faults: Mapping[SourceKey, Sequence[str]]) -> str:
        return "; ".join(f"{self._names[source]}: {', '.join(kinds)}" for source, kinds in faults.items())


def _by_host(counted: Mapping[SourceKey, int], hosts: Mapping[SourceKey, SourceKey]) -> dict[SourceKey, int]:
    sums: dict[SourceKey, int] = {}
    for source, count in counted.items():
        sums[hosts[source]] = sums.get(hosts[source], 0) + count
    return sums
