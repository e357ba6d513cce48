"""Who saw a statement in a log: from a tlog-proof to members and jurisdictions, by pinned bodies alone.

A cosigner counts iff a node record, signed by keys that a *pinned* body lists, binds its key to a member active in
that body, with the jurisdiction written there. The log itself must be bound to a member X in the same way; members
other than X count, each once, however many nodes and keys it has. Source: protocol, section 3, "the verifier's chain".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from comity.trust.charter import Body, Member
from comity.trust.checkpoint import Checkpoint
from comity.trust.cosignature import verify_cosignature
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, Untrusted
from comity.trust.federation import prove_record
from comity.trust.node_record import NodeRecord
from comity.trust.note import MLDSA44_COSIGNATURE, NoteSignature, VerifierKey
from comity.trust.policy import PUBLISHER, CosignerRule
from comity.trust.statement import Entry
from comity.trust.tlog_proof import TlogProof


@dataclass(frozen=True, slots=True)
class Bound:
    """A node record that a pinned body proves, and the member whose node it is there."""

    member: Member
    record: NodeRecord
    entry: Entry


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A member that cosigned: by which name, when by its own clock (POSIX seconds), with a post-quantum key or not."""

    member: Member
    name: str
    timestamp: int
    post_quantum: bool


@dataclass(frozen=True, slots=True)
class Witnessed:
    """An entry proven to be in a log of `writer`'s, and who cosigned the log with it inside.

    `refused` names cosignature lines of bound keys that did not verify: they count for nothing.
    """

    origin: str
    index: int
    size: int
    writer: Member
    cosigners: tuple[Cosigner, ...]
    refused: tuple[str, ...]

    def counted(self, rule: CosignerRule, publisher_jurisdiction: str) -> tuple[Cosigner, ...]:
        """The cosigners that `rule` counts: distinct members other than the writer, outside what it excludes."""
        excluded = {code for code in rule.outside if code != PUBLISHER}
        if PUBLISHER in rule.outside:
            excluded |= {publisher_jurisdiction, self.writer.jurisdiction}
        seen: dict[Digest, Cosigner] = {}
        for cosigner in self.cosigners:
            member = cosigner.member
            if member.lineage == self.writer.lineage or member.jurisdiction in excluded:
                continue
            if rule.post_quantum and not cosigner.post_quantum:
                continue
            seen.setdefault(member.lineage, cosigner)
        return tuple(seen.values())

    def satisfies(self, rule: CosignerRule, publisher_jurisdiction: str) -> bool:
        counted = self.counted(rule, publisher_jurisdiction)
        jurisdictions = {cosigner.member.jurisdiction for cosigner in counted}
        return len(counted) >= rule.at_least and len(jurisdictions) >= rule.jurisdictions


def bind(pins: Iterable[Body], entries: Iterable[Entry]) -> tuple[tuple[Bound, ...], tuple[str, ...]]:
    """Prove node records under each pinned body. Returns the bound ones, and notes on those that bind nothing."""
    bodies, bound, notes = tuple(pins), [], []
    for entry in entries:
        if entry.statement.predicate != "node-record":
            continue
        reasons = []
        for body in bodies:
            try:
                record = prove_record(entry, body)
            except ComityError as error:
                reasons.append(str(error))
                continue
            member = body.member(record.member)
            if member is not None and member.active:
                bound.append(Bound(member, record, entry))
        if bodies and len(reasons) == len(bodies):
            notes.append(f"node record of {entry.statement.subjects[0].name!r} binds nothing: {reasons[0]}")
    return tuple(bound), tuple(notes)


def witness(proof: TlogProof, line: bytes, bound: tuple[Bound, ...]) -> tuple[Witnessed, ...]:
    """One `Witnessed` for each member to whom the proof's log is bound.

    Raises Untrusted: "LOG-UNBOUND" where no pinned member's record binds the log; else what does not hold (the log's
    signature, the inclusion).
    """
    origin = proof.checkpoint.text.partition("\n")[0]
    writers = [b for b in bound if b.record.origin == origin]
    if not writers:
        why = f"no pinned charter binds the log {origin!r} to a member"
        raise Untrusted("proof refused", why=why, code="LOG-UNBOUND")
    key, checkpoint = _open(proof, line, tuple(dict.fromkeys(b.record.log for b in writers)))
    cosigners, refused = _cosigners(proof, checkpoint, bound)
    members = {b.member.lineage: b.member for b in writers if b.record.log == key}
    return tuple(
        Witnessed(origin, proof.index, checkpoint.size, member, cosigners, refused) for member in members.values()
    )


def _open(proof: TlogProof, line: bytes, keys: tuple[VerifierKey, ...]) -> tuple[VerifierKey, Checkpoint]:
    """Several keys may be bound to one origin: the proof has to hold under one of them."""
    refusal: Untrusted | None = None
    for key in keys:
        try:
            return key, proof.verify(line, key)
        except Untrusted as error:
            refusal = error
    raise refusal or Untrusted("proof refused", why="no log key")


def _cosigners(
    proof: TlogProof, checkpoint: Checkpoint, bound: tuple[Bound, ...]
) -> tuple[tuple[Cosigner, ...], tuple[str, ...]]:
    found: list[Cosigner] = []
    refused: list[str] = []
    for signature in proof.checkpoint.signatures:
        for node in bound:
            key = _key_of(signature, node.record)
            if key is None:
                continue
            try:
                timestamp = verify_cosignature(signature, key, checkpoint)
            except Untrusted as error:
                refused.append(f"cosignature by {key.name}: {error}")
                continue
            post_quantum = key.type == MLDSA44_COSIGNATURE
            found.append(Cosigner(node.member, key.name, timestamp, post_quantum))
    best: dict[tuple[Digest, str], Cosigner] = {}
    for cosigner in found:
        known = best.get((cosigner.member.lineage, cosigner.member.jurisdiction))
        if known is None or (cosigner.post_quantum, cosigner.timestamp) > (known.post_quantum, known.timestamp):
            best[cosigner.member.lineage, cosigner.member.jurisdiction] = cosigner
    return tuple(best.values()), tuple(dict.fromkeys(refused))


def _key_of(signature: NoteSignature, record: NodeRecord) -> VerifierKey | None:
    return next((key for key in record.cosigners if signature.by(key)), None)
