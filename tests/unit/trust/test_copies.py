"""Copies in the view of a client: which are claimed, which were tested and by whom, and which remain without
a party.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from comity.rules.copy_counts import (
    CLAIMED,
    DISPUTED,
    FAILED,
    FRESH_DAYS,
    MISSED,
    PASSED,
    STALE,
    TESTED,
    WITHDRAWN,
    AuditResult,
    ClaimedCopy,
    CopyCount,
    CopyPolicy,
    Holder,
    Loss,
    assess,
    holders,
    losses,
    next_change,
    outside,
    parties_of,
)
from comity.rules.parties import Party
from comity.rules.signing import sign_content
from comity.trust.charter.document import CharterPolicy
from comity.trust.copies import MAX_BASIS, HoldWithdrawn
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from comity.trust.statement import Author, Statement, Subject
from support.case import nodes

A, B, C, D, E = (sha256(b"member %d" % at) for at in range(5))
TODAY = 20_000
POLICY = CopyPolicy(3, 2)


def copy(member: Digest = A, jurisdiction: str = "CH", withdrawn: str = "") -> ClaimedCopy:
    return ClaimedCopy(member, sha256(member.encode()), jurisdiction, withdrawn)


def state(*results: AuditResult, of: ClaimedCopy | None = None) -> str:
    return assess(of or copy(), results, TODAY).state


def test_a_claim_is_only_a_claim_until_another_member_tested_it() -> None:
    assert state() == CLAIMED
    assert state(AuditResult(A, TODAY, PASSED)) == CLAIMED  # its own claim
    assert state(AuditResult(B, TODAY, MISSED)) == CLAIMED
    assert state(AuditResult(B, TODAY, PASSED)) == TESTED


def test_between_the_days_of_change_each_state_is_the_same() -> None:
    chance, changed = random.Random(11), 0
    for _ in range(300):
        results = [
            AuditResult(
                chance.choice((B, C, D)), TODAY + chance.randrange(-40, 5), chance.choice((PASSED, MISSED, "wrong"))
            )
            for _ in range(chance.randrange(4))
        ]
        day, states = TODAY, {assess(copy(), results, TODAY).state}
        due = next_change(results, TODAY)
        while day < (TODAY + 80 if due is None else due - 1):
            day += 1
            states.add(assess(copy(), results, day).state)
        assert len(states) == 1
        changed += due is not None and assess(copy(), results, due).state not in states
    assert changed > 50, "states change on many of these days"


def test_the_next_change_is_after_today() -> None:
    past, due = AuditResult(B, TODAY - FRESH_DAYS - 5, PASSED), AuditResult(C, TODAY - FRESH_DAYS, PASSED)
    fresh = AuditResult(D, TODAY - 1, PASSED)
    assert next_change([past, due, fresh], TODAY) == TODAY - 1 + FRESH_DAYS
    assert next_change([past, due], TODAY) is None


def test_a_test_becomes_stale() -> None:
    assert state(AuditResult(B, TODAY - FRESH_DAYS + 1, PASSED)) == TESTED
    assert state(AuditResult(B, TODAY - FRESH_DAYS, PASSED)) == STALE


def test_a_failure_becomes_stale_too_and_counts_from_the_first_day_there_is() -> None:
    assert state(AuditResult(B, TODAY - FRESH_DAYS + 1, "digest")) == DISPUTED
    assert state(AuditResult(B, TODAY - FRESH_DAYS, "digest")) == CLAIMED
    assert assess(copy(), [AuditResult(B, 0, "digest")], 0).state == DISPUTED
    assert assess(copy(), [AuditResult(B, 0, "digest"), AuditResult(C, 0, PASSED)], 0).state == TESTED
    assert assess(copy(), [AuditResult(B, TODAY - 2, PASSED)], TODAY, fresh_days=2).state == STALE
    assert assess(copy(), [AuditResult(B, TODAY - 1, PASSED)], TODAY, fresh_days=2).state == TESTED


def test_on_one_day_an_auditors_failure_counts_before_its_pass_and_a_proven_one_first() -> None:
    passed, claimed = AuditResult(B, TODAY, PASSED), AuditResult(B, TODAY, "not-held")
    proven = AuditResult(B, TODAY, "digest", proven=True)
    assert state(passed, claimed) == state(claimed, passed) == DISPUTED
    assert state(claimed, proven) == state(proven, claimed) == FAILED


def test_a_failure_that_is_newer_than_every_pass_counts() -> None:
    passed = AuditResult(C, TODAY - 3, PASSED)
    assert state(AuditResult(B, TODAY - 2, "digest"), passed) == TESTED, "one claim against a test"
    assert state(AuditResult(B, TODAY - 2, "digest", proven=True), passed) == FAILED
    assert state(AuditResult(B, TODAY - 2, "digest"), AuditResult(D, TODAY - 2, "digest"), passed) == FAILED
    assert state(AuditResult(B, TODAY - 3, "digest"), AuditResult(D, TODAY - 2, "digest"), passed) == TESTED


def test_a_failure_between_two_passes_does_not_count() -> None:
    passes = [AuditResult(who, TODAY - days, PASSED) for who, days in ((C, 3), (D, 1))]
    assert state(AuditResult(B, TODAY - 2, "digest", proven=True), *passes) == TESTED
    assert state(AuditResult(B, TODAY, "digest", proven=True), *passes) == FAILED


def test_results_are_shown_newest_first_and_of_each_auditor_the_newest_only() -> None:
    results = [
        *(AuditResult(who, TODAY - 1, PASSED) for who in (D, C)),
        *(AuditResult(B, TODAY - days, MISSED) for days in (3, 0, 2)),
        AuditResult(A, TODAY, PASSED),
    ]
    first, second = sorted((C, D))
    shown = assess(copy(), results, TODAY).results
    assert [(each.auditor, each.day) for each in shown] == [(B, TODAY), (first, TODAY - 1), (second, TODAY - 1)]


def test_a_clock_may_be_a_day_ahead() -> None:
    assert state(AuditResult(B, TODAY + 1, PASSED)) == TESTED


def test_a_result_from_the_future_counts_for_nothing() -> None:
    assert state(AuditResult(B, TODAY + 2, PASSED)) == CLAIMED
    assert state(AuditResult(B, TODAY + 2, "digest")) == CLAIMED


def test_a_withdrawn_copy_stays_withdrawn_despite_audits() -> None:
    assert state(AuditResult(B, TODAY, PASSED), of=copy(withdrawn="legal-order")) == WITHDRAWN


def test_the_newest_result_of_an_auditor_replaces_its_earlier_ones() -> None:
    failed, passed = AuditResult(B, TODAY - 1, "digest", proven=True), AuditResult(B, TODAY, PASSED)
    assert state(failed) == FAILED
    assert state(failed, passed) == state(passed, failed) == TESTED
    assert state(AuditResult(B, TODAY, "digest", proven=True), passed) == FAILED


def test_a_lying_auditor_cannot_mark_a_copy_as_failed_that_others_test() -> None:
    lie = AuditResult(B, TODAY, "digest")
    assessed = assess(copy(), [lie, AuditResult(C, TODAY, PASSED)], TODAY)
    assert assessed.state == TESTED
    assert assess(copy(), [lie, AuditResult(C, TODAY - 1, PASSED)], TODAY).state == TESTED
    assert lie in assessed.results  # and the output names the member that declares it
    assert not lie.proven


def test_one_auditor_without_proof_makes_a_copy_disputed_and_it_still_counts() -> None:
    lie = AuditResult(B, TODAY, "not-held")
    assessed = assess(copy(), [lie], TODAY)
    assert assessed.state == DISPUTED
    assert assessed.counts
    assert state(lie, AuditResult(B, TODAY - 1, "digest")) == DISPUTED  # a second declaration changes nothing
    assert state(lie, AuditResult(C, TODAY, "not-held")) == FAILED
    assert state(AuditResult(B, TODAY, "digest", proven=True)) == FAILED


def test_an_audit_without_an_answer_does_not_undo_a_test() -> None:
    passed, missed = AuditResult(B, TODAY - 1, PASSED), AuditResult(B, TODAY, MISSED)
    assessed = assess(copy(), [passed, missed], TODAY)
    assert (assessed.state, assessed.results) == (TESTED, (missed, passed))


def test_members_with_several_nodes_count_once() -> None:
    second = ClaimedCopy(A, sha256(b"second node"), "CH")
    found = holders([assess(copy(), [], TODAY), assess(second, [AuditResult(B, TODAY, PASSED)], TODAY)])
    assert found == (Holder(A, "CH", tested=True),)


def test_the_own_copy_counts_as_tested() -> None:
    (holder,) = holders([assess(copy(), [], TODAY)], own=A)
    assert holder.tested


def test_withdrawn_and_failed_copies_do_not_count() -> None:
    gone = assess(copy(withdrawn="space"), [], TODAY)
    failed = assess(copy(B), [AuditResult(C, TODAY, "digest", proven=True)], TODAY)
    assert holders([gone, failed]) == ()


def impact(
    artifacts: Iterable[tuple[Digest, Sequence[Holder]]], parties: Sequence[Party], policy: CopyPolicy
) -> dict[Party, list[Loss]]:
    """What each party would take."""
    found: dict[Party, list[Loss]] = {party: [] for party in parties}
    for artifact, held in artifacts:
        for party, before, after in losses(held, parties, policy):
            found[party].append(Loss(artifact, before, after))
    return found


def test_impact_names_artifacts_below_the_policy_and_lost_ones() -> None:
    wide = [Holder(A, "CH", True), Holder(B, "ES", True), Holder(C, "KR", False), Holder(D, "ES", False)]
    narrow = wide[:3]
    last = [Holder(A, "CH", True)]
    artifacts = [(sha256(b"wide"), wide), (sha256(b"narrow"), narrow), (sha256(b"last"), last)]
    parties = [Party("member", A), Party("member", D), Party("jurisdiction", "ES"), Party("publisher", E)]
    lost = impact(artifacts, parties, POLICY)
    assert [loss.artifact for loss in lost[parties[0]]] == [sha256(b"narrow"), sha256(b"last")]
    assert [loss.gone for loss in lost[parties[0]]] == [False, True]
    assert lost[parties[1]] == []
    assert lost[parties[2]] == [
        Loss(sha256(b"wide"), CopyCount(4, 3, 2, 2, undeclared=4), CopyCount(2, 2, 1, 1, undeclared=2)),
        Loss(sha256(b"narrow"), CopyCount(3, 3, 2, 2, undeclared=3), CopyCount(2, 2, 1, 1, undeclared=2)),
    ]
    assert lost[parties[3]] == []


def test_impact_agrees_with_counting_each_party_alone() -> None:
    chance = random.Random(3)
    members = [(sha256(b"%d" % at), chance.choice(["CH", "ES", "KR"])) for at in range(6)]
    artifacts = [
        (sha256(b"artifact %d" % at), [Holder(*who, chance.random() < 0.5) for who in members if chance.random() < 0.6])
        for at in range(100)
    ]
    parties = [*(Party("member", who) for who, _ in members), *(Party("jurisdiction", j) for j in ("CH", "ES", "KR"))]
    lost = impact(artifacts, parties, POLICY)
    for party in parties:
        expected = [
            artifact
            for artifact, found in artifacts
            if any(party in parties_of(holder) for holder in found)
            and not CopyCount.of(holder for holder in found if party not in parties_of(holder)).meets(POLICY)
        ]
        assert [loss.artifact for loss in lost[party]] == expected


ON_ONE_CLOUD = [
    Holder(A, "CH", True, ("CH", "US"), "Example Cloud"),
    Holder(B, "ES", True, ("ES", "US"), "Example Cloud"),
    Holder(C, "KR", True, ("KR", "US"), "Example Cloud"),
]


def test_three_copies_in_three_countries_on_one_foreign_cloud_have_one_reach() -> None:
    count = CopyCount.of(ON_ONE_CLOUD)
    assert (count.copies, count.jurisdictions, count.reaches) == (3, 3, 1)
    assert count.meets(CopyPolicy(3, 3))
    assert not count.meets(CopyPolicy(3, 3, 2))
    own = Holder(D, "SG", True, ("SG",))
    assert CopyCount.of([*ON_ONE_CLOUD[:2], own]).meets(CopyPolicy(3, 3, 2))


def test_a_copy_without_a_declared_place_helps_no_reach_and_is_counted_as_undeclared() -> None:
    count = CopyCount.of([ON_ONE_CLOUD[0], Holder(D, "SG", True)])
    assert (count.copies, count.reaches, count.undeclared) == (2, 1, 1)


def test_the_loss_of_a_reach_or_a_cloud_takes_what_is_declared_to_be_there() -> None:
    found = [*ON_ONE_CLOUD, Holder(D, "SG", True, ("SG",)), Holder(E, "US", True)]
    gone = {
        Party("reach", "US"): 1,  # the undeclared copy of the member seated there is lost, too
        Party("cloud", "Example Cloud"): 2,
        Party("jurisdiction", "US"): 4,
        Party("reach", "CH"): 4,
    }
    lost = impact([(sha256(b"a"), found)], list(gone), CopyPolicy(5, 1))
    assert {party: lost[party][0].after.copies for party in gone} == gone


def test_a_member_with_a_second_copy_elsewhere_is_reached_only_by_what_reaches_both() -> None:
    here = ClaimedCopy(A, sha256(b"1"), "CH", reach=("CH", "US"), cloud="Example Cloud")
    there = ClaimedCopy(A, sha256(b"2"), "CH", reach=("CH", "DE"))
    (holder,) = holders([assess(here, [], TODAY), assess(there, [], TODAY)])
    assert (holder.reach, holder.cloud) == (("CH",), "")


def test_copies_outside_a_jurisdiction_are_so_by_seat_and_by_reach() -> None:
    own, silent = Holder(D, "SG", True, ("SG",)), Holder(E, "BR", True)
    assert outside([*ON_ONE_CLOUD, own, silent], ["US"]) == (own,)
    assert outside([own], ["SG"]) == ()


def test_a_withdrawal_reads_back() -> None:
    node = nodes(1)[0]
    withdrawn = HoldWithdrawn(node.record.node, sha256(b"a"), 17, "legal-order", "order 12\nof a court", kept=True)
    assert HoldWithdrawn.parse(sign_content(withdrawn, node.online).statement) == withdrawn
    with pytest.raises(Malformed):
        sign_content(HoldWithdrawn(node.record.node, sha256(b"a"), 17, "whim", ""), node.online)


SAID = HoldWithdrawn(nodes(1)[0].record.node, sha256(b"a"), 17, "other", "", forced=True)


def said(withdrawn: HoldWithdrawn = SAID) -> Statement:
    node = nodes(1)[0]
    return sign_content(withdrawn, node.online).statement


def test_a_basis_may_be_empty_and_as_long_as_its_limit() -> None:
    for basis in ("", "x" * MAX_BASIS):
        withdrawn = replace(SAID, basis=basis, hold=0)
        assert HoldWithdrawn.parse(said(withdrawn)) == withdrawn
    with pytest.raises(Malformed):
        said(replace(SAID, basis="x" * (MAX_BASIS + 1)))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"predicate": "hold"}, id="another predicate"),
        pytest.param({"by": None}, id="without an author"),
        pytest.param({"by": Author("identity", A)}, id="of an identity"),
        pytest.param({"subjects": (Subject("", A), Subject("", B))}, id="of two artifacts"),
        pytest.param({"body": {**said().body, "kept": 1}}, id="kept that is no boolean"),
        pytest.param({"body": {**said().body, "forced": None}}, id="forced that is no boolean"),
        pytest.param({"body": {**said().body, "hold": -1}}, id="an entry before the first"),
        pytest.param({"body": {**said().body, "more": 1}}, id="another member"),
    ],
)
def test_an_invalid_withdrawal_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        HoldWithdrawn.parse(replace(said(), **change))


def test_a_policy_is_written_with_its_reaches_if_it_asks_for_some() -> None:
    assert str(CopyPolicy(3, 2)) == "3 in 2 jurisdictions"
    assert str(CopyPolicy(3, 2, 1)) == "3 in 2 jurisdictions and 1 reaches"
    assert CopyPolicy.of(None) == CopyPolicy(1, 1)
    assert CopyPolicy.of(CharterPolicy(5, 4, 3, 2, min_reaches=1)) == CopyPolicy(4, 3, 1)


@pytest.mark.parametrize("asked", [CopyPolicy(4, 3, 2), CopyPolicy(3, 4, 2), CopyPolicy(3, 3, 3)])
def test_a_count_meets_a_policy_in_each_of_its_numbers_as_claimed_and_as_tested(asked: CopyPolicy) -> None:
    claimed, tested = CopyCount(3, 3, 0, 0, 2, 0), CopyCount(0, 0, 3, 3, 0, 2)
    assert claimed.meets(CopyPolicy(3, 3, 2)) and not claimed.meets(asked)
    assert tested.tested_meets(CopyPolicy(3, 3, 2)) and not tested.tested_meets(asked)
    assert not claimed.tested_meets(CopyPolicy(1, 1)) and not tested.meets(CopyPolicy(1, 1))


def test_tested_copies_are_counted_beside_claimed_ones() -> None:
    mixed = [Holder(A, "CH", True, ("CH",)), Holder(B, "CH", False, ("FR",)), Holder(C, "ES", False)]
    assert CopyCount.of(mixed) == CopyCount(3, 2, 1, 1, 2, 1, undeclared=1)


def test_copies_of_one_member_on_one_cloud_are_on_that_cloud() -> None:
    here = ClaimedCopy(A, sha256(b"1"), "CH", reach=("CH",), cloud="Example Cloud")
    there = ClaimedCopy(A, sha256(b"2"), "CH")
    both = [assess(here, [], TODAY), assess(replace(here, node=B), [], TODAY)]
    assert [(each.reach, each.cloud) for each in holders(both)] == [(("CH",), "Example Cloud")]
    assert [(each.reach, each.cloud) for each in holders([both[0], assess(there, [], TODAY)])] == [(("CH",), "")]
    assert not holders(both, own=B)[0].tested
    other = replace(here, cloud="Another Cloud", reach=("US", "FR", "DE", "CH"))
    assert [each.cloud for each in holders([both[0], assess(other, [], TODAY)])] == [""]
    assert [each.reach for each in holders([assess(other, [], TODAY)])] == [("CH", "DE", "FR", "US")]


def test_a_copy_on_no_cloud_survives_the_loss_of_any_cloud() -> None:
    assert [each.kind for each in parties_of(Holder(A, "CH", True, ("CH", "US")))] == [
        "member",
        "publisher",
        "jurisdiction",
        "reach",
        "reach",
    ]
    assert parties_of(ON_ONE_CLOUD[0])[-1] == Party("cloud", "Example Cloud")


def test_a_loss_is_that_of_the_last_copy_only_if_none_is_left() -> None:
    found = [Holder(A, "CH", True), Holder(B, "CH", True)]
    lost = impact([(sha256(b"a"), found)], [Party("member", A), Party("jurisdiction", "CH")], CopyPolicy(2, 1))
    assert [loss.gone for each in lost.values() for loss in each] == [False, True]
