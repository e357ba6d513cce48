"""Collect the proofs that lines are logged, and the objects that statements name.

For each log that has a line, the proof with most cosigners is kept, or of a hold the first valid one; its checkpoint is
reconciled with the stored checkpoints of that log, and a contradiction is reported and its proof dropped. Consistency
proofs to the cuts of rotations are collected even if this user pins none, because a later verifier of the pack may.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from comity.trust.bound_nodes import BoundNode, bind_nodes
from comity.trust.claims import KnownAuthors, ParsedClaims, Publication, verify_vouches
from comity.trust.copies import HOLD_PREDICATES
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import Malformed, Unavailable, Untrusted
from comity.trust.evaluation import announcements_of, evaluations_of
from comity.trust.evidence import EvidenceReader, InclusionEvidence
from comity.trust.key_validity import prove_entry
from comity.trust.policy import Policy
from comity.trust.rotation import LogCut
from comity.trust.statement import Entry
from comity.trust.statements import Published
from comity.trust.tlog.note import Checkpoint
from comity.trust.tlog.proof import GrowthProof
from comity.trust.upstream import OBSERVED
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

MAX_DOCUMENTS: Final = 16
"""Documents of vouches that are fetched, and evaluations whose proofs are."""
MAX_ANNOUNCEMENTS: Final = 4
"""Announcements of one evaluation whose proofs are fetched."""
MAX_CUTS: Final = 32
"""Maximum number of cuts checked for one publication."""


@dataclass(frozen=True, slots=True)
class KeptProof:
    """The best proof of one line in one log, for a pack. `log` is the verifier key of the log: several members may have
    logs of one origin."""

    line: bytes
    origin: str
    proof: InclusionEvidence
    log: str = ""


@dataclass(slots=True)
class CollectedProofs:
    """The proofs to use; `alarms` are contradictions found while collecting."""

    proofs: list[KeptProof] = field(default_factory=list)
    alarms: list[Untrusted] = field(default_factory=list)


async def collect_proofs(
    session: Session,
    seen_logs: SeenLogs,
    readings: ParsedClaims,
    policy: Policy,
    known: Iterable[InclusionEvidence],
    on_event: OnEvent,
    more: Sequence[Entry] = (),
) -> CollectedProofs:
    """Collect proofs of the publications, and of the holds and observations that nodes of pinned members claim.

    Args:
        known: existing proofs, of any line.
        more: further entries whose proofs are collected.

    Invalid proofs are dropped, not raised.
    """
    bound, _, _ = bind_nodes(policy.pins, readings.entries, readings.chains)
    entries = [publication.entry for publication in readings.publications] + _node_entries(readings, bound) + [*more]
    return await _collect(session, seen_logs, entries, bound, known, on_event)


async def collect_evaluation_proofs(
    session: Session,
    seen_logs: SeenLogs,
    readings: ParsedClaims,
    artifact: Digest,
    objects: Mapping[Digest, bytes],
    policy: Policy,
    known: Iterable[InclusionEvidence],
    on_event: OnEvent,
) -> CollectedProofs:
    """Collect proofs of evaluations whose results are in `objects`, and of their announcements, which together show
    which was logged first. As many as there are documents of vouches, with at most `MAX_ANNOUNCEMENTS` each."""
    bound, _, _ = bind_nodes(policy.pins, readings.entries, readings.chains)
    seats = [seat for body in policy.pins for seat in body.members]
    vouches, _ = verify_vouches(readings, artifact, KnownAuthors(readings, bound, seats))
    entries: dict[Digest, Entry] = {}
    for vouch, results in itertools.islice(evaluations_of(vouches, objects), MAX_DOCUMENTS):
        announcements = announcements_of(vouch, results, readings, artifact)[:MAX_ANNOUNCEMENTS]
        if announcements:
            entries |= {entry.digest: entry for entry in (vouch.entry, *announcements)}
    return await _collect(session, seen_logs, list(entries.values()), bound, known, on_event)


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
        for kept in _best_proofs(entry, candidates, bound, session.reader):
            await _check_against_seen(session, seen_logs, kept, bound, collected, on_event)
    return collected


async def collect_objects(session: Session, published: Published, on_event: OnEvent) -> Mapping[Digest, bytes]:
    """Fetch the licence text and documents that a publication names, if any node has them."""
    found: dict[Digest, bytes] = {}
    for item in published.objects():
        if item in (published.manifest, published.pieces):
            continue
        try:
            found[item.digest] = await fetch_object(session, item.digest)
        except Unavailable as error:
            on_event(Note(str(error)))
    return found


async def fetch_object(session: Session, digest: Digest) -> bytes:
    """Return the object from the first node that serves it; its hash is verified. Raises NotFound, Unavailable."""
    return await session.first(lambda node: node.object(digest), f"no node serves object {short(digest)}")


async def _fetch_proofs(session: Session, entry: Entry, bound: tuple[BoundNode, ...]) -> tuple[InclusionEvidence, ...]:
    """Return the proofs that nodes have. Of a hold any valid one is enough, and each member may have signed one: to ask
    every node about each would cost as much as the square of the number of members."""
    if entry.statement.predicate in HOLD_PREDICATES:
        return await _first_valid_proofs(session, entry, bound)
    answers = await session.ask(lambda node: node.proofs(entry.digest))
    return _proofs_of(entry, (item for found in answers.found.values() for item in found))


async def _first_valid_proofs(
    session: Session, entry: Entry, bound: tuple[BoundNode, ...]
) -> tuple[InclusionEvidence, ...]:
    async with aclosing(session.answers(lambda node: node.proofs(entry.digest))) as answers:
        async for located in answers:
            proofs = _proofs_of(entry, located)
            if _best_proofs(entry, proofs, bound, session.reader):
                return proofs
    return ()


def _proofs_of(entry: Entry, located: Iterable[LocatedProof]) -> tuple[InclusionEvidence, ...]:
    return tuple(dict.fromkeys(InclusionEvidence(entry.digest, item.proof) for item in located))


def _node_entries(readings: ParsedClaims, bound: tuple[BoundNode, ...]) -> list[Entry]:
    nodes = {node.record.node for node in bound}
    return [
        e for e in readings.entries if e.statement.predicate in (*HOLD_PREDICATES, OBSERVED) and e.statement.by in nodes
    ]


def _best_proofs(
    entry: Entry, candidates: Iterable[InclusionEvidence], bound: tuple[BoundNode, ...], reader: EvidenceReader
) -> list[KeptProof]:
    """Return for each log the proof with most cosigning members; of equals, the one of the larger tree."""
    best: dict[str, tuple[tuple[int, int], KeptProof]] = {}
    for proof in candidates:
        seen, _, _ = prove_entry(entry, (proof,), bound, reader)
        for witnessed in seen:
            priority = (len({c.member.lineage for c in witnessed.cosigners}), witnessed.size)
            if witnessed.log not in best or priority > best[witnessed.log][0]:
                best[witnessed.log] = priority, KeptProof(entry.line, witnessed.origin, proof, witnessed.log)
    return [kept for _, kept in best.values()]


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


async def collect_growths(
    session: Session, publications: Iterable[Publication], kept: Iterable[KeptProof]
) -> Mapping[Digest, bytes]:
    """Fetch consistency proofs between the kept proofs and the cuts of rotations that retired the keys of
    `publications`, if any node has them. Invalid answers are dropped, not raised."""
    found: dict[Digest, bytes] = {}
    here, proofs = tuple(kept), consistency_proofs(session)
    for publication in publications:
        for cut, checkpoint, log in _missing_growths(publication, here, session.reader):
            growth = await _growth(cut, checkpoint, log, proofs)
            if growth is not None:
                found[sha256(growth.encode())] = growth.encode()
    return found


def _missing_growths(
    publication: Publication, kept: Iterable[KeptProof], reader: EvidenceReader
) -> Iterator[tuple[LogCut, Checkpoint, str]]:
    """Yield cuts that could prove the publication older than the retirement of its keys, each with a checkpoint of
    another size and the verifier key of its log."""
    chain = publication.chain
    signers = set(chain.signers(publication.entry.envelope))
    cuts = [cut for step in chain.steps if step.before in signers for cut in step.rotation.cut][:MAX_CUTS]
    for item in (item for item in kept if item.line == publication.entry.line):
        proven = reader.proof(item.proof.data)
        checkpoint = Checkpoint.parse(proven.checkpoint.text)
        for cut in cuts:
            if cut.origin == checkpoint.origin and proven.index < cut.size != checkpoint.size:
                yield cut, checkpoint, item.log


async def _growth(cut: LogCut, checkpoint: Checkpoint, log: str, proofs: ConsistencyProofs) -> GrowthProof | None:
    old, new = sorted([(cut.size, cut.root), (checkpoint.size, checkpoint.root)])
    async with aclosing(proofs(log, old[0], new[0])) as offered:
        async for hashes in offered:
            try:
                growth = GrowthProof(cut.origin, old[0], new[0], hashes)
                growth.verify(old[1], new[1])
            except (Malformed, Untrusted):
                continue
            return growth
    return None
