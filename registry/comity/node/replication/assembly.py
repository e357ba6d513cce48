"""The parts that follow peers, put together."""

from __future__ import annotations

from typing import Final

import structlog

from comity.node import continuity
from comity.node.allocation.room import OFFERS
from comity.node.core import Core
from comity.node.governance.chamber import Chamber
from comity.node.intake import Intake
from comity.node.membership import Peer
from comity.node.own_log import OwnLog
from comity.node.replication.artifacts import Replicas
from comity.node.replication.cold import Cold
from comity.node.replication.convictions import Convictions
from comity.node.replication.cosigner import Cosigner
from comity.node.replication.custody import Custody
from comity.node.replication.files import FileFetcher
from comity.node.replication.mirror import Mirror
from comity.node.replication.peers import Peers
from comity.node.replication.quota import Quotas
from comity.node.replication.recovery import Recovery
from comity.node.replication.side_objects import SideObjects
from comity.node.replication.start import Start
from comity.node.tasks import Rhythm, Supervisor
from comity.wire.client import NodeClient

CHARTER: Final = "charter"
DEADLINE: Final = 1800.0
"""Seconds for one step of the chamber."""

_log: Final = structlog.get_logger("comity.node")


class Replication:
    """Everything that is pulled from other nodes."""

    def __init__(self, core: Core, supervisor: Supervisor) -> None:
        mark = core.mark(continuity.NAME)
        self._copy = copy = mark.is_of_another(begun=core.ledger.logs.get(core.log).size > 0)
        if copy:
            hint = f"have a peer reachable; where none is left: {mark.vouching_command()}"
            _log.warning("this ledger is a copy: nothing is signed before a peer was heard", hint=hint)
        patience = None if copy else core.config.replication.first_answer_seconds
        self._core = core
        self._supervisor = supervisor
        self.start = Start((peer.key for peer in core.membership.peers), patience)
        side_objects = SideObjects(core)
        self.recovery = Recovery(core, self.start, side_objects)
        self.convictions = Convictions(core)
        self.quotas = Quotas(core)
        self.cosigner = Cosigner(core, self.start, self.convictions)
        self._mirror = Mirror(core, self.cosigner, self.convictions, self.quotas, side_objects, self.advanced)
        self.intake = Intake(core, self.proven)
        self.own_log = OwnLog(core, self._recover)
        self.chamber = Chamber(core, core.annals, self.own_log, self._look_again) if core.annals else None
        hear = self.chamber.hear if self.chamber else _nobody
        self.peers = Peers(core, supervisor, self.start, self._mirror, self.convictions, self.recovery, hear)
        files = FileFetcher(core, self.peers.links.values, side_objects)
        self.custody = Custody(core, files)
        self.replicas = Replicas(core, self.own_log, files, self._blobs_gone)
        self.cold = Cold(core, files)

    async def begin(self) -> None:
        await self._mirror.load()
        await self.intake.begin(self._supervisor)
        await self.peers.begin()
        await self.custody.begin(self._supervisor, anew=self._copy)
        await self.replicas.begin(self._supervisor)
        if self.chamber:
            self.chamber.open()
            rhythm = Rhythm(max(1.0, self._core.config.replication.interval_seconds), DEADLINE)
            self._supervisor.loop(CHARTER, self._govern, rhythm)

    def blob_lost(self) -> None:
        """A blob turned out wrong and was put aside: fetch it again if it is wanted here. On the event loop."""
        self.replicas.look_again(self._supervisor)
        self._blobs_gone()

    def _blobs_gone(self) -> None:
        """Where one blob is gone, others may be: look for every side object."""
        self.custody.look_again(self._supervisor)

    async def close(self) -> None:
        await self.cold.close()
        await self.peers.close()

    async def advanced(self, log: str) -> None:
        """A log has grown here, however its entries came."""
        self.intake.look()

    async def proven(self) -> None:
        """Something was proven of what logs hold."""
        before = len(self.peers.links)
        await self.peers.look()
        if len(self.peers.links) > before:
            self.replicas.look_again(self._supervisor)  # what a new node observed counts now
        else:
            self.replicas.look(self._supervisor)
        self._supervisor.ring(OFFERS)
        if self.chamber:
            self._supervisor.ring(CHARTER)

    async def _recover(self) -> None:
        """Until the own log is the newest, and all of it went through the intake: what it says decides what follows."""
        await self.recovery.run()
        await self.intake.finish(self._core.log)

    async def _govern(self) -> None:
        """A step of the chamber; whatever it, or an operator, logged here may tell of new nodes as well."""
        assert self.chamber is not None
        behind = await self.chamber.step()
        await self.peers.look()
        if behind:
            self._supervisor.ring(CHARTER)

    async def _look_again(self) -> None:
        await self.intake.seated()
        await self.peers.look_again()


async def _nobody(peer: Peer, client: NodeClient) -> None:
    """Without a federation no peer has anything to say about its charter."""
