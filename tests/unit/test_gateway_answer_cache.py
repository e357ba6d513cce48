"""Answers that are worked out once for many, and that give way before they cost too much memory."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest
from comity.gateway.hub import judge
from comity.gateway.hub.judge import AnswerCache, Generations
from comity.ledger.ledger import Ledger
from comity.node.intake import LineProver
from comity.node.threads import AsyncLedger
from comity.trust.errors import NotFound
from support.case import case
from support.logs import LogKeys


class Counting:
    """Makes answers of a size, and counts how often."""

    def __init__(self) -> None:
        self.generation = 1
        self.made: list[str] = []
        self.gate = asyncio.Event()

    async def now(self) -> int:
        return self.generation

    async def make(self, key: str) -> str:
        self.made.append(key)
        await self.gate.wait()
        return key


@pytest.fixture
def counting() -> Counting:
    return Counting()


async def test_an_answer_is_made_once_for_all_who_wait_and_survives_the_first_of_them(counting: Counting) -> None:
    cache: AnswerCache[str, str] = AnswerCache(counting.now, 100)
    waiting = [asyncio.create_task(cache.get("a", lambda: counting.make("a"))) for _ in range(20)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    counting.gate.set()
    assert await asyncio.gather(*waiting[1:]) == ["a"] * 19
    assert waiting[0].cancelled()
    assert counting.made == ["a"]


async def test_an_answer_is_made_again_when_the_ledger_has_changed(counting: Counting) -> None:
    counting.gate.set()
    cache: AnswerCache[str, str] = AnswerCache(counting.now, 100)
    for generation in (1, 1, 2, 2):
        counting.generation = generation
        await cache.get("a", lambda: counting.make("a"))
    assert counting.made == ["a", "a"]


async def test_a_failure_is_an_answer_and_is_not_asked_for_again(counting: Counting) -> None:
    async def fail() -> str:
        counting.made.append("failed")
        raise NotFound("nothing")

    cache: AnswerCache[str, str] = AnswerCache(counting.now, 100)
    for _ in range(3):
        with pytest.raises(NotFound):
            await cache.get("a", fail)
    assert counting.made == ["failed"]


async def test_what_weighs_too_much_together_gives_way_in_the_order_of_use(counting: Counting) -> None:
    counting.gate.set()
    cache: AnswerCache[str, str] = AnswerCache(counting.now, 5, len)
    for key in ("aa", "bb", "aa", "cc"):
        await cache.get(key, partial(counting.make, key))
        await asyncio.sleep(0)
    assert counting.made == ["aa", "bb", "cc"]
    await cache.get("aa", lambda: counting.make("aa"))
    assert counting.made == ["aa", "bb", "cc"]
    await cache.get("bb", lambda: counting.make("bb"))
    assert counting.made == ["aa", "bb", "cc", "bb"]


async def test_closing_ends_what_is_still_being_made(counting: Counting) -> None:
    cache: AnswerCache[str, str] = AnswerCache(counting.now, 5)
    waiting = asyncio.create_task(cache.get("a", lambda: counting.make("a")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_statement_that_is_proven_after_its_log_was_mirrored_makes_answers_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "CHECK_INTERVAL", 0)
    ledger, log = AsyncLedger(Ledger.open(tmp_path, lambda: 1_000)), LogKeys.generate("one.example/log")
    ledger.tables.logs.create(log.origin, log.vkey)
    generations = Generations(ledger)
    begun = await generations.now()
    assert await generations.now() == begun
    lines = case().claims
    ledger.tables.logs.advance(log.vkey, 0, lines, log.note_over(lines))
    mirrored = await generations.now()
    LineProver(ledger.tables, lambda who: []).finish_all()
    assert begun < mirrored < await generations.now()
    ledger.close()
