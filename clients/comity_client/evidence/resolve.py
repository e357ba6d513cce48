"""Resolve a reference to one artifact: ask the nodes, verify their answers, and let `comity.trust.resolution` decide.

(1) claimant      binding of the owner, pinned charter, remembered claimant, or the one that most members saw first
(2) version       the publications of that claimant only, independent of the number of other claimants

A reference to an upstream commit, `hf:org/name@commit`, resolves by the nodes that mirrored it. Only nodes of pinned
members count, each member once. If they saw different bytes for one commit, those that most members fetched win; if
equal, those that most members saw first. The others are listed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from comity.trust.bound_nodes import bind_nodes
from comity.trust.claims import MirrorEvidence, ParsedClaims, Publication, collect_mirror_evidence, proven_advisories
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, NotFound, PolicyNotMet, Unavailable
from comity.trust.key_validity import CompromiseNotice, compromise_notices, loss_rank, older_than_all
from comity.trust.names import UPSTREAM, Reference
from comity.trust.policy import Policy
from comity.trust.resolution import (
    Candidate,
    Preference,
    PublisherClaim,
    bound_claimant,
    claimant_label,
    first_seen,
    majority_first,
    newest_first,
    preferred_artifact,
    preferred_claimant,
    select_candidate,
)
from comity.trust.rows.findings import member_names
from comity.trust.statement import Entry
from comity.trust.statement_kinds import ADVISORY, OBSERVED
from comity.trust.statements import STATE_SETTING, Advisory
from comity.trust.upstream import Observed
from comity.wire.messages import LocatedEntry
from comity_client.evidence.collect import GatheredEvidence, NodeCollector
from comity_client.evidence.gather import Claims, claims_of, lines_by_log, prove_said, sightings
from comity_client.evidence.home_positions import HomePositions
from comity_client.evidence.prove import ProvenStatements
from comity_client.seen import KnownNames
from comity_client.session import Answers, Session
from comity_client.trust_store import Bindings

MAX_STATEMENTS: Final = 16
"""Statements of one publisher about one artifact whose order is proven."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """The artifact of a reference, the reason, and the gathered evidence.

    `publication` is the proven statement that decided, or the best one of an artifact named by digest; None if there
    is no proven publication. `basis` describes what decided, `collector` asks on, `mirroring` who mirrored it,
    `rivals` the other claimants. `statements` are those of the same publisher about these bytes, the newest first:
    the first one counts. `versions`: what the same publisher published under the name, if that was asked for; None if
    one version was.
    """

    reference: Reference
    artifact: Digest
    basis: str
    publication: Publication | None
    gathered: GatheredEvidence
    collector: NodeCollector
    advisories: tuple[Advisory, ...]
    mirroring: MirrorEvidence
    rivals: tuple[str, ...] = ()
    statements: tuple[Candidate, ...] = ()
    versions: tuple[Candidate, ...] | None = None

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
        return compromise_notices(self.gathered.readings, stated.publisher.id, stated.chain, stated.entry.envelope)

    @property
    def title(self) -> str:
        """The full name if there is one, else the name of the mirrored commit, else the digest."""
        if self.publication is not None and not self.reference.mirrored:
            return str(self.publication.published.name)
        return next(iter(self.mirroring.names), f"sha256:{self.artifact}")


async def resolve(
    session: Session, reference: Reference, policy: Policy, bindings: Bindings, names: KnownNames
) -> Resolution:
    """Resolve the reference. The claimant of a name that the owner did not decide is stored in `names`, so that later
    claims do not change it.

    Raises NotFound, Unavailable, and PolicyNotMet if only the owner can decide (see `resolution.decide`).
    """
    if reference.digest is not None:
        return await _resolve_artifact(session, reference, reference.digest, "its digest", policy)
    if (bound := _bound_artifact(reference, bindings)) is not None:
        return await _resolve_artifact(session, reference, bound, "your binding", policy)
    if reference.mirrored:
        mirroring = await _decide_mirrored(session, reference, policy)
        artifact = mirroring.seen[0].observed.artifact
        return await _resolve_artifact(session, reference, artifact, _mirror_basis(mirroring), policy)
    repository = reference.repository or ""
    preference, claims = await _preference(session, repository, policy, names)
    publisher = preference.claimant.publisher
    if publisher is None:
        raise _name_is_mirrored(reference, preference, claims)
    own = await _claims_of_publisher(session, reference, policy, publisher, claims)
    positions = HomePositions(session, policy)
    candidates = candidates_of(own, positions)
    try:
        chosen = await _choose_proven(positions, reference, candidates, preference)
    except NotFound as error:
        raise _with_silent(error, own) from None
    if not preference.decided:
        await asyncio.to_thread(names.remember, repository, preference.claimant)
    collector = NodeCollector(session, chosen.artifact, policy, publisher)
    gathered = await collector.run()
    return Resolution(
        reference,
        chosen.artifact,
        str(preference),
        chosen.publication,
        gathered,
        collector,
        _advisories(session, gathered),
        _mirror_evidence(gathered, policy),
        _rivals(preference, claims),
        await _statements(positions, gathered, chosen.publication),
        _published_by(publisher, candidates) if reference.version is None else None,
    )


async def versions(session: Session, repository: str, publisher: Digest, policy: Policy) -> tuple[Candidate, ...]:
    """Return every proven publication of `publisher` under the name of a repository. Raises NotFound, Unavailable."""
    claims = await claims_of(session, repository, None, policy, publisher)
    return _published_by(publisher, candidates_of(claims, HomePositions(session, policy)))


def _published_by(publisher: Digest, candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Nodes may answer with publications of other publishers than the one asked for."""
    return tuple(candidate for candidate in candidates if candidate.publication.publisher.id == publisher)


