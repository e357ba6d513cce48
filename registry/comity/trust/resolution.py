"""Whose a name is, by what is known of those who claim it. Pure; protocol, section 6a.

    (1) bound        the owner bound the namespace to a publisher
    (2) pinned       the namespaces of a pinned charter body name a publisher
    (3) remembered   it was resolved here before, and the answer is remembered
    (4) first seen   most members' nodes say that they saw this claimant first: *claimed*, nobody decided it

A claimant is a publisher, or the upstream repository of that name, which members' nodes mirrored. Later claims are
rivals: they are shown, and change nothing of this.


What a name stands for, once it is known who proves to have said what. Pure; protocol, sections 5 and 6a.

Whose the name is follows from an order of preferences (`claimants`); it means what that publisher means by it. Others
who claim it are rivals: they are shown, and never make it ambiguous. Where nothing prefers one of several claimants, or
a publisher contradicts itself, it means nothing here, and they are listed.


Which bytes a commit stands for where nodes observed different ones. Pure; protocol, section 6a.

A commit has one content, so somebody is wrong. What most members fetched themselves counts; of equally many, what most
members' nodes saw first. The other observations stay, and are shown as a dispute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from comity.trust.claims import MirrorEvidence, Publication
from comity.trust.encoding import Digest, short
from comity.trust.errors import NotFound, PolicyNotMet
from comity.trust.names import UPSTREAM, Reference
from comity.trust.policy import Policy

T = TypeVar("T")
Basis = Literal["bound", "pinned", "remembered", "first seen"]
DECIDED: Final = ("bound", "pinned")
"""Bases by which somebody decided whose the name is; by the others it is only claimed."""


@dataclass(frozen=True, slots=True)
class PublisherClaim:
    """Who claims a name: the publisher with this id, or, where that is None, the upstream repository of the name."""

    publisher: Digest | None


MIRROR: Final = PublisherClaim(None)


@dataclass(frozen=True, slots=True)
class Preference:
    """Whose the name is, and on what basis. Of those that are *first seen*, `members` of the `asked` members whose
    nodes answered say that they saw this claimant first."""

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
            return "resolved here before; claimed, not bound"
        if not self.members:
            return "its only claimant; claimed, not bound"
        return f"first seen by {self.members} of {self.asked} member{'s' * (self.asked != 1)}; claimed, not bound"


def first_seen(sightings: Mapping[Digest, PublisherClaim | None]) -> Preference | None:
    """The claimant whom most members saw first; None where nobody saw any, or no claimant is ahead of all others.

    Args:
        sightings: by member, whom its nodes saw first; None for one that answered and knows nobody.
    """
    found = most_first(sightings)
    return Preference(found[0], "first seen", found[1], len(sightings)) if found else None


def most_first(sightings: Mapping[Digest, T | None]) -> tuple[T, int] | None:
    """What most members saw first, and how many did; None where nothing is ahead of all others."""
    counted = Counter(seen for seen in sightings.values() if seen is not None).most_common(2)
    if not counted or (len(counted) > 1 and counted[0][1] == counted[1][1]):
        return None
    return counted[0]


def decided(policy: Policy, repository: str) -> Preference | None:
    """Whose the name is by a decision: of the owner, or of a pinned charter body."""
    namespace = repository.partition("/")[0]
    publisher = policy.bound_publisher(namespace)
    if publisher is None:
        return None
    own = any(name.lower() == namespace.lower() for name in policy.bindings)
    return Preference(PublisherClaim(publisher), "bound" if own else "pinned")


def whose(
    repository: str,
    claimants: Iterable[PublisherClaim],
    preferences: Iterable[Preference],
    called: Mapping[Digest, str],
) -> Preference | None:
    """Who decides what `repository` means: the first of `preferences`; where there is none the only claimant; None
    where nobody claims it.

    Args:
        called: what publishers are called, for people.

    Raises PolicyNotMet (NAME-DISPUTED) where several claim it and nothing prefers one of them.
    """
    for preference in preferences:
        return preference
    several = list(dict.fromkeys(claimants))
    if len(several) > 1:
        raise disputed(repository, several, called)
    return Preference(several[0], "first seen") if several else None


def disputed(repository: str, claimants: Iterable[PublisherClaim], called: Mapping[Digest, str]) -> PolicyNotMet:
    """That only the owner can decide whose the name is."""
    listed = ", ".join(named(claimant, repository, called) for claimant in claimants)
    return PolicyNotMet(
        f"{repository} has several claimants",
        why=f"nobody is bound to its namespace, no claimant was seen first by most members, and {listed} claim it",
        hint=f"comity trust bind {repository.partition('/')[0]} IDENTITY",
        code="NAME-DISPUTED",
    )


def named(claimant: PublisherClaim, repository: str, called: Mapping[Digest, str]) -> str:
    """A claimant as people read it: `Swiss AI [51aa…]`, `the mirror of hf:org/name`."""
    if claimant.publisher is None:
        return f"the mirror of {UPSTREAM}{repository}"
    label = called.get(claimant.publisher, "")
    return f"{label} [{claimant.publisher}]" if label else short(claimant.publisher)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A proven publication under a name. `index` is its place in the publisher's home log, None where it is not there;
    `withdrawn` says that its own publisher moved its bare name on (yank, superseded). Nobody else's advisory does."""

    publication: Publication
    index: int | None
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


