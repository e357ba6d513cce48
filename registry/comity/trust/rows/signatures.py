"""The rows *signatures* (3) and *key policy* (4), with facts on key compromise, `model.sig`, mirrors and checks.

A key compromise changes *key policy*, *time* and *disputes and advisories*, not the rows about signatures and logs,
because more evidence never makes the result worse (I4).

An OpenSSF `model.sig` adds to *signatures* and can replace a publication. A folder with a `model.sig` and no manifest
is also judged: the artifact is the one that publishing these files would make, and *bytes* passes if a listed signer
signed these files. The rows about publishers, logs and cosigners stay unknown. Claims and proofs affect a `model.sig`
only through the times at which its certificate may be valid; more times never make the result worse (I4).

Mirror statements of pinned members' nodes add facts to *artifact*; `verified` statements add facts to *policy*. They
are claims: no other verdict is adopted, and checks do not change a state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from comity.trust.artifact import RESERVED, FileEntry, Manifest
from comity.trust.charter.document import Body, Member
from comity.trust.claims import (
    MirrorEvidence,
    ParsedClaims,
    ProvenObservation,
    UpstreamChange,
    collect_mirror_evidence,
    member_label,
)
from comity.trust.encoding import sha256, short
from comity.trust.errors import ComityError
from comity.trust.evidence import MODEL_SIG, Evidence, Row, RowFact
from comity.trust.key_validity import CompromiseNotice, compromise_notices, is_logged_before
from comity.trust.model_signing.certificates import TrustedTime
from comity.trust.model_signing.judging import KeylessVerifier, ModelSignatureResult, judge
from comity.trust.rows.findings import Findings, cosigned_times, identity_label, key_algorithms, verified_fact
from comity.trust.statement import Entry
from comity.trust.statements import KEY_COMPROMISE, RESULTS, Verified, format_time
from comity.trust.upstream import Changed, Observed


def signatures_row(found: Findings) -> Row:
    claims, chosen = found.claims, found.chosen
    if chosen is not None and chosen.accepted is not False:
        text = (
            f"published by {identity_label(chosen.publication.publisher)}, {key_algorithms(chosen.publication.signer)}"
        )
        facts = (verified_fact(text, chosen.publication.entry.digest),)
        return Row("signatures", "pass", text, 3, facts=facts)
    if chosen is not None and chosen.named is not False:
        text = f"signed by {identity_label(chosen.publication.publisher)}: {chosen.key_validity.text}"
        facts = (verified_fact(text, chosen.publication.entry.digest),)
        if chosen.key_validity.accepted is None:
            return Row("signatures", "unknown", text, 3, "missing", facts, hint="comity pull REF")
        return Row("signatures", "fail", text, 3, "short", facts)
    if chosen is not None:
        publisher = identity_label(chosen.publication.publisher)
        text = f"signed by {publisher}, which is not the publisher that the policy names"
        return Row("signatures", "fail", text, 3, "short", (verified_fact(text, chosen.publication.entry.digest),))
    if claims.failed:
        text = "no published statement about this artifact verifies"
        return Row("signatures", "fail", text, 3, "false", (verified_fact(text),))
    if claims.unknown_publishers:
        text = f"the inception of publisher {short(claims.unknown_publishers[0])} is missing"
        return Row("signatures", "unknown", text, 3, "missing", hint="comity pull REF")
    return Row("signatures", "unknown", "no published statement about it", 3, "missing", hint="comity pull REF")


def key_policy_row(found: Findings) -> Row:
    chosen = found.chosen
    if chosen is None:
        return Row("key policy", "unknown", "no publisher to judge", 4, "missing")
    publisher = identity_label(chosen.publication.publisher)
    keys = verified_fact(chosen.key_validity.text, chosen.publication.entry.digest)
    if chosen.named is False:
        text = f"{publisher} is not the publisher that the policy names"
        return Row("key policy", "fail", text, 4, "short", (verified_fact(text, found.policy.digest), keys))
    if chosen.accepted is False:
        text = f"{publisher}: {chosen.key_validity.text}"
        if chosen.key_validity.accepted is None:
            return Row("key policy", "unknown", text, 4, "missing", (keys,))
        return Row("key policy", "fail", text, 4, "short", (keys,))
    if chosen.accepted is None:
        namespace = chosen.publication.published.name.namespace
        text = f"no publisher is pinned for namespace {namespace!r}; the signer is {publisher}"
        return Row("key policy", "unknown", text, 4, "short", (keys,))
    text = f"{publisher} is the publisher that the policy names"
    return Row("key policy", "pass", text, 4, facts=(verified_fact(text, found.policy.digest), keys))


def key_policy_with_compromise(row: Row, found: Findings) -> Row:
    """Row (4) with compromise notices: does not pass unless the statement is proven to be older than the compromise."""
    chosen = found.chosen
    notices = compromise_notices(found.claims, chosen.publication) if chosen else ()
    if chosen is None or not notices:
        return row
    facts = tuple(fact for notice in notices for fact in _notice_facts(notice, found))
    logged_before = [is_logged_before(notice, chosen.witnessed) for notice in notices]
    if all(logged_before) or row.state != "pass":
        return row.with_facts(facts)
    publisher = identity_label(chosen.publication.publisher)
    if False in logged_before:
        text = f"{publisher} reports that its key was compromised before this statement"
        return Row(row.name, "fail", text, row.step, "short", row.facts + facts)
    text = f"{publisher} reports that its key was compromised; no proof here that this statement is older"
    return Row(row.name, "unknown", text, row.step, "missing", row.facts + facts, hint="comity pull REF")


def time_with_compromise(row: Row, found: Findings) -> Row:
    """Row (14) with compromise notices as facts; its state, which is about freshness, does not change."""
    notices = compromise_notices(found.claims, found.chosen.publication) if found.chosen else ()
    return row.with_facts(tuple(_compromise_fact(notice) for notice in notices))


def advisories_with_compromise(row: Row, found: Findings) -> Row:
    """Row (13) with compromise notices as advisories of the publisher."""
    notices = compromise_notices(found.claims, found.chosen.publication) if found.chosen else ()
    if not notices:
        return row
    facts = tuple(
        RowFact(f"{KEY_COMPROMISE} ({notice.severity}): {notice.text}", "claimed", "its publisher", notice.entry.digest)
        for notice in notices
    )
    summary = row.summary if row.state == "fail" else f"{facts[0].text} says {facts[0].by}; {len(facts)} in all"
    return Row(row.name, "fail", summary, row.step, "short", row.facts + facts)


def _notice_facts(notice: CompromiseNotice, found: Findings) -> tuple[RowFact, RowFact]:
    assert found.chosen is not None
    line = found.chosen.publication.entry.digest
    before = is_logged_before(notice, found.chosen.witnessed)
    if before is None:
        return _compromise_fact(notice), RowFact(
            f"no proof of the index of this statement in {notice.origin}", "stale or absent"
        )
    where = "below that entry" if before else "at that entry or above it"
    return _compromise_fact(notice), verified_fact(f"this statement is in {notice.origin} {where}", line)


def _compromise_fact(notice: CompromiseNotice) -> RowFact:
    text = f"key {short(notice.key)} is compromised from entry {notice.index} of {notice.origin} on: {notice.text}"
    return RowFact(text, "claimed", "its publisher", notice.entry.digest)


def has_only_model_sig(evidence: Evidence) -> bool:
    """Whether there is a `model.sig` but no manifest, so that only the `model.sig` lists the artifact's files."""
    return evidence.manifest is None and evidence.model_sig is not None and evidence.files is not None


