"""The schedule with simulated sources of any kind: one honest source is enough, though others lie, stall or send
slowly.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field

import pytest
from comity.transfer.limits import TransferLimits
from comity.transfer.links import RangeRequest, SourceHealth
from comity.transfer.pieces import PieceRuns
from comity.transfer.scheduler import Schedule
from comity.transfer.sources import SourceKey
from comity.trust.errors import NotFound, Unavailable
from hypothesis import example, given
from hypothesis import strategies as st

MIB = 1 << 20
TICK = 0.25
STEPS = 20_000
LIMITS = TransferLimits(streams=4, buffers=6, run_bytes=32 * MIB, fast=2.0 * MIB)
KINDS = ("honest", "liar", "silent", "flaky", "dripping", "teasing", "breaking", "absent")
TEASED = 600
"""Bytes of each piece that a teasing source sends slowly, one a second, after the rest at its rate."""
GENUINE = 2
"""Pieces that a teasing source delivers at its rate first, so that its rate is measured."""


@dataclass
class World:
    """A simulation: sources of given kinds and rates, a clock, and the promises of the schedule, checked after each
    step.
    """

    lengths: list[int]
    kinds: dict[SourceKey, str]
    rates: dict[SourceKey, float]
    now: float = 0.0
    done: set[int] = field(default_factory=set)
    steps: int = 0

    def __post_init__(self) -> None:
        offsets = list(itertools.accumulate(self.lengths, initial=0))
        self.health = {name: SourceHealth() for name in self.kinds}
        self.plan = Schedule(offsets, range(len(self.lengths)), self.health, LIMITS)
        self.events: list[tuple[float, int, RangeRequest]] = []
        self.order = itertools.count()
        self.delivered = dict.fromkeys(self.kinds, 0)
        self.moods = {name: itertools.cycle((True, True, False)) for name in self.kinds}

    def run(self, most: int) -> None:
        while not self.plan.finished and not self.plan.exhausted and self.steps < most:
            self.steps += 1
            for request in self.plan.assign(self.now):
                assert request.source not in self.plan.dropped
                assert self.health[request.source].backoff_until <= self.now
                self.expect(request)
            self.check()
            self.end_dead()
            self.advance()

    def expect(self, request: RangeRequest) -> None:
        """Plan the end of the request's current piece, or its failure."""
        kind, seconds = self.kind(request), self.wanted(request) / self.rates[request.source]
        wait = {"silent": 3.0, "breaking": seconds / 2}.get(kind, seconds)
        if kind in ("dripping", "teasing"):
            return
        heapq.heappush(self.events, (self.now + wait, next(self.order), request))

    def kind(self, request: RangeRequest) -> str:
        kind = self.kinds[request.source]
        return "honest" if kind == "teasing" and self.delivered[request.source] < GENUINE else kind

    def wanted(self, request: RangeRequest) -> int:
        """Bytes of the current piece that the request asks for."""
        return self.lengths[request.at] - request.skip

    def flow(self) -> None:
        """The bytes of each request so far."""
        for request in self.plan.requests:
            length, seconds = self.wanted(request), self.now - request.begun
            kind, rate = self.kind(request), self.rates[request.source]
            ready = length - TEASED if kind == "teasing" else 0 if kind in ("silent", "dripping") else length
            quick = max(0, min(ready, int(rate * seconds)))
            slow = int(seconds) if kind in ("dripping", "teasing") else 0
            request.received = request.before + min(quick + slow, length - 1)

    def advance(self) -> None:
        tick = self.now + min(TICK, self.plan.next_wake(self.now) or TICK)
        if self.events and self.events[0][0] <= tick:
            self.now, _, request = heapq.heappop(self.events)
            self.flow()
            if request in self.plan.requests:
                self.happen(request)
        else:
            self.now = tick
            self.flow()

    def happen(self, request: RangeRequest) -> None:
        piece, kind = request.at, self.kind(request)
        if kind == "absent":
            self.plan.refused(request, NotFound("not here"))
        elif kind in ("silent", "breaking") or (kind == "flaky" and next(self.moods[request.source])):
            self.plan.failed(request, Unavailable("gone"), self.now, jitter=(self.steps % 10) / 10)
        else:
            request.received = request.before + self.wanted(request)
            if kind == "liar":
                self.plan.bad(request, piece, request.source.value.encode(), self.now, jitter=0.5)
            elif self.plan.verified(request, piece, self.now):
                assert piece not in self.done
                self.done.add(piece)
                self.delivered[request.source] += 1
            else:
                assert piece in self.done
            if self.plan.begin(request, piece + 1, self.now):
                self.expect(request)
            elif request.active:
                self.plan.ended(request)

    def end_dead(self) -> None:
        for request in self.plan.requests:
            if not request.active:
                self.plan.ended(request)

    def check(self) -> None:
        requests = self.plan.requests
        assert len(requests) <= LIMITS.streams
        for name in self.kinds:
            assert sum(request.source == name for request in requests) <= 2
        for piece in range(len(self.lengths)):
            holders = self.plan.holders(piece)
            assert len(holders) <= 2
            assert len({request.source for request in holders}) == len(holders)
            assert not (holders and piece in self.done)
        for request in requests:
            assert request.active == (request.active and request.source not in self.plan.dropped)


