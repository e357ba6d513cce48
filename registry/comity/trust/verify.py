"""Verifies an artifact: `verify(evidence, policy) -> Verdict`. A pure function; every component uses it.

     (1) artifact      the manifest is well-formed; its SHA-256 is the artifact's name
     (2) bytes         every listed file is present with the listed hash, and there are no other files
     (3) signatures    a `published` statement about it is signed by its publisher's keys, first or rotated; or a
                       `model.sig` over these files by a signer that the owner lists
     (4) key policy    the owner pinned that publisher, or a pinned charter binds it to the namespace
     (5) transparency  the statement is in a log that a pinned charter binds to a member X
     (6) cosigners     enough other members cosigned a checkpoint of that log that includes the statement
     (7) replicas      nodes that claim, in their own log, to hold a full copy
     (8) lineage       every ancestor is named by digest and described by a proven statement
     (9) licence       the owner accepts the claimed licence
    (10) file safety   active content and malformed or unexpected formats
    (11) documents     the documents that its publisher names
    (12) notes         material that did not verify; it did not count
    (13) disputes and advisories   proven warnings about it, and conflicting rotations
    (14) time          the newest cosignature is fresh enough at the time that the policy names
    (15) crypto health  the links that depend on classical cryptography only
    (16) policy        every required row passes, and no issuer in `refuse_from` advises against it

Steps (3) to (6) evaluate each publication separately and use the best one, so that no row combines two publishers, and
more evidence never makes the verdict worse (I4). Not read: any clock, any charter in the evidence, and the content of
files except for hashes and inspections.
"""

from __future__ import annotations

from dataclasses import replace

from comity.trust.claims import (
    KnownAuthors,
    bind_nodes,
    read_claims,
    verify_advisories,
    verify_checks,
    verify_holds,
    verify_vouches,
)
from comity.trust.encoding import Digest
from comity.trust.evidence import (
    EVIDENCE_MISSING,
    OK,
    PARTIAL,
    POLICY_NOT_MET,
    Evidence,
    EvidenceReader,
    Remark,
    Row,
    RowFact,
    Verdict,
    exit_status,
)
from comity.trust.key_validity import Evaluation, evaluate
from comity.trust.lineage import lineage_of
from comity.trust.model_signing.judging import KeylessVerifier
from comity.trust.policy import ROWS, Policy
from comity.trust.rows.conclusion import notes_row, policy_row
from comity.trust.rows.content import artifact_row, bytes_row, documents_row, licence_row, lineage_row, safety_row
from comity.trust.rows.findings import Findings
from comity.trust.rows.logs import (
    advisories_row,
    advisories_with_rivals,
    cosigners_row,
    crypto_health_row,
    replicas_row,
    time_row,
    transparency_row,
)
from comity.trust.rows.signatures import (
    advisories_with_compromise,
    artifact_of_files,
    artifact_with_mirrors,
    bytes_by_model_sig,
    corroboration_facts,
    has_only_model_sig,
    judge_model_sig,
    key_policy_row,
    key_policy_with_compromise,
    signatures_row,
    signatures_with_model_sig,
    time_with_compromise,
)
from comity.trust.statement import Entry
from comity.trust.statements import Advisory
from comity.trust.tlog.proof import growth_proofs


