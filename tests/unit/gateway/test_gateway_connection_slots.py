"""Slots of the gateway for requests that hold memory: who waits, who is cut off, and what is released."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from comity.gateway.http import ConnectionSlots
from comity.gateway.http_listener import ABORT
from comity.trust.errors import Unavailable


def scope(host: str, cuts: list[str]) -> dict[str, Any]:
    return {"type": "http", "client": (host, 1), ABORT: lambda: cuts.append(host)}


async def test_a_request_of_another_block_cuts_off_one_of_the_block_that_has_all_slots() -> None:
    slots, cuts = ConnectionSlots(2, "readers"), list[str]()
    first, second = slots.slot(scope("192.0.2.1", cuts)), slots.slot(scope("192.0.2.2", cuts))
    async with first, second, slots.slot(scope("198.51.100.1", cuts)):
        assert cuts == ["192.0.2.1"]


async def test_a_request_of_the_same_block_waits_for_a_slot() -> None:
    slots, cuts, order = ConnectionSlots(1, "readers"), list[str](), list[str]()

    async def second() -> None:
        async with slots.slot(scope("192.0.2.2", cuts)):
            order.append("second")

    async with slots.slot(scope("192.0.2.1", cuts)) as progress:
        waiting = asyncio.create_task(second())
        await asyncio.sleep(0)
        progress()
        order.append("first")
    await waiting
    assert (order, cuts) == (["first", "second"], [])


async def test_a_waiter_without_a_slot_is_refused_and_a_released_slot_is_free_again() -> None:
    slots, cuts = ConnectionSlots(1, "readers", wait=0.01), list[str]()
    async with slots.slot(scope("192.0.2.1", cuts)):
        with pytest.raises(Unavailable) as refused:
            async with slots.slot(scope("192.0.2.2", cuts)):
                raise AssertionError("two in one place")
        assert refused.value.code == "NODE-BUSY"
    async with slots.slot(scope("192.0.2.2", cuts)):
        assert cuts == []


async def test_a_request_that_fails_releases_its_slot() -> None:
    slots = ConnectionSlots(1, "readers", wait=0.01)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"):
            async with slots.slot(scope("192.0.2.1", [])):
                raise ValueError("broken")
