"""Items of several authors within a number of bytes."""

from __future__ import annotations

from collections import Counter

from comity.rules.fair_bytes import FairBytes
from comity.rules.precedence import Said
from comity.trust.encoding import Digest, sha256
from hypothesis import given
from hypothesis import strategies as st

AUTHORS = [sha256(bytes([number])) for number in range(5)]
ITEMS = st.lists(st.tuples(st.sampled_from(AUTHORS), st.integers(1, 40), st.integers(0, 2)), max_size=40)


def taken(most: int, *sizes: tuple[Digest, int]) -> tuple[FairBytes[int], list[int]]:
    """These items, each another statement; and the numbers of those that were taken."""
    fair = FairBytes[int](most)
    for number, (author, size) in enumerate(sizes):
        fair.add(Said(author, number, "log", number), size)
    return fair, [number for _, number in fair.found]


def test_all_are_taken_where_they_fit() -> None:
    fair, numbers = taken(30, (AUTHORS[1], 10), (AUTHORS[0], 10), (AUTHORS[1], 10))
    assert numbers == [0, 1, 2] and fair.size == 30 and len(fair) == 3
    assert not fair.cut


def test_the_author_with_most_bytes_loses_its_last_ones() -> None:
    loud, low = AUTHORS[:2]
    fair, numbers = taken(30, (loud, 10), (loud, 10), (loud, 10), (low, 5), (low, 5), (loud, 1))
    assert numbers == [0, 1, 3, 4], "nor is a later, shorter one taken"
    assert fair.cut == {loud}


def test_an_item_that_is_too_long_is_left_out_alone() -> None:
    fair, numbers = taken(30, (AUTHORS[0], 31), (AUTHORS[1], 30))
    assert numbers == [1] and fair.cut == {AUTHORS[0]}


def test_a_statement_is_taken_once_in_each_place() -> None:
    fair = FairBytes[str](100)
    for place in ("one", "one", "two"):
        fair.add(Said(AUTHORS[0], "statement", place, place), 10)
    assert [item for _, item in fair.found] == ["one", "two"] and fair.size == 20


def test_a_bound_of_each_author_leaves_its_first_item() -> None:
    fair = FairBytes[int](100)
    for number, (size, each) in enumerate([(20, 10), (1, 10)]):
        fair.add(Said(AUTHORS[0], number, "log", number), size, each)
    fair.add(Said(AUTHORS[1], 2, "log", 2), 5, 10)
    fair.add(Said(AUTHORS[1], 3, "log", 3), 5, 10)
    assert [number for _, number in fair.found] == [0, 2, 3] and fair.cut == {AUTHORS[0]}


def test_an_author_with_fewer_copies_is_not_cut() -> None:
    fair = FairBytes[str](20)
    for place in ("one", "two", "three", "one"):
        fair.add(Said(AUTHORS[0], "statement", place, place), 10)
    assert [item for _, item in fair.found] == ["one", "two"]
    assert not fair.cut
    fair.add(Said(AUTHORS[0], "another", "one", "another"), 10)
    assert fair.cut == {AUTHORS[0]}


@given(ITEMS, st.integers(1, 300))
def test_who_says_no_more_than_an_equal_share_loses_nothing(items: list[tuple[Digest, int, int]], most: int) -> None:
    fair, said = FairBytes[int](most), Counter[Digest]()
    of_authors: dict[Digest, list[int]] = {}
    for number, (author, size, place) in enumerate(items):
        fair.add(Said(author, number, place, number), size)
        said[author] += size
        of_authors.setdefault(author, []).append(number)
    kept: dict[Digest, list[int]] = {}
    for author, number in fair.found:
        kept.setdefault(author, []).append(number)
    sizes = {author: sum(items[number][1] for number in numbers) for author, numbers in kept.items()}
    assert fair.size == sum(sizes.values()) <= most
    for author, numbers in of_authors.items():
        own = kept.get(author, [])
        assert own == numbers[: len(own)]
        assert (author in fair.cut) == (own != numbers)
        if said[author] * len(said) <= most:
            assert own == numbers
    assert sum(said.values()) > most or not fair.cut
