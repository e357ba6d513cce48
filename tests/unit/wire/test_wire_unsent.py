"""The budget of bytes that callers of a port have not received."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from comity.trust.errors import Refused
from comity.wire import limits, unsent
from comity.wire.unsent import IDLE_LIMIT, AdmittedCall, CallBytes, UnsentBytes


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Port:
    """A budget of 100 bytes, and the names of the calls that were ended, in order."""

    clock: Clock = field(default_factory=Clock)
    ended: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bytes = UnsentBytes(100, self.clock)

    def call(self, name: str) -> AdmittedCall:
        """A call of the block that the first letter names."""
        return AdmittedCall(name[0], lambda: self.ended.append(name))


@pytest.fixture
def port() -> Port:
    return Port()


async def test_reading_ahead_takes_a_quarter_for_a_block_and_half_for_all(port: Port) -> None:
    a, b, c = (port.call(name) for name in "abc")
    assert port.bytes.spare(a, 25) and not port.bytes.spare(a, 1)
    assert not port.bytes.spare(port.call("a2"), 1)
    assert port.bytes.spare(b, 25) and not port.bytes.spare(c, 1)
    port.bytes.release(a, 10)
    assert port.bytes.spare(c, 10) and not port.ended


async def test_a_block_that_reads_nothing_gives_way_to_another_block(port: Port) -> None:
    stalled = [port.call(f"a{number}") for number in range(4)]
    for call in stalled:
        await port.bytes.reserve(call, 25)
    await port.bytes.reserve(port.call("b"), 30)
    assert port.ended == ["a0", "a1"]  # those without progress for the longest time
    assert port.bytes.used == 80


async def test_a_call_with_progress_gives_way_last(port: Port) -> None:
    slow, stalled = port.call("a-slow"), port.call("a-stalled")
    for call in (slow, stalled):
        await port.bytes.reserve(call, 50)
    port.clock.now += 1
    port.bytes.progress(slow)
    await port.bytes.reserve(port.call("b"), 10)
    assert port.ended == ["a-stalled"]


async def test_of_blocks_with_as_many_bytes_the_one_that_is_idle_gives_way(port: Port) -> None:
    for name in ("a", "b", "c", "d"):
        await port.bytes.reserve(port.call(name), 25)
        port.clock.now += 1
    await port.bytes.reserve(port.call("honest"), 25)
    assert port.ended == ["a"]


async def test_a_call_waits_for_another_one_of_its_own_block(port: Port) -> None:
    first, second = port.call("a1"), port.call("a2")
    await port.bytes.reserve(first, 100)
    waiting = asyncio.ensure_future(port.bytes.reserve(second, 10))
    await asyncio.sleep(0)
    assert not waiting.done() and not port.ended
    port.bytes.release(first, 10)
    await waiting
    assert (port.bytes.held(first), port.bytes.held(second), port.ended) == (90, 10, [])


async def test_one_release_serves_every_waiting_call_for_which_there_is_room(port: Port) -> None:
    first = port.call("a")
    await port.bytes.reserve(first, 100)
    waiting = [asyncio.ensure_future(port.bytes.reserve(port.call("a"), 10)) for _ in range(5)]
    await asyncio.sleep(0)
    port.bytes.release(first, 50)
    await asyncio.gather(*waiting)
    assert port.bytes.used == 100


async def test_a_call_of_the_own_block_ends_once_it_is_idle(port: Port) -> None:
    first, second = port.call("a1"), port.call("a2")
    await port.bytes.reserve(first, 100)
    port.clock.now += IDLE_LIMIT
    await port.bytes.reserve(second, 10)
    assert (port.ended, port.bytes.used) == (["a1"], 10)


async def test_a_call_that_waited_too_long_is_refused(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CALL_TIMEOUT", 0.01)
    await port.bytes.reserve(port.call("a1"), 100)
    with pytest.raises(Refused) as refused:
        await port.bytes.reserve(port.call("a2"), 10)
    assert refused.value.code == "TOO-MANY-CALLS"
    assert port.bytes.used == 100


async def test_a_message_is_charged_while_it_is_sent(port: Port) -> None:
    call = port.call("a")
    with port.bytes.charged(call, 40):
        assert port.bytes.used == 40
    assert port.bytes.used == 0


async def test_bytes_that_were_reserved_are_not_charged_again(port: Port) -> None:
    call = port.call("a")
    await port.bytes.reserve(call, 40)
    with port.bytes.charged(call, 30):
        assert port.bytes.used == 40
    with port.bytes.charged(call, 60):
        assert port.bytes.used == 60
    assert port.bytes.used == 40


async def test_a_message_ends_the_calls_of_the_block_with_most(port: Port) -> None:
    for number in range(4):
        await port.bytes.reserve(port.call(f"a{number}"), 25)
    with port.bytes.charged(port.call("b"), 30):
        assert port.ended == ["a0", "a1"]


async def test_a_message_of_the_block_with_most_is_refused(port: Port) -> None:
    await port.bytes.reserve(port.call("a1"), 90)
    with pytest.raises(Refused), port.bytes.charged(port.call("a2"), 30):
        pass
    assert (port.bytes.used, port.ended) == (90, [])


async def test_what_is_larger_than_the_budget_takes_all_of_it(port: Port) -> None:
    call = port.call("a")
    await port.bytes.reserve(call, 1_000)
    assert port.bytes.used == 100
    port.bytes.release(call, 1_000)
    with port.bytes.charged(call, 1_000):
        assert port.bytes.used == 100
    assert port.bytes.used == 0


async def test_an_ended_call_has_no_bytes_and_frees_none_twice(port: Port) -> None:
    call, other = port.call("a"), port.call("b")
    with port.bytes.serving(call) as held:
        assert await held.take(40, 10) == 10  # 40 are more than a quarter
        await port.bytes.reserve(other, 90)
        assert held.try_take(5) == 0
    assert port.bytes.used == 90
    port.bytes.release(call, 10)
    assert port.bytes.used == 90


async def test_a_cancelled_call_does_not_wait_any_longer(port: Port) -> None:
    first = port.call("a")
    await port.bytes.reserve(first, 100)
    gone, waiting = (asyncio.ensure_future(port.bytes.reserve(port.call("a"), 10)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    port.bytes.release(first, 10)
    await waiting
    assert port.bytes.used == 100


async def test_outside_of_a_port_there_is_room(port: Port) -> None:
    assert isinstance(unsent.unsent(), CallBytes)
    assert await unsent.unsent().take(1 << 40) == 1 << 40
