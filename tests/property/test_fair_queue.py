"""The fair queue when some parties fill it: an item waits for at most one turn of each other party."""

from __future__ import annotations

from collections import Counter
from typing import Any

from comity.node.replication.fair_queue import MAX_DEBT, FairQueue
from hypothesis import given
from hypothesis import strategies as st

KEYS = st.sampled_from(("a", "b", "c", "d"))
PATHS = st.tuples(KEYS, st.integers(0, 3))
STEPS = st.lists(st.one_of(PATHS, st.none(), st.tuples(PATHS, st.floats(0, 3)), st.integers(0, 199)), max_size=200)
"""A path to add an item under, None to take one, a path to charge, or the number of an item to discard."""


@given(STEPS)
def test_each_added_item_is_taken_once_or_left_out_and_counted(steps: list[Any]) -> None:
    queue, inside, out, paths = FairQueue[int](max_per_key=5), set[int](), 0, dict[int, tuple[str, int]]()
    for number, step in enumerate(steps):
        if step is None:
            if (taken := queue.take()) is not None:
                inside.remove(taken[1])
            else:
                assert not inside
        elif isinstance(step, int):
            queue.discard(paths.get(step, ("a", 0)), step)
            inside.discard(step)
        elif isinstance(step[0], tuple):
            queue.charge(*step)
        else:
            inside.add(number)
            paths[number] = step
            if (lost := queue.put(step, number)) is not None:
                inside.remove(lost[1])
                out += 1
        assert len(queue) == len(inside)
        assert queue.left_out == out
        assert all(queue.waiting(key) <= 5 for key in "abcd")
    while (taken := queue.take()) is not None:
        inside.remove(taken[1])
    assert not inside


@given(st.lists(PATHS, max_size=60), st.lists(st.lists(PATHS, max_size=4), max_size=30))
def test_a_key_is_served_after_at_most_one_turn_of_each_other(
    before: list[tuple[str, int]], added: list[list[tuple[str, int]]]
) -> None:
    queue = FairQueue[str](max_per_key=1_000)
    for path in before:
        queue.put(path, "others")
    others = {first for first, _ in before}
    queue.put(("honest", 0), "honest")
    for turn, more in enumerate([*added, *([[]] * 10)]):
        taken = queue.take()
        assert taken is not None
        if taken[1] == "honest":
            assert turn <= len(others)
            return
        for path in more:
            queue.put(path, "others")
    raise AssertionError("never served")


@given(st.integers(1, 200), st.integers(1, 20))
def test_publishers_of_one_source_take_turns_within_its_turns(many: int, few: int) -> None:
    queue = FairQueue[str](max_per_key=10_000)
    for number in range(many):
        queue.put(("flooded", "flooder"), f"flood {number}")
    for number in range(few):
        queue.put(("flooded", "honest"), f"honest {number}")
        queue.put(("other", "honest"), f"other {number}")
    served = [taken[1] for _ in range(4 * few) if (taken := queue.take()) is not None]
    counts = Counter(item.partition(" ")[0] for item in served)
    assert counts["honest"] >= few - 1 and counts["other"] == few


def test_a_full_source_gives_a_place_to_a_publisher_that_has_fewer() -> None:
    queue = FairQueue[str](max_per_key=4)
    for number in range(4):
        assert queue.put(("log", "flooder"), f"flood {number}") is None
    assert queue.put(("log", "flooder"), "flood 4") == (("log", "flooder"), "flood 4")
    assert queue.put(("log", "honest"), "honest") == (("log", "flooder"), "flood 3"), (
        "the newest item of the largest key is removed"
    )
    assert queue.put(("other", "honest"), "other") is None, "another source is not concerned"
    assert queue.left_out == 2


def test_a_charged_key_misses_turns_and_keeps_its_debt_while_it_has_no_items() -> None:
    queue = FairQueue[str](max_per_key=100)
    queue.put(("slow", 0), "slow")
    assert queue.take() == (("slow", 0), "slow")
    queue.charge(("slow", 0), 3)
    for number in range(5):
        queue.put(("slow", 0), "slow")
        queue.put(("quick", 0), f"quick {number}")
    order = [taken[0][0] for _ in range(6) if (taken := queue.take()) is not None]
    assert order == ["quick"] * 4 + ["slow", "quick"] or order == ["quick"] * 3 + ["slow", "quick", "slow"]


def test_a_debt_ends_and_costs_nothing_if_no_other_key_waits() -> None:
    queue = FairQueue[str](max_per_key=100)
    queue.charge(("slow", 0), 10 * MAX_DEBT)
    queue.put(("slow", 0), "slow")
    assert queue.take() == (("slow", 0), "slow")


def test_a_key_that_may_not_be_served_now_keeps_its_place() -> None:
    queue = FairQueue[str](max_per_key=100)
    queue.put(("busy", 0), "busy")
    for number in range(3):
        queue.put(("other", 0), f"other {number}")
    assert queue.take(lambda path: path[0] != "busy") == (("other", 0), "other 0")
    assert queue.take(lambda path: False) is None
    assert queue.take() == (("busy", 0), "busy")
