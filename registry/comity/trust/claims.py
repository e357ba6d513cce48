"""Who saw a statement in a log: from a tlog-proof to members and jurisdictions, by pinned bodies alone.

A cosigner counts iff a node record, signed by keys that a *pinned* body lists or that the member's own rotations reach
from them, binds its key to a member active in that body, with the jurisdiction written there. The log itself must be
bound to a member X in the same way; members other than X count, each once, however many nodes and keys it has. Source:
protocol, section 3, "the verifier's chain".


Reading a pile of claims: which of them are somebody's proven word about this artifact.

A line that does not parse or does not verify becomes a note and counts for nothing; it never hides a line that does.


Who said it: identities by inceptions and rotations, members by the seats of pinned bodies, nodes by records.

Which `vouched` statements about an artifact are somebody's proven word, and which members stand behind them.

Who else claims the name: other publications of it that are proven to be somebody's, among the claims at hand.

A name is not a thing that anybody owns. Where the owner or a pinned charter bound its namespace, that decides, and the
others are told beside; where nobody did, or its own publisher gave one version to two artifacts, it is a dispute.


From a pile of claims to who said what, for how long they spoke, and who saw it in a log: what `verify` stands on.

What nodes of pinned members say about where an artifact is from, as far as it is theirs.

Members corroborate one another where their nodes fetched the same bytes under the same commit from the upstream
themselves. Nodes that observed other bytes under that commit contradict them: then somebody is wrong, and nothing here
says who. Only statements that bound nodes signed count, each member once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, TypeVar

from comity.trust.charter.document import Body, Member
from comity.trust.charter.federation import hear_record
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, Untrusted
from comity.trust.evidence import Remark
from comity.trust.identity import Inception, check_inception
from comity.trust.policy import PUBLISHER, CosignerRule
from comity.trust.rotation import KeyState, RotationChain, RotationChains, SigningStates
from comity.trust.statement import Author, Entry, Statement, parse_entry
from comity.trust.statements import (
    STATEMENTS,
    VERIFIED,
    VOUCHED,
    Advisory,
    NodeRecord,
    Published,
    Verified,
    Vouched,
    check_published,
    parse_advisory,
    parse_hold,
    parse_vouched,
    signed_by_node,
)
from comity.trust.tlog.note import MLDSA44_COSIGNATURE, Checkpoint, NoteSignature, VerifierKey, verify_cosignature
from comity.trust.tlog.proof import TlogProof
from comity.trust.upstream import CHANGED, GONE, OBSERVED, Changed, Gone, Observed, parse_changed, parse_gone


@dataclass(frozen=True, slots=True)
class BoundNode:
    """A node record that a pinned body proves, and the seat whose node it is; `post_quantum` where its signature, and
    the rotations that lead to it, would stand without classical cryptography."""

    member: Member
    record: NodeRecord
    entry: Entry
    post_quantum: bool


@dataclass(frozen=True, slots=True)
class ProvenCosigner:
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
class WitnessedEntry:
    """An entry proven to be in a log of `writer`'s, and who cosigned the log with it inside.

    `refused` names cosignature lines of bound keys that did not verify: they count for nothing. `proof` is the SHA-256
    of the tlog-proof that shows it.
    """

    origin: str
    index: int
    size: int
    writer: Member
    cosigners: tuple[ProvenCosigner, ...]
    refused: tuple[str, ...]
    proof: Digest | None = None

    def counted(self, rule: CosignerRule, publisher: frozenset[str]) -> tuple[ProvenCosigner, ...]:
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
    pins: Iterable[Body], entries: Iterable[Entry], chains: RotationChains
) -> tuple[tuple[BoundNode, ...], tuple[Remark, ...], tuple[str, ...]]:
    """Prove node records under the pinned bodies. Returns the bound ones, notes on those that do not hold, and the
    names of nodes whose member no pinned body lists: newer members, say, of whom nothing is known here."""
    bodies, bound, notes, strangers = tuple(pins), dict[Digest, BoundNode](), list[Remark](), list[str]()
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
                bound[entry.statement_digest] = BoundNode(seats[record.member], record, entry, firm)
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


def _proven(entry: Entry, bodies: tuple[Body, ...], chains: RotationChains) -> tuple[NodeRecord, bool]:
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


def _firm(entry: Entry, record: NodeRecord, body: Body, chains: RotationChains) -> bool:
    """Whether keys that `body` lists, or rotations reach, signed the record, and no link of it is classical only."""
    seat = body.member(record.member)
    if seat is None or not seat.active:
        return False
    return SigningStates.of(chains.follow(seat.key_state), entry.envelope, record.bound_keys).post_quantum


def witness(proof: TlogProof, line: bytes, bound: tuple[BoundNode, ...]) -> tuple[WitnessedEntry, ...]:
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
    return tuple(WitnessedEntry(origin, proof.index, checkpoint.size, member, cosigners, refused) for member in members)


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
                timestamp = verify_cosignature(signature, key, checkpoint)
            except Untrusted as error:
                refused.append(f"cosignature by {key.name}: {error}")
                continue
            post_quantum = key.type == MLDSA44_COSIGNATURE and node.post_quantum
            found.append(ProvenCosigner(node.member, key.name, timestamp, post_quantum))
    best: dict[Member, ProvenCosigner] = {}
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


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Publication:
    """A `published` statement with its publisher's proven record, and what rotations made of it."""

    entry: Entry
    published: Published
    publisher: Inception
    chain: RotationChain

    @property
    def signer(self) -> KeyState:
        """The newest state of the publisher's keys that signed it."""
        return self.chain.signers(self.entry.envelope)[-1]

    @property
    def post_quantum(self) -> bool:
        """Whether its signature, and the rotations that lead to it, would stand without classical cryptography."""
        return not self.chain.post_quantum.isdisjoint(self.chain.signers(self.entry.envelope))


