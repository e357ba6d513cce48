"""Approvals by officers: strict reading, the search by officer, and which officer fills which place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from comity.rules.signing import sign_content
from comity.trust.approvals import (
    MAX_CONDITIONS,
    MAX_REASON,
    ApprovalConditions,
    ApprovalEnded,
    Approved,
    approval_key,
    filled_places,
    officer_key,
)
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.statement import Author, SideObject, Subject, parse_entry
from hypothesis import given
from hypothesis import strategies as st
from support.world import NOW, identity

ANNA, BEN = identity("Anna", "CH"), identity("Ben", "CH")
ARTIFACT = sha256(b"an artifact")
TEXT = SideObject.of(b"only in the ward\n")
APPROVED = Approved(
    ANNA.id, ARTIFACT, "hospital-bern", NOW, NOW + 86_400, NOW + 7, ApprovalConditions("ward.txt", TEXT), "tiny"
)
ENDED = ApprovalEnded(ANNA.id, ARTIFACT, sha256(b"a statement"), NOW + 60, "a new version\nis due")
TIMES = {"from": "2026-11-18T00:00:00Z", "until": "2026-11-19T00:00:00Z", "time": "2026-11-18T00:00:00Z"}
BODY = {"scope": "hospital-bern", "conditions": None, **TIMES}


@pytest.mark.parametrize("conditions", [None, APPROVED.conditions], ids=["alone", "under conditions"])
def test_an_approval_reads_back(conditions: ApprovalConditions | None) -> None:
    approved = replace(APPROVED, conditions=conditions)
    entry = parse_entry(sign_content(approved, ANNA.signer).line)
    assert Approved.parse(entry.statement) == approved
    assert entry.statement.objects == approved.objects() == ((TEXT,) if conditions else ())
    assert [each.digest for each in entry.statement.subjects] == [
        ARTIFACT,
        approval_key(ANNA.id, ARTIFACT),
        officer_key(ANNA.id),
    ]


def test_the_end_of_an_approval_reads_back() -> None:
    assert ApprovalEnded.parse(parse_entry(sign_content(ENDED, ANNA.signer).line).statement) == ENDED


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"predicate": "vouched"}, id="another predicate"),
        pytest.param({"by": Author("node", ANNA.id)}, id="a node"),
        pytest.param({"by": Author("identity", BEN.id)}, id="another officer than its subjects say"),
        pytest.param({"subjects": (Subject("", ARTIFACT),)}, id="without the key by which it is found"),
        pytest.param({"body": {**BODY, "scope": "hospital bern"}}, id="a scope with a space"),
        pytest.param({"body": {**BODY, "scope": "hospital-b\u0435rn"}}, id="a scope with a letter that looks alike"),
        pytest.param({"body": {**BODY, "from": "2026-11-18"}}, id="a day instead of a time"),
        pytest.param({"body": {**BODY, "until": TIMES["from"]}}, id="no time between its ends"),
        pytest.param({"body": {**BODY, "unheard-of": 1}}, id="an additional member"),
        pytest.param({"body": {name: value for name, value in BODY.items() if name != "time"}}, id="no time"),
        pytest.param({"objects": (TEXT,), "body": BODY}, id="a text without conditions"),
    ],
)
def test_an_invalid_approval_is_refused(change: dict[str, Any]) -> None:
    made = sign_content(replace(APPROVED, conditions=None), ANNA.signer).statement
    Approved.parse(replace(made, body=BODY))
    with pytest.raises(Malformed):
        Approved.parse(replace(made, **change))


@pytest.mark.parametrize(
    "conditions",
    [
        pytest.param(ApprovalConditions("../ward.txt", TEXT), id="a path"),
        pytest.param(ApprovalConditions("a\\b", TEXT), id="a path of another system"),
        pytest.param(ApprovalConditions("", TEXT), id="no name"),
        pytest.param(ApprovalConditions("ward.txt", replace(TEXT, size=MAX_CONDITIONS + 1)), id="too long"),
    ],
)
def test_conditions_are_a_file_name_and_a_bounded_text(conditions: ApprovalConditions) -> None:
    with pytest.raises(Malformed):
        sign_content(replace(APPROVED, conditions=conditions), ANNA.signer)


def test_an_approval_and_its_end_may_have_the_longest_names_and_texts() -> None:
    longest = ApprovalConditions("x" * 200, replace(TEXT, size=MAX_CONDITIONS))
    for approved in (
        replace(APPROVED, conditions=longest),
        replace(APPROVED, scope="x" * 100),
        replace(APPROVED, until=APPROVED.since + 1),
    ):
        assert Approved.parse(sign_content(approved, ANNA.signer).statement) == approved
    for ended in (replace(ENDED, text=""), replace(ENDED, text="x" * MAX_REASON)):
        assert ApprovalEnded.parse(sign_content(ended, ANNA.signer).statement) == ended
    with pytest.raises(Malformed):
        sign_content(replace(APPROVED, conditions=replace(longest, name="x" * 201)), ANNA.signer)
    with pytest.raises(Malformed):
        sign_content(replace(APPROVED, scope="x" * 101), ANNA.signer)
    with pytest.raises(Malformed):
        sign_content(replace(ENDED, text="x" * (MAX_REASON + 1)), ANNA.signer)


def test_conditions_have_no_more_than_a_name_and_a_text() -> None:
    made = sign_content(APPROVED, ANNA.signer).statement
    assert APPROVED.conditions is not None
    rider = {**made.body, "conditions": {**APPROVED.conditions.to_json(), "unheard-of": 1}}
    with pytest.raises(Malformed):
        Approved.parse(replace(made, body=rider))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"by": Author("identity", BEN.id)}, id="under the name of another officer"),
        pytest.param({"by": Author("node", ANNA.id)}, id="of a node"),
        pytest.param({"by": None}, id="without an author"),
        pytest.param({"predicate": "approved"}, id="another predicate"),
        pytest.param(
            {"body": {**sign_content(ENDED, ANNA.signer).statement.body, "more": 1}}, id="an additional member"
        ),
    ],
)
def test_an_invalid_end_of_an_approval_is_refused(change: dict[str, Any]) -> None:
    made = sign_content(ENDED, ANNA.signer).statement
    with pytest.raises(Malformed):
        ApprovalEnded.parse(replace(made, **change))


A, B, C = (Digest(letter * 64) for letter in "abc")


@pytest.mark.parametrize(
    ("places", "approvers", "filled"),
    [
        ([{A}, {B}], [{A}], 1),
        ([{A}, {B}], [{A}, {B}], 2),
        ([{A}, {A, B}], [{A}], 1),  # one person does not count for two places
        ([{A, B}, {A}], [{A}, {B}], 2),  # the first place is not filled by the only officer who may fill the second
        ([{A}, {B}], [{A, B}], 1),  # two names with one key
        ([{A, B, C}], [{A}, {B}, {C}], 1),  # a role is one place
        ([], [{A}], 0),
    ],
)
def test_each_approver_fills_one_place_and_each_place_is_filled_once(
    places: list[set[Digest]], approvers: list[set[Digest]], filled: int
) -> None:
    assert len(filled_places(places, approvers)) == filled


@given(st.lists(st.sets(st.sampled_from([A, B, C])), max_size=5), st.lists(st.sets(st.sampled_from([A, B, C]))))
def test_more_approvers_never_fill_fewer_places(places: list[set[Digest]], approvers: list[set[Digest]]) -> None:
    counts = [len(filled_places(places, approvers[:most])) for most in range(len(approvers) + 1)]
    assert counts == sorted(counts)
    final = filled_places(places, approvers)
    assert len(set(final.values())) == len(final)
    assert all(not places[place].isdisjoint(approvers[approver]) for place, approver in final.items())
