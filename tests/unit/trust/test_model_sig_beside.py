"""A `model.sig` that was added to an artifact later is no file of it, and hides no other change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from comity.trust.encoding import sha256
from comity.trust.evidence import MODEL_SIG, FoundFile
from comity.trust.verify import verify
from comity.verifier import collect_evidence
from support.case import case

SIGNATURE = b'{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}'


GOOD = case()


def test_a_signature_beside_the_artifact_fails_no_row_and_is_named_in_a_fact(tmp_path: Path) -> None:
    folder = GOOD.write(tmp_path)
    (folder / MODEL_SIG).write_bytes(SIGNATURE)
    evidence = collect_evidence(folder)
    verdict = verify(evidence, GOOD.policy)
    assert evidence.model_sig == SIGNATURE
    assert {row.name: row.state for row in verdict.rows} == {row.name: row.state for row in GOOD.verdict().rows}
    said = [fact for fact in verdict.row("bytes").facts if "beside" in fact.text]
    assert [(fact.basis, fact.evidence) for fact in said] == [("verified here", sha256(SIGNATURE))]


def test_a_file_of_that_name_that_was_not_read_as_a_signature_is_not_in_the_manifest() -> None:
    other = FoundFile(MODEL_SIG, 5, sha256(b"other"))
    evidence = replace(GOOD.evidence, files=(*(GOOD.evidence.files or ()), other), model_sig=SIGNATURE)
    assert verify(evidence, GOOD.policy).row("bytes").state == "fail"
    assert verify(replace(evidence, model_sig=None), GOOD.policy).row("bytes").state == "fail"


def test_a_link_of_that_name_is_not_read_and_fails_bytes(tmp_path: Path) -> None:
    folder = GOOD.write(tmp_path)
    (tmp_path / "elsewhere").write_bytes(SIGNATURE)
    (folder / MODEL_SIG).symlink_to(tmp_path / "elsewhere")
    evidence = collect_evidence(folder)
    assert evidence.model_sig is None
    assert verify(evidence, GOOD.policy).row("bytes").state == "fail"
