"""Pins: what is counted as verified here, what is asked of others, and in which order they answer."""

from __future__ import annotations

import pytest
from comity.trust.artifact_pins import (
    FAILED,
    HERE,
    SILENT,
    VERIFIED,
    Pin,
    PinnedArtifact,
    PinnedCopy,
    WantedWithdrawn,
    answer_turn,
    parse_wanted,
    parse_wanted_withdrawn,
    sign_wanted,
    sign_wanted_withdrawn,
)
from comity.trust.copies import CLAIMED, FRESH_DAYS, MISSED, PASSED, AuditResult, ClaimedCopy, CopyPolicy
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from support.case import nodes

MODEL = sha256(b"a model")
OWN, ONE, TWO, THREE = (sha256(name) for name in (b"own", b"one", b"two", b"three"))
TODAY = 20_000
THREE_COPIES = CopyPolicy(3, 3, 2)


def copy(member: Digest, jurisdiction: str = "CH") -> ClaimedCopy:
    return ClaimedCopy(member, sha256(member.encode()), jurisdiction, reach=(jurisdiction,))


def judged(*results: AuditResult, answers: bool = True) -> str:
    return PinnedCopy.of(copy(ONE), results, OWN, TODAY, answers=answers).state


def pinned(**states: str) -> PinnedArtifact:
    members = {"CH": OWN, "ES": ONE, "KR": TWO, "SG": THREE}
    copies = tuple(PinnedCopy(copy(members[code], code), state) for code, state in states.items())
    return PinnedArtifact(Pin(MODEL, "a/b@v1", THREE_COPIES), copies)


def test_only_an_own_audit_that_passed_makes_a_copy_of_another_verified() -> None:
    assert judged() == CLAIMED
    assert judged(AuditResult(OWN, TODAY, PASSED, 3)) == VERIFIED
    assert judged(AuditResult(TWO, TODAY, PASSED, 3), AuditResult(THREE, TODAY, PASSED, 3)) == CLAIMED


def test_lying_auditors_take_no_verified_copy_away() -> None:
    lies = [AuditResult(liar, TODAY, "digest", 3, proven=True) for liar in (TWO, THREE)]
    assert judged(AuditResult(OWN, TODAY - 3, PASSED, 3), *lies) == VERIFIED


def test_an_own_failure_counts_until_a_later_pass() -> None:
    failed = AuditResult(OWN, TODAY - 2, "digest", 3)
    assert judged(AuditResult(OWN, TODAY - 2, PASSED, 3), failed) == FAILED
    assert judged(AuditResult(OWN, TODAY - 1, PASSED, 3), failed) == VERIFIED
    assert judged(failed, answers=False) == FAILED


def test_a_node_that_does_not_answer_is_silent_whatever_passed_before() -> None:
    assert judged(AuditResult(OWN, TODAY, PASSED, 3), answers=False) == SILENT


def test_an_old_pass_and_one_before_days_without_an_answer_are_claims_again() -> None:
    assert judged(AuditResult(OWN, TODAY - FRESH_DAYS, PASSED, 3)) == CLAIMED
    passed = AuditResult(OWN, TODAY - 5, PASSED, 3)
    assert judged(passed, AuditResult(OWN, TODAY - 4, MISSED)) == VERIFIED
    assert judged(passed, AuditResult(OWN, TODAY - 2, MISSED)) == CLAIMED


def test_a_pin_is_met_by_verified_copies_only() -> None:
    assert pinned(CH=HERE, ES=VERIFIED, KR=VERIFIED).met
    claimed = pinned(CH=HERE, ES=VERIFIED, KR=CLAIMED)
    assert not claimed.met
    assert claimed.missing == 1
    assert claimed.hoped.meets(THREE_COPIES)
    assert not pinned(CH=HERE, ES=VERIFIED, KR=SILENT, SG=FAILED).hoped.meets(THREE_COPIES)


def test_wanted_and_its_end_are_read_as_they_were_written() -> None:
    node = nodes(1)[0]
    pin = Pin(MODEL, "a/b@v1", THREE_COPIES)
    wanted = parse_wanted(sign_wanted(node.record, pin, node.online).statement)
    assert (wanted.by, wanted.artifact, wanted.policy) == (node.record.node, MODEL, THREE_COPIES)
    ended = WantedWithdrawn(node.record.node, MODEL, 17, "unpinned")
    assert parse_wanted_withdrawn(sign_wanted_withdrawn(node.record, ended, node.online).statement) == ended
    with pytest.raises(Malformed):
        sign_wanted_withdrawn(node.record, WantedWithdrawn(node.record.node, MODEL, 17, "bored"), node.online)


@pytest.mark.parametrize(
    "policy", [CopyPolicy(0, 1), CopyPolicy(201, 1), CopyPolicy(3, 4), CopyPolicy(3, 0), CopyPolicy(1, 1, 2)]
)
def test_a_policy_that_nothing_meets_is_refused(policy: CopyPolicy) -> None:
    with pytest.raises(Malformed, match="cannot be asked for"):
        Pin(MODEL, "", policy)


def test_as_many_members_answer_at_once_as_copies_are_missing_and_each_has_a_turn() -> None:
    places = {sha256(b"%d" % number): f"J{number}" for number in range(9)}
    turns = sorted(answer_turn(MODEL, member, places, (), 2) for member in places)
    assert turns == [0, 0, 1, 1, 2, 2, 3, 3, 4]


def test_members_in_jurisdictions_without_a_copy_answer_first() -> None:
    places = {OWN: "CH", ONE: "ES", TWO: "CH", THREE: "KR"}
    turns = {member: answer_turn(MODEL, member, places, [OWN], 1) for member in (ONE, TWO, THREE)}
    assert turns[TWO] == 2
    assert sorted(turns.values()) == [0, 1, 2]


def test_the_order_is_another_one_for_another_artifact() -> None:
    places = {sha256(b"%d" % number): "CH" for number in range(20)}
    first = {min(places, key=lambda member: answer_turn(sha256(b"%d" % at), member, places, (), 1)) for at in range(40)}
    assert len(first) > 5
