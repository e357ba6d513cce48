"""Parses claim lines and verifies the statements about one artifact: their signers, their logs and their cosigners.

A line that does not parse or verify becomes a note and does not count; it never hides another line. Authors are proven
by inceptions and rotations (identities), by pinned bodies (members), and by node records (nodes).

A cosigner counts if and only if a node record binds its key to an active member of a *pinned* body, with the
jurisdiction in that body, and is signed by keys that the body lists or that the member's rotations reach from them. The
log must be bound to a member X in the same way. Members other than X count, each once, for any number of nodes and
keys. Source: protocol, section 3, "the verifier's chain".

Nobody owns a name: a binding of the owner or of a pinned charter decides between claimants, and other claims are
reported. Without a binding, or if one publisher gave one version to two artifacts, there is a dispute. Members
corroborate one another if their nodes fetched the same bytes under the same commit from the upstream. A node that
observed other bytes contradicts them; which one is wrong is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

from comity.trust.charter.document import Body, Member
from comity.trust.charter.federation import prove_record_states
from comity.trust.copies import HOLD_PREDICATES, hold_of
from comity.trust.encoding import LAST_TIME, Digest, sha256, short
from comity.trust.errors import ComityError, Untrusted
from comity.trust.evidence import EvidenceReader, Remark
from comity.trust.identity import Inception, check_inception
from comity.trust.node_records import NodeRecord, signed_by_node
from comity.trust.places import Reach, declared_reach, excluded_reach
from comity.trust.policy import PUBLISHER, CosignerRule
from comity.trust.report import VERIFIED, Verified
from comity.trust.rotation import KeyState, RotationChain, RotationChains, SigningStates
from comity.trust.statement import Author, Entry, Statement
from comity.trust.statements import (
    VOUCH_KINDS,
    VOUCHED,
    Advisory,
    Published,
    Vouched,
    check_published,
    parse_advisory,
    parse_vouched,
)
from comity.trust.tlog.note import MLDSA44_COSIGNATURE, Checkpoint, NoteSignature, VerifierKey, verify_cosignature
from comity.trust.tlog.proof import TlogProof
from comity.trust.upstream import CHANGED, GONE, OBSERVED, Changed, Gone, Observed, parse_changed, parse_gone


@dataclass(frozen=True, slots=True)
class BoundNode:
    """A node record that a pinned body proves, and its member. `post_quantum`: its signature and the rotations before
    it stay secure if classical cryptography is broken."""

    member: Member
    record: NodeRecord
    entry: Entry
    post_quantum: bool


@dataclass(frozen=True, slots=True)
class ProvenCosigner:
    """A member that cosigned: the cosigner's name, and the time by the cosigner's clock (POSIX seconds), at most
    LAST_TIME: it may state any, and programs write it as a date.
    `post_quantum`: the cosignature and the keys that bind the cosigner stay secure if classical cryptography is broken.
    `lines` are all cosignatures of the member on this checkpoint: time, and whether post-quantum. `reach` is what the
    records of this cosigner declare, all together; empty if they declare nothing."""

    member: Member
    name: str
    timestamp: int
    post_quantum: bool
    lines: tuple[tuple[int, bool], ...] = ()
    reach: Reach = ()

    def times(self, rule: CosignerRule) -> tuple[int, ...]:
        """Return the times of the cosignatures that `rule` counts and that have a time."""
        return tuple(at for at, strong in self.lines if at and (strong or not rule.post_quantum))


@dataclass(frozen=True, slots=True)
class WitnessedEntry:
    """An entry that is proven to be in a log of the member `writer`, and the cosigners of a checkpoint that includes
    it.

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

    def counted(self, rule: CosignerRule, publisher: frozenset[str]) -> tuple[ProvenCosigner, ...]:
        """Return the cosigners that `rule` counts: members other than the writer, outside excluded jurisdictions. Codes
        that the rule names exclude a cosigner by its seat and by its declared reach; `publisher` excludes by seat.

        Args:
            publisher: the publisher's jurisdictions.
        """
        named = frozenset(rule.outside) - {PUBLISHER}
        excluded = set(named)
        if PUBLISHER in rule.outside:
            excluded |= publisher | {self.writer.jurisdiction}
        return tuple(
            cosigner
            for cosigner in self.cosigners
            if cosigner.member != self.writer
            and cosigner.member.jurisdiction not in excluded
            and not excluded_reach(cosigner.reach, named)
            and (cosigner.reach or not rule.declared)
            and (cosigner.post_quantum or not rule.post_quantum)
        )

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
    for member in (member for body in bodies for member in body.members):
        chains.follow(member.key_state)
    for entry in entries:
        if entry.statement.predicate != "node-record" or not bodies:
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
            record, states = prove_record_states(entry, body, chains)
        except ComityError as error:
            refusal = error
            continue
        if any(member.id == record.member for member in body.active):
            others = (other for other in bodies if other is not body)
            return record, states.post_quantum or any(
                _is_post_quantum(entry, record, other, chains) for other in others
            )
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
    found: list[ProvenCosigner] = []
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
            post_quantum = key.type == MLDSA44_COSIGNATURE and node.post_quantum
            found.append(ProvenCosigner(node.member, key.name, timestamp, post_quantum))
    reaches = _declared_reaches(bound)
    best: dict[Member, ProvenCosigner] = {}
    lines: dict[Member, set[tuple[int, bool]]] = {}
    for cosigner in found:
        lines.setdefault(cosigner.member, set()).add((cosigner.timestamp, cosigner.post_quantum))
        known = best.get(cosigner.member)
        if known is None or (cosigner.post_quantum, cosigner.timestamp) > (known.post_quantum, known.timestamp):
            best[cosigner.member] = cosigner
    each = (
        replace(cosigner, lines=tuple(sorted(lines[member])), reach=reaches.get((member, cosigner.name), ()))
        for member, cosigner in best.items()
    )
    return tuple(each), tuple(dict.fromkeys(refused))


