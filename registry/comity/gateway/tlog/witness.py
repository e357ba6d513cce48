"""Submitting checkpoints (C2SP tlog-witness): what a log shows here is checked, remembered for ever, and maybe signed.

(1) the body is an add-checkpoint request                                                               else 400
(2) the origin is a log that is known here                                                              else 404
(3) a key that is known for that origin signed the checkpoint, and it shows one history                 else 403
(4) the checkpoint is one of our kind, and not smaller than the old size                                else 400
(5) the old size is that of the newest checkpoint seen: the answer says which it is                     else 409
(6) an empty log has the root of the empty tree; the proof leads from the old root to the new one       else 422
(7) the state moves from exactly the one that was looked at                                             else 409

For a mirrored log that is all: entries may now be brought for the new checkpoint, and the mirror's key does not sign
here. For logs that the operator has named, the plain witness signs. Extension lines are refused (4): an ML-DSA
cosignature would not cover them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import Response

from comity.gateway.bounds import read_body
from comity.gateway.running import Running
from comity.gateway.tlog.known import Known
from comity.gateway.tlog.witness_key import WitnessKey
from comity.ledger.witnessed import Seen
from comity.trust.errors import Conflict, Malformed, NotFound, Refused, Untrusted
from comity.trust.tlog.checkpoint import Checkpoint
from comity.trust.tlog.merkle import verify_consistency
from comity.trust.tlog.misbehaviour import ROOTS
from comity.trust.tlog.note import NoteSignature, SignedNote, VerifierKey, verify_note
from comity.trust.tlog.witness import MAX_REQUEST, AddCheckpoint, encode_signatures

RECENT: Final = 8
"""Checkpoints of a log for which entries may still be brought, so that an upload outlives a growing log."""

_log: Final = structlog.get_logger("comity.gateway")


class Submissions:
    """Takes checkpoints. Touched by the event loop only."""

    def __init__(self, running: Running, known: Known, witness: WitnessKey | None) -> None:
        self._core = running.core
        self._convictions = running.replication.convictions
        self._known = known
        self._witness = witness
        self._recent: dict[VerifierKey, OrderedDict[int, SignedNote]] = {}

    async def add_checkpoint(self, request: Request) -> Response:
        """Answers `POST add-checkpoint`."""
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
        await self._refuse_fork(key, seen, checkpoint, submitted.checkpoint)
        verify_consistency(seen.size, seen.root, checkpoint.size, checkpoint.root, submitted.proof)  # (6)
        try:
            lines = await self._move(key, seen, submitted.checkpoint)  # (7)
        except Conflict as error:
            if error.code != "LOG-MOVED":
                raise
            return _stale(await self._seen(key))
        return Response(encode_signatures(lines), media_type="text/plain; charset=utf-8")

    async def monitoring(self, request: Request) -> Response:
        """Answers `GET <prefix>/checkpoint` for the plain witness: the newest checkpoint that it signed."""
        key = self._known.watched(request.path_params["log"])
        note = await self._core.pools.ledger(self._core.ledger.witnessed.submitted, key)
        if note is None or self._witness is None or not self._witness.signed(note):
            raise NotFound("no checkpoint", why=f"none of {key.name} was signed here yet", code="NO-CHECKPOINT")
        headers = {"Cache-Control": "public, max-age=1"}
        return Response(note.encode(), media_type="text/plain; charset=utf-8", headers=headers)

    async def pending(self, key: VerifierKey) -> dict[int, SignedNote]:
        """The checkpoints, by size, for which entries of a log are taken; the newest is the last."""
        seen = await self._seen(key)
        recent = dict(self._recent.get(key, {}))
        if seen.note:
            recent[seen.size] = SignedNote.parse(seen.note)
        return dict(sorted(recent.items()))

    def _signer(self, note: SignedNote, keys: tuple[VerifierKey, ...]) -> VerifierKey:
        """The log that made `note`. Raises Untrusted, and as `admit` does."""
        key = verify_note(note, keys)[0]  # (3)
        self.admit(key)
        return key

    def admit(self, key: VerifierKey) -> None:
        """Raises Refused (SPLIT-VIEW), and as `Known.require_memory` does."""
        self._known.require_memory(key)
        if self._convictions.frozen(key):
            why = "it has shown two histories, and the proof is kept here"
            raise Refused("nothing of this log is taken any more", why=why, code="SPLIT-VIEW")

    async def _seen(self, key: VerifierKey) -> Seen:
        """Raises Untrusted (SPLIT-VIEW), with the proof kept, where the log submitted another history than is held."""
        witnessed = self._core.ledger.witnessed
        try:
            return await self._core.pools.ledger(witnessed.latest, key)
        except Untrusted:
            note = await self._core.pools.ledger(witnessed.submitted, key)
            if note is not None:
                await self._convictions.contradicts(key, note)
            raise

    async def _refuse_fork(self, key: VerifierKey, seen: Seen, checkpoint: Checkpoint, note: SignedNote) -> None:
        """Keep two notes of one size with different roots: they convict the log. What follows refuses the request."""
        if seen.note and checkpoint.size == seen.size and checkpoint.root != seen.root:
            await self._convictions.keep(ROOTS, key, (seen.note, note.encode()))

    async def _move(self, key: VerifierKey, seen: Seen, note: SignedNote) -> tuple[NoteSignature, ...]:
        checkpoint = Checkpoint.parse(note.text)
        signs = self._witness if key in self._known.witnessed else None
        lines = signs.cosign(checkpoint, self._core.clock) if signs else ()
        own = SignedNote(note.text, tuple(line for line in note.signatures if line.by(key)))
        await self._core.pools.ledger(self._core.ledger.witnessed.move, key, seen, own.adding(*lines))
        recent = self._recent.setdefault(key, OrderedDict())
        recent[checkpoint.size] = own
        while len(recent) > RECENT:
            recent.popitem(last=False)
        _log.info("checkpoint submitted", origin=key.name, size=checkpoint.size, signed=bool(lines))
        return lines


def _stale(seen: Seen) -> Response:
    return Response(f"{seen.size}\n", 409, {"Content-Type": "text/x.tlog.size"})