def artifact_of_files(evidence: Evidence) -> tuple[Manifest | None, Row]:
    """Step (1) without a manifest: the artifact that publishing the found files would make."""
    try:
        manifest = Manifest.of(
            FileEntry(file.path, file.size, file.sha256)
            for file in evidence.files or ()
            if file.sha256 is not None and not _reserved(file.path)
        )
        digest = manifest.digest
    except ComityError as error:
        return None, Row("artifact", "fail", f"no manifest can list these files: {error}", 1, "false")
    text = f"sha256:{digest}, {len(manifest.files)} files, {manifest.size} bytes, as found here, without a manifest"
    return manifest, Row("artifact", "pass", text, 1, facts=(verified_fact(text, digest),))


def judge_model_sig(found: Findings, keyless: KeylessVerifier | None) -> ModelSignatureResult | None:
    """Judge the `model.sig` at the time of the policy and at cosigned times; None if there is none."""
    evidence, policy = found.evidence, found.policy
    if evidence.model_sig is None:
        return None
    times = [TrustedTime(policy.freshness.as_of, "as_of of the policy")] if policy.freshness else []
    entry = found.manifest.by_path.get(MODEL_SIG)
    if entry is not None and entry.sha256 == sha256(evidence.model_sig):
        times += cosigned_times(found.evaluations, policy.cosigners)
    return judge(evidence.model_sig, evidence.files, policy.model_signing, times, keyless, partial=evidence.partial)


