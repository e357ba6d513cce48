from __future__ import annotations

from contextlib import ExitStack

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
    with pytest.raises(Refused) as caught, throttle.call(caller):
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


def test_one_caller_does_not_use_up_anothers_allowance() -> None:
    throttle, _ = made(Allowance(calls_per_second=1, burst=1))
    with throttle.call("a"):
        pass
    assert refused(throttle, "a") == "RATE"
    with throttle.call("b"):
        pass


def test_calls_at_once_are_bounded_for_each_and_for_all() -> None:
    throttle, _ = made(Allowance(at_once=2, all_at_once=3))
    with ExitStack() as calls:
        calls.enter_context(throttle.call("a"))
        calls.enter_context(throttle.call("a"))
        assert refused(throttle, "a") == "TOO-MANY-CALLS"
        calls.enter_context(throttle.call("b"))
        assert refused(throttle, "c") == "TOO-MANY-CALLS"
    with throttle.call("a"):
        pass


def test_a_call_that_fails_makes_room_too() -> None:
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


def test_idle_callers_are_forgotten_to_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MAX_CALLERS", 2)
    throttle_, clock = made(Allowance(calls_per_second=1, burst=1))
    for caller in ("a", "b"):
        with throttle_.call(caller):
            pass
    assert refused(throttle_, "c") == "RATE"
    clock.now += 2
    with throttle_.call("c"):
        pass


def test_a_running_call_is_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MAX_CALLERS", 2)
    throttle_, clock = made(Allowance(calls_per_second=1, burst=1, at_once=1))
    with throttle_.call("a"):
        with throttle_.call("b"):
            pass
        clock.now += 10
        with throttle_.call("c"):
            pass
        assert refused(throttle_, "a") == "TOO-MANY-CALLS"