def _declared_reaches(bound: tuple[BoundNode, ...]) -> dict[tuple[Member, str], Reach]:
    """By member and name of the cosigner: what its records declare. Which of several records is the newest is not
    known here, so all count."""
    found: dict[tuple[Member, str], set[str]] = {}
    for node in bound:
        if node.record.place is not None:
            reach = declared_reach(node.member.jurisdiction, node.record.place)
            found.setdefault((node.member, node.record.cosigners[0].name), set()).update(reach)
    return {key: tuple(sorted(codes)) for key, codes in found.items()}


def _key_of(signature: NoteSignature, record: NodeRecord) -> VerifierKey | None:
    return next((key for key in record.cosigners if signature.by(key)), None)


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Publication:
    """A verified `published` statement, its publisher's inception, and the publisher's rotations."""

    entry: Entry
    published: Published
    publisher: Inception
    chain: RotationChain

    @property
    def signer(self) -> KeyState:
        """The newest key state of the publisher that signed the statement."""
        return self.chain.signers(self.entry.envelope)[-1]

    @property
    def post_quantum(self) -> bool:
        """Whether the signature and the rotations before it stay secure if classical cryptography is broken."""
        return not self.chain.post_quantum.isdisjoint(self.chain.signers(self.entry.envelope))


@dataclass(frozen=True, slots=True)
class ParsedClaims:
    """The parsed claims. `failed` is the number of `published` lines about the artifact that did not verify;
    `unknown_publishers` are the publishers of such lines whose inception is not among the claims."""

    entries: tuple[Entry, ...]
    inceptions: dict[Digest, Inception]
    chains: RotationChains
    publications: tuple[Publication, ...]
    failed: int
    unknown_publishers: tuple[Digest, ...]
    notes: tuple[Remark, ...] = field(default=())

    def chain(self, identity: Digest) -> RotationChain | None:
        """Return the rotations of `identity` from its inception; None if the inception is not among the claims."""
        inception = self.inceptions.get(identity)
        return self.chains.follow(KeyState.of_inception(inception)) if inception else None


def read_claims(lines: Iterable[bytes], artifact: Digest, reader: EvidenceReader | None = None) -> ParsedClaims:
    """Parse each line once, verify inceptions and rotations, then verify the publications of `artifact`.

    Args:
        reader: that of the session; default: a new one.
    """
    notes: list[Remark] = []
    parse = (reader or EvidenceReader()).entry
    entries = [entry for line in dict.fromkeys(lines) if (entry := _attempt(parse, line, notes)) is not None]
    proven = (_attempt(check_inception, e, notes) for e in entries if e.statement.predicate == "inception")
    inceptions = {inception.id: inception for inception in proven if inception is not None}
    chains = RotationChains(entries)
    publications, failed, unknown_publishers = [], 0, []
    for entry in entries:
        statement = entry.statement
        if statement.predicate != "published" or artifact not in {s.digest for s in statement.subjects}:
            continue
        publisher = inceptions.get(statement.by.id) if statement.by else None
        if publisher is None:
            if statement.by is not None:
                unknown_publishers.append(statement.by.id)
            continue
        chain = chains.follow(KeyState.of_inception(publisher))
        published = _attempt(lambda e, who=publisher, keys=chain: check_published(e, who, keys), entry, notes)
        if published is None:
            failed += 1
        else:
            publications.append(Publication(entry, published, publisher, chain))
    return ParsedClaims(
        tuple(entries), inceptions, chains, tuple(publications), failed, tuple(unknown_publishers), tuple(notes)
    )


