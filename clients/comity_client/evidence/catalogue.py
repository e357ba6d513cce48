"""From what a person typed to one artifact: asks the nodes, proves what they say, and lets `naming` decide."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from comity.trust.digest import Digest
from comity.trust.errors import ComityError, Malformed
from comity.trust.judging.naming import Candidate, decide
from comity.trust.judging.reading import Publication, proven_advisories
from comity.trust.judging.witnessing import bind
from comity.trust.names import Reference
from comity.trust.policy import Policy
from comity.trust.statement import Entry
from comity.trust.statements.claims import STATE_SETTING, Advisory, parse_advisory
from comity.trust.tlog.note import VerifierKey
from comity.trust.tlog.proof import TlogProof
from comity.trust.upstream.weighing import Mirroring, weigh

from comity_client.evidence.gather import Gathered, gather, places_of, prove_publications, readable
from comity_client.evidence.mirrored import basis, decide_mirrored, rivals_of
from comity_client.nodes.session import Session
from comity_client.owner.trust_store import Bindings


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a reference stands for, why, and all that was said about it.

    `publication` is the proven statement by which it was found, or the best one of an artifact named by digest; None
    where nobody proves to have published it. `basis` says in words what decided, `mirroring` who says where it is from.
    """

    reference: Reference
    artifact: Digest
    basis: str
    publication: Publication | None
    gathered: Gathered
    advisories: tuple[Advisory, ...]
    mirroring: Mirroring

    @property
    def title(self) -> str:
        """What to call it: its full name where it has one, or that of the commit that it was mirrored from."""
        if self.publication is not None and not self.reference.mirrored:
            return str(self.publication.published.name)
        return next(iter(self.mirroring.names), f"sha256:{self.artifact}")


async def resolve(session: Session, reference: Reference, policy: Policy, bindings: Bindings) -> Resolution:
    """Raises NotFound, Unavailable, and PolicyNotMet where only the owner can decide (see `naming.decide`)."""
    if reference.digest is not None:
        return await _known(session, reference, reference.digest, "its digest", policy)
    if (bound := _bound_artifact(reference, bindings)) is not None:
        return await _known(session, reference, bound, "your binding", policy)
    if reference.mirrored:
        mirroring = await decide_mirrored(session, reference, policy)
        artifact = mirroring.seen[0].observed.artifact
        return await _known(session, reference, artifact, basis(mirroring), policy)
    repository = reference.repository or ""
    namespace = repository.partition("/")[0]
    publisher = policy.bound_publisher(namespace)
    candidates = await versions(session, repository, reference.version, publisher)
    chosen = await _confirmed(session, reference, candidates, publisher)
    gathered = await _gathered(session, chosen.artifact)
    advisories = _advisories(session, gathered)
    why = _basis(namespace, publisher, policy)
    said = _mirroring(gathered, policy)
    return Resolution(reference, chosen.artifact, why, chosen.publication, gathered, advisories, said)


async def versions(
    session: Session, repository: str, version: str | None, publisher: Digest | None
) -> tuple[Candidate, ...]:
    """Every proven publication under a repository's name; those of `publisher` only, where one is bound to it.

    Raises NotFound, Unavailable.
    """
    answers = await session.ask(lambda node: node.resolve(repository, version))
    if not answers.found:
        asked = f"{repository}@{version}" if version else repository
        raise answers.failure(f"{asked} is not known", otherwise=f"comity search {repository.rpartition('/')[2]}")
    located = [item for found in answers.found.values() for item in found]
    publications = await prove_publications(session, (item.line for item in located), publisher)
    places = places_of(located)
    entries = [entry for line in places if (entry := readable(line)) is not None]
    return tuple(
        Candidate(p, _home_index(p, places.get(p.entry.line, frozenset())), _withdrawn(p, entries))
        for p in publications
        if p.published.name.repository == repository
    )


async def _known(session: Session, reference: Reference, artifact: Digest, why: str, policy: Policy) -> Resolution:
    gathered = await _gathered(session, artifact)
    publications = gathered.readings.publications
    named = [p for p in publications if reference.repository in (None, p.published.name.repository)]

    def merit(publication: Publication) -> tuple[bool, bool]:
        bound = policy.bound_publisher(publication.published.name.namespace)
        accepted = not policy.publishers or publication.publisher.id in policy.publishers
        return accepted, bound == publication.publisher.id

    best = max(named or publications, key=merit, default=None)
    advisories = _advisories(session, gathered)
    return Resolution(reference, artifact, why, best, gathered, advisories, _mirroring(gathered, policy))


async def _gathered(session: Session, artifact: Digest) -> Gathered:
    """What is said about an artifact, and about others under the commits that it was mirrored from."""
    gathered = await gather(session, artifact)
    return gathered.with_more(await rivals_of(session, gathered.lines))


def _mirroring(gathered: Gathered, policy: Policy) -> Mirroring:
    readings = gathered.readings
    bound, _, _ = bind(policy.pins, readings.entries, readings.chains)
    return weigh(readings.entries, gathered.artifact, bound)


def _bound_artifact(reference: Reference, bindings: Bindings) -> Digest | None:
    return bindings.artifacts.get(str(reference))


def _basis(namespace: str, publisher: Digest | None, policy: Policy) -> str:
    if publisher is None:
        return "its only claimant; nobody is bound to its namespace"
    return "your binding of its namespace" if namespace in policy.bindings else "the pinned charter's namespaces"


async def _confirmed(
    session: Session, reference: Reference, candidates: Sequence[Candidate], publisher: Digest | None
) -> Candidate:
    """Decide; then prove the index by which the newest version won, and decide again where a node had made it up."""
    known = list(candidates)
    if reference.version is None:  # nodes name one place of a line, which need not be in the publisher's home log
        unplaced = [candidate for candidate in known if candidate.index is None]
        indexes = await asyncio.gather(*(_proven_index(session, candidate) for candidate in unplaced))
        placed = dict(zip(map(id, unplaced), indexes, strict=True))
        known = [replace(c, index=placed[id(c)]) if id(c) in placed else c for c in known]
    while True:
        chosen = decide(reference, known, publisher)
        if reference.version is not None or chosen.index is None:
            return chosen
        index = await _proven_index(session, chosen)
        if index in (None, chosen.index):
            return chosen
        known = [replace(c, index=index) if c is chosen else c for c in known]


async def _proven_index(session: Session, candidate: Candidate) -> int | None:
    """Where the publication really stands in its publisher's home log; None where nobody here can prove it."""
    entry, home = candidate.publication.entry, candidate.publication.publisher.home
    keys = log_keys(session, home)
    if not keys:
        return None
    answers = await session.ask(lambda node: node.proofs(entry.digest, home))
    for found in answers.found.values():
        for located in found:
            for key in keys:
                try:
                    proof = TlogProof.parse(located.proof)
                    proof.verify(entry.line, key)
                except ComityError:
                    continue
                return proof.index
    return None


def log_keys(session: Session, origin: str) -> tuple[VerifierKey, ...]:
    """The keys under which pinned members write the log called `origin`."""
    return tuple(dict.fromkeys(node.record.log for node in session.nodes if node.record.origin == origin))


def _advisories(session: Session, gathered: Gathered) -> tuple[Advisory, ...]:
    return proven_advisories(gathered.readings, gathered.artifact, (node.record for node in session.nodes))


def _home_index(publication: Publication, places: frozenset[tuple[str, int]]) -> int | None:
    return max((index for origin, index in places if origin == publication.publisher.home), default=None)


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
