"""What a node that ends does with transfers: it counts them, refuses new ones, and cuts those that are late."""

from __future__ import annotations

import asyncio

import pytest
from comity.trust.errors import Unavailable
from comity.wire.draining import DRAINING, Draining


async def held(draining: Draining, go_on: asyncio.Event) -> str:
    async with draining.transfer():
        await go_on.wait()
    return "ended"


async def test_running_transfers_end_and_new_ones_are_refused_with_what_to_do() -> None:
    draining, go_on = Draining("use another address"), asyncio.Event()
    running = asyncio.create_task(held(draining, go_on))
    await asyncio.sleep(0)
    draining.begin()
    with pytest.raises(Unavailable) as refused:
        async with draining.transfer():
            pass
    assert (refused.value.code, refused.value.hint) == (DRAINING, "use another address")
    assert await draining.ended(0) == 1
    ending = asyncio.create_task(draining.ended(3600))
    go_on.set()
    assert (await running, await ending) == ("ended", 0)


async def test_a_late_transfer_is_cut_with_the_reason() -> None:
    draining = Draining("use another address")
    running = asyncio.create_task(held(draining, asyncio.Event()))
    await asyncio.sleep(0)
    draining.begin()
    draining.cut()
    for _ in range(20):
        await asyncio.sleep(0)
    assert running.done(), "it is not waited for"
    with pytest.raises(Unavailable, match=r"node\.drain_seconds") as cut:
        await running
    assert (cut.value.code, cut.value.hint) == (DRAINING, "use another address")
    assert draining.running == 0


async def test_the_timeouts_of_a_transfer_stay_its_own() -> None:
    draining = Draining()
    with pytest.raises(TimeoutError):
        async with draining.transfer(), asyncio.timeout(0):
            await asyncio.sleep(3600)


async def test_bytes_that_were_not_sent_are_waited_for() -> None:
    draining, left = Draining(), [2, 1, 0]
    draining.count_unsent(lambda: left.pop(0) if left else 0)
    assert await draining.ended(3600) == 0
    assert not left
