"""Who saw a statement in a log: from a tlog-proof to members and jurisdictions, by pinned bodies alone.

A cosigner counts iff a node record, signed by keys that a *pinned* body lists or that the member's own rotations reach
from them, binds its key to a member active in that body, with the jurisdiction written there. The log itself must be
bound to a member X in the same way; members other than X count, each once, however many nodes and keys it has. Source:
protocol, section 3, "the verifier's chain".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from comity.trust.charter import Body, Member
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, Untrusted
from comity.trust.federation import hear_record
from comity.trust.policy import PUBLISHER, CosignerRule
from comity.trust.remark import Remark
from comity.trust.rotation import Chains, Heard
from comity.trust.statement import Entry
from comity.trust.statements.node_record import NodeRecord
from comity.trust.tlog.checkpoint import Checkpoint
from comity.trust.tlog.cosignature import verify_cosignature
from comity.trust.tlog.note import MLDSA44_COSIGNATURE, NoteSignature, VerifierKey
from comity.trust.tlog.proof import TlogProof


@dataclass(frozen=True, slots=True)
class Bound:
    """A node record that a pinned body proves, and the seat whose node it is; `post_quantum` where its signature, and
    the rotations that lead to it, would stand without classical cryptography."""

    member: Member
    record: NodeRecord
    entry: Entry
    post_quantum: bool


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A member that cosigned: by which name, when by its own clock (POSIX seconds); `post_quantum` where neither its
    cosignature nor the keys that bind its cosigner would fall with classical cryptography. `lines` are all cosignatures
    of the member under this checkpoint: when, and whether post-quantum."""

    member: Member
    name: str
    timestamp: int
    post_quantum: bool
    lines: tuple[tuple[int, bool], ...] = ()

    def times(self, rule: CosignerRule) -> tuple[int, ...]:
        """When it cosigned, by the lines that `rule` counts and that tell a time."""
        return tuple(at for at, strong in self.lines if at and (strong or not rule.post_quantum))


@dataclass(frozen=True, slots=True)
class Witnessed:
    """An entry proven to be in a log of `writer`'s, and who cosigned the log with it inside.

    `refused` names cosignature lines of bound keys that did not verify: they count for nothing. `proof` is the SHA-256
    of the tlog-proof that shows it.
    """

    origin: str
    index: int
    size: int
    writer: Member
    cosigners: tuple[Cosigner, ...]
    refused: tuple[str, ...]
    proof: Digest | None = None

    def counted(self, rule: CosignerRule, publisher: frozenset[str]) -> tuple[Cosigner, ...]:
        """The cosigners that `rule` counts: members other than the writer, outside what it excludes.

        Args:
            publisher: the publisher's jurisdictions.
        """
        excluded = {code for code in rule.outside if code != PUBLISHER}
        if PUBLISHER in rule.outside:
            excluded |= publisher | {self.writer.jurisdiction}
        return tuple(
            cosigner
            for cosigner in self.cosigners
            if cosigner.member != self.writer
            and cosigner.member.jurisdiction not in excluded
            and (cosigner.post_quantum or not rule.post_quantum)
        )

    def satisfies(self, rule: CosignerRule, publisher: frozenset[str]) -> bool:
        counted = self.counted(rule, publisher)
        jurisdictions = {cosigner.member.jurisdiction for cosigner in counted}
        return len(counted) >= rule.at_least and len(jurisdictions) >= rule.jurisdictions


