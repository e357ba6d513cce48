"""The file under way. Blocking; its methods run in worker threads, several at once.

A partial file is its own journal. Only verified pieces are ever written into it, and what is found in it later is
believed only after hashing, so there is no second file that could be torn, stale, or about other records, and no
fsync per piece: a crash can lose pieces, never smuggle them in. Holes are skipped where the file system reports them.


The whole-file hash, in file order, close behind the pieces, so that no second pass over the disk is needed.

Who waits for a file while it is still coming in: told of each piece, asked what is waited for.

Where pieces come in, from an earlier try, from this machine or from a source: checked, written, counted, hashed.

One file from many sources: drives the streams, verifies each piece, writes it, resumes what an earlier try left.

Which piece is asked of whom is the schedule's affair; here are the tasks, the clock and the disk.


Many sources, some of them silent or lying, into one verified file.

    plan        what is wanted, what is missing, and the bounds of one transfer
    schedule    who fetches which pieces next: a state machine without I/O or clock
    standing    what is known of a source
    request     one run of pieces, asked of one source
    source_key  what a source is, whatever people call it
    source      where bytes come from: the protocol of a remote source, and pieces that are here already
    ranges      a source over HTTPS, beside a node's gRPC streams
    partial     the file under way; it is its own journal
    trail       the whole-file hash, in file order, behind the pieces; the buffers
    intake      where verified pieces come in: written, counted, hashed
    fetch       drives the sources: the one function that other rooms call

Which sources exist, which piece index to believe and where the finished file goes is decided upstairs.
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

MAKE_ROOM: Final = "make room, then run the same command again: it goes on from here"
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Partial:
    """The partial file of `want` at `path`. All methods raise OutOfSpace, or Unavailable (code DISK) with the reason.

    Each opens the file anew: a thread that outlives a cancelled transfer then holds no descriptor that is closed, or
    given to another file, under it.
    """

    def __init__(self, path: Path, want: WantedFile) -> None:
        self._path = path
        self._want = want

    def claimed(self) -> list[int]:
        """Pieces of which bytes are in the file: worth hashing, no more. Creates the file where there is none."""
        offsets, claimed = self._want.offsets, list[int]()
        with self._open(os.O_RDWR | os.O_CREAT) as fd:
            for start, stop in _extents(fd):
                first = max(bisect_right(offsets, start) - 1, claimed[-1] + 1 if claimed else 0)
                claimed.extend(range(first, min(bisect_left(offsets, stop), len(offsets) - 1)))
        return claimed

    def require_room(self, missing: int) -> None:
        """Refuse before the first byte is fetched what the disk could not take."""
        with self._open(os.O_RDONLY) as fd:
            disk = os.fstatvfs(fd)
        free = disk.f_bavail * disk.f_frsize
        if disk.f_blocks and free < missing:
            raise OutOfSpace(
                f"no room for {short(self._want.digest)}",
                why=f"{missing} bytes are missing and the disk has {free} left",
                hint=MAKE_ROOM,
            )

    def holds(self, piece: int, view: memoryview) -> bool:
        """Read a piece into `view` and say whether it is right."""
        return self.read(piece, view) and hashlib.sha256(view).digest() == self._want.records[piece].sha256

    def keep(self, piece: int, view: memoryview) -> bytes:
        """Write `view` where `piece` belongs if it has the piece's hash. Returns the hash that it has."""
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
        """Read a piece into `view`. False where the file ends inside it."""
        with self._open(os.O_RDONLY) as fd:
            return os.preadv(fd, [view], self._want.offsets[piece]) == len(view)

    def seal(self) -> None:
        """Cut the file to its size and make it durable. An empty file is whole before anything has opened it."""
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
            what = f"cannot keep {short(self._want.digest)}"
            why = f"{error.strerror}, at {self._path}"
            if error.errno in _FULL:
                raise OutOfSpace(what, why=why, hint=MAKE_ROOM) from error
            raise Unavailable(what, why=why, code="DISK") from error


