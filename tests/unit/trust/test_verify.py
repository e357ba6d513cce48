"""Which evidence changes which row of a verdict; advisories and holds; hostile evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comity.rules.signing import sign_content
from comity.trust.copies import HeldArtifact, HoldWithdrawn
from comity.trust.encoding import Digest, b64encode, sha256
from comity.trust.evidence import Evidence, InclusionEvidence, Verdict
from comity.trust.exit_statuses import EVIDENCE_MISSING
from comity.trust.policy import ROWS, Policy
from comity.trust.statement import SideObject, parse_entry, sign_statement
from comity.trust.statements import Advisory, Licence, Parent
from comity.trust.verify import verify
from support.case import Case, advisory, case, filled, nodes, release
from support.world import Identity, found, identity

CH, SG, ES, KR = nodes(4)
GOOD = case()
SWISS_AI = identity("Swiss AI", "CH")
NO_PROOF = {"transparency", "cosigners", "time", "crypto health"}


def without_proofs_of(*lines: bytes) -> Case:
    gone = {proof for line in lines for proof in GOOD.proofs_of(line)}
    return replace(GOOD, proofs=tuple(proof for proof in GOOD.proofs if proof not in gone))


def unbound() -> Case:
    """Neither the owner nor the charter names a publisher."""
    return replace(GOOD.demanding(f'accept = ["{SWISS_AI.id}"]', "accept = []"), federation=found(nodes()))


NOT_PUBLISHED = replace(GOOD, claims=tuple(line for line in GOOD.claims if line != GOOD.publication.line))
OFFICERS = f'[approvals]\nscope = "hospital"\nat_least = 1\n[approvals.officers]\nAnna = "{SWISS_AI.id}"\n'
TURNS: dict[str, tuple[Case, set[str]]] = {
    "artifact": (replace(GOOD, manifest=b"{}"), set(ROWS) - {"approvals"}),
    "bytes": (replace(GOOD, files={**GOOD.files, "LICENSE": b""}), {"bytes", "policy"}),
    "signatures": (NOT_PUBLISHED, {"signatures", "key policy", "lineage", "licence", "documents", "policy"} | NO_PROOF),
    "key policy": (unbound(), {"key policy"}),
    "transparency": (without_proofs_of(GOOD.publication.line), {"policy"} | NO_PROOF),
    "cosigners": (case(cosigners=(nodes()[1],)), {"cosigners", "policy", "time"}),
    "replicas": (without_proofs_of(*GOOD.claims[-4:]), {"replicas"}),
    "lineage": (case(lineage=(Parent("finetune", "swiss-ai/base@v1"),)), {"lineage"}),
    "licence": (GOOD.demanding("apache-2.0", "mit"), {"licence"}),
    "file safety": (GOOD.demanding("[rows]", '[safety]\nformats = ["json"]\n[rows]'), {"file safety"}),
    "documents": (GOOD.demanding('require = ["card"]', 'require = ["evaluation"]'), {"documents"}),
    "notes": (GOOD.saying(b"junk"), {"notes"}),
    "disputes and advisories": (GOOD.saying(*advisory(GOOD)), {"disputes and advisories"}),
    "time": (GOOD.demanding("2026-11-24", "2027-11-24"), {"time"}),
    "crypto health": (case(publisher=identity("Swiss AI", "CH", algs=("ed25519",))), {"crypto health"}),
    "approvals": (replace(GOOD, policy_text=GOOD.policy_text + OFFICERS), {"approvals", "policy"}),
    "policy": (
        GOOD.demanding("apache-2.0", "mit").demanding('"signatures", "tr', '"signatures", "licence", "tr'),
        {"licence", "policy"},
    ),
}


def states(verdict: Verdict) -> dict[str, str]:
    return {row.name: row.state for row in verdict.rows}


@pytest.mark.parametrize("name", TURNS)
def test_one_change_changes_one_row_and_those_that_depend_on_it(name: str) -> None:
    changed, turned = TURNS[name]
    before, after = states(GOOD.verdict()), states(changed.verdict())
    assert {row for row in ROWS if before[row] != after[row]} == turned


def test_every_row_is_changed_by_some_case() -> None:
    assert set(ROWS) == set(TURNS)
    assert [row for row, state in states(GOOD.verdict()).items() if state == "not-checked"] == ["approvals"]


def test_without_a_manifest_nothing_is_judged_and_the_policy_is_not_met() -> None:
    verdict = replace(GOOD, manifest=b"[]").verdict()
    assert verdict.row("bytes").summary == "cannot be checked without a valid manifest"
    assert verdict.row("policy").state == "fail"
    assert verify(Evidence(None, None), Policy(require=())).exit_status == 5


def test_without_files_a_document_is_looked_for_among_the_side_objects_alone() -> None:
    unread = replace(GOOD.evidence, files=None)
    assert verify(unread, GOOD.policy).row("documents").state == "pass"
    row = verify(replace(unread, objects={}), GOOD.policy).row("documents")
    assert (row.state, row.summary) == ("unknown", "named but missing: card")


def test_a_licence_without_a_text_is_judged_by_its_name() -> None:
    published, *_ = release()
    textless = sign_content(replace(published, licence=Licence("Apache-2.0", None)), SWISS_AI.signer)
    row = NOT_PUBLISHED.saying(textless.line).verdict().row("licence")
    assert (row.state, [fact.text for fact in row.facts]) == ("pass", ["Apache-2.0"])


def test_the_claims_that_facts_refer_to_are_listed_in_order_each_once() -> None:
    warned = GOOD.saying(*advisory(GOOD), b"junk").verdict()
    assert list(warned.inputs) == sorted(set(warned.inputs)) and len(warned.inputs) > 4
    assert sha256(GOOD.publication.line) in warned.inputs and sha256(b"junk") not in warned.inputs


def test_every_computed_fact_is_marked_as_verified_here() -> None:
    for name in ("artifact", "bytes", "signatures", "transparency", "cosigners"):
        assert {fact.basis for fact in GOOD.verdict().row(name).facts} == {"verified here"}
    assert {fact.basis for fact in GOOD.verdict().row("replicas").facts} == {"claimed"}


def listed(good: Case, issuer: Digest) -> Policy:
    return replace(good.policy, refuse_from=frozenset({issuer}))


@pytest.mark.parametrize("kind", ["yank", "malware", "key-compromise"])
def test_an_advisory_blocks_nothing_unless_the_owner_lists_its_issuer(kind: str) -> None:
    issuer = identity("Security desk", "ES")
    warned = GOOD.saying(*advisory(GOOD, by=issuer, kind=kind))
    assert warned.verdict().exit_status == 0
    assert kind in warned.verdict().row("disputes and advisories").summary
    assert verify(warned.evidence, listed(GOOD, issuer.id)).exit_status == 4


def advised(by: Identity, severity: str, kind: str = "yank") -> Case:
    said = Advisory(by.inception.author, GOOD.artifact, kind, severity, "there is a newer version")
    return GOOD.saying(by.entry.line, sign_content(said, by.signer).line)


def test_an_advisory_for_information_is_listed_and_fails_no_row() -> None:
    own = SWISS_AI
    verdict = advised(own, "info").verdict()
    row = verdict.row("disputes and advisories")
    assert (row.state, row.facts[0].by) == ("unknown", "its publisher")
    assert row.summary == "yank (info): there is a newer version says its publisher; 1 in all, for information"
    assert "fail" not in {each.state for each in verdict.rows}
    assert advised(own, "low").verdict().row("disputes and advisories").state == "fail"
    refused = verify(advised(own, "info").evidence, listed(GOOD, own.id))
    assert (refused.exit_status, refused.row("disputes and advisories").state) == (4, "unknown")


def test_ids_are_given_with_all_digits_where_a_policy_needs_them() -> None:
    warner = identity("Security desk", "ES")
    verdict = advised(warner, "high").verdict()
    assert verdict.row("disputes and advisories").facts[0].by == warner.id
    assert any(SWISS_AI.id in fact.text for fact in verdict.row("key policy").facts)


def test_an_unnamed_signer_is_shown_with_the_policy_line_to_paste() -> None:
    row = unbound().verdict().row("key policy")
    assert (row.state, row.hint.rpartition("then: ")[2]) == ("unknown", f"comity trust bind swiss-ai {SWISS_AI.id}")


def test_a_node_that_the_owner_lists_can_advise_against_an_artifact() -> None:
    said = Advisory(ES.record.node, GOOD.artifact, "malware", "high", "it phones home")
    warned = GOOD.saying(sign_content(said, ES.online).line)
    assert verify(warned.evidence, listed(GOOD, ES.record.node.id)).exit_status == 4
    forged = GOOD.saying(sign_content(said, KR.online).line)
    verdict = verify(forged.evidence, listed(GOOD, ES.record.node.id))
    assert verdict.exit_status == 0
    assert "advisory" in verdict.row("notes").summary


def test_a_member_that_the_owner_lists_advises_with_the_keys_that_a_pinned_charter_lists() -> None:
    said = Advisory(ES.seat.inception.author, GOOD.artifact, "malware", "high", "it phones home")
    for signer, status in ((ES.seat.signer, 4), (KR.seat.signer, 0)):
        warned = GOOD.saying(sign_content(said, signer).line)
        assert verify(warned.evidence, listed(GOOD, ES.seat.id)).exit_status == status


def test_a_refusal_is_4_unless_the_bytes_are_wrong() -> None:
    issuer = identity("Security desk", "ES")
    warned = GOOD.saying(*advisory(GOOD, by=issuer))
    no_proofs = replace(warned, proofs=())
    wrong = replace(warned, files={**GOOD.files, "LICENSE": b""})
    for changed, status in ((warned, 4), (no_proofs, 4), (wrong, 3)):
        assert verify(changed.evidence, listed(GOOD, issuer.id)).exit_status == status


def test_an_unproven_advisory_is_noted() -> None:
    _, line = advisory(GOOD)
    verdict = GOOD.saying(line).verdict()
    assert verdict.row("disputes and advisories").state == "unknown"
    assert "advisory" in verdict.row("notes").summary


def test_a_hold_counts_only_in_the_log_of_the_node_that_signed_it() -> None:
    hold = GOOD.claims[-1]
    elsewhere = filled(CH)
    elsewhere.append(hold)
    moved = replace(GOOD, proofs=(*without_proofs_of(hold).proofs, elsewhere.proof(hold)))
    assert "Institute KR" not in moved.verdict().row("replicas").summary
    assert "Institute KR" in GOOD.verdict().row("replicas").summary


def test_a_withdrawn_copy_is_no_replica_until_its_node_claims_one_again() -> None:
    """Source: protocol, section 5: a later withdrawal in the node's own log ends a claim."""
    log, hold = filled(KR), GOOD.claims[-1]
    withdrawn = HoldWithdrawn(KR.record.node, GOOD.artifact, 0, "legal-order", "order 12")
    manifest, pieces = parse_entry(hold).statement.objects
    again = sign_content(HeldArtifact(KR.record.node, *_in_order(GOOD, manifest, pieces), "again"), KR.online).line
    lines = (hold, sign_content(withdrawn, KR.online).line, again)
    for line in lines:
        log.append(line)
    others = without_proofs_of(hold)
    for said, holds in ((lines[:1], True), (lines[:2], False), (lines[1::-1], False), (lines, True)):
        claims = (*GOOD.claims[:-1], *said)
        row = replace(others, claims=claims, proofs=(*others.proofs, *map(log.proof, said))).verdict().row("replicas")
        assert ("Institute KR" in row.summary) == holds
        told = ("withdrew its copy, in its own log: legal-order", "Institute KR")
        assert any(fact.text == told[0] and told[1] in fact.by for fact in row.facts) != holds


