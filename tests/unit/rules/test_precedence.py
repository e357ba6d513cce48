"""Whose statements are read first: the rule, without a ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest
from comity.rules.precedence import MEMBERS, NAMED, OTHERS, Bounds, Precedence, Said, newest, select
from comity.trust.encoding import Digest, sha256
from comity.trust.turns import in_turns
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

PUBLISHER, MEMBER, OTHER_MEMBER = (sha256(name) for name in (b"publisher", b"member", b"another member"))
KNOWN = Precedence(frozenset({PUBLISHER}), frozenset({MEMBER, OTHER_MEMBER}))


def group_of(each: Said[str]) -> int:
    return KNOWN.group(each.author)


def said(author: Digest, count: int, place: str = "log", first: int = 0) -> list[Said[str]]:
    numbers = range(first, first + count)
    return [Said(author, (author, number), place, f"{author[:4]} {place} {number}") for number in numbers]


def strangers(count: int, place: str = "log") -> list[Said[str]]:
    return [each for number in range(count) for each in said(sha256(b"%d" % number), 1, place)]


def items(found: Iterable[Said[str]]) -> tuple[str, ...]:
    return tuple(each.item for each in found)


def test_authors_take_turns_and_places_before_them() -> None:
    rows = [("a", 1), ("a", 2), ("b", 3), ("a", 4), ("c", 5)]
    assert in_turns(rows, lambda row: row[0]) == [("a", 1), ("b", 3), ("c", 5), ("a", 2), ("a", 4)]
    assert in_turns(rows, lambda row: row[1] % 2, lambda row: row[0])[:2] == [("a", 1), ("a", 2)]


def test_no_number_of_others_displaces_a_named_author_or_a_member() -> None:
    own = said(PUBLISHER, 3) + said(MEMBER, 2)
    for junk in (strangers(10_000), said(sha256(b"a listed author"), 10_000)):
        found = select([*junk, *own], KNOWN, Bounds())
        assert found.first == items(own)
        assert (found.cut, found.more_others) == (frozenset(), True)
        assert len(found.others) <= 2 * Bounds().others


def test_a_member_displaces_only_its_own_statements_and_that_is_shown() -> None:
    own = said(PUBLISHER, 3) + said(MEMBER, 2)
    found = select([*said(OTHER_MEMBER, 10_000), *own], KNOWN, Bounds())
    assert set(found.first) >= set(items(own))
    assert len(found.found) == 5 + Bounds().member
    assert found.cut == {OTHER_MEMBER}


def test_others_take_turns_over_the_places_where_they_spoke() -> None:
    honest = said(sha256(b"honest"), 1, "closed log")
    found = select([*strangers(10_000, "open log"), *honest], KNOWN, Bounds())
    assert items(honest)[0] in found.others


def test_copies_of_a_statement_do_not_use_up_the_share_of_its_author() -> None:
    copies = [Said(PUBLISHER, 1, f"log {number}", f"copy {number}") for number in range(200)]
    own = said(PUBLISHER, 3)
    found = select([*copies, *own], KNOWN, Bounds(named=4))
    assert set(found.first) >= set(items(own))
    assert not found.cut


def copied(statements: Iterable[Said[str]], places: int) -> list[Said[str]]:
    """Each statement in so many places."""
    return [replace(each, place=place, item=f"{each.item} {place}") for each in statements for place in range(places)]


PUBLISHERS, NODES = ([sha256(b"%s %d" % (name, at)) for at in range(10)] for name in (b"publisher", b"node"))
OF_MANY = Precedence(frozenset({PUBLISHER, *PUBLISHERS}), frozenset(NODES))


@pytest.mark.parametrize("bounds", [Bounds(), Bounds.within(64), replace(Bounds.within(64), member=4, others=0)])
def test_publishers_with_many_statements_in_many_logs_displace_neither_the_publisher_nor_members(
    bounds: Bounds,
) -> None:
    """Anybody may publish the same bytes and is named then, and a member may copy what it said into its logs."""
    own = [*said(PUBLISHER, 2), *(each for node in NODES for each in said(node, 3))]
    rivals = [each for rival in PUBLISHERS[:7] for each in copied(said(rival, 128), 6)]
    for every in ([*rivals, *own], [*own, *rivals]):
        found = select(every, OF_MANY, bounds)
        assert set(found.first) >= set(items(own))
        assert not found.cut & {PUBLISHER, *NODES}
        assert len(found.found) <= bounds.total


def test_copies_come_after_the_statements_of_everybody_and_no_author_has_more_of_them_than_statements() -> None:
    bounds = Bounds(named=3, member=2, others=0, total=12)
    every = [*copied(said(PUBLISHER, 2), 9), *copied(said(MEMBER, 3), 9), *said(OTHER_MEMBER, 1)]
    found = select(every, KNOWN, bounds)
    of_publisher, of_member = (found.first[: 2 + 3], found.first[2 + 3 :])
    assert of_publisher == items(copied(said(PUBLISHER, 2), 4)[at] for at in (0, 4, 1, 2, 3))
    assert of_member == items(
        [
            *copied(said(MEMBER, 1), 1),
            *said(OTHER_MEMBER, 1),
            *copied(said(MEMBER, 2), 9)[9:10],
            *copied(said(MEMBER, 1), 3)[1:],
        ]
    )
    assert found.cut == {MEMBER}


def test_a_group_has_the_places_that_the_other_one_leaves() -> None:
    bounds = Bounds(named=20, member=20, others=0, total=12)
    alone = select(said(MEMBER, 20), KNOWN, bounds), select(said(PUBLISHER, 20), KNOWN, bounds)
    assert [len(found.first) for found in alone] == [12, 12]
    for count, expected in ((0, 0), (5, 5), (6, 6), (7, 6)):
        of_member = select([*said(PUBLISHER, 20), *said(MEMBER, count)], KNOWN, bounds).first
        of_publisher = select([*said(MEMBER, 20), *said(PUBLISHER, count)], KNOWN, bounds).first
        assert len(of_member) == len(of_publisher) == 12
        assert sum(item in items(said(MEMBER, count)) for item in of_member) == expected
        assert sum(item in items(said(PUBLISHER, count)) for item in of_publisher) == expected


def test_a_list_of_the_newest_keeps_places_for_each_group() -> None:
    members = said(MEMBER, 60)
    listed = newest([*members, *strangers(500)], group_of, 100)
    assert sum(each.author == MEMBER for each in listed) == 60
    assert newest([*said(MEMBER, 500), *strangers(10)], group_of, 100)[-10:] == strangers(10)
    assert len(newest(strangers(500), group_of, 100)) == 100


def test_a_list_of_the_newest_is_in_their_order_and_the_authors_of_a_place_take_turns() -> None:
    loud, quiet = said(sha256(b"loud"), 300), said(sha256(b"quiet"), 3)
    listed = newest([*quiet, *loud], lambda _: OTHERS, 100)
    assert [*quiet] == listed[:3]
    assert listed[3:] == loud[-97:]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 30))), st.integers(1, 40))
@settings(max_examples=examples(100))
def test_what_is_chosen_never_depends_on_what_others_said(rows: list[tuple[int, int, int]], total: int) -> None:
    authors = [PUBLISHER, MEMBER, *(sha256(b"%d" % number) for number in range(4))]
    every = [Said(authors[who], number, place, f"{who} {place} {number}") for who, place, number in rows]
    without = [each for each in every if KNOWN.group(each.author) != 2]
    bounds = Bounds.within(total)
    assert select(every, KNOWN, bounds).first == select(without, KNOWN, bounds).first
    assert select(every, KNOWN, bounds).cut == select(without, KNOWN, bounds).cut
    assert len(select(every, KNOWN, bounds).found) <= total


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 12), st.integers(1, 9)), max_size=40),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 60),
)
@settings(max_examples=examples(200))
def test_no_number_of_statements_or_copies_of_others_displaces_a_named_author_or_a_member(
    rows: list[tuple[int, int, int, int]], of_named: int, of_member: int, total: int
) -> None:
    """Each row is an author, its next statements, and in how many places each of them is."""
    authors = [*PUBLISHERS[:4], *NODES[:4], sha256(b"nobody"), sha256(b"no other")]
    every = [
        each for who, first, count, places in rows for each in copied(said(authors[who], count, first=first), places)
    ]
    bounds = Bounds(of_named, of_member, 3, total)
    found = select(every, OF_MANY, bounds)
    by_item = {each.item: each for each in every}
    kept = [by_item[item] for item in found.first]
    halves = {NAMED: total - total // 2, MEMBERS: total // 2}
    for author in {each.author for each in every}:
        group = OF_MANY.group(author)
        if group == OTHERS:
            continue
        like = {each.author for each in every if OF_MANY.group(each.author) == group}
        own = list(dict.fromkeys(each.statement for each in every if each.author == author))
        read = list(dict.fromkeys(each.statement for each in kept if each.author == author))
        assert read == own[: len(read)]
        assert len(read) >= min(len(own), bounds.of_group(group), halves[group] // len(like))
        assert Counter(each.author for each in kept)[author] <= 2 * bounds.of_group(group)
        assert (author in found.cut) == (len(read) < len(own))
        if len(read) < min(len(own), bounds.of_group(group)):
            assert len(kept) == total == len({each.statement for each in kept}), "no place has a copy, or is left"
    assert len(found.found) <= total


def test_of_the_copies_of_a_statement_a_list_of_the_newest_has_the_first() -> None:
    copies = [Said(PUBLISHER, "one", place, place) for place in ("log", "other log")]
    assert items(newest([*copies, *said(MEMBER, 1)], group_of, 9)) == ("log", items(said(MEMBER, 1))[0])