@dataclass(frozen=True, slots=True)
class Readings:
    """What the claims amount to. `failed` counts `published` lines about the artifact that did not verify, `orphans`
    those whose publisher's inception is not among the claims."""

    entries: tuple[Entry, ...]
    inceptions: dict[Digest, Inception]
    chains: RotationChains
    publications: tuple[Publication, ...]
    failed: int
    orphans: tuple[Digest, ...]
    notes: tuple[Remark, ...] = field(default=())

    def chain(self, identity: Digest) -> RotationChain | None:
        """Whom `identity`'s rotations lead to, from its inception on; None where that is not here."""
        inception = self.inceptions.get(identity)
        return self.chains.follow(KeyState.of_inception(inception)) if inception else None


def read_claims(lines: Iterable[bytes], artifact: Digest) -> Readings:
    """Parse every line once, prove inceptions, follow rotations, then prove the publications of `artifact`."""
    notes: list[Remark] = []
    entries = [entry for line in dict.fromkeys(lines) if (entry := _try(parse_entry, line, notes)) is not None]
    proven = (_try(check_inception, e, notes) for e in entries if e.statement.predicate == "inception")
    inceptions = {inception.id: inception for inception in proven if inception is not None}
    chains = RotationChains(entries)
    publications, failed, orphans = [], 0, []
    for entry in entries:
        statement = entry.statement
        if statement.predicate != "published" or artifact not in {s.digest for s in statement.subjects}:
            continue
        publisher = inceptions.get(statement.by.id) if statement.by else None
        if publisher is None:
            if statement.by is not None:
                orphans.append(statement.by.id)
            continue
        chain = chains.follow(KeyState.of_inception(publisher))
        published = _try(lambda e, who=publisher, keys=chain: check_published(e, who, keys), entry, notes)
        if published is None:
            failed += 1
        else:
            publications.append(Publication(entry, published, publisher, chain))
    return Readings(tuple(entries), inceptions, chains, tuple(publications), failed, tuple(orphans), tuple(notes))


