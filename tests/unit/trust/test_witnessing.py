"""Which cosignatures count: members, jurisdictions, successors, algorithms, clocks."""

from __future__ import annotations

from dataclasses import replace

from comity.trust.charter.document import Body
from comity.trust.evidence import InclusionEvidence
from comity.trust.policy import CosignerRule, Policy
from comity.trust.tlog.proof import TlogProof
from comity.trust.verify import verify
from support.case import Case, case, filled, nodes
from support.world import NOW, draft, found, identity, node, seat, succeeded

CH, SG, ES, KR = nodes(4)
GOOD = case()


def counted(changed: Case) -> set[str]:
    return {fact.text for fact in changed.verdict().row("cosigners").facts}


def test_a_cosigner_in_the_publishers_jurisdiction_does_not_count() -> None:
    swiss_publisher_in_singapore = case(members=(SG, CH, ES, KR))
    assert counted(swiss_publisher_in_singapore) == {
        "Institute ES (ES) as node-es.example/cosigner",
        "Institute KR (KR) as node-kr.example/cosigner",
    }
    assert len(counted(swiss_publisher_in_singapore.demanding('outside = ["publisher"]', "outside = []"))) == 3


def test_a_publishing_member_is_in_the_jurisdiction_of_its_seat() -> None:
    claims_nothing = identity("Institute without a country")
    member = replace(claims_nothing.member, jurisdiction="ES")
    good = case(publisher=claims_nothing)
    seats = [*(owner.seat.member for owner in nodes()), member]
    inside = pinning(good, draft(seats, {"swiss-ai": claims_nothing.id}))
    assert len(counted(good)) == 3
    facts = verify(good.evidence, inside).row("cosigners").facts
    assert {fact.text[:17] for fact in facts} == {"Institute SG (SG)", "Institute KR (KR)"}


def pinning(good: Case, *bodies: Body) -> Policy:
    return replace(good.policy, pins=bodies)


def test_an_observer_does_not_count() -> None:
    members = [replace(owner.seat.member, status="observer" if owner is SG else "active") for owner in nodes()]
    body = found(nodes(), members=members).body
    verdict = verify(GOOD.evidence, pinning(GOOD, body))
    assert not any("Institute SG" in fact.text for fact in verdict.row("cosigners").facts)
    assert "node record of 'node-sg.example/log' does not verify" in verdict.row("notes").summary


def test_a_node_of_a_member_that_no_pinned_charter_lists_is_unknown_and_no_failure() -> None:
    """A newcomer's node cosigned, and the reader's pin is older: this is no evidence against the artifact."""
    older = found([owner for owner in nodes() if owner is not SG]).body
    verdict = verify(GOOD.evidence, pinning(GOOD, older))
    notes = verdict.row("notes")
    assert (notes.state, notes.hint) == ("unknown", "comity trust diff")
    assert "no pinned charter lists the member of 'node-sg.example/log'" in notes.summary


def test_a_member_and_its_successors_count_once_over_all_pinned_bodies() -> None:
    first = GOOD.federation.body
    second = succeeded(first, SG=seat("BR"))
    third = succeeded(second, BR=seat("IN"))
    cosigners = (SG, node(seat("BR")), node(seat("IN")))
    good = case(cosigners=cosigners)
    evidence = good.saying(*(each.entry.line for each in cosigners[1:])).evidence
    for pins in ((first, second, third), (third, second, first), (second, first)):
        verdict = verify(evidence, pinning(good, *pins))
        assert verdict.row("cosigners").state == "fail"
        assert verdict.row("cosigners").summary.startswith("1 counted")


def test_where_a_seat_counts_depends_on_the_pins_and_on_no_order_of_the_evidence() -> None:
    first = GOOD.federation.body
    second = succeeded(first, SG=seat("BR"))
    good = case(cosigners=(SG, node(seat("BR")), KR)).saying(node(seat("BR")).entry.line)
    verdicts = [
        verify(replace(good.evidence, claims=order), pinning(good, first, second))
        for order in (good.claims, good.claims[::-1])
    ]
    assert {fact.text.partition(" as ")[0] for verdict in verdicts for fact in verdict.row("cosigners").facts} == {
        "Institute BR (BR)",
        "Institute KR (KR)",
    }


