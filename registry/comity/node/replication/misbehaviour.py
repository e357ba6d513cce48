"""Proofs that a log showed two histories: found, stored and passed on. A log with a proof is frozen: it neither
advances nor is cosigned any more; its stored entries are still served."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import structlog

from comity.ledger.ledger import Ledger
from comity.node.members import Membership
from comity.node.metrics import Metrics
from comity.node.threads import AsyncLedger
from comity.rules.misbehaviour import HISTORY, LEAVES, ROOTS, history_part, leaf_part, minimal_misbehaviour
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Untrusted
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint, SignedNote, VerifierKey
from comity.trust.tlog.proof import TlogProof
from comity.wire.client import NodeClient
from comity.wire.log import ShownMisbehaviour

MAX_CHECKED: Final = 10_000
MAX_INVALID: Final = 16
"""Proofs in one answer that prove nothing, after which no more of it is checked: an honest peer checked each before it
stored it, and shows such a proof only of a kind, or of a log, that is not known here."""

_log: Final = structlog.get_logger("comity.node")


class MisbehaviourProofs:
    """Stores proofs of misbehaviour, and knows which logs are frozen."""

    def __init__(self, ledger: AsyncLedger, membership: Membership, metrics: Metrics) -> None:
        self._ledger = ledger
        self._membership = membership
        self._metrics = metrics
        self._frozen: set[str] = set()
        self._checked: set[Digest] = set()

    async def load(self) -> None:
        """Load the stored proofs."""
        kept = await self._ledger.run(self._ledger.tables.misbehaviour.all)
        self._frozen = {proof.vkey for proof in kept}
        for log, count in Counter(proof.vkey for proof in kept).items():
            self._metrics.misbehaviour.labels(self._membership.log_title(log)).set(count)

    def frozen(self, key: VerifierKey) -> bool:
        return str(key) in self._frozen

    async def keep(self, kind: str, key: VerifierKey, parts: Sequence[bytes]) -> None:
        """Store a proof and freeze the log. Raises Malformed and Untrusted if the parts prove nothing."""
        minimal = minimal_misbehaviour(kind, parts, key)
        new = await self._ledger.run(self._ledger.tables.misbehaviour.add, kind, key.name, str(key), minimal)
        self._frozen.add(str(key))
        if new:
            self._metrics.misbehaviour.labels(self._membership.log_title(str(key))).inc()
            _log.error("log has shown two histories", origin=key.name, log=str(key), kind=kind)

    async def contradicts(self, key: VerifierKey, rival: SignedNote) -> bool:
        """Whether `rival`, signed by the log and not larger than the stored log, is another history; if so, the proof
        is stored."""
        found = await self._ledger.run(_contradiction, self._ledger.tables, str(key), rival)
        if found is None:
            return False
        kind, parts = found
        await self.keep(kind, key, parts)
        return True

    async def search(self, client: NodeClient, key: VerifierKey, rival: SignedNote, local_size: int) -> bool:
        """Search for the entry at which a larger rival head, as a peer shows it, differs from the stored log; store the
        proof.

        Returns whether misbehaviour is proven. If not, the peer may be at fault.
        """
        size = Checkpoint.parse(rival.text).size
        at = 0
        async with aclosing(client.entries(str(key), 0, local_size)) as batches:
            async for batch in batches:
                end = at + len(batch.lines)
                ours = await self._ledger.run(self._ledger.tables.history.entries, str(key), at, end)
                for index, (own_line, peer_line) in enumerate(zip(ours, batch.lines, strict=False), at):
                    if own_line != peer_line:
                        hashes = await client.inclusion(str(key), index, size)
                        part = leaf_part(leaf_hash(peer_line), TlogProof(index, hashes, rival))
                        own = await self._ledger.run(_own_leaf, self._ledger.tables, str(key), index)
                        await self.keep(LEAVES, key, (own, part))
                        return True
                at = end
        return False

    async def fetch(self, client: NodeClient) -> None:
        """Fetch a peer's proofs and store the valid ones. Raises Untrusted if more than `MAX_INVALID` prove nothing."""
        invalid = 0
        for shown in await client.misbehaviour():
            failure = await self._keep_shown(shown)
            if failure is not None:
                invalid += 1
                _log.warning("invalid misbehaviour proof", origin=shown.origin, why=str(failure))
            if invalid > MAX_INVALID:
                why = f"{invalid} proofs of one answer are invalid"
                raise Untrusted("misbehaviour is not proven", why=why, code="NO-MISBEHAVIOUR")

    async def _keep_shown(self, shown: ShownMisbehaviour) -> ComityError | None:
        """Store what is new to each known log of this origin. Returns why it is invalid, if it is for all."""
        failures: list[ComityError] = []
        keys = self._membership.log_keys(shown.origin)
        for key in keys:
            name = sha256(b"\n".join((shown.kind.encode(), str(key).encode(), *shown.parts)))
            if name in self._checked:
                continue
            try:
                await self.keep(shown.kind, key, shown.parts)
            except (Malformed, Untrusted) as error:
                failures.append(error)
            if len(self._checked) >= MAX_CHECKED:
                self._checked.clear()
            self._checked.add(name)
            await asyncio.sleep(0)
        return failures[0] if failures and len(failures) == len(keys) else None


def _own_leaf(ledger: Ledger, log: str, index: int) -> bytes:
    """A stored leaf with its inclusion proof in the newest checkpoint that covers it. Blocking."""
    note = ledger.cosignatures.best_note(log, index)
    hashes = ledger.history.inclusion(log, index, Checkpoint.parse(note.text).size)
    return leaf_part(leaf_hash(ledger.history.entry(log, index)), TlogProof(index, hashes, note))


def _contradiction(ledger: Ledger, log: str, rival: SignedNote) -> tuple[str, tuple[bytes, bytes]] | None:
    """The proof that `rival` contradicts the stored log, or None. Blocking."""
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