def _in_order(case: Case, one: SideObject, other: SideObject) -> tuple[SideObject, SideObject]:
    return (one, other) if one.digest == case.artifact else (other, one)


def test_a_withdrawal_by_another_node_is_a_note_and_ends_no_claim() -> None:
    withdrawn = HoldWithdrawn(KR.record.node, GOOD.artifact, 0, "safety", "")
    forged = sign_statement(parse_entry(sign_content(withdrawn, KR.online).line).statement, SG.online)
    verdict = GOOD.saying(forged.line).verdict()
    assert "withdrawal refused" in verdict.row("notes").summary
    assert verdict.row("replicas") == GOOD.verdict().row("replicas")


def test_a_forged_hold_is_a_note() -> None:
    forged = sign_statement(parse_entry(GOOD.claims[-1]).statement, SG.online)
    verdict = GOOD.saying(forged.line).verdict()
    assert "hold" in verdict.row("notes").summary
    assert verdict.row("replicas") == GOOD.verdict().row("replicas")


def test_verify_raises_nothing_for_any_evidence() -> None:
    unknown_curve = CH.record.tls.replace(bytes.fromhex("2a8648ce3d030107"), bytes.fromhex("2a8648ce3d03017f"))
    body = {**CH.entry.statement.body, "tls": b64encode(unknown_curve)}
    strange = sign_statement(replace(CH.entry.statement, body=body), CH.seat.signer, *CH.bound).line
    junk = (b"", b"{}", b"[" * 1000, b"\xff", strange, b"x" * 70_000)
    proofs = tuple(
        InclusionEvidence(sha256(GOOD.publication.line), data)
        for data in (b"", b"\n\n\n", b"c2sp.org/tlog-proof@v1\n\n")
    )
    verdict = replace(GOOD, claims=(*junk, *GOOD.claims), proofs=(*proofs, *GOOD.proofs)).verdict()
    assert verdict.exit_status == 0
    assert verdict.row("notes").state == "fail"


