"""What a transfer knows of its links: its open requests, measurements of the sources, and what they let expect.

No clock: time, in seconds, is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.transfer.limits import TransferLimits
from comity.transfer.sources import SourceKey
from comity.trust.errors import ComityError

FIRST_BYTES: Final = 64 * 1024
"""A request that received less is rated as if this much had arrived; its expected rate falls while it waits."""


@dataclass(slots=True, eq=False)
class RangeRequest:
    """A run of pieces, [first, stop), requested from one source. While it runs, `at` is the current piece, begun at
    `begun` after `before` bytes; `stop` may decrease, and `active` may become False permanently: the driver must then
    end the request. Its first byte came at `answered`; since then it had the link of its host for `link_seconds`, which
    are fewer than those that passed if the host had other requests. If `skip` is not 0, the run is one piece, and
    another request is to bring that many bytes of it, from its start. `newest` is when it was last looked at, the bytes
    until then, and the bytes per second before."""

    source: SourceKey
    first: int
    stop: int
    started: float
    at: int
    received: int = 0
    active: bool = True
    before: int = 0
    skip: int = 0
    answered: float | None = None
    link_seconds: float = 0.0
    newest: tuple[float, int, float] | None = None
    begun: float = field(init=False)

    def __post_init__(self) -> None:
        self.begun = self.started

    def rate(self, now: float) -> float:
        """Bytes per second so far."""
        return self.received / max(now - self.started, 1e-6)

    def piece_rate(self, now: float) -> float:
        """Bytes per second of the current piece so far."""
        return (self.received - self.before) / max(now - self.begun, 1e-6)

    def arrived(self, piece: int) -> int:
        """Bytes of `piece`, from its start, that have arrived in this request."""
        return self.received - self.before if piece == self.at and not self.skip else 0


UNPROVEN_RATE: Final = 256 * 1024.0
"""Bytes per second expected of a source without measurements."""


@dataclass(slots=True)
class SourceHealth:
    """Measurements of a source. May be shared by the transfers of one pull.

    Attributes:
        rate: bytes per second, smoothed; None until measured.
        latency: seconds from a request to its first byte, at least; None until measured.
        failures: consecutive failures.
        turns: used turns of rule (10).
        backoff_until: the source is not asked before this time.
        bad_piece: the error if a finished transfer has proven a piece of this source bad; it is not asked any more.
        asked: number of requests.
        last_asked: time of the last request.
        refused: it gave a final negative answer, and no verified piece since.
    """

    rate: float | None = None
    latency: float | None = None
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


LEAD: Final = 1.5
"""How many times the time to its first byte a request is made before the one before it ends."""
TURN: Final = 0.05
"""Seconds for the event loop to make a request."""
RECENT: Final = 1.0
"""Seconds over which the newest rate of a request is measured, at least."""
STEADY: Final = 1.5
NEWLY: Final = 0.25
"""Seconds from the first byte of a request in which its source is expected to be as fast as before."""


class Links:
    """The links of the hosts of a transfer, each shared by the requests of its host.

    Args:
        offsets: of the pieces in the file.
        requests: those that are open; the owner changes the list.
        hosts: the host of each source.
    """

    def __init__(
        self,
        offsets: Sequence[int],
        requests: Sequence[RangeRequest],
        sources: Mapping[SourceKey, SourceHealth],
        hosts: Mapping[SourceKey, SourceKey],
    ) -> None:
        self._offsets = offsets
        self._requests = requests
        self._sources = sources
        self._hosts = hosts
        self._looked = -math.inf

    def look(self, now: float) -> None:
        """Take note of answers and of the time that has passed. Call before `requests` gets a new one."""
        for request in self._requests:
            if request.answered is not None:
                health, taken = self._sources[request.source], request.answered - request.started
                health.latency = taken if health.latency is None else min(health.latency, taken)
                request.link_seconds = self._link_seconds(request, now)
            at, received, _ = request.newest or (request.started, 0, 0.0)
            if now - at >= RECENT:
                request.newest = now, request.received, (request.received - received) / (now - at)
        self._looked = now

    def same_host(self, request: RangeRequest, source: SourceKey) -> bool:
        return self._hosts[request.source] == self._hosts[source]

    def flow(self, source: SourceKey, now: float) -> float:
        """Expected bytes per second of the requests of the host of `source` together; positive. Requests that are about
        to be answered, or were just now, say nothing yet: it is expected to be as fast as it was."""
        mine, health = self._mine(source), self._sources[source]
        seconds = sum(self._link_seconds(request, now) for request in mine)
        if health.rate is not None and health.latency is not None and seconds < NEWLY:
            return health.expected
        least = NEWLY if any(request.answered is not None for request in mine) else 1e-6
        return max(FIRST_BYTES, sum(request.received for request in mine)) / max(seconds, least)

    def steady(self, source: SourceKey, now: float) -> float:
        """Bytes per second that the requests of a host may reach. Losses make the flow of a single one vary by half
        around what is usual for the source."""
        flow = self.flow(source, now)
        return max(flow, min(self._sources[source].expected, STEADY * flow))

    def seconds_left(self, request: RangeRequest, now: float) -> float:
        """Seconds until a request is expected to end, if requests of one host share its link evenly."""
        left = self._bytes_left(request)
        before = sum(min(left, self._bytes_left(each)) for each in self._mine(request.source))
        return before / self.flow(request.source, now)

    def newest_seconds_left(self, request: RangeRequest) -> float:
        """Seconds until a request ends at the rate of its newest bytes; infinity if that is not known."""
        rate = request.newest[2] if request.newest else 0.0
        return self._bytes_left(request) / rate if rate else math.inf

    def delay(self, source: SourceKey, now: float) -> float:
        """Seconds that a new request of `source` loses: the wait for its first byte, or for other requests of its host,
        and a round trip more, because a stream is slow at first."""
        mine, latency = (
            (self.seconds_left(each, now) for each in self._mine(source)),
            self._sources[source].latency or 0.0,
        )
        return max(latency, max(mine, default=0.0)) + latency

    def lead(self, request: RangeRequest) -> float:
        """Seconds before the end of `request` at which its source should be asked for more."""
        return LEAD * (self._sources[request.source].latency or 0.0) + TURN

    def rate(self, request: RangeRequest, now: float) -> float:
        """Bytes per second of a request while it had the link of its host. The wait for its first byte counts for at
        most as long as the rest."""
        streams = len(self._mine(request.source)) or 1
        return request.received / max(self._link_seconds(request, now), (now - request.started) / 2 / streams, 1e-6)

    def _mine(self, source: SourceKey) -> list[RangeRequest]:
        return [request for request in self._requests if self.same_host(request, source)]

    def _bytes_left(self, request: RangeRequest) -> int:
        return self._offsets[request.stop] - self._offsets[request.first] - request.skip - request.received

    def _link_seconds(self, request: RangeRequest, now: float) -> float:
        """Seconds for which `request` had the link of its host, or its answer is late."""
        mine = self._mine(request.source)
        if request.answered is None:
            latency = self._sources[request.source].latency or 0.0
            return max(0.0, now - request.started - LEAD * latency) / (len(mine) or 1)
        streams = sum(each.answered is not None for each in mine) or 1
        return request.link_seconds + (now - max(self._looked, request.answered)) / streams
