"""Resolves a name to an artifact: chooses the claimant of the name, then one of its publications. Pure functions.

The claimant is chosen by the first of these preferences:

    (1) bound        the owner bound the namespace to a publisher
    (2) pinned       the namespaces of a pinned charter body name a publisher
    (3) remembered   the name was resolved here before
    (4) first seen   most members' nodes report that they saw this claimant first; this is only *claimed*

A claimant is a publisher, or the upstream repository of that name, which members' nodes mirrored. Other claimants are
rivals: they are reported and do not change the result. Without a preference between several claimants, or if a
publisher contradicts itself, the name is not resolved and the error lists them.

A bare name is the newest version: the last one in the publisher's home log (`home_logs`), or, if that log has none, the
last one by its name. Of several statements of one publisher about the same bytes the newest counts, in the same order:
it corrects the licence, the lineage and the documents of the older ones, which stay visible.

If nodes observed different bytes for one commit, the artifact that most members fetched counts, or, if that is equal,
the one that most members saw first. The others are reported as a dispute. Source: protocol, sections 5 and 6a.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, TypeVar

from comity.trust.claims import MirrorEvidence, Publication
from comity.trust.encoding import Digest, short
from comity.trust.errors import NotFound, PolicyNotMet
from comity.trust.frozen import frozen
from comity.trust.home_logs import HomePosition
from comity.trust.names import Reference, upstream_name
from comity.trust.policy import Policy

T = TypeVar("T")
Basis = Literal["bound", "pinned", "remembered", "first seen"]
DECIDED: Final = ("bound", "pinned")
"""Bases that are a decision about the name; with the others the name is only claimed."""


@frozen
class PublisherClaim:
    """A claimant of a name: the publisher with this id, or the upstream repository of the name if it is None."""

    publisher: Digest | None


MIRROR: Final = PublisherClaim(None)
NOT_BOUND: Final = "claimed, not bound"
"""How a basis ends that is no decision about the name."""


@frozen
class Preference:
    """The preferred claimant of a name, and the basis. For *first seen*: `members` of the `asked` members whose nodes
    answered saw this claimant first."""

    claimant: PublisherClaim
    basis: Basis
    members: int = 0
    asked: int = 0

    @property
    def decided(self) -> bool:
        return self.basis in DECIDED

    def __str__(self) -> str:
        if self.basis == "bound":
            return "your binding of its namespace"
        if self.basis == "pinned":
            return "the pinned charter's namespaces"
        if self.basis == "remembered":
            return f"an earlier resolution here; {NOT_BOUND}"
        if not self.members:
            return f"the only claimant; {NOT_BOUND}"
        return f"what {self.members} of {self.asked} member{'s' * (self.asked != 1)} saw first; {NOT_BOUND}"


def first_seen(sightings: Mapping[Digest, PublisherClaim | None]) -> Preference | None:
    """Return the claimant that most members saw first; None if no member saw one, or if the highest count is shared.

    Args:
        sightings: by member, the claimant that its nodes saw first; None if its nodes answered and know none.
    """
    found = majority_first(sightings)
    return Preference(found[0], "first seen", found[1], len(sightings)) if found else None


def majority_first(sightings: Mapping[Digest, T | None]) -> tuple[T, int] | None:
    """Return the item that most members saw first, and their number; None if the highest count is shared."""
    counted = Counter(seen for seen in sightings.values() if seen is not None).most_common(2)
    if not counted or (len(counted) > 1 and counted[0][1] == counted[1][1]):
        return None
    return counted[0]


def bound_claimant(policy: Policy, repository: str) -> Preference | None:
    """Return the claimant that the owner's bindings or a pinned charter body name; None if there is none."""
    namespace = repository.partition("/")[0]
    publisher = policy.bound_publisher(namespace)
    if publisher is None:
        return None
    owned = any(name.lower() == namespace.lower() for name in policy.bindings)
    return Preference(PublisherClaim(publisher), "bound" if owned else "pinned")


def preferred_claimant(
    repository: str,
    claimants: Iterable[PublisherClaim],
    preferences: Iterable[Preference],
    labels: Mapping[Digest, str],
) -> Preference | None:
    """Return the claimant of `repository`: the first of `preferences`, else the only claimant, else None.

    Args:
        labels: display names of publishers.

    Raises PolicyNotMet (NAME-DISPUTED) if there are several claimants and no preference.
    """
    for preference in preferences:
        return preference
    distinct = list(dict.fromkeys(claimants))
    if len(distinct) > 1:
        raise name_dispute(repository, distinct, labels)
    return Preference(distinct[0], "first seen") if distinct else None