def candidates_of(claims: Claims, positions: HomePositions) -> tuple[Candidate, ...]:
    """Return the publications, each with its claimed position in the home logs of its publisher."""
    return tuple(
        Candidate(p, positions.claimed(p, claims.places.get(p.entry.line, ())), withdrawn(p, claims.proven.entries))
        for p in claims.publications
    )


async def _preference(
    session: Session, repository: str, policy: Policy, names: KnownNames
) -> tuple[Preference, Claims | None]:
    """Return the preferred claimant of the name and the claims of nodes; the claims are None if nodes did not
    answer."""
    known = await asyncio.to_thread(names.claimant, repository)
    preferences = [
        item for item in (bound_claimant(policy, repository), known and Preference(known, "remembered")) if item
    ]
    try:
        claims = await claims_of(session, repository, None, policy)
    except (NotFound, Unavailable):
        if not preferences:
            raise
        return preferences[0], None
    seen = first_seen(claims.sightings)
    preference = preferred_claimant(
        repository, claims.claimants, [*preferences, *([seen] if seen else [])], claims.labels
    )
    if preference is None:
        raise NotFound(f"{repository} is not published", hint="comity search WORD", code="NOT-PUBLISHED")
    return preference, claims


async def _claims_of_publisher(
    session: Session, reference: Reference, policy: Policy, publisher: Digest, claims: Claims | None
) -> Claims:
    """Return the publications of `publisher` under the name; if no node that answers has any of the version, those of
    other versions, or else `claims`, which the error then lists."""
    repository = reference.repository or ""
    try:
        return await claims_of(session, repository, reference.version, policy, publisher)
    except (NotFound, Unavailable):
        if reference.version is not None:
            with contextlib.suppress(NotFound, Unavailable):
                return await claims_of(session, repository, None, policy, publisher)
        if claims is None or not claims.rivals(PublisherClaim(publisher)):
            raise
        return claims


def _with_silent(error: NotFound, claims: Claims) -> NotFound:
    """The error, with the nodes that did not answer: they may know more."""
    if not claims.silent or error.code != "NOT-PUBLISHED":
        return error
    why = f"{error.why}; no answer of {', '.join(claims.silent)}, which may know more"
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


async def _resolve_artifact(
    session: Session, reference: Reference, artifact: Digest, why: str, policy: Policy
) -> Resolution:
    collector = NodeCollector(session, artifact, policy)
    gathered = await collector.run()
    publications = gathered.readings.publications
    named = [p for p in publications if reference.repository in (None, p.published.name.repository)]

    def priority(publication: Publication) -> tuple[bool, bool]:
        bound = policy.bound_publisher(publication.published.name.namespace)
        accepted = not policy.publishers or publication.publisher.id in policy.publishers
        return accepted, bound == publication.publisher.id

    best = max(named or publications, key=priority, default=None)
    statements: tuple[Candidate, ...] = ()
    if best is not None:
        statements = await _statements(HomePositions(session, policy), gathered, best)
        wanted = {publication.entry.digest for publication in named or publications}
        newest = (each.publication for each in statements if each.publication.entry.digest in wanted)
        best = next(newest, best)
    advisories = _advisories(session, gathered)
    mirroring = _mirror_evidence(gathered, policy)
    return Resolution(reference, artifact, why, best, gathered, collector, advisories, mirroring, statements=statements)


