"""The accounts between two members: all nodes compute the same balances, which add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from comity.rules.offers.amounts import Unit, UsageRecord, balances
from comity.trust.encoding import Digest, sha256
from hypothesis import given
from hypothesis import strategies as st

members = st.sampled_from([sha256(name) for name in (b"a", b"b", b"c")])
units = st.sampled_from([Unit("node-hours", ""), Unit("accelerator-hours", "H100"), Unit("accelerator-hours", "A100")])
lines = st.binary(min_size=1, max_size=2).map(sha256)
usages = st.builds(
    UsageRecord,
    members,
    members,
    st.lists(st.tuples(units, st.integers(0, 100)), min_size=1, max_size=3).map(tuple),
    lines,
    lines,
    st.none() | lines,
)
unique = st.lists(usages, max_size=20, unique_by=lambda used: used.usage)


@given(unique)
def test_lent_and_borrowed_amounts_are_equal_and_nothing_is_lost(used: list[UsageRecord]) -> None:
    agreed: Counter[tuple[Digest, Digest, Unit]] = Counter()
    for line in used:
        for unit, amount in line.amounts:
            if line.agreement is not None and line.lender != line.borrower:
                agreed[line.lender, line.borrower, unit] += amount
    for balance in balances(used):
        assert balance.first < balance.second
        assert balance.lent == agreed.pop((balance.first, balance.second, balance.unit), 0)
        assert balance.borrowed == agreed.pop((balance.second, balance.first, balance.unit), 0)
        assert balance.net == balance.lent - balance.borrowed
    assert not +agreed


@given(unique, st.randoms())
def test_neither_order_nor_repetition_changes_a_balance(used: list[UsageRecord], random: Random) -> None:
    again = used + used
    random.shuffle(again)
    assert balances(again) == balances(used)


@given(unique)
def test_usage_without_agreement_is_claimed_and_owed_by_no_member(used: list[UsageRecord]) -> None:
    alone = [replace(line, agreement=None) for line in used]
    for balance in balances(alone):
        assert balance.net == 0
        assert balance.claimed == sum(
            amount for line in balance.lines for unit, amount in line.amounts if unit == balance.unit
        )


@given(usages, lines)
def test_an_agreement_counts_whenever_it_is_found(used: UsageRecord, agreement: Digest) -> None:
    without, agreed = replace(used, agreement=None), replace(used, agreement=agreement)
    assert balances([without, agreed]) == balances([agreed, without]) == balances([agreed])
