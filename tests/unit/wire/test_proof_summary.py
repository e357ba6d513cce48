"""What a node says of a proof instead of sending it: the size of the tree, and whose signatures the checkpoint has."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.tlog.note import MAX_SIGNATURES
from comity.trust.tlog.proof import TlogProof
from comity.v1 import log_pb2
from comity.wire.log import KEY_ID, LocatedProof, ProofSummary
from support.case import case
from support.wired import MemoryNode, met

GOOD = case().proofs[0]
LOCATED = LocatedProof("example.org/log", GOOD.data)


class Proving(MemoryNode):
    """A node with one proof, or with bytes that are none."""

    def __init__(self, located: LocatedProof = LOCATED) -> None:
        super().__init__()
        self.located = located

    async def proofs(self, line_digest: Digest, origin: str | None = None) -> AsyncGenerator[LocatedProof, None]:
        yield self.located


async def test_a_proof_is_given_in_brief_or_in_full() -> None:
    note = TlogProof.parse(GOOD.data).checkpoint
    size = int(note.text.split("\n")[1])
    signers = tuple(signature.key_id for signature in note.signatures)
    async with met(Proving()) as client:
        assert await client.proofs_in_brief(GOOD.line) == (ProofSummary(LOCATED.origin, size, signers),)
        assert await client.proofs(GOOD.line) == (LOCATED,)


async def test_of_bytes_that_are_no_proof_nothing_is_said() -> None:
    async with met(Proving(LocatedProof(LOCATED.origin, b"no proof"))) as client:
        with pytest.raises(Malformed):
            await client.proofs_in_brief(GOOD.line)


@pytest.mark.parametrize("signers", [b"", bytes(KEY_ID + 1), bytes((MAX_SIGNATURES + 1) * KEY_ID)])
async def test_signers_out_of_bounds_are_refused(signers: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    said = log_pb2.LocatedProof(origin=LOCATED.origin, size=7, signers=signers)
    monkeypatch.setattr("comity.wire.log._SUMMARY.encode", lambda summary: said, raising=False)
    async with met(Proving()) as client:
        with pytest.raises(Malformed):
            await client.proofs_in_brief(GOOD.line)
