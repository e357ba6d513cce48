"""The rules of comity.transfer.scheduler, one by one, with a clock that the test sets."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from comity.transfer.limits import FASTER, TransferLimits
from comity.transfer.links import UNPROVEN_RATE, RangeRequest, SourceHealth
from comity.transfer.pieces import PieceRuns, WantedFile
from comity.transfer.scheduler import MAX_FAULTS, TRIALS, WINDOW, Schedule
from comity.transfer.sources import SourceKey
from comity.trust.artifact import PIECE_SIZE, PieceRecord
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound, Unavailable, Untrusted
from hypothesis import given
from hypothesis import strategies as st

MIB = 1 << 20
SILENT = Unavailable("silent")
FAST = 100.0 * MIB


def key(name: str) -> SourceKey:
    return SourceKey("test", name)


def schedule(pieces: int, limits: TransferLimits | None = None, **rates: float | None) -> Schedule:
    offsets = [at * MIB for at in range(pieces + 1)]
    health = {key(name): SourceHealth(rate=rate) for name, rate in rates.items()}
    return Schedule(offsets, range(pieces), health, limits or TransferLimits())


def deliver(plan: Schedule, request: RangeRequest, now: float) -> None:
    """The rest of the request arrives, with correct bytes."""
    for piece in range(request.at, request.stop):
        assert plan.begin(request, piece, now)
        request.received += MIB
        assert plan.verified(request, piece, now)
    plan.ended(request)


def test_an_unknown_source_is_asked_for_one_piece_first() -> None:
    [first, second] = schedule(10, a=None).assign(0.0)
    assert (first.first, first.stop) == (0, 1)
    assert (second.first, second.stop) == (1, 2), "its last piece is in flight: the next request follows immediately"


def test_a_known_source_is_asked_for_some_seconds_at_its_rate() -> None:
    [request] = schedule(100, TransferLimits(run_seconds=2.0), a=20.0 * MIB).assign(0.0)
    assert (request.first, request.stop) == (0, 40)


def test_no_request_is_longer_than_the_limit() -> None:
    [request] = schedule(100, TransferLimits(run_bytes=8 * MIB), a=FAST).assign(0.0)
    assert request.stop == 8


def test_the_rest_is_shared_where_several_sources_are_up() -> None:
    requests = schedule(16, a=FAST, b=FAST).assign(0.0)
    assert [(r.source.value, r.first, r.stop) for r in requests] == [("a", 0, 4), ("b", 4, 7)]


def test_the_second_request_is_made_at_the_last_piece_of_the_first() -> None:
    plan = schedule(100, TransferLimits(run_seconds=1.0), a=3.0 * MIB)
    [request] = plan.assign(0.0)
    plan.begin(request, 1, 0.0)
    assert plan.assign(0.0) == []
    plan.begin(request, 2, 0.0)
    assert [r.first for r in plan.assign(0.0)] == [3]


def test_a_source_faster_than_a_thread_has_two_requests_at_any_time() -> None:
    plan = schedule(100, TransferLimits(run_bytes=8 * MIB, fast=FAST), a=FAST + 1)
    first, second = plan.assign(0.0)
    assert [(r.first, r.stop) for r in (first, second)] == [(0, 8), (8, 16)]
    plan.begin(second, 15, 0.0)
    assert plan.assign(0.0) == []
    plan.ended(first)
    assert [r.first for r in plan.assign(0.0)] == [0]


def test_two_requests_of_a_fast_source_share_the_remaining_pieces() -> None:
    requests = schedule(16, TransferLimits(fast=FAST), a=FAST + 1).assign(0.0)
    assert [(r.first, r.stop) for r in requests] == [(0, 8), (8, 12)]


@pytest.mark.parametrize("fast", [FAST, math.inf])
def test_a_source_that_is_not_faster_than_the_limit_has_one_request(fast: float) -> None:
    [request] = schedule(16, TransferLimits(fast=fast), a=FAST).assign(0.0)
    assert (request.first, request.stop) == (0, 16)


def test_a_fast_source_leaves_a_stream_to_each_host_that_has_none() -> None:
    plan = schedule(1000, TransferLimits(streams=2, fast=MIB), a=FAST, b=FAST)
    assert [request.source for request in plan.assign(0.0)] == [key("a"), key("b")]


def test_pieces_that_a_failed_request_did_not_bring_are_wanted_again() -> None:
    plan = schedule(8, a=FAST, b=FAST)
    a, _ = plan.assign(0.0)
    assert (a.first, a.stop) == (0, 2)
    plan.begin(a, 1, 1.0)
    plan.verified(a, 0, 1.0)
    plan.failed(a, SILENT, 3.0, 0.0)
    again = plan.assign(10.0)[0]
    assert again.first == 1


def test_a_source_that_failed_pauses_longer_each_time_and_is_never_dropped() -> None:
    plan = schedule(1, a=None)
    now, pauses = 0.0, []
    for _ in range(9):
        [request] = plan.assign(now)
        plan.failed(request, SILENT, now, jitter=1.0)
        assert plan.assign(now) == []
        pause = plan.next_wake(now)
        assert pause is not None
        pauses.append(pause)
        now += pause
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert not plan.dropped and not plan.exhausted


def test_jitter_shortens_a_pause_by_up_to_half() -> None:
    plan = schedule(1, a=None)
    [request] = plan.assign(0.0)
    plan.failed(request, SILENT, 0.0, jitter=0.0)
    assert plan.next_wake(0.0) == 0.25


def test_a_source_that_failed_is_tried_with_one_piece() -> None:
    plan = schedule(100, a=FAST)
    [request] = plan.assign(0.0)
    plan.failed(request, SILENT, 0.0, 0.0)
    again = plan.assign(10.0)[0]
    assert (again.first, again.stop) == (0, 1)


def test_a_source_that_was_never_asked_has_priority_over_one_that_failed() -> None:
    plan = schedule(1, a=None, b=None)
    [a] = plan.assign(0.0)
    plan.failed(a, SILENT, 3.0, 0.0)
    assert [r.source.value for r in plan.assign(9.0)] == ["b"]


def test_each_source_is_tried_once_before_any_is_asked_again() -> None:
    plan = schedule(9, TransferLimits(streams=1), a=None, b=None, c=FAST)
    asked = []
    for _ in range(3):
        [request] = plan.assign(0.0)
        asked.append(request.source.value)
        deliver(plan, request, 0.0)
    assert asked[:2] == ["a", "b"]


def test_a_failure_halves_the_expected_rate_of_a_source() -> None:
    assert SourceHealth(rate=8.0, failures=2).expected == 2.0


def test_an_answer_drops_the_source() -> None:
    plan = schedule(2, a=None, b=None)
    a, b = plan.assign(0.0)
    plan.refused(a, NotFound("not here"))
    deliver(plan, b, 1.0)
    assert {r.source.value for r in plan.assign(1.0)} == {"b"}
    assert list(plan.dropped) == [key("a")]


def test_a_bad_piece_drops_the_source_and_ends_its_requests() -> None:
    plan = schedule(10, a=None, b=None)
    requests = plan.assign(0.0)
    a = next(r for r in requests if r.source.value == "a")
    plan.bad(a, a.first, b"other", 1.0, 0.0)
    assert list(plan.dropped) == [key("a")]
    assert all(not r.active for r in requests if r.source.value == "a")
    assert all(r.active for r in requests if r.source.value == "b")


def test_the_last_source_is_asked_again_once_after_a_bad_piece() -> None:
    plan = schedule(1, a=None)
    [request] = plan.assign(0.0)
    plan.bad(request, 0, b"other", 0.0, 1.0)
    plan.ended(request)
    assert plan.assign(0.0) == [] and not plan.dropped
    [again] = plan.assign(0.5)
    deliver(plan, again, 1.0)
    assert plan.finished


def test_the_last_source_is_dropped_at_its_second_bad_piece() -> None:
    plan = schedule(2, a=None)
    [request, _] = plan.assign(0.0)
    plan.bad(request, 0, b"other", 0.0, 1.0)
    for request in plan.requests:
        plan.ended(request)
    again = plan.assign(9.0)[0]
    plan.bad(again, 0, b"another", 9.0, 1.0)
    for request in plan.requests:
        plan.ended(request)
    assert plan.exhausted and not plan.index_suspect


def test_requests_from_before_the_last_source_was_forgiven_do_not_count_against_it() -> None:
    plan = schedule(2, a=None)
    first, second = plan.assign(0.0)
    plan.bad(first, 0, b"other", 0.0, 1.0)
    plan.bad(second, 1, b"other", 0.0, 1.0)
    assert not plan.dropped


def test_the_same_wrong_bytes_twice_make_the_index_doubtful() -> None:
    plan = schedule(1, a=None, b=None)
    [a] = plan.assign(0.0)
    plan.bad(a, 0, b"other", 0.0, 0.0)
    plan.ended(a)
    [b] = plan.assign(0.0)
    plan.bad(b, 0, b"other", 0.0, 0.0)
    assert plan.index_suspect


def test_an_idle_source_takes_over_pieces_that_a_slower_one_has_not_begun() -> None:
    plan = schedule(12, slow=FAST, fast=FAST)
    plan._sources[key("fast")].backoff_until = 1.0
    [slow] = plan.assign(0.0)
    assert (slow.first, slow.stop) == (0, 12)
    slow.received = MIB
    [fast] = plan.assign(10.0)
    assert (fast.source.value, fast.first, fast.stop) == ("fast", 2, 12), "a thousandth of them falls to the slow one"
    assert slow.stop == 2 and slow.active
    assert plan.holders(11) == (fast,)


def test_a_slow_last_piece_is_doubled_once_and_the_first_copy_wins() -> None:
    plan = schedule(1, a=None, b=FAST, c=FAST)
    plan._sources[key("b")].backoff_until = plan._sources[key("c")].backoff_until = 1.0  # so that a is asked first
    [a] = plan.assign(0.0)
    [b] = plan.assign(1.0)
    assert plan.holders(0) == (a, b)
    assert plan.assign(2.0) == []
    deliver(plan, b, 2.0)
    assert not a.active and plan.finished
    assert not plan.verified(a, 0, 2.0), "the second copy does not count"


def test_one_of_two_very_slow_holders_gives_way_to_a_third() -> None:
    plan = schedule(1, a=None, b=None, c=FAST)
    plan._sources[key("c")].backoff_until = 10.0
    [a] = plan.assign(0.0)
    [b] = plan.assign(1.0)
    a.received, b.received = MIB // 2, 1
    [c] = plan.assign(10.0)
    assert a.active and not b.active
    assert plan.holders(0) == (a, c)


def test_the_last_piece_stays_with_a_source_that_will_be_done_as_soon() -> None:
    plan = schedule(2, a=FAST, b=FAST)
    a, b = plan.assign(0.0)
    b.received = MIB - 1
    deliver(plan, a, 0.01)
    assert plan.assign(0.01) == []


def test_a_waiting_source_displaces_the_slowest_request_when_all_streams_are_taken() -> None:
    plan = schedule(10, TransferLimits(streams=2), a=None, b=None, c=None)
    a, b = plan.assign(0.0)
    a.received, b.received = 10, MIB - 1
    assert plan.assign(1.0) == [] and a.active, "not before it had a chance"
    assert plan.assign(3.0) == [] and not a.active and b.active
    plan.ended(a)
    [c] = plan.assign(3.0)
    assert (c.source.value, c.first) == ("c", 0)


def test_a_source_that_holds_back_the_last_bytes_does_not_keep_the_piece() -> None:
    plan = schedule(1, a=FAST, b=FAST)
    [a] = plan.assign(0.0)
    a.received = MIB - 600
    assert plan.assign(1.0) == [], "it is expected immediately"
    a.received += 2
    [b] = plan.assign(3.0)
    assert plan.holders(0) == (a, b)


def test_the_source_that_used_the_fewest_turns_keeps_its_request_for_one() -> None:
    plan = schedule(10, TransferLimits(streams=2), a=None, b=None, c=FAST)
    plan._sources[key("c")].backoff_until = 1.0
    plan._sources[key("a")].turns, plan._sources[key("b")].turns = 1, 2
    a, b = plan.assign(0.0)
    a.received, b.received = 10, 20
    assert plan.assign(3.0) == [] and a.active and not b.active
    plan.ended(b)
    [c] = plan.assign(3.0)
    plan._sources[key("b")].backoff_until = 0.0
    plan._sources[key("b")].rate = FAST
    c.received = MIB - 1
    assert plan.assign(5.9) == [] and a.active
    assert plan.assign(6.0) == [] and not a.active
    assert [plan._sources[key(name)].turns for name in "abc"] == [2, 2, 0]


@pytest.mark.parametrize(
    ("delivered", "after", "used"),
    [(0, 2.9, 0), (0, 3.0, 1), (1, 3.0, 0)],
    ids=["within its grace period", "after it", "after a piece"],
)
def test_a_request_that_fails_without_a_piece_after_its_grace_period_has_used_a_turn(
    delivered: int, after: float, used: int
) -> None:
    plan = schedule(10, a=FAST)
    (request,) = plan.assign(0.0)
    for piece in range(delivered):
        assert plan.begin(request, piece, 0.0) and plan.verified(request, piece, 0.0)
        assert plan.begin(request, piece + 1, 0.0)
    plan.failed(request, SILENT, after, 0.0)
    assert plan._sources[key("a")].turns == used


def test_failures_halve_the_expected_rate_and_double_turns_and_pauses_up_to_a_limit() -> None:
    limits = TransferLimits(max_delay=1e9)
    for count, factor in ((0, 1), (3, 8), (16, 2**16), (17, 2**16), (400, 2**16)):
        health = SourceHealth(rate=1e9, failures=count, turns=count)
        assert health.expected == 1e9 / factor
        assert health.turn(limits) == 3.0 * factor
        health.back_off(0.0, 1.0, limits)
        assert health.backoff_until == 0.5 * 2 ** min(count, 16)
    assert SourceHealth(rate=1.0, failures=9).expected == 1.0


def test_the_rate_of_a_piece_is_that_of_its_own_bytes_and_time() -> None:
    (request,) = schedule(10, a=FAST).assign(1.0)
    request.begun, request.before, request.received = 5.0, 3 * MIB, 5 * MIB
    assert (request.piece_rate(9.0), request.rate(6.0)) == (MIB / 2, MIB)


def test_a_verified_piece_leaves_a_source_the_turn_that_it_needs() -> None:
    plan = schedule(2, a=None)
    plan._sources[key("a")].turns = 5
    first, second = plan.assign(0.0)
    deliver(plan, first, 10.0)
    assert plan._sources[key("a")].turn(TransferLimits()) == 12.0
    deliver(plan, second, 10.0)


def test_unverified_bytes_do_not_raise_the_rate_of_a_source() -> None:
    plan = schedule(2, a=10.0, b=FAST)
    a, _ = plan.assign(0.0)[::-1]
    a.received = MIB - 1
    plan.failed(a, SILENT, 0.1, 0.0)
    assert plan._sources[key("a")].rate == 10.0


def test_a_source_that_sent_wrong_bytes_in_an_earlier_transfer_is_not_asked() -> None:
    offsets = [0, MIB]
    plan = Schedule(
        offsets,
        [0],
        {key("a"): SourceHealth(bad_piece=Unavailable("lied")), key("b"): SourceHealth()},
        TransferLimits(),
    )
    assert [r.source.value for r in plan.assign(0.0)] == ["b"]


def two_ways(pieces: int, faster: float = FASTER, **rates: float | None) -> Schedule:
    """Two sources, `grpc` and `https`, of one host; those with a rate have been used."""
    offsets = [at * MIB for at in range(pieces + 1)]
    health = {
        key(name): SourceHealth(rate, asked=TRIALS, last_asked=0.0) if rate else SourceHealth()
        for name, rate in rates.items()
    }
    hosts = dict.fromkeys(health, key("node"))
    limits = TransferLimits(faster=faster)
    return Schedule(offsets, range(pieces), health, limits, hosts, cheaper=[key("https")])


def asked(plan: Schedule, now: float, rates: dict[str, float]) -> list[str]:
    """The sources of the next requests, each delivered at its way's rate before the next one is made."""
    names = []
    for request in plan.assign(now):
        names.append(request.source.value)
        deliver(plan, request, now + (request.stop - request.first) * MIB / rates[request.source.value])
    return names


