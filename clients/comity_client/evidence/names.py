"""The claims to a name: what the nodes of the pinned federations say, proven.

The answer of a node begins with the oldest claim of each claimant; a member counts once, and not at all if its nodes
disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from comity.trust.claims import Publication
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed
from comity.trust.frozen import frozen
from comity.trust.policy import Policy
from comity.trust.resolution import MIRROR, Candidate, Preference, PublisherClaim, bound_claimant, claimant_label
from comity.trust.statement import Entry
from comity.trust.statement_kinds import ADVISORY, OBSERVED, PUBLISHED
from comity.trust.statements import Advisory
from comity.trust.upstream import Observed
from comity.wire.found import Lookup

from comity_client.evidence.home_positions import HomePositions
from comity_client.evidence.inquiry import Inquiry, ProvenAnswers, places_of
from comity_client.seen import KnownNames


@frozen
class Claims:
    """Proven claims to a name. `sightings`: by member, the claimant that its nodes saw first, None if they know none;
    `mirrored`: a node of a member mirrored a repository of this name."""

    repository: str
    said: ProvenAnswers
    publications: tuple[Publication, ...]
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
        others = (claimant_label(each, self.repository, self.labels) for each in self.claimants if each != owner)
        return (*others, "a further identity, which no node listed,") if self.said.limited else tuple(others)


def known_claimants(policy: Policy, repository: str, names: KnownNames) -> list[Preference]:
    """Return the claimants of the name that are known without asking, the one that counts first. Blocking."""
    remembered = names.claimant(repository)
    known = bound_claimant(policy, repository), remembered and Preference(remembered, "remembered")
    return [preference for preference in known if preference]


def known_owner(policy: Policy, repository: str, names: KnownNames) -> PublisherClaim | None:
    """Return to whom the name belongs, as far as that is known without asking. Blocking."""
    return next((preference.claimant for preference in known_claimants(policy, repository, names)), None)


async def claims_of(inquiry: Inquiry, repository: str, version: str | None, publisher: Digest | None = None) -> Claims:
    """Ask every node for the claims to a name; if `publisher` is given, only for its claims, so that the answer does
    not depend on the number of other claimants. Raises NotFound, Unavailable."""
    said = await inquiry.ask_for(Lookup.of_name(repository, version, publisher, inquiry.policy.named))
    return _claims(inquiry, repository, version, said)


async def find_claims(inquiry: Inquiry, repository: str, version: str | None, expected: Digest | None) -> Claims:
    """As `claims_of` a name, and ask at once what will be asked about its artifact of a version.

    Args:
        expected: to whom the name belongs, if that is known here.
    """
    said = await inquiry.find(Lookup.of_name(repository, None, expected, inquiry.policy.named), version)
    return _claims(inquiry, repository, None, said)


def _claims(inquiry: Inquiry, repository: str, version: str | None, said: ProvenAnswers) -> Claims:
    if not said.answers.found:
        asked = f"{repository}@{version}" if version else repository
        raise said.answers.failure(f"{asked} is not known", otherwise=f"comity search {repository.rpartition('/')[2]}")
    proven = said.proven
    publications = [proven.readings.publication(e) for e in proven.entries if e.statement.predicate == PUBLISHED]
    return Claims(
        repository,
        said,
        tuple(p for p in publications if p is not None and _same_name(p.published.name.repository, repository)),
        said.sightings(inquiry.policy, lambda entry: _claimant(entry, repository)),
        any(_claimant(entry, repository) == MIRROR for entry in proven.entries),
    )


def _claimant(entry: Entry, repository: str) -> PublisherClaim | None:
    """Return the claimant of the repository according to this entry, whose author is proven."""
    statement = entry.statement
    if statement.predicate == PUBLISHED and statement.by is not None:
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


def candidates_of(claims: Claims, positions: HomePositions) -> tuple[Candidate, ...]:
    """Return the publications, each with its claimed position in the home logs of its publisher."""
    places, said = places_of(claims.said.located), claims.said.proven.entries
    return tuple(
        Candidate(p, positions.claimed(p, places.get(p.entry.line, ())), withdrawn(p, said))
        for p in claims.publications
    )


async def versions(inquiry: Inquiry, repository: str, publisher: Digest) -> tuple[Candidate, ...]:
    """Return every proven publication of `publisher` under the name of a repository. Raises NotFound, Unavailable."""
    claims = await claims_of(inquiry, repository, None, publisher)
    return published_by(publisher, candidates_of(claims, HomePositions(inquiry)))


def published_by(publisher: Digest, candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Nodes may answer with publications of other publishers than the one asked for."""
    return tuple(candidate for candidate in candidates if candidate.publisher == publisher)


def withdrawn(publication: Publication, entries: Iterable[Entry]) -> bool:
    """Whether one of these entries is an advisory by which the publisher yanks or supersedes the artifact."""
    publisher, artifact = publication.publisher, publication.published.artifact
    for entry in entries:
        statement = entry.statement
        if (statement.predicate, statement.by, statement.subject) != (ADVISORY, publisher.author, artifact):
            continue
        try:
            said = Advisory.parse(statement)
        except Malformed:
            continue
        if said.withdraws_for(publisher.id) and publication.chain.signed(entry.envelope):
            return True
    return False
