"""References to commits of an upstream, `hf:org/name@commit`: what they stand for, by nodes that mirrored them.

Only nodes of pinned members count, each member once. Where they saw different bytes under one commit, it stands for
those that most members fetched; of equally many, for those that most members' nodes saw first. The others are shown.


From what a person typed to one artifact: asks the nodes, proves what they say, and lets `naming` decide.

(1) whose the name is    the owner's binding, a pinned charter, what is remembered, whom most members saw first
(2) what they mean       the publications of that claimant alone, however many others claim the name


What nodes say of an artifact: all are asked, it is proven by the pins, and held against what was seen before."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from comity.trust.claims import MirrorEvidence, Publication, bind, proven_advisories, read_claims, weigh
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, NotFound, PolicyNotMet, Unavailable
from comity.trust.names import UPSTREAM, Reference
from comity.trust.policy import Policy
from comity.trust.resolution import (
    Candidate,
    Preference,
    PublisherClaim,
    decide,
    decided,
    first_seen,
    most_first,
    named,
    stands_for,
    whose,
)
from comity.trust.rows.signatures import names
from comity.trust.statement import Entry
from comity.trust.statements import STATE_SETTING, Advisory, parse_advisory
from comity.trust.tlog.note import VerifierKey
from comity.trust.tlog.proof import TlogProof
from comity.trust.upstream import OBSERVED, Observed, Upstream
from comity.wire.client import NodeClient
from comity.wire.messages import LocatedEntry
from comity_client.evidence.gather import (
    Claims,
    GatheredEvidence,
    bodies_of,
    claims_of,
    gather,
    kept,
    lines_of,
    sightings,
)
from comity_client.evidence.prove import ProvenStatements, prove_lines, readable
from comity_client.seen import KnownNames
from comity_client.session import Answers, RemoteNode, Session
from comity_client.trust_store import Bindings

MAX_NAMES = 8
"""Commits under which one artifact was observed that are asked about again, for those who saw other bytes there."""


async def decide_mirrored(session: Session, reference: Reference, policy: Policy) -> MirrorEvidence:
    """What is proven about the one artifact that the reference stands for.

    Raises NotFound (NOT-MIRRORED), Unavailable; PolicyNotMet where nodes contradict one another and nothing prefers one
    of them (UPSTREAM-DISPUTED) or the reference means several commits (NO-ORDER).
    """
    answers = await session.ask(lambda node: node.resolve(reference.repository or "", None))
    if not answers.found:
        raise answers.failure(f"{reference} is not known")
    proven = prove_lines(lines_of(answers.found), bodies_of(session, policy), session.records())
    found = _weighed(proven)
    wanted = {name for name, mirroring in _named(found) if _means(reference, name, mirroring)}
    if not wanted:
        raise NotFound(
            f"{reference} is not mirrored here",
            why="no node of a pinned member says that it fetched it",
            hint=f"comity import {reference}",
            code="NOT-MIRRORED",
        )
    commit = _commit(reference, wanted, found, answers, proven, policy)
    seen = sightings(answers, proven, policy, lambda entry: _artifact(entry, commit))
    artifact = stands_for(found, commit, seen)
    if artifact is None:
        raise _disputed(commit, {digest: m for digest, m in found.items() if commit in m.names})
    return found[artifact]


def _commit(
    reference: Reference,
    wanted: set[str],
    found: Mapping[Digest, MirrorEvidence],
    answers: Answers[tuple[LocatedEntry, ...]],
    proven: ProvenStatements,
    policy: Policy,
) -> str:
    """The commit that the reference means: the only one, else the one that most members fetched, else the one that most
    members' nodes saw first. Raises PolicyNotMet (NO-ORDER)."""
    if len(wanted) == 1:
        return next(iter(wanted))
    voices = {
        name: len({m.lineage for mirroring in found.values() for m in mirroring.corroborating(name)}) for name in wanted
    }
    best = [name for name, count in voices.items() if count == max(voices.values())]
    if len(best) == 1:
        return best[0]
    first = most_first(sightings(answers, proven, policy, lambda entry: _name(entry) if _name(entry) in best else None))
    if first is not None:
        return first[0]
    listed = sorted(wanted)
    raise PolicyNotMet(
        f"{reference} means several commits",
        why=f"{len(listed)} commits are mirrored: {', '.join(listed[:5])}",
        hint=f"comity show {listed[0]}",
        code="NO-ORDER",
    )


