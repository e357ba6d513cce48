"""`verify(evidence, policy) -> Verdict`: the one decision about an artifact. Pure; the same for everybody who calls it.

     (1) artifact      the manifest is well-formed; its SHA-256 is the artifact's name
     (2) bytes         every listed file is here, hashed, as listed; nothing else is
     (3) signatures    a `published` statement about it is signed by its publisher's keys, first or rotated; or a
                       `model.sig` over these files by a signer whom the owner lists
     (4) key policy    that publisher is who the owner pinned, or whom a pinned charter binds to the namespace
     (5) transparency  the statement is in a log that a pinned charter binds to a member X
     (6) cosigners     enough other members cosigned that log with the statement inside
     (7) replicas      who says, in their own log, that they hold a full copy
     (8) lineage       all that its publisher says it was made from is named by digest, and described by somebody
     (9) licence       the claimed licence is one that the owner accepts
    (10) file safety   what in it would run, and whether its files are what they seem
    (11) documents     the documents that its publisher names
    (12) notes         material that did not verify; it counted for nothing
    (13) disputes and advisories   proven warnings about it, and rotations that exclude one another
    (14) time          the newest cosignature is fresh enough for the moment that the policy names
    (15) crypto health  which links would fall with classical cryptography
    (16) policy        every required row passes, and nobody whom the owner listed advises against it

Steps (3) to (6) judge one statement at a time and keep the one that gets furthest, so that no row borrows from
another publisher's, and so that more evidence never makes less of it (I4). Deliberately not read: any clock, any
charter in the evidence, any file's content beyond its hash and what `Inspection` says of it.
"""

from __future__ import annotations

from dataclasses import replace

from comity.trust.claims import (
    KnownAuthors,
    bind,
    read_claims,
    weigh_advisories,
    weigh_checks,
    weigh_holds,
    weigh_vouches,
)
from comity.trust.encoding import Digest
from comity.trust.evidence import (
    EVIDENCE_MISSING,
    OK,
    PARTIAL,
    POLICY_NOT_MET,
    Evidence,
    Remark,
    Row,
    RowFact,
    Verdict,
    exit_status,
)
from comity.trust.key_validity import Evaluation, stand
from comity.trust.lineage import lineage_of
from comity.trust.model_signing.judging import KeylessVerifier
from comity.trust.policy import ROWS, Policy
from comity.trust.rows.conclusion import notes_row, policy_row
from comity.trust.rows.content import artifact_row, bytes_row, documents_row, licence_row, lineage_row, safety_row
from comity.trust.rows.findings import Findings
from comity.trust.rows.logs import (
    advisories_row,
    cosigners_row,
    crypto_health_row,
    replicas_row,
    time_row,
    transparency_row,
    with_rivals,
)
from comity.trust.rows.signatures import (
    artifact_as_mirrored,
    artifact_of_files,
    bytes_as_signed,
    corroboration_facts,
    judge_model_sig,
    key_policy_row,
    keys_in_other_hands,
    signatures_row,
    signed_row,
    sole,
    time_of_loss,
    warning_of_loss,
)
from comity.trust.statement import Entry
from comity.trust.statements import Advisory
from comity.trust.tlog.proof import growths


def verify(evidence: Evidence, policy: Policy, *, keyless: KeylessVerifier | None = None) -> Verdict:
    """Judge `evidence` by `policy`. Never raises for what the evidence holds; bad material becomes rows and notes.

    In whatever order claims and proofs come, and however often, the verdict is the same.

    Args:
        keyless: what checks a keyless `model.sig`, for which this core has no means; without it, it is not checked.
    """
    evidence = _ordered(evidence)
    manifest, first = artifact_of_files(evidence) if sole(evidence) else artifact_row(evidence)
    if manifest is None:
        return _conclude(None, None, (first,), policy, otherwise="nothing can be judged without the manifest")
    readings = read_claims(evidence.claims, manifest.digest)
    bound, binding, strangers = bind(policy.pins, readings.entries, readings.chains)
    grown = growths(evidence.objects.values())
    standings = tuple(stand(each, evidence.proofs, grown, bound, policy) for each in readings.publications)
    chosen = max(standings, key=lambda standing: standing.merit(policy), default=None)
    advisories, unproven = weigh_advisories(readings, manifest.digest, [node.record for node in bound])
    holds, forged = weigh_holds(readings, manifest.digest, bound)
    checks, untold = weigh_checks(readings, manifest.digest, [seat for body in policy.pins for seat in body.members])
    speakers = KnownAuthors(readings, bound, [seat for body in policy.pins for seat in body.members])
    vouches, unvouched = weigh_vouches(readings, manifest.digest, speakers)
    lineage, underived = lineage_of(readings, manifest.digest, chosen.publication if chosen else None, policy, bound)
    concerned = {member.id for body in policy.pins for member in body.members}
    concerned |= {chosen.publication.publisher.id} if chosen else set()
    found = Findings(
        evidence=evidence,
        policy=policy,
        manifest=manifest,
        readings=readings,
        bound=bound,
        standings=standings,
        chosen=chosen,
        lineage=lineage,
        advisories=advisories,
        checks=checks,
        disputes=tuple(readings.chains.disputes(concerned)),
        holds=holds,
        vouches=vouches,
        strangers=strangers,
        remarks=(
            *map(Remark, evidence.left_out),
            *binding,
            *readings.chains.notes(),
            *unproven,
            *untold,
            *unvouched,
            *forged,
            *underived,
        ),
    )
    signed = judge_model_sig(found, keyless)
    hashed = bytes_row(evidence, manifest)
    judged = (
        artifact_as_mirrored(first, found),
        bytes_as_signed(signed, hashed) if signed and sole(evidence) else hashed,
        signed_row(signatures_row(found), signed, found),
        keys_in_other_hands(key_policy_row(found), found),
        transparency_row(found),
        cosigners_row(found),
        replicas_row(found),
        lineage_row(found),
        licence_row(found),
        safety_row(found),
        documents_row(found),
        warning_of_loss(with_rivals(advisories_row(found), found), found),
        time_of_loss(time_row(found), found),
        crypto_health_row(found),
        notes_row(found),
    )
    refusals = tuple(advisory for _, advisory in advisories if advisory.by.id in policy.refuse_from)
    verdict = _conclude(manifest.digest, chosen, judged, policy, refusals, corroboration_facts(found))
    return replace(verdict, inputs=_inputs(verdict.rows, readings.entries))


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
    """All rows in their order, (16) among them, and the exit status; `otherwise` is what rows not judged say."""
    by_name = {row.name: row for row in judged}
    rows = tuple(by_name.get(name, Row(name, "not-checked", otherwise, at)) for at, name in enumerate(ROWS[:-1], 1))
    status = exit_status(rows, policy.require)
    if refusals and status in (OK, EVIDENCE_MISSING, PARTIAL):
        status = POLICY_NOT_MET
    rows = (*rows, policy_row(rows, policy, refusals).joined(corroboration))
    name = str(chosen.publication.published.name) if chosen and chosen.accepted is not False else ""
    return Verdict(artifact, name, rows, status, policy.digest, policy.require)


def _inputs(rows: tuple[Row, ...], entries: tuple[Entry, ...]) -> tuple[Digest, ...]:
    """Which of the claims the rows rest on."""
    named = {fact.evidence for row in rows for fact in row.facts}
    return tuple(sorted(digest for entry in entries if (digest := entry.digest) in named))
