"""Who claims a name, by what nodes answer: publications that are proven, and whom each member's nodes saw first.

A node's answer begins with the oldest claim of each claimant, in the order in which it saw them. A member has one
voice, however many nodes it has: where they disagree it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from comity.trust.digest import Digest
from comity.trust.errors import ComityError, NotFound
from comity.trust.judging.claimants import MIRROR, Claimant, named
from comity.trust.judging.reading import Publication
from comity.trust.policy import Policy
from comity.trust.statement import Entry
from comity.trust.upstream.observed import OBSERVED, Observed
from comity.wire.values import Located

from comity_client.evidence.gather import bodies_of, lines_of, places_of, publication_of
from comity_client.evidence.proving import Proven, prove_lines
from comity_client.nodes.session import Answers, Session

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Claims:
    """What is proven about a name. `places` says where nodes claim that lines stand; `sightings` by member whom its
    nodes saw first, None for one that knows nobody; `mirrored` that a member's node mirrored a repository of the name.
    """

    repository: str
    publications: tuple[Publication, ...]
    proven: Proven
    places: Mapping[bytes, frozenset[tuple[str, int]]]
    sightings: Mapping[Digest, Claimant | None]
    mirrored: bool

    @property
    def claimants(self) -> tuple[Claimant, ...]:
        found = dict.fromkeys(Claimant(publication.publisher.id) for publication in self.publications)
        return (*found, MIRROR) if self.mirrored else tuple(found)

    @property
    def called(self) -> dict[Digest, str]:
        """What publishers call themselves."""
        return {p.publisher.id: p.publisher.display for p in self.publications}

    def rivals(self, owner: Claimant) -> tuple[str, ...]:
        """Who else claims it, for people."""
        return tuple(named(each, self.repository, self.called) for each in self.claimants if each != owner)


async def claims_of(
    session: Session, repository: str, version: str | None, policy: Policy, publisher: Digest | None = None
) -> Claims:
    """Ask every node who claims a name; about `publisher`'s claims alone where one is given: that answer does not
    depend on how many others claim it. Raises NotFound, Unavailable."""
    answers: Answers[tuple[Located, ...]] = await session.ask(lambda node: node.resolve(repository, version, publisher))
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
    answers: Answers[tuple[Located, ...]], proven: Proven, policy: Policy, seen: Callable[[Entry], T | None]
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


def _claimant(entry: Entry, repository: str) -> Claimant | None:
    """Who claims the repository by this entry, which is proven to be its author's."""
    statement = entry.statement
    if statement.predicate == "published" and statement.by is not None:
        name = statement.subjects[0].name.partition("@")[0]
        return Claimant(statement.by.id) if _same(name, repository) else None
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
