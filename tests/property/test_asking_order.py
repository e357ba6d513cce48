"""I16: whatever a member's nodes answer, and whatever else they cause to be asked, they are not always asked first, and
no other node is always asked last.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from comity.wire.asking import (
    FIRST_REST,
    LEAST_PATIENCE,
    LONGEST_REST,
    MOST_PATIENCE,
    PLACES,
    AnswerTimes,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples


@dataclass(frozen=True)
class Node:
    member: str
    number: int = 0


@dataclass(frozen=True)
class Asked:
    """A question: whether the hostile nodes answer, after how many seconds, and the time until the next question."""

    answers: bool
    seconds: float
    pause: float


QUESTIONS = st.lists(
    st.builds(Asked, st.booleans(), st.floats(0, 40), st.floats(0, 2 * FIRST_REST)), min_size=1, max_size=60
)
HONEST = st.lists(st.floats(0.001, LEAST_PATIENCE), min_size=2, max_size=6)


class Played:
    """Questions to honest nodes, which need the seconds of `honest`, and to the nodes of one hostile member."""

    def __init__(self, honest: list[float], hostile: int) -> None:
        self.now = 0.0
        self.times = AnswerTimes[Node](lambda: self.now, lambda node: node.member)
        self.honest = {Node(f"member {number}"): seconds for number, seconds in enumerate(honest)}
        self.nodes = [*(Node("hostile", number) for number in range(hostile)), *self.honest]

    def ask(self, question: Asked) -> list[Node]:
        """The nodes in the order of a question, of which as many are asked as have places."""
        order = self.times.in_order(self.nodes)
        for node in order[:PLACES]:
            self.times.asked(node)
            if node in self.honest:
                self.times.answered(node, self.honest[node])
            elif question.answers and question.seconds < MOST_PATIENCE:
                self.times.answered(node, question.seconds)
            else:
                self.times.was_late(node, self.times.patience(node))
                if question.answers:
                    self.times.answered(node, question.seconds)
        self.now += question.pause
        return order


@given(HONEST, st.integers(1, 16), QUESTIONS)
@settings(max_examples=examples(300))
def test_one_of_the_two_that_are_asked_is_honest_and_no_honest_node_is_late(
    honest: list[float], hostile: int, questions: list[Asked]
) -> None:
    played = Played(honest, hostile)
    for question in questions:
        order = played.ask(question)
        assert {node.member for node in order[:PLACES]} != {"hostile"}
        assert len({node.member for node in order[:PLACES]}) == PLACES
        assert not any(map(played.times.is_late, played.honest))
        assert sorted(map(repr, order)) == sorted(map(repr, played.nodes))


@given(HONEST, st.integers(1, 16), QUESTIONS)
@settings(max_examples=examples(300))
def test_every_honest_node_has_its_turn_and_the_hostile_member_only_its_own(
    honest: list[float], hostile: int, questions: list[Asked]
) -> None:
    played = Played(honest, hostile)
    since = dict.fromkeys(played.honest, 0)
    firsts = list[str]()
    for question in questions:
        order = played.ask(question)
        firsts.append(order[0].member)
        for node in since:
            since[node] = 0 if node in order[:PLACES] else since[node] + 1
        assert max(since.values()) < len(honest) + 1  # of each two places one passes on: a round of all members at most
    assert ("hostile", "hostile") not in itertools.pairwise(firsts)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 60), st.floats(0, 100)), max_size=60))
@settings(max_examples=examples(300))
def test_a_node_is_waited_for_a_bounded_time_and_is_late_for_a_bounded_time(
    history: list[tuple[bool, float, float]],
) -> None:
    """A hostile one costs no more than this each time, and an honest one that was slow has its turn again."""
    now = 0.0
    times = AnswerTimes[str](lambda: now)
    for answers, seconds, pause in history:
        if answers:
            times.answered("node", seconds)
        else:
            times.was_late("node", seconds)
        assert LEAST_PATIENCE <= times.patience("node") <= MOST_PATIENCE
        now += pause
    now += LONGEST_REST
    assert not times.is_late("node")


@pytest.mark.parametrize("in_time", range(5))
def test_a_node_that_is_late_now_and_then_costs_seconds_of_an_hour(in_time: int) -> None:
    """It answers so many questions in time before each that it does not answer in time."""
    now, lost, turn = 0.0, 0.0, itertools.cycle([*[True] * in_time, False])
    times = AnswerTimes[str](lambda: now)
    while now < 3_600:
        now += 0.5
        if times.is_late("node"):
            continue
        if next(turn):
            times.answered("node", 0.01)
        else:
            lost += times.patience("node")
            times.was_late("node", MOST_PATIENCE)
    assert lost < 12 * MOST_PATIENCE
