"""`model.sig` files with arbitrary content, and evidence beside one to which anyone may have added."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity.trust.evidence import MAX_MODEL_SIG, MODEL_SIG, Evidence, FoundFile, InclusionEvidence
from comity.trust.model_signing.bundle import (
    Bundle,
    ChainMaterial,
    KeyMaterial,
    Material,
    ModelStatement,
    Resource,
    TrustedTime,
    sign_model,
    statement_of_files,
)
from comity.trust.model_signing.certificates import parse_roots
from comity.trust.model_signing.judging import ModelSigningRule, judge
from comity.trust.policy import CosignerRule, Policy
from comity.trust.verify import verify
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.case import FILES as CASE_FILES
from support.case import advisory, case, filled, nodes, release
from support.examples import examples
from support.model_sig import KEY, PUBLIC, Authority, flipped, found, posix, sealed, signed
from support.world import identity

SEGMENT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="/\\"), min_size=1)
PATH = (
    st.lists(SEGMENT.filter(lambda segment: segment not in (".", "..")), min_size=1, max_size=4)
    .map("/".join)
    .filter(lambda path: len(path) <= 200)
)
DIGEST = st.binary(min_size=32, max_size=32).map(bytes.hex)
MATERIAL: st.SearchStrategy[Material] = st.one_of(
    st.builds(KeyMaterial, st.text("0123456789abcdef", max_size=64), st.binary(max_size=200)),
    st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=10).map(lambda c: ChainMaterial(tuple(c))),
)
RULE = ModelSigningRule(keys=(PUBLIC,))


@given(MATERIAL, st.binary(max_size=500), st.binary(max_size=200))
def test_a_bundle_reads_back(material: Material, payload: bytes, signature: bytes) -> None:
    bundle = Bundle(material, payload, signature)
    assert Bundle.parse(bundle.encode()) == bundle


@given(
    st.dictionaries(PATH, DIGEST, max_size=6),
    SEGMENT.filter(lambda name: len(name) <= 200),
    st.booleans(),
    st.lists(PATH, max_size=3),
)
def test_a_list_of_files_reads_back(files: dict[str, str], model: str, symlinks: bool, ignored: list[str]) -> None:
    resources = tuple(Resource(path, digest) for path, digest in files.items())
    statement = ModelStatement(model, resources, "sha256", symlinks, tuple(ignored))
    assert ModelStatement.parse(statement.encode()) == statement


@given(st.dictionaries(st.tuples(PATH, st.integers(0, 2**40), st.integers(1, 2**40)), DIGEST, max_size=6))
def test_a_list_of_shards_reads_back(parts: dict[tuple[str, int, int], str]) -> None:
    resources = {f"{path}:{at}:{at + size}": Resource(path, d, at, at + size) for (path, at, size), d in parts.items()}
    statement = ModelStatement("m", tuple(resources.values()), shard_size=2**30)
    assert ModelStatement.parse(statement.encode()) == statement


@given(
    st.dictionaries(PATH, st.binary(max_size=5), max_size=5), st.dictionaries(PATH, st.binary(max_size=5), max_size=5)
)
@example({"a": b"1"}, {"a": b"1"})
@example({"a": b"1"}, {"a": b"1", ".git/x": b""})
def test_a_folder_passes_if_and_only_if_it_has_the_signed_files(
    listed: dict[str, bytes], here: dict[str, bytes]
) -> None:
    resources = tuple(Resource(path, sha256(data)) for path, data in listed.items())
    data = sealed(ModelStatement("m", resources).encode())
    state = judge(data, found(here), RULE).state
    expected = {p: d for p, d in here.items() if p != MODEL_SIG} == listed
    assert (state == "pass") == expected
    assert state in ("pass", "fail")


@given(st.dictionaries(PATH.map(lambda path: f"m/{path}"), st.binary(max_size=5), min_size=1, max_size=5))
def test_a_model_sig_signed_here_verifies_here(files: dict[str, bytes]) -> None:
    entries = [file for file in found(files) if file.sha256]
    statement = ModelStatement("m", tuple(Resource(file.path, str(file.sha256)) for file in entries))
    assert judge(sign_model(statement, KEY), entries, RULE).state == "pass"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=10,
)
GOOD = json.loads(signed())


def paths(value: object, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*at, key))


@given(st.sampled_from(list(paths(GOOD))[1:]), JSON)
@settings(max_examples=examples(200))
def test_a_bundle_with_anything_anywhere_is_judged_and_raises_nothing(at: tuple[str | int, ...], value: object) -> None:
    document = json.loads(signed())
    where = functools.reduce(lambda inner, key: inner[key], at[:-1], document)
    where[at[-1]] = value
    if document != GOOD:
        data = json.dumps(document).encode()
        assert judge(data, found(), RULE).state in ("pass", "fail", "unknown")
        assert judge(data, found(), ModelSigningRule()).state != "pass"


PAYLOAD = json.loads(Bundle.parse(signed()).payload)


@given(st.sampled_from(list(paths(PAYLOAD))[1:]), JSON)
@settings(max_examples=examples(200))
def test_a_signed_list_with_anything_anywhere_is_judged_and_raises_nothing(
    at: tuple[str | int, ...], value: object
) -> None:
    document = json.loads(Bundle.parse(signed()).payload)
    where = functools.reduce(lambda inner, key: inner[key], at[:-1], document)
    where[at[-1]] = value
    assert judge(sealed(json.dumps(document).encode()), found(), RULE).state in ("pass", "fail", "not-checked")


@given(st.binary(max_size=300))
def test_any_bytes_are_judged_and_never_pass(data: bytes) -> None:
    assert judge(data, found(), RULE).state == "fail"


def test_bounds_are_kept_before_memory_is_spent() -> None:
    with pytest.raises(Malformed, match="too large"):
        Bundle.parse(b" " * (MAX_MODEL_SIG + 1))
    with pytest.raises(Malformed):
        Bundle.parse(b"[" * 100_000)
    resources = [{"name": str(n), "algorithm": "sha256", "digest": "00" * 32} for n in range(100_001)]
    document = {**PAYLOAD, "predicate": {**PAYLOAD["predicate"], "resources": resources}}
    with pytest.raises(Malformed, match="must be a list of 0 to 100000 items"):
        ModelStatement.parse(json.dumps(document).encode())


ROOT = Authority.root()
BY_LEAF = ROOT.below().leaf(years=(2020, 2022)).sign(CASE_FILES)
BY_ROOT = ModelSigningRule(roots=parse_roots(ROOT.pem))
YEARS = st.lists(st.integers(2015, 2030), max_size=6)


@given(YEARS, YEARS)
def test_another_time_never_worsens_the_result_of_a_certificate(years: list[int], more: list[int]) -> None:
    def state(given: list[int]) -> str:
        return judge(BY_LEAF, found(CASE_FILES), BY_ROOT, [TrustedTime(posix(year), "then") for year in given]).state

    assert (state(years) == "pass") == any(year in (2020, 2021) for year in years)
    if state(years) == "pass":
        assert state([*more, *years]) == "pass"


CH, SG, ES, KR = nodes(4)
SIGNED = case(files={**CASE_FILES, MODEL_SIG: BY_LEAF}, time=posix(2021))
RIVAL = identity("Rival", "SG")
THEIRS = release(SIGNED.files, by=RIVAL, name="rival/tiny@v1")[1]


def proofs() -> Iterator[InclusionEvidence]:
    for said in (SIGNED.publication.line, THEIRS.line):
        for writer, cosigners in ((CH, (SG, ES)), (CH, (SG, ES, KR)), (SG, (ES, KR)), (CH, (SG,))):
            for year in (2019, 2021, 2025):
                log = filled(writer)
                log.append(said)
                yield log.proof(said, cosigners, posix(year))


PROOFS = list(proofs())
CLAIMS = [*SIGNED.claims, RIVAL.entry.line, THEIRS.line, *advisory(SIGNED)]
KEYED = replace(SIGNED.evidence, model_sig=signed(CASE_FILES))
CHANGES: tuple[dict[str, Any], ...] = (
    {},
    {"freshness": None},
    {"publishers": frozenset()},
    {"cosigners": CosignerRule(1, 1, ())},
)
POLICIES = [
    replace(SIGNED.policy, model_signing=rule, **more)
    for rule in (BY_ROOT, replace(BY_ROOT, require=True), RULE, replace(RULE, require=True))
    for more in CHANGES
]


def passed(evidence: Evidence, policy: Policy) -> set[str]:
    rows = ("artifact", "bytes", "signatures", "transparency", "cosigners")
    verdict = verify(evidence, policy)
    return {row for row in rows if verdict.row(row).state == "pass"}


@given(
    base=st.sampled_from([replace(SIGNED.evidence, model_sig=BY_LEAF), replace(KEYED, manifest=None), KEYED]),
    claims=st.lists(st.sampled_from(CLAIMS), max_size=len(CLAIMS)),
    some=st.lists(st.sampled_from(PROOFS), max_size=6),
    more_claims=st.lists(st.sampled_from(CLAIMS), max_size=len(CLAIMS)),
    more=st.lists(st.sampled_from(PROOFS), max_size=6),
)
@settings(max_examples=examples(40))
def test_more_evidence_never_worsens_the_result_of_a_model_sig(
    base: Evidence,
    claims: list[bytes],
    some: list[InclusionEvidence],
    more_claims: list[bytes],
    more: list[InclusionEvidence],
) -> None:
    evidence = replace(base, claims=tuple(claims), proofs=tuple(some))
    enriched = replace(base, claims=(*claims, *more_claims), proofs=(*some, *more))
    for policy in POLICIES:
        assert passed(evidence, policy) <= passed(enriched, policy)


def test_certificates_pass_in_some_of_these_and_fail_in_others() -> None:
    by_leaf = replace(SIGNED.evidence, model_sig=BY_LEAF)
    states = {verify(replace(by_leaf, proofs=(proof,)), POLICIES[4]).row("signatures").state for proof in PROOFS}
    assert states == {"pass", "fail"}


@given(st.lists(st.sampled_from(CLAIMS)), st.lists(st.sampled_from(PROOFS), max_size=4))
@settings(max_examples=examples(20))
def test_no_evidence_makes_an_invalid_model_sig_pass(claims: list[bytes], some: list[InclusionEvidence]) -> None:
    bad = replace(KEYED, manifest=None, claims=tuple(claims), proofs=tuple(some), model_sig=flipped(signed(CASE_FILES)))
    for policy in POLICIES:
        if policy.model_signing.require:
            assert verify(bad, policy).row("signatures").state != "pass"


def test_a_signature_of_nothing_is_not_made() -> None:
    with pytest.raises(Malformed, match="nothing to sign"):
        statement_of_files("m", [])
    assert judge(sealed(ModelStatement("m", ()).encode()), [FoundFile("x", 0, sha256(b""))], RULE).state == "fail"