def test_each_way_to_a_host_is_tried_twice_and_then_the_faster_one_is_asked() -> None:
    plan, rates = two_ways(100_000, grpc=None, https=None), {"grpc": 10.0 * MIB, "https": 30.0 * MIB}
    order = [name for now in range(10) for name in asked(plan, float(now), rates)]
    assert sorted(order[:4]) == ["grpc", "grpc", "https", "https"]
    assert set(order[4:]) == {"https"}


@pytest.mark.parametrize(("grpc", "taken"), [(0.5, "https"), (1.4, "https"), (1.6, "grpc")])
def test_the_cheaper_way_is_asked_unless_the_other_is_half_as_fast_again(grpc: float, taken: str) -> None:
    rates = {"grpc": grpc * FAST, "https": FAST}
    plan = two_ways(100_000, **rates)
    assert {name for now in range(10) for name in asked(plan, float(now), rates)} == {taken}


@pytest.mark.parametrize(("grpc", "taken"), [(3.9, "https"), (4.1, "grpc")])
def test_a_transfer_may_keep_to_the_cheaper_way_for_longer(grpc: float, taken: str) -> None:
    rates = {"grpc": grpc * FAST, "https": FAST}
    plan = two_ways(100_000, faster=4.0, **rates)
    assert {name for now in range(10) for name in asked(plan, float(now), rates)} == {taken}


