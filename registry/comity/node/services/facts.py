"""Who this node says it is, and the charter that it holds."""

from __future__ import annotations

from importlib.metadata import version

from comity.node.core import Core
from comity.node.scan import newest_addresses
from comity.trust.errors import NotFound
from comity.wire.values import Charter, NodeFacts

SOFTWARE = f"comity {version('comity')}"


class Facts:
    """Answers `NodeReads`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def node(self) -> NodeFacts:
        seat = self._core.seat
        return NodeFacts(
            software=SOFTWARE,
            origin=self._core.origin,
            node_record=seat.record_line,
            identity=(seat.inception_line, *seat.rotation_lines),
            addresses=await self._core.pools.ledger(newest_addresses, self._core.ledger, seat.record),
            gateway=self._core.config.gateway.told(),
        )

    async def charter(self, epoch: int | None) -> Charter:
        annals = self._core.annals
        if annals is None:
            raise NotFound("no such charter", why="this node does not hold any charter", code="NO-CHARTER")
        wanted = annals.newest.epoch if epoch is None else epoch
        certificate = await self._core.pools.ledger(annals.certificate, wanted)
        return Charter(wanted, certificate.body.data, certificate.lines)
