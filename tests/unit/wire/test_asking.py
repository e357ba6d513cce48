"""Asking several nodes, in virtual time: no one of them delays an answer by more than what a node usually needs."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from comity.trust.errors import ComityError, NotFound, OutOfSpace, Unavailable, Untrusted
from comity.wire.asking import FIRST_PATIENCE, MOST_PATIENCE, AnswerTimes, everyone, first, share
from support.virtual_time import run

RTT = 0.1
"""Seconds that an honest node needs for an answer."""
TIMEOUT = 30.0
NONE = NotFound("nobody has it", code="NO-HOLDER")


@dataclass(eq=False)
class Node:
    """Needs `seconds` for each answer, and has the items of `has`; all if None."""

    name: str
    seconds: float | Callable[[], float] = RTT
    has: frozenset[int] | None = None
    fault: ComityError | None = None
    asked: int = 0
    got: list[Sequence[int]] = field(default_factory=list)

    async def answer(self) -> str:
        self.asked += 1
        async with asyncio.timeout(TIMEOUT):
            await asyncio.sleep(self.seconds() if callable(self.seconds) else self.seconds)
        if self.fault:
            raise self.fault
        return self.name

    async def give(self, items: Sequence[int]) -> list[int]:
        self.got.append(items)
        await self.answer()
        return [item for item in items if self.has is None or item in self.has]


def stalled(name: str = "stalled") -> Node:
    return Node(name, math.inf)


def two_of(items: Iterable[int]) -> list[int]:
    return [item for _, item in zip(range(2), items, strict=False)]


def spent(work: Callable[[AnswerTimes[Node]], Coroutine[Any, Any, object]]) -> tuple[Any, float]:
    async def main() -> object:
        return await work(AnswerTimes(asyncio.get_running_loop().time))

    return run(main())


async def ask(times: AnswerTimes[Node], nodes: Iterable[Node]) -> str:
    return await first(times, times.in_order(nodes), Node.answer, NONE)


@pytest.mark.parametrize("place", range(3))
def test_a_node_that_never_answers_costs_nothing_where_another_one_does(place: int) -> None:
    nodes = [Node("a"), Node("b")]
    nodes.insert(place, stalled())
    said, seconds = spent(lambda times: ask(times, nodes))
    assert said in "ab" and seconds == pytest.approx(RTT)


def test_a_second_slow_node_costs_what_nodes_usually_need_and_then_nothing() -> None:
    nodes = [stalled("s"), stalled("t"), Node("a")]

    async def work(times: AnswerTimes[Node]) -> float:
        clock = asyncio.get_running_loop().time
        await ask(times, nodes)
        assert clock() == pytest.approx(FIRST_PATIENCE + RTT)
        began = clock()
        for _ in range(20):
            await ask(times, nodes)
        return clock() - began

    assert spent(work)[0] == pytest.approx(20 * RTT)


def test_a_node_without_the_answer_is_followed_by_the_next_at_once() -> None:
    nodes = [Node(name, fault=NotFound("not here")) for name in "abcd"]
    said, seconds = spent(lambda times: ask(times, [*nodes, Node("e")]))
    assert said == "e" and seconds == pytest.approx(3 * RTT)


def test_the_only_node_that_has_it_may_take_its_whole_time() -> None:
    nodes = [Node("far", 20.0), *(Node(name, fault=NotFound("not here")) for name in "ab")]
    said, seconds = spent(lambda times: ask(times, nodes))
    assert (said, seconds) == ("far", 20.0)


def test_the_error_that_says_most_is_raised() -> None:
    bad = Untrusted("other bytes")
    nodes = [Node("a", fault=NotFound("not here")), Node("b", fault=bad), Node("c", fault=Unavailable("gone"))]
    with pytest.raises(Untrusted):
        spent(lambda times: ask(times, nodes))
    with pytest.raises(Unavailable, match="no answer in time"):
        spent(lambda times: ask(times, [stalled(), nodes[0]]))
    with pytest.raises(NotFound, match="nobody has it"):
        spent(lambda times: ask(times, []))


def test_a_full_disk_of_this_machine_ends_the_question_and_one_of_a_node_does_not() -> None:
    full = OutOfSpace("the disk is full")
    with pytest.raises(OutOfSpace):
        spent(lambda times: ask(times, [Node("a", fault=full), stalled()]))
    full.by_node = True
    assert spent(lambda times: ask(times, [Node("a", fault=full), Node("b", 2 * RTT)]))[0] == "b"


def test_all_are_asked_and_none_is_waited_for_once_it_was_late() -> None:
    nodes = [Node("a"), Node("b", 0.2), stalled()]

    async def work(times: AnswerTimes[Node]) -> list[float]:
        clock, took = asyncio.get_running_loop().time, list[float]()
        for _ in range(3):
            began = clock()
            asked = await everyone(times, nodes, Node.answer, seconds=TIMEOUT)
            assert {node.name for node in asked.found} == {"a", "b"} and list(asked.failed) == [nodes[2]]
            took.append(clock() - began)
        return took

    assert spent(work)[0] == pytest.approx([FIRST_PATIENCE, 0.2, 0.2])


def test_a_late_node_is_waited_for_while_what_was_found_is_not_enough() -> None:
    nodes = [Node("a"), Node("far", 5.0)]

    async def work(times: AnswerTimes[Node]) -> int:
        asked = await everyone(times, nodes, Node.answer, seconds=TIMEOUT, enough=lambda found: nodes[1] in found)
        return len(asked.found)

    assert spent(work) == (2, 5.0)


def test_a_question_to_all_ends_when_its_time_is_over() -> None:
    async def work(times: AnswerTimes[Node]) -> int:
        return len((await everyone(times, [stalled(), stalled()], Node.answer, seconds=7.0)).failed)

    assert spent(work) == (2, 7.0)


def test_items_are_shared_between_nodes_and_a_stalled_one_delays_none() -> None:
    nodes = [stalled(), Node("a"), Node("b")]

    async def work(times: AnswerTimes[Node]) -> object:
        return await share(times, times.in_order(nodes), range(100), two_of, Node.give)

    left, seconds = spent(work)
    assert not left
    assert seconds <= 2 * 50 * RTT + 1e-6  # two nodes need 25 answers each; one alone needs 50
    assert seconds < 50 * RTT  # the stalled one loses its place
    assert len(nodes[0].got) == 1


def test_one_batch_is_asked_of_two_nodes() -> None:
    nodes = [stalled(), Node("a")]
    left, seconds = spent(lambda times: share(times, nodes, range(2), two_of, Node.give))
    assert not left and seconds == pytest.approx(RTT)


def test_items_that_a_node_lacks_are_asked_of_the_others_and_only_once() -> None:
    nodes = [Node("liar", has=frozenset()), Node("a", has=frozenset({1, 2})), Node("b", has=frozenset({3}))]
    left, _ = spent(lambda times: share(times, nodes, range(5), two_of, Node.give))
    assert set(left) == {0, 4} and all(isinstance(error, NotFound) for error in left.values())
    for node in nodes:
        asked = Counter(item for batch in node.got for item in batch)
        assert not asked or max(asked.values()) == 1


def test_what_every_node_fails_with_is_said_of_each_item() -> None:
    bad = Untrusted("other bytes")
    nodes = [Node("a", fault=bad), Node("b", fault=Unavailable("gone", code="UNREACHABLE"))]
    left, _ = spent(lambda times: share(times, nodes, range(3), two_of, Node.give))
    assert set(left) == {0, 1, 2} and left[2] is bad


def test_what_is_waited_for_is_bounded_whatever_a_node_did_before() -> None:
    times = AnswerTimes[str](lambda: 0.0)
    for seconds in (0.001, 29.0) * 50:
        times.answered("m", seconds)
    assert times.patience("m") == MOST_PATIENCE


def test_a_slow_honest_node_is_waited_for_in_the_end() -> None:
    """Its answers are cancelled, because others are faster: without a lower bound learned it stayed late for ever."""
    now = [0.0]
    times = AnswerTimes[str](lambda: now[0])
    while times.patience("far") < 2.0:
        assert now[0] < 2_000
        if not times.is_late("far"):
            times.was_late("far", times.patience("far"))
        now[0] += 10


def test_a_node_that_is_fast_and_slow_in_turn_rests_longer_each_time() -> None:
    now = [0.0]
    times = AnswerTimes[str](lambda: now[0])
    rests = list[float]()
    for _ in range(4):
        times.answered("m", 0.01)
        for _ in range(2):
            times.was_late("m", 10.0)
            began = now[0]
            while times.is_late("m"):
                now[0] += 1
            rests.append(now[0] - began)
    assert rests == sorted(rests) and rests[-1] > 4 * rests[0]


@pytest.mark.parametrize("patience", [0.25, 0.5])
def test_nodes_one_at_a_time_follow_one_another_after_the_patience_that_the_asker_has(patience: float) -> None:
    async def main() -> str:
        times = AnswerTimes[Node](asyncio.get_running_loop().time, first_patience=patience)
        return await first(times, [stalled("s"), stalled("t"), Node("a")], Node.answer, NONE, places=1)

    said, seconds = run(main())
    assert said == "a" and seconds == pytest.approx(2 * patience + RTT)
