"""What all reachable nodes say about an artifact, put together; and who of them proves to be its publisher.

A node's answer is a selection that it made. Together they are still only claims: lines that prove themselves
(`proving`), or are not kept.


The evidence about an artifact, collected from every reachable node and from a pack that is here already.

For each log that holds a line, the proof with most cosigners is kept. A checkpoint is met with what is remembered of
its log: one that contradicts it is evidence against the log, raised as an alarm, and its proof counts for nothing here.


Who claims a name, by what nodes answer: publications that are proven, and whom each member's nodes saw first.

A node's answer begins with the oldest claim of each claimant, in the order in which it saw them. A member has one
voice, however many nodes it has: where they disagree it has none.


What is said around an artifact: of its publisher's keys, and by others who claim its name. It is evidence like the
rest, and proves itself or counts for nothing.

What nodes say about all that an artifact comes from: publications and derivations of its parents, and of theirs.

Only lines are gathered here, and with them whose keys they are; what they prove is decided by
`comity.trust.lineage`.


Proofs of growth for a pack: that what retired keys signed was logged before they were retired.

Fetched whether or not this user pins a rotation: whoever verifies the pack later may.


From a verdict to an error that says what to do, in the exit statuses of protocol section 10."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, TypeVar

from comity.trust.charter.document import Body
from comity.trust.claims import BoundNode, KnownAuthors, Publication, Readings, bind, read_claims, weigh_vouches
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, PolicyNotMet, Unavailable, Untrusted
from comity.trust.evidence import (
    MAX_CLAIMS,
    MAX_READ,
    OK,
    PARTIAL,
    POLICY_NOT_MET,
    VERIFICATION_FAILED,
    InclusionEvidence,
    Verdict,
)
from comity.trust.key_validity import prove_entry
from comity.trust.policy import Policy
from comity.trust.resolution import MIRROR, PublisherClaim, named
from comity.trust.rotation import LogCut
from comity.trust.statement import Entry
from comity.trust.statements import DERIVED, Published, check_published, parse_derived
from comity.trust.tlog.note import Checkpoint
from comity.trust.tlog.proof import Growth, TlogProof
from comity.trust.upstream import OBSERVED, Observed
from comity.wire.messages import LocatedEntry
from comity_client.events import MisbehaviourFound, Note, OnEvent
from comity_client.evidence.prove import ProvenStatements, choose, prove_lines, readable
from comity_client.seen import ALARMS, ConsistencyProofs, SeenLogs, consistency_proofs, meet
from comity_client.session import Answers, RemoteNode, Session

_KEYS = ("inception", "rotated")


@dataclass(frozen=True, slots=True)
class GatheredEvidence:
    """Lines about one artifact, the node records of the pinned federations first, and what they amount to.

    `places` says where nodes claim that a line stands, as (origin, index); a proof decides. `notes` say what nodes gave
    that was not kept.
    """

    artifact: Digest
    lines: tuple[bytes, ...]
    places: Mapping[bytes, frozenset[tuple[str, int]]]
    readings: Readings
    notes: tuple[str, ...] = field(default=())


async def gather(session: Session, artifact: Digest, policy: Policy, prefer: Sequence[Digest] = ()) -> GatheredEvidence:
    """Ask every node about an artifact. Raises NotFound where all say that they know nothing, else Unavailable.

    Args:
        prefer: identities whose statements are kept before others', where there are too many to keep all.
    """
    answers = await session.ask(lambda node: node.claims(artifact))
    if not answers.found:
        raise answers.failure(f"no statement about sha256:{short(artifact)}")
    located = [item for found in answers.found.values() for item in found]
    lines, notes = kept(session, lines_of(answers.found), policy, prefer, {artifact})
    return GatheredEvidence(artifact, lines, places_of(located), read_claims(lines, artifact), notes)


def kept(
    session: Session,
    sources: Mapping[str, Iterable[bytes]],
    policy: Policy,
    prefer: Sequence[Digest] = (),
    about: frozenset[Digest] | set[Digest] | None = None,
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """The lines that prove themselves, as many as a verifier reads; and notes on the others.

    Args:
        about: what the statements have to be about, where not everything is wanted.
    """
    proven = prove_lines(
        sources,
        bodies_of(session, policy),
        session.records(),
        lambda entry: about is None or any(subject.digest in about for subject in entry.statement.subjects),
    )
    lines, left = choose(proven, session.records(), [*prefer, *trusted(policy)])
    beyond = (f"{left} statements more are proven than a verifier reads; they are left out",) if left else ()
    return lines, (*proven.notes(), *beyond)


def bodies_of(session: Session, policy: Policy) -> tuple[Body, ...]:
    """The bodies that the policy pins, and those of the session: another policy may judge what is kept here."""
    bodies = (*policy.pins, *(federation.body for federation in session.pins))
    return tuple({body.digest: body for body in bodies}.values())


def trusted(policy: Policy) -> tuple[Digest, ...]:
    """Publishers whom the owner or a pinned charter names."""
    named = [publisher for body in policy.pins for publisher in body.namespaces.values()]
    return tuple(dict.fromkeys((*policy.publishers, *policy.bindings.values(), *named)))


def lines_of(found: Mapping[RemoteNode, Iterable[LocatedEntry]]) -> dict[str, list[bytes]]:
    """The lines that nodes gave, by the verifier key of the node's log, which no two nodes share."""
    lines: dict[str, list[bytes]] = {}
    for node, items in found.items():
        lines.setdefault(str(node.record.log), []).extend(item.line for item in items)
    return lines


