"""One file from many sources: drives the streams, verifies each piece, writes it, resumes what an earlier try left.

Which piece is asked of whom is the schedule's affair; here are the tasks, the clock and the disk.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from comity.transfer.audience import Audience, Nobody
from comity.transfer.intake import Intake
from comity.transfer.plan import Limits, Wanted
from comity.transfer.request import Request
from comity.transfer.schedule import Schedule
from comity.transfer.source import Answer, LocalSource, Source, names_of
from comity.transfer.source_key import SourceKey
from comity.transfer.standing import Standing
from comity.trust.digest import short
from comity.trust.errors import ComityError, NotFound, Refused, Unavailable, Untrusted

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
    want: Wanted,
    sources: Sequence[Source],
    into: Path,
    *,
    local: LocalSource | None = None,
    limits: Limits | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
    audience: Audience | None = None,
    standings: dict[SourceKey, Standing] | None = None,
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
    known = {source.key: standings.setdefault(source.key, Standing()) for source in sources}
    if len(known) != len(sources):
        raise ValueError("one source is named twice")
    hosts = {source.key: source.host for source in sources}
    limits, audience = limits or Limits(), audience or Nobody()
    intake = Intake(want, into, limits, on_progress, audience, executor)
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
        want: Wanted,
        sources: Sequence[Source],
        limits: Limits,
        schedule: Schedule,
        intake: Intake,
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
        self._running: dict[Request, asyncio.Task[ComityError | None]] = {}
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

    async def _stream(self, request: Request) -> ComityError | None:
        """Read a run of pieces. Returns what the source did wrong; what this machine does wrong is raised."""
        source = self._sources[request.source]
        offset, stop = self._want.offsets[request.first], request.stop
        length = self._want.offsets[stop] - offset
        settling: asyncio.Task[None] | None = None
        piece = request.first
        try:
            async with aclosing(source.read(self._want.digest, offset, length)) as chunks:
                answer = Answer(chunks, silence=self._limits.silence)
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

    async def _settle(self, request: Request, piece: int, buffer: bytearray) -> None:
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

    def _received(self, request: Request, count: int) -> None:
        request.received += count
        self.arrived += count

    def _over(self, request: Request, task: asyncio.Task[ComityError | None]) -> None:
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
