"""Small results of reads that the event loop keeps until the ledger is written to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from comity.ledger.ledger import Ledger
from comity.node.threads import AsyncLedger
from comity.trust.errors import NotFound
from support.logs import LogKeys

LOGS = [LogKeys.generate(f"log-{number}.example/log") for number in range(2)]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[AsyncLedger]:
    made = AsyncLedger(Ledger.open(tmp_path, lambda: 1))
    yield made
    made.close()


async def test_a_read_is_repeated_only_after_the_ledger_was_written_to(ledger: AsyncLedger) -> None:
    calls: list[str] = []

    def counted(word: str) -> list[str]:
        calls.append(word)
        return [log.origin for log in ledger.tables.logs.all()]

    assert await ledger.read(counted, "a") == await ledger.read(counted, "a") == []
    assert await ledger.read(counted, "b") == []
    assert calls == ["a", "b"], "each call with its arguments, once"
    ledger.tables.logs.create(LOGS[0].origin, LOGS[0].vkey)
    assert await ledger.read(counted, "a") == [LOGS[0].origin]
    assert calls == ["a", "b", "a"]


async def test_what_a_read_raises_is_not_kept(ledger: AsyncLedger) -> None:
    for _ in range(2):
        with pytest.raises(NotFound):
            await ledger.read(ledger.tables.logs.get, LOGS[0].vkey)


async def test_a_read_that_began_before_a_write_is_not_kept_after_it(ledger: AsyncLedger) -> None:
    begun, written = Event(), Event()

    def slow() -> int:
        found = len(ledger.tables.logs.all())
        begun.set()
        written.wait(30)
        return found

    reading = asyncio.create_task(ledger.read(slow))
    await asyncio.to_thread(begun.wait, 30)
    ledger.tables.logs.create(LOGS[0].origin, LOGS[0].vkey)
    written.set()
    assert await reading == 0
    assert await ledger.read(slow) == 1
