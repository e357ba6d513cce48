"""Cosigners outside a jurisdiction: by the seat of the member, and by what it declares about its machines."""

from __future__ import annotations

import pytest
from comity.trust.evidence import Row
from comity.trust.places import Place
from support.case import Case, case
from support.world import node, seat

OWN = Place("Institute", "", ("SG",))
CLOUD = Place("Institute", "Example Cloud", ("KR", "US"))
WRITER, SG, ES, KR = (
    node(seat("CH")),
    node(seat("SG"), place=OWN),
    node(seat("ES")),
    node(seat("KR"), place=CLOUD),
)

RULE = 'at_least = 2\njurisdictions = 2\noutside = ["publisher"]\n'


@pytest.fixture(scope="module")
def good() -> Case:
    return case(members=[WRITER, SG, ES, KR])


def counted(verified: Case, rule: str) -> tuple[str, str]:
    """The state and the summary of the row, under `[cosigners]` with these lines."""
    row = asked(verified, rule)
    return row.state, row.summary


def asked(verified: Case, rule: str) -> Row:
    verdict = verified.demanding(RULE, f"{rule}\n").verdict()
    return next(row for row in verdict.rows if row.name == "cosigners")


def test_a_cosigner_on_a_foreign_cloud_is_not_outside_of_its_declared_reach(good: Case) -> None:
    assert counted(good, 'at_least = 3\noutside = ["FR"]')[0] == "pass"
    state, summary = counted(good, 'at_least = 3\noutside = ["US"]')
    assert (state, "KR" in summary.partition("have:")[2]) == ("fail", False)
    assert counted(good, 'at_least = 2\noutside = ["US"]')[0] == "pass"  # ES declares nothing


def test_a_policy_may_count_only_those_that_declare_a_place(good: Case) -> None:
    assert counted(good, 'at_least = 1\noutside = ["US"]\ndeclared = true')[0] == "pass"
    assert counted(good, 'at_least = 2\noutside = ["US"]\ndeclared = true')[0] == "fail"


def test_the_publishers_jurisdiction_is_excluded_by_seat_as_before(good: Case) -> None:
    assert counted(good, 'at_least = 3\noutside = ["publisher"]')[0] == "pass"


def test_declared_places_are_shown_as_claimed(good: Case) -> None:
    assert all("law of" not in fact.text for fact in asked(good, RULE).facts)
    facts = asked(good, 'at_least = 1\noutside = ["US"]').facts
    declared = asked(good, 'at_least = 1\noutside = ["publisher"]\ndeclared = true').facts
    assert {fact.text for fact in declared} >= {fact.text for fact in facts if "law of" in fact.text}
    assert {fact.basis for fact in facts if "law of KR, US reaches" in fact.text} == {"claimed"}
    silent = [(fact.text, fact.basis) for fact in facts if "declares no place" in fact.text]
    assert silent == [("Institute ES (ES) declares no place of its machines", "stale or absent")]
