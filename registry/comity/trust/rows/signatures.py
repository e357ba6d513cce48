"""Who signed that they published it, and whether they are whom the owner expects.

What a publisher's word about lost keys does to the rows about its keys and about time.

Rows about signatures and logs stay as they are: the signature is what it is, and more evidence never makes less of it.


What an OpenSSF `model.sig` says: it joins the row *signatures*, and stands in where there is no publication.

A folder with a `model.sig` and no manifest is judged as well: the artifact is what publishing these files would make,
and its bytes are right where the files are those that a signer whom the owner listed has signed. Rows about publishers,
logs and cosigners stay unknown. Claims and proofs change nothing about a `model.sig` but the moments at which its
certificate may be valid, of which more is never less (I4).


Where it was mirrored from, as nodes of pinned members claim: facts that join the row *artifact*.

Who else checked it, under which policy, and what they say came out: facts that join the row *policy*.

They are claims. Nobody's verdict is taken over, and none of them changes a state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from comity.trust.artifact import RESERVED, FileEntry, Manifest
from comity.trust.charter.document import Body, Member
from comity.trust.claims import MirrorEvidence, News, ProvenObservation, Readings, weigh
from comity.trust.encoding import sha256, short
from comity.trust.errors import ComityError
from comity.trust.evidence import MODEL_SIG, Evidence, Row, RowFact
from comity.trust.key_validity import CompromiseNotice, notices, stands_before
from comity.trust.model_signing.certificates import TrustedTime
from comity.trust.model_signing.judging import KeylessVerifier, ModelSignatureResult, judge
from comity.trust.rows.findings import Findings, algorithms, cosigned_moments, here, who
from comity.trust.statement import Entry
from comity.trust.statements import KEY_COMPROMISE, RESULTS, Verified, moment
from comity.trust.upstream import Changed, Observed


def signatures_row(found: Findings) -> Row:
    readings, chosen = found.readings, found.chosen
    if chosen is not None and chosen.accepted is not False:
        text = f"published by {who(chosen.publication.publisher)}, {algorithms(chosen.publication.signer)}"
        facts = (here(text, chosen.publication.entry.digest),)
        return Row("signatures", "pass", text, 3, facts=facts)
    if chosen is not None and chosen.named is not False:
        text = f"signed by {who(chosen.publication.publisher)}: {chosen.tenure.text}"
        facts = (here(text, chosen.publication.entry.digest),)
        if chosen.tenure.accepted is None:
            return Row("signatures", "unknown", text, 3, "missing", facts, hint="comity pull REF")
        return Row("signatures", "fail", text, 3, "short", facts)
    if chosen is not None:
        text = f"signed by {who(chosen.publication.publisher)}, who is not the publisher that the policy names"
        return Row("signatures", "fail", text, 3, "short", (here(text, chosen.publication.entry.digest),))
    if readings.failed:
        text = "no published statement about this artifact verifies"
        return Row("signatures", "fail", text, 3, "false", (here(text),))
    if readings.orphans:
        text = f"the record of publisher {short(readings.orphans[0])} is not here"
        return Row("signatures", "unknown", text, 3, "missing", hint="comity pull REF")
    return Row("signatures", "unknown", "nobody says that they published this", 3, "missing", hint="comity pull REF")


def key_policy_row(found: Findings) -> Row:
    chosen = found.chosen
    if chosen is None:
        return Row("key policy", "unknown", "no publisher to judge", 4, "missing")
    publisher = who(chosen.publication.publisher)
    keys = here(chosen.tenure.text, chosen.publication.entry.digest)
    if chosen.named is False:
        text = f"{publisher} is not the publisher that the owner's trust names"
        return Row("key policy", "fail", text, 4, "short", (here(text, found.policy.digest), keys))
    if chosen.accepted is False:
        text = f"{publisher}: {chosen.tenure.text}"
        if chosen.tenure.accepted is None:
            return Row("key policy", "unknown", text, 4, "missing", (keys,))
        return Row("key policy", "fail", text, 4, "short", (keys,))
    if chosen.accepted is None:
        text = f"nobody is pinned for namespace {chosen.publication.published.name.namespace!r}; signer is {publisher}"
        return Row("key policy", "unknown", text, 4, "short", (keys,))
    text = f"{publisher} is the publisher that the owner's trust names"
    return Row("key policy", "pass", text, 4, facts=(here(text, found.policy.digest), keys))


def keys_in_other_hands(row: Row, found: Findings) -> Row:
    """The key policy row: it does not pass for what is not proven to have been said before a key was lost."""
    chosen = found.chosen
    told = notices(found.readings, chosen.publication) if chosen else ()
    if chosen is None or not told:
        return row
    facts = tuple(fact for notice in told for fact in _notice_facts(notice, found))
    standings = [stands_before(notice, chosen.witnessed) for notice in told]
    if all(standings) or row.state != "pass":
        return row.joined(facts)
    publisher = who(chosen.publication.publisher)
    if False in standings:
        text = f"{publisher} says that its key was in other hands when this was said"
        return Row(row.name, "fail", text, row.step, "short", row.facts + facts)
    text = f"{publisher} says that its key fell into other hands; no proof here that this was said before"
    return Row(row.name, "unknown", text, row.step, "missing", row.facts + facts, hint="comity pull REF")


def time_of_loss(row: Row, found: Findings) -> Row:
    """The time row tells from when on; freshness is another question, and its answer stays."""
    told = notices(found.readings, found.chosen.publication) if found.chosen else ()
    return row.joined(tuple(_told(notice) for notice in told))


def warning_of_loss(row: Row, found: Findings) -> Row:
    """The row about warnings names the loss as what it is."""
    told = notices(found.readings, found.chosen.publication) if found.chosen else ()
    if not told:
        return row
    facts = tuple(
        RowFact(f"{KEY_COMPROMISE} ({notice.severity}): {notice.text}", "claimed", "its publisher", notice.entry.digest)
        for notice in told
    )
    summary = row.summary if row.state == "fail" else f"{facts[0].text} says {facts[0].by}; {len(facts)} in all"
    return Row(row.name, "fail", summary, row.step, "short", row.facts + facts)


def _notice_facts(notice: CompromiseNotice, found: Findings) -> tuple[RowFact, RowFact]:
    assert found.chosen is not None
    line = found.chosen.publication.entry.digest
    before = stands_before(notice, found.chosen.witnessed)
    if before is None:
        return _told(notice), RowFact(f"no proof of where this stands in {notice.origin}", "stale or absent")
    where = "below that entry" if before else "at that entry or behind it"
    return _told(notice), here(f"this stands in {notice.origin} {where}", line)


def _told(notice: CompromiseNotice) -> RowFact:
    text = f"key {short(notice.key)} was in other hands from entry {notice.index} of {notice.origin} on: {notice.text}"
    return RowFact(text, "claimed", "its publisher", notice.entry.digest)


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


def judge_model_sig(found: Findings, keyless: KeylessVerifier | None) -> ModelSignatureResult | None:
    """None where there is no `model.sig`."""
    evidence, policy = found.evidence, found.policy
    if evidence.model_sig is None:
        return None
    moments = [TrustedTime(policy.freshness.as_of, "as_of of the policy")] if policy.freshness else []
    entry = found.manifest.by_path.get(MODEL_SIG)
    if entry is not None and entry.sha256 == sha256(evidence.model_sig):
        moments += cosigned_moments(found.standings, policy.cosigners)
    return judge(evidence.model_sig, evidence.files, policy.model_signing, moments, keyless, partial=evidence.partial)


def bytes_as_signed(judgement: ModelSignatureResult, row: Row) -> Row:
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


def signed_row(row: Row, judgement: ModelSignatureResult | None, found: Findings) -> Row:
    """Step (3): the row *signatures* with what the `model.sig` says. It passes by either, unless the owner requires a
    `model.sig`; a `model.sig` that fails takes nothing away from a publication that stands."""
    required = found.policy.model_signing.require
    if judgement is None:
        if not required:
            return row
        return replace(row, state="unknown", summary="the policy requires a model.sig; there is none", cause="missing")
    facts = (*row.facts, *_signer_facts(judgement))
    if judgement.state == "pass":
        text = f"{row.summary}; {judgement.text}" if row.state == "pass" else judgement.text
        return Row("signatures", "pass", text, row.step, facts=facts)
    if not required and row.state == "pass":
        return replace(row, facts=facts)
    if not required and not sole(found.evidence) and (row.state == "fail" or judgement.state != "fail"):
        return replace(row, summary=f"{row.summary}; {judgement.text}", facts=facts)
    hint = "" if judgement.state == "fail" else "comity verify DIR --policy FILE, where [model_signing] lists its key"
    return Row("signatures", judgement.state, judgement.text, row.step, judgement.cause, facts, hint)


def _signer_facts(judgement: ModelSignatureResult) -> tuple[RowFact, ...]:
    signer, digest = judgement.signer, judgement.digest
    told = (signer.text, *signer.remarks) if signer.state in ("pass", "fail") else ()
    untold = signer.untold if told else (f"{signer.text}: not checked",)
    return (
        *(here(text, digest) for text in told),
        *(RowFact(text, "stale or absent", evidence=digest) for text in untold),
        *_coverage_facts(judgement),
    )


def _coverage_facts(judgement: ModelSignatureResult) -> tuple[RowFact, ...]:
    coverage, digest = judgement.coverage, judgement.digest
    if coverage is None:
        return ()
    seen = (*coverage.wrong, *coverage.unsigned, *coverage.tolerated)
    absent = (*coverage.missing, *coverage.unchecked)
    return tuple(here(text, digest) for text in seen) + tuple(
        RowFact(text, "stale or absent", evidence=digest) for text in absent
    )


def _reserved(path: str) -> bool:
    return any(f"{path}/".startswith(f"{folder}/") for folder in RESERVED)


HOW = {"fetched": "mirrored from", "cache": "taken from a cache of", "carried": "carried here as"}
LOST = {
    "repository": "the repository is gone",
    "commit": "the commit is gone",
    "revision": "the branch or tag is gone",
    "access": "it is no longer given out",
}


def artifact_as_mirrored(row: Row, found: Findings) -> Row:
    """The row *artifact*, with where it is from; short where the policy asks for more members than saw it there."""
    mirroring = weigh(found.readings.entries, found.manifest.digest, found.bound)
    joined = row.joined(tuple(_mirroring_facts(mirroring)))
    needed = found.policy.upstream.corroborated
    named = any(standing.accepted is True for standing in found.standings)  # whichever gets furthest: I4
    if row.state != "pass" or named or mirroring.corroborated >= needed:
        return joined
    count = mirroring.corroborated
    text = f"{count} member{'s' * (count != 1)} mirrored it from its upstream, {needed} required"
    return Row(row.name, "unknown", text, row.step, "short", joined.facts, hint="comity pull REF")


def mirror_disputes(found: Findings) -> tuple[RowFact, ...]:
    """Nodes that saw other bytes under the same commit, for the row about disputes."""
    return dispute_facts(weigh(found.readings.entries, found.manifest.digest, found.bound))


def dispute_facts(mirroring: MirrorEvidence) -> tuple[RowFact, ...]:
    return tuple(
        RowFact(
            f"other bytes under {rival.observed.upstream.name}: sha256:{short(rival.observed.artifact)}, "
            f"{_how(rival.observed)}; both are kept, and one is wrong",
            "claimed",
            names(rival.members),
            rival.entry.digest,
        )
        for rival in mirroring.rivals
    )


def names(members: Sequence[Member]) -> str:
    """`Institute A (CH), Institute B (ES)`."""
    return ", ".join(f"{member.name} ({member.jurisdiction})" for member in members)


def _mirroring_facts(mirroring: MirrorEvidence) -> Iterator[RowFact]:
    for name in mirroring.names:
        members = mirroring.corroborating(name)
        if members:
            who = names(members)
            yield here(f"{name}: corroborated {len(members)}: so many members signed that they fetched it there: {who}")
    for seen in mirroring.seen:
        yield RowFact(observed_text(seen), "claimed", names(seen.members), seen.entry.digest)
    for entry, news, members in mirroring.news:
        yield RowFact(news_text(news), "claimed", names(members), entry.digest)


def observed_text(seen: ProvenObservation) -> str:
    """`mirrored from hf:org/name@… at https://…: 9/9 files equal what the upstream lists; not checked: commit`."""
    said = seen.observed
    unchecked = f"; not checked: {', '.join(said.unchecked)}" if said.unchecked else ""
    return f"{_how(said)}: {said.likeness}{unchecked}"


def news_text(news: News) -> str:
    """What became of the upstream, and that it changes nothing here."""
    if isinstance(news, Changed):
        said = news.upstream
        return f"{said.requested} of {said.repository} stands at {news.successor} since; not these bytes"
    return f"{LOST[news.lost]} upstream, as asked for {news.upstream.name}; the bytes here are not"


def _how(said: Observed) -> str:
    at = f" at {said.upstream.endpoint}" if said.upstream.endpoint else ""
    return f"{HOW[said.obtained.how]} {said.upstream.name}{at}"


def corroboration_facts(found: Findings) -> tuple[RowFact, ...]:
    return check_facts(found.checks, found.readings, found.policy.pins)


def check_facts(
    checks: Iterable[tuple[Entry, Verified]], readings: Readings, pins: Sequence[Body]
) -> tuple[RowFact, ...]:
    """Proven checks (`weigh_checks`) as facts: members, under the name that a pinned body gives them, before others,
    who could flood the list."""
    seats = {seat.id for body in pins for seat in body.members}
    ordered = sorted(checks, key=lambda check: check[1].by not in seats)
    return tuple(
        RowFact(_said(said), "claimed", _checker(said, readings, pins), entry.digest) for entry, said in ordered
    )


def _said(verified: Verified) -> str:
    rows = f"{len(verified.levels)} rows pass" if len(verified.levels) != 1 else "one row passes"
    result = RESULTS[verified.passed]
    return f"checked it on {moment(verified.time)}, policy {short(verified.policy)}: {result}, {rows}"


def _checker(verified: Verified, readings: Readings, pins: Sequence[Body]) -> str:
    seats = [seat for body in pins if (seat := body.member(verified.by)) is not None]
    if seats:
        return f"{seats[-1].name} ({seats[-1].jurisdiction})"
    return who(readings.inceptions[verified.by])
