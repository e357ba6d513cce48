"""Adds to collected statements the documents that they name, and the proofs that they are logged.

For each log that has a line, the proof with most cosigners is kept, or of a claim of a copy the first valid one; its
checkpoint is reconciled with the stored checkpoints of that log, and a contradiction is reported and its proof dropped.
Consistency proofs to the cuts of rotations are collected even if this user pins none, because a later verifier of the
pack may. Small files of an artifact are fetched here too, whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from comity.rules.collected import CollectedEvidence, KeptProof, MissingConsistency, best_proofs, missing_consistency
from comity.trust.artifact import FileEntry
from comity.trust.bound_nodes import BoundNode
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import Malformed, Unavailable, Untrusted
from comity.trust.evidence import Evidence, InclusionEvidence
from comity.trust.statement import Entry, SideObject
from comity.trust.statement_kinds import HOLD_PREDICATES, HOLD_WITHDRAWN
from comity.trust.tlog.proof import ConsistencyProof
from comity.wire.client import NodeClient

from comity_client.events import MisbehaviourFound, Note, OnEvent
from comity_client.evidence.offered_proofs import offered_proofs, proofs_of
from comity_client.seen import (
    CONTRADICTION_CODES,
    ConsistencyProofs,
    SeenLogs,
    consistency_proofs,
    reconcile_checkpoint,
)
from comity_client.session import Session


async def complete(
    session: Session, seen_logs: SeenLogs, evidence: CollectedEvidence, before: Evidence, on_event: OnEvent
) -> tuple[CollectedEvidence, list[Untrusted]]:
    """Add documents and proofs, and return also the contradictions of logs that were found. Invalid proofs are dropped,
    not raised.

    Args:
        before: the evidence of an earlier copy, whose documents and proofs are used too.
    """
    bound, named = evidence.bound, evidence.documents()
    fetch_ahead(session, (item.digest for item in named))
    evidence = replace(evidence, objects=before.objects)
    found: dict[Digest, list[KeptProof]] = {}
    await _prove(session, evidence, before, found)
    evidence = replace(evidence, objects={**before.objects, **await _documents(session, named, on_event)})
    await _prove(session, evidence, before, found)  # of some lines the documents say that they are to be proven
    proofs: list[KeptProof] = []
    alarms: list[Untrusted] = []
    for kept in (each for entry in evidence.entries_to_prove() for each in found[entry.digest]):
        alarm = await _contradiction(session, seen_logs, kept, bound, on_event)
        if alarm is None:
            proofs.append(kept)
        else:
            alarms.append(alarm)
            on_event(MisbehaviourFound(str(alarm), alarm.hint))
    missing = missing_consistency(evidence.claims.publications, proofs, session.reader)
    consistency = await _consistency(session, missing)
    return replace(evidence, proofs=tuple(proofs), objects={**evidence.objects, **consistency}), alarms


async def _prove(
    session: Session, evidence: CollectedEvidence, before: Evidence, found: dict[Digest, list[KeptProof]]
) -> None:
    """Add to `found` the best proofs of the lines that are to be proven and are not in it."""
    entries = [entry for entry in evidence.entries_to_prove() if entry.digest not in found]
    kept = await asyncio.gather(*(_best_proofs(session, each, evidence.bound, before.proofs) for each in entries))
    found |= {entry.digest: proofs for entry, proofs in zip(entries, kept, strict=True)}


async def prove_kinds(session: Session, evidence: CollectedEvidence) -> CollectedEvidence:
    """Add the proofs of the statements about the kind that a lost key may have signed; nothing is asked where no key is
    reported as lost."""
    entries = evidence.kinds_to_prove()
    found = await asyncio.gather(*(_best_proofs(session, each, evidence.bound, ()) for each in entries))
    return replace(evidence, proofs=(*evidence.proofs, *(kept for proofs in found for kept in proofs)))


async def _documents(session: Session, items: Iterable[SideObject], on_event: OnEvent) -> Mapping[Digest, bytes]:
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
    return await session.ahead.take(digest, partial(_fetch, session, digest))


def fetch_ahead(session: Session, digests: Iterable[Digest]) -> None:
    """Begin to fetch objects that `fetch_object` will be asked for."""
    for digest in digests:
        session.ahead.begin(digest, partial(_fetch, session, digest))


async def _fetch(session: Session, digest: Digest) -> bytes:
    return await session.first(lambda node: node.object(digest), f"no node serves object {short(digest)}")


async def _best_proofs(
    session: Session, entry: Entry, bound: tuple[BoundNode, ...], known: Sequence[InclusionEvidence]
) -> list[KeptProof]:
    """Return the best proofs that nodes have or that are `known`. Of a hold or its withdrawal any valid one is enough,
    and each member may have signed one: to ask every node about each would cost as much as the square of the number of
    members. The node that signed it is asked before the others, so that not all are asked of one node, over one
    connection."""
    offered: list[InclusionEvidence] = []
    if entry.statement.predicate in (*HOLD_PREDICATES, HOLD_WITHDRAWN):
        own = [node for node in session.nodes if entry.statement.by == node.record.node]
        async with aclosing(session.answers(lambda node: node.proofs(entry.digest), first=own)) as answers:
            async for located in answers:
                if best_proofs(entry, proofs := proofs_of(entry, located), bound, session.reader):
                    offered = proofs
                    break
    else:
        offered = [*await offered_proofs(session, entry, bound)]
    here = (proof for proof in known if proof.line == entry.digest)
    return best_proofs(entry, dict.fromkeys((*offered, *here)), bound, session.reader)


async def _contradiction(
    session: Session, seen_logs: SeenLogs, kept: KeptProof, bound: tuple[BoundNode, ...], on_event: OnEvent
) -> Untrusted | None:
    """Return the error if the checkpoint of the proof contradicts the stored checkpoints of its log."""
    note = session.reader.proof(kept.proof.data).checkpoint
    for key in dict.fromkeys(node.record.log for node in bound if node.record.origin == kept.origin):
        try:
            await reconcile_checkpoint(seen_logs, key, note, consistency_proofs(session))
        except Untrusted as error:
            if error.code in CONTRADICTION_CODES:
                return error
            # else it is signed by another key bound to this origin
        except Unavailable as error:
            on_event(Note(str(error)))
    return None


async def _consistency(session: Session, missing: Iterable[MissingConsistency]) -> Mapping[Digest, bytes]:
    """Fetch consistency proofs, if any node has them. Invalid answers are dropped, not raised."""
    found: dict[Digest, bytes] = {}
    offered = consistency_proofs(session)
    for each in missing:
        proof = await _first_valid(each, offered)
        if proof is not None:
            found[sha256(proof.encode())] = proof.encode()
    return found


async def _first_valid(missing: MissingConsistency, proofs: ConsistencyProofs) -> ConsistencyProof | None:
    async with aclosing(proofs(missing.log, *missing.sizes)) as offered:
        async for hashes in offered:
            try:
                proof = ConsistencyProof(missing.cut.origin, *missing.sizes, hashes)
                proof.verify(*missing.roots)
            except (Malformed, Untrusted):
                continue
            return proof
    return None


async def fetch_small(session: Session, entry: FileEntry, most: int) -> bytes:
    """The bytes of a file from the first node that gives it whole; its hash is verified. Raises Malformed for one of
    more than `most` bytes, NotFound, Unavailable."""
    if entry.size > most:
        raise Malformed(f"{entry.path} is too large", why=f"{entry.size} bytes, at most {most} are read")

    async def ask(node: NodeClient) -> bytes:
        async with aclosing(node.read(entry.sha256, 0, entry.size)) as chunks:
            data = b"".join([chunk async for chunk in chunks])
        if sha256(data) != entry.sha256:
            why = f"{entry.path} has not the digest {short(entry.sha256)}"
            raise Untrusted("wrong bytes", why=why, code="BAD-PIECE")
        return data

    return await session.first(ask, f"no node serves {entry.path}")