def test_a_cheaper_way_that_is_limited_by_this_machine_is_the_only_one() -> None:
    """The rate of a single piece, beside a request by the other way, is no reason to change."""
    https, grpc = 1.1 * TransferLimits().fast, 3.0 * TransferLimits().fast
    plan, rates = two_ways(1_000_000, grpc=grpc, https=https), {"grpc": grpc, "https": https}
    assert {name for now in range(0, 100, 10) for name in asked(plan, float(now), rates)} == {"https"}


def test_the_cheaper_way_to_a_host_is_tried_first() -> None:
    request, *_ = two_ways(100, grpc=None, https=None).assign(0.0)
    assert request.source == key("https")


@pytest.mark.parametrize(
    ("latency", "failures", "taken"), [(0.15, 0, {"https"}), (0.03, 0, {"grpc"}), (0.15, 1, {"grpc"})]
)
def test_the_cheaper_way_to_a_host_that_is_far_is_the_only_one_while_it_works(
    latency: float, failures: int, taken: set[str]
) -> None:
    """It has several connections there, and losses bound the rate of the one that the other has."""
    rates = {"grpc": FAST, "https": FAST / 10}
    plan = two_ways(1_000_000, **rates)
    plan._sources[key("https")].latency, plan._sources[key("https")].failures = latency, failures
    assert {name for now in range(0, 20, 5) for name in asked(plan, float(now), rates)} == taken