def verify(
    evidence: Evidence,
    policy: Policy,
    *,
    keyless: KeylessVerifier | None = None,
    reader: EvidenceReader | None = None,
) -> Verdict:
    """Judge `evidence` by `policy`. Raises nothing for bad evidence; bad material becomes rows and notes.

    The order and repetition of claims and proofs do not change the verdict.

    Args:
        keyless: verifies a keyless `model.sig`; without it, a keyless `model.sig` is not checked.
        reader: that of the session, which has read parts of the evidence before; it changes the cost, never the
            verdict. Default: a new one.
    """
    evidence, reader = _ordered(evidence), reader or EvidenceReader()
    manifest, first = artifact_of_files(evidence) if has_only_model_sig(evidence) else artifact_row(evidence)
    if manifest is None:
        return _conclude(None, None, (first,), policy, otherwise="cannot be checked without a valid manifest")
    claims = read_claims(evidence.claims, manifest.digest, reader)
    bound, binding_notes, unlisted_nodes = bind_nodes(policy.pins, claims.entries, claims.chains)
    consistency = growth_proofs(evidence.objects.values())
    evaluations = tuple(
        evaluate(each, evidence.proofs, consistency, bound, policy, reader) for each in claims.publications
    )
    chosen = max(evaluations, key=lambda evaluation: evaluation.rank(policy), default=None)
    members = [member for body in policy.pins for member in body.members]
    advisories, unproven_advisories = verify_advisories(claims, manifest.digest, [node.record for node in bound])
    holds, forged_holds = verify_holds(claims, manifest.digest, bound)
    checks, unproven_checks = verify_checks(claims, manifest.digest, members)
    vouches, unproven_vouches = verify_vouches(claims, manifest.digest, KnownAuthors(claims, bound, members))
    publication = chosen.publication if chosen else None
    lineage, unproven_lineage = lineage_of(claims, manifest.digest, publication, policy, bound)
    involved = {member.id for member in members}
    involved |= {chosen.publication.publisher.id} if chosen else set()
    found = Findings(
        evidence=evidence,
        reader=reader,
        policy=policy,
        manifest=manifest,
        claims=claims,
        bound=bound,
        evaluations=evaluations,
        chosen=chosen,
        lineage=lineage,
        advisories=advisories,
        checks=checks,
        disputes=tuple(claims.chains.disputes(involved)),
        holds=holds,
        vouches=vouches,
        unlisted_nodes=unlisted_nodes,
        remarks=(
            *map(Remark, evidence.left_out),
            *binding_notes,
            *claims.chains.remarks(),
            *unproven_advisories,
            *unproven_checks,
            *unproven_vouches,
            *forged_holds,
            *unproven_lineage,
        ),
    )
    model_sig = judge_model_sig(found, keyless)
    hashed_bytes = bytes_row(evidence, manifest)
    judged = (
        artifact_with_mirrors(first, found),
        bytes_by_model_sig(model_sig, hashed_bytes) if model_sig and has_only_model_sig(evidence) else hashed_bytes,
        signatures_with_model_sig(signatures_row(found), model_sig, found),
        key_policy_with_compromise(key_policy_row(found), found),
        transparency_row(found),
        cosigners_row(found),
        replicas_row(found),
        lineage_row(found),
        licence_row(found),
        safety_row(found),
        documents_row(found),
        advisories_with_compromise(advisories_with_rivals(advisories_row(found), found), found),
        time_with_compromise(time_row(found), found),
        crypto_health_row(found),
        notes_row(found),
    )
    refusals = tuple(advisory for _, advisory in advisories if advisory.by.id in policy.refuse_from)
    verdict = _conclude(manifest.digest, chosen, judged, policy, refusals, corroboration_facts(found))
    return replace(verdict, inputs=_inputs(verdict.rows, claims.entries))


def _ordered(evidence: Evidence) -> Evidence:
    proofs = sorted(set(evidence.proofs), key=lambda proof: (proof.line, proof.data))
    return replace(evidence, claims=tuple(sorted(set(evidence.claims))), proofs=tuple(proofs))


def _conclude(
    artifact: Digest | None,
    chosen: Evaluation | None,
    judged: tuple[Row, ...],
    policy: Policy,
    refusals: tuple[Advisory, ...] = (),
    corroboration: tuple[RowFact, ...] = (),
    otherwise: str = "not checked in this version",
) -> Verdict:
    """Return all rows in order, with (16), and the exit status; `otherwise` is the summary of rows not in `judged`."""
    by_name = {row.name: row for row in judged}
    rows = tuple(by_name.get(name, Row(name, "not-checked", otherwise, at)) for at, name in enumerate(ROWS[:-1], 1))
    status = exit_status(rows, policy.require)
    if refusals and status in (OK, EVIDENCE_MISSING, PARTIAL):
        status = POLICY_NOT_MET
    rows = (*rows, policy_row(rows, policy, refusals).with_facts(corroboration))
    name = str(chosen.publication.published.name) if chosen and chosen.accepted is not False else ""
    return Verdict(artifact, name, rows, status, policy.digest, policy.require)


def _inputs(rows: tuple[Row, ...], entries: tuple[Entry, ...]) -> tuple[Digest, ...]:
    """The digests of the claims to which facts of the rows refer."""
    named = {fact.evidence for row in rows for fact in row.facts}
    return tuple(sorted(digest for entry in entries if (digest := entry.digest) in named))
