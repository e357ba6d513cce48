"""The node's cosigner: it says of a log that every entry, with its side objects, is kept here up to a size.

It signs the newest checkpoint of what is durable, and only that, so that it never goes back. Where a peer shows a
larger checkpoint with this node's own cosignature on it, the ledger here is older than what was signed: then nothing of
that log is signed until it has grown to that checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from comity.node.context import NodeContext
from comity.node.replication.link import StartBarrier
from comity.node.replication.misbehaviour import MisbehaviourProofs
from comity.trust.errors import NotFound, Untrusted
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, VerifierKey, verify_cosignature

HEARTBEAT: Final = 600
"""Seconds after which a checkpoint that did not change is cosigned anew."""

_log: Final = structlog.get_logger("comity.node")


@dataclass(frozen=True, slots=True)
class _Owed:
    """A checkpoint that this node has cosigned in a life that its ledger does not remember."""

    size: int
    root: bytes


class CheckpointCosigner:
    """Cosigns mirrored logs, and gathers what others have cosigned."""

    def __init__(self, core: NodeContext, start: StartBarrier, convictions: MisbehaviourProofs) -> None:
        self._core = core
        self._start = start
        self._convictions = convictions
        self._owed: dict[VerifierKey, _Owed] = {}

    async def gather(self, log: VerifierKey, checkpoint: Checkpoint, note: SignedNote) -> None:
        """Keep a checkpoint over what is held, and those cosignatures on it that verify."""
        known = await self._core.pools.ledger(self._kept, log, checkpoint, note)
        fresh = [line for line in note.signatures if line not in known]
        good = [line for line in fresh if self._verifies(line, checkpoint)]
        if good:
            await self._core.pools.ledger(
                self._core.ledger.cosignatures.add, str(log), checkpoint.size, checkpoint.root, good
            )

    def recall(self, log: VerifierKey, checkpoint: Checkpoint, note: SignedNote) -> None:
        """Look whether a note larger than what is held bears this node's own cosignature."""
        for key in self._core.seat.record.cosigners:
            for line in note.signatures:
                if line.by(key) and self._verifies(line, checkpoint):
                    owed = self._owed.get(log)
                    if owed is None or owed.size < checkpoint.size:
                        self._owed[log] = _Owed(checkpoint.size, checkpoint.root)
                        _log.warning("this ledger is older than its cosigner", origin=checkpoint.origin)

    async def attend(self, key: VerifierKey) -> None:
        """Cosign the newest checkpoint of a mirrored log, where that is due and may be done."""
        if not self._start.settled or self._convictions.frozen(key):
            return
        made = await self._core.pools.ledger(self._cosign, key)
        if made:
            _log.info("cosigned", origin=key.name, size=made.size)

    def _cosign(self, log: VerifierKey) -> Checkpoint | None:
        """Blocking. Signs where the newest checkpoint covers all that is held and was not signed lately."""
        ledger, name = self._core.ledger, str(log)
        try:
            note = ledger.cosignatures.cosigned(name)
        except NotFound:
            return None
        checkpoint = Checkpoint.parse(note.text)
        state = ledger.logs.get(name)
        owed = self._owed.get(log)
        if checkpoint.size != state.size or checkpoint.size == 0:
            return None
        if owed and (owed.size > state.size or ledger.history.root(name, owed.size) != owed.root):
            return None
        if self._signed_lately(note):
            return None
        made = self._core.keys.cosign(checkpoint, self._core.clock)
        ledger.cosignatures.add(name, checkpoint.size, checkpoint.root, made)
        return checkpoint

    def _signed_lately(self, note: SignedNote) -> bool:
        keys = self._core.seat.record.cosigners
        times = [int.from_bytes(line.signature[:8], "big") for key in keys for line in note.signatures if line.by(key)]
        return len(times) == len(keys) and min(times) > self._core.clock() - HEARTBEAT

    def _kept(self, log: VerifierKey, checkpoint: Checkpoint, note: SignedNote) -> frozenset[NoteSignature]:
        """Blocking. The signatures known for a checkpoint, which is kept from now on."""
        try:
            kept = self._core.ledger.cosignatures.cosigned(str(log), checkpoint.size)
        except NotFound:
            self._core.ledger.logs.set_note(str(log), note)
            return frozenset()
        return frozenset(kept.signatures)

    def _verifies(self, line: NoteSignature, checkpoint: Checkpoint) -> bool:
        key = next((key for key in self._core.membership.cosigner_keys() if line.by(key)), None)
        if key is None:
            return False
        try:
            verify_cosignature(line, key, checkpoint)
        except Untrusted:
            self._core.metrics.verify_failures.labels("cosignature").inc()
            return False
        return True
