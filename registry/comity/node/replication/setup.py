"""Constructs, connects and starts all parts of the replication."""

from __future__ import annotations

from typing import Final

import structlog

from comity.node.charter.follower import CharterFollower
from comity.node.context import LEDGER_MARK, NodeContext
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
from comity.node.supervisor import LoopTiming, Supervisor
from comity.wire.client import NodeClient

CHARTER: Final = "charter"
STEP_DEADLINE: Final = 1800.0
"""Seconds for one step of the charter follower."""

_log: Final = structlog.get_logger("comity.node")


class ReplicationTasks:
    """All replication from other nodes."""

    def __init__(self, core: NodeContext, supervisor: Supervisor) -> None:
        mark = core.mark(LEDGER_MARK)
        self._is_copy = is_copy = mark.mismatches(begun=core.ledger.logs.get(core.log).size > 0)
        if is_copy:
            hint = f"make a peer reachable; if none is left: {mark.reset_command()}"
            _log.warning("this ledger is a copy: the node signs nothing before a peer answered", hint=hint)
        timeout = None if is_copy else core.config.replication.first_answer_seconds
        self._core = core
        self._supervisor = supervisor
        self.start = StartBarrier((peer.key for peer in core.membership.peers), timeout)
        side_objects = SideObjectFetcher(core)
        self.recovery = OwnLogRecovery(core, self.start, side_objects)
        self.misbehaviour = MisbehaviourProofs(core)
        self.quotas = Quotas(core)
        self.cosigner = CheckpointCosigner(core, self.start, self.misbehaviour)
        self._mirror = LogMirror(core, self.cosigner, self.misbehaviour, self.quotas, side_objects, self.advanced)
        self.intake = Intake(core, self.proven)
        self.own_log = OwnLog(core, self._recover)
        self.charter_follower = (
            CharterFollower(core, core.epochs, self.own_log, self._members_changed) if core.epochs else None
        )
        sync_charter = self.charter_follower.fetch_epochs if self.charter_follower else _no_charter
        self.peers = Peers(core, supervisor, self.start, self._mirror, self.misbehaviour, self.recovery, sync_charter)
        files = FileFetcher(core, self.peers.links.values, side_objects)
        self.side_object_repair = SideObjectRepair(core, files)
        self.replicas = Replicas(core, self.own_log, files, self._side_objects_lost)
        self.on_demand = OnDemandFetch(core, files)

    async def begin(self) -> None:
        await self._mirror.load()
        await self.intake.begin(self._supervisor)
        await self.peers.begin()
        await self.side_object_repair.begin(self._supervisor, recheck=self._is_copy)
        await self.replicas.begin(self._supervisor)
        if self.charter_follower:
            self.charter_follower.open()
            timing = LoopTiming(max(1.0, self._core.config.replication.interval_seconds), STEP_DEADLINE)
            self._supervisor.loop(CHARTER, self._charter_step, timing)

    def blob_lost(self) -> None:
        """A blob was quarantined: fetch it again if it is wanted. Call from the event loop."""
        self.replicas.rescan(self._supervisor)
        self._side_objects_lost()

    def _side_objects_lost(self) -> None:
        """If one blob is lost, others may be: check all side objects."""
        self.side_object_repair.recheck_all(self._supervisor)

    async def close(self) -> None:
        await self.on_demand.close()
        await self.peers.close()

    async def advanced(self, log: str) -> None:
        """A log has grown."""
        self.intake.notify()

    async def proven(self) -> None:
        """New statements were verified."""
        before = len(self.peers.links)
        await self.peers.read_new()
        if len(self.peers.links) > before:
            self.replicas.rescan(self._supervisor)  # observations by a new node count from now on
        else:
            self.replicas.wake(self._supervisor)
        self._supervisor.wake(OFFERS)
        if self.charter_follower:
            self._supervisor.wake(CHARTER)

    async def _recover(self) -> None:
        """Restore the own log from peers, and run the intake on it: later steps depend on its entries."""
        await self.recovery.run()
        await self.intake.finish(self._core.log)

    async def _charter_step(self) -> None:
        """One step of the charter follower; lines logged by it or by an operator may name new nodes."""
        assert self.charter_follower is not None
        behind = await self.charter_follower.step()
        await self.peers.read_new()
        if behind:
            self._supervisor.wake(CHARTER)

    async def _members_changed(self) -> None:
        await self.intake.members_changed()
        await self.peers.reread_all()


async def _no_charter(peer: Peer, client: NodeClient) -> None:
    """Without a federation there is no charter to fetch."""