async def _statements(
    positions: HomePositions, gathered: GatheredEvidence, publication: Publication
) -> tuple[Candidate, ...]:
    """Return the statements about the artifact of the publisher of `publication`, as `order_statements` does."""
    own = [each for each in gathered.readings.publications if each.publisher.id == publication.publisher.id]
    if publication.entry.digest not in {each.entry.digest for each in own}:
        own.append(publication)
    return await order_statements(positions, own, gathered.places, gathered.readings)


async def order_statements(
    positions: HomePositions,
    stated: Iterable[Publication],
    places: Mapping[bytes, frozenset[tuple[str, int]]],
    claims: ParsedClaims | None = None,
) -> tuple[Candidate, ...]:
    """Return statements of one publisher about the same bytes, the newest first, by proven positions in its home logs;
    those that a lost key may have signed come last, as in a verdict. More than `MAX_STATEMENTS` are not ordered: the
    newest by the claimed positions come first.

    Args:
        places: the claimed places of lines.
        claims: with what the publisher says about its keys; without them no loss is known.
    """
    claimed = [Candidate(each, positions.claimed(each, places.get(each.entry.line, ()))) for each in stated]
    if len(claimed) < 2:
        return tuple(claimed)
    ordered = newest_first(await _proven(positions, newest_first(claimed)[:MAX_STATEMENTS]))
    if claims is None:
        return tuple(ordered)
    return tuple(sorted(ordered, key=lambda each: -loss_rank(_before_loss(positions, each, claims))))


def _before_loss(positions: HomePositions, stated: Candidate, claims: ParsedClaims) -> bool | None:
    """Whether a statement is older than every loss of its keys that its publisher reports."""
    by = stated.publication
    notices = compromise_notices(claims, by.publisher.id, by.chain, by.entry.envelope)
    home = positions.home(by)
    return older_than_all(home.position_before(stated.position, each.origin, each.index) for each in notices)