def bind(
    pins: Iterable[Body], entries: Iterable[Entry], chains: Chains
) -> tuple[tuple[Bound, ...], tuple[Remark, ...], tuple[str, ...]]:
    """Prove node records under the pinned bodies. Returns the bound ones, notes on those that do not hold, and the
    names of nodes whose member no pinned body lists: newer members, say, of whom nothing is known here."""
    bodies, bound, notes, strangers = tuple(pins), dict[Digest, Bound](), list[Remark](), list[str]()
    seats, listed = _seats(bodies), {member.id for body in bodies for member in body.members}
    for seat in (member for body in bodies for member in body.members):
        chains.follow(seat.key_state)
    for entry in entries:
        if entry.statement.predicate != "node-record" or not bodies:
            continue
        if entry.statement.by is not None and entry.statement.by.id not in listed:
            strangers.append(entry.statement.subjects[0].name)
            continue
        known = bound.get(entry.statement_digest)
        if known is not None and known.post_quantum:
            continue  # one statement is one record, in however many envelopes it comes
        try:
            record, firm = _proven(entry, bodies, chains)
        except ComityError as error:
            text = f"node record of {entry.statement.subjects[0].name!r} binds nothing: {error}"
            notes.append(Remark(text, entry.digest))
        else:
            if known is None or firm:
                bound[entry.statement_digest] = Bound(seats[record.member], record, entry, firm)
    return tuple(bound.values()), tuple(notes), tuple(strangers)


def _seats(bodies: tuple[Body, ...]) -> dict[Digest, Member]:
    """Active members by id. A member and its successors, over all pinned bodies, are one seat, in the words of the last
    body that lists it: for whom a cosignature counts depends on the pins alone, never on what else is in the evidence.
    """
    before = {member.id: member.successor_of for body in bodies for member in body.members if member.successor_of}
    first = {member.id: _first(member.id, before) for body in bodies for member in body.active}
    latest = {first[member.id]: member for body in bodies for member in body.active}
    return {identifier: latest[first[identifier]] for identifier in first}


def _first(member: Digest, before: Mapping[Digest, Digest]) -> Digest:
    """The seat that `member` goes back to; bodies that name each other's members in a circle make one seat of them."""
    line = [member]
    while (earlier := before.get(line[-1])) is not None and earlier not in line:
        line.append(earlier)
    return line[-1] if earlier is None else min(line[line.index(earlier) :])


def _proven(entry: Entry, bodies: tuple[Body, ...], chains: Chains) -> tuple[NodeRecord, bool]:
    """The record, under the first body in which its member is active and signed it; and whether it is `_firm` under any
    of them."""
    refusal: ComityError = Untrusted("node record refused", why="its member has no vote", code="NON-MEMBER")
    for body in bodies:
        try:
            record, heard = hear_record(entry, body, chains)
        except ComityError as error:
            refusal = error
            continue
        if any(member.id == record.member for member in body.active):
            others = (other for other in bodies if other is not body)
            return record, heard.post_quantum or any(_firm(entry, record, other, chains) for other in others)
    raise refusal


def _firm(entry: Entry, record: NodeRecord, body: Body, chains: Chains) -> bool:
    """Whether keys that `body` lists, or rotations reach, signed the record, and no link of it is classical only."""
    seat = body.member(record.member)
    if seat is None or not seat.active:
        return False
    return Heard.of(chains.follow(seat.key_state), entry.envelope, record.bound_keys).post_quantum


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
    members = dict.fromkeys(b.member for b in writers if b.record.log == key)
    return tuple(Witnessed(origin, proof.index, checkpoint.size, member, cosigners, refused) for member in members)


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
            post_quantum = key.type == MLDSA44_COSIGNATURE and node.post_quantum
            found.append(Cosigner(node.member, key.name, timestamp, post_quantum))
    best: dict[Member, Cosigner] = {}
    lines: dict[Member, set[tuple[int, bool]]] = {}
    for cosigner in found:
        lines.setdefault(cosigner.member, set()).add((cosigner.timestamp, cosigner.post_quantum))
        known = best.get(cosigner.member)
        if known is None or (cosigner.post_quantum, cosigner.timestamp) > (known.post_quantum, known.timestamp):
            best[cosigner.member] = cosigner
    each = (replace(cosigner, lines=tuple(sorted(lines[member]))) for member, cosigner in best.items())
    return tuple(each), tuple(dict.fromkeys(refused))


def _key_of(signature: NoteSignature, record: NodeRecord) -> VerifierKey | None:
    return next((key for key in record.cosigners if signature.by(key)), None)