def test_more_jurisdictions_than_cosigners_may_be_asked_for() -> None:
    rule = CosignerRule(at_least=2, jurisdictions=3)
    assert verify(GOOD.evidence, replace(GOOD.policy, cosigners=rule)).row("cosigners").state == "pass"
    two = case(cosigners=(SG, ES))
    assert verify(two.evidence, replace(two.policy, cosigners=rule)).row("cosigners").state == "fail"


def test_a_policy_without_required_cosigners_needs_none() -> None:
    alone = case(members=(CH,), cosigners=()).demanding("at_least = 2", "at_least = 0")
    assert alone.demanding("jurisdictions = 2", "jurisdictions = 0").verdict().exit_status == 0


def test_a_policy_may_ask_for_post_quantum_cosigners() -> None:
    classical = node(SG.seat, "classical-sg.example", ("ed25519",))
    good = case(members=(CH, classical, ES, KR)).demanding(
        "jurisdictions = 2", "jurisdictions = 2\npost_quantum = true"
    )
    assert good.verdict().row("cosigners").state == "pass"
    assert not any("SG" in text for text in counted(good))
    assert good.demanding("at_least = 2", "at_least = 3").verdict().exit_status == 4


def test_a_post_quantum_key_bound_by_classical_keys_counts_as_classical() -> None:
    weak = node(seat("SG", ("ed25519",)), "weak-sg.example")
    good = case(members=(CH, weak, ES, KR))
    assert len(counted(good)) == 3
    strict = good.demanding("jurisdictions = 2", "jurisdictions = 2\npost_quantum = true")
    assert len(counted(strict)) == 2


def test_the_time_is_that_of_as_many_cosigners_as_the_policy_asks_for_and_of_two_where_two_saw_it() -> None:
    log = filled(CH)
    log.append(GOOD.publication.line)
    days = dict(zip((SG, ES, KR), (1, 2, 3), strict=True))
    note = TlogProof.parse(log.proof(GOOD.publication.line).data)
    cosigned = [line for each, day in days.items() for line in each.cosign(log.checkpoint(), NOW - day * 86_400)]
    proof = replace(note, checkpoint=note.checkpoint.with_signatures(*cosigned)).encode()
    seen = replace(GOOD, proofs=(InclusionEvidence(GOOD.publication.digest, proof),))
    texts = []
    for least in (0, 1, 2, 3):
        asked = seen.demanding("at_least = 2\njurisdictions = 2", f"at_least = {least}")
        texts.append(asked.verdict().row("time").summary)
    first = (GOOD.policy.freshness.as_of - NOW) // 86_400 if GOOD.policy.freshness else 0
    assert texts == [
        f"{counted} cosigners saw it at most {first + counted} days before as_of" for counted in (2, 2, 2, 3)
    ]


def test_crypto_health_counts_the_cosigners_that_would_remain() -> None:
    classical = [node(seat(code), f"classical-{code.lower()}.example", ("ed25519",)) for code in ("SG", "ES")]
    one_left = case(members=(CH, *classical, KR))
    assert one_left.verdict().row("crypto health").summary == "classical only: 2 of 3 cosigners"
    enough = one_left.demanding("at_least = 2", "at_least = 1").demanding("jurisdictions = 2", "jurisdictions = 1")
    assert enough.verdict().row("crypto health").state == "pass"


def test_one_cosigners_clock_does_not_make_old_evidence_fresh() -> None:
    log = filled(CH)
    log.append(GOOD.publication.line)
    year = 365 * 86_400
    note = log.proof(GOOD.publication.line, (SG, ES), NOW - year)
    parsed = TlogProof.parse(note.data)
    signed = parsed.checkpoint.with_signatures(*KR.cosign(log.checkpoint(), NOW + year))
    proof = InclusionEvidence(note.line, replace(parsed, checkpoint=signed).encode())
    stale = replace(GOOD, proofs=(proof,))
    assert stale.verdict().row("time").state == "fail"
    assert stale.demanding("at_least = 2\njurisdictions = 2", "at_least = 1").verdict().row("time").state == "fail"
