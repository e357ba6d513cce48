"""Where copies are, as members declare it: the record that says so, and how many jurisdictions reach all copies."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from comity.rules.signing import sign_content
from comity.trust.encoding import Fields, Json
from comity.trust.errors import Malformed
from comity.trust.node_records import NodeRecord, check_node_record
from comity.trust.places import (
    MAX_REACH,
    MOST_REACHES,
    Place,
    Reach,
    check_new_jurisdiction,
    count_reaches,
    declared_reach,
    is_outside,
    suggest_jurisdiction,
)
from comity.trust.statement import parse_entry
from hypothesis import given
from hypothesis import strategies as st
from support.case import nodes

NODE = nodes(1)[0]
CLOUD = Place("Example Hosting", "Example Cloud Inc.", ("CH", "US"))
CODES = ("CH", "ES", "KR", "SG", "US")
REACHES = st.lists(
    st.sets(st.sampled_from(CODES), min_size=1, max_size=3).map(lambda codes: tuple(sorted(codes))), max_size=6
)


def test_a_node_record_reads_back_with_a_place_and_without() -> None:
    record = replace(NODE.record, place=CLOUD)
    entry = parse_entry(sign_content(record, NODE.seat.signer, *NODE.bound).line)
    assert check_node_record(entry, NODE.seat.inception.keys) == record
    assert "place" not in NODE.entry.statement.body
    assert NodeRecord.parse(NODE.entry.statement).place is None


@pytest.mark.parametrize(
    "place",
    [
        {"cloud": "", "operator": "A", "reach": []},
        {"cloud": "", "operator": "A", "reach": ["US", "CH"]},
        {"cloud": "", "operator": "A", "reach": ["US", "US"]},
        {"cloud": "", "operator": "A", "reach": ["Switzerland"]},
        {"cloud": "", "operator": "A", "reach": [7]},
        {"cloud": "", "operator": "", "reach": ["CH"]},
        {"cloud": "", "operator": "A\n", "reach": ["CH"]},
        {"cloud": "c" * 101, "operator": "A", "reach": ["CH"]},
        {"cloud": "", "operator": "A", "reach": ["CH"], "city": "Zurich"},
        {"operator": "A", "reach": ["CH"]},
        {"cloud": "", "operator": "A", "reach": [f"place-{at:02}" for at in range(MAX_REACH + 1)]},
        "CH",
    ],
)
def test_a_malformed_place_is_refused(place: Json) -> None:
    with pytest.raises(Malformed):
        Place.read(Fields(place, "place"))


def test_a_place_has_one_reach_at_least_and_so_many_at_most() -> None:
    most = tuple(f"place-{at:02}" for at in range(MAX_REACH))
    for reach in (("CH",), most):
        place = Place("A", "c" * 100, reach)
        assert Place.read(Fields(place.to_json(), "place")) == place
    for wrong in ((), (*most, "place-99")):
        with pytest.raises(Malformed):
            Place("A", "", wrong)


@pytest.mark.parametrize("code", ["CH", "GB", "US", "schengen-area", "place-01"])
def test_a_new_member_is_in_a_country_or_in_a_jurisdiction_that_is_no_country(code: str) -> None:
    assert check_new_jurisdiction(code) == code


@pytest.mark.parametrize(
    ("code", "meant"),
    [("UK", "GB"), ("ch", "CH"), ("che", "CH"), ("CHE", "CH"), ("united-kingdom", "GB"), ("England", "GB"), ("XX", "")],
)
def test_a_refused_jurisdiction_is_answered_with_the_probable_one(code: str, meant: str) -> None:
    with pytest.raises(Malformed) as refused:
        check_new_jurisdiction(code)
    assert (refused.value.code, refused.value.hint.startswith("write two")) == ("BAD-JURISDICTION", not meant)
    assert f'"{meant or "CH"}"' in refused.value.hint


def test_the_closest_name_is_suggested_for_an_unknown_jurisdiction() -> None:
    names = ("nordic-council", "andean-community", "andean-communities")
    assert suggest_jurisdiction("Andean Communitys", names) == "andean-community"
    assert suggest_jurisdiction("U.K.", names) == suggest_jurisdiction(" united_kingdom ") == "GB"
    assert (suggest_jurisdiction("xyz", names), suggest_jurisdiction("nordic-council")) == (None, None)


def test_three_countries_on_one_foreign_cloud_are_one_reach() -> None:
    assert count_reaches([("CH", "US"), ("ES", "US"), ("KR", "US")]) == 1
    assert count_reaches([("CH",), ("ES", "US"), ("KR", "US")]) == 2
    assert count_reaches([("CH",), ("ES",), ("KR",)]) == 3


def test_a_copy_without_a_declaration_adds_no_reach() -> None:
    assert count_reaches([(), ()]) == 0
    assert count_reaches([("CH",), (), ()]) == 1


def test_a_members_own_jurisdiction_always_reaches_a_declared_copy() -> None:
    assert declared_reach("ES", CLOUD) == ("CH", "ES", "US")
    assert declared_reach("ES", None) == ()


def test_a_copy_is_outside_by_its_seat_and_by_its_declared_reach() -> None:
    assert is_outside("CH", ("CH",), ["US"])
    assert not is_outside("US", ("CH", "US"), ["US"])
    assert not is_outside("CH", ("CH", "US"), ["US"])  # Swiss seat, foreign cloud
    assert not is_outside("CH", (), ["US"])  # nothing declared
    assert is_outside("CH", ("CH",), [])
    assert not is_outside("US", ("CH",), ["US"])  # a seat counts in each case


@given(REACHES)
def test_the_number_of_reaches_is_the_smallest_set_that_reaches_all(reaches: list[Reach]) -> None:
    smallest = next(
        size
        for size in range(len(CODES) + 1)
        for chosen in itertools.combinations(CODES, size)
        if all(set(reach) & set(chosen) for reach in reaches)
    )
    assert count_reaches(reaches) == min(smallest, MOST_REACHES)


@given(REACHES, st.sets(st.sampled_from(CODES), min_size=1).map(lambda codes: tuple(sorted(codes))))
def test_one_more_copy_never_lowers_the_number_of_reaches(reaches: list[Reach], more: Reach) -> None:
    assert count_reaches(reaches) <= count_reaches([*reaches, more]) <= count_reaches(reaches) + 1
