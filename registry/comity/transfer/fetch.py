"""Fetches one file from many sources: reads streams, verifies and writes each piece, and resumes earlier tries.

The scheduler decides which source is asked for which piece; this module has the tasks and the clock. `partial` has the
disk and the hashes. A source that can be read by blocking calls has a thread for each stream, which receives a piece
into a buffer and hashes each part while it is in the core's cache; the event loop only says which piece is next. The
bytes of another source come over the event loop. A second thread writes a piece while the next one arrives.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, Protocol, TypeVar

from comity.transfer.partial import ChainProof, FileHasher, FileProof, PartialFile, PieceBuffer, PieceBuffers, PieceHash
from comity.transfer.scheduler import RangeRequest, Schedule, SourceHealth, TransferLimits, WantedFile
from comity.transfer.sources import (
    BlobSource,
    BlockingSource,
    BlockingStream,
    LocalSource,
    RangeStream,
    SourceKey,
    names_of,
)
from comity.trust.encoding import short
from comity.trust.errors import ComityError, NotFound, Refused, Unavailable, Untrusted
from comity.wire.calls import span


class TransferObserver(Protocol):
    """Called on the transfer's event loop; must not block."""

    def arrived(self, piece: int) -> None:
        """A piece is verified and in the partial file."""
        ...

    def awaited(self) -> Collection[int]:
        """Pieces, ascending, that a reader waits for: fetched before others. May include pieces already here."""
        ...


class NoObserver:
    """An observer without readers."""

    def arrived(self, piece: int) -> None:
        pass

    def awaited(self) -> Collection[int]:
        return ()


LOCAL_NAME: Final = "this machine"
READERS: Final = 4
"""Local pieces that are read and hashed at a time."""

P = ParamSpec("P")
T = TypeVar("T")


HOT: Final = 512 * 1024
"""Bytes that are received and then hashed: few enough to be still in the cache of the core."""