def test_the_other_way_is_tried_again_now_and_then_since_links_change() -> None:
    plan, rates = two_ways(100_000, grpc=None, https=None), {"grpc": 10.0 * MIB, "https": 30.0 * MIB}
    for now in range(10):
        asked(plan, float(now), rates)
    assert "grpc" in asked(plan, 60.0, rates)
    assert "grpc" not in asked(plan, 61.0, rates)


def test_a_host_with_two_ways_gets_no_more_requests() -> None:
    plan = two_ways(100, grpc=FAST, https=FAST)
    assert len(plan.assign(0.0)) == 1
    assert plan.assign(1.0) == []


def test_a_pausing_way_leaves_the_host_to_the_other() -> None:
    plan = two_ways(100, grpc=10.0 * MIB, https=FAST)
    [request] = plan.assign(0.0)
    plan.failed(request, SILENT, 3.0, 1.0)
    [again] = plan.assign(3.0)
    assert {request.source.value, again.source.value} == {"grpc", "https"}


def test_wrong_bytes_on_one_way_drop_that_way_and_not_the_host() -> None:
    plan = two_ways(100, grpc=FAST, https=FAST)
    [request] = plan.assign(0.0)
    plan.bad(request, request.first, b"wrong", 1.0, 0.0)
    plan.ended(request)
    assert set(plan.dropped) == {request.source}
    [again] = plan.assign(1.0)
    assert again.source != request.source


