"""Resolve a reference to one artifact: ask the nodes, verify their answers, and let `comity.trust.resolution` decide.

(1) decide    a digest, or a binding of the owner to one; an upstream commit (`mirrored`); or a name:
                claimant    binding of the owner, pinned charter, remembered claimant, or the one that most members saw
                            first
                version     the publications of that claimant only, independent of the number of other claimants
(2) collect   what is said about the artifact, on which a verdict depends
(3) describe  the statement that counts, advisories, who mirrored it
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from comity.rules.collected import CollectedEvidence
from comity.rules.collector import Collector
from comity.trust.claims import MirrorEvidence, Publication, collect_mirror_evidence, verify_advisories
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound, PolicyNotMet, Unavailable
from comity.trust.frozen import frozen
from comity.trust.key_validity import CompromiseNotice, compromise_notices
from comity.trust.names import UPSTREAM, Name, Reference
from comity.trust.policy import Policy
from comity.trust.resolution import (
    Candidate,
    Preference,
    PublisherClaim,
    claimant_label,
    first_seen,
    preferred_claimant,
    select_candidate,
)
from comity.trust.statement import Entry
from comity.trust.statements import Advisory

from comity_client.evidence.collect import collect
from comity_client.evidence.home_positions import HomePositions, order_statements, prove_positions
from comity_client.evidence.inquiry import Inquiry
from comity_client.evidence.mirrored import commits_meant, decide_commit
from comity_client.evidence.names import (
    Claims,
    candidates_of,
    claims_of,
    find_claims,
    known_claimants,
    known_owner,
    published_by,
)
from comity_client.seen import KnownNames
from comity_client.trust_store import Bindings


@frozen
class DecidedArtifact:
    """The artifact that a reference means, and why. `chosen` is the statement of the publisher to whom the name
    belongs; None for a digest or a commit. `rivals` are the other claimants of the name, as text. `versions`: what the
    same publisher published under the name, if no version was asked for. `commit`: that of the upstream, if members
    decided it."""

    artifact: Digest
    basis: str
    chosen: Publication | None = None
    rivals: tuple[str, ...] = ()
    versions: tuple[Candidate, ...] | None = None
    commit: str = ""


Decided: TypeAlias = Callable[[Inquiry, DecidedArtifact], None]
"""Called when an artifact is known and its evidence is not."""


@frozen
class Resolution:
    """The artifact of a reference, the reason, and the evidence that was collected.

    `publication` is the proven statement that decided, or, of an artifact named by digest, the best one under a name
    that belongs to nobody else; None if there is no such publication. `commit` is that of the upstream,
    `hf:org/name@commit`; empty if the reference means none. `name`: the name that the artifact has here; None if it has
    none. `advised`: proven advisories about it, each with its entry. `mirroring`: who mirrored it.
    `statements` are those of the same publisher about these bytes, the newest first: the first one counts.
    """

    inquiry: Inquiry
    reference: Reference
    decision: DecidedArtifact
    evidence: CollectedEvidence
    publication: Publication | None
    name: Name | None
    commit: str
    advised: tuple[tuple[Entry, Advisory], ...]
    mirroring: MirrorEvidence
    statements: tuple[Candidate, ...]

    @property
    def advisories(self) -> tuple[Advisory, ...]:
        return tuple(advisory for _, advisory in self.advised)

    @property
    def artifact(self) -> Digest:
        return self.decision.artifact

    @property
    def basis(self) -> str:
        return self.decision.basis

    @property
    def rivals(self) -> tuple[str, ...]:
        return self.decision.rivals

    @property
    def publisher(self) -> Digest | None:
        return self.publication.publisher.id if self.publication else None

    @property
    def current(self) -> Publication | None:
        """The publisher's newest statement about these bytes, also under another version: its licence, lineage and
        documents count."""
        return self.statements[0].publication if self.statements else self.publication

    @property
    def lost_keys(self) -> tuple[CompromiseNotice, ...]:
        """What the publisher says about lost keys that signed the statement that counts."""
        stated = self.current
        if stated is None:
            return ()
        return compromise_notices(self.evidence.claims, stated.publisher.id, stated.chain, stated.entry.envelope)

    @property
    def title(self) -> str:
        """The name that it has here, else that of the upstream commit, else the digest."""
        if self.name is not None:
            return str(self.name)
        if self.reference.mirrored:
            return self.commit or str(self.reference)
        return next(iter(self.mirroring.names), f"sha256:{self.artifact}")


async def resolve(
    inquiry: Inquiry,
    reference: Reference,
    bindings: Bindings,
    names: KnownNames,
    decided: Decided | None = None,
) -> Resolution:
    """Resolve the reference. The claimant of a name that the owner did not decide is stored in `names`, so that later
    claims do not change it.

    Args:
        decided: begins what else will be asked about the artifact.

    Raises NotFound, Unavailable, and PolicyNotMet if only the owner can decide (see `trust.resolution`).
    """
    positions = HomePositions(inquiry)
    if reference.digest is not None:
        decision = DecidedArtifact(reference.digest, "its digest")
    elif (bound := bindings.artifacts.get(str(reference))) is not None:
        decision = DecidedArtifact(bound, "your binding")
    elif reference.mirrored:
        commit = await decide_commit(inquiry, reference)
        decision = DecidedArtifact(commit.artifact, commit.basis, commit=commit.name)
    else:
        decision = await _decide_name(positions, reference, names)
    if decided is not None:
        decided(inquiry, decision)
    publisher = decision.chosen.publisher.id if decision.chosen else None
    try:
        evidence = await collect(inquiry, Collector(decision.artifact, inquiry.policy, publisher))
    finally:
        await inquiry.session.ahead.given(_remembering(names, reference))
    if decision.chosen is not None:
        publication: Publication | None = decision.chosen
        statements = await _statements(positions, evidence, decision.chosen)
    else:
        stated = await asyncio.to_thread(_under_own_names, evidence, reference, inquiry.policy, names)
        publication, statements = await _best_stated(positions, evidence, stated)
    mirroring = collect_mirror_evidence(evidence.claims.entries, evidence.artifact, evidence.bound)
    nodes, members = inquiry.session.nodes, [member for pin in inquiry.session.pins for member in pin.body.members]
    return Resolution(
        inquiry,
        reference,
        decision,
        evidence,
        publication,
        _name_here(reference, decision, publication),
        _commit_of(reference, decision, mirroring),
        verify_advisories(evidence.claims, evidence.artifact, (node.record for node in nodes), members)[0],
        mirroring,
        statements,
    )


def _under_own_names(
    evidence: CollectedEvidence, reference: Reference, policy: Policy, names: KnownNames
) -> list[Publication]:
    """Return the publications of the artifact whose names belong to nobody else, as known here: those under the name of
    the reference, if it has a name and there are such. Anyone can publish the same bytes under a name of others.
    Blocking."""

    def own(publication: Publication) -> bool:
        owner = known_owner(policy, publication.published.name.repository, names)
        return owner is None or owner.publisher == publication.publisher.id

    stated = [each for each in evidence.claims.publications if own(each)]
    asked = (reference.repository or "").lower()
    return [each for each in stated if each.published.name.repository.lower() == asked] or stated


async def _best_stated(
    positions: HomePositions, evidence: CollectedEvidence, stated: Sequence[Publication]
) -> tuple[Publication | None, tuple[Candidate, ...]]:
    """Return the newest of `stated` by the preferred publisher, and all that it states about the artifact."""
    if not stated:
        return None, ()
    best = max(stated, key=lambda each: _priority(each, positions.inquiry.policy))
    statements = await _statements(positions, evidence, best)
    wanted = {each.entry.digest for each in stated}
    newest = (each.publication for each in statements if each.publication.entry.digest in wanted)
    return next(newest, best), statements


def _name_here(reference: Reference, decision: DecidedArtifact, publication: Publication | None) -> Name | None:
    """The name that the artifact has here: that of the reference where the owner bound it, else of the publication."""
    if reference.mirrored:
        return None
    bound = reference.digest is None and decision.chosen is None
    if bound and reference.repository and reference.version is not None:
        namespace, _, repository = reference.repository.partition("/")
        return Name(namespace, repository, reference.version)
    return publication.published.name if publication is not None else None


def _commit_of(reference: Reference, decision: DecidedArtifact, mirroring: MirrorEvidence) -> str:
    """The commit of the upstream that the reference means, also where the owner bound it to an artifact."""
    if decision.commit or not reference.mirrored:
        return decision.commit
    meant = commits_meant(reference, mirroring)
    return max(meant, key=lambda name: len(mirroring.corroborating(name)), default="")


def _priority(publication: Publication, policy: Policy) -> tuple[bool, bool]:
    bound = policy.bound_publisher(publication.published.name.namespace)
    accepted = not policy.publishers or publication.publisher.id in policy.publishers
    return accepted, bound == publication.publisher.id


async def _statements(
    positions: HomePositions, evidence: CollectedEvidence, publication: Publication
) -> tuple[Candidate, ...]:
    """Return the statements about the artifact of the publisher of `publication`, as `order_statements` does."""
    own = [each for each in evidence.claims.publications if each.publisher.id == publication.publisher.id]
    if publication.entry.digest not in {each.entry.digest for each in own}:
        own.append(publication)
    return await order_statements(positions, own, evidence.places, evidence.claims)


async def _decide_name(positions: HomePositions, reference: Reference, names: KnownNames) -> DecidedArtifact:
    inquiry, repository = positions.inquiry, reference.repository or ""
    bound = await asyncio.to_thread(known_claimants, inquiry.policy, repository, names)
    preference, claims = await _preference(inquiry, reference, bound)
    publisher = preference.claimant.publisher
    if publisher is None:
        raise _name_is_mirrored(reference, preference, claims)
    own = await _claims_of_publisher(inquiry, reference, publisher, claims)
    candidates = candidates_of(own, positions)
    try:
        chosen = await _choose_proven(positions, reference, candidates, preference)
    except NotFound as error:
        raise _with_silent(error, own) from None
    if not preference.decided:  # while the evidence is collected
        remember = partial(asyncio.to_thread, names.remember, repository, preference.claimant)
        inquiry.session.ahead.begin(_remembering(names, reference), remember)
    listed = published_by(publisher, candidates) if reference.version is None else None
    return DecidedArtifact(chosen.artifact, str(preference), chosen.publication, _rivals(preference, claims), listed)


def _remembering(names: KnownNames, reference: Reference) -> tuple[KnownNames, str]:
    """The key of what stores the claimant of a name."""
    return names, reference.repository or ""


async def _preference(
    inquiry: Inquiry, reference: Reference, known: Sequence[Preference]
) -> tuple[Preference, Claims | None]:
    """Return the preferred claimant of the name and the claims of nodes; the claims are None if nodes did not
    answer."""
    repository, expected = reference.repository or "", known[0].claimant.publisher if known else None
    try:
        claims = await find_claims(inquiry, repository, reference.version, expected)
    except (NotFound, Unavailable):
        if not known:
            raise
        return known[0], None
    seen = first_seen(claims.sightings)
    preference = preferred_claimant(repository, claims.claimants, [*known, *([seen] if seen else [])], claims.labels)
    if preference is None:
        raise NotFound(f"{repository} is not published", hint="comity search WORD", code="NOT-PUBLISHED")
    return preference, claims


async def _claims_of_publisher(
    inquiry: Inquiry, reference: Reference, publisher: Digest, claims: Claims | None
) -> Claims:
    """Return the publications of `publisher` under the name; if no node that answers has any of the version, those of
    other versions, or else `claims`, which the error then lists."""
    repository = reference.repository or ""
    try:
        return await claims_of(inquiry, repository, reference.version, publisher)
    except (NotFound, Unavailable):
        if reference.version is not None:
            with contextlib.suppress(NotFound, Unavailable):
                return await claims_of(inquiry, repository, None, publisher)
        if claims is None or not claims.rivals(PublisherClaim(publisher)):
            raise
        return claims


def _with_silent(error: NotFound, claims: Claims) -> NotFound:
    """The error, with the nodes that did not answer: they may know more."""
    if not claims.said.silent or error.code != "NOT-PUBLISHED":
        return error
    why = f"{error.why}; no answer of {', '.join(claims.said.silent)}, which may know more"
    return NotFound(error.what, why=why, hint=error.hint, code="NOT-PUBLISHED")


def _rivals(preference: Preference, claims: Claims | None) -> tuple[str, ...]:
    """Return the other claimants as text, and the one that most members saw first if it is not the preferred one."""
    if claims is None:
        return ()
    seen = first_seen(claims.sightings)
    if preference.decided or seen is None or seen.claimant == preference.claimant:
        return claims.rivals(preference.claimant)
    first = f"{claimant_label(seen.claimant, claims.repository, claims.labels)}, {seen}"
    return (first, *(other for other in claims.rivals(preference.claimant) if not first.startswith(other)))


def _name_is_mirrored(reference: Reference, preference: Preference, claims: Claims | None) -> PolicyNotMet:
    """Return the error for a name that belongs to the mirror of an upstream repository."""
    others = ", ".join(claims.rivals(preference.claimant)) if claims else ""
    namespace = (reference.repository or "").partition("/")[0]
    also = f"; {others} claim it too: comity trust bind {namespace} IDENTITY" if others else ""
    return PolicyNotMet(
        f"{reference} is the name of a repository that members mirrored",
        why=f"{preference}; no publisher signed it{also}",
        hint=f"comity pull {UPSTREAM}{reference}",
        code="NAME-MIRRORED",
    )


async def _choose_proven(
    positions: HomePositions, reference: Reference, candidates: Sequence[Candidate], preference: Preference
) -> Candidate:
    """Decide, and if there are several statements prove the position by which the newest one won. If that proof fails,
    prove all positions; an unproven position does not order candidates.

    Each position is proven once and each decision made at most twice, so that a node that proves a line at several
    positions cannot prevent an end.
    """
    if reference.version is not None:
        same = [candidate for candidate in candidates if candidate.version == reference.version]
        if len(same) < 2:
            return select_candidate(reference, candidates, [preference])
        candidates = same
    # Nodes give one position of a line, which may be in another log than the home log of the publisher.
    found = await prove_positions(positions, [candidate for candidate in candidates if candidate.position is None])
    placed = [*(candidate for candidate in candidates if candidate.position is not None), *found]
    chosen = select_candidate(reference, placed, [preference])
    if chosen.position is None or await positions.of(chosen.publication) == chosen.position:
        return chosen
    proven = await prove_positions(positions, placed)
    return select_candidate(reference, proven, [preference]) if any(c.position is not None for c in proven) else chosen
