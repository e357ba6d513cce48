"""Foreign attestations: any values of a predicate are read back; no bytes raise more than Malformed."""

from __future__ import annotations

import json
from typing import Any

from comity.addons.attestations.envelopes import ArtifactDigests, AttestationKey, judge_attestation
from comity.addons.attestations.predicates import (
    ForeignStatement,
    ResourceDescriptor,
    SlsaProvenance,
    TestResult,
    VerificationSummary,
    encode_statement,
)
from comity.trust.artifact import Manifest
from comity.trust.encoding import canonical
from comity.trust.eval_result import COMPARATORS, Commitment, SuiteResult, ThresholdClaim
from hypothesis import given
from hypothesis import strategies as st
from support.attesting import EVALUATION, PREDICATES, encoded, envelope, payload
from support.case import case
from support.foreign_keys import private_key, public_pem

GOOD = case()
DIGESTS = ArtifactDigests.of(Manifest.parse(GOOD.manifest))
KEY = private_key()
PINNED = AttestationKey.parse(public_pem(KEY))

texts = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=40)
maybe = st.just("") | texts
hexes = st.text("0123456789abcdef", min_size=2, max_size=64)
digests = st.dictionaries(st.sampled_from(("sha256", "sha512", "gitCommit", "dirHash")), hexes, min_size=1)
resources = st.builds(lambda name, uri, found: ResourceDescriptor(name, uri, tuple(sorted(found.items()))),
                      maybe, maybe, digests)  # fmt: skip
several = st.lists(resources, max_size=3).map(tuple)
names = st.lists(texts, max_size=4).map(tuple)
times = st.sampled_from(("2026-11-27T02:00:00Z", "1970-01-01T00:00:00.123456+14:00"))
decimals = st.from_regex(r"-?(0|[1-9][0-9]{0,8})(\.[0-9]{1,9})?", fullmatch=True)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
parameters = st.dictionaries(texts, values, max_size=4).map(canonical)
commitments = st.none() | st.builds(Commitment, texts, hexes, st.booleans())
registered = st.none() | st.builds(Commitment, texts, hexes)
claims = st.builds(ThresholdClaim, texts, st.sampled_from(COMPARATORS), decimals, st.booleans())
predicates = st.one_of(
    st.builds(VerificationSummary, texts, times, texts, resources, st.booleans(), names, several),
    st.builds(SlsaProvenance, texts, parameters, several, texts, maybe, st.just("") | times, st.just("") | times),
    st.builds(TestResult, st.sampled_from(("PASSED", "WARNED", "FAILED")), several, names, names, names, maybe),
    st.builds(
        SuiteResult, texts, times, texts, maybe, st.lists(claims, min_size=1, max_size=3).map(tuple),
        st.integers(0, 2**40), commitments, commitments, texts, texts, registered,
    ),
)  # fmt: skip


@given(predicates, st.lists(resources, min_size=1, max_size=3))
def test_every_predicate_round_trips(predicate: Any, subjects: list[ResourceDescriptor]) -> None:
    read = ForeignStatement.parse(encode_statement(predicate, subjects))
    assert (read.predicate, list(read.subjects)) == (predicate, subjects)


@given(st.binary(max_size=300) | values.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_raise_anything(data: bytes) -> None:
    assert judge_attestation(data, DIGESTS, [PINNED]).state == "unreadable"
    judge_attestation(encoded(envelope(KEY, data)), DIGESTS, [PINNED])


@given(st.sampled_from(PREDICATES), st.data())
def test_no_changed_member_is_verified(predicate: Any, data: st.DataObject) -> None:
    """A changed payload is never verified, and raises nothing, whatever its content."""
    made = envelope(KEY, payload(predicate, GOOD.artifact))
    said = json.loads(payload(predicate, GOOD.artifact))
    said["predicate"][data.draw(st.sampled_from(sorted(said["predicate"])))] = data.draw(values)
    other = envelope(KEY, canonical(said))["payload"]
    verdict = judge_attestation(encoded(made | {"payload": other}), DIGESTS, [PINNED])
    assert verdict.state != "verified" or other == made["payload"]


def test_the_samples_are_of_every_kind() -> None:
    assert len({type(each) for each in PREDICATES}) == 4 and EVALUATION in PREDICATES
