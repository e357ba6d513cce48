"""Who this node says it is, and the charter that it holds."""

from __future__ import annotations

from importlib.metadata import version

from comity.ledger.index import Query
from comity.node.core import Core
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
            identity=(seat.inception_line,),
            addresses=await self._core.pools.ledger(newest_addresses, self._core),
        )

    async def charter(self, epoch: int | None) -> Charter:
        federation = self._core.membership.federation
        if federation is None or epoch not in (None, federation.body.epoch):
            which = "any charter" if federation is None else f"the charter of epoch {epoch}"
            raise NotFound("no such charter", why=f"this node does not hold {which}", code="NO-CHARTER")
        return Charter(federation.body.epoch, federation.body.data, federation.certificate)


def newest_addresses(core: Core) -> bytes | None:
    """The newest `addresses` line that this node has logged. Blocking."""
    query = Query(predicate="addresses", by=core.seat.record.node.id, origin=core.origin)
    found = core.ledger.index.find(query)
    while len(found) > 1:
        last, found = found[-1], core.ledger.index.find(query, after=found[-1])
        found = found or [last]
    return found[0].line if found else None
