"""Meeting a log's checkpoint again: ask for the proof that links it to what is remembered, and remember the newer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import TypeAlias

from comity.trust.errors import Conflict, Malformed, Unavailable, Untrusted
from comity.trust.tlog.checkpoint import Checkpoint, open_checkpoint
from comity.trust.tlog.merkle import verify_consistency
from comity.trust.tlog.note import SignedNote, VerifierKey
from comity.wire.client import NodeClient

from comity_client.nodes.session import Session
from comity_client.owner.memory import Memory

ConsistencyProofs: TypeAlias = "Callable[[str, int, int], AsyncGenerator[tuple[bytes, ...], None]]"
"""(origin, old size, new size) -> proofs from whoever answers, one after the other."""


async def meet(memory: Memory, log: VerifierKey, note: SignedNote, proofs: ConsistencyProofs) -> None:
    """Remember `note` if it is the newest of its log; be sure that it and what is remembered are one history.

    Raises Untrusted where the log did not sign it, and (code UNRECONCILED) where proofs are given and none holds;
    Equivocation for one size with two roots. Raises Unavailable (code UNLINKED) where nobody answers: then nothing is
    known, and nothing is remembered.
    """
    relation, seen = memory.compare(log, note)
    checkpoint = open_checkpoint(note, log)
    if seen is None or relation == "same" or seen.size == 0:
        memory.advance(log, note)
        return
    if checkpoint.size == 0:
        return
    old, new = sorted((seen, checkpoint), key=lambda head: head.size)
    proof = await _link(old, new, proofs)
    if proof is None:
        raise memory.contradict("unreconciled", log, memory.newest(log) or note, note)
    if relation == "newer":
        try:
            memory.advance(log, note, proof)
        except Conflict:
            await meet(memory, log, note, proofs)


async def _link(old: Checkpoint, new: Checkpoint, proofs: ConsistencyProofs) -> tuple[bytes, ...] | None:
    """The first proof that holds; None where some were given and none holds."""
    answered = False
    async with aclosing(proofs(old.origin, old.size, new.size)) as offered:
        async for proof in offered:
            answered = True
            try:
                verify_consistency(old.size, old.root, new.size, new.root, proof)
            except (Malformed, Untrusted):
                continue
            return proof
    if not answered:
        why = f"nobody here can link its checkpoints of size {old.size} and {new.size}"
        raise Unavailable(f"log {old.origin} is not linked to what was seen before", why=why, code="UNLINKED")
    return None


def consistency_proofs(session: Session, *first: NodeClient) -> ConsistencyProofs:
    """Asks `first`, one after the other, then every node of the session."""

    async def proofs(origin: str, old: int, new: int) -> AsyncGenerator[tuple[bytes, ...], None]:
        for client in first:
            with suppress(Unavailable):
                yield await client.consistency(origin, old, new)
        async with aclosing(session.answers(lambda node: node.consistency(origin, old, new))) as answers:
            async for answer in answers:
                yield answer

    return proofs
