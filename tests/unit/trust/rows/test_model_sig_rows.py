"""The effect of a `model.sig` on a verdict: alone in a folder, beside a publication, and in conflict with one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.evidence import MODEL_SIG, Evidence, FoundFile, Verdict
from comity.trust.keys import PrivateKey
from comity.trust.model_signing.certificates import parse_roots
from comity.trust.model_signing.judging import ModelSigningRule
from comity.trust.policy import CosignerRule, Freshness, Policy
from comity.trust.verify import verify
from support.case import FILES as CASE_FILES
from support.case import case
from support.model_sig import (
    FILES,
    PUBLIC,
    Authority,
    flipped,
    found,
    posix,
    resigned,
    signed,
)
from support.world import identity

ALONE = Policy(model_signing=ModelSigningRule(keys=(PUBLIC,)), require=("artifact", "bytes", "signatures"))
NOBODY = Policy(require=ALONE.require)
REQUIRED = replace(ALONE, model_signing=replace(ALONE.model_signing, require=True))
PUBLISHED = case(files={**CASE_FILES, MODEL_SIG: signed(CASE_FILES)})


def alone(files: Mapping[str, bytes] = FILES, signature: bytes | None = None, policy: Policy = ALONE) -> Verdict:
    data = signed() if signature is None else signature
    return verify(Evidence(None, found({**files, MODEL_SIG: data}), model_sig=data), policy)


def states(verdict: Verdict, *rows: str) -> tuple[str, ...]:
    return tuple(verdict.row(row).state for row in rows or ("artifact", "bytes", "signatures"))


def test_a_folder_with_nothing_but_a_model_sig_by_a_listed_key_is_accepted() -> None:
    verdict = alone()
    assert states(verdict) == ("pass", "pass", "pass")
    assert verdict.accepted
    assert verdict.row("signatures").summary == f"model.sig by key {PUBLIC.hint[:16]} (ecdsa-p256), 4 files"
    assert verdict.row("bytes").summary == "4/4 files as model.sig lists them"
    assert set(states(verdict, "key policy", "transparency", "cosigners", "replicas")) == {"unknown"}


def test_the_artifact_is_the_one_that_publishing_the_folder_would_make() -> None:
    files = found({**FILES, MODEL_SIG: signed()})
    expected = Manifest.of(FileEntry(file.path, file.size, file.sha256) for file in files if file.sha256)
    assert alone().artifact == expected.digest
    assert "as found here, without a manifest" in alone().row("artifact").summary


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({**FILES, "config.json": b"x"}, "config.json: its bytes are not the signed ones"),
        ({**FILES, ".git/config": b"x"}, ".git/config: not signed"),
        ({**FILES, ".gitattributes": b""}, ".gitattributes: not signed"),
        ({path: data for path, data in FILES.items() if path != "empty.txt"}, "empty.txt: signed, and not here"),
    ],
)
@pytest.mark.parametrize("policy", [ALONE, NOBODY])
def test_a_folder_that_was_changed_after_signing_fails_bytes(
    files: dict[str, bytes], what: str, policy: Policy
) -> None:
    verdict = alone(files, policy=policy)
    assert what in verdict.row("bytes").summary
    assert (verdict.row("bytes").state, verdict.exit_status) == ("fail", 3)
    assert verdict.row("signatures").state == "fail"


def test_a_list_signed_by_unknown_keys_proves_nothing() -> None:
    verdict = alone(policy=NOBODY)
    assert states(verdict) == ("pass", "unknown", "unknown")
    assert verdict.exit_status == 5
    assert "the policy does not list the signer" in verdict.row("bytes").summary
    assert verdict.row("signatures").hint == "comity verify DIR --policy FILE, where [model_signing] lists its key"


def test_a_signature_that_does_not_hold_is_a_failure_and_not_a_lack() -> None:
    verdict = alone(signature=flipped(signed()))
    assert (verdict.row("signatures").state, verdict.exit_status) == ("fail", 3)
    assert states(alone(signature=b"junk")) == ("pass", "unknown", "fail")


def test_a_signature_that_cannot_be_checked_never_passes() -> None:
    def blake3(document: dict[str, Any]) -> None:
        predicate = document["predicate"]
        predicate["serialization"] = {"method": "files", "hash_type": "blake3"}
        names = sorted(FILES)
        predicate["resources"] = [{"name": n, "algorithm": "blake3", "digest": "00" * 32} for n in names]
        root = hashlib.sha256(bytes(32 * len(names))).hexdigest()
        document.update(subject=[{"name": "tiny", "digest": {"sha256": root}}])

    verdict = alone(signature=resigned(blake3))
    assert states(verdict) == ("pass", "not-checked", "not-checked")
    assert "signed by blake3, which is not computed here" in verdict.row("bytes").summary
    assert verdict.row("bytes").step == 2
    assert verdict.exit_status == 5


def test_a_link_in_a_signed_folder_is_no_file_of_the_artifact_and_fails_bytes() -> None:
    files = (*found({**FILES, MODEL_SIG: signed()}), FoundFile("link", 0, None, "link"))
    verdict = verify(Evidence(None, files, model_sig=signed()), ALONE)
    assert verdict.artifact == alone().artifact
    assert states(verdict) == ("pass", "fail", "fail")


def test_the_first_file_with_other_bytes_is_named_before_those_that_are_missing() -> None:
    files = {**FILES, "config.json": b"x", "more.txt": b"x"}
    del files["weights.safetensors"]
    summary = alone(files).row("bytes").summary
    assert summary == "config.json: its bytes are not the signed ones (2 wrong, 1 missing)"


def test_a_model_sig_makes_no_artifact_of_files_that_were_not_read() -> None:
    verdict = verify(Evidence(None, None, model_sig=signed()), ALONE)
    assert (verdict.row("artifact").state, verdict.row("artifact").summary) == ("unknown", "no manifest")
    assert verdict.exit_status == 5


def test_files_that_no_manifest_can_list_make_no_artifact() -> None:
    files = {**FILES, "Config.json": b""}
    verdict = alone(files, signature=signed(files))
    assert "no manifest can list these files" in verdict.row("artifact").summary
    assert verdict.exit_status == 3


def test_files_of_a_size_that_no_manifest_can_state_make_no_artifact() -> None:
    large = tuple(replace(file, size=2**53 - 1) for file in found({**FILES, MODEL_SIG: signed()}))
    verdict = verify(Evidence(None, large, model_sig=signed()), ALONE)
    assert "no manifest can list these files" in verdict.row("artifact").summary
    assert verdict.exit_status == 3


def published(policy: Policy, signature: bytes | None = None) -> Verdict:
    data = PUBLISHED.files[MODEL_SIG] if signature is None else signature
    return verify(replace(PUBLISHED.evidence, model_sig=data), policy)


def test_beside_a_valid_publication_a_model_sig_is_one_more_fact() -> None:
    both = replace(PUBLISHED.policy, model_signing=ALONE.model_signing)
    row = published(both).row("signatures")
    assert row.state == "pass"
    assert row.summary.startswith("published by Swiss AI")
    assert row.summary.endswith(f"; model.sig by key {PUBLIC.hint[:16]} (ecdsa-p256), 4 files")
    unlisted = published(PUBLISHED.policy).row("signatures")
    assert (unlisted.state, unlisted.summary) == ("pass", PUBLISHED.verdict().row("signatures").summary)
    said = [(fact.text, fact.basis) for fact in unlisted.facts if "model.sig" in fact.text]
    assert said == [(f"model.sig by an unlisted key, {PUBLIC.hint[:16]}: not checked", "stale or absent")]


def test_a_model_sig_that_the_manifest_lists_is_one_of_its_files() -> None:
    row = published(PUBLISHED.policy).row("bytes")
    assert (row.state, row.summary[:4]) == ("pass", "5/5 ")
    assert not [fact for fact in row.facts if "beside" in fact.text]


def test_a_failed_model_sig_does_not_fail_a_publication_unless_the_owner_requires_one() -> None:
    both = replace(PUBLISHED.policy, model_signing=ALONE.model_signing)
    bad = flipped(PUBLISHED.files[MODEL_SIG])
    assert published(both, bad).row("signatures").state == "pass"
    assert any("does not verify" in fact.text for fact in published(both, bad).row("signatures").facts)
    required = replace(PUBLISHED.policy, model_signing=REQUIRED.model_signing)
    assert published(required).row("signatures").state == "pass"
    assert published(required, bad).row("signatures").state == "fail"
    nothing = verify(PUBLISHED.evidence, required)
    assert nothing.row("signatures").summary == "the policy requires a model.sig; there is none"
    assert nothing.exit_status == 5


def test_a_listed_key_signs_where_the_publisher_is_not_the_one_that_the_policy_names() -> None:
    other = replace(PUBLISHED.policy, publishers=frozenset({identity("Rival", "CH").id}))
    assert published(other).row("signatures").state == "fail"
    verdict = published(replace(other, model_signing=ALONE.model_signing))
    assert states(verdict, "signatures", "key policy", "transparency") == ("pass", "fail", "unknown")


def test_beside_a_missing_publication_both_findings_are_shown() -> None:
    unproven = replace(PUBLISHED.evidence, claims=(), model_sig=PUBLISHED.files[MODEL_SIG])
    row = verify(unproven, PUBLISHED.policy).row("signatures")
    assert row.summary == f"no published statement about it; model.sig by an unlisted key, {PUBLIC.hint[:16]}"
    assert (row.state, row.hint) == ("unknown", "comity pull REF")
    bad = replace(unproven, model_sig=flipped(PUBLISHED.files[MODEL_SIG]))
    believing = replace(PUBLISHED.policy, model_signing=ALONE.model_signing)
    assert (verify(bad, believing).row("signatures").state, verify(bad, believing).exit_status) == ("fail", 3)
    stranger = replace(PUBLISHED.policy, publishers=frozenset({identity("Rival", "CH").id}))
    row = published(stranger).row("signatures")
    assert (row.state, row.cause) == ("fail", "short")
    assert "; model.sig by an unlisted key" in row.summary
    row = published(replace(believing, publishers=stranger.publishers), flipped(PUBLISHED.files[MODEL_SIG])).row(
        "signatures"
    )
    assert (row.state, row.cause) == ("fail", "short")
    assert row.summary.startswith("signed by Swiss AI") and "; model.sig" in row.summary


def expired(**policy: Any) -> tuple[Evidence, Policy]:
    """Published with a certificate's `model.sig` while it was valid; verified after it expired."""
    root = Authority.root()
    data = root.below().leaf(years=(2020, 2022)).sign(CASE_FILES)
    made = case(files={**CASE_FILES, MODEL_SIG: data}, time=posix(2021))
    rule = ModelSigningRule(roots=parse_roots(root.pem), require=True)
    evidence = replace(made.evidence, model_sig=data)
    return evidence, replace(made.policy, model_signing=rule, **policy)


