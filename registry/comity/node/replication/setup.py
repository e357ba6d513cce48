"""Constructs, connects and starts all parts of the replication."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial
from time import monotonic
from typing import Final

import structlog

from comity.node.charter.follower import CharterFollower
from comity.node.charter.inbox import READ_PREDICATES
from comity.node.home import OpenedHome
from comity.node.intake import Intake
from comity.node.ledger_mark import LEDGER_MARK
from comity.node.members import Membership
from comity.node.offers.provider import OFFERS
from comity.node.own_log import OwnLog
from comity.node.replication.announced import AnnouncedAddresses
from comity.node.replication.bundles import BundleLoading
from comity.node.replication.copy_admission import AdmissionLimits, CopyAdmission
from comity.node.replication.copy_charges import CopyCharges
from comity.node.replication.copy_limits import CopyPauses
from comity.node.replication.cosigner import CheckpointCosigner
from comity.node.replication.files import FileFetcher
from comity.node.replication.link import AnswerQuorum, CopySource, PeerLink, StartBarrier
from comity.node.replication.mirror import LogMirror, Quotas
from comity.node.replication.misbehaviour import MisbehaviourProofs
from comity.node.replication.missing_cosignatures import MissingCosignatures
from comity.node.replication.on_demand import OnDemandFetch
from comity.node.replication.own_log_recovery import OwnLogRecovery
from comity.node.replication.peers import PeerRounds, Peers
from comity.node.replication.questions import PeerQuestions
from comity.node.replication.replicas import Replicas
from comity.node.replication.side_objects import SideObjectFetcher, SideObjectRepair
from comity.node.replication.wanted import StatementAges, WantedArtifacts
from comity.node.settings import Replication
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.uploads import Uploads
from comity.trust.statement import Entry
from comity.trust.statement_kinds import (
    ADDRESSES,
    NODE_RECORD,
    OFFER_PREDICATES,
    PUBLICATION_PREDICATES,
)

CHARTER: Final = "charter"
STEP_DEADLINE: Final = 1800.0
"""Seconds for one step of the charter follower, or of the cosigner."""
MAX_COSIGN_SECONDS: Final = 30.0
"""Seconds after which it is checked at the latest whether a cosignature is due by the clock."""

_NEW_NODES: Final = frozenset({NODE_RECORD, ADDRESSES})
_PUBLICATIONS: Final = frozenset(PUBLICATION_PREDICATES)
_OF_OFFERS: Final = frozenset({*OFFER_PREDICATES, NODE_RECORD})
_OF_THE_CHARTER: Final = frozenset({*READ_PREDICATES, NODE_RECORD})
"""Predicates of the statements that each part reads, and of those that say whose node may write them."""

_log: Final = structlog.get_logger("comity.node")


class ReplicationTasks:
    """All replication from other nodes."""

    def __init__(self, home: OpenedHome, uploads: Uploads, supervisor: Supervisor) -> None:
        ledger, store, pools = home.ledger, home.store, home.pools
        membership, metrics = home.membership, home.metrics
        settings, interval = home.config.replication, home.config.replication.interval_seconds
        mark = home.mark(LEDGER_MARK)
        self._is_copy = mark.mismatches(begun=ledger.tables.logs.get(membership.own_node.log).size > 0)
        if self._is_copy:
            hint = f"make the peers reachable; if none is left: {mark.reset_command()}"
            _log.warning("this ledger is a copy: the node signs nothing before enough peers answered", hint=hint)
        self._own = membership.own_node.log
        self._bundles: list[CopySource] = []
        self._interval = interval
        self._supervisor = supervisor
        timeout = None if self._is_copy else settings.first_answer_seconds
        quorum = _answer_quorum(membership) if self._is_copy else None
        self.start = StartBarrier((peer.key for peer in membership.peers), timeout, quorum)
        side_objects = SideObjectFetcher(store, pools)
        self.questions = PeerQuestions(self._copy_sources)
        self.recovery = OwnLogRecovery(
            ledger, self._own, partial(pools.files, mark.write), interval, self.start, side_objects, self.questions
        )
        self.misbehaviour = MisbehaviourProofs(ledger, membership, metrics)
        self.quotas = Quotas(ledger, home.config.limits)
        self.cosigner = CheckpointCosigner(
            ledger, membership, home.keys, home.clock, metrics, self.start, self.misbehaviour
        )
        ledger.tables.cosignatures.place_by(self.cosigner.assigned.places)
        self._mirror = LogMirror(
            home.context, interval, self.cosigner, self.misbehaviour, self.quotas, side_objects, self.advanced
        )
        self.intake = Intake(ledger, pools, membership, interval, self.proven)
        self.own_log = OwnLog(ledger, membership.own_node, home.keys, home.config.advertise, self._recover)
        self.charter_follower = self._charter_follower(home)
        self._announced = AnnouncedAddresses(settings.networks, time.monotonic)
        rounds = PeerRounds(home.context, interval, self.start, self._mirror, self.misbehaviour, self.charter_follower)
        self.peers = Peers(
            home.context,
            interval,
            partial(PeerLink, membership, self._announced, home.keys.tls, home.clock),
            supervisor,
            self.recovery,
            rounds,
            [key.key_id for key in self.cosigner.cosigners],
        )
        self._missing = MissingCosignatures(ledger, self.cosigner, self.peers.links, self.questions)
        files = FileFetcher(ledger, store, pools, metrics, uploads, self.questions, side_objects)
        self.side_object_repair = SideObjectRepair(ledger, store, pools, interval, files.fetch_objects)
        ages = StatementAges(ledger, home.clock)
        self.wanted = WantedArtifacts(
            settings, store, pools, ages, {pin.artifact: pin for pin in ledger.tables.pins.all()}
        )
        self.pauses = CopyPauses(settings, store, pools, home.clock)
        self.charges = CopyCharges(
            self.wanted.quotas,
            CopyAdmission(admission_limits(settings, membership.own_node.inception.id)),
            home.context,
            monotonic,
        )
        self.replicas = Replicas(
            home.context, self.own_log, files, self.wanted, self.charges, self.pauses, self._side_objects_lost
        )
        self.bundles = BundleLoading(
            home.context,
            self._mirror,
            self.charter_follower,
            self.intake,
            self.replicas,
            self._bundles,
            self.peers.read_new,
        )
        reserve, withdrawn = home.config.storage.reserve_bytes, self.replicas.has_withdrawn
        self.on_demand = OnDemandFetch(store, pools, self.wanted.may_want, files, withdrawn, reserve_bytes=reserve)

    def _copy_sources(self) -> list[CopySource]:
        """The peers; while a bundle is loaded, the bundle and the peers that answer: nothing waits for the others."""
        links = self.peers.links.values()
        return [*self._bundles, *(link for link in links if link.state.reachable)] if self._bundles else [*links]

    def _charter_follower(self, home: OpenedHome) -> CharterFollower | None:
        if home.epochs is None:
            return None
        return CharterFollower(home.context, home.epochs, self.own_log, self._members_changed)

    async def begin(self) -> None:
        await self._mirror.load()
        await self.intake.begin(self._supervisor)
        await self.peers.begin()
        due = LoopTiming(min(max(1.0, 6 * self._interval), MAX_COSIGN_SECONDS), STEP_DEADLINE)
        self._supervisor.loop("cosigner", self._mirror.cosign_due, due)
        self._missing.begin(self._supervisor, self._interval)
        await self.side_object_repair.begin(self._supervisor, recheck=self._is_copy)
        await self.replicas.begin(self._supervisor)
        if self.charter_follower:
            self.charter_follower.open()
            timing = LoopTiming(max(1.0, self._interval), STEP_DEADLINE)
            self._supervisor.loop(CHARTER, self._charter_step, timing)

    def blob_lost(self) -> None:
        """A blob was quarantined: fetch it again if it is wanted. Call from the event loop."""
        self.replicas.check_again()
        self._side_objects_lost()

    def _side_objects_lost(self) -> None:
        """If one blob is lost, others may be: check all side objects."""
        self.side_object_repair.recheck_all()

    async def close(self) -> None:
        await self.on_demand.close()
        await self.peers.close()
        self._announced.close()

    async def advanced(self, log: str) -> None:
        """A log has grown."""
        self.intake.notify()
        self.peers.log_grew(log)

    async def proven(self, predicates: frozenset[str]) -> None:
        """Statements with these predicates were verified. A node that joins is told this thousands of times: only the
        parts that read such statements run a step."""
        before = len(self.peers.links)
        if predicates & _NEW_NODES:
            await self.peers.read_new()
        if len(self.peers.links) > before:
            self.replicas.rescan()  # observations by a new node count from now on
        elif predicates & _PUBLICATIONS:
            self.replicas.wake()
        if predicates & _OF_OFFERS:
            self._supervisor.wake(OFFERS)
        if self.charter_follower and predicates & _OF_THE_CHARTER:
            self._supervisor.wake(CHARTER)

    def submitted(self, entries: Iterable[Entry]) -> None:
        """Somebody's statements were logged here. The node's own log needs no intake, so nothing else tells the
        follower of the charter that a draft or a vote is new."""
        if any(entry.statement.predicate in READ_PREDICATES for entry in entries):
            self._supervisor.wake(CHARTER)

    async def _recover(self) -> None:
        """Restore the own log from peers, and run the intake on it: later steps depend on its entries."""
        await self.recovery.run()
        await self.intake.read(self._own)

    async def _charter_step(self) -> None:
        """One step of the charter follower; lines logged by it or by an operator may name new nodes."""
        assert self.charter_follower is not None
        behind = await self.charter_follower.step()
        await self.peers.read_new()
        if behind:
            self._supervisor.wake(CHARTER)

    async def _members_changed(self) -> None:
        self._supervisor.wake(CHARTER)  # an epoch that a peer sent was not counted by the follower's own step
        await self.intake.members_changed()
        await self.peers.reread_all()


def admission_limits(settings: Replication, own_member: str) -> AdmissionLimits:
    """How the space for copies is divided. What this node's own member publishes elsewhere may use all of it."""
    shares = {own_member: 1.0} | {member: percent / 100 for member, percent in settings.shares_by_member.items()}
    return AdmissionLimits(settings.stop_free_bytes, settings.reserved_percent / 100, shares)


def _answer_quorum(membership: Membership) -> AnswerQuorum | None:
    """The members of the newest known charter that must show what a copied ledger may lack; None without a charter."""
    if (body := membership.body) is None:
        return None
    return AnswerQuorum(membership.own_node.inception.id, frozenset(member.id for member in body.active), body.quorum)