def proven_advisories(readings: Readings, artifact: Digest, nodes: Iterable[NodeRecord] = ()) -> tuple[Advisory, ...]:
    """Advisories about `artifact` that an identity among the claims, or one of `nodes`, really signed."""
    return tuple(advisory for _, advisory in weigh_advisories(readings, artifact, nodes)[0])


def weigh_advisories(
    readings: Readings, artifact: Digest, nodes: Iterable[NodeRecord]
) -> tuple[tuple[tuple[Entry, Advisory], ...], tuple[Remark, ...]]:
    """The proven advisories about `artifact`, and notes on the others: no warning is passed over in silence."""
    online = {record.node.id: record for record in nodes}
    found: list[tuple[Entry, Advisory]] = []
    notes: list[Remark] = []

    def prove(entry: Entry) -> Advisory:
        advisory = parse_advisory(entry.statement)
        issuer, node = readings.chain(advisory.by.id), online.get(advisory.by.id)
        if advisory.by.kind == "identity" and issuer is not None and issuer.signed(entry.envelope):
            return advisory
        if node is not None and signed_by_node(entry, node):
            return advisory
        raise Untrusted("advisory refused", why=f"not proven to be {short(advisory.by.id)}'s", code="SIGNATURE")

    for entry in _about(readings, artifact, "advisory"):
        if (advisory := _try(prove, entry, notes)) is not None:
            found.append((entry, advisory))
    return tuple(found), tuple(notes)


def weigh_checks(
    readings: Readings, artifact: Digest, seats: Iterable[Member]
) -> tuple[tuple[tuple[Entry, Verified], ...], tuple[Remark, ...]]:
    """`verified` statements about `artifact` that an identity among the claims, or one of `seats`, really signed, and
    notes on the others."""
    known = {seat.id: seat.key_state for seat in seats}
    found: list[tuple[Entry, Verified]] = []
    notes: list[Remark] = []

    def prove(entry: Entry) -> Verified:
        verified = Verified.parse(entry.statement)
        seat = known.get(verified.by)
        for chain in (readings.chains.follow(seat) if seat else None, readings.chain(verified.by)):
            if chain is not None and chain.signed(entry.envelope):
                return verified
        raise Untrusted("verified refused", why=f"not proven to be {short(verified.by)}'s", code="SIGNATURE")

    for entry in _about(readings, artifact, VERIFIED):
        if (verified := _try(prove, entry, notes)) is not None:
            found.append((entry, verified))
    return tuple(found), tuple(notes)


def weigh_holds(
    readings: Readings, artifact: Digest, bound: Iterable[BoundNode]
) -> tuple[tuple[tuple[Entry, BoundNode], ...], tuple[Remark, ...]]:
    """Holds of `artifact` that bound nodes signed, each with its node, and notes on forged ones.

    Not judged here: whether it stands in the node's own log, where alone it counts.
    """
    nodes: dict[Author, list[BoundNode]] = {}
    for node in bound:
        nodes.setdefault(node.record.node, []).append(node)
    found: list[tuple[Entry, BoundNode]] = []
    notes: list[Remark] = []

    def prove(entry: Entry) -> list[BoundNode]:
        known = nodes.get(parse_hold(entry.statement).by, [])
        if not all(signed_by_node(entry, node.record) for node in known):
            raise Untrusted("hold refused", why="not signed by the node that it names", code="SIGNATURE")
        return known

    for entry in _about(readings, artifact, "hold"):
        found += [(entry, node) for node in _try(prove, entry, notes) or ()]
    return tuple(found), tuple(notes)


def _about(readings: Readings, artifact: Digest, predicate: str) -> Iterator[Entry]:
    for entry in readings.entries:
        if entry.statement.predicate == predicate and artifact in {s.digest for s in entry.statement.subjects}:
            yield entry


def _try(step: Callable[[object], T] | Callable[..., T], subject: object, notes: list[Remark]) -> T | None:
    try:
        return step(subject)
    except ComityError as error:
        notes.append(_note(subject, error))
        return None


