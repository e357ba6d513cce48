"""The evidence about an artifact, collected from every reachable node and from a pack that is here already.

For each log that holds a line, the proof with most cosigners is kept. A checkpoint is met with what is remembered of
its log: one that contradicts it is evidence against the log, raised as an alarm, and its proof counts for nothing here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from comity.trust.digest import Digest, short
from comity.trust.errors import Unavailable, Untrusted
from comity.trust.evidence import Proof
from comity.trust.judging.reading import Readings
from comity.trust.judging.standing import prove_entry
from comity.trust.judging.witnessing import Bound, bind
from comity.trust.policy import Policy
from comity.trust.statement import Entry
from comity.trust.statements.published import Published
from comity.trust.tlog.proof import TlogProof
from comity.trust.upstream.observed import OBSERVED

from comity_client.events import Alarm, Note, OnEvent
from comity_client.evidence.heads import consistency_proofs, meet
from comity_client.nodes.session import Session
from comity_client.owner.memory import ALARMS, Memory


@dataclass(frozen=True, slots=True)
class KeptProof:
    """The best proof of one line in one log, as it goes into a pack."""

    line: bytes
    origin: str
    proof: Proof


@dataclass(slots=True)
class Collected:
    """Proofs to judge by; `alarms` says what was found out on the way."""

    proofs: list[KeptProof] = field(default_factory=list)
    alarms: list[Untrusted] = field(default_factory=list)


async def collect_proofs(
    session: Session, memory: Memory, readings: Readings, policy: Policy, known: Iterable[Proof], on_event: OnEvent
) -> Collected:
    """Proofs of the publications, and of the holds and observations that nodes of pinned members claim.

    Args:
        known: proofs that are here already, of any line.

    Raises nothing for what nodes say: a proof that does not hold is left out.
    """
    bound, _, _ = bind(policy.pins, readings.entries, readings.chains)
    entries = [publication.entry for publication in readings.publications] + _of_nodes(readings, bound)
    offered = await asyncio.gather(*(_offered(session, entry) for entry in entries))
    collected = Collected()
    here = tuple(known)
    for entry, proofs in zip(entries, offered, strict=True):
        candidates = (*proofs, *(proof for proof in here if proof.line == entry.digest))
        for kept in _best(entry, candidates, bound):
            await _weigh(session, memory, kept, bound, collected, on_event)
    return collected


async def collect_objects(session: Session, published: Published, on_event: OnEvent) -> Mapping[Digest, bytes]:
    """The licence text and documents that a publication names, those that somebody has."""
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
    """The object from whoever gives it first; its hash is checked. Raises NotFound, Unavailable."""
    return await session.first(lambda node: node.object(digest), f"nobody gives object {short(digest)}")


async def _offered(session: Session, entry: Entry) -> tuple[Proof, ...]:
    answers = await session.ask(lambda node: node.proofs(entry.digest))
    located = (item for found in answers.found.values() for item in found)
    return tuple(dict.fromkeys(Proof(entry.digest, item.proof) for item in located))


def _of_nodes(readings: Readings, bound: tuple[Bound, ...]) -> list[Entry]:
    nodes = {node.record.node for node in bound}
    return [e for e in readings.entries if e.statement.predicate in ("hold", OBSERVED) and e.statement.by in nodes]


def _best(entry: Entry, candidates: Iterable[Proof], bound: tuple[Bound, ...]) -> list[KeptProof]:
    """For each log the proof that shows most members; of proofs equal in that, the one of the larger tree."""
    best: dict[str, tuple[tuple[int, int], KeptProof]] = {}
    for proof in candidates:
        seen, _, _ = prove_entry(entry, (proof,), bound)
        for witnessed in seen:
            merit = (len({c.member.lineage for c in witnessed.cosigners}), witnessed.size)
            if witnessed.origin not in best or merit > best[witnessed.origin][0]:
                best[witnessed.origin] = merit, KeptProof(entry.line, witnessed.origin, proof)
    return [kept for _, kept in best.values()]


async def _weigh(
    session: Session,
    memory: Memory,
    kept: KeptProof,
    bound: tuple[Bound, ...],
    collected: Collected,
    on_event: OnEvent,
) -> None:
    note = TlogProof.parse(kept.proof.data).checkpoint
    for key in dict.fromkeys(node.record.log for node in bound if node.record.origin == kept.origin):
        try:
            await meet(memory, key, note, consistency_proofs(session))
        except Untrusted as error:
            if error.code not in ALARMS:
                continue  # another of the keys bound to this origin signed it
            collected.alarms.append(error)
            on_event(Alarm(str(error), error.hint))
            return
        except Unavailable as error:
            on_event(Note(str(error)))
    collected.proofs.append(kept)
