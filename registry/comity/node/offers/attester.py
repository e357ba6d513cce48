"""Logs hardware evidence of the machines that this node offers.

The evidence is for a challenge that names a checkpoint of this node's log. The node checks its form and its challenge,
not its vendor's signatures: whoever reads the offer appraises the evidence by roots of their own choice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from comity.content.blobs import BlobStore
from comity.node.keys import NodeSigner
from comity.node.offers.index import OfferIndex
from comity.node.offers.own_chains import no_offer
from comity.node.threads import AsyncLedger, Pools
from comity.trust.errors import Refused
from comity.trust.hardware.evidence import Attested, Challenge, HardwareEvidence, sign_attested
from comity.trust.statement import SideObject
from comity.wire.messages import LocatedEntry
from comity.wire.offer import Attest


class HardwareAttester:
    """Writes `attested` statements about this node's own offers."""

    def __init__(
        self,
        ledger: AsyncLedger,
        pools: Pools,
        store: BlobStore,
        signer: NodeSigner,
        index: OfferIndex,
        append: Callable[[bytes], Awaitable[int]],
    ) -> None:
        self._ledger = ledger
        self._pools = pools
        self._store = store
        self._signer = signer
        self._index = index
        self._append = append

    async def attest(self, action: Attest) -> tuple[LocatedEntry, ...]:
        """Store the evidence and log the statement, once.

        Raises Malformed, NotFound (NO-OFFER), Refused (ATTEST-CHALLENGE) if the log has another root at that size.
        """
        HardwareEvidence.parse(action.evidence)
        await self._index.read_own()
        if self._index.own.chain_of(action.offer) is None:
            raise no_offer(action.offer)
        record = self._signer.record
        await self._require_checkpoint(action)
        evidence = SideObject.of(action.evidence)
        await self._pools.files(self._store.put, evidence.digest, action.evidence)
        challenge = Challenge(action.offer, record.origin, action.size, action.root, record.node.id)
        entry = sign_attested(Attested(record.node, challenge, evidence), self._signer.online)
        index = await self._append(entry.line)
        line = await self._ledger.run(self._ledger.tables.history.entry, str(record.log), index)
        return (LocatedEntry(record.origin, index, line),)

    async def _require_checkpoint(self, action: Attest) -> None:
        tables, log = self._ledger.tables, str(self._signer.record.log)
        size = (await self._ledger.run(tables.logs.get, log)).size
        if not 1 <= action.size <= size or bytes.fromhex(action.root) != await self._ledger.run(
            tables.history.root, log, action.size
        ):
            raise Refused(
                "the challenge is not of this log",
                why=f"the log of this node has another root at {action.size} entries",
                hint="comity offer challenge OFFER, and take the evidence again",
                code="ATTEST-CHALLENGE",
            )
