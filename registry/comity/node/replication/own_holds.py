"""Logs this node's claims of complete copies: one alone at once, many together in one statement.

    the first after a while     a `hold`, at once
    completed soon after it     wait until there are as many as a statement takes, or for some time; then `holds`

A waiting claim is in memory only. Its artifact stays in the ledger among those that are incomplete
(`comity.ledger.replica_table`) until the claim is logged: after a crash it is found to be complete, and claimed then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from comity.ledger.entry_index import EntryQuery
from comity.node.keys import NodeSigner
from comity.node.own_log import OwnLog, last_entry
from comity.node.replication.held_copies import HeldCopies
from comity.node.threads import AsyncLedger, Clock
from comity.trust.copies import HOLD_WITHDRAWN, HeldArtifact, sign_hold, sign_holds
from comity.trust.encoding import Digest
from comity.trust.statement import Entry, SideObject

_log = structlog.get_logger("comity.node.artifacts")


@dataclass(frozen=True, slots=True)
class CompletedCopy:
    """A complete copy that is not claimed yet."""

    artifact: Digest
    name: str
    manifest: SideObject
    pieces: SideObject


class OwnHolds:
    """Not thread-safe: call from the event loop.

    Args:
        log: the verifier key of this node's log.
        most: artifacts of one statement; with 1, nothing waits.
        seconds: how long a claim may wait.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        ledger: AsyncLedger,
        log: str,
        signer: NodeSigner,
        own_log: OwnLog,
        held: HeldCopies,
        most: int,
        seconds: float,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._vkey = log
        self._signer = signer
        self._own_log = own_log
        self._held = held
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._waiting: dict[Digest, CompletedCopy] = {}
        self._lost: set[Digest] = set()
        self._logged_at = float("-inf")
        self._lock = asyncio.Lock()

    def __contains__(self, artifact: object) -> bool:
        """Whether a claim about the artifact waits."""
        return artifact in self._waiting

    async def add(self, copy: CompletedCopy) -> None:
        """Claim a copy, now or later. Raises what the own log raises; then this claim does not wait any more."""
        self._waiting[copy.artifact] = copy
        try:
            await self.log_due()
        except BaseException:
            self._waiting.pop(copy.artifact, None)
            raise

    def take_lost(self) -> list[Digest]:
        """Artifacts that lost a file before they were claimed, each once."""
        lost = sorted(self._lost)
        self._lost.clear()
        return lost

    async def log_due(self) -> None:
        """Log the waiting claims if there are enough, or if the last ones were logged long enough ago."""
        async with self._lock:
            while self._waiting and self._is_due():
                await self._log_some(list(self._waiting.values())[: self._most])

    async def log_waiting(self) -> None:
        """Log all waiting claims now."""
        async with self._lock:
            while self._waiting:
                await self._log_some(list(self._waiting.values())[: self._most])

    def _is_due(self) -> bool:
        return len(self._waiting) >= self._most or self._clock() - self._logged_at >= self._seconds

    async def _log_some(self, copies: Sequence[CompletedCopy]) -> None:
        await self._held.read_new()  # an append that was cut short may have logged some
        losses = self._held.losses
        copies = await self._complete(copies)
        unclaimed = await self._unclaimed(copies)
        if unclaimed:
            entry = await self._ledger.run(self._sign, unclaimed)
            index = await self._own_log.append(entry.line)
            self._logged_at = self._clock()
            await self._held.read_new()
            if losses != self._held.losses:
                self._held.check_all()  # the round that the loss began did not see these
            for copy in unclaimed:
                _log.info("hold logged", name=copy.name, artifact=copy.artifact, index=index)
        for copy in copies:
            await self._ledger.run(self._ledger.tables.replicas.completed, copy.artifact)
            self._waiting.pop(copy.artifact, None)

    async def _complete(self, copies: Sequence[CompletedCopy]) -> list[CompletedCopy]:
        """Those that have lost no file while they waited; the others are `lost`."""
        lost = await self._held.with_gaps([self._held_artifact(copy) for copy in copies])
        for artifact in lost:
            self._waiting.pop(artifact, None)
        self._lost.update(lost)
        return [copy for copy in copies if copy.artifact not in lost]

    async def _unclaimed(self, copies: Sequence[CompletedCopy]) -> list[CompletedCopy]:
        """Those without a claim that stands, and that the operator has not withdrawn."""
        known = await self._held.copies([copy.artifact for copy in copies])
        withdrawn = {
            copy.artifact for copy in copies if self._held.has_withdrawn(copy.artifact, known.get(copy.artifact))
        }
        return [
            copy
            for copy in copies
            if copy.artifact not in withdrawn and not (copy.artifact in known and known[copy.artifact].stands)
        ]

    def _sign(self, copies: Sequence[CompletedCopy]) -> Entry:
        """Blocking."""
        record, online = self._signer.record, self._signer.online
        held = [self._held_artifact(copy, self._label(copy.artifact)) for copy in copies]
        if len(held) > 1:
            return sign_holds(record, held, online)
        only = held[0]
        return sign_hold(record, only.artifact, only.manifest, only.pieces, online, only.label)

    def _held_artifact(self, copy: CompletedCopy, label: str = "") -> HeldArtifact:
        return HeldArtifact(self._signer.record.node, copy.manifest, copy.pieces, label)

    def _label(self, artifact: Digest) -> str:
        """The label of a claim after a withdrawal: a log has no statement twice, so the claim must differ. Blocking."""
        query = EntryQuery(artifact, HOLD_WITHDRAWN, self._signer.record.node.id, self._vkey)
        last = last_entry(self._ledger.tables, query)
        return "" if last is None else f"held again after entry {last}"