def test_an_expired_certificate_passes_by_the_time_at_which_cosigners_saw_its_signature() -> None:
    evidence, policy = expired()
    row = verify(evidence, policy).row("signatures")
    assert row.state == "pass"
    assert any("2021-06-01T00:00:00Z, by when enough cosigners had seen it" in fact.text for fact in row.facts)
    bases = {fact.text: fact.basis for fact in row.facts}
    assert bases["revocation of its certificate is not checked"] == "stale or absent"


@pytest.mark.parametrize(
    "policy", [{"cosigners": CosignerRule(4)}, {"pins": ()}, {"freshness": None, "pins": ()}], ids=str
)
def test_too_few_cosigners_give_no_time(policy: dict[str, object]) -> None:
    evidence, asked = expired(**policy)
    assert verify(evidence, asked).row("signatures").state in ("fail", "not-checked")


def test_cosigners_of_an_artifact_without_this_signature_do_not_date_it() -> None:
    evidence, policy = expired()
    other = case(time=posix(2021))
    beside = replace(other.evidence, model_sig=evidence.model_sig)
    assert verify(beside, replace(policy, pins=other.policy.pins)).row("signatures").state == "fail"
    listed = case(files={**CASE_FILES, MODEL_SIG: b"another signature"}, time=posix(2021))
    swapped = replace(listed.evidence, model_sig=evidence.model_sig)
    assert verify(swapped, replace(policy, pins=listed.policy.pins)).row("signatures").state == "fail"


def test_the_policys_time_decides_about_certificates_too() -> None:
    root = Authority.root()
    data = root.below().leaf(years=(2024, 2027)).sign()
    rule = ModelSigningRule(roots=parse_roots(root.pem))
    for year, state in ((2026, "pass"), (2028, "fail")):
        policy = Policy(model_signing=rule, freshness=Freshness(posix(year), 0), require=ALONE.require)
        assert alone(signature=data, policy=policy).row("signatures").state == state


def test_a_key_of_another_curve_is_unknown_to_the_policy() -> None:
    other = PrivateKey.generate("ecdsa-p384")
    assert alone(signature=signed(key=other)).row("signatures").state == "unknown"