def test_a_hosts_second_way_does_not_double_its_pieces() -> None:
    plan = two_ways(1, grpc=FAST, https=FAST)
    [request] = plan.assign(0.0)
    assert plan.assign(2.9) == []
    plan.failed(request, SILENT, 3.0, 1.0)
    assert len(plan.assign(3.0)) == 1


def watched(pieces: int, awaited: list[int], **rates: float) -> Schedule:
    offsets = [at * MIB for at in range(pieces + 1)]
    health = {key(name): SourceHealth(rate=rate) for name, rate in rates.items()}
    return Schedule(offsets, range(pieces), health, TransferLimits(run_seconds=1.0), awaited=lambda: awaited)


def test_pieces_that_a_reader_waits_for_are_requested_first() -> None:
    plan = watched(100, [70, 90], a=10.0 * MIB, b=5.0 * MIB, c=10.0 * MIB)
    assert sorted(r.first for r in plan.assign(0.0)) == [0, 70, 90]


def test_while_a_reader_waits_a_slow_source_loses_its_piece_to_one_that_got_far_ahead() -> None:
    begun = [request.first for request in _beside_a_slow_one([0])]
    assert begun[-1] == 0, "the fast one has nothing else to do"
    assert max(begun) * MIB <= WINDOW


def test_without_a_reader_no_request_is_displaced_for_the_first_pieces() -> None:
    assert max(request.first for request in _beside_a_slow_one([])) * MIB > WINDOW


def _beside_a_slow_one(awaited: list[int]) -> list[RangeRequest]:
    """The pieces that a fast source is asked for, one after the other, while a slow one has the first one."""
    health = {key("slow"): SourceHealth(rate=0.01 * MIB), key("fast"): SourceHealth(rate=10.0 * MIB, backoff_until=0.5)}
    offsets = [at * MIB for at in range(1001)]
    plan = Schedule(offsets, range(1000), health, TransferLimits(run_seconds=1.0), awaited=lambda: awaited)
    assert [(request.source.value, request.first) for request in plan.assign(0.0)] == [("slow", 0)]
    begun: list[RangeRequest] = []
    for second in range(1, 12):
        for request in [request for request in plan.assign(second) if request.source.value == "fast"]:
            begun.append(request)
            if request.first == 0:
                return begun
            deliver(plan, request, second + (request.stop - request.first) / 10)
    return begun


