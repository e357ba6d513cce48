"""What the library of attackers writes by hand is what the formats say, so that it is refused for what it claims, and
not for a slip in the writing."""

from __future__ import annotations

import pytest
from attackers import ATTACKERS, Attacker
from attackers.forging import Identity, Release, named, observations, observe
from comity.trust.identity import check_inception
from comity.trust.manifest import Manifest
from comity.trust.pieces import PieceIndex
from comity.trust.statement import parse_entry
from comity.trust.statements.published import check_published
from comity.trust.upstream.comparing import parse_observations
from comity.trust.upstream.observed import Observed

WHO = Identity.made("somebody")
RELEASE = Release(b"a file\n")


def test_identities_and_publications_by_hand_prove_themselves() -> None:
    inception = check_inception(parse_entry(WHO.inception))
    assert inception.id == WHO.id
    published = check_published(parse_entry(WHO.publish("acme/tiny@v1", RELEASE)), inception)
    assert published.manifest.to_json() == named(RELEASE.manifest)
    assert Manifest.parse(RELEASE.manifest).encode() == RELEASE.manifest
    assert PieceIndex.parse(RELEASE.pieces).encode() == RELEASE.pieces


def test_observations_by_hand_are_read() -> None:
    line = observe(WHO, "org/tiny", "1f" * 20, "http://127.0.0.1:1", RELEASE)
    with pytest.raises(Exception, match="node"):
        Observed.parse(parse_entry(line).statement)
    assert parse_observations(observations(RELEASE))[0].match == "sha256"


@pytest.mark.parametrize("each", ATTACKERS.values(), ids=lambda each: each.name)
def test_an_attacker_says_who_it_is_and_what_it_stands_for(each: Attacker) -> None:
    assert each.by in ("stranger", "identity", "member", "addresses")
    assert each.lines and each.name == each.name.strip()
    assert all(isinstance(sample, bytes) for sample in each.bytes_sent())
