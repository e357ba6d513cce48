"""Whose a name is, by what is known of those who claim it. Pure; protocol, section 6a.

    (1) bound        the owner bound the namespace to a publisher
    (2) pinned       the namespaces of a pinned charter body name a publisher
    (3) remembered   it was resolved here before, and the answer is remembered
    (4) first seen   most members' nodes say that they saw this claimant first: *claimed*, nobody decided it

A claimant is a publisher, or the upstream repository of that name, which members' nodes mirrored. Later claims are
rivals: they are shown, and change nothing of this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from comity.trust.digest import Digest, short
from comity.trust.errors import PolicyNotMet
from comity.trust.names import UPSTREAM
from comity.trust.policy import Policy

T = TypeVar("T")
Basis = Literal["bound", "pinned", "remembered", "first seen"]
DECIDED: Final = ("bound", "pinned")
"""Bases by which somebody decided whose the name is; by the others it is only claimed."""


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who claims a name: the publisher with this id, or, where that is None, the upstream repository of the name."""

    publisher: Digest | None


MIRROR: Final = Claimant(None)


@dataclass(frozen=True, slots=True)
class Preference:
    """Whose the name is, and on what basis. Of those that are *first seen*, `members` of the `asked` members whose
    nodes answered say that they saw this claimant first."""

    claimant: Claimant
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


def first_seen(sightings: Mapping[Digest, Claimant | None]) -> Preference | None:
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
    return Preference(Claimant(publisher), "bound" if own else "pinned")


def whose(
    repository: str, claimants: Iterable[Claimant], preferences: Iterable[Preference], called: Mapping[Digest, str]
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


def disputed(repository: str, claimants: Iterable[Claimant], called: Mapping[Digest, str]) -> PolicyNotMet:
    """That only the owner can decide whose the name is."""
    listed = ", ".join(named(claimant, repository, called) for claimant in claimants)
    return PolicyNotMet(
        f"{repository} has several claimants",
        why=f"nobody is bound to its namespace, no claimant was seen first by most members, and {listed} claim it",
        hint=f"comity trust bind {repository.partition('/')[0]} IDENTITY",
        code="NAME-DISPUTED",
    )


def named(claimant: Claimant, repository: str, called: Mapping[Digest, str]) -> str:
    """A claimant as people read it: `Swiss AI [51aa…]`, `the mirror of hf:org/name`."""
    if claimant.publisher is None:
        return f"the mirror of {UPSTREAM}{repository}"
    label = called.get(claimant.publisher, "")
    return f"{label} [{claimant.publisher}]" if label else short(claimant.publisher)
