"""Slots that are shared fairly: one address block takes nothing from the others."""

from __future__ import annotations

from collections import Counter

import pytest
from comity.node.listeners import BLOB_FILES, RESERVED_FILES, ConnectionLimits
from comity.wire.addresses import address_block, caller_name
from comity.wire.throttle import FairShares
from comity.wire.unsent import IDLE_LIMIT
from hypothesis import given
from hypothesis import strategies as st


class Clock:
    """Monotonic seconds that only a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_free_slot_is_given_to_any_caller() -> None:
    shares: FairShares[int] = FairShares(3, Clock())
    assert [shares.acquire(n, "a") for n in range(3)] == [None, None, None]
    assert len(shares) == shares.block_size("a") == 3


def test_the_largest_block_loses_its_stalest_slot_to_a_caller_of_another_block() -> None:
    clock = Clock()
    shares: FairShares[int] = FairShares(3, clock)
    for n in range(3):
        clock.now += 1
        shares.acquire(n, "a")
    shares.progress(0)
    assert shares.acquire(9, "b") == 1
    assert (shares.block_size("a"), shares.block_size("b")) == (2, 1)


def test_a_newcomer_of_the_largest_block_is_refused_while_the_others_work() -> None:
    clock = Clock()
    shares: FairShares[int] = FairShares(2, clock)
    shares.acquire(0, "a")
    shares.acquire(1, "a")
    assert shares.acquire(2, "a") == 2
    clock.now += IDLE_LIMIT
    shares.progress(1)
    assert shares.acquire(3, "a") == 0


@given(
    st.lists(st.tuples(st.sampled_from("aaaaaaaabc"), st.integers(0, 40), st.sampled_from(["take", "give", "work"])))
)
def test_no_block_loses_a_place_while_another_has_more(steps: list[tuple[str, int, str]]) -> None:
    clock = Clock()
    shares: FairShares[tuple[str, int]] = FairShares(6, clock)
    held: dict[tuple[str, int], str] = {}
    for block, number, step in steps:
        clock.now += 1
        item = (block, number)
        if step == "give":
            shares.release(item)
            held.pop(item, None)
        elif step == "work":
            shares.progress(item)
        else:
            held[item] = block
            counts = Counter(held.values())
            out = shares.acquire(item, block)
            if out is not None:
                assert counts[held.pop(out)] == max(counts.values())
                assert len(counts) == 1 or counts.total() > 6
        assert len(shares) == len(held) <= 6
        assert {b: shares.block_size(b) for b in "abc"} == {b: Counter(held.values())[b] for b in "abc"}


@given(st.integers(1, 60), st.integers(1, 8))
def test_one_honest_connection_outlasts_any_flood_from_one_other_block(flood: int, places: int) -> None:
    shares: FairShares[object] = FairShares(places + 1, Clock())
    honest = object()
    shares.acquire(honest, "honest")
    assert all(shares.acquire(object(), "flood") is not honest for _ in range(flood))


@pytest.mark.parametrize(
    ("host", "caller", "block"),
    [
        ("192.0.2.7", "192.0.2.7", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.0/24"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/64", "fe80::/48"),
        ("unix", "elsewhere", "elsewhere"),
        ("", "elsewhere", "elsewhere"),
    ],
)
def test_addresses_are_counted_by_host_and_by_block(host: str, caller: str, block: str) -> None:
    assert (caller_name(host), address_block(host)) == (caller, block)


@given(st.integers(0, 2**20))
def test_all_listeners_together_fit_into_the_open_files(files: int) -> None:
    limits = ConnectionLimits.of(files)
    needed = limits.mutual + limits.open + limits.http + 2 * BLOB_FILES * limits.blobs + RESERVED_FILES
    assert needed <= max(files, 250)
