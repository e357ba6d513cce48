"""The parts that follow peers, put together.

Following the other nodes. Everything is pulled; nothing is ever pushed.

link        a connection to one peer, over whichever of its addresses works
start       what has to be heard from peers before anything is signed
recovery    the own log, brought back to what peers have seen of it
mirror      one log followed from one peer: checked, kept, then cosigned
side_objects, quota   what has to be here before a log advances, and how much of it
cosigner    signing what is kept, never backwards
convictions misbehaviour: found, kept, spread; the logs that are frozen for it
artifacts   copies of artifacts, and the `hold` that says so
peers       the rounds: one supervised loop a peer
"""

from __future__ import annotations

from typing import Final

import structlog

from comity.node.charter.follower import CharterFollower
from comity.node.context import NAME, NodeContext
from comity.node.intake import Intake
from comity.node.members import Peer
from comity.node.offers.provider import OFFERS
from comity.node.own_log import OwnLog
from comity.node.replication.artifacts import Replicas
from comity.node.replication.cosigner import CheckpointCosigner
from comity.node.replication.files import FileFetcher
from comity.node.replication.link import StartBarrier
from comity.node.replication.mirror import LogMirror, OwnLogRecovery, Quotas
from comity.node.replication.misbehaviour import MisbehaviourProofs
from comity.node.replication.on_demand import OnDemandFetch
from comity.node.replication.peers import Peers
from comity.node.replication.side_object_repair import SideObjectRepair
from comity.node.replication.side_objects import SideObjectFetcher
from comity.node.supervisor import Rhythm, Supervisor
from comity.wire.client import NodeClient

CHARTER: Final = "charter"
DEADLINE: Final = 1800.0
"""Seconds for one step of the chamber."""

_log: Final = structlog.get_logger("comity.node")


class ReplicationTasks:
    """Everything that is pulled from other nodes."""

    def __init__(self, core: NodeContext, supervisor: Supervisor) -> None:
        mark = core.mark(NAME)
        self._copy = copy = mark.is_of_another(begun=core.ledger.logs.get(core.log).size > 0)
        if copy:
            hint = f"have a peer reachable; where none is left: {mark.vouching_command()}"
            _log.warning("this ledger is a copy: nothing is signed before a peer was heard", hint=hint)
        patience = None if copy else core.config.replication.first_answer_seconds
        self._core = core
        self._supervisor = supervisor
        self.start = StartBarrier((peer.key for peer in core.membership.peers), patience)
        side_objects = SideObjectFetcher(core)
        self.recovery = OwnLogRecovery(core, self.start, side_objects)
        self.convictions = MisbehaviourProofs(core)
        self.quotas = Quotas(core)
        self.cosigner = CheckpointCosigner(core, self.start, self.convictions)
        self._mirror = LogMirror(core, self.cosigner, self.convictions, self.quotas, side_objects, self.advanced)
        self.intake = Intake(core, self.proven)
        self.own_log = OwnLog(core, self._recover)
        self.chamber = CharterFollower(core, core.annals, self.own_log, self._look_again) if core.annals else None
        hear = self.chamber.hear if self.chamber else _nobody
        self.peers = Peers(core, supervisor, self.start, self._mirror, self.convictions, self.recovery, hear)
        files = FileFetcher(core, self.peers.links.values, side_objects)
        self.custody = SideObjectRepair(core, files)
        self.replicas = Replicas(core, self.own_log, files, self._blobs_gone)
        self.cold = OnDemandFetch(core, files)

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
