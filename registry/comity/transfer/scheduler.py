"""The scheduler of a transfer: which source fetches which pieces next.

A state machine: no I/O, no clock, no randomness; time (in seconds) and jitter are arguments. The rules (the
numbers come from measurements of three policies over slow and malicious links):

(1) The to-do list is shared and in file order. A request takes a run of adjacent pieces from its front: one piece for
    an unknown source, about `run_seconds` worth for a known one; if several sources are available, at most half of the
    rest that falls to it when each gets as much as it delivers.
(2) A source has one request, and a second one when the first is about to end, so that no round trip is idle; before
    that its pieces are left to others. One that brings more than `fast` bytes a second has two at any time: two threads
    receive and hash more than one does.
(3) When no piece is left to take, a source takes a part of what is expected last, as much as lets both requests end
    together, if that is 20 % and `WORTH` seconds sooner. Pieces that are not begun move. Of a piece that the other
    brings from its start the source requests the end, and both requests stop where they meet: few bytes come twice. If
    the other does not get there, the source requests what is missing, and if the parts together are wrong, all of the
    piece. So each of the two may still bring it alone, and its hash says which one lied. A piece in progress for twice
    the time that the source needs itself is shared in any case: a source that sends all but the last bytes and then
    drips always seems to be about to finish. At most two requests hold a piece, and the first to finish wins. A third
    source replaces the slower of the two that (10) does not protect.
(4) A failure (timeout, error, wrong length) makes the source back off, longer each time; it never drops the source.
    One that limits the rate of calls has not failed: it is asked again after the time that it names, or `max_delay`.
(5) An answer such as NotFound drops the source from this transfer. In others that share its health it is asked after
    equals that gave no such answer, and displaces no request as an untried source does, until it brings a piece.
(6) A bad piece drops the source at once, and while there is another host, the other sources of its host with it. The
    last source is asked once more after a back-off, because the piece may have been damaged in transit; a second bad
    piece drops it too, because no source is left to compare with.
(7) If all streams are in use while a source has none, the slowest request ends, so that no number of slow sources can
    keep an honest one out.
(8) Sources that lead to one host, for example by gRPC and by HTTPS, share the quota of one source in (2), (3) and (7).
    Each is asked for one piece `TRIALS` times; then the one with the higher rate is asked, and the others again every
    `TRIAL_EVERY` seconds, because links change. A source that backs off or is dropped leaves the host to the others.
    One that costs this machine less work a byte is asked unless another is `faster` times as fast: where the link or a
    busy machine is the limit, rates of two ways differ by chance only. While it brings more than `fast` bytes a second,
    this machine is the limit, and no other is tried; nor if the host is `FAR`, where the cheaper way uses several
    connections, and losses bound the rate of the others. It is tried first.
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
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from comity.transfer.limits import FAR, MIB, TransferLimits
from comity.transfer.links import UNPROVEN_RATE, Links, RangeRequest, SourceHealth
from comity.transfer.pieces import PieceRuns
from comity.transfer.sources import SourceKey
from comity.trust.errors import ComityError, Untrusted


def _wrong_bytes(piece: int) -> Untrusted:
    return Untrusted("wrong bytes", why=f"piece {piece} does not match its hash", code="BAD-PIECE")


SOONER: Final = 0.8
WORTH: Final = 0.05
"""Seconds that a second request of a piece must save: it takes turns of the event loop."""
LEAST_SHARE: Final = 64 * 1024
"""Bytes that each of two requests of a piece must bring, or one of them brings it alone."""
WHOLE: Final = MIB
UNANSWERED: Final = 0.6
"""Seconds: two round trips of 250 ms, with a little work."""
FIRST_BYTES_IN: Final = 1.0
"""Seconds in which a connection, at first slow, brings `WHOLE` bytes over a round trip of 150 ms."""
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
        self._links = Links(offsets, self._requests, sources, self._hosts)
        self._limits = limits
        self._awaited = awaited
        self._cheaper = frozenset(cheaper)
        self._divisible = limits.divisible
        self._retried: set[SourceKey] = set()
        self._wrong: dict[tuple[int, bytes], int] = {}
        self._mixed: dict[int, list[tuple[RangeRequest, RangeRequest]]] = {}
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
        self._links.look(now)
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
        """Seconds until a source's back-off ends or it needs its next request; None if there is no such source."""
        delays = [self._sources[name].backoff_until - now for name in self._remaining()]
        delays += [
            self._links.seconds_left(each, now) - self._links.lead(each) for each in self._requests if each.answered
        ]
        return min((delay for delay in delays if delay > 0), default=None)

    def begin(self, request: RangeRequest, piece: int, now: float) -> bool:
        """Whether `request` may continue with `piece`. False if its run has ended or other requests took the rest."""
        if not request.active or piece >= request.stop:
            return False
        request.at, request.begun, request.before = piece, now, request.received
        return True

    def verified(self, request: RangeRequest, piece: int, now: float, head: RangeRequest | None = None) -> bool:
        """A piece is verified and written. Returns False if another request delivered it earlier.

        Args:
            head: the request that brought the first `request.skip` bytes of it.
        """
        if head is None:
            self._prove(request, now)
            self._sources[request.source].learn(self._links.rate(request, now))
            self._judge(request, piece)
        else:
            self._prove(request, now)
            if head in self._requests:
                self._prove(head, now)
                self._sources[head.source].learn(self._links.rate(head, now))
        holders = self._holders.pop(piece, None)
        for loser in holders or ():
            if loser is not request:
                loser.active = False
                if loser is not head:
                    self._learn_unverified(loser, now)
        return holders is not None

    def mixed(self, request: RangeRequest, head: RangeRequest) -> None:
        """The first `request.skip` bytes of its piece as `head` brought them, and the others as `request` did, do not
        match the record: one of the two lied. Rule (3)."""
        self._mixed.setdefault(request.first, []).append((request, head))

    def head_of(self, request: RangeRequest) -> RangeRequest | None:
        """The request that is to bring the bytes that `request` skips; None if there is none now."""
        holders = self._holders.get(request.first, ())
        return next((each for each in holders if each is not request and each.active and not each.skip), None)

    def patience(self, request: RangeRequest) -> float:
        """Seconds that `request` waits, when it has its own bytes, for those that it skips. Rule (3)."""
        health = self._sources[request.source]
        return OVERDUE * ((health.latency or 0.0) + request.skip / health.expected)

    def bad(self, request: RangeRequest, piece: int, got: bytes, now: float, jitter: float) -> None:
        """A piece's bytes hash to `got`, which does not match its record. Rule (6)."""
        source = request.source
        error = _wrong_bytes(piece)
        self._note(source, error)
        self._wrong[piece, got] = self._wrong.get((piece, got), 0) + 1
        host = self._hosts[source]
        if any(self._hosts[name] != host for name in self._remaining()):
            for name in [name for name in self._remaining() if self._hosts[name] == host]:
                self._drop(name, error)
        elif any(name != source for name in self._remaining()):
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
            return spare and (
                self._ending(request, now, alone=len(mine) == 1 or not self._divisible) or self._is_fast(request.source)
            )

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
        good = [name for name in names if name in self._cheaper and (self._is_fast(name) or self._is_far(name))]
        if good:
            return max(good, key=lambda name: self._sources[name].expected)

        def due(name: SourceKey) -> bool:
            health = self._sources[name]
            if name in asked:
                return False  # a trial is in progress
            return health.asked < TRIALS or now - health.last_asked >= TRIAL_EVERY

        def rank(name: SourceKey) -> tuple[float, ...]:
            return self._sources[name].asked, name not in self._cheaper, self._sources[name].last_asked

        trials = [name for name in names if due(name)]
        if trials:
            return min(trials, key=rank)
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
        up = len(self._host_rates(now))
        shared = up > 1 or self._is_fast(source)
        share = math.ceil(len(self._todo) * self._part(source, now) / 2) if shared else len(self._todo)
        mean = self._offsets[-1] / (len(self._offsets) - 1)
        pieces = int(min(health.rate * self._limits.run_seconds, self._limits.run_bytes) / mean)
        return max(1, min(share, pieces))

    def _host_rates(self, now: float) -> dict[SourceKey, float]:
        """The expected bytes per second of each host that does not back off."""
        rates: dict[SourceKey, float] = {}
        for name in self._remaining():
            if self._sources[name].backoff_until <= now:
                rates[self._hosts[name]] = max(rates.get(self._hosts[name], 0.0), self._sources[name].expected)
        return rates

    def _part(self, source: SourceKey, now: float) -> float:
        """What part of all that the available hosts deliver the one of `source` does."""
        rates = self._host_rates(now)
        return rates[self._hosts[source]] / sum(rates.values())

    def _ending(self, request: RangeRequest, now: float, *, alone: bool) -> bool:
        """Whether the host of `request` needs the next one now. Rule (2). If it is `alone`, no other could use the
        pieces, so that it need not be nearly over."""
        if alone and request.at == request.stop - 1:
            return True
        return request.answered is not None and self._links.seconds_left(request, now) <= self._links.lead(request)

    def _is_fast(self, source: SourceKey) -> bool:
        return self._sources[source].expected > self._limits.fast

    def _is_far(self, source: SourceKey) -> bool:
        """Whether the source has brought pieces lately, from far away."""
        health = self._sources[source]
        return health.rate is not None and not health.failures and (health.latency or 0.0) >= FAR

    def _on_trial(self, source: SourceKey) -> bool:
        """Whether another source of the same host may be faster."""
        count = sum(self._hosts[name] == self._hosts[source] for name in self._remaining())
        return count > 1 and self._sources[source].asked < TRIALS

    def _take_over(self, source: SourceKey, now: float) -> RangeRequest | None:
        last = {request.stop - 1 for request in self._requests}
        shares = {piece: share for piece in last if (share := self._share(piece, source, now)) is not None}
        if not shares:
            return None
        piece = max(shares, key=lambda piece: self._due(piece, now))
        holders, skip = self._holders[piece], self._offsets[piece + 1] - self._offsets[piece] - shares[piece]
        if len(holders) == 2:
            slower = max(self._preemptible(holders, now), key=lambda holder: self._links.seconds_left(holder, now))
            self._preempt(slower, now)
            holders.remove(slower)
        elif piece > holders[0].at and skip <= 0:
            return self._move(holders[0], source, shares[piece], now)
        skip = max(skip, *(holder.arrived(piece) for holder in holders))
        skip = skip if skip >= LEAST_SHARE and self._divisible else 0
        return RangeRequest(source, piece, piece + 1, started=now, at=piece, skip=skip)

    def _move(self, holder: RangeRequest, source: SourceKey, share: int, now: float) -> RangeRequest:
        """A request for the last pieces of `holder`, which has not begun them: one, or what fits in `share` bytes."""
        first = stop = holder.stop
        while first - 1 > holder.at and (first == stop or self._offsets[stop] - self._offsets[first - 1] <= share):
            first -= 1
            del self._holders[first]
        holder.stop = first
        return RangeRequest(source, first, stop, started=now, at=first)

    def _share(self, piece: int, source: SourceKey, now: float) -> int | None:
        """How many bytes `source` should request, from the end of what the holders of `piece`, the last of their
        requests, are to bring: more than the piece if it should take others too. None if it should not. Rule (3)."""
        holders = self._holders.get(piece, [])
        if not holders or any(self._links.same_host(holder, source) or not holder.active for holder in holders):
            return None
        if len(holders) == 2 and not self._preemptible(holders, now):
            return None
        length = self._offsets[piece + 1] - self._offsets[piece]
        if len(holders) == 1 and length < WHOLE and self._is_new(holders[0], now):
            return None
        rate, delay = self._sources[source].expected, self._links.delay(source, now)
        due, timeout, alone = self._due(piece, now), self._limits.read_timeout, delay + length / rate
        overdue = 2 * timeout if len(holders) == 2 else min(max(timeout, OVERDUE * alone), MAX_OVERDUE * timeout)
        rest = self._offsets[-1] if all(self._is_overdue(each, overdue, alone, now) for each in holders) else None
        if len(holders) == 2 or not self._divisible:
            return length if alone < SOONER * due else rest
        left, other = due * self._links.flow(holders[0].source, now), self._links.steady(holders[0].source, now)
        share = int(rate * (left - other * delay) / (rate + other))
        together = delay + share / rate
        if share < min(LEAST_SHARE, left) or together >= min(SOONER * due, due - WORTH):
            return rest
        return share if together <= self._best_together(holders[0], left, now) else rest

    def _is_new(self, holder: RangeRequest, now: float) -> bool:
        """Whether it is too early to say how fast the untried source of a request is."""
        if not self._sources[holder.source].untried:
            return False
        if holder.answered is None:
            return now - holder.begun < UNANSWERED
        return now - holder.answered < FIRST_BYTES_IN

    def _is_overdue(self, holder: RangeRequest, overdue: float, alone: float, now: float) -> bool:
        """Whether a request took more than `overdue` seconds for its piece, and another would bring all of it, in
        `alone` seconds, before this one ends at its newest rate."""
        return now - holder.begun >= overdue and self._links.newest_seconds_left(holder) > alone

    def _best_together(self, holder: RangeRequest, left: float, now: float) -> float:
        """Seconds in which the `left` bytes of a request arrive if the best other host shares them, once it is free."""
        other, hosts = self._links.steady(holder.source, now), dict[SourceKey, SourceKey]()
        for name in self._remaining():
            if self._sources[name].backoff_until <= now and self._sources[name].rate is not None:
                hosts.setdefault(self._hosts[name], name)
        rates = self._host_rates(now)
        return min(
            (
                (left + rates[host] * self._links.delay(name, now)) / (rates[host] + other)
                for host, name in hosts.items()
                if host != self._hosts[holder.source]
            ),
            default=math.inf,
        )

    def _due(self, piece: int, now: float) -> float:
        """Seconds until a piece is expected."""
        return min(self._links.seconds_left(holder, now) for holder in self._holders[piece])

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

    def _prove(self, request: RangeRequest, now: float) -> None:
        """Note that bytes of a request were right."""
        health = self._sources[request.source]
        took = max(1.0, (now - request.started) / self._limits.read_timeout)
        health.failures, health.turns = 0, min(health.turns, math.ceil(math.log2(took)))
        health.refused = False

    def _judge(self, request: RangeRequest, piece: int) -> None:
        """Drop the source of the wrong part of a piece that `request` has now brought alone."""
        for pair in self._mixed.pop(piece, ()):
            if request in pair:
                wrong = pair[0] if request is pair[1] else pair[1]
                error = _wrong_bytes(piece)
                self._note(wrong.source, error)
                self._drop(wrong.source, error)

    def _learn_unverified(self, request: RangeRequest, now: float) -> None:
        """Update the source's rate by bytes that may be wrong: they can lower it only."""
        health = self._sources[request.source]
        known = UNPROVEN_RATE if health.rate is None else health.rate
        health.learn(min(known, self._links.rate(request, now)))

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
