"""Serves logs: this node's own and those that it mirrors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final

from comity.ledger.entry_index import EntryPosition
from comity.node.threads import AsyncLedger
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound
from comity.trust.tlog.note import Checkpoint
from comity.trust.tlog.proof import TlogProof
from comity.wire import limits
from comity.wire.log import LocatedProof, LogHead, ShownMisbehaviour

WINDOW: Final = 256
"""Entries read at a time, whatever their size."""


class LogServicer:
    """Implements `LogService`."""

    def __init__(self, ledger: AsyncLedger) -> None:
        self._ledger = ledger

    async def logs(self) -> AsyncGenerator[LogHead, None]:
        for head in await self._ledger.read(self._read_heads):
            yield head

    async def checkpoint(self, origin: str, index: int | None = None, up_to: int | None = None) -> bytes:
        cosignatures = self._ledger.tables.cosignatures
        if up_to is not None:
            return (await self._ledger.run(cosignatures.largest_up_to, origin, up_to)).encode()
        if index is None:
            return (await self._ledger.run(cosignatures.cosigned, origin)).encode()
        return (await self._ledger.run(cosignatures.best_note, origin, index)).encode()

    async def entries(self, origin: str, start: int, end: int) -> Sequence[bytes]:
        size = (await self._ledger.run(self._ledger.tables.logs.get, origin)).size
        if start > size:
            raise NotFound("not in the log", why=f"{origin} has {size} entries here", code="BEYOND-LOG")
        stop = min(end, size, start + WINDOW)
        return await self._ledger.run(self._ledger.tables.history.entries, origin, start, stop, limits.CHUNK)

    async def inclusion(self, origin: str, index: int, size: int) -> tuple[bytes, ...]:
        return await self._ledger.run(self._ledger.tables.history.inclusion, origin, index, size)

    async def consistency(self, origin: str, old_size: int, new_size: int) -> tuple[bytes, ...]:
        return await self._ledger.run(self._ledger.tables.history.consistency, origin, old_size, new_size)

    async def proofs(self, line_digest: Digest, origin: str | None = None) -> AsyncGenerator[LocatedProof, None]:
        places = await self._ledger.run(self._ledger.tables.index.positions, line_digest)
        first: dict[str, EntryPosition] = {}
        for place in places:
            if origin in (None, place.origin, place.vkey):
                first.setdefault(place.vkey, place)
        found = 0
        for place in first.values():
            proof = await self._ledger.run(self._proof, place)
            if proof is not None:
                found += 1
                yield LocatedProof(place.origin, proof)
        if not found:
            why = "no log on this node contains this line under a signed checkpoint"
            raise NotFound("no proof", why=why, code="NO-PROOF")

    async def misbehaviour(self) -> AsyncGenerator[ShownMisbehaviour, None]:
        for proof in await self._ledger.read(self._ledger.tables.misbehaviour.all):
            yield ShownMisbehaviour(proof.kind, proof.origin, proof.parts)

    def _read_heads(self) -> list[LogHead]:
        states = sorted(self._ledger.tables.logs.all(), key=lambda state: not state.own)
        return [LogHead(state.origin, state.vkey, self._newest_note(state.vkey)) for state in states]

    def _newest_note(self, log: str) -> bytes:
        try:
            return self._ledger.tables.cosignatures.cosigned(log).encode()
        except NotFound:
            return b""

    def _proof(self, place: EntryPosition) -> bytes | None:
        try:
            note = self._ledger.tables.cosignatures.best_note(place.vkey, place.index)
        except NotFound:
            return None
        size = Checkpoint.parse(note.text).size
        hashes = self._ledger.tables.history.inclusion(place.vkey, place.index, size)
        return TlogProof(place.index, hashes, note).encode()
