"""Verifies an artifact: `verify(evidence, policy) -> Verdict`. A pure function; every component uses it.

     (1) artifact      the manifest is well-formed; its SHA-256 is the artifact's name
     (2) bytes         every listed file is present with the listed hash, and there are no other files
     (3) signatures    a `published` statement about it is signed by its publisher's keys, first or rotated; or a
                       `model.sig` over these files by a signer that the owner lists
     (4) key policy    the owner pinned that publisher, or a pinned charter binds it to the namespace
     (5) transparency  the statement is in a log that a pinned charter binds to a member X
     (6) cosigners     enough other members cosigned a checkpoint of that log that includes the statement
     (7) replicas      nodes that claim, in their own log, to hold a full copy, and have not withdrawn that later
     (8) lineage       every ancestor is named by digest and described by a proven statement
     (9) licence       the owner accepts the claimed licence
    (10) file safety   active content and malformed or unexpected formats
    (11) documents     the documents that its publisher names
    (12) notes         material that did not verify; it did not count
    (13) disputes and advisories   proven warnings about it, and conflicting rotations
    (14) time          the newest cosignature is fresh enough at the time that the policy names
    (15) crypto health  the links that depend on classical cryptography only
    (16) approvals     enough of the officers whom the policy names approve it for the policy's scope, at its time
    (17) policy        every required row passes, and no issuer in `refuse_from` advises against it; *key policy* is
                       required too where the publisher reports that the key was lost that signed the publication

Steps (3) to (6) judge each publication separately and use the best one, so that no row combines two publishers, and
more evidence never makes the verdict worse (I4). A newer statement of the same publisher that passes the same steps is
used instead: it corrects the licence, the lineage and the documents. Not read: any clock, any charter in the evidence,
and the content of files except for hashes and inspections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from comity.trust.artifact import Manifest
from comity.trust.bound_nodes import BoundNode
from comity.trust.claims import (
    Publication,
    collect_mirror_evidence,
    member_label,
    read_claims,
    verify_advisories,
    verify_checks,
    verify_hold_withdrawals,
    verify_holds,
    verify_vouches,
)
from comity.trust.copies import HoldWithdrawn
from comity.trust.encoding import Digest, sha256, short
from comity.trust.evaluation import judge_evaluations
from comity.trust.evidence import (
    MODEL_SIG,
    Evidence,
    EvidenceReader,
    InclusionEvidence,
    Remark,
    Row,
    RowFact,
    Verdict,
    exit_status,
)
from comity.trust.exit_statuses import EVIDENCE_MISSING, OK, PARTIAL, POLICY_NOT_MET
from comity.trust.key_validity import (
    JudgedPublication,
    choose,
    judge_publication,
    prove_entry,
)
from comity.trust.lineage import claimed_lineage, lineage_of
from comity.trust.model_signing.bundle import TrustedTime
from comity.trust.model_signing.judging import KeylessVerifier, ModelSignatureResult, judge
from comity.trust.officers import ApprovalCircumstances, judge_approval, prove_approvals
from comity.trust.policy import ROWS, SIGNED_ROWS, Policy
from comity.trust.rows.approvals import approvals_row
from comity.trust.rows.content import (
    artifact_row,
    bytes_row,
    documents_row,
    identify,
    licence_row,
    lineage_row,
    safety_row,
)
from comity.trust.rows.findings import CopyClaim, Findings, check_facts, cosigned_times, remark_fact, verified_fact
from comity.trust.rows.publication import (
    advisories_row,
    cosigners_row,
    crypto_health_row,
    key_policy_row,
    replicas_row,
    signatures_row,
    time_row,
    transparency_row,
)
from comity.trust.statement import Entry
from comity.trust.statement_kinds import HOLD_WITHDRAWN
from comity.trust.statements import Advisory
from comity.trust.tlog.proof import consistency_proofs


def verify(
    evidence: Evidence,
    policy: Policy,
    *,
    keyless: KeylessVerifier | None = None,
    reader: EvidenceReader | None = None,
    publisher: Digest | None = None,
    commit: str = "",
) -> Verdict:
    """Judge `evidence` by `policy`. Raises nothing for bad evidence; bad material becomes rows and notes.

    The order and repetition of claims and proofs do not change the verdict.

    Args:
        keyless: verifies a keyless `model.sig`; without it, a keyless `model.sig` is not checked.
        reader: that of the session, which has read parts of the evidence before; it changes the cost, never the
            verdict. Default: a new one.
        publisher: the identity to whose name the artifact belongs here. Of publications that pass the same steps, the
            rows follow its own, however many others published the same bytes. It turns no row of steps (1) to (6).
        commit: the upstream commit, `hf:org/name@commit`, that the artifact was asked for as. Only members that fetched
            the bytes under this commit corroborate then: the same bytes can be mirrored from other repositories, or an
            old commit's from the one asked for. Empty: under any commit.
    """
    evidence = _ordered(evidence)
    manifest = identify(evidence)
    if isinstance(manifest, Row):
        return _conclude(None, None, (manifest,), policy, otherwise="cannot be checked without a valid manifest")
    found = _find(evidence, manifest, policy, keyless, reader or EvidenceReader(), publisher, commit)
    rows = tuple(row(found) for row in _ROWS)
    refusals = tuple(advisory for _, advisory in found.advisories if advisory.by.id in policy.refuse_from)
    corroboration = check_facts(found.checks, found.claims, policy.pins)
    required = _required(policy, found)
    verdict = _conclude(
        manifest.digest,
        found.chosen,
        rows,
        policy,
        refusals,
        corroboration,
        required=required,
        unread=policy.refuse_from & evidence.cut,
    )
    return replace(verdict, inputs=_inputs(verdict.rows, found.claims.entries))


def counted_publication(
    evidence: Evidence, policy: Policy, reader: EvidenceReader, publisher: Digest | None = None
) -> Publication | None:
    """Return the publication that `verify` follows; None if there is none. The files are not needed."""
    chosen = choose_publication(evidence, policy, reader, publisher)
    return chosen.publication if chosen else None


def choose_publication(
    evidence: Evidence, policy: Policy, reader: EvidenceReader, publisher: Digest | None = None
) -> JudgedPublication | None:
    """As `counted_publication`, with what is proven about it."""
    evidence = _ordered(evidence)
    manifest = identify(evidence)
    if isinstance(manifest, Row):
        return None
    claims = read_claims(evidence.claims, manifest.digest, reader)
    bound = claims.bound(policy.pins)
    consistency = consistency_proofs(evidence.objects.values())
    judged = [
        judge_publication(p, claims, evidence.proofs, consistency, bound, policy, reader) for p in claims.publications
    ]
    return choose(judged, policy, publisher)


def _ordered(evidence: Evidence) -> Evidence:
    proofs = sorted(set(evidence.proofs), key=lambda proof: (proof.line, proof.data))
    return replace(evidence, claims=tuple(sorted(set(evidence.claims))), proofs=tuple(proofs))


def _find(
    evidence: Evidence,
    manifest: Manifest,
    policy: Policy,
    keyless: KeylessVerifier | None,
    reader: EvidenceReader,
    publisher: Digest | None,
    commit: str,
) -> Findings:
    """Verify everything that the rows are about, each thing once."""
    artifact = manifest.digest
    claims = read_claims(evidence.claims, artifact, reader)
    bound, binding_notes, unlisted_nodes = claims.binding(policy.pins)
    consistency = consistency_proofs(evidence.objects.values())
    judged = tuple(
        judge_publication(each, claims, evidence.proofs, consistency, bound, policy, reader)
        for each in claims.publications
    )
    chosen = choose(judged, policy, publisher)
    publication = chosen.publication if chosen else None
    members = [member for body in policy.pins for member in body.members]
    advisories, unproven_advisories = verify_advisories(claims, artifact, [node.record for node in bound], members)
    holds, forged_holds = verify_holds(claims, artifact, bound)
    withdrawn, forged_withdrawals = verify_hold_withdrawals(claims, artifact, bound)
    checks, unproven_checks = verify_checks(claims, artifact, members)
    authors = claims.authors(policy.pins)
    vouches, unproven_vouches = verify_vouches(claims, artifact, authors)
    announced, unproven_announcements = judge_evaluations(
        claims, artifact, vouches, authors, evidence.objects, evidence.proofs, bound, reader
    )
    lineage, unproven_lineage = lineage_of(claims, artifact, publication, policy, bound)
    approvals, unproven_approvals = prove_approvals(claims, artifact, policy.approvals, members)
    circumstances = ApprovalCircumstances(policy, claims, evidence, bound, consistency, reader)
    involved = {member.id for member in members} | ({publication.publisher.id} if publication else set())
    return Findings(
        evidence=evidence,
        policy=policy,
        manifest=manifest,
        claims=claims,
        bound=bound,
        judged=judged,
        chosen=chosen,
        best=chosen.best(policy) if chosen else None,
        model_sig=_judge_model_sig(evidence, manifest, policy, judged, keyless),
        mirroring=collect_mirror_evidence(claims.entries, artifact, bound),
        commit=commit,
        lineage=lineage,
        claimed=claimed_lineage(claims, artifact, publication, policy),
        advisories=advisories,
        checks=checks,
        disputes=tuple(claims.chains.disputes(involved)),
        copies=_claimed_copies((*holds, *withdrawn), evidence.proofs, reader),
        vouches=vouches,
        approvals=tuple(judge_approval(each, circumstances) for each in approvals),
        announced=announced,
        unlisted_nodes=unlisted_nodes,
        remarks=(
            *map(Remark, evidence.left_out),
            *binding_notes,
            *claims.chains.remarks(),
            *unproven_advisories,
            *unproven_checks,
            *unproven_vouches,
            *unproven_announcements,
            *forged_holds,
            *forged_withdrawals,
            *unproven_lineage,
            *unproven_approvals,
        ),
    )


def _claimed_copies(
    said: tuple[tuple[Entry, BoundNode], ...], proofs: tuple[InclusionEvidence, ...], reader: EvidenceReader
) -> tuple[CopyClaim, ...]:
    """What each node said last in its own log about its copy: that it holds one, or that it withdrew that claim."""
    last: dict[str, tuple[int, CopyClaim]] = {}
    for entry, node in said:
        statement, log = entry.statement, str(node.record.log)
        reason = HoldWithdrawn.parse(statement).reason if statement.predicate == HOLD_WITHDRAWN else ""
        for seen in prove_entry(entry, proofs, (node,), reader)[0]:
            if log not in last or seen.index > last[log][0]:
                last[log] = seen.index, CopyClaim(member_label(node.member), entry.digest, reason)
    return tuple(claim for _, claim in last.values())


def _judge_model_sig(
    evidence: Evidence,
    manifest: Manifest,
    policy: Policy,
    judged: tuple[JudgedPublication, ...],
    keyless: KeylessVerifier | None,
) -> ModelSignatureResult | None:
    """Judge the `model.sig` at the time of the policy and at cosigned times; None if there is none."""
    if evidence.model_sig is None:
        return None
    times = [TrustedTime(policy.freshness.as_of, "as_of of the policy")] if policy.freshness else []
    entry = manifest.by_path.get(MODEL_SIG)
    if entry is not None and entry.sha256 == sha256(evidence.model_sig):
        times += cosigned_times(judged, policy.cosigners)
    return judge(evidence.model_sig, evidence.files, policy.model_signing, times, keyless, partial=evidence.partial)


def _notes_row(found: Findings) -> Row:
    """Row (12): fails for material that did not verify and did not count. It is unknown if there are only nodes of
    members that no pinned charter lists (`unlisted_nodes`), which do not count either, but are not a failure; or if
    more was said than was read."""
    notes = [*found.claims.notes, *found.remarks, *_pieces_notes(found)]
    for judged in found.judged:
        notes += [*judged.broken, *judged.unbound]
        notes += [Remark(text, seen.proof) for seen in judged.witnessed for text in seen.refused]
    notes = list(dict.fromkeys(notes))
    unread = tuple(RowFact(f"not read: {text}", "stale or absent") for text in found.evidence.unread)
    unlisted = tuple(
        verified_fact(f"no pinned charter lists the member of {name!r}") for name in dict.fromkeys(found.unlisted_nodes)
    )
    unknown = (*unread, *unlisted)
    if not notes and unread:
        text = f"{unread[0].text} ({len(unread)} in all)"
        return Row("notes", "unknown", text, 12, "missing", unknown)
    if not notes and unlisted:
        text = f"{unlisted[0].text} ({len(unlisted)} in all); such nodes do not count"
        return Row("notes", "unknown", text, 12, "missing", unlisted, "comity trust diff")
    if not notes:
        return Row("notes", "pass", "all evidence verified", 12)
    text = f"{notes[0].text} ({len(notes)} in all)"
    return Row("notes", "fail", text, 12, "short", (*map(remark_fact, notes), *unknown))


def _pieces_notes(found: Findings) -> tuple[Remark, ...]:
    """A note if the piece index is not the published one. It decides nothing, because whole files are hashed here, but
    a pull with it would fail."""
    evidence, chosen = found.evidence, found.chosen
    named = chosen.publication.published.pieces.digest if chosen else None
    if evidence.pieces is None or named is None or sha256(evidence.pieces) == named:
        return ()
    text = f"pieces.json is not the published piece index, {short(named)}, and does not count"
    return (Remark(text, sha256(evidence.pieces)),)


_ROWS: Final[tuple[Callable[[Findings], Row], ...]] = (
    artifact_row,
    bytes_row,
    signatures_row,
    key_policy_row,
    transparency_row,
    cosigners_row,
    replicas_row,
    lineage_row,
    licence_row,
    safety_row,
    documents_row,
    _notes_row,
    advisories_row,
    time_row,
    crypto_health_row,
    approvals_row,
)
"""Steps (1) to (16), in their order."""
_POLICY_STEP: Final = len(ROWS)


def _required(policy: Policy, found: Findings) -> tuple[str, ...]:
    """The rows that must pass: those that the policy lists, and *key policy* where the publisher says that the key was
    lost with which it signed what the listed rows rest on, or said more than was read."""
    chosen = found.chosen
    asked = policy.refuse_lost_keys and not SIGNED_ROWS.isdisjoint(policy.require)
    if not asked or "key policy" in policy.require or chosen is None or chosen.accepted is False:
        return policy.require
    known = chosen.before_loss and chosen.publication.publisher.id not in found.evidence.cut
    return policy.require if known else (*policy.require, "key policy")


def _conclude(
    artifact: Digest | None,
    chosen: JudgedPublication | None,
    judged: tuple[Row, ...],
    policy: Policy,
    refusals: tuple[Advisory, ...] = (),
    corroboration: tuple[RowFact, ...] = (),
    otherwise: str = "not checked in this version",
    required: tuple[str, ...] | None = None,
    unread: frozenset[Digest] = frozenset(),
) -> Verdict:
    """Return all rows in order, with (17), and the exit status; `otherwise` is the summary of rows not in `judged`.
    `required`: the rows that must pass; default: those that the policy lists. `unread`: issuers in `refuse_from` who
    said more than was read."""
    required = policy.require if required is None else required
    by_name = {row.name: row for row in judged}
    rows = tuple(by_name.get(name, Row(name, "not-checked", otherwise, at)) for at, name in enumerate(ROWS[:-1], 1))
    status = exit_status(rows, required)
    if refusals and status in (OK, EVIDENCE_MISSING, PARTIAL):
        status = POLICY_NOT_MET
    elif unread and status in (OK, PARTIAL):
        status = EVIDENCE_MISSING
    rows = (*rows, _policy_row(rows, policy, required, refusals, unread).with_facts(corroboration))
    name = str(chosen.publication.published.name) if chosen and chosen.accepted is not False else ""
    return Verdict(artifact, name, rows, status, policy.digest, required)


def _policy_row(
    rows: tuple[Row, ...],
    policy: Policy,
    required: tuple[str, ...],
    refusals: tuple[Advisory, ...],
    unread: frozenset[Digest],
) -> Row:
    asked = [row for row in rows if row.name in ("artifact", *required)]
    facts = tuple(verified_fact(f"required: {row.name}: {row.state}", policy.digest) for row in asked)
    short_of = [row.name for row in asked if row.state != "pass"]
    if refusals:
        text = f"an issuer in refuse_from advises against it: {refusals[0].kind}"
        return Row("policy", "fail", text, _POLICY_STEP, "short", facts)
    if short_of:
        return Row("policy", "fail", f"not met: {', '.join(short_of)}", _POLICY_STEP, "short", facts)
    if unread:
        text = f"more statements of {short(min(unread))}, an issuer in refuse_from, than were read"
        return Row("policy", "unknown", text, _POLICY_STEP, "missing", facts)
    return Row("policy", "pass", f"required and passed: {', '.join(required)}", _POLICY_STEP, facts=facts)


def _inputs(rows: tuple[Row, ...], entries: tuple[Entry, ...]) -> tuple[Digest, ...]:
    """The digests of the claims to which facts of the rows refer."""
    named = {fact.evidence for row in rows for fact in row.facts}
    return tuple(sorted(digest for entry in entries if (digest := entry.digest) in named))
