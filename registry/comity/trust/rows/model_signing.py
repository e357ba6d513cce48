"""What an OpenSSF `model.sig` says: it joins the row *signatures*, and stands in where there is no publication.

A folder with a `model.sig` and no manifest is judged as well: the artifact is what publishing these files would make,
and its bytes are right where the files are those that a signer whom the owner listed has signed. Rows about publishers,
logs and cosigners stay unknown. Claims and proofs change nothing about a `model.sig` but the moments at which its
certificate may be valid, of which more is never less (I4).
"""

from __future__ import annotations

from dataclasses import replace

from comity.trust.digest import sha256
from comity.trust.errors import ComityError
from comity.trust.evidence import MODEL_SIG, Evidence
from comity.trust.manifest import RESERVED, FileEntry, Manifest
from comity.trust.model_signing import Judgement, KeylessVerifier, Moment, judge
from comity.trust.rows.findings import Findings
from comity.trust.rows.moments import cosigned_moments
from comity.trust.rows.wording import here
from comity.trust.verdict import Fact, Row


def sole(evidence: Evidence) -> bool:
    """Whether a `model.sig` is all that says what belongs to the artifact."""
    return evidence.manifest is None and evidence.model_sig is not None and evidence.files is not None


def artifact_of_files(evidence: Evidence) -> tuple[Manifest | None, Row]:
    """The artifact that publishing the files found would make: step (1) where nobody gave a manifest."""
    try:
        manifest = Manifest.of(
            FileEntry(file.path, file.size, file.sha256)
            for file in evidence.files or ()
            if file.sha256 is not None and not _reserved(file.path)
        )
        digest = manifest.digest
    except ComityError as error:
        return None, Row("artifact", "fail", f"no manifest can list these files: {error}", 1, "false")
    text = f"sha256:{digest}, {len(manifest.files)} files, {manifest.size} bytes, as found here; no manifest came along"
    return manifest, Row("artifact", "pass", text, 1, facts=(here(text, digest),))


def judge_model_sig(found: Findings, keyless: KeylessVerifier | None) -> Judgement | None:
    """None where there is no `model.sig`."""
    evidence, policy = found.evidence, found.policy
    if evidence.model_sig is None:
        return None
    moments = [Moment(policy.freshness.as_of, "as_of of the policy")] if policy.freshness else []
    entry = found.manifest.by_path.get(MODEL_SIG)
    if entry is not None and entry.sha256 == sha256(evidence.model_sig):
        moments += cosigned_moments(found.standings, policy.cosigners)
    return judge(evidence.model_sig, evidence.files, policy.model_signing, moments, keyless, partial=evidence.partial)


def bytes_as_signed(judgement: Judgement, row: Row) -> Row:
    """Step (2) where nobody gave a manifest: the files against the signed list."""
    coverage, digest = judgement.coverage, judgement.digest
    if judgement.statement is None or coverage is None:
        return replace(row, state="unknown", summary="nothing says which files belong here", cause="missing", facts=())
    facts = _coverage_facts(judgement)
    if coverage.false or (coverage.missing and not judgement.partial):
        first = (*coverage.false, *coverage.missing)[0]
        text = f"{first} ({len(coverage.false)} wrong, {len(coverage.missing)} missing)"
        return Row("bytes", "fail", text, 2, "false", facts)
    whole = f"{coverage.right}/{len({r.path for r in judgement.statement.resources})} files as model.sig lists them"
    if coverage.tolerated:
        whole += f", {len(coverage.tolerated)} unsigned that the policy allows"
    if coverage.unchecked:
        return Row("bytes", "not-checked", f"{whole}; {coverage.unchecked[0]}", 2, "missing", facts)
    if judgement.signer.state != "pass":
        return Row("bytes", "unknown", f"{whole}, but nobody you listed signed that", 2, "missing", facts)
    if coverage.missing:
        return Row("bytes", "unknown", f"{whole}; partial by request", 2, "partial", facts)
    return Row("bytes", "pass", whole, 2, facts=(here(whole, digest), *facts))


def signed_row(row: Row, judgement: Judgement | None, found: Findings) -> Row:
    """Step (3): the row *signatures* with what the `model.sig` says. It passes by either, unless the owner requires a
    `model.sig`; a `model.sig` that fails takes nothing away from a publication that stands."""
    required = found.policy.model_signing.require
    if judgement is None:
        if not required:
            return row
        return replace(row, state="unknown", summary="the policy requires a model.sig; there is none", cause="missing")
    facts = (*row.facts, *_facts(judgement))
    if judgement.state == "pass":
        text = f"{row.summary}; {judgement.text}" if row.state == "pass" else judgement.text
        return Row("signatures", "pass", text, row.step, facts=facts)
    if not required and row.state == "pass":
        return replace(row, facts=facts)
    if not required and not sole(found.evidence) and (row.state == "fail" or judgement.state != "fail"):
        return replace(row, summary=f"{row.summary}; {judgement.text}", facts=facts)
    hint = "" if judgement.state == "fail" else "comity verify DIR --policy FILE, where [model_signing] lists its key"
    return Row("signatures", judgement.state, judgement.text, row.step, judgement.cause, facts, hint)


def _facts(judgement: Judgement) -> tuple[Fact, ...]:
    signer, digest = judgement.signer, judgement.digest
    told = (signer.text, *signer.remarks) if signer.state in ("pass", "fail") else ()
    untold = signer.untold if told else (f"{signer.text}: not checked",)
    return (
        *(here(text, digest) for text in told),
        *(Fact(text, "stale or absent", evidence=digest) for text in untold),
        *_coverage_facts(judgement),
    )


def _coverage_facts(judgement: Judgement) -> tuple[Fact, ...]:
    coverage, digest = judgement.coverage, judgement.digest
    if coverage is None:
        return ()
    seen = (*coverage.wrong, *coverage.unsigned, *coverage.tolerated)
    absent = (*coverage.missing, *coverage.unchecked)
    return tuple(here(text, digest) for text in seen) + tuple(
        Fact(text, "stale or absent", evidence=digest) for text in absent
    )


def _reserved(path: str) -> bool:
    return any(f"{path}/".startswith(f"{folder}/") for folder in RESERVED)
