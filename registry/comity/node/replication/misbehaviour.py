"""Logs that have shown two histories: the proofs, kept and handed on, and what follows here. A convicted log is frozen:
it neither advances nor is cosigned any more. What is held of it stays, and is served."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import structlog

from comity.ledger.ledger import Ledger
from comity.node.context import NodeContext
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint, SignedNote, VerifierKey
from comity.trust.tlog.proof import HISTORY, LEAVES, ROOTS, TlogProof, convict, history_part, leaf_part
from comity.wire.client import NodeClient

MAX_JUDGED: Final = 10_000

_log: Final = structlog.get_logger("comity.node")


class MisbehaviourProofs:
    """Keeps proofs of misbehaviour, and knows which logs are frozen."""

    def __init__(self, core: NodeContext) -> None:
        self._core = core
        self._frozen: set[str] = set()
        self._judged: set[Digest] = set()

    async def load(self) -> None:
        """Remember what was kept before."""
        kept = await self._core.pools.ledger(self._core.ledger.misbehaviour.all)
        self._frozen = {proof.vkey for proof in kept}
        for origin, count in Counter(proof.origin for proof in kept).items():
            self._core.metrics.misbehaviour.labels(origin).set(count)

    def frozen(self, key: VerifierKey) -> bool:
        return str(key) in self._frozen

    async def keep(self, kind: str, key: VerifierKey, parts: Sequence[bytes]) -> None:
        """Keep a proof, and freeze the log. Raises Malformed and Untrusted where the parts prove nothing."""
        convict(kind, parts, key)
        new = await self._core.pools.ledger(self._core.ledger.misbehaviour.keep, kind, key.name, str(key), list(parts))
        self._frozen.add(str(key))
        if new:
            self._core.metrics.misbehaviour.labels(key.name).inc()
            _log.error("a log has shown two histories", origin=key.name, kind=kind)

    async def contradicts(self, key: VerifierKey, rival: SignedNote) -> bool:
        """Whether `rival`, signed by the log and no larger than what is held, is another history; then it is kept."""
        found = await self._core.pools.ledger(_contradiction, self._core.ledger, str(key), rival)
        if found is None:
            return False
        kind, parts = found
        await self.keep(kind, key, parts)
        return True

    async def search(self, client: NodeClient, key: VerifierKey, rival: SignedNote, held: int) -> bool:
        """Look for the leaf at which a larger rival, as a peer shows it, leaves what is held; then both are kept.

        Returns whether the log is convicted. A peer that shows no such leaf may be the one that lies.
        """
        size = Checkpoint.parse(rival.text).size
        at = 0
        async with aclosing(client.entries(str(key), 0, held)) as batches:
            async for batch in batches:
                end = at + len(batch.lines)
                ours = await self._core.pools.ledger(self._core.ledger.history.entries, str(key), at, end)
                for index, (mine, theirs) in enumerate(zip(ours, batch.lines, strict=False), at):
                    if mine != theirs:
                        hashes = await client.inclusion(str(key), index, size)
                        part = leaf_part(leaf_hash(theirs), TlogProof(index, hashes, rival))
                        own = await self._core.pools.ledger(_own_leaf, self._core.ledger, str(key), index)
                        await self.keep(LEAVES, key, (own, part))
                        return True
                at = end
        return False

    async def hear(self, client: NodeClient) -> None:
        """Take over what a peer has proven. What proves nothing is passed over."""
        for told in await client.misbehaviour():
            name = sha256(b"\n".join((told.kind.encode(), told.origin.encode(), *told.parts)))
            keys = self._core.membership.log_keys(told.origin)
            if not keys or name in self._judged:
                continue
            if len(self._judged) >= MAX_JUDGED:
                self._judged.clear()
            self._judged.add(name)
            for key in keys:
                try:
                    await self.keep(told.kind, key, told.parts)
                except ComityError as error:
                    _log.warning("an accusation that proves nothing", origin=told.origin, why=str(error))
                await asyncio.sleep(0)


def _own_leaf(ledger: Ledger, log: str, index: int) -> bytes:
    """Blocking. A leaf as it is held here, proven into the newest note that covers it."""
    note = ledger.cosignatures.best_note(log, index)
    hashes = ledger.history.inclusion(log, index, Checkpoint.parse(note.text).size)
    return leaf_part(leaf_hash(ledger.history.entry(log, index)), TlogProof(index, hashes, note))


def _contradiction(ledger: Ledger, log: str, rival: SignedNote) -> tuple[str, tuple[bytes, bytes]] | None:
    """Blocking. The proof that `rival` and what the ledger holds exclude one another, where they do."""
    claimed = Checkpoint.parse(rival.text)
    root = ledger.history.root(log, claimed.size)
    if root == claimed.root:
        return None
    try:
        return ROOTS, (ledger.cosignatures.cosigned(log, claimed.size).encode(), rival.encode())
    except NotFound:
        newest = ledger.cosignatures.cosigned(log)
    proof = ledger.history.consistency(log, claimed.size, Checkpoint.parse(newest.text).size)
    return HISTORY, (rival.encode(), history_part(root, proof, newest))