def proven_advisories(
    claims: ParsedClaims, artifact: Digest, nodes: Iterable[NodeRecord] = (), members: Iterable[Member] = ()
) -> tuple[Advisory, ...]:
    """The advisories of `verify_advisories`, without their entries."""
    return tuple(advisory for _, advisory in verify_advisories(claims, artifact, nodes, members)[0])


def verify_advisories(
    claims: ParsedClaims, artifact: Digest, nodes: Iterable[NodeRecord], members: Iterable[Member] = ()
) -> tuple[tuple[tuple[Entry, Advisory], ...], tuple[Remark, ...]]:
    """The advisories about `artifact` that an identity among the claims, one of `nodes` or one of `members` is proven
    to have signed, and notes on the others."""
    online = {record.node.id: record for record in nodes}
    seats = {member.id: member.key_state for member in members}
    found: list[tuple[Entry, Advisory]] = []
    notes: list[Remark] = []

    def prove(entry: Entry) -> Advisory:
        advisory = parse_advisory(entry.statement)
        seat, node = seats.get(advisory.by.id), online.get(advisory.by.id)
        chains = (claims.chain(advisory.by.id), claims.chains.follow(seat) if seat else None)
        if advisory.by.kind == "identity" and any(chain and chain.signed(entry.envelope) for chain in chains):
            return advisory
        if node is not None and signed_by_node(entry, node):
            return advisory
        why = f"not proven to be signed by {short(advisory.by.id)}"
        raise Untrusted("advisory refused", why=why, code="SIGNATURE")

    for entry in _about(claims, artifact, "advisory"):
        if (advisory := _attempt(prove, entry, notes)) is not None:
            found.append((entry, advisory))
    return tuple(found), tuple(notes)


def verify_checks(
    claims: ParsedClaims, artifact: Digest, members: Iterable[Member]
) -> tuple[tuple[tuple[Entry, Verified], ...], tuple[Remark, ...]]:
    """The `verified` statements about `artifact` that an identity among the claims, or one of `members`, is proven to
    have signed, and notes on the others."""
    known = {member.id: member.key_state for member in members}
    found: list[tuple[Entry, Verified]] = []
    notes: list[Remark] = []

    def prove(entry: Entry) -> Verified:
        verified = Verified.parse(entry.statement)
        member = known.get(verified.by)
        for chain in (claims.chains.follow(member) if member else None, claims.chain(verified.by)):
            if chain is not None and chain.signed(entry.envelope):
                return verified
        why = f"not proven to be signed by {short(verified.by)}"
        raise Untrusted("verified refused", why=why, code="SIGNATURE")

    for entry in _about(claims, artifact, VERIFIED):
        if (verified := _attempt(prove, entry, notes)) is not None:
            found.append((entry, verified))
    return tuple(found), tuple(notes)


def verify_holds(
    claims: ParsedClaims, artifact: Digest, bound: Iterable[BoundNode]
) -> tuple[tuple[tuple[Entry, BoundNode], ...], tuple[Remark, ...]]:
    """`hold` and `holds` statements about `artifact` that bound nodes signed, each with its node, and notes on forged
    ones.

    A hold counts only in the node's own log; the caller checks that.
    """
    nodes = _nodes_by_author(bound)
    found: list[tuple[Entry, BoundNode]] = []
    notes: list[Remark] = []

    def prove(entry: Entry) -> list[BoundNode]:
        held = hold_of(entry.statement, artifact)
        known = nodes.get(held.by, []) if held is not None else []
        if not all(signed_by_node(entry, node.record) for node in known):
            raise Untrusted("hold refused", why="not signed by the node that it names", code="SIGNATURE")
        return known

    for predicate in HOLD_PREDICATES:
        for entry in _about(claims, artifact, predicate):
            found += [(entry, node) for node in _attempt(prove, entry, notes) or ()]
    return tuple(found), tuple(notes)


