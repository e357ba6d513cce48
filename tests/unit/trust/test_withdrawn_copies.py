"""Which nodes are shown to have withdrawn their copies of an artifact."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from comity.rules.signing import sign_content
from comity.trust.claims import read_claims
from comity.trust.copies import HeldArtifact, HoldWithdrawn
from comity.trust.encoding import Digest, sha256
from comity.trust.evidence import EvidenceReader
from comity.trust.statement import SideObject
from comity.wire.log import LocatedProof
from comity_client.evidence.artifact_info import _withdrawn
from support.case import nodes
from support.world import Log

ARTIFACT = sha256(b"an artifact")


async def test_nobody_makes_a_copy_look_withdrawn_by_logging_an_old_withdrawal_again() -> None:
    """A member binds a log of its own to the origin of the holder's log, and logs the holder's line there, later."""
    holder, thief, *_ = nodes(4)
    manifest, pieces = SideObject(ARTIFACT, 10), SideObject(sha256(b"pieces"), 10)
    record = holder.record
    held = sign_content(HeldArtifact(record.node, manifest, pieces), holder.online).line
    gone = sign_content(HoldWithdrawn(record.node, ARTIFACT, 0, "space", ""), holder.online).line
    again = sign_content(HeldArtifact(record.node, manifest, pieces, "again"), holder.online).line
    own, false = Log(record.origin, holder.log), Log(record.origin, thief.log)
    for line in (held, gone):
        own.append(line)
    readings = read_claims([held, gone], ARTIFACT)

    async def ask(question: Any) -> Any:
        async def proofs(line: Digest, log: str) -> tuple[LocatedProof, ...]:
            logs = [each for each in (own, false) if line in map(sha256, each.lines)]
            lines = {sha256(each): each for each in own.lines}
            return tuple(LocatedProof(each.origin, each.proof(lines[line]).data) for each in logs)

        return SimpleNamespace(found={"a node": await question(SimpleNamespace(proofs=proofs))})

    session = cast(Any, SimpleNamespace(nodes=[holder], ask=ask, reader=EvidenceReader()))
    places = {line: {(record.origin, own.lines.index(line))} for line in own.lines}
    assert await _withdrawn(session, readings, places, ARTIFACT) == {record.node.id: "space"}
    own.append(again)
    for line in (b"filler %d" % number for number in range(50)):
        false.append(line)
    false.append(gone)
    readings = read_claims([held, gone, again], ARTIFACT)
    places = {line: {(record.origin, own.lines.index(line))} for line in own.lines}
    places[gone].add((record.origin, 50))
    assert await _withdrawn(session, readings, places, ARTIFACT) == {}