def bytes_by_model_sig(result: ModelSignatureResult, row: Row) -> Row:
    """Step (2) without a manifest: compare the files with the signed list."""
    coverage, digest = result.coverage, result.digest
    if result.statement is None or coverage is None:
        return replace(row, state="unknown", summary="there is no list of files", cause="missing", facts=())
    facts = _coverage_facts(result)
    if coverage.false or (coverage.missing and not result.partial):
        first = (*coverage.false, *coverage.missing)[0]
        text = f"{first} ({len(coverage.false)} wrong, {len(coverage.missing)} missing)"
        return Row("bytes", "fail", text, 2, "false", facts)
    whole = f"{coverage.right}/{len({r.path for r in result.statement.resources})} files as model.sig lists them"
    if coverage.tolerated:
        whole += f", {len(coverage.tolerated)} unsigned that the policy allows"
    if coverage.unchecked:
        return Row("bytes", "not-checked", f"{whole}; {coverage.unchecked[0]}", 2, "missing", facts)
    if result.signer.state != "pass":
        return Row("bytes", "unknown", f"{whole}, but the policy does not list the signer", 2, "missing", facts)
    if coverage.missing:
        return Row("bytes", "unknown", f"{whole}; partial by request", 2, "partial", facts)
    return Row("bytes", "pass", whole, 2, facts=(verified_fact(whole, digest), *facts))


def signatures_with_model_sig(row: Row, result: ModelSignatureResult | None, found: Findings) -> Row:
    """Row (3) with the `model.sig`. It passes by a publication or a `model.sig`, unless the policy requires a
    `model.sig`. A `model.sig` that fails does not affect a valid publication."""
    required = found.policy.model_signing.require
    if result is None:
        if not required:
            return row
        return replace(row, state="unknown", summary="the policy requires a model.sig; there is none", cause="missing")
    facts = (*row.facts, *_signer_facts(result))
    if result.state == "pass":
        text = f"{row.summary}; {result.text}" if row.state == "pass" else result.text
        return Row("signatures", "pass", text, row.step, facts=facts)
    if not required and row.state == "pass":
        return replace(row, facts=facts)
    if not required and not has_only_model_sig(found.evidence) and (row.state == "fail" or result.state != "fail"):
        return replace(row, summary=f"{row.summary}; {result.text}", facts=facts)
    hint = "" if result.state == "fail" else "comity verify DIR --policy FILE, where [model_signing] lists its key"
    return Row("signatures", result.state, result.text, row.step, result.cause, facts, hint)


def _signer_facts(result: ModelSignatureResult) -> tuple[RowFact, ...]:
    signer, digest = result.signer, result.digest
    notices = (signer.text, *signer.remarks) if signer.state in ("pass", "fail") else ()
    unchecked = signer.unchecked if notices else (f"{signer.text}: not checked",)
    return (
        *(verified_fact(text, digest) for text in notices),
        *(RowFact(text, "stale or absent", evidence=digest) for text in unchecked),
        *_coverage_facts(result),
    )


def _coverage_facts(result: ModelSignatureResult) -> tuple[RowFact, ...]:
    coverage, digest = result.coverage, result.digest
    if coverage is None:
        return ()
    seen = (*coverage.wrong, *coverage.unsigned, *coverage.tolerated)
    absent = (*coverage.missing, *coverage.unchecked)
    return tuple(verified_fact(text, digest) for text in seen) + tuple(
        RowFact(text, "stale or absent", evidence=digest) for text in absent
    )


def _reserved(path: str) -> bool:
    return any(f"{path}/".startswith(f"{folder}/") for folder in RESERVED)


OBTAINED_TEXTS = {"fetched": "mirrored from", "cache": "taken from a cache of", "carried": "imported from a folder as"}
LOST_TEXTS = {
    "repository": "the repository is gone",
    "commit": "the commit is gone",
    "revision": "the branch or tag is gone",
    "access": "access is refused",
}