def _note(subject: object, error: ComityError) -> Remark:
    kind = "did not verify" if isinstance(error, Untrusted) else "could not be read"
    name = f"{subject.statement.predicate} {short(subject.digest)}" if isinstance(subject, Entry) else "a claim line"
    evidence = subject.digest if isinstance(subject, Entry) else sha256(subject) if isinstance(subject, bytes) else None
    return Remark(f"{name} {kind} and counts for nothing: {error}", evidence)


@dataclass(frozen=True, slots=True)
class KnownAuthor:
    """Somebody who is proven to have signed: their id, how rows call them, and the member that it is or belongs to."""

    id: Digest
    name: str
    member: Member | None = None


class KnownAuthors:
    """All who can be proven to speak, by what is at hand.

    Args:
        bound: nodes that pinned bodies prove.
        seats: members of pinned bodies, the latest last.
    """

    def __init__(self, readings: Readings, bound: Iterable[BoundNode], seats: Iterable[Member]) -> None:
        self._readings = readings
        self._nodes = {node.record.node.id: node for node in bound}
        self._seats = {seat.id: seat for seat in seats}

    def speaker(self, entry: Entry) -> KnownAuthor | None:
        """Who signed it, as it says itself; None where nothing here proves that."""
        by = entry.statement.by
        if by is None:
            return None
        node = self._nodes.get(by.id)
        if by.kind == "node":
            if node is None or not signed_by_node(entry, node.record):
                return None
            return KnownAuthor(by.id, f"{node.record.name}, of {_seat(node.member)}", node.member)
        seat, inception = self._seats.get(by.id), self._readings.inceptions.get(by.id)
        starts = [seat.key_state] if seat else []
        starts += [KeyState.of_inception(inception)] if inception else []
        if not any(self._readings.chains.follow(start).signed(entry.envelope) for start in starts):
            return None
        if seat is not None:
            return KnownAuthor(by.id, _seat(seat), seat)
        return KnownAuthor(by.id, f"{inception.display if inception else ''} [{short(by.id)}]")


def _seat(member: Member) -> str:
    return f"{member.name} ({member.jurisdiction})"


@dataclass(frozen=True, slots=True)
class Vouch:
    """A statement and who is proven to have made it."""

    entry: Entry
    said: Vouched
    by: KnownAuthor


def weigh_vouches(
    readings: Readings, artifact: Digest, speakers: KnownAuthors
) -> tuple[tuple[Vouch, ...], tuple[Remark, ...]]:
    """The proven ones, and notes on the others."""
    found: list[Vouch] = []
    notes: list[Remark] = []
    for entry in readings.entries:
        if entry.statement.predicate != VOUCHED or artifact not in {s.digest for s in entry.statement.subjects}:
            continue
        try:
            said, speaker = parse_vouched(entry.statement), speakers.speaker(entry)
        except ComityError as error:
            text = f"vouched {short(entry.digest)} could not be read and counts for nothing: {error}"
            notes.append(Remark(text, entry.digest))
            continue
        if speaker is None:
            text = f"vouched {short(entry.digest)} is not proven to be {short(said.by.id)}'s"
            notes.append(Remark(text, entry.digest))
        else:
            found.append(Vouch(entry, said, speaker))
    return tuple(found), tuple(notes)


def members_behind(vouches: tuple[Vouch, ...]) -> Mapping[str, int]:
    """For each statement how many distinct members of pinned federations made it, themselves or by a node."""
    behind = {
        kind: {v.by.member.id for v in vouches if v.said.statement == kind and v.by.member} for kind in STATEMENTS
    }
    return {kind: len(members) for kind, members in behind.items() if members}


@dataclass(frozen=True, slots=True)
class RivalPublication:
    """Another publication under the same name and version."""

    entry: Entry
    published: Published
    publisher: Inception