def _nodes_by_author(bound: Iterable[BoundNode]) -> dict[Author, list[BoundNode]]:
    nodes: dict[Author, list[BoundNode]] = {}
    for node in bound:
        nodes.setdefault(node.record.node, []).append(node)
    return nodes


def _about(claims: ParsedClaims, artifact: Digest, predicate: str) -> Iterator[Entry]:
    for entry in claims.entries:
        if entry.statement.predicate == predicate and artifact in {s.digest for s in entry.statement.subjects}:
            yield entry


def _attempt(step: Callable[[object], T] | Callable[..., T], subject: object, notes: list[Remark]) -> T | None:
    try:
        return step(subject)
    except ComityError as error:
        notes.append(_note(subject, error))
        return None


def _note(subject: object, error: ComityError) -> Remark:
    kind = "did not verify" if isinstance(error, Untrusted) else "could not be read"
    name = f"{subject.statement.predicate} {short(subject.digest)}" if isinstance(subject, Entry) else "a claim line"
    evidence = subject.digest if isinstance(subject, Entry) else sha256(subject) if isinstance(subject, bytes) else None
    return Remark(f"{name} {kind} and does not count: {error}", evidence)


@dataclass(frozen=True, slots=True)
class KnownAuthor:
    """A proven author: its id, its label in rows, and the member that it is or belongs to."""

    id: Digest
    name: str
    member: Member | None = None


class KnownAuthors:
    """The authors whose signatures can be proven with the given evidence.

    Args:
        bound: nodes that pinned bodies prove.
        members: members of pinned bodies, the newest last.
    """

    def __init__(self, claims: ParsedClaims, bound: Iterable[BoundNode], members: Iterable[Member]) -> None:
        self._claims = claims
        self._nodes = {node.record.node.id: node for node in bound}
        self._members = {member.id: member for member in members}

    def author_of(self, entry: Entry) -> KnownAuthor | None:
        """Return the author that the statement names; None if the signature of that author is not proven."""
        by = entry.statement.by
        if by is None:
            return None
        node = self._nodes.get(by.id)
        if by.kind == "node":
            if node is None or not signed_by_node(entry, node.record):
                return None
            return KnownAuthor(by.id, f"{node.record.name}, of {member_label(node.member)}", node.member)
        member, inception = self._members.get(by.id), self._claims.inceptions.get(by.id)
        starts = [member.key_state] if member else []
        starts += [KeyState.of_inception(inception)] if inception else []
        if not any(self._claims.chains.follow(start).signed(entry.envelope) for start in starts):
            return None
        if member is not None:
            return KnownAuthor(by.id, member_label(member), member)
        return KnownAuthor(by.id, f"{inception.display if inception else ''} [{short(by.id)}]")


def member_label(member: Member) -> str:
    return f"{member.name} ({member.jurisdiction})"


@dataclass(frozen=True, slots=True)
class Vouch:
    """A `vouched` statement and its proven author."""

    entry: Entry
    vouched: Vouched
    by: KnownAuthor


def verify_vouches(
    claims: ParsedClaims, artifact: Digest, authors: KnownAuthors
) -> tuple[tuple[Vouch, ...], tuple[Remark, ...]]:
    """The proven `vouched` statements about `artifact`, and notes on the others."""
    found: list[Vouch] = []
    notes: list[Remark] = []
    for entry in claims.entries:
        if entry.statement.predicate != VOUCHED or artifact not in {s.digest for s in entry.statement.subjects}:
            continue
        try:
            vouched, author = parse_vouched(entry.statement), authors.author_of(entry)
        except ComityError as error:
            text = f"vouched {short(entry.digest)} could not be read and does not count: {error}"
            notes.append(Remark(text, entry.digest))
            continue
        if author is None:
            text = f"vouched {short(entry.digest)} is not proven to be signed by {short(vouched.by.id)}"
            notes.append(Remark(text, entry.digest))
        else:
            found.append(Vouch(entry, vouched, author))
    return tuple(found), tuple(notes)


def member_counts(vouches: tuple[Vouch, ...]) -> Mapping[str, int]:
    """For each kind of statement, the number of distinct active members of pinned federations that made it, also by a
    node. A member and its successors count once."""
    behind = {
        kind: {
            v.by.member.lineage for v in vouches if v.vouched.statement == kind and v.by.member and v.by.member.active
        }
        for kind in VOUCH_KINDS
    }
    return {kind: len(members) for kind, members in behind.items() if members}


