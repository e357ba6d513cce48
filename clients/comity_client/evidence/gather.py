"""Select proven lines from the answers of nodes, and gather the claims to a name.

The answer of a node is its own selection, so only lines that `prove` verifies are used. The answer about a name begins
with the oldest claim of each claimant; a member counts once, and not at all if its nodes disagree. `collect` gathers
what a verdict about an artifact needs, `proofs` the proofs that lines are logged.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

from comity.trust.charter.document import Body
from comity.trust.claims import ParsedClaims, Publication
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound
from comity.trust.policy import Policy
from comity.trust.resolution import MIRROR, PublisherClaim, claimant_label
from comity.trust.statement import Entry
from comity.trust.statement_kinds import KEY_PREDICATES, OBSERVED, PUBLISHED
from comity.trust.upstream import Observed
from comity.wire.messages import LocatedEntry
from comity_client.evidence.prove import ProvenStatements, choose, prove_lines
from comity_client.session import Answers, RemoteNode, Session


def select_lines(
    session: Session,
    sources: Mapping[str, Iterable[bytes]],
    policy: Policy,
    prefer: Sequence[Digest] = (),
    about: Set[Digest] | None = None,
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """Return the proven lines, as many as a verifier reads, and notes on the others.

    Args:
        about: the subjects of wanted statements; None for all.
    """
    proven = prove_said(session, sources, policy, lambda entry: about is None or is_about(entry, about))
    return chosen_lines(session, proven, policy, prefer)


def chosen_lines(
    session: Session, proven: ProvenStatements, policy: Policy, prefer: Sequence[Digest]
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """Return proven lines, as many as a verifier reads, those of `prefer` and of whom the policy names first, and notes
    on the others."""
    lines, left = choose(proven, session.records(), [*prefer, *policy.named])
    beyond = (f"{left} proven statements exceed the limit of a verifier and are left out",) if left else ()
    return lines, (*proven.notes(), *beyond)


def is_about(entry: Entry, subjects: Set[Digest]) -> bool:
    """Whether a statement is about one of these subjects."""
    return any(subject.digest in subjects for subject in entry.statement.subjects)


def prove_said(
    session: Session,
    sources: Mapping[str, Iterable[bytes]],
    policy: Policy,
    wanted: Callable[[Entry], bool] = lambda entry: True,
) -> ProvenStatements:
    """Verify lines by sender as `prove_lines` does, with the bodies, node records and reader of the session."""
    return prove_lines(sources, bodies_of(session, policy), session.records(), wanted, session.reader)


def bodies_of(session: Session, policy: Policy) -> tuple[Body, ...]:
    """Return the bodies that the policy pins and those of the session, because another policy may apply to the result
    later."""
    bodies = (*policy.pins, *(federation.body for federation in session.pins))
    return tuple({body.digest: body for body in bodies}.values())


def cut_authors(found: Mapping[RemoteNode, Iterable[LocatedEntry]], proven: ProvenStatements) -> frozenset[Digest]:
    """Return the authors of whom a node says that it has more statements than it gave. A node that says so of everybody
    makes nothing unknown: another node that gave as many proven statements, and says that these are all, counts."""
    marked: Counter[Digest] = Counter()
    whole: Counter[Digest] = Counter()
    for node, items in found.items():
        said = proven.sources.get(str(node.record.log), ())
        more = {item.line for item in items if item.more}
        numbers = Counter(who for entry in said if (who := author_of(entry)) is not None)
        cut = {author_of(entry) for entry in said if entry.line in more}
        for who, number in numbers.items():
            counted = marked if who in cut else whole
            counted[who] = max(counted[who], number)
    return frozenset(who for who, number in marked.items() if whole[who] < number)


def lines_by_log(found: Mapping[RemoteNode, Iterable[LocatedEntry]]) -> dict[str, list[bytes]]:
    """Return the lines of each node, by the verifier key of its log, which is unique to the node."""
    lines: dict[str, list[bytes]] = {}
    for node, items in found.items():
        lines.setdefault(str(node.record.log), []).extend(item.line for item in items)
    return lines


def places_of(located: Iterable[LocatedEntry]) -> dict[bytes, frozenset[tuple[str, int]]]:
    places: dict[bytes, set[tuple[str, int]]] = {}
    for item in located:
        places.setdefault(item.line, set()).add((item.origin, item.index))
    return {line: frozenset(found) for line, found in places.items()}


async def publisher_records(session: Session, claims: Iterable[Entry]) -> Mapping[Digest, ParsedClaims]:
    """Fetch the inceptions and rotations of the publishers of `claims`, if any node has them."""
    artifacts = {who: entry.statement.subject for entry in claims if (who := author_of(entry)) is not None}
    found = await asyncio.gather(*(_records(session, *item) for item in artifacts.items()))
    return dict(zip(artifacts, found, strict=True))


def prove_publication(entry: Entry, records: Mapping[Digest, ParsedClaims]) -> Publication | None:
    """Return the publication if one of `records` proves that its publisher signed it."""
    who = author_of(entry) or Digest("")
    return records[who].publication(entry) if who in records else None


def author_of(entry: Entry) -> Digest | None:
    return entry.statement.by.id if entry.statement.by else None


async def _records(session: Session, identity: Digest, artifact: Digest) -> ParsedClaims:
    """Return statements about the keys of `identity`, from the claims about one of its artifacts."""
    answers = await session.ask(lambda node: node.claims(artifact))
    claims = (session.reader.readable(item.line) for found in answers.found.values() for item in found)
    own = (
        entry
        for entry in claims
        if entry and author_of(entry) == identity and entry.statement.predicate in KEY_PREDICATES
    )
    return session.read_claims((entry.line for entry in own), artifact)


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Claims:
    """Proven claims to a name. `places`: claimed positions of lines; `sightings`: by member, the claimant that its
    nodes saw first, None if they know none; `mirrored`: a node of a member mirrored a repository of this name;
    `silent`: the nodes without an answer; `limited`: a node knows more claimants than it listed."""

    repository: str
    publications: tuple[Publication, ...]
    proven: ProvenStatements
    places: Mapping[bytes, frozenset[tuple[str, int]]]
    sightings: Mapping[Digest, PublisherClaim | None]
    mirrored: bool
    silent: tuple[str, ...] = ()
    limited: bool = False

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
        return (*others, "a further identity, which no node listed,") if self.limited else tuple(others)


async def claims_of(
    session: Session, repository: str, version: str | None, policy: Policy, publisher: Digest | None = None
) -> Claims:
    """Ask every node for the claims to a name; if `publisher` is given, only for its claims, so that the answer does
    not depend on the number of other claimants. Raises NotFound, Unavailable."""
    answers: Answers[tuple[LocatedEntry, ...]] = await session.ask(
        lambda node: node.resolve(repository, version, publisher, policy.named)
    )
    if not answers.found:
        asked = f"{repository}@{version}" if version else repository
        raise answers.failure(f"{asked} is not known", otherwise=f"comity search {repository.rpartition('/')[2]}")
    proven = prove_said(session, lines_by_log(answers.found), policy)
    publications = [proven.readings.publication(e) for e in proven.entries if e.statement.predicate == PUBLISHED]
    own = tuple(p for p in publications if p is not None and _same_name(p.published.name.repository, repository))
    located = [item for found in answers.found.values() for item in found]
    return Claims(
        repository,
        own,
        proven,
        places_of(located),
        sightings(answers, proven, policy, lambda entry: _claimant(entry, repository)),
        any(_claimant(entry, repository) == MIRROR for entry in proven.entries),
        tuple(sorted(node.name for node, error in answers.failed.items() if not isinstance(error, NotFound))),
        any(each.others for each in located),
    )


def sightings(
    answers: Answers[tuple[LocatedEntry, ...]],
    proven: ProvenStatements,
    policy: Policy,
    seen: Callable[[Entry], T | None],
) -> dict[Digest, T | None]:
    """Return what the nodes of each active member of a pinned body saw first; None for a member that answers but knows
    nothing or contradicts itself.

    Args:
        seen: returns what an entry shows, None if it is not relevant.
    """
    seats = {member.id: member.lineage for body in policy.pins for member in body.active}
    values: dict[Digest, set[T | None]] = {}
    for node in answers.found:
        entries = proven.sources.get(str(node.record.log), ())
        first = next((found for entry in entries if (found := seen(entry)) is not None), None)
        if node.member.id in seats:
            values.setdefault(seats[node.member.id], set()).add(first)
    for node, error in answers.failed.items():
        if isinstance(error, NotFound) and node.member.id in seats:
            values.setdefault(seats[node.member.id], set())
    return {member: _single(found) for member, found in values.items()}


def _single(found: set[T | None]) -> T | None:
    known = [item for item in found if item is not None]
    return known[0] if len(known) == 1 else None


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
