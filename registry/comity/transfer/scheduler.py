"""The scheduler of a transfer: which source fetches which pieces next. Also limits, requests and source health.

A state machine: no I/O, no clock, no randomness; time (in seconds) and jitter are arguments. The rules (the
numbers come from measurements of three policies over slow and malicious links):

(1) The to-do list is shared and in file order. A request takes a run of adjacent pieces from its front: one piece for
    an unknown source, about `run_seconds` worth for a known one, a share of the rest if several sources are available.
(2) A source has one request, and a second one while the first is on its last piece, so that no round trip is idle. One
    that brings more than `fast` bytes a second has two at any time: two threads receive and hash more than one does.
(3) When no piece is left to take, a source takes over the piece that is expected last if it would finish it 20 %
    sooner, or a piece in progress for twice the time that it needs itself: a source that sends all but the last bytes
    and then drips always seems to be about to finish. A piece that is not begun moves; one in progress is requested
    twice. At most two requests hold a piece, and the first to finish wins. A third source replaces the slower of the
    two that (10) does not protect.
(4) A failure (timeout, error, wrong length) makes the source back off, longer each time; it never drops the source.
    One that limits the rate of calls has not failed: it is asked again after the time that it names, or `max_delay`.
(5) An answer such as NotFound drops the source from this transfer. In others that share its health it is asked after
    equals that gave no such answer, and displaces no request as an untried source does, until it brings a piece.
(6) A bad piece drops the source at once. The last source is asked once more after a back-off, because the piece may
    have been damaged in transit; a second bad piece drops it too, because no source is left to compare with.
(7) If all streams are in use while a source has none, the slowest request ends, so that no number of slow sources can
    keep an honest one out.
(8) Sources that lead to one host, for example by gRPC and by HTTPS, share the quota of one source in (2), (3) and (7).
    Each is asked for one piece `TRIALS` times; then the one with the higher rate is asked, and the others again every
    `TRIAL_EVERY` seconds, because links change. A source that backs off or is dropped leaves the host to the others.
    One that costs this machine less work a byte is asked unless another is `faster` times as fast: where the link or a
    busy machine is the limit, rates of two ways differ by chance only. While it brings more than `fast` bytes a second,
    this machine is the limit, and no other is tried.
(9) Pieces that a reader waits for are taken first, and meanwhile no piece more than `WINDOW` beyond them is begun. Idle
    sources then apply (3), so a slow source does not keep the reader waiting.
(10) A request that (3) or (7) ends is preempted, after a grace period of `read_timeout`. So that a slow honest source
    is not preempted for ever, one request at a time is protected: of those past their grace period and in their turn,
    the one whose source used the fewest turns. A turn lasts `read_timeout` * 2 ** turns. A source has used a turn when
    it is preempted after it, or fails without a piece after its grace period; a verified piece lowers the number to
    what that piece needed. Sources that used fewer turns are asked first. Bytes that are not verified never raise the
    measured rate of a source.

Progress, whatever the other sources do: let an honest source need T seconds for a piece. Another source delivers
pieces, or uses turns and then comes after sources that used fewer. So when each has used log2(T / read_timeout) + 1
turns, the honest source is asked first and has a turn longer than T. It gets a request: all others but one are past
their grace period within `read_timeout`, and then (7) frees a stream, and (3) a holder's place. So some piece is
verified within about 2 T times the number of sources.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.transfer.sources import SourceKey
from comity.trust.errors import ComityError, Untrusted

MIB: Final = 1 << 20
FASTER: Final = 1.5
"""How many times as fast a costlier way must be. Between rounds of one pull by one way, on a machine that others use,
rates differ by as much (bench/pull.py)."""


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """The limits and timeouts of one transfer. Memory is at most `buffers` pieces of 4 MiB.

    Attributes:
        read_timeout: seconds without a byte after which a request fails.
        patience: seconds without a newly verified piece after which the transfer fails with Unavailable. For a total
            deadline use `asyncio.timeout` around the call: verified pieces stay for the next try.
        streams: open requests at a time, over all sources; must be below `buffers`, or a deadlock is possible.
        buffers: piece buffers in memory, for all uses.
        run_bytes: the longest range of one request; a slower source gets about `run_seconds` worth of pieces.
        first_delay, max_delay: seconds of a source's back-off after its first failure, and at most.
        faster: how many times as fast as a cheaper way to its host a source must be to be asked instead.
        fast: bytes per second above which a source has two requests, rule (2), and a cheaper way to a host is the
            only one, rule (8); infinity where pieces that arrive out of order cost more than is won.
    """

    read_timeout: float = 3.0
    patience: float = 600.0
    streams: int = 8
    buffers: int = 12
    run_bytes: int = 128 * MIB
    run_seconds: float = 2.0
    first_delay: float = 0.5
    max_delay: float = 30.0
    faster: float = FASTER
    fast: float = 150e6

    def __post_init__(self) -> None:
        if not 0 < self.streams < self.buffers:
            raise ValueError("streams must be positive and less than buffers")


class PieceRuns:
    """A set of piece numbers, stored as ascending runs of adjacent pieces."""

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
        """The lowest piece. The set must not be empty."""
        return self._starts[0]

    def take(self, most: int, start: int) -> range:
        """Remove and return `start`, which must be in the set, and the adjacent pieces, at most `most` in all."""
        at = bisect_right(self._starts, start) - 1
        first, end = self._starts[at], self._stops[at]
        stop = min(end, start + most)
        kept = [run for run in ((first, start), (stop, end)) if run[0] < run[1]]
        self._starts[at : at + 1] = [first for first, _ in kept]
        self._stops[at : at + 1] = [stop for _, stop in kept]
        self._count -= stop - start
        return range(start, stop)


FIRST_BYTES: Final = 64 * 1024
"""A request that received less is rated as if this much had arrived; its expected rate falls while it waits."""


@dataclass(slots=True, eq=False)
class RangeRequest:
    """A run of pieces, [first, stop), requested from one source. While it runs, `at` is the current piece, begun at
    `begun` after `before` bytes; `stop` may decrease, and `active` may become False permanently: the driver must then
    end the request."""

    source: SourceKey
    first: int
    stop: int
    started: float
    at: int
    received: int = 0
    active: bool = True
    before: int = 0
    begun: float = field(init=False)

    def __post_init__(self) -> None:
        self.begun = self.started

    def rate(self, now: float) -> float:
        """Bytes per second so far."""
        return self.received / max(now - self.started, 1e-6)

    def piece_rate(self, now: float) -> float:
        """Bytes per second of the current piece so far."""
        return (self.received - self.before) / max(now - self.begun, 1e-6)

    def expected_rate(self, now: float) -> float:
        """Expected bytes per second from now on; positive."""
        return max(self.received, FIRST_BYTES) / max(now - self.started, 1e-6)


UNPROVEN_RATE: Final = 256 * 1024.0
"""Bytes per second expected of a source without measurements."""


@dataclass(slots=True)
class SourceHealth:
    """Measurements of a source. May be shared by the transfers of one pull.

    Attributes:
        rate: bytes per second, smoothed; None until measured.
        failures: consecutive failures.
        turns: used turns of rule (10).
        backoff_until: the source is not asked before this time.
        bad_piece: the error if a finished transfer has proven a piece of this source bad; it is not asked any more.
        asked: number of requests.
        last_asked: time of the last request.
        refused: it gave a final negative answer, and no verified piece since.
    """

    rate: float | None = None
    failures: int = 0
    turns: int = 0
    backoff_until: float = -math.inf
    bad_piece: ComityError | None = None
    asked: int = 0
    last_asked: float = -math.inf
    refused: bool = False

    @property
    def untried(self) -> bool:
        return self.rate is None and not (self.failures or self.refused)

    @property
    def expected(self) -> float:
        """Expected bytes per second; positive. Each consecutive failure halves the measured rate."""
        rate = UNPROVEN_RATE if self.rate is None else self.rate
        return max(1.0, rate * 0.5 ** min(self.failures, 16))

    def turn(self, limits: TransferLimits) -> float:
        """Seconds of the next protected turn."""
        return limits.read_timeout * 2.0 ** min(self.turns, 16)

    def learn(self, rate: float) -> None:
        self.rate = rate if self.rate is None else 0.7 * self.rate + 0.3 * rate

    def back_off(self, now: float, jitter: float, limits: TransferLimits) -> None:
        self.failures += 1
        pause = min(limits.max_delay, limits.first_delay * 2 ** min(self.failures - 1, 16))
        self.backoff_until = now + pause * (0.5 + 0.5 * jitter)


SOONER: Final = 0.8
OVERDUE: Final = 2.0
MAX_OVERDUE: Final = 10.0
"""In units of `read_timeout`, because a source that failed may expect to need very long."""
MAX_FAULTS: Final = 8
TRIALS: Final = 2
WINDOW: Final = 64 * MIB
TRIAL_EVERY: Final = 30.0
"""Seconds after which another source of a host is tried again."""


class Schedule:
    """Assigns the `missing` pieces of a file cut at `offsets` to sources.

    The driver starts the requests that `assign` returns, calls `begin` before each piece, adds to
    `RangeRequest.received`, reports `verified` or `bad` for each piece, and then ends the request by exactly one of
    `ended`, `failed`, `refused`.

    Args:
        hosts: the host of each source; a source that is not listed is its own host.
        awaited: pieces that readers wait for, ascending.
        cheaper: the sources that cost this machine less work a byte than the others of their host. Rule (8).

    Attributes:
        unserved: after the last `assign` a source may have a request and got none: a piece that ends or begins may
            change that.
    """

    def __init__(
        self,
        offsets: Sequence[int],
        missing: Iterable[int],
        sources: Mapping[SourceKey, SourceHealth],
        limits: TransferLimits,
        hosts: Mapping[SourceKey, SourceKey] | None = None,
        awaited: Callable[[], Collection[int]] = tuple,
        cheaper: Collection[SourceKey] = (),
    ) -> None:
        self._offsets = offsets
        self._todo = PieceRuns(missing)
        self._holders: dict[int, list[RangeRequest]] = {}
        self._requests: list[RangeRequest] = []
        self._sources = sources
        self._hosts = {name: name for name in sources} | dict(hosts or {})
        self._limits = limits
        self._awaited = awaited
        self._cheaper = frozenset(cheaper)
        self._retried: set[SourceKey] = set()
        self._wrong: dict[tuple[int, bytes], int] = {}
        self.unserved = False
        self.dropped = {name: health.bad_piece for name, health in sources.items() if health.bad_piece}
        self.faults: dict[SourceKey, list[str]] = {}

    def accuse(self) -> None:
        """The records are proven: sources of bad pieces are asked in no other transfer that shares their health."""
        for source, error in self.dropped.items():
            if error.code == "BAD-PIECE":
                self._sources[source].bad_piece = error

    @property
    def finished(self) -> bool:
        return not self._todo and not self._holders

    @property
    def exhausted(self) -> bool:
        """Pieces are missing, every source is dropped, and no request is open."""
        return bool(self._todo) and not self._requests and len(self.dropped) == len(self._sources)

    @property
    def index_suspect(self) -> bool:
        """The same wrong bytes arrived twice for one piece: the piece index is probably wrong, not the sources."""
        return any(times > 1 for times in self._wrong.values())

    @property
    def requests(self) -> Sequence[RangeRequest]:
        return tuple(self._requests)

    def holders(self, piece: int) -> Sequence[RangeRequest]:
        return tuple(self._holders.get(piece, ()))

    def assign(self, now: float) -> list[RangeRequest]:
        """Requests to start now. May also deactivate other requests."""
        started = []
        while request := self._next(now):
            self._requests.append(request)
            health = self._sources[request.source]
            health.asked, health.last_asked = health.asked + 1, now
            for piece in range(request.first, request.stop):
                self._holders.setdefault(piece, []).append(request)
            started.append(request)
        return started

    def next_wake(self, now: float) -> float | None:
        """Seconds until a source's back-off ends; None if no source backs off."""
        delays = (self._sources[name].backoff_until - now for name in self._remaining())
        return min((delay for delay in delays if delay > 0), default=None)

    def begin(self, request: RangeRequest, piece: int, now: float) -> bool:
        """Whether `request` may continue with `piece`. False if its run has ended or other requests took the rest."""
        if not request.active or piece >= request.stop:
            return False
        request.at, request.begun, request.before = piece, now, request.received
        return True

    def verified(self, request: RangeRequest, piece: int, now: float) -> bool:
        """A piece is verified and written. Returns False if another request delivered it earlier."""
        health = self._sources[request.source]
        took = max(1.0, (now - request.started) / self._limits.read_timeout)
        health.failures, health.turns = 0, min(health.turns, math.ceil(math.log2(took)))
        health.refused = False
        health.learn(self._rate_of_host(request, now))
        holders = self._holders.pop(piece, None)
        for loser in holders or ():
            if loser is not request:
                loser.active = False
                self._learn_unverified(loser, now)
        return holders is not None

    def bad(self, request: RangeRequest, piece: int, got: bytes, now: float, jitter: float) -> None:
        """A piece's bytes hash to `got`, which does not match its record. Rule (6)."""
        source = request.source
        error = Untrusted("wrong bytes", why=f"piece {piece} does not match its hash", code="BAD-PIECE")
        self._note(source, error)
        self._wrong[piece, got] = self._wrong.get((piece, got), 0) + 1
        if any(name != source for name in self._remaining()):
            self._drop(source, error)
        elif request.active:  # other requests open at the first bad piece do not count
            if source in self._retried:
                self._drop(source, error)
            else:
                self._retried.add(source)
                self._sources[source].back_off(now, jitter, self._limits)
                self._end_requests(source)

    def failed(self, request: RangeRequest, error: ComityError, now: float, jitter: float) -> None:
        """The request ended early for a temporary reason. Rule (4)."""
        health = self._sources[request.source]
        if request.received:
            self._learn_unverified(request, now)
        if health.backoff_until <= now:
            health.back_off(now, jitter, self._limits)
        if request.at == request.first and self._past_grace(request, now):
            health.turns += 1
        self._note(request.source, error)
        self.ended(request)

    def paused(self, request: RangeRequest, seconds: float, now: float) -> None:
        """The source has too many calls, and may be asked again after `seconds`. Rule (4)."""
        health = self._sources[request.source]
        health.backoff_until = max(health.backoff_until, now + min(seconds, self._limits.max_delay))
        self.ended(request)

    def refused(self, request: RangeRequest, error: ComityError) -> None:
        """The source gave a final negative answer. Rule (5)."""
        self._sources[request.source].refused = True
        self._note(request.source, error)
        self._drop(request.source, error)
        self.ended(request)

    def ended(self, request: RangeRequest) -> None:
        """The request is over. Pieces that no other request holds return to the to-do list."""
        request.active = False
        self._requests.remove(request)
        for piece in range(request.first, request.stop):
            holders = self._holders.get(piece, [])
            if request in holders:
                holders.remove(request)
                if not holders:
                    del self._holders[piece]
                    self._todo.add(piece)

    def _next(self, now: float) -> RangeRequest | None:
        askable = self._askable(now)
        self.unserved = bool(askable)
        if len(self._requests) >= self._limits.streams:
            self._preempt_slowest(askable, now)
            return None
        for source in askable:
            if request := self._take(source, now) or self._take_over(source, now):
                return request
        return None

    def _askable(self, now: float) -> list[SourceKey]:
        """Sources that may get a request, ordered: without a request, untried, fewest turns, not refused, highest
        expected rate.

        Each source gets its first request before any gets its second, and slow ones come last, so no number of slow
        sources can starve a good one. Only one source per host is listed.
        """
        sources_by_host: dict[SourceKey, list[SourceKey]] = {}
        mine: dict[SourceKey, list[RangeRequest]] = {}
        for name in self._remaining():
            host = self._hosts[name]
            mine[host] = []
            if self._sources[name].backoff_until <= now:
                sources_by_host.setdefault(host, []).append(name)
        for request in self._requests:
            mine.setdefault(self._hosts[request.source], []).append(request)
        waiting, asked = sum(not requests for requests in mine.values()), {each.source for each in self._requests}
        spare = len(self._requests) + waiting < self._limits.streams

        def ready(requests: list[RangeRequest]) -> bool:
            if len(requests) != 1:
                return not requests
            [request] = requests
            return spare and (request.at == request.stop - 1 or self._is_fast(request.source))

        def rank(name: SourceKey) -> tuple[float, ...]:
            health = self._sources[name]
            return (
                len(mine[self._hosts[name]]),
                not health.untried,
                health.turns,
                health.refused,
                health.last_asked if health.turns else 0.0,
                -health.expected,
            )

        best = (self._best_source(names, asked, now) for host, names in sources_by_host.items() if ready(mine[host]))
        return sorted(best, key=rank)

    def _best_source(self, names: Sequence[SourceKey], asked: Collection[SourceKey], now: float) -> SourceKey:
        """Rule (8): the source of one host to ask. `asked` have a request."""
        good = [name for name in names if name in self._cheaper and self._is_fast(name)]
        if good:
            return max(good, key=lambda name: self._sources[name].expected)

        def due(name: SourceKey) -> bool:
            health = self._sources[name]
            if name in asked:
                return False  # a trial is in progress
            return health.asked < TRIALS or now - health.last_asked >= TRIAL_EVERY

        trials = [name for name in names if due(name)]
        if trials:
            return min(trials, key=lambda name: (self._sources[name].asked, self._sources[name].last_asked))
        weight = {name: self._limits.faster if name in self._cheaper else 1.0 for name in names}
        return max(names, key=lambda name: self._sources[name].expected * weight[name])

    def _take(self, source: SourceKey, now: float) -> RangeRequest | None:
        if (start := self._next_piece()) is None:
            return None
        run = self._todo.take(self._run_length(source, now), start)
        return RangeRequest(source, run.start, run.stop, started=now, at=run.start) if run else None

    def _next_piece(self) -> int | None:
        """The next piece to begin; None if the remaining pieces must wait. Rule (9)."""
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
        health = self._sources[source]
        if health.rate is None or health.failures or self._on_trial(source):
            return 1
        up = len({self._hosts[name] for name in self._remaining() if self._sources[name].backoff_until <= now})
        shared = up > 1 or self._is_fast(source)
        share = math.ceil(len(self._todo) / (2 * up)) if shared else len(self._todo)
        mean = self._offsets[-1] / (len(self._offsets) - 1)
        pieces = int(min(health.rate * self._limits.run_seconds, self._limits.run_bytes) / mean)
        return max(1, min(share, pieces))

    def _is_fast(self, source: SourceKey) -> bool:
        return self._sources[source].expected > self._limits.fast

    def _on_trial(self, source: SourceKey) -> bool:
        """Whether another source of the same host may be faster."""
        count = sum(self._hosts[name] == self._hosts[source] for name in self._remaining())
        return count > 1 and self._sources[source].asked < TRIALS

    def _take_over(self, source: SourceKey, now: float) -> RangeRequest | None:
        last = {request.stop - 1 for request in self._requests}
        worth = (piece for piece in last if self._worth_taking_over(piece, source, now))
        piece = max(worth, key=lambda piece: self._due(piece, now), default=None)
        if piece is None:
            return None
        holders = self._holders[piece]
        if len(holders) == 2:
            slower = max(self._preemptible(holders, now), key=lambda holder: self._seconds_left(holder, now))
            self._preempt(slower, now)
            holders.remove(slower)
        elif piece > holders[0].at:
            holders[0].stop = piece
            del self._holders[piece]
        return RangeRequest(source, piece, piece + 1, started=now, at=piece)

    def _worth_taking_over(self, piece: int, source: SourceKey, now: float) -> bool:
        """Whether `source` should request a piece that others hold. Rule (3)."""
        holders = self._holders.get(piece, [])
        if not holders or any(self._same_host(holder, source) or not holder.active for holder in holders):
            return False
        if len(holders) == 2 and not self._preemptible(holders, now):
            return False
        length = self._offsets[piece + 1] - self._offsets[piece]
        needed = (1 + self._streams(source)) * length / self._sources[source].expected
        timeout = self._limits.read_timeout
        overdue = 2 * timeout if len(holders) == 2 else min(max(timeout, OVERDUE * needed), MAX_OVERDUE * timeout)
        return needed < SOONER * self._due(piece, now) or all(now - holder.begun >= overdue for holder in holders)

    def _due(self, piece: int, now: float) -> float:
        """Seconds until a piece is expected."""
        return min(self._seconds_left(holder, now) for holder in self._holders[piece])

    def _seconds_left(self, request: RangeRequest, now: float) -> float:
        left = self._offsets[request.stop] - self._offsets[request.first] - request.received
        return left / request.expected_rate(now)

    def _past_grace(self, request: RangeRequest, now: float) -> bool:
        return now - request.started >= self._limits.read_timeout

    def _preemptible(self, requests: Iterable[RangeRequest], now: float) -> list[RangeRequest]:
        """Those of `requests` that are past their grace period, and not protected. Rule (10)."""
        in_turn = [
            request
            for request in self._requests
            if request.active and self._past_grace(request, now) and not self._turn_over(request, now)
        ]
        protected = min(
            in_turn,
            key=lambda request: (self._sources[request.source].turns, request.started),
            default=None,
        )
        return [request for request in requests if request is not protected and self._past_grace(request, now)]

    def _turn_over(self, request: RangeRequest, now: float) -> bool:
        return now - request.started >= self._sources[request.source].turn(self._limits)

    def _preempt_slowest(self, askable: Iterable[SourceKey], now: float) -> None:
        """Rule (7), for the first of these sources for which a request may end. At most one request at a time."""
        if not all(request.active for request in self._requests):
            return
        slowest = min(
            self._preemptible(self._requests, now), key=lambda request: self._pace(request, now), default=None
        )
        if slowest is None:
            return
        pace, served = self._pace(slowest, now), {self._hosts[request.source] for request in self._requests}
        waiting = (self._sources[source] for source in askable if self._hosts[source] not in served)
        if any(health.untried or 2 * pace < health.expected for health in waiting):
            self._preempt(slowest, now)

    def _pace(self, request: RangeRequest, now: float) -> float:
        """Bytes per second of a request; of its current piece alone if that takes long."""
        stalled = now - request.begun >= self._limits.read_timeout
        return request.piece_rate(now) if stalled else request.rate(now)

    def _preempt(self, request: RangeRequest, now: float) -> None:
        """End a request in favour of others; its source backs off while the others are measured. Rule (10)."""
        request.active = False
        self._learn_unverified(request, now)
        health = self._sources[request.source]
        health.backoff_until = now + 2 * self._limits.read_timeout
        health.turns += self._turn_over(request, now)

    def _learn_unverified(self, request: RangeRequest, now: float) -> None:
        """Update the source's rate by bytes that may be wrong: they can lower it only."""
        health = self._sources[request.source]
        known = UNPROVEN_RATE if health.rate is None else health.rate
        health.learn(min(known, self._rate_of_host(request, now)))

    def _rate_of_host(self, request: RangeRequest, now: float) -> float:
        """Requests of a host share its link, so the rate is multiplied by their number."""
        return request.rate(now) * self._streams(request.source)

    def _streams(self, source: SourceKey) -> int:
        return sum(self._same_host(request, source) for request in self._requests)

    def _same_host(self, request: RangeRequest, source: SourceKey) -> bool:
        return self._hosts[request.source] == self._hosts[source]

    def _remaining(self) -> Iterator[SourceKey]:
        return (name for name in self._sources if name not in self.dropped)

    def _drop(self, source: SourceKey, error: ComityError) -> None:
        self.dropped.setdefault(source, error)
        self._end_requests(source)

    def _end_requests(self, source: SourceKey) -> None:
        for request in self._requests:
            if request.source == source:
                request.active = False

    def _note(self, source: SourceKey, error: ComityError) -> None:
        faults = self.faults.setdefault(source, [])
        if str(error) not in faults and len(faults) < MAX_FAULTS:
            faults.append(str(error))