def name_dispute(repository: str, claimants: Iterable[PublisherClaim], labels: Mapping[Digest, str]) -> PolicyNotMet:
    """Return the error NAME-DISPUTED: only the owner can decide between `claimants`."""
    listed = ", ".join(claimant_label(claimant, repository, labels) for claimant in claimants)
    return PolicyNotMet(
        f"{repository} has several claimants",
        why=f"its namespace is not bound, no claimant was seen first by most members, and {listed} claim it",
        hint=f"comity trust bind {repository.partition('/')[0]} IDENTITY",
        code="NAME-DISPUTED",
    )


def claimant_label(claimant: PublisherClaim, repository: str, labels: Mapping[Digest, str]) -> str:
    """Return the label of a claimant: `Swiss AI [51aa…]`, `the mirror of hf:org/name`."""
    if claimant.publisher is None:
        return f"the mirror of {upstream_name(repository)}"
    label = labels.get(claimant.publisher, "")
    return f"{label} [{claimant.publisher}]" if label else short(claimant.publisher)


@frozen
class Candidate:
    """A proven publication under a name. `position` is its position in the publisher's home logs, None if it is in none
    of them. `withdrawn`: the publisher itself yanked or superseded it; advisories of others do not withdraw."""

    publication: Publication
    position: HomePosition | None
    withdrawn: bool = False

    @property
    def artifact(self) -> Digest:
        return self.publication.published.artifact

    @property
    def version(self) -> str:
        return self.publication.published.name.version

    @property
    def publisher(self) -> Digest:
        return self.publication.publisher.id


def select_candidate(
    reference: Reference, candidates: Sequence[Candidate], preferences: Iterable[Preference]
) -> Candidate:
    """Return the candidate to which `reference` (without a digest) resolves.

    Args:
        preferences: preferred claimants of the name; the first one decides (see `preferred_claimant`).

    Raises NotFound (NOT-PUBLISHED, ALL-WITHDRAWN); PolicyNotMet if only the owner can decide: several claimants and no
    preference (NAME-DISPUTED), several digests for one version (VERSION-DISPUTED).
    """
    owned = _candidates_of_claimant(reference, candidates, preferences)
    if reference.version is not None:
        return _single(reference, owned)
    available = [candidate for candidate in owned if not candidate.withdrawn]
    if not available:
        raise NotFound(
            f"{reference} has only withdrawn versions",
            why=f"its publisher withdrew {', '.join(_versions(owned))}",
            hint=f"comity pull {owned[0].publication.published.name}",
            code="ALL-WITHDRAWN",
        )
    return _single(reference, _newest(available))


def resolved_versions(candidates: Iterable[Candidate], claimant: PublisherClaim) -> dict[str, Candidate]:
    """Return each version of a name by itself, in their order as text, with the candidate to which `select_candidate`
    resolves it where `claimant` is preferred. A version that names several artifacts is left out. The candidates are
    read once, however many versions there are."""
    by_version: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        if candidate.publisher == claimant.publisher:
            by_version.setdefault(candidate.version, []).append(candidate)
    single = (found for found in by_version.items() if len({candidate.artifact for candidate in found[1]}) == 1)
    return {version: newest_first(found)[0] for version, found in sorted(single)}


def _candidates_of_claimant(
    reference: Reference, candidates: Sequence[Candidate], preferences: Iterable[Preference]
) -> list[Candidate]:
    repository = reference.repository or ""
    labels = {candidate.publisher: candidate.publication.publisher.display for candidate in candidates}
    preference = preferred_claimant(repository, map(PublisherClaim, labels), preferences, labels)
    publisher = preference.claimant.publisher if preference else None
    every = [candidate for candidate in candidates if candidate.publisher == publisher]
    owned = [candidate for candidate in every if reference.version in (None, candidate.version)]
    if every and not owned:
        raise _no_version(reference, every)
    if not owned:
        why, hint = _not_published(repository, preference, labels)
        raise NotFound(f"{reference} is not published", why=why, hint=hint, code="NOT-PUBLISHED")
    return owned


LISTED: Final = 8
"""Versions that an error lists."""


