"""What a name stands for, once it is known who proves to have said what. Pure; protocol, sections 5 and 6a.

Whose the name is follows from an order of preferences (`claimants`); it means what that publisher means by it. Others
who claim it are rivals: they are shown, and never make it ambiguous. Where nothing prefers one of several claimants, or
a publisher contradicts itself, it means nothing here, and they are listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from comity.trust.digest import Digest
from comity.trust.errors import NotFound, PolicyNotMet
from comity.trust.judging.claimants import Claimant, Preference, named, whose
from comity.trust.judging.reading import Publication
from comity.trust.names import Reference


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
    preference = whose(repository, map(Claimant, called), preferences, called)
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
    others = [Claimant(identity) for identity in called if preference and identity != preference.claimant.publisher]
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
