"""Pins: which copies count as verified here, what is asked of other nodes, and the order in which these copy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from comity.rules.artifact_pins import (
    FAILED,
    HERE,
    MAX_WANTED_COPIES,
    SILENT,
    VERIFIED,
    Pin,
    PinnedArtifact,
    PinnedCopy,
    Wanted,
    WantedWithdrawn,
    answer_turn,
)
from comity.rules.copy_counts import CLAIMED, FRESH_DAYS, MISSED, PASSED, AuditResult, ClaimedCopy, CopyPolicy
from comity.rules.signing import sign_content
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.places import MOST_REACHES
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


def test_lying_auditors_remove_no_verified_copy() -> None:
    lies = [AuditResult(liar, TODAY, "digest", 3, proven=True) for liar in (TWO, THREE)]
    assert judged(AuditResult(OWN, TODAY - 3, PASSED, 3), *lies) == VERIFIED


def test_an_own_failure_counts_until_a_later_pass() -> None:
    failed = AuditResult(OWN, TODAY - 2, "digest", 3)
    assert judged(AuditResult(OWN, TODAY - 2, PASSED, 3), failed) == FAILED
    assert judged(AuditResult(OWN, TODAY - 1, PASSED, 3), failed) == VERIFIED
    assert judged(failed, answers=False) == FAILED


def test_a_node_that_does_not_answer_is_silent_despite_earlier_passes() -> None:
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


def test_wanted_statements_and_their_withdrawals_read_back() -> None:
    node = nodes(1)[0]
    pin = Pin(MODEL, "a/b@v1", THREE_COPIES)
    wanted = Wanted.parse(sign_content(Wanted.of(node.record.node, pin), node.online).statement)
    assert (wanted.by, wanted.artifact, wanted.policy) == (node.record.node, MODEL, THREE_COPIES)
    ended = WantedWithdrawn(node.record.node, MODEL, 17, "unpinned")
    assert WantedWithdrawn.parse(sign_content(ended, node.online).statement) == ended
    with pytest.raises(Malformed):
        sign_content(WantedWithdrawn(node.record.node, MODEL, 17, "bored"), node.online)


@pytest.mark.parametrize(
    "policy", [CopyPolicy(0, 1), CopyPolicy(201, 1), CopyPolicy(3, 4), CopyPolicy(3, 0), CopyPolicy(1, 1, 2)]
)
def test_a_policy_that_nothing_meets_is_refused(policy: CopyPolicy) -> None:
    with pytest.raises(Malformed, match="cannot be asked for"):
        Pin(MODEL, "", policy)


@pytest.mark.parametrize(
    "policy",
    [
        CopyPolicy(1, 1),
        CopyPolicy(1, 1, 1),
        CopyPolicy(MAX_WANTED_COPIES, 1),
        CopyPolicy(MAX_WANTED_COPIES, MAX_WANTED_COPIES, MOST_REACHES),
        CopyPolicy(2, 2, 2),
    ],
)
def test_a_policy_that_some_number_of_copies_meets_is_accepted(policy: CopyPolicy) -> None:
    assert Pin(MODEL, "", policy).policy == policy


@pytest.mark.parametrize("reaches", [-1, 3, MOST_REACHES + 1])
def test_reaches_that_no_copies_have_are_refused(reaches: int) -> None:
    with pytest.raises(Malformed):
        Pin(MODEL, "", CopyPolicy(2 if reaches == 3 else 9, 1, reaches))


def test_invalid_wanted_statements_and_withdrawals_of_them_are_refused() -> None:
    node = nodes(1)[0]
    asked = sign_content(Wanted.of(node.record.node, Pin(MODEL, "", THREE_COPIES)), node.online).statement
    ended = sign_content(WantedWithdrawn(node.record.node, MODEL, 17, "met"), node.online)
    for read, good in ((Wanted.parse, asked), (WantedWithdrawn.parse, ended.statement)):
        assert read(good).artifact == MODEL
        changes: tuple[dict[str, Any], ...] = (
            {"predicate": "hold"},
            {"by": None},
            {"by": node.seat.inception.author},
            {"body": {**good.body, "more": 1}},
            {"body": {}},
            {"subjects": good.subjects * 2},
        )
        for change in changes:
            with pytest.raises(Malformed):
                read(replace(good, **change))


def test_audits_count_up_to_a_day_ahead_of_the_clock() -> None:
    """Clocks of two nodes differ by less than a day; a result of a later day does not count."""
    for day, state in ((TODAY + 1, VERIFIED), (TODAY + 2, CLAIMED)):
        assert judged(AuditResult(OWN, day, PASSED, 3)) == state
    for day, state in ((TODAY + 1, FAILED), (TODAY + 2, VERIFIED)):
        assert judged(AuditResult(OWN, TODAY, PASSED, 3), AuditResult(OWN, day, "digest", 3)) == state


def test_of_several_own_audits_the_newest_of_each_result_counts() -> None:
    passed = [AuditResult(OWN, TODAY - day, PASSED, 3) for day in (9, 1, 30)]
    failed = [AuditResult(OWN, TODAY - day, "digest", 3) for day in (20, 5)]
    missed = [AuditResult(OWN, TODAY - day, MISSED) for day in (40, 8)]
    assert judged(*passed, *failed, *missed) == VERIFIED
    assert judged(*passed, *failed, AuditResult(OWN, TODAY - 1, "digest", 3)) == FAILED
    assert judged(*passed, *missed, AuditResult(OWN, TODAY + 1, MISSED)) == CLAIMED


def test_the_first_day_is_a_day_like_another() -> None:
    """A machine may start with its clock in 1970."""
    assert PinnedCopy.of(copy(ONE), [AuditResult(OWN, 0, "digest", 3)], OWN, 0, answers=True).state == FAILED
    assert PinnedCopy.of(copy(ONE), [AuditResult(OWN, 0, PASSED, 3)], OWN, 0, answers=True).state == VERIFIED
    assert PinnedCopy.of(copy(ONE), (), OWN, 0, answers=True).state == CLAIMED
    missed = [AuditResult(OWN, day, MISSED) for day in (0, 1)]
    assert PinnedCopy.of(copy(ONE), missed, OWN, 1, answers=True).state == CLAIMED
    passed = AuditResult(OWN, TODAY - 5, PASSED, 3)
    assert judged(passed, AuditResult(OWN, TODAY - 3, MISSED)) == CLAIMED
    assert judged(passed, AuditResult(OWN, TODAY - 6, MISSED)) == VERIFIED


def test_nothing_is_missing_where_there_are_enough_copies_and_more() -> None:
    assert pinned(CH=HERE, ES=VERIFIED, KR=VERIFIED).missing == 0
    assert pinned(CH=HERE, ES=VERIFIED, KR=VERIFIED, SG=VERIFIED).missing == 0
    assert pinned().missing == 3


def test_members_that_hold_a_copy_or_may_not_answer_take_no_turn_of_others() -> None:
    places = {sha256(b"%d" % number): f"J{number}" for number in range(6)}
    waiting = [member for member in places if member != ONE]
    for holding in ((), waiting[:2], (*waiting[:2], ONE), (THREE,)):
        turns = sorted(
            answer_turn(MODEL, member, places, holding, missing)
            for member in places
            for missing in (0, 1)
            if member not in holding
        )
        count = len(set(places) - set(holding))
        assert turns == sorted([*range(count)] * 2)
    together = dict.fromkeys(places, "CH")
    turns = sorted(
        answer_turn(MODEL, member, together, waiting[:3], 1) for member in places if member not in waiting[:3]
    )
    assert turns == [0, 1, 2]


def test_as_many_members_answer_as_copies_are_missing_and_each_has_a_turn() -> None:
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
