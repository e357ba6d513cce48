"""Rounds with nothing to do are known by what a peer shows, by what was written here, and by the clock."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comity.node.replication.peers import LONGEST, ChangeDetector
from comity.wire.messages import LogHead

HEADS = (LogHead("a.example/log", "a.example/log+1+x", b"one"), LogHead("b.example/log", "b.example/log+2+y", b""))
BEFORE = ChangeDetector.of(HEADS, 7, 1000.0)


def test_the_same_heads_over_the_same_ledger_are_nothing_new() -> None:
    assert ChangeDetector.of(list(HEADS), 7, 1000.0 + LONGEST - 1).goes_on_from(BEFORE)


@pytest.mark.parametrize(
    "now",
    [
        pytest.param(ChangeDetector.of((HEADS[0], replace(HEADS[1], note=b"two")), 7, 1001.0), id="a head has moved"),
        pytest.param(ChangeDetector.of(HEADS[:1], 7, 1001.0), id="a log is no longer shown"),
        pytest.param(ChangeDetector.of(reversed(HEADS), 7, 1001.0), id="another order"),
        pytest.param(ChangeDetector.of(HEADS, 8, 1001.0), id="something was written here"),
        pytest.param(ChangeDetector.of(HEADS, 7, 1000.0 + LONGEST), id="what is due by the clock may be due"),
        pytest.param(ChangeDetector.of(HEADS, 7, 999.0), id="the clock went back"),
    ],
)
def test_whatever_differs_is_looked_at(now: ChangeDetector) -> None:
    assert not now.goes_on_from(BEFORE)


def test_no_two_lists_of_heads_look_alike() -> None:
    one = LogHead("ab", "c", b"d")
    assert ChangeDetector.of([one], 0, 0.0).shown != ChangeDetector.of([LogHead("a", "bc", b"d")], 0, 0.0).shown


def test_before_the_first_round_nothing_is_known() -> None:
    assert not BEFORE.goes_on_from(None)