def rivals(readings: Readings, publication: Publication) -> tuple[RivalPublication, ...]:
    """Those that give the name of `publication` to other bytes, or are another identity's; one for each publisher and
    artifact."""
    found: dict[tuple[str, str], RivalPublication] = {}
    for entry in readings.entries:
        rival = _rival(readings, entry, publication)
        if rival is not None:
            found.setdefault((rival.publisher.id, rival.published.artifact), rival)
    return tuple(found.values())


def _rival(readings: Readings, entry: Entry, publication: Publication) -> RivalPublication | None:
    statement = entry.statement
    if statement.predicate != "published" or statement.by is None or entry.digest == publication.entry.digest:
        return None
    publisher, chain = readings.inceptions.get(statement.by.id), readings.chain(statement.by.id)
    if publisher is None or chain is None:
        return None
    try:
        said = check_published(entry, publisher, chain)
    except ComityError:
        return None
    if str(said.name).lower() != str(publication.published.name).lower():
        return None
    same = (publisher.id, said.artifact) == (publication.publisher.id, publication.published.artifact)
    return None if same else RivalPublication(entry, said, publisher)


News: TypeAlias = Changed | Gone


@dataclass(frozen=True, slots=True)
class ProvenObservation:
    """An observation that is proven to be a bound node's. A node that several members bind speaks for each."""

    entry: Entry
    observed: Observed
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class MirrorEvidence:
    """What is proven about one artifact: who observed it, who observed other bytes under the same commits (`rivals`),
    and what they found when they asked again."""

    seen: tuple[ProvenObservation, ...]
    rivals: tuple[ProvenObservation, ...]
    news: tuple[tuple[Entry, News, tuple[Member, ...]], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The commits, by name."""
        return tuple(dict.fromkeys(item.observed.upstream.name for item in self.seen))

    def corroborating(self, name: str) -> tuple[Member, ...]:
        """The members whose nodes fetched these bytes under this commit themselves, each once."""
        fetched = (item for item in self.seen if item.observed.fetched and item.observed.upstream.name == name)
        return tuple(dict.fromkeys(member for item in fetched for member in item.members))

    @property
    def corroborated(self) -> int:
        """How many members corroborate one another, for the commit for which most do."""
        return max((len(self.corroborating(name)) for name in self.names), default=0)


def weigh(entries: Iterable[Entry], artifact: Digest, bound: Sequence[BoundNode]) -> MirrorEvidence:
    """Raises nothing for what the entries hold: what does not verify is left out."""
    nodes: dict[Author, list[BoundNode]] = {}
    for node in bound:
        nodes.setdefault(node.record.node, []).append(node)
    observations: list[ProvenObservation] = []
    news: list[tuple[Entry, News, tuple[Member, ...]]] = []
    for entry in entries:
        predicate = entry.statement.predicate
        if predicate not in (OBSERVED, CHANGED, GONE):
            continue
        members = _speaking(entry, nodes)
        if not members:
            continue
        if predicate == OBSERVED and (observed := _read(Observed.parse, entry.statement)) is not None:
            observations.append(ProvenObservation(entry, observed, members))
        reader: Callable[[Statement], News] = parse_changed if predicate == CHANGED else parse_gone
        if predicate != OBSERVED and (said := _read(reader, entry.statement)) is not None and said.artifact == artifact:
            news.append((entry, said, members))
    seen = tuple(item for item in observations if item.observed.artifact == artifact)
    names = {item.observed.upstream.name for item in seen}
    rivals = (s for s in observations if s.observed.artifact != artifact and s.observed.upstream.name in names)
    return MirrorEvidence(seen, tuple(rivals), tuple(news))


def _speaking(entry: Entry, nodes: dict[Author, list[BoundNode]]) -> tuple[Member, ...]:
    """The members for whom the entry speaks: those that bind the node whose word it is."""
    known = nodes.get(entry.statement.by, []) if entry.statement.by else []
    return tuple(dict.fromkeys(node.member for node in known if signed_by_node(entry, node.record)))


def _read(reader: Callable[[Statement], T], statement: Statement) -> T | None:
    try:
        return reader(statement)
    except ComityError:
        return None