kinds = st.lists(st.sampled_from(KINDS), min_size=0, max_size=11)
lengths = st.lists(st.integers(1, 4 * MIB), min_size=1, max_size=40)
rates = st.lists(st.floats(1e5, 1e9), min_size=12, max_size=12)


@example(  # two that tease hold the last piece, one of them only its end
    others=["teasing", "dripping", "dripping", "absent", "teasing", "honest", "flaky", "silent"],
    at=0,
    good="flaky",
    lengths=[1, 1, 104_499, *[1] * 8],
    rates=[794_403_338.0, 392_210_316.0, 1e5, 1e5, 414_062_994.5, 166_933_684.6, *[1e5] * 6],
)
@given(others=kinds, at=st.integers(0, 11), good=st.sampled_from(("honest", "flaky")), lengths=lengths, rates=rates)
def test_every_piece_arrives_once_while_one_source_is_honest(
    others: list[str], at: int, good: str, lengths: list[int], rates: list[float]
) -> None:
    ordered = [*others[:at], good, *others[at:]]
    names = [SourceKey("test", f"{kind}-{number}") for number, kind in enumerate(ordered)]
    world = World(lengths, dict(zip(names, ordered, strict=True)), dict(zip(names, rates, strict=False)))
    world.run(most=STEPS)
    assert world.plan.finished
    slowest, attempts = max(lengths) / world.rates[names[ordered.index(good)]], 3 if good == "flaky" else 1
    assert world.now < 5 * (attempts * slowest * (len(lengths) + 4 * len(names)) + 12 * len(names))
    assert world.done == set(range(len(lengths)))
    assert all(world.kinds[name] in ("liar", "absent") for name in world.plan.dropped)


@pytest.mark.parametrize("good", ["honest", "flaky"])
@pytest.mark.parametrize("drips", [3, 4, 8, 11, 30])
def test_no_number_of_very_slow_sources_starves_a_good_one(good: str, drips: int) -> None:
    names = [SourceKey("test", f"drip-{number}") for number in range(drips)]
    kinds = {**dict.fromkeys(names, "dripping"), SourceKey("test", "good"): good}
    world = World([MIB] * 20, kinds, dict.fromkeys(kinds, 1e7))
    world.run(most=STEPS)
    assert world.plan.finished
    assert world.now < 3.0 * (drips + 10), (
        "each slow source delays it by at most the silence timeout, in simulated time"
    )


@given(sources=st.lists(st.sampled_from(("liar", "absent")), min_size=1, max_size=6), lengths=lengths)
def test_a_transfer_with_lying_sources_only_ends(sources: list[str], lengths: list[int]) -> None:
    names = [SourceKey("test", f"{kind}-{number}") for number, kind in enumerate(sources)]
    world = World(lengths, dict(zip(names, sources, strict=True)), dict.fromkeys(names, 1e7))
    world.run(most=STEPS)
    assert world.plan.exhausted
    assert not world.done


@given(st.sets(st.integers(0, 60)), st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=60))
def test_runs_are_sets_of_neighbouring_pieces(start: set[int], actions: list[tuple[bool, int]]) -> None:
    runs, model = PieceRuns(sorted(start)), set(start)
    for take, piece in actions:
        if not take:
            runs.add(piece)
            model.add(piece)
        elif model:
            begin = piece if piece in model else runs.first
            taken = runs.take(3, begin)
            assert taken.start == begin
            assert model.issuperset(taken)
            assert len(taken) == 3 or taken.stop not in model
            model -= set(taken)
        assert len(runs) == len(model)
        assert not model or runs.first == min(model)
        assert all((piece in runs) == (piece in model) for piece in range(61))