def decide(reference: Reference, candidates: Sequence[Candidate], preferences: Iterable[Preference]) -> Candidate:
    """The one candidate that `reference` (without a digest) stands for.

    Args:
        preferences: whose the name is, the first one decides (see `claimants.whose`).

    Raises NotFound (code NOT-PUBLISHED, ALL-WITHDRAWN); PolicyNotMet where only the owner can decide: several claimants
    and no preference (NAME-DISPUTED), several digests for one version (VERSION-DISPUTED), versions without an order
    (NO-ORDER).
    """
    own = _published(reference, candidates, preferences)
    if reference.version is not None:
        return _only(reference, own)
    standing = [candidate for candidate in own if not candidate.withdrawn]
    if not standing:
        raise NotFound(
            f"{reference} has no version that its publisher stands by",
            why=f"withdrawn: {', '.join(_versions(own))}",
            hint=f"comity pull {own[0].publication.published.name}",
            code="ALL-WITHDRAWN",
        )
    return _only(reference, _newest(reference, standing))


def _published(
    reference: Reference, candidates: Sequence[Candidate], preferences: Iterable[Preference]
) -> list[Candidate]:
    repository = reference.repository or ""
    called = {candidate.publisher: candidate.publication.publisher.display for candidate in candidates}
    preference = whose(repository, map(PublisherClaim, called), preferences, called)
    publisher = preference.claimant.publisher if preference else None
    own = [candidate for candidate in candidates if candidate.publisher == publisher]
    if reference.version is not None:
        own = [candidate for candidate in own if candidate.version == reference.version]
    if not own:
        why, hint = _not_published(repository, preference, called)
        raise NotFound(f"{reference} is not published", why=why, hint=hint, code="NOT-PUBLISHED")
    return own


def _not_published(repository: str, preference: Preference | None, called: dict[Digest, str]) -> tuple[str, str]:
    """Why there is nothing, and what to do: whose the name is, and who else claims it."""
    others = [
        PublisherClaim(identity) for identity in called if preference and identity != preference.claimant.publisher
    ]
    if preference is None or not others:
        return "", "comity search WORD"
    listed = ", ".join(named(other, repository, called) for other in others)
    owner = named(preference.claimant, repository, called)
    why = f"only by {listed}, and the name is that of {owner}: {preference}"
    if preference.decided:
        return why, "comity search WORD"
    return why, f"comity trust bind {repository.partition('/')[0]} IDENTITY"


def _newest(reference: Reference, candidates: list[Candidate]) -> list[Candidate]:
    """The candidates of the newest version: the last one to enter the publisher's home log."""
    if len(_versions(candidates)) == 1:
        return candidates
    ordered = [candidate for candidate in candidates if candidate.index is not None]
    if not ordered:
        versions = ", ".join(_versions(candidates))
        raise PolicyNotMet(
            f"{reference} has several versions and no order",
            why=f"{versions} are in other logs than the publisher's home log, and only that one orders them",
            hint=f"comity pull {candidates[0].publication.published.name}",
            code="NO-ORDER",
        )
    newest = max(ordered, key=lambda candidate: candidate.index or 0)
    return [candidate for candidate in candidates if candidate.version == newest.version]


def _only(reference: Reference, candidates: list[Candidate]) -> Candidate:
    digests = {candidate.artifact for candidate in candidates}
    if len(digests) > 1:
        first = candidates[0].publication.published.name
        raise PolicyNotMet(
            f"{reference} stands for several artifacts",
            why=f"{first} was published as {', '.join(f'sha256:{digest}' for digest in sorted(digests))}",
            hint=f"comity trust bind {first} sha256:DIGEST",
            code="VERSION-DISPUTED",
        )
    return max(candidates, key=lambda candidate: -1 if candidate.index is None else candidate.index)


def _versions(candidates: Iterable[Candidate]) -> list[str]:
    return sorted({candidate.version for candidate in candidates})


def most_corroborated(found: Mapping[Digest, MirrorEvidence], name: str) -> tuple[Digest, ...]:
    """The artifacts that most members fetched under the commit `name`, each member and its successors once; several
    where equally many fetched them. A member that fetched different bytes under one commit contradicts itself, and
    counts for none."""
    voices = {
        digest: frozenset(member.lineage for member in mirroring.corroborating(name))
        for digest, mirroring in found.items()
        if name in mirroring.names
    }
    said = Counter(member for members in voices.values() for member in members)
    counted = {digest: sum(said[member] == 1 for member in members) for digest, members in voices.items()}
    most = max(counted.values(), default=0)
    return tuple(digest for digest, count in counted.items() if count == most)


def stands_for(
    found: Mapping[Digest, MirrorEvidence], name: str, sightings: Mapping[Digest, Digest | None]
) -> Digest | None:
    """The artifact that the commit stands for; None where nothing prefers one of several.

    Args:
        sightings: by member, which of the artifacts its nodes saw first.
    """
    best = most_corroborated(found, name)
    if len(best) == 1:
        return best[0]
    first = most_first({member: seen for member, seen in sightings.items() if seen in best})
    return first[0] if first else None