def test_evidence_that_does_not_verify_is_named_by_its_digest() -> None:
    forged = sign_statement(parse_entry(GOOD.claims[-1]).statement, SG.online)
    _, unproven = advisory(GOOD)
    broken = InclusionEvidence(GOOD.proofs[-1].line, b"junk")
    told = replace(GOOD.saying(forged.line, unproven, b"junk"), proofs=(*GOOD.proofs, broken))
    named = {fact.evidence for fact in told.verdict().row("notes").facts}
    assert named >= {sha256(forged.line), sha256(unproven), sha256(b"junk")}


@pytest.mark.parametrize(
    ("claimed", "accepted", "state"),
    [
        ("GPL-3.0-only", "gpl-3.0", "pass"),
        ("GPL-3.0-or-later", "GPL-3.0+", "pass"),
        ("GPL-3.0-or-later", "gpl-3.0", "fail"),
        ("MIT OR Apache-2.0", "mit or apache-2.0", "pass"),
        ("MIT OR Apache-2.0", "mit", "fail"),
    ],
)
def test_an_older_name_of_a_licence_in_a_policy_is_that_licence(claimed: str, accepted: str, state: str) -> None:
    _, entry, _, _ = release(spdx=claimed)
    log = filled(CH)
    log.append(entry.line)
    told = replace(
        GOOD.demanding('accept = ["apache-2.0"]', f'accept = ["{accepted}"]'),
        claims=tuple(entry.line if line == GOOD.publication.line else line for line in GOOD.claims),
        proofs=(log.proof(entry.line, [SG, ES, KR]),),
    )
    assert told.verdict().row("licence").state == state


def test_a_listed_issuer_who_said_more_than_was_read_leaves_the_policy_unknown() -> None:
    """Only then: what others said, and were not read, changes nothing."""
    good, issuer = case(), identity("Somebody", "SG")
    policy = replace(good.policy, refuse_from=frozenset({issuer.id}))
    verdict = verify(replace(good.evidence, cut=frozenset({issuer.id})), policy)
    assert verdict.exit_status == EVIDENCE_MISSING
    assert (verdict.row("policy").state, verdict.row("policy").cause) == ("unknown", "missing")
    other = verify(replace(good.evidence, cut=frozenset({sha256(b"somebody else")})), policy)
    assert (other.exit_status, other.row("policy").state) == (0, "pass")
    assert other.row("disputes and advisories").facts[-1].text == "more statements about it than were read"


def test_what_did_not_verify_fails_the_notes_also_where_not_everything_was_read() -> None:
    for evidence in (GOOD.saying(b"junk"), GOOD):
        row = verify(replace(evidence.evidence, unread=("advisories",)), GOOD.policy).row("notes")
        assert row.state == ("unknown" if evidence is GOOD else "fail")
        assert any("not read: advisories" in fact.text for fact in row.facts)
