"""Loops that continue after failures and end with the node; names that are processed one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from comity.node.metrics import Metrics
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import NameLocks
from comity.trust.errors import Unavailable

SOON = LoopTiming(interval=0.001, deadline=5, max_delay=0.002)
NEVER = LoopTiming(interval=3600, deadline=3600)


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    made = Supervisor(Metrics())
    yield made
    await made.stop()


@pytest.mark.parametrize("failure", (Unavailable("not now"), ZeroDivisionError("a fault of ours"), TimeoutError()))
async def test_a_loop_continues_after_any_failure(supervisor: Supervisor, failure: Exception) -> None:
    steps = 0
    done = asyncio.Event()

    async def step() -> None:
        nonlocal steps
        steps += 1
        if steps < 3:
            raise failure
        done.set()

    supervisor.loop("unlucky", step, SOON)
    async with asyncio.timeout(10):
        await done.wait()


async def test_a_loop_continues_after_a_cancellation_of_what_it_awaited(supervisor: Supervisor) -> None:
    steps = 0
    done = asyncio.Event()

    async def step() -> None:
        nonlocal steps
        steps += 1
        if steps < 3:
            work = asyncio.get_running_loop().create_future()
            work.cancel()
            await work
        done.set()

    supervisor.loop("unlucky", step, SOON)
    async with asyncio.timeout(10):
        await done.wait()


async def test_a_step_that_takes_too_long_is_ended(supervisor: Supervisor) -> None:
    ended = asyncio.Event()

    async def step() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    supervisor.loop("slow", step, LoopTiming(interval=3600, deadline=0.01))
    async with asyncio.timeout(10):
        await ended.wait()


async def test_a_wake_up_starts_the_next_step_immediately(supervisor: Supervisor) -> None:
    steps: asyncio.Queue[None] = asyncio.Queue()
    supervisor.loop("patient", lambda: steps.put(None), NEVER)
    async with asyncio.timeout(10):
        await steps.get()
        supervisor.wake("patient")
        await steps.get()
    supervisor.wake("nobody")


async def test_stopping_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    supervisor = Supervisor(Metrics())
    running = asyncio.Event()

    async def step() -> None:
        running.set()
        await asyncio.sleep(3600)

    supervisor.loop("one", step, NEVER)
    supervisor.loop("one", step, NEVER)
    assert supervisor.names == ("one",)
    await running.wait()
    await supervisor.stop()
    assert asyncio.all_tasks() == before


def test_pauses_grow_up_to_a_bound() -> None:
    timing = LoopTiming(interval=1, deadline=1, max_delay=10)
    assert [timing.delay(failures) for failures in (0, 1, 2, 3, 4, 100)] == [1, 2, 4, 8, 10, 10]
    assert LoopTiming(interval=30, deadline=1, max_delay=10).delay(5) == 30


async def test_a_name_is_held_by_one_at_a_time() -> None:
    holding, inside, most = NameLocks(), 0, 0

    async def work(names: tuple[str, ...]) -> None:
        nonlocal inside, most
        async with holding.acquire(names):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(work(("a", other)) for other in "bcdefg"))
    assert most == 1
    await asyncio.gather(work(("a", "b")), work(("b", "a")))


async def test_other_names_do_not_wait() -> None:
    holding = NameLocks()
    async with holding.acquire(("a",)), asyncio.timeout(10), holding.acquire(("b",)):
        pass


async def test_a_cancelled_waiter_holds_no_name() -> None:
    holding = NameLocks()
    async with holding.acquire(("a",)):
        waiting = asyncio.create_task(holding.acquire(("a", "b")).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    async with asyncio.timeout(10), holding.acquire(("a", "b")):
        pass


async def test_a_task_cancelled_while_it_releases_a_name_leaves_no_waiter_waiting() -> None:
    holding, end = NameLocks(), asyncio.Event()

    async def work() -> None:
        async with holding.acquire(("a",)):
            await end.wait()

    first = asyncio.create_task(work())
    await asyncio.sleep(0)
    second = asyncio.create_task(holding.acquire(("a",)).__aenter__())
    await asyncio.sleep(0)
    async with holding._changed:  # as another one that has just been woken
        end.set()
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
    async with asyncio.timeout(10):
        await second
