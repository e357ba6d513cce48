"""Standard predicates: the bounds of what is read, the members that are written, and how a person is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from comity.addons.attestations.predicates import (
    MAX_ALGORITHMS,
    ForeignStatement,
    ResourceDescriptor,
    SlsaProvenance,
    StandardPredicate,
    TestResult,
    VerificationSummary,
    encode_statement,
)
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity.trust.eval_result import Commitment, ThresholdClaim
from support.attesting import EVALUATION, PROVENANCE, SUMMARY, TESTS, payload

ARTIFACT = sha256(b"an artifact")
ALGORITHMS = {f"a{number:02}": "00" for number in range(MAX_ALGORITHMS + 1)}
MOST = dict(list(ALGORITHMS.items())[:-1])
CLAIM = EVALUATION.claims[0].to_json()


def read(predicate: StandardPredicate, place: str, value: Any) -> Any:
    """The predicate as it is read with `value` at the place `a.b.c`, and what is written of it then."""
    document = json.loads(payload(predicate, ARTIFACT))
    *outer, name = place.split(".")
    member = document["predicate"] if place != "predicateType" and outer[:1] != ["subject"] else document
    for each in outer:
        member = member[int(each) if each.isdigit() else each]
    member[name] = value
    return ForeignStatement.parse(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("predicate", "place", "good", "bad"),
    [
        (EVALUATION, "claims.0.metric", "x" * 200, "x" * 201),
        (EVALUATION, "claims.0.threshold", "-" + "9" * 18 + "." + "9" * 18, "9" * 19),
        (EVALUATION, "claims.0.threshold", "0", "00"),
        (EVALUATION, "claims", [CLAIM, CLAIM], []),
        (EVALUATION, "commitments.model.alg", "x" * 64, "x" * 65),
        (EVALUATION, "commitments.model.value", "x" * 512, "x" * 513),
        (EVALUATION, "suite.name", "x" * 200, "x" * 201),
        (EVALUATION, "assuranceLevel", "x" * 64, "x" * 65),
        (EVALUATION, "subjectProfile", "x" * 64, "x" * 65),
        (SUMMARY, "timeVerified", "2026-11-27T02:00:00.123456789+01:00", "2026-11-27T02:00:00.1234567890Z"),
        (SUMMARY, "timeVerified", "2026-11-27T02:00:00Z", "2026-11-27 02:00:00Z"),
        (SUMMARY, "timeVerified", "2026-11-27T02:00:00-00:00", "٢٠٢٦-11-27T02:00:00Z"),
        (SUMMARY, "policy", {"uri": "x"}, {}),
        (SUMMARY, "policy", {"name": "x"}, {"name": "", "uri": None}),
        (SUMMARY, "policy", {"digest": {"sha256": "00"}}, {"digest": {}}),
        (SUMMARY, "policy.digest", MOST, ALGORITHMS),
        (SUMMARY, "policy.digest", {}, []),
        (SUMMARY, "policy.digest", {"x" * 64: "!"}, {"x" * 65: "!"}),
        (SUMMARY, "policy.digest", {"sha256": "x" * 512}, {"sha256": "x" * 513}),
        (SUMMARY, "policy.digest", {"a.b_c-d": "00"}, {"": "00"}),
        (SUMMARY, "policy.digest", {"a": "00"}, {"a": 5}),
        (SUMMARY, "policy.digest", {"a": "00"}, {"a": "0 0"}),
        (PROVENANCE, "buildDefinition.externalParameters", {}, []),
        (PROVENANCE, "buildDefinition.externalParameters", {"x": []}, None),
        (TESTS, "url", None, 5),
        (TESTS, "passedTests", [], [""]),
        (TESTS, "predicateType", "x" * 512, "x" * 513),
        (TESTS, "subject.0.digest", {"sha256": "00"}, "sha256:00"),
    ],
)
def test_what_is_read_is_bounded(predicate: StandardPredicate, place: str, good: Any, bad: Any) -> None:
    assert read(predicate, place, good)
    with pytest.raises(Malformed):
        read(predicate, place, bad)


def test_a_statement_has_a_subject_and_each_subject_a_digest() -> None:
    document = json.loads(payload(TESTS, ARTIFACT)) | {"subject": []}
    with pytest.raises(Malformed):
        ForeignStatement.parse(json.dumps(document).encode())
    for subjects in ([ResourceDescriptor("a")], [ResourceDescriptor.of_sha256(ARTIFACT), ResourceDescriptor("a")]):
        with pytest.raises(Malformed, match="each subject needs a digest"):
            encode_statement(TESTS, subjects)


def test_digests_are_sorted_by_algorithm_when_they_are_read() -> None:
    found = read(SUMMARY, "policy.digest", {"sha512": "11", "md5": "22", "sha256": "00"}).predicate.policy
    assert found.digests == (("md5", "22"), ("sha256", "00"), ("sha512", "11"))


@pytest.mark.parametrize("digests", [(("b", "00"), ("a", "00")), (("a", "00"), ("a", "00")), tuple(ALGORITHMS.items())])
def test_a_descriptor_cannot_be_built_with_digests_that_are_not_read(digests: tuple[tuple[str, str], ...]) -> None:
    assert ResourceDescriptor("", "", tuple(MOST.items())).digests == tuple(MOST.items())
    with pytest.raises(Malformed, match="sorted by algorithm"):
        ResourceDescriptor("a", "", digests)


def test_members_without_a_value_are_not_written() -> None:
    descriptors = {"name": ResourceDescriptor("a"), "uri": ResourceDescriptor("", "a")}
    for name, descriptor in descriptors.items():
        assert descriptor.to_json() == {name: "a"}
    assert ResourceDescriptor.of_sha256(ARTIFACT).to_json() == {"digest": {"sha256": ARTIFACT}}
    assert "inputAttestations" not in replace(SUMMARY, inputs=()).to_json()
    bare = SlsaProvenance("b", b"{}", (), "farm")
    assert bare.to_json() == {
        "buildDefinition": {"buildType": "b", "externalParameters": {}},
        "runDetails": {"builder": {"id": "farm"}},
    }
    assert "url" not in replace(TESTS, url="").to_json()
    assert "harness" not in replace(EVALUATION, harness="").to_json()
    assert "preRegistration" not in replace(EVALUATION, registered=None).to_json()
    assert EVALUATION.to_json()["preRegistration"] == {"alg": "sha256", "value": "cc" * 32}
    assert Commitment("a", "b", True).to_json() == {"alg": "a", "value": "b", "salted": True}


def described(predicate: StandardPredicate) -> str:
    return "\n".join(predicate.describe())


def test_a_summary_is_told_with_its_policy_and_levels() -> None:
    policy = ResourceDescriptor("named", "urn:policy", (("sha256", "00"),))
    told = "PASSED under policy 00, at 2026-11-27T02:00:00Z, by https://verifier.example/slsa"
    levels = "levels: SLSA_BUILD_LEVEL_2, EXAMPLE_SCANNED; 1 input attestations"
    assert described(replace(SUMMARY, policy=policy)) == f"{told}\n{levels}"
    assert "policy urn:policy," in described(replace(SUMMARY, policy=replace(policy, digests=())))
    assert "policy named," in described(replace(SUMMARY, policy=ResourceDescriptor("named")))
    failed = VerificationSummary("v", SUMMARY.time, "r", policy, False, ())
    assert described(failed) == f"FAILED under policy 00, at {SUMMARY.time}, by v\nlevels: none; 0 input attestations"


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "it names no dependency"),
        (1, "from n0"),
        (3, "from n0, n1, n2"),
        (4, "from n0, n1, n2 and 1 more"),
        (9, "from n0, n1, n2 and 6 more"),
    ],
)
def test_provenance_is_told_with_its_first_dependencies(count: int, told: str) -> None:
    several = tuple(ResourceDescriptor(f"n{number}") for number in range(count))
    first = "built by https://builder.example/farm as https://builder.example/quantise/v1"
    assert PROVENANCE.describe() == (first, "from base, git+https://builder.example/tool")
    assert replace(PROVENANCE, dependencies=several).describe() == (first, told)
    named = (ResourceDescriptor("a", "b"), ResourceDescriptor("", "b", (("sha256", "00"),)))
    assert replace(PROVENANCE, dependencies=named).describe()[1] == "from a, b"
    assert (
        replace(PROVENANCE, dependencies=(ResourceDescriptor.of_sha256(ARTIFACT),)).describe()[1] == f"from {ARTIFACT}"
    )


def test_tests_are_told_by_number_and_the_first_that_failed_by_name() -> None:
    assert described(TESTS) == "FAILED: 2 passed, 1 warned, 1 failed: says no"
    assert described(TestResult("FAILED", (), failed=tuple("abcd"))) == "FAILED: 0 passed, 0 warned, 4 failed: a, b, c"
    assert described(TestResult("PASSED", ())) == "PASSED: 0 passed, 0 warned, 0 failed"


def test_an_evaluation_is_told_with_its_first_claims() -> None:
    first, *claims = EVALUATION.describe()
    assert first == (
        "refusals 1.2.0, 500 samples, at 2026-11-27T02:00:00Z, by https://lab.example, third_party; "
        f"criteria {'c' * 16}"
    )
    assert claims == ["refusal_rate >= 0.98: passed", "latency < 1.5: not passed"]
    several = tuple(ThresholdClaim(f"m{number}", "<", "1", True) for number in range(11))
    told = replace(EVALUATION, suite_version="", registered=None, claims=several).describe()
    assert told[0].startswith("refusals, 500 samples") and told[0].endswith("; no criteria registered before")
    assert told[1:] == tuple(f"m{number} < 1: passed" for number in range(10))
