"""Whose a name is: what was decided, then what is remembered, then whom most members saw first."""

from __future__ import annotations

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import PolicyNotMet
from comity.trust.resolution import MIRROR, Preference, PublisherClaim, first_seen, preferred_claimant

OURS, RIVAL, THIRD = (PublisherClaim(sha256(name)) for name in (b"ours", b"rival", b"third"))
A, B, C, D = (sha256(name) for name in (b"A", b"B", b"C", b"D"))


def test_whom_most_members_saw_first_is_shown_as_claimed() -> None:
    found = first_seen({A: OURS, B: OURS, C: OURS, D: RIVAL})
    assert found == Preference(OURS, "first seen", 3, 4)
    assert not found.decided
    assert str(found) == "first seen by 3 of 4 members; claimed, not bound"


def test_a_tie_prefers_nobody() -> None:
    assert first_seen({A: OURS, B: RIVAL, C: None}) is None
    assert first_seen({A: None}) is None
    assert first_seen({}) is None


def test_one_member_with_all_its_nodes_has_one_voice_and_changes_nothing() -> None:
    honest = {A: OURS, B: OURS, C: OURS}
    for said in (RIVAL, THIRD, MIRROR, None):
        found = first_seen({**honest, D: said})
        assert found is not None and found.claimant == OURS


def test_the_first_preference_decides_however_many_claim_the_name() -> None:
    bound, remembered = Preference(RIVAL, "bound"), Preference(OURS, "remembered")
    assert preferred_claimant("acme/tiny", [OURS, RIVAL, THIRD], [bound, remembered], {}) == bound
    assert preferred_claimant("acme/tiny", [RIVAL, THIRD, OURS], [remembered], {}) == remembered


def test_an_only_claimant_needs_no_preference() -> None:
    found = preferred_claimant("acme/tiny", [OURS, OURS], [], {})
    assert found is not None and found.claimant == OURS
    assert preferred_claimant("acme/tiny", [], [], {}) is None


def test_several_that_nothing_prefers_are_listed_with_the_command_that_decides() -> None:
    with pytest.raises(PolicyNotMet) as caught:
        preferred_claimant("acme/tiny", [OURS, MIRROR], [], {sha256(b"ours"): "Our lab"})
    assert caught.value.code == "NAME-DISPUTED"
    assert f"Our lab [{sha256(b'ours')}]" in caught.value.why and "hf:acme/tiny" in caught.value.why
    assert caught.value.hint == "comity trust bind acme IDENTITY"