def records(*lengths: int) -> list[PieceRecord]:
    return [PieceRecord(length, b"p" * 32) for length in lengths]


def test_a_file_is_cut_where_its_records_say() -> None:
    wanted = WantedFile(sha256(b"file"), PIECE_SIZE + 8, records(PIECE_SIZE, 7, 1))
    assert list(wanted.offsets) == [0, PIECE_SIZE, PIECE_SIZE + 7, PIECE_SIZE + 8]
    places = (0, PIECE_SIZE - 1, PIECE_SIZE, PIECE_SIZE + 6, PIECE_SIZE + 7)
    assert [wanted.at(offset) for offset in places] == [0, 0, 1, 1, 2]
    assert wanted.span(1) == (PIECE_SIZE, 7)
    assert list(WantedFile(sha256(b""), 0, []).offsets) == [0]


@pytest.mark.parametrize(
    ("size", "lengths"),
    [(7, (8,)), (9, (8,)), (1, ()), (8, (8, 0)), (8, (0, 8)), (PIECE_SIZE + 1, (PIECE_SIZE + 1,)), (4, (8, -4))],
)
def test_records_that_do_not_tile_the_file_are_refused(size: int, lengths: tuple[int, ...]) -> None:
    with pytest.raises(Untrusted) as caught:
        WantedFile(sha256(b"file"), size, [Record(length) for length in lengths])  # type: ignore[misc]
    assert caught.value.code == "PIECE-INDEX"


@dataclass(frozen=True)
class Record:
    """A piece record of any length: those of the product refuse some of these."""

    length: int


@pytest.mark.parametrize(("streams", "buffers", "fits"), [(1, 2, True), (0, 2, False), (2, 2, False), (3, 2, False)])
def test_streams_are_fewer_than_buffers(streams: int, buffers: int, fits: bool) -> None:
    if fits:
        assert TransferLimits(streams=streams, buffers=buffers).streams == streams
    else:
        with pytest.raises(ValueError, match="less than buffers"):
            TransferLimits(streams=streams, buffers=buffers)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.integers(1, 5)), max_size=40))
def test_runs_of_pieces_are_a_set_of_pieces(steps: list[tuple[bool, int, int]]) -> None:
    runs, pieces = PieceRuns(), set[int]()
    for add, piece, most in steps:
        if add:
            runs.add(piece)
            pieces.add(piece)
        elif piece in pieces:
            taken = runs.take(most, piece)
            end = next(at for at in range(piece, piece + most + 1) if at == piece + most or at not in pieces)
            assert taken == range(piece, end)
            pieces -= set(taken)
        assert len(runs) == len(pieces) and [at for at in range(14) if at in runs] == sorted(pieces)
        assert not pieces or runs.first == min(pieces)
        neighbours = [(a, b) for a, b in zip(runs._stops, runs._starts[1:], strict=False) if a >= b]
        assert not neighbours, "runs that touch are one run"


def test_a_rate_is_smoothed_and_a_source_that_failed_is_not_untried() -> None:
    health = SourceHealth()
    assert health.untried
    health.learn(10.0)
    health.learn(20.0)
    assert health.rate == pytest.approx(13.0) and not health.untried
    assert not SourceHealth(failures=1).untried


def test_only_a_transfer_without_sources_and_requests_is_exhausted() -> None:
    plan = schedule(2, TransferLimits(streams=2), a=None, b=None)
    a, b = plan.assign(0.0)
    plan.refused(a, NotFound("not here"))
    plan.bad(b, b.first, b"other", 0.0, 1.0)
    plan._drop(key("b"), SILENT)
    assert not plan.exhausted, "a request is open"
    plan.ended(b)
    assert plan.exhausted
    done = schedule(1, a=None)
    [request] = done.assign(0.0)
    deliver(done, request, 1.0)
    done._drop(key("a"), SILENT)
    assert not done.exhausted, "nothing is missing"


def test_different_wrong_bytes_beside_the_same_ones_still_make_the_index_doubtful() -> None:
    plan = schedule(1, a=None, b=None, c=None)
    for got in (b"one", b"other", b"other"):
        [request] = plan.assign(0.0)
        plan.bad(request, 0, got, 0.0, 0.0)
        plan.ended(request)
    assert plan.index_suspect


