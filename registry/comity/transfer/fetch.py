"""Fetches one file from many sources: reads streams, verifies and writes each piece, and resumes earlier tries.

The scheduler decides which source is asked for which piece; this module has the tasks, the clock and the disk.

The partial file is its own journal. Only verified pieces are written, and pieces found in it later are hashed before
use, so there is no second file that could be torn, stale or about other records, and no fsync per piece: a crash can
lose pieces but never add bad ones. Holes are skipped where the file system reports them. The whole-file hash is
computed in file order while pieces arrive, so that no second pass over the disk is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import itertools
import os
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, Protocol, TypeVar

from comity.content import durable, fault
from comity.transfer.scheduler import RangeRequest, Schedule, SourceHealth, TransferLimits, WantedFile
from comity.transfer.sources import BlobSource, LocalSource, RangeStream, SourceKey, names_of
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, NotFound, OutOfSpace, Refused, Unavailable, Untrusted

MAKE_ROOM: Final = "free some space, then run the same command again: it continues from here"
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class PartialFile:
    """The partial file of `want` at `path`. Blocking; thread-safe. All methods raise OutOfSpace or Unavailable (DISK).

    Each method opens the file itself: a thread that outlives a cancelled transfer then cannot use a descriptor that was
    closed or reused.
    """

    def __init__(self, path: Path, want: WantedFile) -> None:
        self._path = path
        self._want = want

    def candidate_pieces(self) -> list[int]:
        """Pieces whose bytes are in the file, not yet verified. Creates the file if missing."""
        offsets, claimed = self._want.offsets, list[int]()
        with self._open(os.O_RDWR | os.O_CREAT) as fd:
            for start, stop in _extents(fd):
                first = max(bisect_right(offsets, start) - 1, claimed[-1] + 1 if claimed else 0)
                claimed.extend(range(first, min(bisect_left(offsets, stop), len(offsets) - 1)))
        return claimed

    def require_space(self, missing: int) -> None:
        """Raise OutOfSpace if the disk has less than `missing` bytes free."""
        with self._open(os.O_RDONLY) as fd:
            disk = os.fstatvfs(fd)
        free = disk.f_bavail * disk.f_frsize
        if disk.f_blocks and free < missing:
            raise OutOfSpace(
                f"not enough disk space for {short(self._want.digest)}",
                why=f"{missing} bytes are missing and {free} bytes are free",
                hint=MAKE_ROOM,
            )

    def has_piece(self, piece: int, view: memoryview) -> bool:
        """Read a piece into `view`; returns whether its hash matches."""
        return self.read(piece, view) and hashlib.sha256(view).digest() == self._want.records[piece].sha256

    def write_piece(self, piece: int, view: memoryview) -> bytes:
        """Write `view` at the offset of `piece` if its hash matches. Returns the hash of `view`."""
        found = hashlib.sha256(view).digest()
        if found == self._want.records[piece].sha256:
            with self._open(os.O_WRONLY) as fd:
                at = self._want.offsets[piece]
                written = 0
                while written < len(view):
                    written += os.pwrite(fd, view[written:], at + written)
            fault.point("partial.piece")
        return found

    def read(self, piece: int, view: memoryview) -> bool:
        """Read a piece into `view`. Returns False if the file ends inside the piece."""
        with self._open(os.O_RDONLY) as fd:
            return os.preadv(fd, [view], self._want.offsets[piece]) == len(view)

    def seal(self) -> None:
        """Truncate the file to its size and sync it. Creates the file if missing, for an empty file."""
        with self._open(os.O_WRONLY | os.O_CREAT) as fd:
            os.ftruncate(fd, self._want.size)
            durable.fsync(fd, point="partial.fsync")

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _open(self, flags: int) -> Iterator[int]:
        try:
            fd = os.open(self._path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                yield fd
            finally:
                os.close(fd)
        except OSError as error:
            what = f"the partial file of {short(self._want.digest)} failed"
            why = f"{error.strerror}, at {self._path}"
            if error.errno in _FULL:
                raise OutOfSpace(what, why=why, hint=MAKE_ROOM) from error
            raise Unavailable(what, why=why, code="DISK") from error


def _extents(fd: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the ranges that hold data; the whole file if the file system does not report holes."""
    stop, size = 0, os.fstat(fd).st_size
    while stop < size:
        try:
            start = os.lseek(fd, stop, os.SEEK_DATA)
            stop = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            start, stop = stop, size
        yield start, stop


