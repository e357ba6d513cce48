"""The parts for copies and audits at this node, and the loop that keeps them up to date."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from comity.node.copies.auditor import Auditor
from comity.node.copies.carried_audits import CarriedAudits
from comity.node.copies.counter import CopyCounter
from comity.node.copies.held_files import HeldFiles, HeldFilesReader
from comity.node.copies.index import CopiesIndex
from comity.node.copies.leases import Leases
from comity.node.copies.own_copies import OwnClaims, OwnPieces, WithheldFiles
from comity.node.copies.pins import PinRepair, WantedAnswers
from comity.node.copies.responder import AuditResponder
from comity.node.copies.retention import RetentionPlan, RetentionRounds
from comity.node.copies.withdrawal import LoggedHolds, OtherHolders, SoleFiles, Withdrawals, WithdrawnFiles
from comity.node.home import OpenedHome
from comity.node.reading import ReadState
from comity.node.replication.setup import ReplicationTasks
from comity.node.supervisor import LoopTiming, Supervisor

AUDITS: Final = "audits"
WITHDRAWALS: Final = "withdrawals"
WITHDRAWAL_SECONDS: Final = 60.0
STEP_DEADLINE: Final = 1800.0
RETENTION: Final = "retention"
ROUND_DEADLINE: Final = 7 * 86_400.0
INDEX_FILE: Final = "copies.sqlite"
"""The index of copies, beside the ledger."""


class CopiesController:
    """Opens the index when it is made (blocking); `close` closes it, after the loops have ended."""

    def __init__(self, home: OpenedHome, replication: ReplicationTasks, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._interval = home.config.replication.interval_seconds
        settings = home.config.audits
        chance = random.SystemRandom()
        file = home.config.storage.ledger.with_name(INDEX_FILE)
        self.index = CopiesIndex(file, home.membership.own_node.log, lambda: chance.getrandbits(62))
        self._held = HeldFiles(file, home.membership.own_node.log)
        withheld = WithheldFiles(home.store)
        pieces = OwnPieces(home.ledger.tables, home.store, withheld, replication.blob_lost)
        claims = OwnClaims(home.ledger.tables, home.membership.own_node.record.node.id, home.membership.own_node.log)
        leases = Leases(time.monotonic())
        self.responder = AuditResponder(
            home.context,
            home.keys.signer,
            time.monotonic,
            settings.answer_bytes_per_hour,
            claims,
            pieces,
            leases,
        )
        self.auditor = Auditor(
            home.context,
            settings,
            self.index,
            replication.own_log,
            replication.peers.links,
            pieces,
        )

        self._files = files = HeldFilesReader(
            home.ledger, home.store, home.pools, home.membership, self._held, home.clock
        )
        self.counter = CopyCounter(
            home.ledger, home.membership, replication.replicas, self.index, home.clock, self.auditor.read_new
        )
        holds = LoggedHolds(home.ledger, home.pools, claims, replication.own_log, replication.replicas)
        self.withdrawals = Withdrawals(
            home.ledger,
            time.monotonic,
            leases,
            holds,
            OtherHolders(home.ledger, home.membership, self.index, self.auditor, time.monotonic),
            SoleFiles(home.ledger, home.store, home.pools, self._held, files),
            WithdrawnFiles(home.pools, holds, withheld, replication.replicas, replication.blob_lost),
        )

        self.carried = CarriedAudits(home.context, home.keys.signer, self.index, pieces, self.auditor, self.responder)
        self._retention_hours = home.config.retention.every_hours
        self.retention = RetentionPlan(
            home.config.retention.rules, home.context, time.monotonic, self.index, self._held, files
        )
        self.pins = PinRepair(
            home.context,
            home.config.pins,
            self.index,
            self.auditor,
            replication.own_log,
            replication.peers.links,
            replication.replicas,
        )
        self.answers = WantedAnswers(
            home.ledger,
            home.membership,
            self.index,
            replication.replicas,
            replication.wanted,
            home.config.pins.patience_seconds,
            time.monotonic,
        )

    def readers(self) -> dict[str, Callable[[], ReadState]]:
        """How far the index of copies and that of held files are, by what they read."""
        return {"claims and audits of copies": self.auditor.progress, "files of own copies": self._files.progress}

    def begin(self) -> None:
        self._supervisor.loop(AUDITS, self.auditor.step, LoopTiming(max(1.0, self._interval), STEP_DEADLINE))
        self._supervisor.loop(WITHDRAWALS, self.withdrawals.step, LoopTiming(WITHDRAWAL_SECONDS, STEP_DEADLINE))
        if self._retention_hours:
            rounds = RetentionRounds(self.retention, self.withdrawals)
            self._supervisor.loop(RETENTION, rounds.step, LoopTiming(self._retention_hours * 3600, ROUND_DEADLINE))
        self.counter.begin(self._supervisor, self._interval)
        self.pins.begin(self._supervisor, self._interval)
        self.answers.begin(self._supervisor, self._interval)

    def close(self) -> None:
        self._held.close()
        self.index.close()
