"""Drafts of charters: one change each, and a draft that lost, made again on a new charter."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from comity.rules.charter_drafts import genesis
from comity.trust.charter.document import Body, CharterPolicy, Member, quorum
from comity.trust.encoding import Digest
from comity.trust.errors import Conflict, Malformed, NotFound
from comity.trust.rotation import KeyState
from comity_client.charter.drafts import (
    draft_admission,
    draft_namespaces,
    draft_policy_change,
    draft_rekeying,
    draft_removal,
    draft_status,
    draft_succession,
    rebase_draft,
)
from comity_client.charter.state import CharterMaterial, compute_charter_state
from comity_client.trust_store import body_changes
from support.charters import Seated, votes
from support.rotations import of
from support.world import seat

CODES = ("CH", "ES", "KR", "SG", "BR", "KE", "NO")
X, Y = Digest("5" * 64), Digest("7" * 64)


def member(code: str) -> Member:
    return seat(code).member


def charter(count: int, asked: int | None = None) -> Body:
    policy = CharterPolicy(asked or quorum(count), min_copies=3, min_jurisdictions=2, cosigner_quorum=2)
    return genesis([member(code) for code in CODES[:count]], policy)


def test_each_draft_changes_one_thing_and_nothing_else() -> None:
    four = charter(4)
    assert {c.what for c in body_changes(four, draft_namespaces(four, {"alia": X}))} == {"namespace"}
    asked = dataclasses.replace(four.policy, min_copies=4)
    assert [c.name for c in body_changes(four, draft_policy_change(four, asked))] == ["min_copies"]
    rekeyed = KeyState(member("CH").id, member("BR").keys, member("BR").recovery)
    (change,) = body_changes(four, draft_rekeying(four, rekeyed))
    assert (change.what, change.name) == ("member", member("CH").id)


def test_a_quorum_at_the_floor_follows_the_number_of_members() -> None:
    five = draft_admission(charter(4), member("BR"))
    assert five.policy.quorum_change == quorum(5)
    assert draft_removal(charter(5), member("BR").id).policy.quorum_change == quorum(4)


def test_a_quorum_above_the_floor_stays_while_it_is_valid() -> None:
    assert draft_admission(charter(5, 5), member("KE")).policy.quorum_change == 5
    assert draft_removal(charter(5, 5), member("BR").id).policy.quorum_change == 4


def test_a_member_is_not_admitted_again() -> None:
    with pytest.raises(Conflict) as exists:
        draft_admission(charter(4), member("CH"))
    assert exists.value.code == "MEMBER-EXISTS"


def test_a_successor_counts_as_the_member_whose_keys_are_lost() -> None:
    old = member("CH")
    after = draft_succession(charter(4), old, dataclasses.replace(member("BR"), jurisdiction="CH"))
    assert after.member(old.id) is None
    assert after.member(member("BR").id).lineage == old.id  # type: ignore[union-attr]  # it is a member


def test_an_observer_has_no_vote_and_does_not_count() -> None:
    after = draft_status(charter(5), member("BR").id, "observer")
    assert (len(after.active), after.policy.quorum_change) == (4, quorum(4))


def test_a_losing_admission_is_rebased_on_another_admission_with_the_right_quorum() -> None:
    four = charter(4)
    lost, won = draft_admission(four, member("BR")), draft_admission(four, member("KE"))
    both = rebase_draft(lost, four, won)
    assert {seat.id for seat in both.members} == {member(code).id for code in ("CH", "ES", "KR", "SG", "BR", "KE")}
    assert (both.prev, both.epoch) == (won.digest, 2)
    assert both.policy.quorum_change == quorum(6)


def test_a_quorum_that_was_asked_for_survives_a_rebase() -> None:
    five = charter(5)
    asked = draft_policy_change(five, dataclasses.replace(five.policy, quorum_change=5))
    won = draft_namespaces(five, {"alia": X})
    again = rebase_draft(asked, five, won)
    assert (again.policy.quorum_change, again.namespaces) == (5, {"alia": X})


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (lambda b: draft_namespaces(b, {"alia": X}), lambda b: draft_namespaces(b, {"alia": Y})),
        (
            lambda b: draft_policy_change(b, dataclasses.replace(b.policy, min_copies=4)),
            lambda b: draft_policy_change(b, dataclasses.replace(b.policy, min_copies=2)),
        ),
        (
            lambda b: draft_status(b, member("CH").id, "observer"),
            lambda b: draft_removal(b, member("CH").id),
        ),
    ],
)
def test_two_changes_of_one_thing_are_for_a_person_to_settle(
    mine: Callable[[Body], Body], theirs: Callable[[Body], Body]
) -> None:
    before = charter(5)
    with pytest.raises(Conflict) as conflict:
        rebase_draft(mine(before), before, theirs(before))
    assert conflict.value.code == "REBASE"


def test_the_same_change_on_both_sides_is_no_conflict() -> None:
    before = charter(4)
    one = draft_namespaces(before, {"alia": X, "mine": X})
    other = draft_namespaces(before, {"alia": X})
    assert rebase_draft(one, before, other).namespaces == {"alia": X, "mine": X}


def test_the_last_member_cannot_be_removed() -> None:
    with pytest.raises(Malformed):
        draft_removal(charter(1), member("CH").id)


def test_a_decided_draft_is_reported_as_decided() -> None:
    start = charter(4)
    body = draft_policy_change(start, dataclasses.replace(start.policy, min_copies=4))
    people = [Seated(each.inception, each.signer, of(each).recovery[0]) for each in map(seat, CODES[:4])]
    material = CharterMaterial.of([entry.line for entry in votes(people, start, body)], [body.data])
    for state in (compute_charter_state(start, material), compute_charter_state(body, material)):
        with pytest.raises(NotFound) as caught:
            state.draft(body.digest[:12])
        assert caught.value.why == "the votes known here decide it, as epoch 1"