def artifact_with_mirrors(row: Row, found: Findings) -> Row:
    """Row (1) with mirror facts; `short` if the policy requires more members than mirrored the artifact."""
    mirroring = collect_mirror_evidence(found.claims.entries, found.manifest.digest, found.bound)
    joined = row.with_facts(tuple(_mirroring_facts(mirroring)))
    needed = found.policy.upstream.corroborated
    named = any(evaluation.accepted is True for evaluation in found.evaluations)  # whichever gets furthest: I4
    if row.state != "pass" or named or mirroring.corroborated >= needed:
        return joined
    count = mirroring.corroborated
    text = f"{count} member{'s' * (count != 1)} mirrored it from its upstream, {needed} required"
    return Row(row.name, "unknown", text, row.step, "short", joined.facts, hint="comity pull REF")


def mirror_disputes(found: Findings) -> tuple[RowFact, ...]:
    """Facts on other bytes under the same commit, for row (13)."""
    return dispute_facts(collect_mirror_evidence(found.claims.entries, found.manifest.digest, found.bound))


def dispute_facts(mirroring: MirrorEvidence) -> tuple[RowFact, ...]:
    return tuple(
        RowFact(
            f"other bytes under {rival.observed.upstream.name}: sha256:{short(rival.observed.artifact)}, "
            f"{_origin_text(rival.observed)}; both are kept, and at least one is wrong",
            "claimed",
            member_names(rival.members),
            rival.entry.digest,
        )
        for rival in mirroring.rivals
    )


def member_names(members: Sequence[Member]) -> str:
    """`Institute A (CH), Institute B (ES)`."""
    return ", ".join(member_label(member) for member in members)


def _mirroring_facts(mirroring: MirrorEvidence) -> Iterator[RowFact]:
    for name in mirroring.names:
        members = mirroring.corroborating(name)
        if members:
            who = member_names(members)
            yield verified_fact(
                f"{name}: corroborated {len(members)}: these members signed that they fetched it: {who}"
            )
    for seen in mirroring.seen:
        yield RowFact(observed_text(seen), "claimed", member_names(seen.members), seen.entry.digest)
    for entry, change, members in mirroring.changes:
        yield RowFact(change_text(change), "claimed", member_names(members), entry.digest)


def observed_text(seen: ProvenObservation) -> str:
    """`mirrored from hf:org/name@… at https://…: 9/9 files equal what the upstream lists; not checked: commit`."""
    observed = seen.observed
    unchecked = f"; not checked: {', '.join(observed.unchecked)}" if observed.unchecked else ""
    return f"{_origin_text(observed)}: {observed.match_text}{unchecked}"


def change_text(change: UpstreamChange) -> str:
    """Describe a change at the upstream; it does not affect the mirrored bytes."""
    if isinstance(change, Changed):
        observed = change.upstream
        return (
            f"{observed.requested} of {observed.repository} is now at {change.successor}; the bytes here are unchanged"
        )
    return f"{LOST_TEXTS[change.lost]} upstream, when asked for {change.upstream.name}; the bytes here are unchanged"


def _origin_text(observed: Observed) -> str:
    at = f" at {observed.upstream.endpoint}" if observed.upstream.endpoint else ""
    return f"{OBTAINED_TEXTS[observed.obtained.how]} {observed.upstream.name}{at}"


def corroboration_facts(found: Findings) -> tuple[RowFact, ...]:
    return check_facts(found.checks, found.claims, found.policy.pins)


def check_facts(
    checks: Iterable[tuple[Entry, Verified]], claims: ParsedClaims, pins: Sequence[Body]
) -> tuple[RowFact, ...]:
    """Proven checks as facts: members first, under their name in a pinned body, so that many other authors cannot hide
    them."""
    members = {member.id for body in pins for member in body.members}
    ordered = sorted(checks, key=lambda check: check[1].by not in members)
    return tuple(
        RowFact(_check_text(observed), "claimed", _checker_label(observed, claims, pins), entry.digest)
        for entry, observed in ordered
    )


def _check_text(verified: Verified) -> str:
    rows = f"{len(verified.levels)} rows pass" if len(verified.levels) != 1 else "one row passes"
    result = RESULTS[verified.passed]
    return f"checked it on {format_time(verified.time)}, policy {short(verified.policy)}: {result}, {rows}"


def _checker_label(verified: Verified, claims: ParsedClaims, pins: Sequence[Body]) -> str:
    members = [member for body in pins if (member := body.member(verified.by)) is not None]
    if members:
        return member_label(members[-1])
    return identity_label(claims.inceptions[verified.by])
