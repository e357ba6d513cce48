"""How much members may make a node read with challenges: no member uses what is reserved for another."""

from __future__ import annotations

import pytest
from comity.node.copies.responder import HOUR, LEAST_RESERVE, RESERVED, SHARED, AuditBudget
from comity.trust.errors import OutOfSpace
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

PER_HOUR = 1_000_000


def used(budget: AuditBudget, member: str, size: int, now: float, members: int) -> int:
    """The bytes that a member reads until it is refused."""
    read = 0
    while True:
        try:
            budget.charge(member, size, now, members)
        except OutOfSpace as refused:
            assert refused.code == "AUDIT-BUDGET"
            return read
        read += size


def test_a_member_reads_its_budget_in_an_hour_and_no_more() -> None:
    budget = AuditBudget(PER_HOUR)
    assert used(budget, "a", 1000, 0.0, 3) == PER_HOUR
    assert used(budget, "a", 1000, HOUR / 2, 3) == PER_HOUR / 2


def test_members_that_use_all_that_is_shared_leave_another_its_reserve() -> None:
    budget, members = AuditBudget(PER_HOUR), 200
    greedy = [used(budget, f"greedy-{number}", 1000, 0.0, members) for number in range(members - 1)]
    assert greedy[0] == PER_HOUR
    assert greedy[-1] < PER_HOUR
    assert used(budget, "honest", 1000, 0.0, members) == LEAST_RESERVE * PER_HOUR


def test_one_refusal_takes_nothing_from_any_account() -> None:
    budget = AuditBudget(PER_HOUR)
    with pytest.raises(OutOfSpace):
        budget.charge("a", PER_HOUR + 1, 0.0, 3)
    assert used(budget, "a", 1000, 0.0, 3) == PER_HOUR


@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(1, PER_HOUR), st.floats(0, HOUR / 4)), max_size=60),
)
@settings(max_examples=examples(60))
def test_each_member_gets_at_least_its_reserve_and_at_most_its_budget(
    asked: list[tuple[int, int, float]],
) -> None:
    budget, now, members, total = AuditBudget(PER_HOUR), 0.0, 9, 0
    by_member: dict[int, int] = {}
    for member, size, pause in asked:
        now += pause
        try:
            budget.charge(str(member), size, now, members)
        except OutOfSpace:
            continue
        total += size
        by_member[member] = by_member.get(member, 0) + size
    reserve = RESERVED * PER_HOUR / members
    assert used(budget, "honest", 1000, now, members) >= min(PER_HOUR, reserve) - 1000
    hours = 1 + now / HOUR
    assert all(read <= PER_HOUR * hours + 1 for read in by_member.values())
    assert total <= (RESERVED + SHARED) * PER_HOUR * hours + 1
