"""Cosigners outside a jurisdiction: by the seat of the member, and by what it declares about its machines."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from comity.rules.signing import sign_content
from comity.trust.evidence import Row
from comity.trust.places import Place
from comity.trust.tlog.proof import TlogProof
from support.case import Case, case, filled
from support.world import NOW, Node, as_proof, node, seat

OWN = Place("Institute", "", ("SG",))
CLOUD = Place("Institute", "Example Cloud", ("KR", "US"))
WRITER, SG, ES, KR = (
    node(seat("CH")),
    node(seat("SG"), place=OWN),
    node(seat("ES")),
    node(seat("KR"), place=CLOUD),
)

RULE = 'at_least = 2\njurisdictions = 2\noutside = ["publisher"]\n'


@pytest.fixture(scope="module")
def good() -> Case:
    return case(members=[WRITER, SG, ES, KR])


def counted(verified: Case, rule: str) -> tuple[str, str]:
    """The state and the summary of the row, under `[cosigners]` with these lines."""
    row = asked(verified, rule)
    return row.state, row.summary


def asked(verified: Case, rule: str) -> Row:
    verdict = verified.demanding(RULE, f"{rule}\n").verdict()
    return next(row for row in verdict.rows if row.name == "cosigners")


def test_a_cosigner_on_a_foreign_cloud_is_not_outside_of_its_declared_reach(good: Case) -> None:
    assert counted(good, 'at_least = 3\noutside = ["FR"]')[0] == "pass"
    state, summary = counted(good, 'at_least = 3\noutside = ["US"]')
    assert (state, "KR" in summary.partition("have:")[2]) == ("fail", False)
    assert counted(good, 'at_least = 2\noutside = ["US"]')[0] == "pass"  # ES declares nothing


def test_a_policy_may_count_only_those_that_declare_a_place(good: Case) -> None:
    assert counted(good, 'at_least = 1\noutside = ["US"]\ndeclared = true')[0] == "pass"
    assert counted(good, 'at_least = 2\noutside = ["US"]\ndeclared = true')[0] == "fail"


def test_the_publishers_jurisdiction_is_excluded_by_seat_as_before(good: Case) -> None:
    assert counted(good, 'at_least = 3\noutside = ["publisher"]')[0] == "pass"


def test_declared_places_are_shown_as_claimed(good: Case) -> None:
    assert all("law of" not in fact.text for fact in asked(good, RULE).facts)
    facts = asked(good, 'at_least = 1\noutside = ["US"]').facts
    declared = asked(good, 'at_least = 1\noutside = ["publisher"]\ndeclared = true').facts
    assert {fact.text for fact in declared} >= {fact.text for fact in facts if "law of" in fact.text}
    assert {fact.basis for fact in facts if "law of KR, US reaches" in fact.text} == {"claimed"}
    silent = [(fact.text, fact.basis) for fact in facts if "declares no place" in fact.text]
    text = "Institute ES (ES) declares no place of the machines of node-es.example/cosigner"
    assert silent == [(text, "stale or absent")]


def cosigned_by(verified: Case, *cosigners: Node) -> Case:
    """A case whose log these nodes cosigned in this order, a second apart."""
    line, log = verified.publication.line, filled(WRITER)
    log.append(line)
    proof = TlogProof.parse(log.proof(line).data)
    signatures = [each for at, by in enumerate(cosigners) for each in by.cosign(log.checkpoint(), NOW + at)]
    note = proof.checkpoint.with_signatures(*signatures)
    return replace(verified, proofs=(*verified.proofs, as_proof(line, replace(proof, checkpoint=note))))


def test_the_record_of_another_node_makes_no_cosigner_of_its_member_count_less() -> None:
    alone = node(KR.seat, "alone.example", place=Place("Institute", "", ("KR",)))
    second, clouded = node(KR.seat, "second.example"), node(KR.seat, "clouded.example", place=CLOUD)
    without = case(members=[WRITER, SG, ES, alone], cosigners=())
    for order in itertools.permutations((alone, second, clouded)):
        before = cosigned_by(without, *order)
        after = before.saying(second.entry.line, clouded.entry.line)
        for rule in ('outside = ["US"]\ndeclared = true', "outside = []\ndeclared = true", 'outside = ["US"]'):
            for verified in (before, after):
                assert counted(verified, f"at_least = 1\n{rule}") == ("pass", "1 (1 required): Institute KR (KR)")
        facts = asked(after, 'at_least = 1\noutside = ["US"]\ndeclared = true').facts
        assert facts[0].text == "Institute KR (KR) as alone.example/cosigner"
        assert {fact.text for fact in facts[1:]} == {
            "the law of KR reaches the machines of alone.example/cosigner, of Institute KR (KR)",
            "the law of KR, US reaches the machines of clouded.example/cosigner, of Institute KR (KR)",
            "Institute KR (KR) declares no place of the machines of second.example/cosigner",
        }


def test_a_record_that_declares_another_law_makes_its_own_cosigner_count_less() -> None:
    """The exception to I4: the record may be newer."""
    rule = 'at_least = 3\noutside = ["US"]'
    alone = node(KR.seat, "alone.example", place=Place("Institute", "", ("KR",)))
    without = case(members=[WRITER, SG, ES, alone])
    moved = sign_content(replace(alone.record, place=CLOUD), KR.seat.signer, *alone.bound)
    assert counted(without, rule)[0] == "pass"
    assert counted(without.saying(moved.line), rule)[0] == "fail"