class PieceBuffers:
    """A fixed number of reusable piece buffers. They give back-pressure: a stream that waits for a buffer does not read
    further from its source."""

    def __init__(self, count: int, size: int) -> None:
        self._size = size
        self._free: list[bytearray] = []
        self._semaphore = asyncio.Semaphore(count)

    async def take(self) -> bytearray:
        await self._semaphore.acquire()
        return self._free.pop() if self._free else bytearray(self._size)

    def give(self, buffer: bytearray) -> None:
        self._free.append(buffer)
        self._semaphore.release()


class FileHasher:
    """Hashes pieces in file order as they become verified.

    A buffer is kept until it is hashed if its piece extends the verified prefix of the file, or is less than `ahead`
    pieces beyond it. Pieces of the prefix do not depend on a source; `ahead` plus the open streams must leave a buffer
    for each stream. Other pieces are read back later from the partial file, into the hasher's own buffer, because all
    shared buffers may then be in use for later pieces.
    """

    def __init__(self, want: WantedFile, partial: PartialFile, buffers: PieceBuffers, *, ahead: int) -> None:
        self._want = want
        self._partial = partial
        self._buffers = buffers
        self._ahead = ahead
        self._verified = bytearray(len(want.records) + 1)
        self._verified_prefix = 0
        self._buffered: dict[int, bytearray] = {}
        self._added = asyncio.Event()

    def add(self, piece: int, buffer: bytearray) -> None:
        """Add a piece that is verified and in the partial file. Its bytes are at the start of `buffer`, whose ownership
        passes to the hasher."""
        self._verified[piece] = True
        while self._verified[self._verified_prefix]:
            self._verified_prefix += 1
        if piece < self._verified_prefix + self._ahead:
            self._buffered[piece] = buffer
        else:
            self._buffers.give(buffer)
        self._added.set()

    async def digest(self, executor: Executor | None) -> Digest:
        """The file's SHA-256, when every piece has been added. Raises Unavailable if a piece cannot be read."""
        loop, sha, own = asyncio.get_running_loop(), hashlib.sha256(), bytearray()
        for piece, record in enumerate(self._want.records):
            while piece >= self._verified_prefix:
                self._added.clear()
                await self._added.wait()
            buffer = self._buffered.pop(piece, None)
            if buffer is not None:
                await loop.run_in_executor(executor, sha.update, memoryview(buffer)[: record.length])
                self._buffers.give(buffer)
                continue
            own = own or bytearray(max(record.length for record in self._want.records))
            view = memoryview(own)[: record.length]
            await loop.run_in_executor(executor, self._partial.read, piece, view)
            await loop.run_in_executor(executor, sha.update, view)
        return Digest(sha.hexdigest())


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
    ) -> None:
        self._want = want
        self._executor = executor
        self._on_progress = on_progress
        self._observer = observer
        self._partial = PartialFile(into, want)
        self.buffers = PieceBuffers(limits.buffers, max((record.length for record in want.records), default=0))
        self._hasher = FileHasher(want, self._partial, self.buffers, ahead=limits.buffers - limits.streams)
        self._piece_sources: list[str | None] = [None] * len(want.records)

    def missing(self) -> list[int]:
        return [piece for piece, source in enumerate(self._piece_sources) if source is None]

    def view(self, piece: int, buffer: bytearray) -> memoryview:
        return memoryview(buffer)[: self._want.records[piece].length]

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

    async def write_piece(self, piece: int, buffer: bytearray) -> bytes:
        """Write the piece in `buffer` to the partial file if its hash matches. Returns its hash."""
        return await self._in_thread(self._partial.write_piece, piece, self.view(piece, buffer))

    def accept(self, piece: int, buffer: bytearray, source: str) -> None:
        """Count a piece that is verified and written. Call once per piece. Takes ownership of the buffer."""
        self._piece_sources[piece] = source
        self._hasher.add(piece, buffer)
        self._on_progress(self._want.records[piece].length)
        self._observer.arrived(piece)

    async def hash_file(self) -> None:
        """Hash the whole file in order while its pieces arrive; sync the file if the hash matches.

        Otherwise removes the file and raises Untrusted (code PIECE-INDEX), which lists the source of each piece.
        """
        digest = await self._hasher.digest(self._executor)
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
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, partial(function, *args, **kwargs))

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
    """

    bytes_by_source: Mapping[SourceKey, int]
    bytes_by_host: Mapping[SourceKey, int]
    resumed: int
    reused: int
    refetched: int
    dropped: Mapping[SourceKey, str]
    faults: Mapping[SourceKey, Sequence[str]]


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
    receiver = TransferReceiver(want, into, limits, on_progress, observer, executor)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(receiver.hash_file())
            resumed = await receiver.resume()
            reused = await receiver.reuse(local) if local else 0
            await receiver.require_space()
            schedule = Schedule(want.offsets, receiver.missing(), known, limits, hosts, observer.awaited)
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
    )


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
        self._changed = asyncio.Event()
        self.counted: dict[SourceKey, int] = {}
        self.arrived = 0

    async def run(self) -> None:
        """Run until every piece is written."""
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
        for task in self._running.values():  # their pieces came from other requests
            task.cancel()

    async def _stream(self, request: RangeRequest) -> ComityError | None:
        """Read a run of pieces. Returns an error of the source; raises an error of this machine."""
        source = self._sources[request.source]
        offset, stop = self._want.offsets[request.first], request.stop
        length = self._want.offsets[stop] - offset
        settling: asyncio.Task[None] | None = None
        piece = request.first
        try:
            async with aclosing(source.read(self._want.digest, offset, length)) as chunks:
                answer = RangeStream(chunks, read_timeout=self._limits.read_timeout)
                while self._schedule.begin(request, piece, self._now()):
                    self._changed.set()
                    buffer = await self._receiver.buffers.take()
                    try:
                        await answer.fill(self._receiver.view(piece, buffer), partial(self._received, request))
                    except BaseException:
                        self._receiver.buffers.give(buffer)
                        raise
                    if settling:
                        await asyncio.wait({settling})
                    settling = self._tasks.create_task(self._check_piece(request, piece, buffer))
                    piece += 1
                if piece == stop:
                    await answer.end()
        except ComityError as error:
            return error
        finally:
            if settling:  # finish checking its pieces before the request ends
                await asyncio.wait({settling})
        return None

    async def _check_piece(self, request: RangeRequest, piece: int, buffer: bytearray) -> None:
        found = await self._receiver.write_piece(piece, buffer)
        now, length = self._now(), self._want.records[piece].length
        if found != self._want.records[piece].sha256:
            self._receiver.buffers.give(buffer)
            self._schedule.bad(request, piece, found, now, self._jitter())
        elif self._schedule.verified(request, piece, now):
            self._receiver.accept(piece, buffer, self._names[request.source])
            self.counted[request.source] = self.counted.get(request.source, 0) + length
            self._progressed = now
        else:
            self._receiver.buffers.give(buffer)
        self._cancel_inactive()
        self._changed.set()

    def _received(self, request: RangeRequest, count: int) -> None:
        request.received += count
        self.arrived += count

    def _request_done(self, request: RangeRequest, task: asyncio.Task[ComityError | None]) -> None:
        self._running.pop(request, None)
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
