"""From what a person typed to one artifact: asks the nodes, proves what they say, and lets `naming` decide."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

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

AT_ONCE: Final = 16
"""Lines whose proofs are asked for at the same time."""


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
    """Decide, and for a bare name prove the index by which the newest version won. Where that proof fails, all indexes
    are proven, and those that nobody proves order nothing.

    Each index is proven once, and each decision made at most twice: a node that proves one line at several places
    cannot keep a resolution from ending.
    """
    if reference.version is not None:
        return decide(reference, candidates, publisher)
    # Nodes name one place of a line, which need not be in the publisher's home log.
    indexes = _ProvenIndexes(session)
    unplaced = [candidate for candidate in candidates if candidate.index is None]
    await indexes.of_all(unplaced)
    placed = [c if c.index is not None else replace(c, index=await indexes.of(c)) for c in candidates]
    chosen = decide(reference, placed, publisher)
    if chosen.index is None or await indexes.of(chosen) == chosen.index:
        return chosen
    proven = [replace(c, index=index) for c, index in zip(placed, await indexes.of_all(placed), strict=True)]
    return decide(reference, proven, publisher) if any(c.index is not None for c in proven) else chosen


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
