"""Proves which nodes belong to members of the pinned charters, and which members cosigned an entry of a log.

A cosigner counts if and only if a node record binds its key to an active member of a *pinned* body, with the
jurisdiction in that body, and is signed by keys that the body lists or that the member's rotations reach from them. The
log must be bound to a member X in the same way. Members other than X count, each once, for any number of nodes and
keys. Source: protocol, section 3, "the verifier's chain".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from comity.trust.charter.document import Body, Member
from comity.trust.charter.federation import prove_record_states
from comity.trust.encoding import LAST_TIME, Digest
from comity.trust.errors import ComityError, Untrusted
from comity.trust.evidence import Remark
from comity.trust.frozen import frozen
from comity.trust.node_records import NodeRecord
from comity.trust.places import Reach, declared_reach, excluded_reach
from comity.trust.policy import PUBLISHER, CosignerRule
from comity.trust.rotation import RotationChains, SigningStates
from comity.trust.statement import Entry
from comity.trust.statement_kinds import NODE_RECORD
from comity.trust.tlog.note import MLDSA44_COSIGNATURE, Checkpoint, NoteSignature, VerifierKey, verify_cosignature
from comity.trust.tlog.proof import TlogProof


@frozen
class BoundNode:
    """A node record that a pinned body proves, and its member. `post_quantum`: its signature and the rotations before
    it stay secure if classical cryptography is broken."""

    member: Member
    record: NodeRecord
    entry: Entry
    post_quantum: bool


@frozen
class ProvenCosigner:
    """A cosigner of a member: its name, and the time by its clock (POSIX seconds), at most LAST_TIME: it may state any,
    and programs write it as a date.
    `post_quantum`: the cosignature and the keys that bind the cosigner stay secure if classical cryptography is broken.
    `lines` are all its cosignatures on this checkpoint: time, and whether post-quantum; of one that a rule counts for
    its member, those of all cosigners of that member that the rule counts. `reach` is what the records of this cosigner
    declare, all together; empty if they declare nothing."""

    member: Member
    name: str
    timestamp: int
    post_quantum: bool
    lines: tuple[tuple[int, bool], ...] = ()
    reach: Reach = ()

    def times(self, rule: CosignerRule) -> tuple[int, ...]:
        """Return the times of the cosignatures that `rule` counts and that have a time."""
        return tuple(at for at, strong in self.lines if at and (strong or not rule.post_quantum))

    def joined(self, other: ProvenCosigner) -> ProvenCosigner:
        """The stronger of the two, of equally strong ones the newer, of equals this one; with the lines of both."""
        best = max(self, other, key=lambda each: (each.post_quantum, each.timestamp))
        return replace(best, lines=tuple(sorted({*self.lines, *other.lines})))


@frozen
class WitnessedEntry:
    """An entry that is proven to be in a log of the member `writer`, and the cosigners of a checkpoint that includes
    it. A member may have several: which of them count depends on the rule.

    `refused` describes cosignatures of bound keys that did not verify; they do not count. `proof` is the SHA-256 of the
    tlog-proof. `log` is the verifier key of the log: a member may have several logs of one origin.
    """

    origin: str
    index: int
    size: int
    writer: Member
    cosigners: tuple[ProvenCosigner, ...]
    refused: tuple[str, ...]
    proof: Digest | None = None
    log: str = ""

    @property
    def cosigning_members(self) -> int:
        """The number of members that cosigned, whatever a rule counts."""
        return len({cosigner.member.lineage for cosigner in self.cosigners})

    def counted(self, rule: CosignerRule, publisher: frozenset[str]) -> tuple[ProvenCosigner, ...]:
        """Return the cosigners that `rule` counts, one for each member other than the writer: of those outside excluded
        jurisdictions the strongest, and of these the newest. Codes that the rule names exclude a cosigner by its seat
        and by its declared reach; `publisher` excludes by seat. Another cosigner of a member that counts changes
        nothing but which one is named (I4).

        Args:
            publisher: the publisher's jurisdictions.
        """
        named = frozenset(rule.outside) - {PUBLISHER}
        excluded = set(named)
        if PUBLISHER in rule.outside:
            excluded |= publisher | {self.writer.jurisdiction}
        found: dict[Member, ProvenCosigner] = {}
        for cosigner in self.cosigners:
            if (
                cosigner.member != self.writer
                and cosigner.member.jurisdiction not in excluded
                and not excluded_reach(cosigner.reach, named)
                and (cosigner.reach or not rule.declared)
                and (cosigner.post_quantum or not rule.post_quantum)
            ):
                known = found.get(cosigner.member)
                found[cosigner.member] = cosigner if known is None else known.joined(cosigner)
        return tuple(found.values())

    def satisfies(self, rule: CosignerRule, publisher: frozenset[str]) -> bool:
        counted = self.counted(rule, publisher)
        jurisdictions = {cosigner.member.jurisdiction for cosigner in counted}
        return len(counted) >= rule.at_least and len(jurisdictions) >= rule.jurisdictions


def bind_nodes(
    pins: Iterable[Body], entries: Iterable[Entry], chains: RotationChains
) -> tuple[tuple[BoundNode, ...], tuple[Remark, ...], tuple[str, ...]]:
    """Verify node records under the pinned bodies. Returns the bound nodes, notes on records that do not verify, and
    the names of nodes whose member no pinned body lists (for example newer members)."""
    bodies, bound, notes, unlisted_nodes = tuple(pins), dict[Digest, BoundNode](), list[Remark](), list[str]()
    members, listed = _active_members(bodies), {member.id for body in bodies for member in body.members}
    follow_members(bodies, chains)
    for entry in entries:
        if entry.statement.predicate != NODE_RECORD or not bodies:
            continue
        if entry.statement.by is not None and entry.statement.by.id not in listed:
            unlisted_nodes.append(entry.statement.subjects[0].name)
            continue
        known = bound.get(entry.statement_digest)
        if known is not None and known.post_quantum:
            continue  # one statement is one record, even in several envelopes
        try:
            record, post_quantum = _verify_record(entry, bodies, chains)
        except ComityError as error:
            text = f"node record of {entry.statement.subjects[0].name!r} does not verify: {error}"
            notes.append(Remark(text, entry.digest))
        else:
            if known is None or post_quantum:
                bound[entry.statement_digest] = BoundNode(members[record.member], record, entry, post_quantum)
    return tuple(bound.values()), tuple(notes), tuple(unlisted_nodes)


def follow_members(bodies: Iterable[Body], chains: RotationChains) -> None:
    """Follow the rotations of all members of charter bodies, from the keys that these list."""
    for member in (member for body in bodies for member in body.members):
        chains.follow(member.key_state)


def _active_members(bodies: tuple[Body, ...]) -> dict[Digest, Member]:
    """Active members by id. A member and its successors, over all pinned bodies, count as one member, as described by
    the last body that lists it. The result depends on the pins only, never on other evidence.
    """
    before = {member.id: member.successor_of for body in bodies for member in body.members if member.successor_of}
    first = {member.id: _first_predecessor(member.id, before) for body in bodies for member in body.active}
    latest = {first[member.id]: member for body in bodies for member in body.active}
    return {identifier: latest[first[identifier]] for identifier in first}


def _first_predecessor(member: Digest, before: Mapping[Digest, Digest]) -> Digest:
    """The first predecessor of `member`; members that succeed one another in a cycle count as one."""
    line = [member]
    while (earlier := before.get(line[-1])) is not None and earlier not in line:
        line.append(earlier)
    return line[-1] if earlier is None else min(line[line.index(earlier) :])


def _verify_record(entry: Entry, bodies: tuple[Body, ...], chains: RotationChains) -> tuple[NodeRecord, bool]:
    """The record, under the first body in which its member is active and signed it; and whether it is post-quantum
    under any of the bodies."""
    refusal: ComityError = Untrusted("node record refused", why="its member has no vote", code="NON-MEMBER")
    for body in bodies:
        try:
            record, _ = prove_record_states(entry, body, chains)
        except ComityError as error:
            refusal = error
            continue
        if any(member.id == record.member for member in body.active):
            return record, any(_is_post_quantum(entry, record, each, chains) for each in bodies)
    raise refusal


def _is_post_quantum(entry: Entry, record: NodeRecord, body: Body, chains: RotationChains) -> bool:
    """Whether keys that `body` lists, or that rotations reach, signed the record, and no link is classical only."""
    member = body.member(record.member)
    if member is None or not member.active:
        return False
    return SigningStates.of(chains.follow(member.key_state), entry.envelope, record.bound_keys).post_quantum


def verify_witnessed(proof: TlogProof, line: bytes, bound: tuple[BoundNode, ...]) -> tuple[WitnessedEntry, ...]:
    """Verify a proof for `line`. Returns one entry for each member to which the proof's log is bound.

    Raises Untrusted (LOG-UNBOUND) if no pinned member's record binds the log; Untrusted also if the log's signature or
    the inclusion does not verify.
    """
    origin = proof.checkpoint.text.partition("\n")[0]
    writers = [b for b in bound if b.record.origin == origin]
    if not writers:
        why = f"no pinned charter binds the log {origin!r} to a member"
        raise Untrusted("proof refused", why=why, code="LOG-UNBOUND")
    key, checkpoint = _verify_under_any(proof, line, tuple(dict.fromkeys(b.record.log for b in writers)))
    cosigners, refused = _cosigners(proof, checkpoint, bound)
    members = dict.fromkeys(b.member for b in writers if b.record.log == key)
    return tuple(
        WitnessedEntry(origin, proof.index, checkpoint.size, member, cosigners, refused, log=str(key))
        for member in members
    )


def _verify_under_any(proof: TlogProof, line: bytes, keys: tuple[VerifierKey, ...]) -> tuple[VerifierKey, Checkpoint]:
    """Verify under one of `keys`: several keys may be bound to one origin."""
    refusal: Untrusted | None = None
    for key in keys:
        try:
            return key, proof.verify(line, key)
        except Untrusted as error:
            refusal = error
    raise refusal or Untrusted("proof refused", why="no log key")


def _cosigners(
    proof: TlogProof, checkpoint: Checkpoint, bound: tuple[BoundNode, ...]
) -> tuple[tuple[ProvenCosigner, ...], tuple[str, ...]]:
    """The cosigners of the checkpoint, each name of a member once, and what is wrong with other cosignatures."""
    reaches = _declared_reaches(bound)
    found: dict[tuple[Member, str], ProvenCosigner] = {}
    refused: list[str] = []
    for signature in proof.checkpoint.signatures:
        for node in bound:
            key = _key_of(signature, node.record)
            if key is None:
                continue
            try:
                timestamp = min(verify_cosignature(signature, key, checkpoint), LAST_TIME)
            except Untrusted as error:
                refused.append(f"cosignature by {key.name}: {error}")
                continue
            who, strong = (node.member, key.name), key.type == MLDSA44_COSIGNATURE and node.post_quantum
            cosigner = ProvenCosigner(*who, timestamp, strong, ((timestamp, strong),), reaches[who])
            found[who] = found[who].joined(cosigner) if who in found else cosigner
    return tuple(found.values()), tuple(dict.fromkeys(refused))


def _declared_reaches(bound: tuple[BoundNode, ...]) -> dict[tuple[Member, str], Reach]:
    """By member and name of the cosigner: what its records declare. Which of several records is the newest is not
    known here, so all count: the newest may say that another law reaches the machine. So another record of a cosigner
    can exclude it, the one exception to I4 (protocol, section 8)."""
    found: dict[tuple[Member, str], set[str]] = {}
    for node in bound:
        reach = declared_reach(node.member.jurisdiction, node.record.place)
        found.setdefault((node.member, node.record.cosigners[0].name), set()).update(reach)
    return {key: tuple(sorted(codes)) for key, codes in found.items()}


def _key_of(signature: NoteSignature, record: NodeRecord) -> VerifierKey | None:
    return next((key for key in record.cosigners if signature.by(key)), None)
