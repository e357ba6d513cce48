"""Documents of evaluations and announcements: the bounds of each field, and which lines are about one evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from comity.rules.signing import sign_content
from comity.trust.claims import KnownAuthor, Vouch, read_claims
from comity.trust.encoding import Digest, canonical, sha256
from comity.trust.errors import Malformed
from comity.trust.evaluation import (
    MAX_CLAIMS,
    MAX_DOCUMENT,
    EvaluationAnnounced,
    EvaluationCriteria,
    EvaluationResults,
    Threshold,
    announcements_of,
    evaluations_of,
)
from comity.trust.statement import SideObject, Statement, Subject
from comity.trust.statement_kinds import EVALUATION_ANNOUNCED
from comity.trust.statements import Vouched
from support.world import Identity, identity

LAB, OTHER = identity("Evaluation lab", "ES"), identity("Another lab", "KR")
ARTIFACT = sha256(b"an artifact")
CRITERIA = EvaluationCriteria(
    "refusals", "1.2", (Threshold("rate", ">=", "0.98"),), 500, "ab" * 16, sha256(b"data"), "lm-eval", "0.9"
)
RESULTS = EvaluationResults(CRITERIA, ("0.991",), 1_795_000_000)


def thresholds(count: int) -> tuple[Threshold, ...]:
    return tuple(Threshold(f"metric {number}", ">=", "0") for number in range(count))


def criteria(**changed: Any) -> bytes:
    """The document with some members changed, as JSON."""
    return canonical(CRITERIA.to_json() | changed)


def results(**changed: Any) -> bytes:
    made: Mapping[str, Any] = {"schema": "comity/evaluation-results/v1", "criteria": CRITERIA.to_json()}
    return canonical({**made, "values": {"rate": "0.991"}, "at": 1_795_000_000} | changed)


@pytest.mark.parametrize(
    "made",
    [
        CRITERIA,
        replace(CRITERIA, suite="s" * 200, suite_version="v" * 100, harness="h" * 200, harness_version="w" * 100),
        replace(CRITERIA, suite_version="", harness="", harness_version="", dataset=None),
        replace(CRITERIA, thresholds=(Threshold("m" * 200, "<", "-1.5"),)),
        replace(CRITERIA, thresholds=thresholds(MAX_CLAIMS)),
    ],
)
def test_criteria_are_read_at_their_bounds(made: EvaluationCriteria) -> None:
    assert EvaluationCriteria.parse(made.encode()) == made


@pytest.mark.parametrize(
    "changed",
    [
        {"suite": {"name": "", "version": ""}},
        {"suite": {"name": "s" * 201, "version": ""}},
        {"suite": {"name": "s", "version": "v" * 101}},
        {"suite": {"name": "s", "version": "", "more": 1}},
        {"harness": {"name": "h" * 201, "version": ""}},
        {"harness": {"name": "", "version": "v" * 101}},
        {"harness": {"name": "", "version": "", "more": 1}},
        {"more": 1},
        {"schema": "comity/evaluation-criteria/v2"},
        {"claims": []},
        {"claims": [each.to_json() for each in thresholds(MAX_CLAIMS + 1)]},
        {"claims": [CRITERIA.thresholds[0].to_json()] * 2},
        {"claims": [{"metric": "m" * 201, "comparator": ">=", "threshold": "0"}]},
        {"claims": [{"metric": "", "comparator": ">=", "threshold": "0"}]},
        {"claims": [{"metric": "m", "comparator": "==", "threshold": "0"}]},
        {"claims": [{"metric": "m", "comparator": ">=", "threshold": "1e3"}]},
        {"claims": [{"metric": "m", "comparator": ">=", "threshold": "0", "more": 1}]},
        {"nonce": "AB" * 16},
        {"nonce": "ab" * 15},
        {"nonce": "ab" * 16 + "a"},
        {"dataset": "ab"},
        {"samples": -1},
    ],
)
def test_invalid_criteria_are_refused(changed: dict[str, Any]) -> None:
    assert EvaluationCriteria.parse(criteria()) == CRITERIA
    with pytest.raises(Malformed):
        EvaluationCriteria.parse(criteria(**changed))


def test_invalid_criteria_cannot_be_made() -> None:
    for wrong in ({"thresholds": ()}, {"thresholds": thresholds(MAX_CLAIMS + 1)}, {"nonce": "x" * 32}):
        with pytest.raises(Malformed):
            replace(CRITERIA, **wrong)


@pytest.mark.parametrize(
    "changed",
    [
        {"schema": "comity/evaluation-criteria/v1"},
        {"more": 1},
        {"values": {}},
        {"values": {"rate": "0.991", "more": "1"}},
        {"values": {"rate": 0.991}},
        {"criteria": {}},
        {"at": -1},
    ],
)
def test_invalid_results_are_refused(changed: dict[str, Any]) -> None:
    assert EvaluationResults.parse(results()) == RESULTS
    with pytest.raises(Malformed):
        EvaluationResults.parse(results(**changed))


def test_results_have_one_value_for_each_threshold() -> None:
    for values in ((), ("1", "2")):
        with pytest.raises(Malformed):
            EvaluationResults(CRITERIA, values, 5)


def test_the_predicate_for_other_tools_names_the_data_unless_it_is_secret() -> None:
    said = RESULTS.predicate(LAB.id, ARTIFACT)
    assert said.dataset is not None and said.dataset.value == sha256(b"data")
    assert said.model is not None and said.model.value == ARTIFACT
    assert [(each.metric, each.passed) for each in said.claims] == [("rate", True)]
    secret = replace(RESULTS, criteria=replace(CRITERIA, dataset=None))
    assert secret.predicate(LAB.id, ARTIFACT).dataset is None


def test_an_announcement_has_an_author_one_subject_and_its_own_predicate() -> None:
    body, subjects = {"criteria": CRITERIA.digest}, (Subject("", ARTIFACT),)
    good = Statement(EVALUATION_ANNOUNCED, subjects, LAB.inception.author, body)
    assert EvaluationAnnounced.parse(good) == EvaluationAnnounced(LAB.inception.author, ARTIFACT, CRITERIA.digest)
    for change in ({"by": None}, {"predicate": "evaluation-result"}, {"subjects": subjects * 2}):
        with pytest.raises(Malformed):
            EvaluationAnnounced.parse(replace(good, **change))


def vouch(by: Identity = LAB, kind: str = "evaluated", document: bytes | None = results(), text: str = "") -> Vouch:
    said = Vouched(by.inception.author, ARTIFACT, kind, text, None if document is None else SideObject.of(document))
    return Vouch(sign_content(said, by.signer), said, KnownAuthor(by.id, by.inception.display))


def found(*vouches: Vouch, objects: tuple[bytes, ...] = (results(),)) -> list[tuple[str, EvaluationResults]]:
    listed = evaluations_of(vouches, {sha256(data): data for data in objects})
    return [(each.vouched.text, read) for each, read in listed]


def test_evaluations_are_vouched_statements_of_that_kind_whose_results_are_here() -> None:
    other = replace(RESULTS, values=("0.1",))
    vouches = (
        vouch(kind="rehashed", text="of another kind"),
        vouch(document=None, text="without a document"),
        vouch(document=b"absent", text="with an absent document"),
        vouch(document=b"text", text="with another document"),
        vouch(text="first"),
        vouch(OTHER, document=other.encode(), text="second"),
        vouch(OTHER, text="third"),
    )
    here = (results(), other.encode(), b"text")
    assert found(*vouches, objects=here) == [("first", RESULTS), ("second", other), ("third", RESULTS)]


def test_a_document_is_read_up_to_its_bound() -> None:
    made = EvaluationResults(replace(CRITERIA, thresholds=thresholds(MAX_CLAIMS)), ("0",) * MAX_CLAIMS, 5)
    assert found(vouch(document=made.encode()), objects=(made.encode(),)) == [("", made)]
    longer = results(more="x" * MAX_DOCUMENT)
    assert found(vouch(document=longer), objects=(longer,)) == []


def test_announcements_of_an_evaluation_are_those_of_its_author_artifact_and_criteria() -> None:
    def said(by: Identity = LAB, artifact: Digest = ARTIFACT, digest: Digest = CRITERIA.digest) -> bytes:
        return sign_content(EvaluationAnnounced(by.inception.author, artifact, digest), by.signer).line

    own = sorted((said() for _ in range(4)), key=sha256)
    others = [said(OTHER), said(artifact=sha256(b"other")), said(digest=sha256(b"other")), vouch().entry.line]
    for lines in ([*own, *others], [*others, *reversed(own)]):
        claims = read_claims(lines, ARTIFACT)
        assert [entry.line for entry in announcements_of(vouch(), RESULTS, claims, ARTIFACT)] == own
    assert announcements_of(vouch(), RESULTS, read_claims(others, ARTIFACT), ARTIFACT) == []
