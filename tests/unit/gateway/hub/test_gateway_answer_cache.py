"""Answers that are computed once for many requests, and are dropped before they use too much memory."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from attackers.forging import Identity, Release
from comity.gateway.hub import judge
from comity.gateway.hub.judge import AnswerCache, Generations, StatementChanges, changed_name
from comity.ledger.ledger import Ledger
from comity.node.intake import LineProver
from comity.node.members import Membership
from comity.node.threads import AsyncLedger
from comity.trust.charter.votes import adopted_statement
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, NotFound
from comity.trust.statement import parse_entry, sign_statement
from support.case import case, nodes
from support.logs import LogKeys
from support.world import found


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


async def test_an_answer_is_made_once_for_all_waiting_requests_and_survives_the_first_one(counting: Counting) -> None:
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


async def test_the_least_recently_used_answers_are_dropped_at_the_size_limit(counting: Counting) -> None:
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


async def test_the_size_of_an_answer_is_computed_once(counting: Counting) -> None:
    counting.gate.set()
    weighed: list[str] = []

    def weigh(answer: str) -> int:
        weighed.append(answer)
        return 1

    cache: AnswerCache[str, str] = AnswerCache(counting.now, 3, weigh)
    for key in ("a", "b", "c", "d", "e"):
        await cache.get(key, partial(counting.make, key))
        await asyncio.sleep(0)
    assert weighed == ["a", "b", "c", "d", "e"]
    await cache.get("b", partial(counting.make, "b"))
    assert counting.made == ["a", "b", "c", "d", "e", "b"]


async def test_closing_cancels_running_computations(counting: Counting) -> None:
    cache: AnswerCache[str, str] = AnswerCache(counting.now, 5)
    waiting = asyncio.create_task(cache.get("a", lambda: counting.make("a")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_statement_proven_after_its_log_was_mirrored_makes_answers_outdated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "CHECK_INTERVAL", 0)
    ledger, log = AsyncLedger(Ledger.open(tmp_path, lambda: 1_000)), LogKeys.generate("one.example/log")
    ledger.tables.logs.create(log.origin, log.vkey)
    generations = Generations(ledger, str)
    begun = await generations.now()
    assert await generations.now() == begun
    lines = case().claims
    ledger.tables.logs.advance(log.vkey, 0, lines, log.note_over(lines))
    mirrored = await generations.now()
    LineProver(ledger.tables, lambda who: []).finish_all()
    assert begun < mirrored < await generations.now()
    ledger.close()


NOTED, ELSEWHERE = Identity.made("noted"), Identity.made("elsewhere")
OWN = LogKeys.generate("own.example/log")


class Changing:
    """An own log, and the subjects of its new statements, read without a pause between reads."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(judge, "CHECK_INTERVAL", 0.0)
        self.ledger = Ledger.open(folder, lambda: 1_000)
        self.ledger.logs.create(OWN.origin, OWN.vkey, own=True)
        self.membership, self.policy = SimpleNamespace(body=None, node_ids=(), records_digest=""), ""
        self.changes = StatementChanges(
            AsyncLedger(self.ledger), cast(Membership, self.membership), lambda: self.policy
        )

    def say(self, *lines: bytes) -> None:
        self.ledger.logs.append(OWN.vkey, lines)


@pytest.fixture
def changing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Changing]:
    made = Changing(tmp_path, monkeypatch)
    yield made
    made.ledger.close()


async def test_a_statement_changes_its_name_its_artifact_and_its_author_and_nothing_else(changing: Changing) -> None:
    changing.say(NOTED.publish("before/it@v1", Release(b"before")))
    before = await changing.changes.now()
    line = NOTED.publish("Tests/Model@v1", Release(b"new"))
    changing.say(line)
    after = await changing.changes.now()
    artifact = parse_entry(line).statement.subject
    for subject in (changed_name("tests/model"), changed_name("hf:Tests/Model"), artifact, NOTED.id):
        assert changing.changes.changed(before, [ELSEWHERE.id, subject])
        assert not changing.changes.changed(after, [subject])
    assert not changing.changes.changed(before, [changed_name("before/it"), ELSEWHERE.id])


