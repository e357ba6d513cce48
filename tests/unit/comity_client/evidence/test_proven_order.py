"""The newest version of a name: by the index that a node claims, and by the proven indexes where it does not prove its
own.
"""

from __future__ import annotations

from typing import Any

import pytest
from comity.trust.claims import Publication
from comity.trust.encoding import Digest
from comity.trust.home_logs import HomeLogs, HomePosition
from comity.trust.names import Reference
from comity.trust.policy import Policy
from comity.trust.resolution import Candidate, Preference, PublisherClaim
from comity_client.evidence import home_positions, resolve
from comity_client.evidence.inquiry import Inquiry
from comity_client.session import Session
from support.candidates import OURS, A, B, C, candidate

BARE = Reference.parse("swiss-ai/tiny")


class Proofs:
    """The indexes that nodes prove, by artifact, and the artifacts for which they were asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **proven: int) -> None:
        self._proven = {Digest(name * 64): index for name, index in proven.items()}
        self.asked: list[Digest] = []
        monkeypatch.setattr(home_positions, "proven_position", self._position)

    async def _position(self, session: Any, of: Publication, home: HomeLogs) -> HomePosition | None:
        artifact = of.published.artifact
        self.asked.append(artifact)
        return HomePosition(0, self._proven[artifact]) if artifact in self._proven else None


async def choose(*candidates: Candidate, reference: Reference = BARE) -> tuple[Digest, int | None]:
    preference = Preference(PublisherClaim(OURS.id), "bound")
    positions = home_positions.HomePositions(Inquiry(Session([]), Policy()))
    chosen = await resolve._choose_proven(positions, reference, candidates, preference)
    return chosen.artifact, chosen.position.index if chosen.position else None


async def test_a_claimed_index_that_is_proven_decides_and_no_other_one_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proofs = Proofs(monkeypatch, a=3, b=7)
    assert await choose(candidate("v1", A, 3), candidate("v2", B, 7)) == (B, 7)
    assert proofs.asked == [B]


async def test_a_claimed_index_that_is_not_the_proven_one_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    proofs = Proofs(monkeypatch, a=3, b=7)
    assert await choose(candidate("v1", A, 9), candidate("v2", B, 7)) == (B, 7)
    assert sorted(proofs.asked) == [A, B], "each is asked for once"


async def test_an_unproven_index_does_not_order(monkeypatch: pytest.MonkeyPatch) -> None:
    Proofs(monkeypatch, b=7, c=1)
    assert await choose(candidate("v1", A, 9), candidate("v2", B, 7), candidate("v3", C, 8)) == (B, 7)


async def test_without_any_proof_the_claimed_indexes_order(monkeypatch: pytest.MonkeyPatch) -> None:
    Proofs(monkeypatch)
    assert await choose(candidate("v1", A, 9), candidate("v2", B, 7)) == (A, 9)


async def test_a_publication_without_a_claimed_index_is_placed_by_its_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    proofs = Proofs(monkeypatch, a=9, b=7)
    assert await choose(candidate("v1", A, None), candidate("v2", B, 7)) == (A, 9)
    assert proofs.asked == [A]


async def test_a_version_that_is_named_needs_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    proofs = Proofs(monkeypatch)
    named = Reference.parse("swiss-ai/tiny@v1")
    assert await choose(candidate("v1", A, 3), candidate("v2", B, 7), reference=named) == (A, 3)
    assert proofs.asked == []
