"""What a transfer is asked for, which pieces are still to do, and the bounds it keeps. Values only, no I/O.

One run of pieces asked of one source: what the schedule hands to whoever drives the sources.

What is known of a source: how fast it is, how often it failed, whether it lied. A value that the schedule keeps.

Who fetches which pieces next. A state machine: no I/O, no clock, no randomness; seconds and jitter are arguments.

The rules (protocol, section 11; the numbers come from measurements of three policies over slow and lying links):

(1) The to-do list is shared and in file order. A request takes a run of neighbours from its front: one piece for a
    source not yet known, about `run_seconds` worth for a known one, a share of the rest where several sources are up.
(2) A source has one request, and a second one while the first is on its last piece, so that no round trip is idle.
(3) Nothing left to take: the piece expected last is taken over by a source that would have it 20 % sooner. One that
    its holder has not begun moves; one under way is doubled. At most two requests hold a piece, and the first wins;
    where a third source would still be sooner than both, the slower one that had its time gives way.
(4) A failure (silence, error, wrong length) makes the source rest, longer each time; it never drops it.
(5) An answer such as NotFound drops the source from this transfer.
(6) A bad piece drops the source at once. The last one left is asked again after a rest, once, because the piece may
    have been damaged on its way; its second bad piece drops it too, for then nobody is left who could be believed.
(7) All streams taken while a source waits without one: the slowest request gives way, so that no number of sources
    that drip can keep an honest one out.
(8) Sources that lead to one host, by gRPC and by HTTPS for example, share what (2), (3) and (7) give to one source.
    Each is asked for one piece `TRIALS` times; else the one that has shown the higher rate is asked, and the others
    again now and then, for links change. One that rests or is dropped leaves the host to the others.
(9) What a reader waits for is taken first, and while one waits nothing is begun more than `WINDOW` beyond it: sources
    that have nothing else to do then come to (3), and a slow one does not keep the reader waiting.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.transfer.sources import SourceKey
from comity.trust.artifact import PIECE, PieceRecord
from comity.trust.encoding import Digest, short
from comity.trust.errors import ComityError, Untrusted

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class WantedFile:
    """One file: the SHA-256 that decides, its size in bytes, and the records by which its pieces are checked.

    Raises Untrusted (code PIECE-INDEX) where the records do not tile `size` bytes in pieces of 1 byte to 4 MiB.
    """

    digest: Digest
    size: int
    records: Sequence[PieceRecord]
    offsets: Sequence[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        offsets = list(itertools.accumulate((record.length for record in self.records), initial=0))
        if offsets[-1] != self.size or not all(0 < record.length <= PIECE for record in self.records):
            raise Untrusted(
                f"the pieces of {short(self.digest)} cannot be right",
                why=f"they do not tile {self.size} bytes in pieces of 1 to {PIECE} bytes",
                hint="try another piece index",
                code="PIECE-INDEX",
            )
        object.__setattr__(self, "offsets", offsets)

    def at(self, offset: int) -> int:
        """The piece in which the byte at `offset` stands."""
        return bisect_right(self.offsets, offset) - 1

    def span(self, piece: int) -> tuple[int, int]:
        """(offset, length) of a piece."""
        return self.offsets[piece], self.records[piece].length


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """The bounds and patience of one transfer. Buffers take at most `buffers` pieces of 4 MiB, whoever sends what.

    Attributes:
        silence: seconds without a byte after which a request has failed.
        patience: seconds without a newly verified piece after which the transfer gives up with Unavailable. A
            deadline for the whole is `asyncio.timeout` around the call: what is verified stays for the next try.
        streams: open requests at a time, all sources together; below `buffers`, or the two would wait for each other.
        buffers: piece buffers in memory, all uses together.
        run_bytes: the longest range of one request; a slower source gets about `run_seconds` worth of pieces.
        first_rest, longest_rest: seconds of the back-off of a source that failed once, and at most.
    """

    silence: float = 3.0
    patience: float = 600.0
    streams: int = 8
    buffers: int = 12
    run_bytes: int = 128 * MIB
    run_seconds: float = 2.0
    first_rest: float = 0.5
    longest_rest: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.streams < self.buffers:
            raise ValueError("a transfer needs a stream, and more buffers than streams")


class Runs:
    """A set of piece numbers, held as ascending runs of neighbours."""

    def __init__(self, pieces: Iterable[int] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._count = 0
        for piece in pieces:
            self.add(piece)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, piece: int) -> bool:
        at = bisect_right(self._starts, piece) - 1
        return at >= 0 and piece < self._stops[at]

    def add(self, piece: int) -> None:
        if piece in self:
            return
        at = bisect_right(self._starts, piece)
        joins_left = at > 0 and self._stops[at - 1] == piece
        joins_right = at < len(self._starts) and self._starts[at] == piece + 1
        if joins_left and joins_right:
            self._stops[at - 1] = self._stops[at]
            del self._starts[at], self._stops[at]
        elif joins_left:
            self._stops[at - 1] = piece + 1
        elif joins_right:
            self._starts[at] = piece
        else:
            self._starts.insert(at, piece)
            self._stops.insert(at, piece + 1)
        self._count += 1

    @property
    def first(self) -> int:
        """The lowest piece of a set that is not empty."""
        return self._starts[0]

    def take(self, most: int, start: int) -> range:
        """Remove and return `start`, which is in the set, and its next neighbours, at most `most` pieces in all."""
        at = bisect_right(self._starts, start) - 1
        first, end = self._starts[at], self._stops[at]
        stop = min(end, start + most)
        kept = [run for run in ((first, start), (stop, end)) if run[0] < run[1]]
        self._starts[at : at + 1] = [first for first, _ in kept]
        self._stops[at : at + 1] = [stop for _, stop in kept]
        self._count -= stop - start
        return range(start, stop)


FIRST_BYTES: Final = 64 * 1024
"""A request that has brought less is judged as if this much had arrived: its promise falls as it waits."""


@dataclass(slots=True, eq=False)
class RangeRequest:
    """A run of pieces, [first, stop), asked of one source. While it runs, `at` is the piece under way, `stop` may move
    down, and `live` may turn False, for good: the driver must then end it."""

    source: SourceKey
    first: int
    stop: int
    started: float
    at: int
    received: int = 0
    live: bool = True

    def rate(self, now: float) -> float:
        """Bytes per second so far."""
        return self.received / max(now - self.started, 1e-6)

    def promise(self, now: float) -> float:
        """Bytes per second to count on from here, more than none."""
        return max(self.received, FIRST_BYTES) / max(now - self.started, 1e-6)


UNPROVEN_RATE: Final = 256 * 1024.0
"""Bytes per second expected of a source that has shown nothing yet."""


@dataclass(slots=True)
class SourceHealth:
    """What is known of a source. May be shared by the transfers of one pull, so that none learns it anew.

    Attributes:
        rate: bytes per second, smoothed; None until it has shown something, if only that it is slow.
        failures: in a row.
        rests_until: not asked before this time.
        lied: why it is not asked at all; set when a finished transfer has proven a piece of this source bad.
        asked: requests made of it.
        last_asked: when the last one was.
    """

    rate: float | None = None
    failures: int = 0
    rests_until: float = -math.inf
    lied: ComityError | None = None
    asked: int = 0
    last_asked: float = -math.inf

    @property
    def untried(self) -> bool:
        return self.rate is None and not self.failures

    @property
    def expected(self) -> float:
        """Bytes per second to count on, more than none: a failure halves what a source has shown."""
        rate = UNPROVEN_RATE if self.rate is None else self.rate
        return max(1.0, rate * 0.5 ** min(self.failures, 16))

    def learn(self, rate: float) -> None:
        self.rate = rate if self.rate is None else 0.7 * self.rate + 0.3 * rate

    def rest(self, now: float, jitter: float, limits: TransferLimits) -> None:
        self.failures += 1
        pause = min(limits.longest_rest, limits.first_rest * 2 ** min(self.failures - 1, 16))
        self.rests_until = now + pause * (0.5 + 0.5 * jitter)


SOONER: Final = 0.8
MAX_FAULTS: Final = 8
TRIALS: Final = 2
WINDOW: Final = 64 * MIB
TRIAL_EVERY: Final = 30.0
"""Seconds after which another way to a host is tried again."""


class Schedule:
    """How the pieces `missing` of a file cut at `offsets` are had from the sources.

    The driver starts what `assign` returns, asks `begin` before each piece, adds up `Request.received`, reports
    `verified` or `bad` for each piece, and then ends the request by exactly one of `ended`, `failed`, `refused`.

    Args:
        hosts: where sources lead to; one that is not listed is a host by itself.
        awaited: pieces that readers wait for, ascending.
    """

    def __init__(
        self,
        offsets: Sequence[int],
        missing: Iterable[int],
        sources: Mapping[SourceKey, SourceHealth],
        limits: TransferLimits,
        hosts: Mapping[SourceKey, SourceKey] | None = None,
        awaited: Callable[[], Collection[int]] = tuple,
    ) -> None:
        self._offsets = offsets
        self._todo = Runs(missing)
        self._holders: dict[int, list[RangeRequest]] = {}
        self._requests: list[RangeRequest] = []
        self._sources = sources
        self._hosts = {name: name for name in sources} | dict(hosts or {})
        self._limits = limits
        self._awaited = awaited
        self._forgiven: set[SourceKey] = set()
        self._wrong: dict[tuple[int, bytes], int] = {}
        self.dropped = {name: standing.lied for name, standing in sources.items() if standing.lied}
        self.faults: dict[SourceKey, list[str]] = {}

    @property
    def finished(self) -> bool:
        return not self._todo and not self._holders

    @property
    def exhausted(self) -> bool:
        """Pieces are missing, every source is dropped, and nothing is under way."""
        return bool(self._todo) and not self._requests and len(self.dropped) == len(self._sources)

    @property
    def doubted(self) -> bool:
        """The same wrong bytes came twice for one piece: rather the piece index is wrong than the sources."""
        return any(times > 1 for times in self._wrong.values())

    @property
    def requests(self) -> Sequence[RangeRequest]:
        return tuple(self._requests)

    def holders(self, piece: int) -> Sequence[RangeRequest]:
        return tuple(self._holders.get(piece, ()))

    def assign(self, now: float) -> list[RangeRequest]:
        """Requests to start now. May also end the life of others."""
        started = []
        while request := self._next(now):
            self._requests.append(request)
            standing = self._sources[request.source]
            standing.asked, standing.last_asked = standing.asked + 1, now
            for piece in range(request.first, request.stop):
                self._holders.setdefault(piece, []).append(request)
            started.append(request)
        return started

    def wake(self, now: float) -> float | None:
        """Seconds until a resting source may be asked again; None where none rests."""
        rests = (self._sources[name].rests_until - now for name in self._remaining())
        return min((rest for rest in rests if rest > 0), default=None)

    def begin(self, request: RangeRequest, piece: int) -> bool:
        """May `request` go on to `piece`? False where its run has ended or others have taken the rest of it."""
        if not request.live or piece >= request.stop:
            return False
        request.at = piece
        return True

    def verified(self, request: RangeRequest, piece: int, now: float) -> bool:
        """A piece's bytes are right and kept. False where another request had brought it before."""
        standing = self._sources[request.source]
        standing.failures = 0
        self._learn(request, now)
        holders = self._holders.pop(piece, None)
        for loser in holders or ():
            if loser is not request:
                loser.live = False
                self._learn(loser, now)
        return holders is not None

    def bad(self, request: RangeRequest, piece: int, got: bytes, now: float, jitter: float) -> None:
        """A piece's bytes hash to `got`, which is not what its record says. Rule (6)."""
        source = request.source
        error = Untrusted("wrong bytes", why=f"piece {piece} does not have its hash", code="BAD-PIECE")
        self._note(source, error)
        self._wrong[piece, got] = self._wrong.get((piece, got), 0) + 1
        if any(name != source for name in self._remaining()):
            self._drop(source, error)
        elif request.live:  # what else was under way when it was forgiven is not held against it
            if source in self._forgiven:
                self._drop(source, error)
            else:
                self._forgiven.add(source)
                self._sources[source].rest(now, jitter, self._limits)
                self._end_life(source)

    def failed(self, request: RangeRequest, error: ComityError, now: float, jitter: float) -> None:
        """The request ended before its run did, for a reason that may pass. Rule (4)."""
        standing = self._sources[request.source]
        if request.received:
            self._learn(request, now)
        if standing.rests_until <= now:
            standing.rest(now, jitter, self._limits)
        self._note(request.source, error)
        self.ended(request)

    def refused(self, request: RangeRequest, error: ComityError) -> None:
        """The source has answered, and will not answer otherwise. Rule (5)."""
        self._note(request.source, error)
        self._drop(request.source, error)
        self.ended(request)

    def ended(self, request: RangeRequest) -> None:
        """The request is over. What nobody else holds is to do again."""
        request.live = False
        self._requests.remove(request)
        for piece in range(request.first, request.stop):
            holders = self._holders.get(piece, [])
            if request in holders:
                holders.remove(request)
                if not holders:
                    del self._holders[piece]
                    self._todo.add(piece)

    def _next(self, now: float) -> RangeRequest | None:
        for source in self._askable(now):
            if len(self._requests) >= self._limits.streams:
                self._give_way(source, now)
                return None
            if request := self._take(source, now) or self._take_over(source, now):
                return request
        return None

    def _askable(self, now: float) -> list[SourceKey]:
        """Sources that may be given a request, in this order: those that have none, were never tried, promise most.

        Each gets its trial before any gets its second, and slow ones fall behind: no number of them starves a good one.
        Of those that lead to one host only one is named.
        """
        ways: dict[SourceKey, list[SourceKey]] = {}
        for name in self._remaining():
            if self._sources[name].rests_until <= now:
                ways.setdefault(self._hosts[name], []).append(name)
        hosts = {self._hosts[name] for name in self._remaining()}
        mine = {host: [request for request in self._requests if self._hosts[request.source] == host] for host in hosts}
        waiting = sum(not requests for requests in mine.values())
        spare = len(self._requests) + waiting < self._limits.streams

        def ready(requests: list[RangeRequest]) -> bool:
            return not requests or (spare and len(requests) == 1 and requests[0].at == requests[0].stop - 1)

        return sorted(
            (self._way(names, now) for host, names in ways.items() if ready(mine[host])),
            key=lambda name: (
                len(mine[self._hosts[name]]),
                not self._sources[name].untried,
                -self._sources[name].expected,
            ),
        )

    def _way(self, names: Sequence[SourceKey], now: float) -> SourceKey:
        """Rule (8): the source to ask, of those that lead to one host."""

        def due(name: SourceKey) -> bool:
            standing = self._sources[name]
            if any(request.source == name for request in self._requests):
                return False  # it is being tried
            return standing.asked < TRIALS or now - standing.last_asked >= TRIAL_EVERY

        trials = [name for name in names if due(name)]
        if trials:
            return min(trials, key=lambda name: (self._sources[name].asked, self._sources[name].last_asked))
        return max(names, key=lambda name: self._sources[name].expected)

    def _take(self, source: SourceKey, now: float) -> RangeRequest | None:
        if (start := self._front()) is None:
            return None
        run = self._todo.take(self._run_length(source, now), start)
        return RangeRequest(source, run.start, run.stop, started=now, at=run.start) if run else None

    def _front(self) -> int | None:
        """The piece to begin with next; None where all that is left can wait. Rule (9)."""
        if not self._todo:
            return None
        missing = [piece for piece in self._awaited() if piece in self._todo or piece in self._holders]
        for piece in missing:
            if piece in self._todo:
                return piece
        first = self._todo.first
        if missing and self._offsets[first] - self._offsets[missing[0]] > WINDOW:
            return None
        return first

    def _run_length(self, source: SourceKey, now: float) -> int:
        standing = self._sources[source]
        if standing.rate is None or standing.failures or self._on_trial(source):
            return 1
        up = len({self._hosts[name] for name in self._remaining() if self._sources[name].rests_until <= now})
        share = math.ceil(len(self._todo) / (2 * up)) if up > 1 else len(self._todo)
        mean = self._offsets[-1] / (len(self._offsets) - 1)
        worth = int(min(standing.rate * self._limits.run_seconds, self._limits.run_bytes) / mean)
        return max(1, min(share, worth))

    def _on_trial(self, source: SourceKey) -> bool:
        """Whether another way to its host may turn out to be the faster one."""
        ways = sum(self._hosts[name] == self._hosts[source] for name in self._remaining())
        return ways > 1 and self._sources[source].asked < TRIALS

    def _take_over(self, source: SourceKey, now: float) -> RangeRequest | None:
        def due(piece: int) -> float:
            return min(self._seconds_left(holder, now) for holder in self._holders[piece])

        def open_to_others(piece: int) -> bool:
            holders = self._holders.get(piece, [])
            if any(self._same_host(holder, source) or not holder.live for holder in holders):
                return False
            return len(holders) == 1 or any(self._had_its_time(holder, now) for holder in holders)

        last = {request.stop - 1 for request in self._requests}
        piece = max(filter(open_to_others, last), key=due, default=None)
        if piece is None:
            return None
        streams = 1 + self._streams(source)
        length = self._offsets[piece + 1] - self._offsets[piece]
        if streams * length / self._sources[source].expected >= SOONER * due(piece):
            return None
        holders = self._holders[piece]
        if len(holders) == 2:
            settled = (holder for holder in holders if self._had_its_time(holder, now))
            self._displace(max(settled, key=lambda holder: self._seconds_left(holder, now)), now)
            return None
        if piece > holders[0].at:
            holders[0].stop = piece
            del self._holders[piece]
        return RangeRequest(source, piece, piece + 1, started=now, at=piece)

    def _seconds_left(self, request: RangeRequest, now: float) -> float:
        left = self._offsets[request.stop] - self._offsets[request.first] - request.received
        return left / request.promise(now)

    def _had_its_time(self, request: RangeRequest, now: float) -> bool:
        return now - request.started >= self._limits.silence

    def _give_way(self, source: SourceKey, now: float) -> None:
        """Rule (7). One at a time."""
        if any(self._same_host(request, source) or not request.live for request in self._requests):
            return
        settled = (request for request in self._requests if self._had_its_time(request, now))
        slowest = min(settled, key=lambda request: request.rate(now), default=None)
        standing = self._sources[source]
        if slowest and (standing.untried or 2 * slowest.rate(now) < standing.expected):
            self._displace(slowest, now)

    def _displace(self, request: RangeRequest, now: float) -> None:
        """End a request for the sake of others; its source rests while these show their worth."""
        request.live = False
        self._learn(request, now)
        self._sources[request.source].rests_until = now + 2 * self._limits.silence

    def _learn(self, request: RangeRequest, now: float) -> None:
        """The requests of a host share its link: it gives what this one brings, times their number."""
        self._sources[request.source].learn(request.rate(now) * self._streams(request.source))

    def _streams(self, source: SourceKey) -> int:
        return sum(self._same_host(request, source) for request in self._requests)

    def _same_host(self, request: RangeRequest, source: SourceKey) -> bool:
        return self._hosts[request.source] == self._hosts[source]

    def _remaining(self) -> Iterator[SourceKey]:
        return (name for name in self._sources if name not in self.dropped)

    def _drop(self, source: SourceKey, error: ComityError) -> None:
        self.dropped.setdefault(source, error)
        self._end_life(source)

    def _end_life(self, source: SourceKey) -> None:
        for request in self._requests:
            if request.source == source:
                request.live = False

    def _note(self, source: SourceKey, error: ComityError) -> None:
        faults = self.faults.setdefault(source, [])
        if str(error) not in faults and len(faults) < MAX_FAULTS:
            faults.append(str(error))
