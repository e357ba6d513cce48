"""Collect the proofs that lines are logged, and the objects that statements name.

For each log that has a line, the proof with most cosigners is kept, or of a claim of a copy the first valid one; its
checkpoint is reconciled with the stored checkpoints of that log, and a contradiction is reported and its proof dropped.
Consistency proofs to the cuts of rotations are collected even if this user pins none, because a later verifier of the
pack may.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from comity.rules.collected import CollectedClaims, KeptProof, MissingConsistency, best_proofs, missing_consistency
from comity.trust.bound_nodes import BoundNode
from comity.trust.claims import Publication
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import Malformed, Unavailable, Untrusted
from comity.trust.evidence import InclusionEvidence
from comity.trust.statement import Entry, SideObject
from comity.trust.statement_kinds import HOLD_PREDICATES, HOLD_WITHDRAWN
from comity.trust.tlog.proof import ConsistencyProof
from comity.wire.log import LocatedProof
from comity_client.events import MisbehaviourFound, Note, OnEvent
from comity_client.seen import (
    CONTRADICTION_CODES,
    ConsistencyProofs,
    SeenLogs,
    consistency_proofs,
    reconcile_checkpoint,
)
from comity_client.session import Session


@dataclass(slots=True)
class CollectedProofs:
    """The proofs to use; `alarms` are contradictions found while collecting."""

    proofs: list[KeptProof] = field(default_factory=list)
    alarms: list[Untrusted] = field(default_factory=list)


async def collect_proofs(
    session: Session,
    seen_logs: SeenLogs,
    claims: CollectedClaims,
    known: Iterable[InclusionEvidence],
    on_event: OnEvent,
) -> CollectedProofs:
    """Collect the proofs on which a verdict depends (`CollectedClaims.entries_to_prove`).

    Args:
        known: existing proofs, of any line.

    Invalid proofs are dropped, not raised.
    """
    return await _collect(session, seen_logs, claims.entries_to_prove(), claims.bound, known, on_event)


async def collect_evaluation_proofs(
    session: Session,
    seen_logs: SeenLogs,
    claims: CollectedClaims,
    objects: Mapping[Digest, bytes],
    known: Iterable[InclusionEvidence],
    on_event: OnEvent,
) -> CollectedProofs:
    """Collect proofs of evaluations whose results are in `objects`, and of their announcements, which together show
    which was logged first."""
    return await _collect(session, seen_logs, claims.evaluations_to_prove(objects), claims.bound, known, on_event)


async def _collect(
    session: Session,
    seen_logs: SeenLogs,
    entries: Sequence[Entry],
    bound: tuple[BoundNode, ...],
    known: Iterable[InclusionEvidence],
    on_event: OnEvent,
) -> CollectedProofs:
    offered = await asyncio.gather(*(_fetch_proofs(session, entry, bound) for entry in entries))
    collected = CollectedProofs()
    here = tuple(known)
    for entry, proofs in zip(entries, offered, strict=True):
        digest = entry.digest
        candidates = (*proofs, *(proof for proof in here if proof.line == digest))
        for kept in best_proofs(entry, candidates, bound, session.reader):
            await _check_against_seen(session, seen_logs, kept, bound, collected, on_event)
    return collected


async def collect_objects(session: Session, items: Iterable[SideObject], on_event: OnEvent) -> Mapping[Digest, bytes]:
    """Fetch the documents that statements name, if any node has them."""
    found: dict[Digest, bytes] = {}
    for item in items:
        try:
            found[item.digest] = await fetch_object(session, item.digest)
        except Unavailable as error:
            on_event(Note(str(error)))
    return found


async def fetch_object(session: Session, digest: Digest) -> bytes:
    """Return the object from the first node that serves it; its hash is verified. Raises NotFound, Unavailable."""
    return await session.first(lambda node: node.object(digest), f"no node serves object {short(digest)}")


async def _fetch_proofs(session: Session, entry: Entry, bound: tuple[BoundNode, ...]) -> tuple[InclusionEvidence, ...]:
    """Return the proofs that nodes have. Of a hold or its withdrawal any valid one is enough, and each member may have
    signed one: to ask every node about each would cost as much as the square of the number of members."""
    if entry.statement.predicate in (*HOLD_PREDICATES, HOLD_WITHDRAWN):
        return await _first_valid_proofs(session, entry, bound)
    answers = await session.ask(lambda node: node.proofs(entry.digest))
    return _proofs_of(entry, (item for found in answers.found.values() for item in found))


async def _first_valid_proofs(
    session: Session, entry: Entry, bound: tuple[BoundNode, ...]
) -> tuple[InclusionEvidence, ...]:
    async with aclosing(session.answers(lambda node: node.proofs(entry.digest))) as answers:
        async for located in answers:
            proofs = _proofs_of(entry, located)
            if best_proofs(entry, proofs, bound, session.reader):
                return proofs
    return ()


def _proofs_of(entry: Entry, located: Iterable[LocatedProof]) -> tuple[InclusionEvidence, ...]:
    return tuple(dict.fromkeys(InclusionEvidence(entry.digest, item.proof) for item in located))


async def _check_against_seen(
    session: Session,
    seen_logs: SeenLogs,
    kept: KeptProof,
    bound: tuple[BoundNode, ...],
    collected: CollectedProofs,
    on_event: OnEvent,
) -> None:
    note = session.reader.proof(kept.proof.data).checkpoint
    for key in dict.fromkeys(node.record.log for node in bound if node.record.origin == kept.origin):
        try:
            await reconcile_checkpoint(seen_logs, key, note, consistency_proofs(session))
        except Untrusted as error:
            if error.code not in CONTRADICTION_CODES:
                continue  # signed by another key bound to this origin
            collected.alarms.append(error)
            on_event(MisbehaviourFound(str(error), error.hint))
            return
        except Unavailable as error:
            on_event(Note(str(error)))
    collected.proofs.append(kept)


async def collect_consistency(
    session: Session, publications: Iterable[Publication], kept: Iterable[KeptProof]
) -> Mapping[Digest, bytes]:
    """Fetch consistency proofs between the kept proofs and the cuts of rotations that retired the keys of
    `publications`, if any node has them. Invalid answers are dropped, not raised."""
    found: dict[Digest, bytes] = {}
    proofs = consistency_proofs(session)
    for missing in missing_consistency(publications, kept, session.reader):
        proof = await _consistency(missing, proofs)
        if proof is not None:
            found[sha256(proof.encode())] = proof.encode()
    return found


async def _consistency(missing: MissingConsistency, proofs: ConsistencyProofs) -> ConsistencyProof | None:
    async with aclosing(proofs(missing.log, *missing.sizes)) as offered:
        async for hashes in offered:
            try:
                proof = ConsistencyProof(missing.cut.origin, *missing.sizes, hashes)
                proof.verify(*missing.roots)
            except (Malformed, Untrusted):
                continue
            return proof
    return None