def _extents(fd: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the ranges that hold data; the whole file where the file system cannot tell."""
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
    """A fixed number of reusable piece buffers: the back-pressure of the transfer. Whoever waits for one reads no
    further from its source."""

    def __init__(self, count: int, size: int) -> None:
        self._size = size
        self._free: list[bytearray] = []
        self._room = asyncio.Semaphore(count)

    async def take(self) -> bytearray:
        await self._room.acquire()
        return self._free.pop() if self._free else bytearray(self._size)

    def give(self, buffer: bytearray) -> None:
        self._free.append(buffer)
        self._room.release()


class FileHasher:
    """Hashes pieces in file order as they become verified.

    A buffer is kept until it is hashed if its piece extends the verified beginning of the file, or is less than `ahead`
    pieces beyond it. The former wait for no source; `ahead` plus the open streams must leave a buffer to each stream.
    Every other piece is read back from the partial file when its turn comes, into a buffer of the trail's own: the
    others may all be kept for later pieces then.
    """

    def __init__(self, want: WantedFile, partial: Partial, buffers: PieceBuffers, *, ahead: int) -> None:
        self._want = want
        self._partial = partial
        self._buffers = buffers
        self._ahead = ahead
        self._verified = bytearray(len(want.records) + 1)
        self._beginning = 0
        self._kept: dict[int, bytearray] = {}
        self._more = asyncio.Event()

    def add(self, piece: int, buffer: bytearray) -> None:
        """`piece` is verified and in the partial file; its bytes are the first of `buffer`, which is taken over."""
        self._verified[piece] = True
        while self._verified[self._beginning]:
            self._beginning += 1
        if piece < self._beginning + self._ahead:
            self._kept[piece] = buffer
        else:
            self._buffers.give(buffer)
        self._more.set()

    async def digest(self, executor: Executor | None) -> Digest:
        """The whole file's SHA-256, once every piece has been added. Raises Unavailable where one cannot be read."""
        loop, sha, own = asyncio.get_running_loop(), hashlib.sha256(), bytearray()
        for piece, record in enumerate(self._want.records):
            while piece >= self._beginning:
                self._more.clear()
                await self._more.wait()
            buffer = self._kept.pop(piece, None)
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
        """Pieces, in ascending order, that somebody waits for: fetched before others. May name some that are here."""
        ...


class NoObserver:
    """No one waits before the file is whole."""

    def arrived(self, piece: int) -> None:
        pass

    def awaited(self) -> Collection[int]:
        return ()


HERE: Final = "this machine"
READERS: Final = 4
"""Pieces on this machine that are read and hashed at a time."""

P = ParamSpec("P")
T = TypeVar("T")


class TransferReceiver:
    """The receiving end of one transfer. One event loop uses it; its disk and hash work runs in threads.

    Attributes:
        buffers: a buffer per piece, to be taken before its first byte is asked for.
    """

    def __init__(
        self,
        want: WantedFile,
        into: Path,
        limits: TransferLimits,
        on_progress: Callable[[int], None],
        audience: TransferObserver,
        executor: Executor | None,
    ) -> None:
        self._want = want
        self._executor = executor
        self._on_progress = on_progress
        self._audience = audience
        self._partial = Partial(into, want)
        self.buffers = PieceBuffers(limits.buffers, max((record.length for record in want.records), default=0))
        self._trail = FileHasher(want, self._partial, self.buffers, ahead=limits.buffers - limits.streams)
        self._givers: list[str | None] = [None] * len(want.records)

    def missing(self) -> list[int]:
        return [piece for piece, giver in enumerate(self._givers) if giver is None]

    def view(self, piece: int, buffer: bytearray) -> memoryview:
        return memoryview(buffer)[: self._want.records[piece].length]

    async def resume(self) -> int:
        """Take in what an earlier try left. Returns its bytes."""
        claimed = await self._in_thread(self._partial.claimed)
        return await self._take_in(claimed, self._partial.holds)

    async def reuse(self, local: LocalSource) -> int:
        """Take in what other files here hold. Returns its bytes."""

        def fill(piece: int, view: memoryview) -> bool:
            record = self._want.records[piece]
            return any(self._partial.keep(piece, view) == record.sha256 for _ in local.copies(record, view))

        return await self._take_in(self.missing(), fill)

    async def require_room(self) -> None:
        """Raise OutOfSpace before anything is fetched where the disk could not take what is missing."""
        missing = sum(self._want.records[piece].length for piece in self.missing())
        await self._in_thread(self._partial.require_room, missing)

    async def keep(self, piece: int, buffer: bytearray) -> bytes:
        """Write the piece in `buffer` to its place if it is right. Returns the hash that it has."""
        return await self._in_thread(self._partial.keep, piece, self.view(piece, buffer))

    def accept(self, piece: int, buffer: bytearray, giver: str) -> None:
        """Count a piece that is right and in its place, once. Takes the buffer over."""
        self._givers[piece] = giver
        self._trail.add(piece, buffer)
        self._on_progress(self._want.records[piece].length)
        self._audience.arrived(piece)

    async def hash_behind(self) -> None:
        """Hash the whole file in order while its pieces come in; make it durable when it is right.

        Raises Untrusted (code PIECE-INDEX), naming who gave what, and leaves nothing, where it is not.
        """
        digest = await self._trail.digest(self._executor)
        if digest == self._want.digest:
            await self._in_thread(self._partial.seal)
            return
        await self._in_thread(self._partial.discard)
        raise Untrusted(
            f"{short(self._want.digest)} cannot be put together from these pieces",
            why=f"each has its hash, but the file has sha256 {short(digest)}: {self._who_gave_what()}",
            hint="try another piece index",
            code="PIECE-INDEX",
        )

    async def _take_in(self, pieces: Iterable[int], fill: Callable[[int, memoryview], bool]) -> int:
        remaining, total = iter(pieces), 0

        async def reader() -> None:
            nonlocal total
            for piece in remaining:
                buffer = await self.buffers.take()
                if await self._in_thread(fill, piece, self.view(piece, buffer)):
                    self.accept(piece, buffer, HERE)
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

    def _who_gave_what(self) -> str:
        runs: dict[str, list[str]] = {}
        start = 0
        for giver, group in itertools.groupby(self._givers):
            stop = start + sum(1 for _ in group)
            runs.setdefault(str(giver), []).append(f"{start}-{stop - 1}" if stop - start > 1 else str(start))
            start = stop
        return "; ".join(f"{giver}: pieces {', '.join(_first(numbers, 20))}" for giver, numbers in runs.items())


def _first(items: list[str], most: int) -> Iterator[str]:
    yield from items[:most]
    if len(items) > most:
        yield "…"


TICK: Final = 0.25
"""Seconds after which the schedule is asked again even if nothing happened: somebody may have become slow."""
RESUME: Final = "run the same command again: it goes on from here"


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a finished transfer did.

    Attributes:
        bytes_by_source: verified bytes that counted.
        bytes_by_host: the same by where the sources lead.
        resumed: bytes that an earlier try had left in the partial file.
        reused: bytes that were found in other files on this machine.
        refetched: bytes that came and did not count: bad, cut off, or brought twice.
        dropped: sources that were given up, and why.
        faults: all that went wrong with a source, dropped or not; each kind once.
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
    audience: TransferObserver | None = None,
    standings: dict[SourceKey, SourceHealth] | None = None,
    jitter: Callable[[], float] = random.random,
    executor: Executor | None = None,
) -> Fetched:
    """Have `want`, whole and verified, at `into`, and durable there; the caller moves it to where it is read.

    Args:
        into: the partial file, in a folder that exists. What it holds is verified and used. The caller holds the lock
            of this blob: two transfers into one file would do the work twice.
        local: pieces on this machine, tried before any source.
        on_progress: called with the number of newly verified bytes; they add up to the size.
        audience: who reads from the partial file while it grows.
        standings: what is known of sources, read and updated: give the same one to all transfers of a pull.
        jitter: numbers in [0, 1) that spread the retries of many pullers.
        executor: where files are hashed, read and written; the event loop's own threads by default.

    Raises:
        Untrusted: no honest source (code BAD-PIECES), or pieces and file contradict each other (code PIECE-INDEX:
            another piece index may help; where the whole file proved it, nothing is left at `into`).
        Unavailable: no verified piece for `limits.patience` seconds, or every source has declined; NotFound or Refused
            where that is all they said.
        OutOfSpace: the disk is full.
        But for that, and after cancellation too, the partial file holds every verified piece for the next try.
    """
    standings = {} if standings is None else standings
    known = {source.key: standings.setdefault(source.key, SourceHealth()) for source in sources}
    if len(known) != len(sources):
        raise ValueError("one source is named twice")
    hosts = {source.key: source.host for source in sources}
    limits, audience = limits or TransferLimits(), audience or NoObserver()
    intake = TransferReceiver(want, into, limits, on_progress, audience, executor)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(intake.hash_behind())
            resumed = await intake.resume()
            reused = await intake.reuse(local) if local else 0
            await intake.require_room()
            schedule = Schedule(want.offsets, intake.missing(), known, limits, hosts, audience.awaited)
            streams = _Streams(want, sources, limits, schedule, intake, tasks, jitter)
            await streams.run()
    except BaseExceptionGroup as failures:
        cause = _first_cause(failures)
        raise cause from cause.__cause__
    for source, error in schedule.dropped.items():
        if error.code == "BAD-PIECE":  # proven only now: until the file was whole, the index could have been wrong
            known[source].lied = error
    return Fetched(
        bytes_by_source=streams.counted,
        bytes_by_host=_by_host(streams.counted, hosts),
        resumed=resumed,
        reused=reused,
        refetched=streams.arrived - sum(streams.counted.values()),
        dropped={source: str(error) for source, error in schedule.dropped.items()},
        faults={source: tuple(faults) for source, faults in schedule.faults.items()},
    )