class TransferReceiver:
    """The receiving side of one transfer. Not thread-safe: call from the event loop. Disk work and hashing use threads.

    Attributes:
        buffers: piece buffers; take one before the first byte of a piece is read.
    """

    def __init__(
        self,
        want: WantedFile,
        into: Path,
        limits: TransferLimits,
        on_progress: Callable[[int], None],
        observer: TransferObserver,
        executor: Executor | None,
        past_cache: Callable[[], bool] | None = None,
    ) -> None:
        self._want = want
        self._executor = executor
        self._on_progress = on_progress
        self._observer = observer
        self._partial = PartialFile(into, want, past_cache)
        largest = max((record.length for record in want.records), default=0)
        self.buffers = PieceBuffers(limits.buffers, largest, aligned=want.chained or past_cache is not None)
        ahead = limits.buffers - limits.streams
        self._proof: FileProof = (
            ChainProof(want, self.buffers)
            if want.chained
            else FileHasher(want, self._partial, self.buffers, ahead=ahead)
        )
        self._piece_sources: list[str | None] = [None] * len(want.records)

    def missing(self) -> list[int]:
        return [piece for piece, source in enumerate(self._piece_sources) if source is None]

    def view(self, piece: int, buffer: PieceBuffer) -> memoryview:
        return self.buffers.view(buffer, self._want, piece)

    async def resume(self) -> int:
        """Take in what an earlier try left. Returns its bytes."""
        claimed = await self._in_thread(self._partial.candidate_pieces)
        return await self._add_local_pieces(claimed, self._partial.has_piece)

    async def reuse(self, local: LocalSource) -> int:
        """Take in what other files here hold. Returns its bytes."""

        def fill(piece: int, view: memoryview) -> bool:
            record = self._want.records[piece]
            return any(self._partial.write_piece(piece, view) == record.sha256 for _ in local.copies(record, view))

        return await self._add_local_pieces(self.missing(), fill)

    async def require_space(self) -> None:
        """Raise OutOfSpace if the missing pieces do not fit on the disk."""
        missing = sum(self._want.records[piece].length for piece in self.missing())
        await self._in_thread(self._partial.require_space, missing)

    @property
    def states(self) -> Sequence[bytes] | None:
        """The file's states for chained records, after `hash_file`; None if they are not known."""
        return self._proof.states

    def write_piece(self, piece: int, buffer: PieceBuffer) -> bytes:
        """Write the piece in `buffer` to the partial file if its hash matches. Returns its hash. Blocking."""
        return self._partial.write_piece(piece, self.view(piece, buffer))

    def write_hashed(self, piece: int, buffer: PieceBuffer, found: bytes) -> bytes:
        """Write the piece in `buffer`, whose hash is `found`, if that is right. Returns `found`. Blocking."""
        self._partial.write_hashed(piece, self.view(piece, buffer), found)
        return found

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run blocking `work` in a thread."""
        return asyncio.get_running_loop().run_in_executor(self._executor, work)

    def receive(self, piece: int, buffer: PieceBuffer, stream: BlockingStream, arrived: Callable[[int], None]) -> bytes:
        """Receive a piece into `buffer`. Returns its hash. Blocking. Raises errors of the source."""
        hashed, view = PieceHash(self._want, piece), self.view(piece, buffer)
        for start in range(0, len(view), HOT):
            part = view[start : start + HOT]
            stream.fill(part, arrived)
            hashed.update(part)
        return hashed.result()

    def accept(self, piece: int, buffer: PieceBuffer, source: str) -> None:
        """Count a piece that is verified and written. Call once per piece. Takes ownership of the buffer."""
        self._piece_sources[piece] = source
        self._proof.add(piece, buffer)
        self._on_progress(self._want.records[piece].length)
        self._observer.arrived(piece)

    async def hash_file(self) -> None:
        """Hash the whole file in order while its pieces arrive; sync the file if the hash matches.

        Otherwise removes the file and raises Untrusted (code PIECE-INDEX), which lists the source of each piece.
        """
        digest = await self._proof.digest(self._executor)
        if digest == self._want.digest:
            await self._in_thread(self._partial.seal)
            return
        await self._in_thread(self._partial.discard)
        raise Untrusted(
            f"the pieces of {short(self._want.digest)} do not make the file",
            why=f"each piece matches its hash, but the file has sha256 {short(digest)}: {self._pieces_by_source()}",
            hint="try another piece index",
            code="PIECE-INDEX",
        )

    async def _add_local_pieces(self, pieces: Iterable[int], fill: Callable[[int, memoryview], bool]) -> int:
        remaining, total = iter(pieces), 0

        async def reader() -> None:
            nonlocal total
            for piece in remaining:
                buffer = await self.buffers.take()
                if await self._in_thread(fill, piece, self.view(piece, buffer)):
                    self.accept(piece, buffer, LOCAL_NAME)
                    total += self._want.records[piece].length
                else:
                    self.buffers.give(buffer)

        async with asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(reader())
        return total

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.start(partial(function, *args, **kwargs))

    def _pieces_by_source(self) -> str:
        runs: dict[str, list[str]] = {}
        start = 0
        for source, group in itertools.groupby(self._piece_sources):
            stop = start + sum(1 for _ in group)
            runs.setdefault(str(source), []).append(f"{start}-{stop - 1}" if stop - start > 1 else str(start))
            start = stop
        return "; ".join(f"{source}: pieces {', '.join(_first(numbers, 20))}" for source, numbers in runs.items())


def _first(items: list[str], most: int) -> Iterator[str]:
    yield from items[:most]
    if len(items) > most:
        yield "…"


TICK: Final = 0.25
"""Seconds after which the schedule is asked again without an event, because a source may have become slow."""
RESUME: Final = "run the same command again: it continues from here"


@dataclass(frozen=True, slots=True)
class FetchResult:
    """The result of a finished transfer.

    Attributes:
        bytes_by_source: verified bytes that counted.
        bytes_by_host: the same per host.
        resumed: bytes that an earlier try left in the partial file.
        reused: bytes found in other local files.
        refetched: received bytes that did not count: bad, incomplete, or duplicate.
        dropped: dropped sources, and why.
        faults: all faults of each source, dropped or not; each kind once.
        states: the file's states for chained records; None if they are not known.
    """

    bytes_by_source: Mapping[SourceKey, int]
    bytes_by_host: Mapping[SourceKey, int]
    resumed: int
    reused: int
    refetched: int
    dropped: Mapping[SourceKey, str]
    faults: Mapping[SourceKey, Sequence[str]]
    states: Sequence[bytes] | None = None


async def fetch_file(
    want: WantedFile,
    sources: Sequence[BlobSource],
    into: Path,
    *,
    local: LocalSource | None = None,
    limits: TransferLimits | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
    observer: TransferObserver | None = None,
    health: dict[SourceKey, SourceHealth] | None = None,
    jitter: Callable[[], float] = random.random,
    executor: Executor | None = None,
    past_cache: Callable[[], bool] | None = None,
) -> FetchResult:
    """Fetch `want` completely to `into`, verified and durable; the caller moves the file to its final path.

    Args:
        into: the partial file, in an existing folder. Its content is verified and used. The caller holds the lock of
            this blob: two transfers into one file would do the work twice.
        local: pieces on this machine, tried before any source.
        on_progress: called with the number of newly verified bytes; the sum is the size.
        observer: sees verified pieces and names those that readers wait for.
        health: measurements of sources, read and updated: pass the same one to all transfers of a pull.
        jitter: numbers in [0, 1) that spread the retries of many pullers.
        executor: threads for hashing, reading and writing; default: those of the event loop.
        past_cache: asked in a thread before each piece is written whether it is written past the page cache; default:
            if the records are chained.

    Raises:
        Untrusted: no honest source (code BAD-PIECES), or pieces and file contradict each other (code PIECE-INDEX:
            another piece index may help; if the whole-file hash proved it, `into` is removed).
        Unavailable: no verified piece for `limits.patience` seconds, or every source failed; NotFound or Refused if
            all sources answered so.
        OutOfSpace: the disk is full.
        Otherwise, and after cancellation, the partial file keeps every verified piece for the next try.
    """
    health = {} if health is None else health
    known = {source.key: health.setdefault(source.key, SourceHealth()) for source in sources}
    if len(known) != len(sources):
        raise ValueError("duplicate source key")
    hosts = {source.key: source.host for source in sources}
    limits, observer = limits or TransferLimits(), observer or NoObserver()
    receiver = TransferReceiver(want, into, limits, on_progress, observer, executor, past_cache)
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
                streams = _Streams(want, sources, limits, schedule, receiver, tasks, jitter)
                await streams.run()
    except BaseExceptionGroup as failures:
        cause = _first_cause(failures)
        raise cause from cause.__cause__
    for source, error in schedule.dropped.items():
        if error.code == "BAD-PIECE":  # proven only now: before the whole file matched, the index could be wrong
            known[source].bad_piece = error
    return FetchResult(
        bytes_by_source=streams.counted,
        bytes_by_host=_by_host(streams.counted, hosts),
        resumed=resumed,
        reused=reused,
        refetched=streams.arrived - sum(streams.counted.values()),
        dropped={source: str(error) for source, error in schedule.dropped.items()},
        faults={source: tuple(faults) for source, faults in schedule.faults.items()},
        states=receiver.states,
    )


def _count(request: RangeRequest, count: int) -> None:
    """Called where the bytes arrive: on the event loop, or in the one thread of the request."""
    request.received += count


class _Answer(ABC):
    """One open request. A thread writes a piece while the next one arrives."""

    def __init__(self, streams: _Streams, receiver: TransferReceiver, request: RangeRequest) -> None:
        self._streams = streams
        self._receiver = receiver
        self._request = request
        self._settling: asyncio.Future[bytes] | None = None

    async def take(self, piece: int) -> None:
        """Receive the next piece, and have it checked. Raises errors of the source."""
        buffer = await self._receiver.buffers.take()
        try:
            writing = await self._receive(piece, buffer)
            await self.settle()
        except BaseException:
            self._receiver.buffers.give(buffer)
            raise
        self._settling = self._streams.start_check(self._request, piece, buffer, writing)

    async def settle(self) -> None:
        """Wait until the last piece was checked."""
        if self._settling and not self._settling.done():
            await asyncio.wait({self._settling})

    @abstractmethod
    async def _receive(self, piece: int, buffer: PieceBuffer) -> Callable[[], bytes]:
        """Receive a piece into `buffer`. Returns a blocking function that writes it if it is right, and returns its
        hash."""

    @abstractmethod
    async def end(self) -> None:
        """Raise Unavailable (WRONG-LENGTH) if more bytes follow."""


class _AsyncAnswer(_Answer):
    """An answer over the event loop. The thread that writes a piece hashes it too."""

    def __init__(
        self, streams: _Streams, receiver: TransferReceiver, request: RangeRequest, chunks: RangeStream
    ) -> None:
        super().__init__(streams, receiver, request)
        self._chunks = chunks

    async def _receive(self, piece: int, buffer: PieceBuffer) -> Callable[[], bytes]:
        await self._chunks.fill(self._receiver.view(piece, buffer), partial(_count, self._request))
        return partial(self._receiver.write_piece, piece, buffer)

    async def end(self) -> None:
        await self._chunks.end()


class _BlockingAnswer(_Answer):
    """An answer by blocking calls. Its thread receives a piece and hashes it while it is in the cache."""

    def __init__(
        self, streams: _Streams, receiver: TransferReceiver, request: RangeRequest, stream: BlockingStream
    ) -> None:
        super().__init__(streams, receiver, request)
        self._stream = stream

    async def _receive(self, piece: int, buffer: PieceBuffer) -> Callable[[], bytes]:
        receive = partial(self._receiver.receive, piece, buffer, self._stream, partial(_count, self._request))
        found = await self._stream.run(receive)
        return partial(self._receiver.write_hashed, piece, buffer, found)

    async def end(self) -> None:
        """Nothing to do: the range is as long as was announced."""


class _Streams:
    """The open requests: one task each, and one task for each piece that is being checked."""

    def __init__(
        self,
        want: WantedFile,
        sources: Sequence[BlobSource],
        limits: TransferLimits,
        schedule: Schedule,
        receiver: TransferReceiver,
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
        self._checks: set[asyncio.Future[bytes]] = set()
        self._failure: BaseException | None = None
        self._over = False
        self._changed = asyncio.Event()
        self.counted: dict[SourceKey, int] = {}
        self.arrived = 0

    async def run(self) -> None:
        """Run until every piece is written."""
        try:
            await self._run()
        finally:
            self._over = True

    async def _run(self) -> None:
        schedule = self._schedule
        while not schedule.finished:
            now = self._now()
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
            self._raise_failure()
        for task in self._running.values():  # their pieces came from other requests
            task.cancel()
        if self._checks:
            await asyncio.wait(self._checks)
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure:
            raise self._failure

    async def _stream(self, request: RangeRequest) -> ComityError | None:
        """Read a run of pieces. Returns an error of the source; raises an error of this machine."""
        offset = self._want.offsets[request.first]
        length = self._want.offsets[request.stop] - offset
        piece, stop = request.first, request.stop
        try:
            async with self._open(request, offset, length) as answer:
                while self._schedule.begin(request, piece, self._now()):
                    if piece == request.stop - 1 or self._schedule.unserved:  # another request may be due
                        self._changed.set()
                    await answer.take(piece)
                    piece += 1
                if piece == stop:
                    await answer.end()
        except ComityError as error:
            return error
        return None

    @asynccontextmanager
    async def _open(self, request: RangeRequest, offset: int, length: int) -> AsyncIterator[_Answer]:
        source, digest = self._sources[request.source], self._want.digest
        if isinstance(source, BlockingSource):
            async with source.open(digest, offset, length, self._limits.read_timeout) as stream:
                by_thread = _BlockingAnswer(self, self._receiver, request, stream)
                try:
                    yield by_thread
                finally:
                    await by_thread.settle()
            return
        async with aclosing(source.read(digest, offset, length)) as chunks:
            answer = _AsyncAnswer(
                self, self._receiver, request, RangeStream(chunks, read_timeout=self._limits.read_timeout)
            )
            try:
                yield answer
            finally:
                await answer.settle()

    def start_check(
        self, request: RangeRequest, piece: int, buffer: PieceBuffer, writing: Callable[[], bytes]
    ) -> asyncio.Future[bytes]:
        """Count a piece when `writing`, in a thread, has given its hash. Takes ownership of the buffer. Errors of this
        machine end the transfer. No task: a piece costs one turn of the event loop."""
        check = self._receiver.start(writing)
        self._checks.add(check)
        check.add_done_callback(partial(self._checked, request, piece, buffer))
        return check

    def _checked(self, request: RangeRequest, piece: int, buffer: PieceBuffer, check: asyncio.Future[bytes]) -> None:
        self._checks.discard(check)
        if check.cancelled() or (self._over and check.exception()):
            return
        try:
            found = check.result()
            if not self._over:
                self._count_piece(request, piece, buffer, found)
        except BaseException as error:  # raised by `run`, whose task waits
            self._failure = self._failure or error
            self._changed.set()

    def _count_piece(self, request: RangeRequest, piece: int, buffer: PieceBuffer, found: bytes) -> None:
        now, length = self._now(), self._want.records[piece].length
        if found != self._want.records[piece].sha256:
            self._receiver.buffers.give(buffer)
            if self._want.chained:
                raise self._chain_error(request, piece)
            self._schedule.bad(request, piece, found, now, self._jitter())
            self._changed.set()
        elif self._schedule.verified(request, piece, now):
            self._receiver.accept(piece, buffer, self._names[request.source])
            self.counted[request.source] = self.counted.get(request.source, 0) + length
            self._progressed = now
        else:
            self._receiver.buffers.give(buffer)
        self._cancel_inactive()
        if self._schedule.finished or self._schedule.unserved:
            self._changed.set()

    def _request_done(self, request: RangeRequest, task: asyncio.Task[ComityError | None]) -> None:
        self._running.pop(request, None)
        self.arrived += request.received
        error = None if task.cancelled() or task.exception() else task.result()
        if error is None:
            self._schedule.ended(request)
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


def _first_cause(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first_cause(first) if isinstance(first, BaseExceptionGroup) else first
