"""Checkpoints that are submitted, and the plain witness.

Add-checkpoint checks the state of the log and stores the checkpoint:

(1) the body is an add-checkpoint request                                                               else 400
(2) the origin is a known log                                                                           else 404
(3) a known key of that origin signed the checkpoint, and the log has one history                       else 403
(4) the checkpoint is valid without extension lines, and not smaller than the old size                  else 400
(5) the old size is that of the newest checkpoint seen; the response gives that size                    else 409
(6) an empty log has the root of the empty tree; the proof is valid from the old to the new root        else 422
(7) the stored state has not changed since it was read                                                  else 409

For a mirrored log, entries may then be uploaded for the checkpoint; the mirror key does not sign here. For logs that
the operator named, the plain witness signs. Extension lines are refused because an ML-DSA cosignature would not cover
them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Self

import structlog
from starlette.requests import Request
from starlette.responses import Response

from comity.content.secrets import read_keys
from comity.gateway.http import read_body
from comity.gateway.tlog.logs import KnownLogs
from comity.ledger.records import WitnessedHead
from comity.node.keys import NodeKeys
from comity.node.replication.misbehaviour import MisbehaviourProofs
from comity.node.settings import Tlog
from comity.node.threads import AsyncLedger, Clock
from comity.rules.misbehaviour import ROOTS
from comity.rules.witness import MAX_REQUEST, AddCheckpoint, encode_signatures
from comity.trust.errors import Conflict, Malformed, NotFound, Refused, Untrusted
from comity.trust.frozen import frozen
from comity.trust.keys import PrivateKey
from comity.trust.tlog.merkle import verify_consistency
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, VerifierKey, cosign, cosigner_key, verify_note

_log: Final = structlog.get_logger("comity.gateway")


@frozen
class WitnessKey:
    """One name and one or two keys, which sign nothing else."""

    name: str
    pairs: tuple[PrivateKey, ...]

    @classmethod
    def load(cls, settings: Tlog, keys: NodeKeys) -> Self | None:
        """Return None if the operator configured no witness. Blocking.

        Raises as `read_keys` does, and Malformed (CONFIG) for a name or key that the node uses otherwise, because an
        Ed25519 cosignature does not state its role.
        """
        if not settings.witness_name:
            return None
        pairs = read_keys(settings.witness_key)
        used = {key.public for key in (keys.log, *keys.cosigners, *keys.online.keys)}
        names = {keys.record.origin, *(key.name for key in keys.record.cosigners)}
        if settings.witness_name in names or any(key.public in used for key in pairs):
            why = "the log or cosigner of the node uses it; a witness needs its own"
            raise Malformed("the name or key of the witness is in use", why=why, code="CONFIG")
        for key in pairs:
            cosigner_key(settings.witness_name, key.public)  # of a kind that cosigns
        return cls(settings.witness_name, pairs)

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        return tuple(cosigner_key(self.name, key.public) for key in self.pairs)

    def signed(self, note: SignedNote) -> bool:
        """Return whether `note` has a signature line of this witness."""
        return any(line.by(key) for line in note.signatures for key in self.keys)

    def cosign(self, checkpoint: Checkpoint, clock: Callable[[], float]) -> tuple[NoteSignature, ...]:
        """Sign the checkpoint; the caller has verified it."""
        now = int(clock())
        return tuple(cosign(checkpoint, self.name, key, now) for key in self.pairs)


MAX_PENDING: Final = 8
"""Maximum number of pending checkpoints per log, so that an upload can finish while the log grows."""


class WitnessRoutes:
    """Handlers for checkpoints. Not thread-safe: call from the event loop."""

    def __init__(
        self,
        ledger: AsyncLedger,
        clock: Clock,
        misbehaviour: MisbehaviourProofs,
        known: KnownLogs,
        witness: WitnessKey | None,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._misbehaviour = misbehaviour
        self._known = known
        self._witness = witness
        self._recent: dict[VerifierKey, OrderedDict[int, SignedNote]] = {}

    async def add_checkpoint(self, request: Request) -> Response:
        """`POST add-checkpoint`."""
        submitted = AddCheckpoint.parse(await read_body(request, MAX_REQUEST))  # (1)
        keys = await self._known.submitted(submitted.origin)  # (2)
        key = self._signer(submitted.checkpoint, keys)
        checkpoint = Checkpoint.parse(submitted.checkpoint.text)  # (4), (6)
        if submitted.old > checkpoint.size:
            why = f"from {submitted.old} to {checkpoint.size}"
            raise Malformed("the old size is larger than the checkpoint's", why=why, code="ADD-CHECKPOINT")
        seen = await self._seen(key)
        if submitted.old != seen.size:
            return _stale(seen)  # (5)
        await self._record_fork(key, seen, checkpoint, submitted.checkpoint)
        verify_consistency(seen.size, seen.root, checkpoint.size, checkpoint.root, submitted.proof)  # (6)
        try:
            lines = await self._advance(key, seen, submitted.checkpoint)  # (7)
        except Conflict as error:
            if error.code != "LOG-MOVED":
                raise
            return _stale(await self._seen(key))
        return Response(encode_signatures(lines), media_type="text/plain; charset=utf-8")

    async def witness_checkpoint(self, request: Request) -> Response:
        """`GET <prefix>/checkpoint` of the plain witness: the newest checkpoint that it signed."""
        key = self._known.witnessed_log(request.path_params["log"])
        note = await self._ledger.run(self._ledger.tables.witnessed.submitted, key)
        if note is None or self._witness is None or not self._witness.signed(note):
            raise NotFound("no checkpoint", why=f"the witness has signed none of {key.name} yet", code="NO-CHECKPOINT")
        headers = {"Cache-Control": "public, max-age=1"}
        return Response(note.encode(), media_type="text/plain; charset=utf-8", headers=headers)

    async def pending(self, key: VerifierKey) -> dict[int, SignedNote]:
        """Return the checkpoints, by size, for which uploads are accepted; the newest is last."""
        seen = await self._seen(key)
        recent = dict(self._recent.get(key, {}))
        if seen.note:
            recent[seen.size] = SignedNote.parse(seen.note)
        return dict(sorted(recent.items()))

    def _signer(self, note: SignedNote, keys: tuple[VerifierKey, ...]) -> VerifierKey:
        """Return the log that signed `note`. Raises Untrusted, and as `admit` does."""
        key = verify_note(note, keys)[0]  # (3)
        self.admit(key)
        return key

    def admit(self, key: VerifierKey) -> None:
        """Raise Refused (SPLIT-VIEW), and as `KnownLogs.require_original_ledger` does."""
        self._known.require_original_ledger(key)
        if self._misbehaviour.frozen(key):
            why = "the log showed two histories, and the proof is stored here"
            raise Refused("this log is blocked", why=why, code="SPLIT-VIEW")

    async def _seen(self, key: VerifierKey) -> WitnessedHead:
        """Raises Untrusted (SPLIT-VIEW), with the proof stored, if the submitted checkpoint contradicts the
        stored log."""
        witnessed = self._ledger.tables.witnessed
        try:
            return await self._ledger.run(witnessed.latest, key)
        except Untrusted:
            note = await self._ledger.run(witnessed.submitted, key)
            if note is not None:
                await self._misbehaviour.contradicts(key, note)
            raise

    async def _record_fork(
        self, key: VerifierKey, seen: WitnessedHead, checkpoint: Checkpoint, note: SignedNote
    ) -> None:
        """Store two notes of one size with different roots, which prove misbehaviour. Later checks refuse the
        request."""
        if seen.note and checkpoint.size == seen.size and checkpoint.root != seen.root:
            await self._misbehaviour.keep(ROOTS, key, (seen.note, note.encode()))

    async def _advance(self, key: VerifierKey, seen: WitnessedHead, note: SignedNote) -> tuple[NoteSignature, ...]:
        checkpoint = Checkpoint.parse(note.text)
        signs = self._witness if key in self._known.witnessed else None
        lines = signs.cosign(checkpoint, self._clock) if signs else ()
        own = SignedNote(note.text, tuple(line for line in note.signatures if line.by(key)))
        await self._ledger.run(self._ledger.tables.witnessed.move, key, seen, own.with_signatures(*lines))
        recent = self._recent.setdefault(key, OrderedDict())
        recent[checkpoint.size] = own
        while len(recent) > MAX_PENDING:
            recent.popitem(last=False)
        _log.info("checkpoint submitted", origin=key.name, size=checkpoint.size, signed=bool(lines))
        return lines


def _stale(seen: WitnessedHead) -> Response:
    return Response(f"{seen.size}\n", 409, {"Content-Type": "text/x.tlog.size"})