class _Streams:
    """The requests under way: one task each, and one for each piece that is being checked."""

    def __init__(
        self,
        want: WantedFile,
        sources: Sequence[BlobSource],
        limits: TransferLimits,
        schedule: Schedule,
        intake: TransferReceiver,
        tasks: asyncio.TaskGroup,
        jitter: Callable[[], float],
    ) -> None:
        self._want = want
        self._sources = {source.key: source for source in sources}
        self._names = names_of(sources)
        self._limits = limits
        self._schedule = schedule
        self._intake = intake
        self._tasks = tasks
        self._jitter = jitter
        self._now = asyncio.get_running_loop().time
        self._progressed = self._now()
        self._running: dict[RangeRequest, asyncio.Task[ComityError | None]] = {}
        self._changed = asyncio.Event()
        self.counted: dict[SourceKey, int] = {}
        self.arrived = 0

    async def run(self) -> None:
        """Return when every piece is in."""
        schedule = self._schedule
        while not schedule.finished:
            now = self._now()
            for request in schedule.assign(now):
                task = self._tasks.create_task(self._stream(request))
                task.add_done_callback(partial(self._over, request))
                self._running[request] = task
            if schedule.exhausted:
                raise self._nobody_left()
            if now - self._progressed >= self._limits.patience:
                raise self._out_of_patience()
            self._end_dead()
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(TICK, schedule.wake(now) or TICK)):
                    await self._changed.wait()
        for task in self._running.values():  # what still comes was brought by others
            task.cancel()

    async def _stream(self, request: RangeRequest) -> ComityError | None:
        """Read a run of pieces. Returns what the source did wrong; what this machine does wrong is raised."""
        source = self._sources[request.source]
        offset, stop = self._want.offsets[request.first], request.stop
        length = self._want.offsets[stop] - offset
        settling: asyncio.Task[None] | None = None
        piece = request.first
        try:
            async with aclosing(source.read(self._want.digest, offset, length)) as chunks:
                answer = RangeStream(chunks, silence=self._limits.silence)
                while self._schedule.begin(request, piece):
                    self._changed.set()
                    buffer = await self._intake.buffers.take()
                    try:
                        await answer.fill(self._intake.view(piece, buffer), partial(self._received, request))
                    except BaseException:
                        self._intake.buffers.give(buffer)
                        raise
                    if settling:
                        await asyncio.wait({settling})
                    settling = self._tasks.create_task(self._settle(request, piece, buffer))
                    piece += 1
                if piece == stop:
                    await answer.end()
        except ComityError as error:
            return error
        finally:
            if settling:  # the verdict on its pieces comes before the request is over
                await asyncio.wait({settling})
        return None

    async def _settle(self, request: RangeRequest, piece: int, buffer: bytearray) -> None:
        found = await self._intake.keep(piece, buffer)
        now, length = self._now(), self._want.records[piece].length
        if found != self._want.records[piece].sha256:
            self._intake.buffers.give(buffer)
            self._schedule.bad(request, piece, found, now, self._jitter())
        elif self._schedule.verified(request, piece, now):
            self._intake.accept(piece, buffer, self._names[request.source])
            self.counted[request.source] = self.counted.get(request.source, 0) + length
            self._progressed = now
        else:
            self._intake.buffers.give(buffer)
        self._end_dead()
        self._changed.set()

    def _received(self, request: RangeRequest, count: int) -> None:
        request.received += count
        self.arrived += count

    def _over(self, request: RangeRequest, task: asyncio.Task[ComityError | None]) -> None:
        self._running.pop(request, None)
        error = None if task.cancelled() or task.exception() else task.result()
        if error is None:
            self._schedule.ended(request)
        elif isinstance(error, Unavailable) and not isinstance(error, NotFound):
            self._schedule.failed(request, error, self._now(), self._jitter())
        else:
            self._schedule.refused(request, error)
        self._end_dead()
        self._changed.set()

    def _end_dead(self) -> None:
        for request in [request for request in self._running if not request.live]:
            self._running.pop(request).cancel()

    def _nobody_left(self) -> ComityError:
        dropped = self._schedule.dropped
        what = f"nobody gives {short(self._want.digest)}"
        why = self._listed({source: [str(error)] for source, error in dropped.items()})
        if any(error.code == "BAD-PIECE" for error in dropped.values()):
            if self._schedule.doubted:
                why = f"the same bytes came twice where the index says otherwise: {why}"
                return Untrusted(what, why=why, hint="try another piece index", code="PIECE-INDEX")
            return Untrusted(what, why=why, hint="try other sources", code="BAD-PIECES")
        if dropped and all(isinstance(error, NotFound) for error in dropped.values()):
            return NotFound(what, why=why)
        if dropped and all(isinstance(error, Refused) for error in dropped.values()):
            return Refused(what, why=why)
        return Unavailable(what, why=why or "no source was given", code="NO-SOURCE")

    def _out_of_patience(self) -> ComityError:
        why = f"nothing came for {self._limits.patience:g} s. {self._listed(self._schedule.faults)}".rstrip()
        return Unavailable(f"gave up on {short(self._want.digest)} for now", why=why, hint=RESUME, code="PATIENCE")

    def _listed(self, faults: Mapping[SourceKey, Sequence[str]]) -> str:
        return "; ".join(f"{self._names[source]}: {', '.join(kinds)}" for source, kinds in faults.items())


def _by_host(counted: Mapping[SourceKey, int], hosts: Mapping[SourceKey, SourceKey]) -> dict[SourceKey, int]:
    sums: dict[SourceKey, int] = {}
    for source, count in counted.items():
        sums[hosts[source]] = sums.get(hosts[source], 0) + count
    return sums


def _first_cause(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first_cause(first) if isinstance(first, BaseExceptionGroup) else first