def places_of(located: Iterable[LocatedEntry]) -> dict[bytes, frozenset[tuple[str, int]]]:
    places: dict[bytes, set[tuple[str, int]]] = {}
    for item in located:
        places.setdefault(item.line, set()).add((item.origin, item.index))
    return {line: frozenset(found) for line, found in places.items()}


async def publisher_records(session: Session, claims: Iterable[Entry]) -> Mapping[Digest, Readings]:
    """Inceptions and rotations of those who published `claims`, as far as anybody gives them."""
    artifacts = {who: entry.statement.subject for entry in claims if (who := speaker(entry)) is not None}
    found = await asyncio.gather(*(_records(session, *item) for item in artifacts.items()))
    return dict(zip(artifacts, found, strict=True))


def prove(entry: Entry, records: Mapping[Digest, Readings]) -> Publication | None:
    """The publication, if one of `records` proves that its publisher signed it."""
    who = speaker(entry) or Digest("")
    return publication_of(entry, records[who]) if who in records else None


def publication_of(entry: Entry, readings: Readings) -> Publication | None:
    """The publication, if `readings` prove that its publisher signed it."""
    who = speaker(entry) or Digest("")
    publisher, chain = readings.inceptions.get(who), readings.chain(who)
    if publisher is None or chain is None:
        return None
    try:
        return Publication(entry, check_published(entry, publisher, chain), publisher, chain)
    except ComityError:
        return None


def speaker(entry: Entry) -> Digest | None:
    return entry.statement.by.id if entry.statement.by else None


async def _records(session: Session, identity: Digest, artifact: Digest) -> Readings:
    """What is said about the keys of `identity`, from the claims about something that it published."""
    answers = await session.ask(lambda node: node.claims(artifact))
    claims = (readable(item.line) for found in answers.found.values() for item in found)
    own = (entry for entry in claims if entry and speaker(entry) == identity and entry.statement.predicate in _KEYS)
    return read_claims((entry.line for entry in own), artifact)


@dataclass(frozen=True, slots=True)
class KeptProof:
    """The best proof of one line in one log, as it goes into a pack."""

    line: bytes
    origin: str
    proof: InclusionEvidence


@dataclass(slots=True)
class Collected:
    """Proofs to judge by; `alarms` says what was found out on the way."""

    proofs: list[KeptProof] = field(default_factory=list)
    alarms: list[Untrusted] = field(default_factory=list)