async def rivals_of(
    session: Session, lines: Iterable[bytes], policy: Policy
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """What else is proven to be said under the commits that these lines say they observed, and notes on the rest."""
    entries = (entry for line in lines if (entry := readable(line)) is not None)
    said = {e.statement.subjects[0].name for e in entries if e.statement.predicate == OBSERVED}
    commits = [Reference.parse(name) for name in sorted(said)[:MAX_NAMES] if name.startswith(UPSTREAM)]
    asked = await asyncio.gather(*(session.ask(functools.partial(_said_under, commit)) for commit in commits))
    found: dict[RemoteNode, list[LocatedEntry]] = {}
    for node, items in (item for answers in asked for item in answers.found.items()):
        found.setdefault(node, []).extend(items)
    return kept(session, lines_of(found), policy) if found else ((), ())


def basis(mirroring: MirrorEvidence) -> str:
    """In words, who says what the reference stands for."""
    name = mirroring.names[0]
    members = mirroring.corroborating(name)
    if not members:
        return "the word of a node that had it in a folder; nobody fetched it"
    return f"nodes that mirrored it; corroborated {len(members)}: {names(members)}"


def upstream_of(mirroring: MirrorEvidence) -> Upstream | None:
    """Where the artifact is from: by those who fetched it, if anybody did."""
    ordered = sorted(mirroring.seen, key=lambda seen: not seen.observed.fetched)
    return ordered[0].observed.upstream if ordered else None


async def _said_under(commit: Reference, node: NodeClient) -> tuple[LocatedEntry, ...]:
    return await node.resolve(commit.repository or "", commit.version)


def _weighed(proven: ProvenStatements) -> Mapping[Digest, MirrorEvidence]:
    observed = [entry for entry in proven.entries if entry.statement.predicate == OBSERVED]
    digests = dict.fromkeys(entry.statement.subject for entry in observed)
    found = {digest: weigh(observed, digest, proven.bound) for digest in digests}
    return {digest: mirroring for digest, mirroring in found.items() if mirroring.seen}


def _name(entry: Entry) -> str | None:
    """The commit, by name, that a proven entry says was observed."""
    if entry.statement.predicate != OBSERVED:
        return None
    try:
        return Observed.parse(entry.statement).upstream.name
    except ComityError:
        return None


def _artifact(entry: Entry, commit: str) -> Digest | None:
    return entry.statement.subject if _name(entry) == commit else None


def _named(found: Mapping[Digest, MirrorEvidence]) -> Iterable[tuple[str, MirrorEvidence]]:
    return ((name, mirroring) for mirroring in found.values() for name in mirroring.names)


def _means(reference: Reference, name: str, mirroring: MirrorEvidence) -> bool:
    repository, _, commit = name.partition("@")
    if repository != reference.repository:
        return False
    if reference.version in (None, commit):
        return True
    asked = (seen.observed.upstream for seen in mirroring.seen)
    return any(upstream.name == name and upstream.requested == reference.version for upstream in asked)


def _disputed(name: str, rivals: Mapping[Digest, MirrorEvidence]) -> PolicyNotMet:
    said = "; ".join(
        f"sha256:{digest} by {names([m for seen in mirroring.seen for m in seen.members])}"
        for digest, mirroring in sorted(rivals.items())
    )
    return PolicyNotMet(
        f"{name} stands for different bytes",
        why=f"one commit has one content, and nodes observed {said}; both are kept",
        hint=f"comity trust bind {name} sha256:DIGEST",
        code="UPSTREAM-DISPUTED",
    )


AT_ONCE: Final = 16
"""Lines whose proofs are asked for at the same time."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a reference stands for, why, and all that was said about it.

    `publication` is the proven statement by which it was found, or the best one of an artifact named by digest; None
    where nobody proves to have published it. `basis` says in words what decided, `mirroring` who says where it is from,
    `rivals` who else claims the name.
    """

    reference: Reference
    artifact: Digest
    basis: str
    publication: Publication | None
    gathered: GatheredEvidence
    advisories: tuple[Advisory, ...]
    mirroring: MirrorEvidence
    rivals: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What to call it: its full name where it has one, or that of the commit that it was mirrored from."""
        if self.publication is not None and not self.reference.mirrored:
            return str(self.publication.published.name)
        return next(iter(self.mirroring.names), f"sha256:{self.artifact}")


async def resolve(
    session: Session, reference: Reference, policy: Policy, bindings: Bindings, names: KnownNames
) -> Resolution:
    """What the reference stands for; a name that nobody decided is remembered in `names`, whoever claims it later.

    Raises NotFound, Unavailable, and PolicyNotMet where only the owner can decide (see `naming.decide`).
    """
    if reference.digest is not None:
        return await _known(session, reference, reference.digest, "its digest", policy)
    if (bound := _bound_artifact(reference, bindings)) is not None:
        return await _known(session, reference, bound, "your binding", policy)
    if reference.mirrored:
        mirroring = await decide_mirrored(session, reference, policy)
        artifact = mirroring.seen[0].observed.artifact
        return await _known(session, reference, artifact, basis(mirroring), policy)
    repository = reference.repository or ""
    preference, said = await _whose(session, repository, policy, names)
    publisher = preference.claimant.publisher
    if publisher is None:
        raise _mirrored(reference, preference, said)
    own = await _meant(session, reference, policy, publisher, said)
    chosen = await _confirmed(session, reference, candidates_of(own), preference)
    if not preference.decided:
        await asyncio.to_thread(names.remember, repository, preference.claimant)
    gathered = await _gathered(session, chosen.artifact, policy, publisher)
    return Resolution(
        reference,
        chosen.artifact,
        str(preference),
        chosen.publication,
        gathered,
        _advisories(session, gathered),
        _mirroring(gathered, policy),
        _rivals(preference, said),
    )


async def versions(session: Session, repository: str, publisher: Digest, policy: Policy) -> tuple[Candidate, ...]:
    """Every proven publication of `publisher` under a repository's name. Raises NotFound, Unavailable."""
    return candidates_of(await claims_of(session, repository, None, policy, publisher))


def candidates_of(claims: Claims) -> tuple[Candidate, ...]:
    """The publications, each with its place in its publisher's home log as nodes claim it."""
    return tuple(
        Candidate(p, _home_index(p, claims.places.get(p.entry.line, frozenset())), _withdrawn(p, claims.proven.entries))
        for p in claims.publications
    )


async def _whose(
    session: Session, repository: str, policy: Policy, names: KnownNames
) -> tuple[Preference, Claims | None]:
    """Whose the name is, and what nodes say of it: None where they had not to be asked, or did not answer."""
    known = await asyncio.to_thread(names.claimant, repository)
    preferences = [item for item in (decided(policy, repository), known and Preference(known, "remembered")) if item]
    try:
        said = await claims_of(session, repository, None, policy)
    except (NotFound, Unavailable):
        if not preferences:
            raise
        return preferences[0], None
    seen = first_seen(said.sightings)
    preference = whose(repository, said.claimants, [*preferences, *([seen] if seen else [])], said.called)
    if preference is None:
        raise NotFound(f"{repository} is not published", hint="comity search WORD", code="NOT-PUBLISHED")
    return preference, said


async def _meant(
    session: Session, reference: Reference, policy: Policy, publisher: Digest, said: Claims | None
) -> Claims:
    """What `publisher` published under the name; where nobody has any of it, what `said` has, for the error to tell."""
    try:
        return await claims_of(session, reference.repository or "", reference.version, policy, publisher)
    except NotFound:
        if said is None or not said.rivals(PublisherClaim(publisher)):
            raise
        return said


def _rivals(preference: Preference, said: Claims | None) -> tuple[str, ...]:
    """Who else claims the name, for people; and whom most members saw first, where that is somebody else."""
    if said is None:
        return ()
    seen = first_seen(said.sightings)
    if preference.decided or seen is None or seen.claimant == preference.claimant:
        return said.rivals(preference.claimant)
    first = f"{named(seen.claimant, said.repository, said.called)}, {seen}"
    return (first, *(other for other in said.rivals(preference.claimant) if not first.startswith(other)))


def _mirrored(reference: Reference, preference: Preference, said: Claims | None) -> PolicyNotMet:
    """That the name is occupied by the mirror of an upstream repository."""
    others = ", ".join(said.rivals(preference.claimant)) if said else ""
    namespace = (reference.repository or "").partition("/")[0]
    also = f"; {others} claim it too: comity trust bind {namespace} IDENTITY" if others else ""
    return PolicyNotMet(
        f"{reference} is the name of a repository that members mirrored",
        why=f"{preference}; no publisher signed it{also}",
        hint=f"comity pull {UPSTREAM}{reference}",
        code="NAME-MIRRORED",
    )


async def _known(session: Session, reference: Reference, artifact: Digest, why: str, policy: Policy) -> Resolution:
    gathered = await _gathered(session, artifact, policy)
    publications = gathered.readings.publications
    named = [p for p in publications if reference.repository in (None, p.published.name.repository)]

    def merit(publication: Publication) -> tuple[bool, bool]:
        bound = policy.bound_publisher(publication.published.name.namespace)
        accepted = not policy.publishers or publication.publisher.id in policy.publishers
        return accepted, bound == publication.publisher.id

    best = max(named or publications, key=merit, default=None)
    advisories = _advisories(session, gathered)
    return Resolution(reference, artifact, why, best, gathered, advisories, _mirroring(gathered, policy))


async def _gathered(
    session: Session, artifact: Digest, policy: Policy, publisher: Digest | None = None
) -> GatheredEvidence:
    """What is said about an artifact, and about others under the commits that it was mirrored from."""
    gathered = await gather(session, artifact, policy, (publisher,) if publisher else ())
    beside, notes = await rivals_of(session, gathered.lines, policy)
    lines = tuple(dict.fromkeys((*gathered.lines, *beside)))
    if lines == gathered.lines:
        return gathered
    return replace(gathered, lines=lines, readings=read_claims(lines, artifact), notes=(*gathered.notes, *notes))


def _mirroring(gathered: GatheredEvidence, policy: Policy) -> MirrorEvidence:
    readings = gathered.readings
    bound, _, _ = bind(policy.pins, readings.entries, readings.chains)
    return weigh(readings.entries, gathered.artifact, bound)


def _bound_artifact(reference: Reference, bindings: Bindings) -> Digest | None:
    return bindings.artifacts.get(str(reference))


async def _confirmed(
    session: Session, reference: Reference, candidates: Sequence[Candidate], preference: Preference
) -> Candidate:
    """Decide, and for a bare name prove the index by which the newest version won. Where that proof fails, all indexes
    are proven, and those that nobody proves order nothing.

    Each index is proven once, and each decision made at most twice: a node that proves one line at several places
    cannot keep a resolution from ending.
    """
    if reference.version is not None:
        return decide(reference, candidates, [preference])
    # Nodes name one place of a line, which need not be in the publisher's home log.
    indexes = _ProvenIndexes(session)
    unplaced = [candidate for candidate in candidates if candidate.index is None]
    await indexes.of_all(unplaced)
    placed = [c if c.index is not None else replace(c, index=await indexes.of(c)) for c in candidates]
    chosen = decide(reference, placed, [preference])
    if chosen.index is None or await indexes.of(chosen) == chosen.index:
        return chosen
    proven = [replace(c, index=index) for c, index in zip(placed, await indexes.of_all(placed), strict=True)]
    return decide(reference, proven, [preference]) if any(c.index is not None for c in proven) else chosen


class _ProvenIndexes:
    """Where publications stand in their publishers' home logs, each asked for and proven once. Not thread-safe."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._found: dict[Digest, int | None] = {}

    async def of(self, candidate: Candidate) -> int | None:
        """The first index that any node proves; None where nobody here can prove one."""
        line = candidate.publication.entry.digest
        if line not in self._found:
            async with self._turn:
                self._found[line] = await _proven_index(self._session, candidate)
        return self._found[line]

    async def of_all(self, candidates: Iterable[Candidate]) -> list[int | None]:
        return await asyncio.gather(*(self.of(candidate) for candidate in candidates))


async def _proven_index(session: Session, candidate: Candidate) -> int | None:
    """The lowest of the indexes that nodes prove: a log that holds a line twice has it since the first time."""
    entry, home = candidate.publication.entry, candidate.publication.publisher.home
    keys = log_keys(session, home)
    if not keys:
        return None
    answers = await session.ask(lambda node: node.proofs(entry.digest, home))
    proofs = {located.proof for found in answers.found.values() for located in found}
    indexes = (_index(proof, entry.line, key) for proof in proofs for key in keys)
    return min((index for index in indexes if index is not None), default=None)


def _index(proof: bytes, line: bytes, key: VerifierKey) -> int | None:
    """Where the proof shows the line in the log of `key`; None where it shows nothing."""
    try:
        parsed = TlogProof.parse(proof)
        parsed.verify(line, key)
    except ComityError:
        return None
    return parsed.index


def log_keys(session: Session, origin: str) -> tuple[VerifierKey, ...]:
    """The keys under which pinned members write the log called `origin`."""
    return tuple(dict.fromkeys(node.record.log for node in session.nodes if node.record.origin == origin))


def _advisories(session: Session, gathered: GatheredEvidence) -> tuple[Advisory, ...]:
    return proven_advisories(gathered.readings, gathered.artifact, (node.record for node in session.nodes))


def _home_index(publication: Publication, places: frozenset[tuple[str, int]]) -> int | None:
    return min((index for origin, index in places if origin == publication.publisher.home), default=None)


def _withdrawn(publication: Publication, entries: Iterable[Entry]) -> bool:
    publisher, artifact = publication.publisher, publication.published.artifact
    for entry in entries:
        statement = entry.statement
        if (statement.predicate, statement.by, statement.subject) != ("advisory", publisher.author, artifact):
            continue
        try:
            kind = parse_advisory(statement).kind
        except Malformed:
            continue
        if kind in STATE_SETTING and publication.chain.signed(entry.envelope):
            return True
    return False