def test_the_next_wake_is_that_of_the_source_with_the_shortest_pause() -> None:
    plan = schedule(4, a=None, b=None, c=None)
    for name, until in (("a", 5.0), ("b", 3.0), ("c", 1.0)):
        plan._sources[key(name)].backoff_until = until
    assert plan.next_wake(1.0) == 2.0
    assert plan.next_wake(4.0) == 1.0
    assert plan.next_wake(5.0) is None


def test_a_request_that_was_ended_for_others_gets_no_further_piece() -> None:
    plan = schedule(12, a=FAST)
    [request] = plan.assign(0.0)
    assert plan.begin(request, 0, 0.0) and request.stop == 12
    plan._drop(key("a"), SILENT)
    assert not request.active and not plan.begin(request, 1, 0.0)
    plan.ended(request)
    assert not request.active and plan.requests == ()


def test_errors_of_a_source_are_kept_each_once_and_not_without_end() -> None:
    plan = schedule(1, a=None, b=None)
    now = 0.0
    for number in range(2 * MAX_FAULTS):
        for _ in range(2):
            request = plan.assign(now)[0]
            plan.failed(request, Unavailable(f"silent {number}"), now, 0.0)
            now += 1000.0
    errors = [plan.faults[name] for name in plan.faults]
    assert all(1 <= len(listed) == len(set(listed)) <= MAX_FAULTS for listed in errors)
    assert max(map(len, errors)) == MAX_FAULTS
    refusing = schedule(1, a=None)
    [request] = refusing.assign(0.0)
    refusing.refused(request, NotFound("not here"))
    assert refusing.faults == {key("a"): ["not here"]}
    lying = schedule(1, a=None, b=None)
    [request] = lying.assign(0.0)
    lying.bad(request, 0, b"other", 0.0, 0.0)
    assert "piece 0 does not match its hash" in lying.faults[key("a")][0]


def test_a_failed_request_counts_for_the_rate_by_its_received_bytes() -> None:
    plan = schedule(8, a=FAST)
    request = plan.assign(0.0)[0]
    request.received = 8 * MIB
    plan.failed(request, SILENT, 2.0, 0.0)
    assert plan._sources[key("a")].rate == pytest.approx(0.7 * FAST + 0.3 * 4.0 * MIB)
    untaught = schedule(8, a=None)
    untaught.failed(untaught.assign(0.0)[0], SILENT, 2.0, 0.0)
    assert untaught._sources[key("a")].rate is None


def test_a_request_to_end_is_looked_for_once_however_many_sources_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    sources: dict[str, float | None] = {f"s{number}": FAST for number in range(100)}
    plan = schedule(500, None, **sources)
    for request in plan.assign(0.0):
        plan.begin(request, request.at, 0.0)
    looked, preemptible = list[float](), Schedule._preemptible

    def noted(plan: Schedule, requests: Iterable[RangeRequest], now: float) -> list[RangeRequest]:
        looked.append(now)
        return preemptible(plan, requests, now)

    monkeypatch.setattr(Schedule, "_preemptible", noted)
    assert plan.assign(1.0) == []
    assert plan.unserved
    assert looked == [1.0]


def test_requests_that_fail_together_are_one_failure() -> None:
    plan = schedule(8, a=None)
    for request in plan.assign(0.0):
        plan.failed(request, SILENT, 0.0, 0.0)
    assert plan._sources[key("a")].failures == 1


def test_the_rate_of_a_source_is_that_of_all_its_requests_together() -> None:
    plan = schedule(8, a=None)
    first, _ = plan.assign(0.0)
    plan.begin(first, 0, 0.0)
    first.received = MIB
    plan.verified(first, 0, 1.0)
    assert plan._sources[key("a")].rate == 2.0 * MIB


def test_a_duplicate_request_that_loses_counts_for_the_rate_too() -> None:
    plan = schedule(1, a=None, b=FAST)
    plan._sources[key("b")].backoff_until = 1.0
    [a] = plan.assign(0.0)
    [b] = plan.assign(1.0)
    a.received = MIB // 2
    deliver(plan, b, 2.0)
    assert plan._sources[key("a")].rate == MIB / 4 and not a.active


