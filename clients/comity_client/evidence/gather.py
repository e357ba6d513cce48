"""Gather evidence about an artifact or a name from all reachable nodes and from an existing evidence pack.

The answer of a node is its own selection, so only lines that `prove` verifies are used. For each log that has a line,
the proof with most cosigners is kept, or of a hold the first valid one; its checkpoint is reconciled with the stored
checkpoints of that log, and a contradiction is reported and its proof dropped. The answer about a name begins with the
oldest claim of each claimant; a member counts once, and not at all if its nodes disagree. Also gathered: statements
about the keys of the publisher, rival claims, statements about ancestors (interpreted by `comity.trust.lineage`), and
consistency proofs to the cuts of rotations, even if this user pins none, because a later verifier of the pack may.
`verdict_error` maps a verdict to an error with the exit statuses of docs/verifying.md.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, TypeVar

from comity.trust.bound_nodes import BoundNode, bind_nodes
from comity.trust.charter.document import Body
from comity.trust.claims import KnownAuthors, ParsedClaims, Publication, verify_vouches
from comity.trust.copies import HOLD_PREDICATES
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, PolicyNotMet, Unavailable, Untrusted
from comity.trust.evaluation import announcements_of, evaluations_of
from comity.trust.evidence import (
    MAX_CLAIMS,
    MAX_READ,
    OK,
    PARTIAL,
    POLICY_NOT_MET,
    VERIFICATION_FAILED,
    EvidenceReader,
    InclusionEvidence,
    Verdict,
)
from comity.trust.key_validity import prove_entry
from comity.trust.policy import Policy
from comity.trust.resolution import MIRROR, PublisherClaim, claimant_label
from comity.trust.rotation import LogCut
from comity.trust.rows.approvals import APPROVALS_ROW
from comity.trust.statement import Entry
from comity.trust.statements import DERIVED, Published, check_published, parse_derived
from comity.trust.tlog.note import Checkpoint
from comity.trust.tlog.proof import GrowthProof
from comity.trust.upstream import OBSERVED, Observed
from comity.wire.log import LocatedProof
from comity.wire.messages import LocatedEntry
from comity_client.events import MisbehaviourFound, Note, OnEvent
from comity_client.evidence.prove import ProvenStatements, choose, prove_lines
from comity_client.seen import (
    CONTRADICTION_CODES,
    ConsistencyProofs,
    SeenLogs,
    consistency_proofs,
    reconcile_checkpoint,
)
from comity_client.session import Answers, RemoteNode, Session

_KEYS = ("inception", "rotated")


@dataclass(frozen=True, slots=True)
class GatheredEvidence:
    """Lines about one artifact, node records of the pinned federations first, and their readings.

    `places` are the claimed positions of a line as (origin, index); not proven. `notes` are about dropped lines.
    """

    artifact: Digest
    lines: tuple[bytes, ...]
    places: Mapping[bytes, frozenset[tuple[str, int]]]
    readings: ParsedClaims
    notes: tuple[str, ...] = field(default=())


async def gather(session: Session, artifact: Digest, policy: Policy, prefer: Sequence[Digest] = ()) -> GatheredEvidence:
    """Ask every node about an artifact. Raises NotFound if all know nothing about it, else Unavailable.

    Args:
        prefer: identities whose statements are kept first if there are too many.
    """
    answers = await session.ask(lambda node: node.claims(artifact))
    if not answers.found:
        raise answers.failure(f"no statement about sha256:{short(artifact)}")
    located = [item for found in answers.found.values() for item in found]
    lines, notes = select_lines(session, lines_by_log(answers.found), policy, prefer, {artifact})
    return GatheredEvidence(artifact, lines, places_of(located), session.read_claims(lines, artifact), notes)


def select_lines(
    session: Session,
    sources: Mapping[str, Iterable[bytes]],
    policy: Policy,
    prefer: Sequence[Digest] = (),
    about: frozenset[Digest] | set[Digest] | None = None,
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """Return the proven lines, as many as a verifier reads, and notes on the others.

    Args:
        about: the subjects of wanted statements; None for all.
    """
    proven = prove_said(
        session,
        sources,
        policy,
        lambda entry: about is None or any(subject.digest in about for subject in entry.statement.subjects),
    )
    lines, left = choose(proven, session.records(), [*prefer, *trusted(policy)])
    beyond = (f"{left} proven statements exceed the limit of a verifier and are left out",) if left else ()
    return lines, (*proven.notes(), *beyond)


def prove_said(
    session: Session,
    sources: Mapping[str, Iterable[bytes]],
    policy: Policy,
    wanted: Callable[[Entry], bool] = lambda entry: True,
) -> ProvenStatements:
    """Verify lines by sender as `prove_lines` does, with the bodies, node records and reader of the session."""
    return prove_lines(sources, bodies_of(session, policy), session.records(), wanted, session.reader)


def bodies_of(session: Session, policy: Policy) -> tuple[Body, ...]:
    """Return the bodies that the policy pins and those of the session, because another policy may apply to the result
    later."""
    bodies = (*policy.pins, *(federation.body for federation in session.pins))
    return tuple({body.digest: body for body in bodies}.values())


def trusted(policy: Policy) -> tuple[Digest, ...]:
    """Return the officers and publishers that the owner names, and the publishers that a pinned charter names."""
    named = [publisher for body in policy.pins for publisher in body.namespaces.values()]
    officers = policy.approvals.officers.values()
    return tuple(dict.fromkeys((*officers, *policy.publishers, *policy.bindings.values(), *named)))


def lines_by_log(found: Mapping[RemoteNode, Iterable[LocatedEntry]]) -> dict[str, list[bytes]]:
    """Return the lines of each node, by the verifier key of its log, which is unique to the node."""
    lines: dict[str, list[bytes]] = {}
    for node, items in found.items():
        lines.setdefault(str(node.record.log), []).extend(item.line for item in items)
    return lines


def places_of(located: Iterable[LocatedEntry]) -> dict[bytes, frozenset[tuple[str, int]]]:
    places: dict[bytes, set[tuple[str, int]]] = {}
    for item in located:
        places.setdefault(item.line, set()).add((item.origin, item.index))
    return {line: frozenset(found) for line, found in places.items()}


async def publisher_records(session: Session, claims: Iterable[Entry]) -> Mapping[Digest, ParsedClaims]:
    """Fetch the inceptions and rotations of the publishers of `claims`, if any node has them."""
    artifacts = {who: entry.statement.subject for entry in claims if (who := author_of(entry)) is not None}
    found = await asyncio.gather(*(_records(session, *item) for item in artifacts.items()))
    return dict(zip(artifacts, found, strict=True))


def prove_publication(entry: Entry, records: Mapping[Digest, ParsedClaims]) -> Publication | None:
    """Return the publication if one of `records` proves that its publisher signed it."""
    who = author_of(entry) or Digest("")
    return proven_publication(entry, records[who]) if who in records else None


def proven_publication(entry: Entry, readings: ParsedClaims) -> Publication | None:
    """Return the publication if `readings` prove that its publisher signed it."""
    who = author_of(entry) or Digest("")
    publisher, chain = readings.inceptions.get(who), readings.chain(who)
    if publisher is None or chain is None:
        return None
    try:
        return Publication(entry, check_published(entry, publisher, chain), publisher, chain)
    except ComityError:
        return None


def author_of(entry: Entry) -> Digest | None:
    return entry.statement.by.id if entry.statement.by else None


async def _records(session: Session, identity: Digest, artifact: Digest) -> ParsedClaims:
    """Return statements about the keys of `identity`, from the claims about one of its artifacts."""
    answers = await session.ask(lambda node: node.claims(artifact))
    claims = (session.reader.readable(item.line) for found in answers.found.values() for item in found)
    own = (entry for entry in claims if entry and author_of(entry) == identity and entry.statement.predicate in _KEYS)
    return session.read_claims((entry.line for entry in own), artifact)


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


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Claims:
    """Proven claims to a name. `places`: claimed positions of lines; `sightings`: by member, the claimant that its
    nodes saw first, None if they know none; `mirrored`: a node of a member mirrored a repository of this name."""

    repository: str
    publications: tuple[Publication, ...]
    proven: ProvenStatements
    places: Mapping[bytes, frozenset[tuple[str, int]]]
    sightings: Mapping[Digest, PublisherClaim | None]
    mirrored: bool

    @property
    def claimants(self) -> tuple[PublisherClaim, ...]:
        found = dict.fromkeys(PublisherClaim(publication.publisher.id) for publication in self.publications)
        return (*found, MIRROR) if self.mirrored else tuple(found)

    @property
    def labels(self) -> dict[Digest, str]:
        """Display names of the publishers."""
        return {p.publisher.id: p.publisher.display for p in self.publications}

    def rivals(self, owner: PublisherClaim) -> tuple[str, ...]:
        """Return the other claimants, as text."""
        return tuple(claimant_label(each, self.repository, self.labels) for each in self.claimants if each != owner)


async def claims_of(
    session: Session, repository: str, version: str | None, policy: Policy, publisher: Digest | None = None
) -> Claims:
    """Ask every node for the claims to a name; if `publisher` is given, only for its claims, so that the answer does
    not depend on the number of other claimants. Raises NotFound, Unavailable."""
    answers: Answers[tuple[LocatedEntry, ...]] = await session.ask(
        lambda node: node.resolve(repository, version, publisher)
    )
    if not answers.found:
        asked = f"{repository}@{version}" if version else repository
        raise answers.failure(f"{asked} is not known", otherwise=f"comity search {repository.rpartition('/')[2]}")
    proven = prove_said(session, lines_by_log(answers.found), policy)
    publications = [
        proven_publication(e, proven.readings) for e in proven.entries if e.statement.predicate == "published"
    ]
    own = tuple(p for p in publications if p is not None and _same_name(p.published.name.repository, repository))
    located = [item for found in answers.found.values() for item in found]
    return Claims(
        repository,
        own,
        proven,
        places_of(located),
        sightings(answers, proven, policy, lambda entry: _claimant(entry, repository)),
        any(_claimant(entry, repository) == MIRROR for entry in proven.entries),
    )


def sightings(
    answers: Answers[tuple[LocatedEntry, ...]],
    proven: ProvenStatements,
    policy: Policy,
    seen: Callable[[Entry], T | None],
) -> dict[Digest, T | None]:
    """Return what the nodes of each active member of a pinned body saw first; None for a member that answers but knows
    nothing or contradicts itself.

    Args:
        seen: returns what an entry shows, None if it is not relevant.
    """
    seats = {member.id: member.lineage for body in policy.pins for member in body.active}
    values: dict[Digest, set[T | None]] = {}
    for node in answers.found:
        entries = proven.sources.get(str(node.record.log), ())
        first = next((found for entry in entries if (found := seen(entry)) is not None), None)
        if node.member.id in seats:
            values.setdefault(seats[node.member.id], set()).add(first)
    for node, error in answers.failed.items():
        if isinstance(error, NotFound) and node.member.id in seats:
            values.setdefault(seats[node.member.id], set())
    return {member: _single(found) for member, found in values.items()}


def _single(found: set[T | None]) -> T | None:
    known = [item for item in found if item is not None]
    return known[0] if len(known) == 1 else None


def _claimant(entry: Entry, repository: str) -> PublisherClaim | None:
    """Return the claimant of the repository according to this entry, whose author is proven."""
    statement = entry.statement
    if statement.predicate == "published" and statement.by is not None:
        name = statement.subjects[0].name.partition("@")[0]
        return PublisherClaim(statement.by.id) if _same_name(name, repository) else None
    if statement.predicate == OBSERVED:
        try:
            upstream = Observed.parse(statement).upstream
        except ComityError:
            return None
        return MIRROR if _same_name(upstream.repository, repository) else None
    return None


def _same_name(one: str, other: str) -> bool:
    """Compare names without case, as Hubs do."""
    return one.lower() == other.lower()


MAX_RIVALS: Final = 32
"""Maximum number of rival claimants whose claims are included for display."""
MAX_DOCUMENTS: Final = 16
MAX_ANNOUNCEMENTS: Final = 4
"""Announcements of one evaluation whose proofs are fetched."""
MAX_DOCUMENT: Final = 4 * 1024 * 1024
"""Maximum bytes of a document that comes with a vouch."""


async def related_lines(
    session: Session, publication: Publication | None, policy: Policy
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """Return lines about the keys of the publisher, and rival publications of the same name with the records of their
    signers; and notes on dropped lines. Missing answers are not raised."""
    if publication is None:
        return (), ()
    keys, (rivals, notes) = await asyncio.gather(
        _key_lines(session, publication.publisher.id, policy), _rival_lines(session, publication, policy)
    )
    return (*keys, *rivals), notes


async def vouched_documents(
    session: Session, readings: ParsedClaims, artifact: Digest, policy: Policy, on_event: OnEvent
) -> Mapping[Digest, bytes]:
    """Fetch small documents of proven vouches for the artifact, if any node has them."""
    bound, _, _ = bind_nodes(policy.pins, readings.entries, readings.chains)
    seats = [seat for body in policy.pins for seat in body.members]
    vouches, _ = verify_vouches(readings, artifact, KnownAuthors(readings, bound, seats))
    named = dict.fromkeys(item for vouch in vouches if (item := vouch.vouched.document) and item.size <= MAX_DOCUMENT)
    found: dict[Digest, bytes] = {}
    for item in list(named)[:MAX_DOCUMENTS]:
        try:
            found[item.digest] = await fetch_object(session, item.digest)
        except Unavailable as error:
            on_event(Note(str(error)))
    return found


async def _key_lines(session: Session, identity: Digest, policy: Policy) -> tuple[bytes, ...]:
    answers = await session.ask(lambda node: node.claims(identity))
    proven = prove_said(session, lines_by_log(answers.found), policy)
    return tuple(entry.line for entry in proven.entries if author_of(entry) == identity)


async def _rival_lines(
    session: Session, publication: Publication, policy: Policy
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """Return the oldest claim of each other claimant, up to a limit; resolution does not depend on them."""
    name = publication.published.name
    try:
        claims = await claims_of(session, name.repository, name.version, policy)
    except ComityError:
        return (), ()
    others = {p.publisher.id: p for p in reversed(claims.publications) if p.entry.digest != publication.entry.digest}
    shown = list(reversed(others.items()))
    lines = [e.line for who, p in shown[:MAX_RIVALS] for e in (*claims.proven.keys_of(who), p.entry)]
    more = len(shown) - MAX_RIVALS
    return tuple(lines), (f"{more} more claimants of {name} are left out",) if more > 0 else ()


MAX_ARTIFACTS: Final = 64
"""Maximum number of ancestors to ask about, nearest first."""
MAX_LINES: Final = 32
"""Maximum number of lines about one ancestor."""
AT_ONCE: Final = 8
MAX_BYTES: Final = 16 * 1024 * 1024
"""Maximum bytes of lines about all ancestors."""
_WANTED: Final = ("published", DERIVED, "inception", "rotated")


async def gather_ancestors(
    session: Session, artifact: Digest, publication: Publication | None, lines: Iterable[bytes], policy: Policy
) -> tuple[bytes, ...]:
    """Return lines about the ancestors of `artifact`, if any node has them.

    Args:
        publication: the publication of `artifact` to use, in addition to the derivations in `lines`.
    """
    read = map(session.reader.readable, lines)
    own = [entry for entry in read if entry is not None and entry.statement.subject == artifact]
    derived = [entry for entry in own if entry.statement.predicate == DERIVED]
    waiting = list(_parents_of([*([publication.entry] if publication else []), *derived]))
    seen = {artifact}
    found: list[bytes] = []
    while len(seen) <= MAX_ARTIFACTS and sum(map(len, found)) <= MAX_BYTES:
        unseen = [parent for parent in dict.fromkeys(waiting) if parent not in seen]
        batch, waiting = unseen[:AT_ONCE], unseen[AT_ONCE:]
        if not batch:
            break
        seen.update(batch)
        asked = await asyncio.gather(*(_ancestor_entries(session, parent, policy) for parent in batch))
        found += [entry.line for entries in asked for entry in entries]
        waiting += _parents_of(entry for entries in asked for entry in entries)
    return tuple(found)


def with_ancestor_lines(own: Sequence[bytes], above: Iterable[bytes]) -> tuple[bytes, ...]:
    """Return `own` lines about an artifact, then lines about its ancestors up to the limits of a verifier, so that the
    publisher of an ancestor cannot displace lines about the artifact itself."""
    there = set(own)
    more = [line for line in dict.fromkeys(above) if line not in there][: MAX_CLAIMS - len(own)]
    sizes = itertools.accumulate((len(line) + 1 for line in more), initial=sum(len(line) + 1 for line in own))
    return (
        *own,
        *(line for line, size in zip(more, itertools.islice(sizes, 1, None), strict=True) if size <= MAX_READ),
    )


async def _ancestor_entries(session: Session, artifact: Digest, policy: Policy) -> list[Entry]:
    """Return the proven, wanted entries of all nodes, up to the limit, the most decisive first."""
    answers = await session.ask(lambda node: node.claims(artifact))
    lines, _ = select_lines(session, lines_by_log(answers.found), policy, about={artifact})
    entries = [entry for entry in map(session.reader.entry, lines) if entry.statement.predicate in _WANTED]
    return entries[:MAX_LINES]


def _parents_of(entries: Iterable[Entry]) -> Iterator[Digest]:
    """Yield the parents that statements name by digest."""
    for entry in entries:
        try:
            if entry.statement.predicate == "published":
                yield from (parent.digest for parent in Published.parse(entry.statement).lineage if parent.digest)
            elif entry.statement.predicate == DERIVED:
                yield parse_derived(entry.statement).parent
        except Malformed:
            continue


MAX_CUTS: Final = 32
"""Maximum number of cuts checked for one publication."""


async def collect_growths(
    session: Session, publications: Iterable[Publication], kept: Iterable[KeptProof]
) -> Mapping[Digest, bytes]:
    """Fetch consistency proofs between the kept proofs and the cuts of rotations that retired the keys of
    `publications`, if any node has them. Invalid answers are dropped, not raised."""
    found: dict[Digest, bytes] = {}
    here, proofs = tuple(kept), consistency_proofs(session)
    for publication in publications:
        for cut, checkpoint in _missing_growths(publication, here, session.reader):
            growth = await _growth(cut, checkpoint, proofs)
            if growth is not None:
                found[sha256(growth.encode())] = growth.encode()
    return found


def _missing_growths(
    publication: Publication, kept: Iterable[KeptProof], reader: EvidenceReader
) -> Iterator[tuple[LogCut, Checkpoint]]:
    """Yield cuts that could prove the publication older than the retirement of its keys, each with a checkpoint of
    another size."""
    chain = publication.chain
    signers = set(chain.signers(publication.entry.envelope))
    cuts = [cut for step in chain.steps if step.before in signers for cut in step.rotation.cut][:MAX_CUTS]
    for proven in (reader.proof(item.proof.data) for item in kept if item.line == publication.entry.line):
        checkpoint = Checkpoint.parse(proven.checkpoint.text)
        for cut in cuts:
            if cut.origin == checkpoint.origin and proven.index < cut.size != checkpoint.size:
                yield cut, checkpoint


async def _growth(cut: LogCut, checkpoint: Checkpoint, proofs: ConsistencyProofs) -> GrowthProof | None:
    old, new = sorted([(cut.size, cut.root), (checkpoint.size, checkpoint.root)])
    async with aclosing(proofs(cut.origin, old[0], new[0])) as offered:
        async for hashes in offered:
            try:
                growth = GrowthProof(cut.origin, old[0], new[0], hashes)
                growth.verify(old[1], new[1])
            except (Malformed, Untrusted):
                continue
            return growth
    return None


def verdict_error(verdict: Verdict, title: str) -> ComityError | None:
    """Return the error that prevents placing the files; None if they may be placed."""
    if verdict.exit_status in (OK, PARTIAL):
        return None
    failing = [row for row in verdict.rows if row.name in verdict.required and row.state != "pass"]
    why = "; ".join(f"{row.name}: {row.summary}" for row in failing) or verdict.row("policy").summary
    if verdict.exit_status == VERIFICATION_FAILED:
        return Untrusted(f"{title} does not verify", why=why, hint="comity status", code="VERIFICATION-FAILED")
    if verdict.exit_status == POLICY_NOT_MET:
        if any(row.name == APPROVALS_ROW for row in failing):
            hint = f"comity approvals ls {title} --policy FILE"
            return PolicyNotMet(f"{title} is not approved", why=why, hint=hint, code="NOT-APPROVED")
        unsafe = any(row.name == "file safety" and row.state == "fail" for row in failing)
        first = "inspect its files" if unsafe else "wait for more cosignatures"
        hint = f"{first}, or name a policy: comity pull {title} --policy FILE"
        return PolicyNotMet(f"{title} is authentic, but the policy is not met", why=why, hint=hint)
    hint = f"try again in a minute: comity pull {title}"
    return Unavailable(f"evidence about {title} is missing", why=why, hint=hint, code="EVIDENCE-MISSING")
