"""Publications under one name, as a resolution chooses among them."""

from __future__ import annotations

from comity.rules.signing import sign_content
from comity.trust.claims import Publication
from comity.trust.encoding import Digest
from comity.trust.home_logs import HomePosition
from comity.trust.names import Name
from comity.trust.resolution import Candidate
from comity.trust.rotation import KeyState, follow
from comity.trust.statement import SideObject
from comity.trust.statements import Licence, Published
from support.world import Identity, identity

OURS, RIVAL = identity("Swiss AI", "CH"), identity("Rival", "SG")
A, B, C = (Digest(digit * 64) for digit in "abc")


def candidate(
    version: str, artifact: Digest, index: int | None, *, by: Identity = OURS, withdrawn: bool = False
) -> Candidate:
    published = Published(
        by=by.id,
        name=Name("swiss-ai", "tiny", version),
        artifact=artifact,
        manifest=SideObject(artifact, 1),
        pieces=SideObject(C, 1),
        licence=Licence("MIT"),
    )
    chain = follow(KeyState.of_inception(by.inception), ())
    position = None if index is None else HomePosition(0, index)
    return Candidate(
        Publication(sign_content(published, by.signer), published, by.inception, chain), position, withdrawn
    )
