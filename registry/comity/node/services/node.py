"""Serves facts about this node, and its charter."""

from __future__ import annotations

from collections.abc import Callable

from comity.node.epochs import EpochStore
from comity.node.home import SOFTWARE
from comity.node.members import Seat
from comity.node.own_log import newest_addresses
from comity.node.threads import AsyncLedger
from comity.trust.errors import NotFound
from comity.wire.addresses import GatewayUrl
from comity.wire.node import Charter, NodeFacts, ReplicaCounts


class NodeFactsService:
    """Implements `NodeReads`."""

    def __init__(
        self,
        ledger: AsyncLedger,
        seat: Seat,
        epochs: EpochStore | None,
        gateway: GatewayUrl | None,
        counts: Callable[[], ReplicaCounts | None],
    ) -> None:
        self._ledger = ledger
        self._seat = seat
        self._epochs = epochs
        self._gateway = gateway
        self._counts = counts

    async def node(self) -> NodeFacts:
        seat = self._seat
        return NodeFacts(
            software=SOFTWARE,
            origin=seat.record.origin,
            node_record=seat.record_line,
            identity=(seat.inception_line, *seat.rotation_lines),
            addresses=await self._ledger.run(newest_addresses, self._ledger.tables, seat.record),
            gateway=self._gateway,
            replicas=self._counts(),
        )

    async def charter(self, epoch: int | None) -> Charter:
        epochs = self._epochs
        if epochs is None:
            raise NotFound("no such charter", why="this node has no charter", code="NO-CHARTER")
        wanted = epochs.newest.epoch if epoch is None else epoch
        certificate = await self._ledger.run(epochs.certificate, wanted)
        return Charter(wanted, certificate.body.data, certificate.lines)