def test_a_second_request_leaves_a_stream_to_each_host_that_has_none() -> None:
    plan = schedule(1000, TransferLimits(streams=2), a=FAST, b=FAST)
    plan._sources[key("b")].backoff_until = 1.0
    [a] = plan.assign(0.0)
    plan.begin(a, a.stop - 1, 0.0)
    assert plan.assign(0.5) == []
    assert [request.source for request in plan.assign(1.0)] == [key("b")]
    alone = schedule(1000, TransferLimits(streams=2), a=FAST)
    [a] = alone.assign(0.0)
    alone.begin(a, a.stop - 1, 0.0)
    assert [request.source for request in alone.assign(0.5)] == [key("a")]
    tight = schedule(1000, TransferLimits(streams=1, buffers=2), a=FAST)
    [a] = tight.assign(0.0)
    tight.begin(a, a.stop - 1, 0.0)
    assert tight.assign(0.5) == []


def test_a_displaced_source_pauses_for_two_timeouts() -> None:
    limits = TransferLimits(streams=1, buffers=2, read_timeout=3.0)
    plan = schedule(4, limits, slow=None, fast=FAST)
    [slow] = plan.assign(0.0)
    slow.received = MIB
    for now, displaced in ((2.0, False), (3.0, True)):
        assert plan.assign(now) == []
        assert slow.active != displaced
    assert plan._sources[key("slow")].backoff_until == 9.0
    assert plan._sources[key("slow")].rate == UNPROVEN_RATE, "unverified bytes never raise it"


@pytest.mark.parametrize(
    ("rate", "displaced"), [(1.0 * MIB, False), (2.0 * MIB, False), (2.1 * MIB, True), (None, True)]
)
def test_a_request_gives_way_to_an_untried_source_or_one_twice_as_fast(rate: float | None, displaced: bool) -> None:
    plan = schedule(40, TransferLimits(streams=1, buffers=2), slow=FAST, other=rate)
    plan._sources[key("other")].backoff_until = 1.0
    [slow] = plan.assign(0.0)
    slow.received = 4 * MIB
    plan._sources[key("slow")].rate = MIB
    assert plan.assign(4.0) == []
    assert slow.active != displaced


def test_one_request_gives_way_at_a_time() -> None:
    plan = schedule(80, TransferLimits(streams=2, buffers=3), a=FAST, b=FAST, c=None, d=None)
    for name in ("c", "d"):
        plan._sources[key(name)].backoff_until = 1.0
    first, second = plan.assign(0.0)
    first.received, second.received = 2 * MIB, MIB
    assert plan.assign(5.0) == [] and plan.assign(5.5) == []
    assert (first.active, second.active) == (True, False), "the slower one"


def test_pieces_that_readers_no_longer_need_hold_up_nothing() -> None:
    offsets = [at * 4 * MIB for at in range(41)]
    delivered = 0
    waiting: list[int] = [delivered, 1]
    plan = Schedule(
        offsets, range(2, 40), {key("a"): SourceHealth(rate=1.0)}, TransferLimits(), awaited=lambda: waiting
    )
    assert plan._next_piece() == 2, "the pieces that readers wait for are here already"
    plan = Schedule(offsets, range(40), {key("a"): SourceHealth(rate=1.0)}, TransferLimits(), awaited=lambda: [0, 30])
    plan._todo.take(17, 0)
    plan._holders[0] = []
    assert plan._next_piece() == 30
    plan._todo.take(1, 30)
    plan._holders[30] = []
    assert plan._next_piece() is None, "more than the window after the first piece that a reader waits for"
    exact = Schedule(offsets, range(16, 40), {key("a"): SourceHealth()}, TransferLimits(), awaited=lambda: [0])
    exact._holders[0] = []
    assert exact._next_piece() == 16, "exactly the window"


def test_a_schedule_says_whether_a_source_waits_for_a_piece_that_another_holds() -> None:
    """If the driver woke for every piece, that would cost a transfer of thousands of pieces more than their hashes."""
    alone = schedule(100, a=FAST)
    alone.assign(0.0)
    assert not alone.unserved, "its only source has a run of pieces"
    waiting = schedule(1, a=FAST, b=FAST)
    waiting.assign(0.0)
    assert waiting.unserved, "the second source has no piece to take, and may take over the only one later"


def test_a_source_with_too_many_calls_is_asked_again_after_the_time_that_it_names_as_before() -> None:
    plan = schedule(4, TransferLimits(max_delay=30.0, run_bytes=MIB), a=FAST)
    [request, second] = plan.assign(0.0)
    plan.paused(request, 2.0, 10.0)
    plan.paused(second, 500.0, 10.0)
    assert plan.assign(39.9) == []
    assert plan.next_wake(39.0) == pytest.approx(1.0), "no longer than `max_delay`"
    [again, *_] = plan.assign(40.0)
    assert (again.first, plan.dropped, plan.faults) == (0, {}, {})
    assert plan._sources[key("a")].expected == FAST
