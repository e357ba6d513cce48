"""Whose a name is: first by the owner's decision, then by earlier pulls, then by the claimant that most members saw
first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import PolicyNotMet
from comity.trust.policy import Policy
from comity.trust.resolution import (
    MIRROR,
    Basis,
    Preference,
    PublisherClaim,
    bound_claimant,
    claimant_label,
    first_seen,
    preferred_claimant,
)
from hypothesis import given
from hypothesis import strategies as st
from support.case import nodes
from support.world import found, identity

OURS, RIVAL, THIRD = (PublisherClaim(sha256(name)) for name in (b"ours", b"rival", b"third"))
A, B, C, D = (sha256(name) for name in (b"A", b"B", b"C", b"D"))


def test_the_claimant_that_most_members_saw_first_is_shown_as_claimed() -> None:
    found = first_seen({A: OURS, B: OURS, C: OURS, D: RIVAL})
    assert found == Preference(OURS, "first seen", 3, 4)
    assert not found.decided
    assert str(found) == "what 3 of 4 members saw first; claimed, not bound"


def test_a_tie_prefers_no_claimant() -> None:
    assert first_seen({A: OURS, B: RIVAL, C: None}) is None
    assert first_seen({A: None}) is None
    assert first_seen({}) is None


def test_one_member_with_all_its_nodes_counts_once_and_changes_nothing() -> None:
    honest = {A: OURS, B: OURS, C: OURS}
    for said in (RIVAL, THIRD, MIRROR, None):
        found = first_seen({**honest, D: said})
        assert found is not None and found.claimant == OURS


@pytest.mark.parametrize("order", [[OURS, RIVAL], [RIVAL, OURS], [OURS, OURS, MIRROR], [MIRROR, THIRD, OURS]])
def test_no_claimant_is_chosen_for_being_the_first_listed(order: list[PublisherClaim]) -> None:
    with pytest.raises(PolicyNotMet) as caught:
        preferred_claimant("acme/tiny", order, [], {})
    assert caught.value.code == "NAME-DISPUTED"
    for claimant in set(order):
        assert claimant_label(claimant, "acme/tiny", {}) in caught.value.why


@given(st.dictionaries(st.sampled_from([A, B, C, D]), st.sampled_from([OURS, RIVAL, THIRD, MIRROR, None])))
def test_a_claimant_is_first_seen_if_it_alone_has_the_most_members(seen: dict[Digest, PublisherClaim | None]) -> None:
    claims = list(seen.values())
    counts = {claim: claims.count(claim) for claim in claims if claim is not None}
    leading = [claim for claim, count in counts.items() if count == max(counts.values())]
    expected = Preference(leading[0], "first seen", counts[leading[0]], len(seen)) if len(leading) == 1 else None
    assert first_seen(seen) == expected


def test_the_reason_for_a_preference_is_given() -> None:
    assert {basis: str(Preference(OURS, basis)) for basis in get_args(Basis)} == {
        "bound": "your binding of its namespace",
        "pinned": "the pinned charter's namespaces",
        "remembered": "an earlier resolution here; claimed, not bound",
        "first seen": "the only claimant; claimed, not bound",
    }
    assert str(Preference(OURS, "first seen", 1, 1)) == "what 1 of 1 member saw first; claimed, not bound"
    assert [Preference(OURS, basis).decided for basis in get_args(Basis)] == [True, True, False, False]


def test_the_owners_binding_or_the_pinned_charter_names_the_claimant() -> None:
    owner, charter = identity("Swiss AI", "CH"), identity("Rival", "SG")
    pinned = replace(Policy(), pins=(found(nodes(), {"swiss-ai": charter.id}).chain[-1],))
    assert bound_claimant(pinned, "swiss-ai/tiny") == Preference(PublisherClaim(charter.id), "pinned")
    assert bound_claimant(pinned, "tiny/swiss-ai") is None
    elsewhere = replace(pinned, bindings={"other": owner.id})
    assert bound_claimant(elsewhere, "swiss-ai/tiny") == Preference(PublisherClaim(charter.id), "pinned")
    for spelt in ("swiss-ai", "Swiss-AI"):
        both = replace(pinned, bindings={"other": charter.id, spelt: owner.id})
        assert bound_claimant(both, "swiss-ai/tiny") == Preference(PublisherClaim(owner.id), "bound")


def test_a_claimant_is_labelled_with_its_name_and_id() -> None:
    ours = OURS.publisher
    assert ours is not None
    assert claimant_label(OURS, "acme/tiny", {ours: "Lab"}) == f"Lab [{ours}]"
    assert claimant_label(OURS, "acme/tiny", {}) == short(ours)
    assert claimant_label(MIRROR, "acme/tiny", {ours: "Lab"}) == "the mirror of hf:acme/tiny"


def test_the_first_preference_decides_however_many_claim_the_name() -> None:
    bound, remembered = Preference(RIVAL, "bound"), Preference(OURS, "remembered")
    assert preferred_claimant("acme/tiny", [OURS, RIVAL, THIRD], [bound, remembered], {}) == bound
    assert preferred_claimant("acme/tiny", [RIVAL, THIRD, OURS], [remembered], {}) == remembered


def test_an_only_claimant_needs_no_preference() -> None:
    found = preferred_claimant("acme/tiny", [OURS, OURS], [], {})
    assert found is not None and found.claimant == OURS
    assert preferred_claimant("acme/tiny", [], [], {}) is None


def test_undecided_claimants_are_listed_with_the_command_that_decides() -> None:
    with pytest.raises(PolicyNotMet) as caught:
        preferred_claimant("acme/tiny", [OURS, MIRROR], [], {sha256(b"ours"): "Our lab"})
    assert caught.value.code == "NAME-DISPUTED"
    assert f"Our lab [{sha256(b'ours')}]" in caught.value.why and "hf:acme/tiny" in caught.value.why
    assert caught.value.hint == "comity trust bind acme IDENTITY"
