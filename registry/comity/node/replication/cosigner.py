"""Cosigns mirrored logs: a cosignature states that every entry up to a size, with its side objects, is stored here.

Only the newest checkpoint of durable entries is signed, so sizes never decrease. If a peer shows a larger checkpoint
with this node's own cosignature, the ledger is older than what was signed: then that log is not cosigned until it has
reached that checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from comity.node.keys import NodeKeys
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.replication.link import StartBarrier
from comity.node.replication.misbehaviour import MisbehaviourProofs
from comity.node.threads import AsyncLedger, Clock
from comity.trust.errors import NotFound, Untrusted
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, VerifierKey, verify_cosignature

HEARTBEAT: Final = 600
"""Seconds after which an unchanged checkpoint is cosigned again."""

_log: Final = structlog.get_logger("comity.node")


@dataclass(frozen=True, slots=True)
class _ForgottenCheckpoint:
    """A checkpoint that this node cosigned and its ledger does not contain."""

    size: int
    root: bytes


class CheckpointCosigner:
    """Cosigns mirrored logs and collects the cosignatures of others."""

    def __init__(
        self,
        ledger: AsyncLedger,
        membership: Membership,
        keys: NodeKeys,
        clock: Clock,
        metrics: Metrics,
        start: StartBarrier,
        misbehaviour: MisbehaviourProofs,
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._keys = keys
        self.cosigners = keys.record.cosigners
        """The keys with which this node cosigns."""
        self._clock = clock
        self._metrics = metrics
        self._start = start
        self._misbehaviour = misbehaviour
        self._forgotten: dict[VerifierKey, _ForgottenCheckpoint] = {}

    async def collect(self, log: VerifierKey, checkpoint: Checkpoint, note: SignedNote) -> None:
        """Store a checkpoint that the stored log reaches, with its valid cosignatures."""
        known = await self._ledger.run(self._known_signatures, log, checkpoint, note)
        fresh = [line for line in note.signatures if line not in known]
        good = [line for line in fresh if self._is_valid(line, checkpoint)]
        if good:
            await self._ledger.run(
                self._ledger.tables.cosignatures.add, str(log), checkpoint.size, checkpoint.root, good
            )

    def note_own_cosignature(self, log: VerifierKey, checkpoint: Checkpoint, note: SignedNote) -> None:
        """Remember a checkpoint larger than the stored log if it has this node's own cosignature."""
        for key in self._keys.record.cosigners:
            for line in note.signatures:
                if line.by(key) and self._is_valid(line, checkpoint):
                    forgotten = self._forgotten.get(log)
                    if forgotten is None or forgotten.size < checkpoint.size:
                        self._forgotten[log] = _ForgottenCheckpoint(checkpoint.size, checkpoint.root)
                        _log.warning("ledger is older than this node's cosignature", origin=checkpoint.origin)

    async def cosign_if_due(self, key: VerifierKey) -> None:
        """Cosign the newest checkpoint of a mirrored log if it is due and allowed."""
        if not self._start.settled or self._misbehaviour.frozen(key):
            return
        signed = await self._ledger.run(self._cosign, key)
        if signed:
            _log.info("cosigned", origin=key.name, size=signed.size)

    def _cosign(self, log: VerifierKey) -> Checkpoint | None:
        """Sign if the newest checkpoint covers all stored entries and was not signed recently. Blocking."""
        ledger, name = self._ledger.tables, str(log)
        try:
            note = ledger.cosignatures.cosigned(name)
        except NotFound:
            return None
        checkpoint = Checkpoint.parse(note.text)
        state = ledger.logs.get(name)
        forgotten = self._forgotten.get(log)
        if checkpoint.size != state.size or checkpoint.size == 0:
            return None
        if forgotten and (forgotten.size > state.size or ledger.history.root(name, forgotten.size) != forgotten.root):
            return None
        if self._signed_lately(note):
            return None
        signed = self._keys.cosign(checkpoint, self._clock)
        ledger.cosignatures.add(name, checkpoint.size, checkpoint.root, signed)
        return checkpoint

    def _signed_lately(self, note: SignedNote) -> bool:
        keys = self._keys.record.cosigners
        times = [int.from_bytes(line.signature[:8], "big") for key in keys for line in note.signatures if line.by(key)]
        return len(times) == len(keys) and min(times) > self._clock() - HEARTBEAT

    def _known_signatures(self, log: VerifierKey, checkpoint: Checkpoint, note: SignedNote) -> frozenset[NoteSignature]:
        """Store the checkpoint if it is new. Returns its known signatures. Blocking."""
        try:
            kept = self._ledger.tables.cosignatures.cosigned(str(log), checkpoint.size)
        except NotFound:
            self._ledger.tables.logs.set_note(str(log), note)
            return frozenset()
        return frozenset(kept.signatures)

    def _is_valid(self, line: NoteSignature, checkpoint: Checkpoint) -> bool:
        key = next((key for key in self._membership.cosigner_keys() if line.by(key)), None)
        if key is None:
            return False
        try:
            verify_cosignature(line, key, checkpoint)
        except Untrusted:
            self._metrics.verify_failures.labels("cosignature").inc()
            return False
        return True
