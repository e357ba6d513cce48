"""The rates and numbers of calls that the wire allows."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import pytest
from comity.trust.errors import Refused
from comity.wire import throttle
from comity.wire.throttle import Allowance, Throttle


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def made(allowance: Allowance) -> tuple[Throttle, Clock]:
    clock = Clock()
    return Throttle(allowance, clock), clock


def refused(throttle: Throttle, caller: str) -> str:
    return refused_in(throttle, caller, caller)


def refused_in(throttle: Throttle, caller: str, block: str) -> str:
    with pytest.raises(Refused) as caught, throttle.call(caller, block):
        pass
    return caught.value.code


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    throttle, clock = made(Allowance(calls_per_second=2, burst=3))
    for _ in range(3):
        with throttle.call("a"):
            pass
    assert refused(throttle, "a") == "RATE"
    clock.now += 0.5
    with throttle.call("a"):
        pass
    assert refused(throttle, "a") == "RATE"


def test_a_refusal_says_when_the_next_call_is_allowed() -> None:
    throttle, clock = made(Allowance(calls_per_second=4, burst=1))
    with throttle.call("a"):
        pass
    clock.now += 0.125
    with pytest.raises(Refused) as caught, throttle.call("a"):
        pass
    assert caught.value.retry_after == pytest.approx(0.125)


def test_one_caller_does_not_use_up_anothers_allowance() -> None:
    throttle, _ = made(Allowance(calls_per_second=1, burst=1))
    with throttle.call("a"):
        pass
    assert refused(throttle, "a") == "RATE"
    with throttle.call("b"):
        pass


def test_concurrent_calls_are_bounded_for_each_caller_and_for_all() -> None:
    throttle, _ = made(Allowance(at_once=2, all_at_once=3))
    with ExitStack() as calls:
        calls.enter_context(throttle.call("a"))
        calls.enter_context(throttle.call("a"))
        assert refused(throttle, "a") == "TOO-MANY-CALLS"
        calls.enter_context(throttle.call("b"))
        assert refused(throttle, "c") == "TOO-MANY-CALLS"
    with throttle.call("a"):
        pass


def test_the_block_with_the_most_calls_loses_one_to_a_newcomer() -> None:
    throttle, _ = made(Allowance(at_once=9, all_at_once=4))
    ended: list[str] = []
    with ExitStack() as calls:
        for caller, block in (("a", "A"), ("b", "A"), ("c", "A"), ("d", "D")):
            calls.enter_context(throttle.call(caller, block, partial(ended.append, caller)))
        calls.enter_context(throttle.call("e", "E"))
        assert ended == ["a"]
        assert refused_in(throttle, "f", "A") == "TOO-MANY-CALLS"
        assert ended == ["a"]


def test_a_call_without_progress_is_ended_before_one_with_progress() -> None:
    throttle, _ = made(Allowance(at_once=9, all_at_once=2))
    ended: list[str] = []
    with (
        throttle.call("a", "A", lambda: ended.append("a")) as first,
        throttle.call("b", "A", lambda: ended.append("b")),
    ):
        throttle.progress(first)
        with throttle.call("c", "C"):
            assert ended == ["b"]


def test_concurrent_calls_are_bounded_for_a_block() -> None:
    throttle, _ = made(Allowance(at_once=2, block_at_once=3))
    with throttle.call("a", "A"), throttle.call("b", "A"), throttle.call("c", "A"):
        assert refused_in(throttle, "d", "A") == "TOO-MANY-CALLS"
        with throttle.call("e", "E"):
            pass


def test_many_callers_of_one_block_have_the_rate_of_four() -> None:
    throttle, _ = made(Allowance(calls_per_second=1, burst=2))
    for number in range(8):
        with throttle.call(f"a{number}", "A"):
            pass
    assert refused_in(throttle, "another", "A") == "RATE"
    with throttle.call("b", "B"):
        pass


def test_a_failed_call_frees_its_slot_too() -> None:
    throttle, _ = made(Allowance(at_once=1))
    with pytest.raises(KeyError), throttle.call("a"):
        raise KeyError
    with throttle.call("a"):
        pass


def test_bytes_beyond_a_second_of_the_rate_have_to_wait() -> None:
    throttle, clock = made(Allowance(bytes_per_second=100))
    assert throttle.sent("a", 100) == 0
    assert throttle.sent("a", 50) == pytest.approx(0.5)
    clock.now += 0.5
    assert throttle.sent("a", 100) == pytest.approx(1.0)
    clock.now += 1_000
    assert throttle.sent("a", 100) == 0


def test_bytes_without_a_bound_never_wait() -> None:
    throttle, _ = made(Allowance(bytes_per_second=None))
    assert throttle.sent("a", 10**12) == 0


def test_any_number_of_strangers_never_refuses_a_known_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MAX_ACCOUNTS", 2)
    throttle_, _ = made(Allowance(calls_per_second=1, burst=1))
    for number in range(100):
        with throttle_.call(f"stranger {number}", f"block {number}"):
            pass
    with throttle_.call("a member"):
        pass


def test_a_running_call_is_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MAX_ACCOUNTS", 2)
    throttle_, clock = made(Allowance(calls_per_second=1, burst=1, at_once=1))
    with throttle_.call("a"):
        with throttle_.call("b"):
            pass
        clock.now += 10
        with throttle_.call("c"):
            pass
        assert refused(throttle_, "a") == "TOO-MANY-CALLS"