async def test_everything_has_changed_with_the_members_or_the_policy_and_after_many_statements(
    changing: Changing, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await changing.changes.now()
    changing.membership.node_ids = (NOTED.id,)
    second = await changing.changes.now()
    assert changing.changes.changed(first, [])
    assert not changing.changes.changed(second, ["x"])
    changing.membership.records_digest = sha256(b"another record")
    third = await changing.changes.now()
    assert changing.changes.changed(second, [])
    assert not changing.changes.changed(third, ["x"])
    changing.policy = "another policy"
    fourth = await changing.changes.now()
    assert changing.changes.changed(third, [])
    assert not changing.changes.changed(fourth, ["x"])
    monkeypatch.setattr(judge, "MAX_READ", 3)
    changing.say(*(NOTED.publish(f"a/b{number}@v1", Release(b"%d" % number)) for number in range(4)))
    await changing.changes.now()
    assert changing.changes.changed(second, [])


async def test_what_a_member_logs_about_itself_changes_no_answer_about_an_artifact(changing: Changing) -> None:
    """One line a second would have every answer made again."""
    node = nodes(1)[0]
    body = found(nodes()).chain[0]
    changing.say(NOTED.publish("before/it@v1", Release(b"before")))
    before = await changing.changes.now()
    changing.say(sign_statement(adopted_statement(body, node.record.node.id), node.online).line, node.entry.line)
    after = await changing.changes.now()
    assert after.number > before.number, "both were read"
    assert not changing.changes.changed(before, [NOTED.id, changed_name("tests/model")])
    assert changing.changes.changed(before, [node.record.node.id])


async def test_an_answer_stays_valid_until_a_statement_is_about_its_subject(
    changing: Changing, counting: Counting
) -> None:
    counting.gate.set()
    cache: AnswerCache[str, str] = AnswerCache(
        counting.now, 100, changes=changing.changes, subjects=lambda found: None if found == "unsettled" else [found]
    )

    async def asked() -> list[str]:
        counting.made.clear()
        counting.generation += 1
        for key in ("a/b", "c/d", "unsettled"):
            await cache.get(key, partial(counting.make, key))
        return list(counting.made)

    assert await asked() == ["a/b", "c/d", "unsettled"]
    assert await asked() == ["unsettled"]
    changing.say(NOTED.publish("c/d@v1", Release(b"c")))
    assert await asked() == ["c/d", "unsettled"]
    assert await asked() == ["unsettled"]


class Large:
    """The data that a computation has read."""


async def test_a_kept_failure_keeps_no_traceback_or_cause(counting: Counting) -> None:
    cache: AnswerCache[str, str] = AnswerCache(counting.now, 100)
    seen: list[weakref.ref[Large]] = []

    async def fail(cause: Exception) -> str:
        manifest = Large()
        seen.append(weakref.ref(manifest))
        raise NotFound("no such model", why="why", hint="hint", code="NO-SUCH-REPOSITORY") from cause

    async def ask(key: str) -> str:
        body = Large()
        seen.append(weakref.ref(body))
        try:
            return await cache.get(key, partial(fail, ValueError()))
        except NotFound as error:
            return f"{error}, {error.hint}, {error.code}"

    for _ in range(3):
        assert await asyncio.create_task(ask("a")) == "no such model: why, hint, NO-SUCH-REPOSITORY"
    assert len(seen) == 4, "it failed once"
    gc.collect()
    assert [found() for found in seen] == [None] * 4


async def test_an_unexpected_error_is_whole_for_the_first_and_short_for_the_next(counting: Counting) -> None:
    cache: AnswerCache[str, str] = AnswerCache(counting.now, 100)

    async def fail() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await cache.get("a", fail)
    with pytest.raises(ComityError, match="internal error"):
        await cache.get("a", fail)


@pytest.mark.parametrize("unit", [1, 512, judge.UNIT])
async def test_failures_of_many_names_take_no_more_memory_than_results_may(counting: Counting, unit: int) -> None:
    async def fail(name: str) -> str:
        raise NotFound(f"this node serves no {name}", why="x" * 10_000, hint="y" * 10_000)

    async def filled() -> AnswerCache[str, str]:
        cache: AnswerCache[str, str] = AnswerCache(counting.now, 128 * judge.ENTRY // unit, len, unit=unit)
        for number in range(300):
            with pytest.raises(NotFound, match="serves no a/"):
                await cache.get(f"a/{number}", partial(fail, f"a/{number}"))
        return cache

    await filled()  # what is only made once is not counted
    gc.collect()
    tracemalloc.start()
    try:
        kept = await filled()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] <= 2 * 128 * judge.ENTRY, "with what the test itself keeps"
    finally:
        tracemalloc.stop()
    await kept.close()
