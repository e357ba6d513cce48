"""Serves facts about this node, and its charter."""

from __future__ import annotations

from collections.abc import Callable

from comity.node.epochs import EpochStore
from comity.node.home_files import SOFTWARE
from comity.node.members import OwnNode
from comity.node.own_log import newest_addresses
from comity.node.threads import AsyncLedger
from comity.trust.errors import NotFound
from comity.wire.addresses import GatewayUrl
from comity.wire.node import Charter, NodeFacts, ReplicaCounts


class NodeServicer:
    """Implements `NodeService`."""

    def __init__(
        self,
        ledger: AsyncLedger,
        own_node: OwnNode,
        epochs: EpochStore | None,
        gateway: GatewayUrl | None,
        counts: Callable[[], ReplicaCounts | None],
    ) -> None:
        self._ledger = ledger
        self._own_node = own_node
        self._epochs = epochs
        self._gateway = gateway
        self._counts = counts

    async def node(self) -> NodeFacts:
        own_node = self._own_node
        return NodeFacts(
            software=SOFTWARE,
            origin=own_node.record.origin,
            node_record=own_node.record_line,
            identity=(own_node.inception_line, *own_node.rotation_lines),
            addresses=await self._ledger.run(newest_addresses, self._ledger.tables, own_node.record),
            gateway=self._gateway,
            replicas=self._counts(),
        )

    async def charter(self, epoch: int | None = None) -> Charter:
        epochs = self._epochs
        if epochs is None:
            raise NotFound("no such charter", why="this node has no charter", code="NO-CHARTER")
        wanted = epochs.newest.epoch if epoch is None else epoch
        certificate = await self._ledger.run(epochs.certificate, wanted)
        return Charter(wanted, certificate.body.data, certificate.lines)