async def collect_proofs(
    session: Session,
    memory: SeenLogs,
    readings: Readings,
    policy: Policy,
    known: Iterable[InclusionEvidence],
    on_event: OnEvent,
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


async def _offered(session: Session, entry: Entry) -> tuple[InclusionEvidence, ...]:
    answers = await session.ask(lambda node: node.proofs(entry.digest))
    located = (item for found in answers.found.values() for item in found)
    return tuple(dict.fromkeys(InclusionEvidence(entry.digest, item.proof) for item in located))


def _of_nodes(readings: Readings, bound: tuple[BoundNode, ...]) -> list[Entry]:
    nodes = {node.record.node for node in bound}
    return [e for e in readings.entries if e.statement.predicate in ("hold", OBSERVED) and e.statement.by in nodes]


def _best(entry: Entry, candidates: Iterable[InclusionEvidence], bound: tuple[BoundNode, ...]) -> list[KeptProof]:
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
    memory: SeenLogs,
    kept: KeptProof,
    bound: tuple[BoundNode, ...],
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
            on_event(MisbehaviourFound(str(error), error.hint))
            return
        except Unavailable as error:
            on_event(Note(str(error)))
    collected.proofs.append(kept)


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Claims:
    """What is proven about a name. `places` says where nodes claim that lines stand; `sightings` by member whom its
    nodes saw first, None for one that knows nobody; `mirrored` that a member's node mirrored a repository of the name.
    """

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
    def called(self) -> dict[Digest, str]:
        """What publishers call themselves."""
        return {p.publisher.id: p.publisher.display for p in self.publications}

    def rivals(self, owner: PublisherClaim) -> tuple[str, ...]:
        """Who else claims it, for people."""
        return tuple(named(each, self.repository, self.called) for each in self.claimants if each != owner)


async def claims_of(
    session: Session, repository: str, version: str | None, policy: Policy, publisher: Digest | None = None
) -> Claims:
    """Ask every node who claims a name; about `publisher`'s claims alone where one is given: that answer does not
    depend on how many others claim it. Raises NotFound, Unavailable."""
    answers: Answers[tuple[LocatedEntry, ...]] = await session.ask(
        lambda node: node.resolve(repository, version, publisher)
    )
    if not answers.found:
        asked = f"{repository}@{version}" if version else repository
        raise answers.failure(f"{asked} is not known", otherwise=f"comity search {repository.rpartition('/')[2]}")
    proven = prove_lines(lines_of(answers.found), bodies_of(session, policy), session.records())
    publications = [publication_of(e, proven.readings) for e in proven.entries if e.statement.predicate == "published"]
    own = tuple(p for p in publications if p is not None and _same(p.published.name.repository, repository))
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
    """What the nodes of each active member of a pinned body saw first; None for a member that answers, and knows
    nothing or contradicts itself.

    Args:
        seen: what an entry shows, None where it is beside the question.
    """
    seats = {member.id: member.lineage for body in policy.pins for member in body.active}
    said: dict[Digest, set[T | None]] = {}
    for node in answers.found:
        entries = proven.sources.get(str(node.record.log), ())
        first = next((found for entry in entries if (found := seen(entry)) is not None), None)
        if node.member.id in seats:
            said.setdefault(seats[node.member.id], set()).add(first)
    for node, error in answers.failed.items():
        if isinstance(error, NotFound) and node.member.id in seats:
            said.setdefault(seats[node.member.id], set())
    return {member: _one(found) for member, found in said.items()}


def _one(found: set[T | None]) -> T | None:
    known = [item for item in found if item is not None]
    return known[0] if len(known) == 1 else None


def _claimant(entry: Entry, repository: str) -> PublisherClaim | None:
    """Who claims the repository by this entry, which is proven to be its author's."""
    statement = entry.statement
    if statement.predicate == "published" and statement.by is not None:
        name = statement.subjects[0].name.partition("@")[0]
        return PublisherClaim(statement.by.id) if _same(name, repository) else None
    if statement.predicate == OBSERVED:
        try:
            upstream = Observed.parse(statement).upstream
        except ComityError:
            return None
        return MIRROR if _same(upstream.repository, repository) else None
    return None


def _same(one: str, other: str) -> bool:
    """Names that differ by case alone are one: a Hub takes them for one, and so do readers."""
    return one.lower() == other.lower()


MAX_RIVALS: Final = 32
"""Others who claim a name, whose claims are taken along to be shown."""
MAX_DOCUMENTS: Final = 16
MAX_DOCUMENT: Final = 4 * 1024 * 1024
"""Bytes of a document that came with somebody's vouch: a stranger's words are not worth a disk."""


async def lines_around(
    session: Session, publication: Publication | None, policy: Policy
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """Lines about the publisher's keys, and publications of others under the same name with their signers' records; and
    notes on what was not kept. Raises nothing for what nodes do not answer."""
    if publication is None:
        return (), ()
    keys, (rivals, notes) = await asyncio.gather(
        _of_keys(session, publication.publisher.id, policy), _rivals(session, publication, policy)
    )
    return (*keys, *rivals), notes


async def vouched_documents(
    session: Session, readings: Readings, artifact: Digest, policy: Policy, on_event: OnEvent
) -> Mapping[Digest, bytes]:
    """Small documents of those who are proven to have vouched for the artifact, as far as somebody gives them."""
    bound, _, _ = bind(policy.pins, readings.entries, readings.chains)
    seats = [seat for body in policy.pins for seat in body.members]
    vouches, _ = weigh_vouches(readings, artifact, KnownAuthors(readings, bound, seats))
    named = dict.fromkeys(item for vouch in vouches if (item := vouch.said.document) and item.size <= MAX_DOCUMENT)
    found: dict[Digest, bytes] = {}
    for item in list(named)[:MAX_DOCUMENTS]:
        try:
            found[item.digest] = await fetch_object(session, item.digest)
        except Unavailable as error:
            on_event(Note(str(error)))
    return found


async def _of_keys(session: Session, identity: Digest, policy: Policy) -> tuple[bytes, ...]:
    answers = await session.ask(lambda node: node.claims(identity))
    proven = prove_lines(lines_of(answers.found), bodies_of(session, policy), session.records())
    return tuple(entry.line for entry in proven.entries if speaker(entry) == identity)


async def _rivals(
    session: Session, publication: Publication, policy: Policy
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """The oldest claim of each other claimant, a few of them: what decides the name does not depend on them."""
    name = publication.published.name
    try:
        said = await claims_of(session, name.repository, name.version, policy)
    except ComityError:
        return (), ()
    others = {p.publisher.id: p for p in reversed(said.publications) if p.entry.digest != publication.entry.digest}
    shown = list(reversed(others.items()))
    lines = [e.line for who, p in shown[:MAX_RIVALS] for e in (*said.proven.keys_of(who), p.entry)]
    more = len(shown) - MAX_RIVALS
    return tuple(lines), (f"{more} others claim {name} too; they are left out",) if more > 0 else ()


MAX_ARTIFACTS: Final = 64
"""Ancestors that are asked for, nearest first."""
MAX_LINES: Final = 32
"""Lines that are taken along about one of them."""
AT_ONCE: Final = 8
MAX_BYTES: Final = 16 * 1024 * 1024
"""Of lines about all of them."""
_WANTED: Final = ("published", DERIVED, "inception", "rotated")


async def gather_ancestors(
    session: Session, artifact: Digest, publication: Publication | None, lines: Iterable[bytes], policy: Policy
) -> tuple[bytes, ...]:
    """Lines about the ancestors of `artifact`, as far as anybody gives them.

    Args:
        publication: the one of `artifact` to go by; `lines` are what is said about it otherwise.
    """
    own = [entry for line in lines if (entry := readable(line)) and entry.statement.subject == artifact]
    derived = [entry for entry in own if entry.statement.predicate == DERIVED]
    waiting = list(_parents([*([publication.entry] if publication else []), *derived]))
    seen = {artifact}
    found: list[bytes] = []
    while len(seen) <= MAX_ARTIFACTS and sum(map(len, found)) <= MAX_BYTES:
        unseen = [parent for parent in dict.fromkeys(waiting) if parent not in seen]
        batch, waiting = unseen[:AT_ONCE], unseen[AT_ONCE:]
        if not batch:
            break
        seen.update(batch)
        asked = await asyncio.gather(*(_about(session, parent, policy) for parent in batch))
        found += [entry.line for entries in asked for entry in entries]
        waiting += _parents(entry for entries in asked for entry in entries)
    return tuple(found)


def beside(own: Sequence[bytes], above: Iterable[bytes]) -> tuple[bytes, ...]:
    """`own` lines about an artifact, and as many about its ancestors as a verifier reads beside them: nobody who
    publishes an ancestor crowds out what is said about the artifact itself."""
    there = set(own)
    more = [line for line in dict.fromkeys(above) if line not in there][: MAX_CLAIMS - len(own)]
    sizes = itertools.accumulate((len(line) + 1 for line in more), initial=sum(len(line) + 1 for line in own))
    return (
        *own,
        *(line for line, size in zip(more, itertools.islice(sizes, 1, None), strict=True) if size <= MAX_READ),
    )


async def _about(session: Session, artifact: Digest, policy: Policy) -> list[Entry]:
    """The wanted lines of all nodes that prove themselves, as many as are taken along; what decides comes first."""
    answers = await session.ask(lambda node: node.claims(artifact))
    lines, _ = kept(session, lines_of(answers.found), policy, about={artifact})
    entries = [entry for line in lines if (entry := readable(line)) and entry.statement.predicate in _WANTED]
    return entries[:MAX_LINES]


def _parents(entries: Iterable[Entry]) -> Iterator[Digest]:
    """Whom statements name as parents, by digest."""
    for entry in entries:
        try:
            if entry.statement.predicate == "published":
                yield from (parent.digest for parent in Published.parse(entry.statement).lineage if parent.digest)
            elif entry.statement.predicate == DERIVED:
                yield parse_derived(entry.statement).parent
        except Malformed:
            continue


MAX_CUTS: Final = 32
"""Cuts looked at for one publication: an honest publisher rotates seldom, and names few logs."""


async def collect_growths(
    publications: Iterable[Publication], kept: Iterable[KeptProof], proofs: ConsistencyProofs
) -> Mapping[Digest, bytes]:
    """What links the kept proofs to the cuts of the rotations that retired the keys behind `publications`; as far as
    nodes give it. Raises nothing for what they say."""
    found: dict[Digest, bytes] = {}
    here = tuple(kept)
    for publication in publications:
        for cut, checkpoint in _unlinked(publication, here):
            growth = await _link(cut, checkpoint, proofs)
            if growth is not None:
                found[sha256(growth.encode())] = growth.encode()
    return found


def _unlinked(publication: Publication, kept: Iterable[KeptProof]) -> Iterator[tuple[LogCut, Checkpoint]]:
    """Cuts that could prove the publication older than its keys' retirement, each with a checkpoint of another size."""
    chain = publication.chain
    signers = set(chain.signers(publication.entry.envelope))
    cuts = [cut for step in chain.steps if step.before in signers for cut in step.rotation.cut][:MAX_CUTS]
    for proven in (TlogProof.parse(item.proof.data) for item in kept if item.line == publication.entry.line):
        checkpoint = Checkpoint.parse(proven.checkpoint.text)
        for cut in cuts:
            if cut.origin == checkpoint.origin and proven.index < cut.size != checkpoint.size:
                yield cut, checkpoint


async def _link(cut: LogCut, checkpoint: Checkpoint, proofs: ConsistencyProofs) -> Growth | None:
    old, new = sorted([(cut.size, cut.root), (checkpoint.size, checkpoint.root)])
    async with aclosing(proofs(cut.origin, old[0], new[0])) as offered:
        async for hashes in offered:
            try:
                growth = Growth(cut.origin, old[0], new[0], hashes)
                growth.verify(old[1], new[1])
            except (Malformed, Untrusted):
                continue
            return growth
    return None


def refusal(verdict: Verdict, title: str) -> ComityError | None:
    """Why what was judged must not be placed; None where it may be."""
    if verdict.exit_status in (OK, PARTIAL):
        return None
    failing = [row for row in verdict.rows if row.name in verdict.required and row.state != "pass"]
    why = "; ".join(f"{row.name}: {row.summary}" for row in failing) or verdict.row("policy").summary
    if verdict.exit_status == VERIFICATION_FAILED:
        return Untrusted(f"{title} does not verify", why=why, hint="comity status", code="VERIFICATION-FAILED")
    if verdict.exit_status == POLICY_NOT_MET:
        unsafe = any(row.name == "file safety" and row.state == "fail" for row in failing)
        first = "look at what is in it" if unsafe else "wait for more cosignatures"
        hint = f"{first}, or write down what you accept: comity pull {title} --policy FILE"
        return PolicyNotMet(f"{title} is authentic, but the policy is not met", why=why, hint=hint)
    hint = f"try again in a minute: comity pull {title}"
    return Unavailable(f"evidence about {title} is missing", why=why, hint=hint, code="EVIDENCE-MISSING")
