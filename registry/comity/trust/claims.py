"""Parses claim lines and verifies the statements about one artifact: who signed each.

A line that does not parse or verify becomes a note and does not count; it never hides another line. Authors are proven
by inceptions and rotations (identities), by pinned bodies (members), and by node records (nodes).

Nobody owns a name: a binding of the owner or of a pinned charter decides between claimants, and other claims are
reported. Without a binding, or if one publisher gave one version to two artifacts, there is a dispute. Members
corroborate one another if their nodes fetched the same bytes under the same commit from the upstream. A node that
observed other bytes contradicts them; which one is wrong is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from typing import Final, TypeAlias, TypeVar

from comity.trust.authorship import AuthorKeys, judge_author
from comity.trust.bound_nodes import BoundNode, bind_nodes, follow_members
from comity.trust.charter.document import Body, Member
from comity.trust.copies import HoldWithdrawn, hold_of
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, Untrusted
from comity.trust.evidence import EvidenceReader, Remark
from comity.trust.frozen import frozen
from comity.trust.identity import Inception, check_inception
from comity.trust.node_records import NodeRecord, signed_by_node
from comity.trust.report import Verified
from comity.trust.rotation import KeyState, RotationChain, RotationChains
from comity.trust.statement import Author, Entry, Statement
from comity.trust.statement_kinds import (
    ADVISORY,
    HOLD_PREDICATES,
    HOLD_WITHDRAWN,
    INCEPTION,
    OBSERVED,
    PUBLISHED,
    UPSTREAM_CHANGED,
    UPSTREAM_GONE,
    VERIFIED,
    VOUCHED,
)
from comity.trust.statements import VOUCH_KINDS, Advisory, Published, Vouched
from comity.trust.turns import in_turns
from comity.trust.upstream import Changed, Gone, Observed, Upstream

S = TypeVar("S", Entry, bytes)
T = TypeVar("T")


def prove_each(
    subjects: Iterable[S], prove: Callable[[S], T | Remark]
) -> tuple[tuple[tuple[S, T], ...], tuple[Remark, ...]]:
    """Each subject with what `prove` returns for it, and a note on each that it refuses: the one that it returns, or
    one about the error that it raises."""
    found: list[tuple[S, T]] = []
    notes: list[Remark] = []
    for subject in subjects:
        try:
            result = prove(subject)
        except ComityError as error:
            result = _note(subject, error)
        if isinstance(result, Remark):
            notes.append(result)
        else:
            found.append((subject, result))
    return tuple(found), tuple(notes)


def _note(subject: Entry | bytes, error: ComityError) -> Remark:
    kind = "did not verify" if isinstance(error, Untrusted) else "could not be read"
    if isinstance(subject, bytes):
        return Remark(f"a claim line {kind} and does not count: {error}", sha256(subject))
    name = f"{subject.statement.predicate} {short(subject.digest)}"
    return Remark(f"{name} {kind} and does not count: {error}", subject.digest)


def unsigned_note(entry: Entry, by: Digest) -> Remark:
    """The note on a statement that is not proven to be signed by the author that it names."""
    return Remark(
        f"{entry.statement.predicate} {short(entry.digest)} is not proven to be signed by {short(by)}", entry.digest
    )


@frozen
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


Binding: TypeAlias = "tuple[tuple[BoundNode, ...], tuple[Remark, ...], tuple[str, ...]]"
"""As `bind_nodes` returns it: nodes, notes, names of nodes of unlisted members."""


@frozen
class ParsedClaims:
    """The parsed claims, and the nodes that are bound by them. `failed` is the number of `published` lines about the
    artifact that did not verify; `unknown_publishers` are the publishers of such lines whose inception is not among the
    claims."""

    entries: tuple[Entry, ...]
    inceptions: dict[Digest, Inception]
    chains: RotationChains
    publications: tuple[Publication, ...]
    failed: int
    unknown_publishers: tuple[Digest, ...]
    notes: tuple[Remark, ...] = field(default=())
    _bindings: dict[tuple[Digest, ...], Binding] = field(default_factory=dict, repr=False, compare=False)
    """Of everybody who reads the same claims."""
    _followed: set[tuple[Digest, ...]] = field(default_factory=set, init=False, repr=False, compare=False)
    """The bodies whose members were followed in `chains`."""

    def binding(self, pins: Sequence[Body]) -> Binding:
        """Bind nodes by their records among the claims, as `bind_nodes` does; once for the same pinned bodies, whatever
        the order of the claims."""
        key = tuple(body.digest for body in pins)
        if key not in self._bindings:
            self._bindings[key] = bind_nodes(pins, sorted(self.entries, key=lambda entry: entry.line), self.chains)
        elif key not in self._followed:
            follow_members(pins, self.chains)
        self._followed.add(key)
        return self._bindings[key]

    def bound(self, pins: Sequence[Body]) -> tuple[BoundNode, ...]:
        """The nodes that pinned bodies prove by their records among the claims."""
        return self.binding(pins)[0]

    def authors(self, pins: Sequence[Body]) -> KnownAuthors:
        """The authors whom the claims and pinned bodies prove."""
        return KnownAuthors(self, self.bound(pins), [member for body in pins for member in body.members])

    def chain(self, identity: Digest) -> RotationChain | None:
        """Return the rotations of `identity` from its inception; None if the inception is not among the claims."""
        inception = self.inceptions.get(identity)
        return self.chains.follow(KeyState.of_inception(inception)) if inception else None

    def keys_of(self, identity: Digest, member: Member | None) -> AuthorKeys:
        """The keys of an identity that the claims prove: from its inception among them, and from what a charter lists
        for it as `member`."""
        chains = [self.chain(identity), self.chains.follow(member.key_state) if member else None]
        return AuthorKeys(self.inceptions.get(identity), tuple(chain for chain in chains if chain is not None))

    def signed(self, entry: Entry, identity: Digest, member: Member | None) -> bool:
        """Whether the entry is proven to be by the identity."""
        return judge_author(entry, self.keys_of(identity, member)).proven

    def publication(self, entry: Entry) -> Publication | None:
        """The publication in a `published` entry; None if the claims do not prove that its publisher signed it."""
        try:
            return _publication(entry, self.inceptions, self.chains)
        except ComityError:
            return None

    def about(self, artifact: Digest, *predicates: str) -> list[Entry]:
        """The statements about `artifact` with one of these predicates, by predicate."""
        return [entry for predicate in predicates for entry in self.entries if _is_about(entry, artifact, predicate)]


def read_claims(lines: Iterable[bytes], artifact: Digest, reader: EvidenceReader | None = None) -> ParsedClaims:
    """Parse each line once, verify inceptions and rotations, then verify the publications of `artifact`.

    The order of the lines is that of the entries and publications, and makes no other difference.

    Args:
        reader: that of the session, which reads the same lines once; default: a new one.
    """
    reader, given = reader or EvidenceReader(), tuple(lines)
    distinct = frozenset(given)
    read = reader.last(distinct, artifact, partial(_read_claims, distinct, artifact, reader))
    order = {line: place for place, line in enumerate(dict.fromkeys(given))}
    return replace(
        read,
        entries=tuple(sorted(read.entries, key=lambda entry: order[entry.line])),
        publications=tuple(sorted(read.publications, key=lambda each: order[each.entry.line])),
        chains=read.chains.copy(),
    )


def _read_claims(lines: frozenset[bytes], artifact: Digest, reader: EvidenceReader) -> ParsedClaims:
    read, unread = prove_each(sorted(lines), reader.entry)
    entries = tuple(entry for _, entry in read)
    starts, forged = prove_each((e for e in entries if e.statement.predicate == INCEPTION), check_inception)
    inceptions = {inception.id: inception for _, inception in starts}
    chains = RotationChains(entries)
    claimed = [
        (entry, by.id) for entry in entries if _is_about(entry, artifact, PUBLISHED) and (by := entry.statement.by)
    ]
    found, refused = prove_each((entry for entry, _ in claimed), lambda e: _publication(e, inceptions, chains))
    return ParsedClaims(
        entries,
        inceptions,
        chains,
        publications=tuple(publication for _, publication in found if publication is not None),
        failed=len(refused),
        unknown_publishers=tuple(by for _, by in claimed if by not in inceptions),
        notes=(*unread, *forged, *refused),
    )


def _is_about(entry: Entry, artifact: Digest, predicate: str) -> bool:
    statement = entry.statement
    return statement.predicate == predicate and artifact in {subject.digest for subject in statement.subjects}


def _publication(entry: Entry, inceptions: Mapping[Digest, Inception], chains: RotationChains) -> Publication | None:
    """The publication; None if the inception of its publisher is unknown. Raises Malformed, Untrusted."""
    publisher = inceptions.get(entry.statement.by.id) if entry.statement.by else None
    if publisher is None:
        return None
    chain = chains.follow(KeyState.of_inception(publisher))
    judged = judge_author(entry, AuthorKeys(publisher, (chain,)))
    if judged.error is not None:
        raise judged.error
    return Publication(entry, Published.parse(entry.statement), publisher, chain)


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
    seats = {member.id: member for member in members}

    def prove(entry: Entry) -> Advisory:
        advisory = Advisory.parse(entry.statement)
        by, node = advisory.by, online.get(advisory.by.id)
        if by.kind == "identity" and claims.signed(entry, by.id, seats.get(by.id)):
            return advisory
        if node is not None and signed_by_node(entry, node):
            return advisory
        raise _unproven("advisory", by.id)

    return prove_each(claims.about(artifact, ADVISORY), prove)


def verify_checks(
    claims: ParsedClaims, artifact: Digest, members: Iterable[Member]
) -> tuple[tuple[tuple[Entry, Verified], ...], tuple[Remark, ...]]:
    """The `verified` statements about `artifact` that an identity among the claims, or one of `members`, is proven to
    have signed, and notes on the others."""
    seats = {member.id: member for member in members}

    def prove(entry: Entry) -> Verified:
        verified = Verified.parse(entry.statement)
        if not claims.signed(entry, verified.by, seats.get(verified.by)):
            raise _unproven("verified", verified.by)
        return verified

    return prove_each(claims.about(artifact, VERIFIED), prove)


def _unproven(predicate: str, by: Digest) -> Untrusted:
    return Untrusted(f"{predicate} refused", why=f"not proven to be signed by {short(by)}", code="SIGNATURE")


def verify_holds(
    claims: ParsedClaims, artifact: Digest, bound: Iterable[BoundNode]
) -> tuple[tuple[tuple[Entry, BoundNode], ...], tuple[Remark, ...]]:
    """`hold` and `holds` statements about `artifact` that bound nodes signed, each with its node, and notes on forged
    ones.

    A hold counts only in the node's own log; the caller checks that.
    """
    nodes = _nodes_by_author(bound)

    def prove(entry: Entry) -> list[BoundNode]:
        held = hold_of(entry.statement, artifact)
        known = nodes.get(held.by, []) if held is not None else []
        if not all(signed_by_node(entry, node.record) for node in known):
            raise Untrusted("hold refused", why="not signed by the node that it names", code="SIGNATURE")
        return known

    found, notes = prove_each(claims.about(artifact, *HOLD_PREDICATES), prove)
    return tuple((entry, node) for entry, known in found for node in known), notes


def verify_hold_withdrawals(
    claims: ParsedClaims, artifact: Digest, bound: Iterable[BoundNode]
) -> tuple[tuple[tuple[Entry, BoundNode], ...], tuple[Remark, ...]]:
    """As `verify_holds`, for `hold-withdrawn` statements."""
    nodes = _nodes_by_author(bound)

    def prove(entry: Entry) -> list[BoundNode]:
        known = nodes.get(HoldWithdrawn.parse(entry.statement).by, [])
        if not all(signed_by_node(entry, node.record) for node in known):
            raise Untrusted("withdrawal refused", why="not signed by the node that it names", code="SIGNATURE")
        return known

    found, notes = prove_each(claims.about(artifact, HOLD_WITHDRAWN), prove)
    return tuple((entry, node) for entry, known in found for node in known), notes


def _nodes_by_author(bound: Iterable[BoundNode]) -> dict[Author, list[BoundNode]]:
    nodes: dict[Author, list[BoundNode]] = {}
    for node in bound:
        nodes.setdefault(node.record.node, []).append(node)
    return nodes


@frozen
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
        if by is None or not judge_author(entry, self.keys_of(by)).proven:
            return None
        if by.kind == "node":
            node = self._nodes[by.id]
            return KnownAuthor(by.id, f"{node.record.name}, of {member_label(node.member)}", node.member)
        member, inception = self._members.get(by.id), self._claims.inceptions.get(by.id)
        if member is not None:
            return KnownAuthor(by.id, member_label(member), member)
        return KnownAuthor(by.id, f"{inception.display if inception else ''} [{short(by.id)}]")

    def keys_of(self, by: Author) -> AuthorKeys:
        """The keys of an author that the evidence proves."""
        if by.kind == "node":
            node = self._nodes.get(by.id)
            return AuthorKeys(node=node.record.online if node else None)
        return self._claims.keys_of(by.id, self._members.get(by.id))


def in_turn(said: Iterable[tuple[KnownAuthor, T]]) -> list[T]:
    """What several parties say, in an order in which no party takes another's place: members before others, and of both
    one statement of each party in turn. A member, its nodes and its successor are one party.

    Args:
        said: each statement with its author; those of one party stay in this order.
    """
    groups: tuple[list[tuple[KnownAuthor, T]], list[tuple[KnownAuthor, T]]] = ([], [])
    for each in said:
        groups[each[0].member is None].append(each)
    return [item for group in groups for _, item in in_turns(group, lambda each: _party(each[0]))]


def _party(author: KnownAuthor) -> Digest:
    return author.member.lineage if author.member else author.id


def member_label(member: Member) -> str:
    return f"{member.name} ({member.jurisdiction})"


@frozen
class Vouch:
    """A `vouched` statement and its proven author."""

    entry: Entry
    vouched: Vouched
    by: KnownAuthor


def verify_vouches(
    claims: ParsedClaims, artifact: Digest, authors: KnownAuthors
) -> tuple[tuple[Vouch, ...], tuple[Remark, ...]]:
    """The proven `vouched` statements about `artifact`, members and others in turn, and notes on those not proven."""

    def prove(entry: Entry) -> Vouch | Remark:
        vouched, author = Vouched.parse(entry.statement), authors.author_of(entry)
        return Vouch(entry, vouched, author) if author else unsigned_note(entry, vouched.by.id)

    found, notes = prove_each(claims.about(artifact, VOUCHED), prove)
    return tuple(in_turn((vouch.by, vouch) for _, vouch in found)), notes


def member_counts(vouches: tuple[Vouch, ...]) -> Mapping[str, int]:
    """For each kind of statement, the number of distinct active members of pinned federations that made it, also by a
    node. A member and its successors count once."""
    behind = {
        kind: {v.by.member.lineage for v in vouches if v.vouched.kind == kind and v.by.member and v.by.member.active}
        for kind in VOUCH_KINDS
    }
    return {kind: len(members) for kind, members in behind.items() if members}


@frozen
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
    if entry.statement.predicate != PUBLISHED or entry.digest == publication.entry.digest:
        return None
    rival = claims.publication(entry)
    if rival is None or str(rival.published.name).lower() != str(publication.published.name).lower():
        return None
    if (rival.publisher.id, rival.published.artifact) == (publication.publisher.id, publication.published.artifact):
        return None
    return RivalPublication(entry, rival.published, rival.publisher)


UpstreamChange: TypeAlias = Changed | Gone


@frozen
class ProvenObservation:
    """An observation that a bound node signed. A node that several members bind counts for each of them."""

    entry: Entry
    observed: Observed
    members: tuple[Member, ...]


@frozen
class MirrorEvidence:
    """Proven observations of one artifact (`seen`), of other bytes under the same commits (`rivals`), and later changes
    at the upstream (`changes`)."""

    seen: tuple[ProvenObservation, ...]
    rivals: tuple[ProvenObservation, ...]
    changes: tuple[tuple[Entry, UpstreamChange, tuple[Member, ...]], ...]

    @property
    def upstream(self) -> Upstream | None:
        """Where the artifact was observed, preferably by a node that fetched it; None if it was not."""
        return self.upstream_of(None)

    def upstream_of(self, name: str | None) -> Upstream | None:
        """As `upstream`, of those that observed it under this commit, `hf:org/name@commit`; None: under any."""
        ordered = sorted(self.seen, key=lambda seen: not seen.observed.fetched)
        found = (seen.observed.upstream for seen in ordered)
        return next((upstream for upstream in found if name in (None, upstream.name)), None)

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


_MIRROR_READERS: Final[Mapping[str, Callable[[Statement], Observed | UpstreamChange]]] = {
    OBSERVED: Observed.parse,
    UPSTREAM_CHANGED: Changed.parse,
    UPSTREAM_GONE: Gone.parse,
}


def collect_mirror_evidence(entries: Iterable[Entry], artifact: Digest, bound: Sequence[BoundNode]) -> MirrorEvidence:
    """Collect the mirror statements about `artifact` that bound nodes signed. Others are ignored; nothing is raised."""
    nodes = _nodes_by_author(bound)
    observations: list[ProvenObservation] = []
    changes: list[tuple[Entry, UpstreamChange, tuple[Member, ...]]] = []
    for entry in entries:
        said = _mirror_statement(entry)
        if said is None:
            continue
        members = _signing_members(entry, nodes)
        if not members:
            continue
        if isinstance(said, Observed):
            observations.append(ProvenObservation(entry, said, members))
        elif said.artifact == artifact:
            changes.append((entry, said, members))
    seen = tuple(item for item in observations if item.observed.artifact == artifact)
    names = {item.observed.upstream.name for item in seen}
    rivals = (s for s in observations if s.observed.artifact != artifact and s.observed.upstream.name in names)
    return MirrorEvidence(seen, tuple(rivals), tuple(changes))


def _signing_members(entry: Entry, nodes: dict[Author, list[BoundNode]]) -> tuple[Member, ...]:
    """The members that bind the node that signed the entry."""
    known = nodes.get(entry.statement.by, []) if entry.statement.by else []
    return tuple(dict.fromkeys(node.member for node in known if signed_by_node(entry, node.record)))


def _mirror_statement(entry: Entry) -> Observed | UpstreamChange | None:
    """None for other statements, and for one that cannot be read."""
    reader = _MIRROR_READERS.get(entry.statement.predicate)
    if reader is None:
        return None
    try:
        return reader(entry.statement)
    except ComityError:
        return None
