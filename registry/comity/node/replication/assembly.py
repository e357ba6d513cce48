"""The parts that follow peers, put together."""

from __future__ import annotations

from comity.node.core import Core
from comity.node.own_log import OwnLog
from comity.node.replication.artifacts import Replicas
from comity.node.replication.convictions import Convictions
from comity.node.replication.cosigner import Cosigner
from comity.node.replication.files import FileFetcher
from comity.node.replication.mirror import Mirror
from comity.node.replication.peers import Peers
from comity.node.replication.quota import Quotas
from comity.node.replication.recovery import Recovery
from comity.node.replication.start import Start
from comity.node.tasks import Supervisor


class Replication:
    """Everything that is pulled from other nodes."""

    def __init__(self, core: Core, supervisor: Supervisor) -> None:
        patience = core.config.replication.first_answer_seconds
        self._supervisor = supervisor
        self.start = Start((peer.origin for peer in core.membership.peers), patience)
        self.recovery = Recovery(core, self.start)
        self.convictions = Convictions(core)
        self.quotas = Quotas(core)
        cosigner = Cosigner(core, self.start, self.convictions)
        mirror = Mirror(core, cosigner, self.convictions, self.quotas, self._advanced)
        self.peers = Peers(core, supervisor, self.start, mirror, self.convictions, self.recovery)
        self.own_log = OwnLog(core, self.recovery)
        self.replicas = Replicas(core, self.own_log, FileFetcher(core, self.peers.links.values))

    async def begin(self) -> None:
        await self.convictions.load()
        await self.peers.begin()
        await self.replicas.begin(self._supervisor)

    async def close(self) -> None:
        await self.peers.close()

    async def _advanced(self, origin: str) -> None:
        await self.peers.advanced(origin)
        self.replicas.look(self._supervisor)