def _no_version(reference: Reference, candidates: Iterable[Candidate]) -> NotFound:
    """Return the error NOT-PUBLISHED for a version that does not exist; it lists those that do, the newest first."""
    ordered = newest_first(candidates)
    versions = list(dict.fromkeys(candidate.version for candidate in ordered))
    withdrawn = {candidate.version for candidate in ordered if candidate.withdrawn}
    shown = ", ".join(f"{each} (withdrawn)" if each in withdrawn else each for each in versions[:LISTED])
    more = f" and {len(versions) - LISTED} more" if len(versions) > LISTED else ""
    best = next((each for each in versions if each not in withdrawn), versions[0])
    return NotFound(
        f"{reference} is not published",
        why=f"its publisher has these versions, the newest first: {shown}{more}",
        hint=f"comity pull {reference.repository}@{best}",
        code="NOT-PUBLISHED",
    )


def _not_published(repository: str, preference: Preference | None, labels: dict[Digest, str]) -> tuple[str, str]:
    """Return why and hint for NOT-PUBLISHED: the preferred claimant, which published nothing, and those that did."""
    others = [PublisherClaim(identity) for identity in labels]
    if preference is None or not others:
        return "", "comity search WORD"
    listed = ", ".join(claimant_label(other, repository, labels) for other in others)
    owner = claimant_label(preference.claimant, repository, labels)
    why = f"it is published only by {listed}, and the name belongs to {owner}: {preference}"
    if preference.decided:
        return why, "comity search WORD"
    return why, f"comity trust bind {repository.partition('/')[0]} IDENTITY"


def _newest(candidates: list[Candidate]) -> list[Candidate]:
    """The candidates of the newest version: the last one in the publisher's home log. If that log has none of them (the
    publisher has no home log, or that log is lost), the names of the versions decide."""
    newest = max(candidates, key=_age).version
    return [candidate for candidate in candidates if candidate.version == newest]


def version_order(version: str) -> tuple[list[tuple[int, str]], bool, list[tuple[int, str]], str]:
    """A key that sorts names of versions, oldest first: numbers by their value (v9 before v10), and a name with a
    suffix after `-` before the name without it (v2-rc1 before v2), as in Semantic Versioning 2.0.0, section 11."""
    core, _, suffix = version.partition("-")
    return _natural(core), not suffix, _natural(suffix), version


def _natural(text: str) -> list[tuple[int, str]]:
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _single(reference: Reference, candidates: list[Candidate]) -> Candidate:
    digests = {candidate.artifact for candidate in candidates}
    if len(digests) > 1:
        first = candidates[0].publication.published.name
        raise PolicyNotMet(
            f"{reference} names several artifacts",
            why=f"{first} was published as {', '.join(f'sha256:{digest}' for digest in sorted(digests))}",
            hint=f"comity trust bind {first} sha256:DIGEST",
            code="VERSION-DISPUTED",
        )
    return newest_first(candidates)[0]


def newest_first(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the statements of one publisher, the newest first: those in its home logs by their position, then the
    others by the names of their versions. Statements that nothing orders are sorted by their digest, so that everybody
    gets the same one."""
    return sorted(candidates, key=_age, reverse=True)


def _age(candidate: Candidate) -> tuple[object, ...]:
    return statement_age(candidate.position, candidate.version), candidate.publication.entry.digest


def statement_age(position: HomePosition | None, version: str) -> tuple[object, ...]:
    """The sort key by which of two statements of one publisher the newer one is the greater.

    Args:
        position: in its publisher's home logs; None if it is in none of them.
    """
    return position is not None, position or (), version_order(version)


def _versions(candidates: Iterable[Candidate]) -> list[str]:
    return sorted({candidate.version for candidate in candidates})


def most_corroborated(found: Mapping[Digest, MirrorEvidence], name: str) -> tuple[Digest, ...]:
    """Return the artifacts that most members fetched under the commit `name`; several if the highest count is shared. A
    member and its successors count once. A member that fetched different bytes under one commit does not count."""
    supporters = {
        digest: frozenset(member.lineage for member in mirroring.corroborating(name))
        for digest, mirroring in found.items()
        if name in mirroring.names
    }
    counts = Counter(member for members in supporters.values() for member in members)
    counted = {digest: sum(counts[member] == 1 for member in members) for digest, members in supporters.items()}
    most = max(counted.values(), default=0)
    return tuple(digest for digest, count in counted.items() if count == most)


def preferred_artifact(
    found: Mapping[Digest, MirrorEvidence], name: str, sightings: Mapping[Digest, Digest | None]
) -> Digest | None:
    """Return the artifact of the commit `name`; None if there are several and no preference.

    Args:
        sightings: by member, the artifact that its nodes saw first.
    """
    best = most_corroborated(found, name)
    if len(best) == 1:
        return best[0]
    first = majority_first({member: seen for member, seen in sightings.items() if seen in best})
    return first[0] if first else None