async def _proven(positions: HomePositions, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates with their proven positions."""
    found = await positions.of_all(candidate.publication for candidate in candidates)
    return [replace(candidate, position=place) for candidate, place in zip(candidates, found, strict=True)]


def _mirror_evidence(gathered: GatheredEvidence, policy: Policy) -> MirrorEvidence:
    readings = gathered.readings
    bound, _, _ = bind_nodes(policy.pins, readings.entries, readings.chains)
    return collect_mirror_evidence(readings.entries, gathered.artifact, bound)


def _bound_artifact(reference: Reference, bindings: Bindings) -> Digest | None:
    return bindings.artifacts.get(str(reference))


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
    found = await _proven(positions, [candidate for candidate in candidates if candidate.position is None])
    placed = [*(candidate for candidate in candidates if candidate.position is not None), *found]
    chosen = select_candidate(reference, placed, [preference])
    if chosen.position is None or await positions.of(chosen.publication) == chosen.position:
        return chosen
    proven = await _proven(positions, placed)
    return select_candidate(reference, proven, [preference]) if any(c.position is not None for c in proven) else chosen


def _advisories(session: Session, gathered: GatheredEvidence) -> tuple[Advisory, ...]:
    members = [member for federation in session.pins for member in federation.body.members]
    return proven_advisories(gathered.readings, gathered.artifact, (node.record for node in session.nodes), members)


def withdrawn(publication: Publication, entries: Iterable[Entry]) -> bool:
    """Whether one of these entries is an advisory by which the publisher yanks or supersedes the artifact."""
    publisher, artifact = publication.publisher, publication.published.artifact
    for entry in entries:
        statement = entry.statement
        if (statement.predicate, statement.by, statement.subject) != (ADVISORY, publisher.author, artifact):
            continue
        try:
            kind = Advisory.parse(statement).kind
        except Malformed:
            continue
        if kind in STATE_SETTING and publication.chain.signed(entry.envelope):
            return True
    return False


async def _decide_mirrored(session: Session, reference: Reference, policy: Policy) -> MirrorEvidence:
    """Return the proven evidence for the artifact that the reference resolves to.

    Raises NotFound (NOT-MIRRORED), Unavailable; PolicyNotMet if nodes contradict each other and no rule decides
    (UPSTREAM-DISPUTED) or the reference matches several commits (NO-ORDER).
    """
    answers = await session.ask(lambda node: node.resolve(reference.repository or "", None))
    if not answers.found:
        raise answers.failure(f"{reference} is not known")
    proven = prove_said(session, lines_by_log(answers.found), policy)
    found = _evidence_by_artifact(proven)
    wanted = {name for name, mirroring in _observed_commits(found) if _means_commit(reference, name, mirroring)}
    if not wanted:
        others = sorted(name for name, _ in _observed_commits(found) if name.partition("@")[0] == reference.repository)
        why = "no node of a pinned member claims to have fetched it"
        raise NotFound(
            f"{reference} is not mirrored here",
            why=f"{why}; they fetched {', '.join(others[:5])}" if others else why,
            hint=f"comity import {reference}",
            code="NOT-MIRRORED",
        )
    commit = _decide_commit(reference, wanted, found, answers, proven, policy)
    seen = sightings(answers, proven, policy, lambda entry: _observed_artifact(entry, commit))
    artifact = preferred_artifact(found, commit, seen)
    if artifact is None:
        raise _disputed_commit(commit, {digest: m for digest, m in found.items() if commit in m.names})
    return found[artifact]


def _decide_commit(
    reference: Reference,
    wanted: set[str],
    found: Mapping[Digest, MirrorEvidence],
    answers: Answers[tuple[LocatedEntry, ...]],
    proven: ProvenStatements,
    policy: Policy,
) -> str:
    """Return the commit of the reference: the only one, else the one that most members fetched, else the one that most
    members saw first. Raises PolicyNotMet (NO-ORDER)."""
    if len(wanted) == 1:
        return next(iter(wanted))
    counts = {
        name: len({m.lineage for mirroring in found.values() for m in mirroring.corroborating(name)}) for name in wanted
    }
    best = [name for name, count in counts.items() if count == max(counts.values())]
    if len(best) == 1:
        return best[0]
    first = majority_first(
        sightings(
            answers, proven, policy, lambda entry: _observed_name(entry) if _observed_name(entry) in best else None
        )
    )
    if first is not None:
        return first[0]
    listed = sorted(wanted)
    raise PolicyNotMet(
        f"{reference} is ambiguous",
        why=f"{len(listed)} commits are mirrored: {', '.join(listed[:5])}",
        hint=f"comity show {listed[0]}",
        code="NO-ORDER",
    )


def _mirror_basis(mirroring: MirrorEvidence) -> str:
    """Return text that names the members whose claims decided."""
    name = mirroring.names[0]
    members = mirroring.corroborating(name)
    if not members:
        return "a claim of a node that imported it from a folder; no node fetched it"
    return f"nodes that mirrored it; corroborated {len(members)}: {member_names(members)}"


def _evidence_by_artifact(proven: ProvenStatements) -> Mapping[Digest, MirrorEvidence]:
    observed = [entry for entry in proven.entries if entry.statement.predicate == OBSERVED]
    digests = dict.fromkeys(entry.statement.subject for entry in observed)
    found = {digest: collect_mirror_evidence(observed, digest, proven.bound) for digest in digests}
    return {digest: mirroring for digest, mirroring in found.items() if mirroring.seen}


def _observed_name(entry: Entry) -> str | None:
    """Return the name of the commit that a proven entry observed."""
    if entry.statement.predicate != OBSERVED:
        return None
    try:
        return Observed.parse(entry.statement).upstream.name
    except ComityError:
        return None


def _observed_artifact(entry: Entry, commit: str) -> Digest | None:
    return entry.statement.subject if _observed_name(entry) == commit else None


def _observed_commits(found: Mapping[Digest, MirrorEvidence]) -> Iterable[tuple[str, MirrorEvidence]]:
    return ((name, mirroring) for mirroring in found.values() for name in mirroring.names)


def _means_commit(reference: Reference, name: str, mirroring: MirrorEvidence) -> bool:
    repository, _, commit = name.partition("@")
    if repository != reference.repository:
        return False
    if reference.version in (None, commit):
        return True
    asked = (seen.observed.upstream for seen in mirroring.seen)
    return any(upstream.name == name and upstream.requested == reference.version for upstream in asked)


def _disputed_commit(name: str, rivals: Mapping[Digest, MirrorEvidence]) -> PolicyNotMet:
    listed = "; ".join(
        f"sha256:{digest} by {member_names([m for seen in mirroring.seen for m in seen.members])}"
        for digest, mirroring in sorted(rivals.items())
    )
    return PolicyNotMet(
        f"{name} is disputed",
        why=f"nodes observed different content: {listed}; all are kept",
        hint=f"comity trust bind {name} sha256:DIGEST",
        code="UPSTREAM-DISPUTED",
    )
