"""Rounds with nothing to do are known by what a peer shows, by what was written here, and by the clock."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comity.node.replication.peers import MAX_UNCHANGED_SECONDS, PeerRound
from comity.wire.log import LogHead

HEADS = (LogHead("a.example/log", "a.example/log+1+x", b"one"), LogHead("b.example/log", "b.example/log+2+y", b""))
BEFORE = PeerRound.of(HEADS, 7, 1000.0)


def test_the_same_heads_over_the_same_ledger_are_nothing_new() -> None:
    assert PeerRound.of(list(HEADS), 7, 1000.0 + MAX_UNCHANGED_SECONDS - 1).unchanged_since(BEFORE)


@pytest.mark.parametrize(
    "now",
    [
        pytest.param(PeerRound.of((HEADS[0], replace(HEADS[1], note=b"two")), 7, 1001.0), id="a head has moved"),
        pytest.param(PeerRound.of(HEADS[:1], 7, 1001.0), id="a log is no longer shown"),
        pytest.param(PeerRound.of(reversed(HEADS), 7, 1001.0), id="another order"),
        pytest.param(PeerRound.of(HEADS, 8, 1001.0), id="something was written here"),
        pytest.param(PeerRound.of(HEADS, 7, 1000.0 + MAX_UNCHANGED_SECONDS), id="what is due by the clock may be due"),
        pytest.param(PeerRound.of(HEADS, 7, 999.0), id="the clock went back"),
    ],
)
def test_whatever_differs_is_looked_at(now: PeerRound) -> None:
    assert not now.unchanged_since(BEFORE)


def test_no_two_lists_of_heads_look_alike() -> None:
    one = LogHead("ab", "c", b"d")
    assert PeerRound.of([one], 0, 0.0).shown != PeerRound.of([LogHead("a", "bc", b"d")], 0, 0.0).shown


def test_before_the_first_round_nothing_is_known() -> None:
    assert not BEFORE.unchanged_since(None)
