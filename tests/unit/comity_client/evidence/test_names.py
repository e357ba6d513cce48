"""Who claims a name, by what nodes say together."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from comity.trust.encoding import Digest
from comity.trust.resolution import MIRROR, PublisherClaim
from comity_client.evidence.names import Claims
from support.world import identity

OWNER, RIVAL = identity("Swiss AI", "CH"), identity("Rival", "SG")


def claims(*publishers: Digest, mirrored: bool = False, limited: bool = False) -> Claims:
    made: Any = tuple(
        SimpleNamespace(publisher=SimpleNamespace(id=who, display=f"label {who[:2]}")) for who in publishers
    )
    said: Any = SimpleNamespace(limited=limited)
    return Claims("swiss-ai/tiny", said, made, {}, mirrored)


def test_claimants_are_listed_once_and_the_mirror_last() -> None:
    made = claims(OWNER.id, RIVAL.id, OWNER.id, mirrored=True)
    assert made.claimants == (PublisherClaim(OWNER.id), PublisherClaim(RIVAL.id), MIRROR)
    assert claims().claimants == ()


def test_rivals_are_all_but_the_owner() -> None:
    made = claims(OWNER.id, RIVAL.id, mirrored=True)
    assert len(made.rivals(PublisherClaim(OWNER.id))) == 2 and len(made.rivals(MIRROR)) == 2
    assert claims(OWNER.id).rivals(PublisherClaim(OWNER.id)) == ()
    (other,) = claims(OWNER.id, limited=True).rivals(PublisherClaim(OWNER.id))
    assert "no node listed" in other
