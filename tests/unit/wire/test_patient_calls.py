"""Waiting where a node limits the rate of calls."""

from __future__ import annotations

import asyncio

import pytest
from comity.trust.errors import ComityError, NotFound, Refused, Unavailable
from comity.wire.asking import PAUSE, patiently, pause_of
from support.virtual_time import run


def busy(seconds: float = 0.0, code: str = "RATE") -> Refused:
    error = Refused("too many calls", code=code)
    error.retry_after = seconds
    return error


async def ask(*refusals: ComityError, patience: float = 100.0) -> float:
    """Returns the time of the answer that follows these refusals."""
    left = list(refusals)

    async def call() -> float:
        if left:
            raise left.pop(0)
        return asyncio.get_running_loop().time()

    return await patiently(call, patience)


@pytest.mark.parametrize(
    ("refusals", "expected"),
    [
        ((), 0.0),
        ((busy(0.25), busy(3.0)), 3.25),
        ((busy(),), PAUSE),
        ((busy(code="TOO-MANY-CALLS"),), PAUSE),
        ((busy(50.0), busy(50.0)), 100.0),
    ],
)
def test_a_call_is_made_again_when_the_node_allows_it(refusals: tuple[ComityError, ...], expected: float) -> None:
    assert run(ask(*refusals))[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("refusals", "seconds"),
    [
        ((busy(100.5),), 0.0),
        ((busy(60.0), busy(60.0)), 60.0),
        ((NotFound("nothing"),), 0.0),
        ((Unavailable("busy", code="RATE"),), 0.0),
        ((busy(1.0, code="NOT-PINNED"),), 0.0),
    ],
)
def test_what_is_no_limit_of_calls_or_lasts_too_long_is_raised(
    refusals: tuple[ComityError, ...], seconds: float
) -> None:
    async def failing() -> float:
        with pytest.raises(ComityError) as raised:
            await ask(*refusals)
        assert raised.value is refusals[-1]
        return asyncio.get_running_loop().time()

    assert run(failing())[0] == pytest.approx(seconds)


def test_only_limits_of_calls_have_a_pause() -> None:
    assert pause_of(busy(2.0)) == 2.0
    assert pause_of(busy()) == PAUSE
    assert pause_of(Refused("no", code="NOT-PINNED")) is None
    assert pause_of(NotFound("no", code="RATE")) is None
