"""A member that calls its log as another member's log is called: what readers of a charter are told of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comity_client.charter.drafts import draft_admission
from comity_client.charter.proposals import propose_plan
from comity_client.charter.state import CharterMaterial, CharterState, federation_charter_state
from support.world import Identity, found, identity, node, seat

CH, SG, ES = (seat(code, ("ed25519",)) for code in ("CH", "SG", "ES"))
IMPOSTOR = identity("Institute of Nowhere", "CH", kind="member", algs=("ed25519",))
NEWCOMER = seat("BR", ("ed25519",))


def state_with(*newcomers: Identity) -> CharterState:
    federation = found([node(who) for who in (CH, SG, ES)])
    return federation_charter_state(federation, CharterMaterial.of([who.entry.line for who in newcomers], []))


def test_a_newcomer_with_the_origin_of_a_member_is_told_with_its_owner() -> None:
    state = state_with(IMPOSTOR, NEWCOMER)
    assert state.taken_origin(IMPOSTOR.member) == ("node-ch.example/log", "Institute CH (CH)")
    assert state.taken_origin(NEWCOMER.member) is None


@pytest.mark.parametrize("member", [CH, SG, ES])
def test_a_member_has_its_own_origin(member: Identity) -> None:
    assert state_with(IMPOSTOR).taken_origin(member.member) is None


def test_two_members_of_one_epoch_with_one_origin_own_it_both_or_neither() -> None:
    federation = found([node(CH), node(SG), node(IMPOSTOR, "node-x.example")])
    state = federation_charter_state(federation)
    assert [state.taken_origin(who.member) for who in (CH, IMPOSTOR, SG)] == [
        ("node-ch.example/log", "several members"),
        ("node-ch.example/log", "several members"),
        None,
    ]


def test_who_succeeds_a_member_may_have_its_origin() -> None:
    heir = replace(IMPOSTOR.member, successor_of=CH.id)
    assert state_with(IMPOSTOR).taken_origin(heir) is None


def test_the_plan_of_a_draft_that_admits_it_says_so_before_anything_is_signed() -> None:
    state = state_with(IMPOSTOR, NEWCOMER)
    for newcomer, told in ((IMPOSTOR, True), (NEWCOMER, False)):
        made = propose_plan(state, CH.signer.public, draft_admission(state.current, newcomer.member), "they asked")
        warned = [
            text for text in made.warnings if "node-ch.example/log, which is the log of Institute CH (CH)" in text
        ]
        assert bool(warned) is told