@dataclass(frozen=True, slots=True)
class RivalPublication:
    """Another publication under the same name and version."""

    entry: Entry
    published: Published
    publisher: Inception


def rivals(claims: ParsedClaims, publication: Publication) -> tuple[RivalPublication, ...]:
    """Verified publications with the name of `publication` but other bytes or another publisher; one for each publisher
    and artifact."""
    found: dict[tuple[str, str], RivalPublication] = {}
    for entry in claims.entries:
        rival = _rival(claims, entry, publication)
        if rival is not None:
            found.setdefault((rival.publisher.id, rival.published.artifact), rival)
    return tuple(found.values())


def _rival(claims: ParsedClaims, entry: Entry, publication: Publication) -> RivalPublication | None:
    statement = entry.statement
    if statement.predicate != "published" or statement.by is None or entry.digest == publication.entry.digest:
        return None
    publisher, chain = claims.inceptions.get(statement.by.id), claims.chain(statement.by.id)
    if publisher is None or chain is None:
        return None
    try:
        published = check_published(entry, publisher, chain)
    except ComityError:
        return None
    if str(published.name).lower() != str(publication.published.name).lower():
        return None
    same = (publisher.id, published.artifact) == (publication.publisher.id, publication.published.artifact)
    return None if same else RivalPublication(entry, published, publisher)


UpstreamChange: TypeAlias = Changed | Gone


@dataclass(frozen=True, slots=True)
class ProvenObservation:
    """An observation that a bound node signed. A node that several members bind counts for each of them."""

    entry: Entry
    observed: Observed
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class MirrorEvidence:
    """Proven observations of one artifact (`seen`), of other bytes under the same commits (`rivals`), and later changes
    at the upstream (`changes`)."""

    seen: tuple[ProvenObservation, ...]
    rivals: tuple[ProvenObservation, ...]
    changes: tuple[tuple[Entry, UpstreamChange, tuple[Member, ...]], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the observed commits."""
        return tuple(dict.fromkeys(item.observed.upstream.name for item in self.seen))

    def corroborating(self, name: str) -> tuple[Member, ...]:
        """The members whose nodes fetched these bytes under this commit from the upstream, each once."""
        fetched = (item for item in self.seen if item.observed.fetched and item.observed.upstream.name == name)
        return tuple(dict.fromkeys(member for item in fetched for member in item.members))

    @property
    def corroborated(self) -> int:
        """The highest number of members that corroborate one another for one commit."""
        return max((len(self.corroborating(name)) for name in self.names), default=0)


def collect_mirror_evidence(entries: Iterable[Entry], artifact: Digest, bound: Sequence[BoundNode]) -> MirrorEvidence:
    """Collect the mirror statements about `artifact` that bound nodes signed. Others are ignored; nothing is raised."""
    nodes = _nodes_by_author(bound)
    observations: list[ProvenObservation] = []
    changes: list[tuple[Entry, UpstreamChange, tuple[Member, ...]]] = []
    for entry in entries:
        predicate = entry.statement.predicate
        if predicate not in (OBSERVED, CHANGED, GONE):
            continue
        members = _signing_members(entry, nodes)
        if not members:
            continue
        if predicate == OBSERVED and (observed := _parse(Observed.parse, entry.statement)) is not None:
            observations.append(ProvenObservation(entry, observed, members))
        reader: Callable[[Statement], UpstreamChange] = parse_changed if predicate == CHANGED else parse_gone
        change = _parse(reader, entry.statement) if predicate != OBSERVED else None
        if change is not None and change.artifact == artifact:
            changes.append((entry, change, members))
    seen = tuple(item for item in observations if item.observed.artifact == artifact)
    names = {item.observed.upstream.name for item in seen}
    rivals = (s for s in observations if s.observed.artifact != artifact and s.observed.upstream.name in names)
    return MirrorEvidence(seen, tuple(rivals), tuple(changes))


def _signing_members(entry: Entry, nodes: dict[Author, list[BoundNode]]) -> tuple[Member, ...]:
    """The members that bind the node that signed the entry."""
    known = nodes.get(entry.statement.by, []) if entry.statement.by else []
    return tuple(dict.fromkeys(node.member for node in known if signed_by_node(entry, node.record)))


def _parse(reader: Callable[[Statement], T], statement: Statement) -> T | None:
    try:
        return reader(statement)
    except ComityError:
        return None
