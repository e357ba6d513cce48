"""Slots that are shared fairly: one key that never releases its slots makes no other key wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from comity.node.replication.fair_queue import FairSlots
from comity.trust.errors import Unavailable


async def forever(slots: FairSlots, key: str) -> None:
    async with slots.slot(key):
        await asyncio.Event().wait()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def held(slots: FairSlots, key: str, times: int) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(forever(slots, key)) for _ in range(times)]
    await settle()
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_key_that_never_releases_its_slots_leaves_the_others_theirs() -> None:
    slots = FairSlots(4, per_key=2, max_per_key=100)
    async with held(slots, "slow", 50):
        for _ in range(20):
            async with asyncio.timeout(5), slots.slot("honest"), slots.slot("honest"):
                pass


async def test_a_waiter_that_is_cancelled_leaves_the_slot_to_the_next_one() -> None:
    slots = FairSlots(1, per_key=1, max_per_key=100)
    async with held(slots, "a", 1) as [holder], held(slots, "b", 2) as [first, second]:
        first.cancel()
        await settle()
        holder.cancel()
        await settle()  # now `second` has it
        second.cancel()
        await settle()
        async with asyncio.timeout(5), slots.slot("c"):
            pass


async def test_calls_beyond_the_bound_are_refused() -> None:
    slots = FairSlots(1, per_key=1, max_per_key=3)
    async with held(slots, "a", 4):
        with pytest.raises(Unavailable) as refused:
            async with slots.slot("a"):
                pass
        assert refused.value.code == "BUSY"


async def test_cancelled_calls_leave_their_places_to_others() -> None:
    slots = FairSlots(1, per_key=1, max_per_key=3)
    async with held(slots, "a", 1) as [holder]:
        for _ in range(3):
            async with held(slots, "a", 3):
                pass
        async with held(slots, "a", 3) as waiting:
            assert not any(task.done() for task in waiting)
            holder.cancel()
            await settle()
            assert not any(task.done() for task in waiting)
    async with asyncio.timeout(5), slots.slot("b"):
        pass
