"""What is known about one artifact: its publication and versions, who said what about it, and which nodes have a copy.

Statements are verified where they are judged. Which blobs a node has is its answer, and where a statement is in a log
is a claim of the nodes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import Any

from comity.federation_file import Federation
from comity.rules.artifact_kind import MODEL, claimed_kind
from comity.rules.audit import DAY
from comity.rules.collected import CollectedEvidence
from comity.rules.collector import Collector
from comity.rules.continuation import ContinuedCommit, continued_commits, continued_repositories, upstream_key
from comity.rules.copy_counts import NOT_COUNTED, ClaimedCopy, assess
from comity.trust.artifact import Manifest
from comity.trust.claims import (
    MirrorEvidence,
    ParsedClaims,
    Publication,
    RivalPublication,
    Vouch,
    collect_mirror_evidence,
    rivals,
    verify_advisories,
    verify_checks,
    verify_vouches,
)
from comity.trust.copies import HoldWithdrawn
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, Unavailable
from comity.trust.evidence import InclusionEvidence, RowFact
from comity.trust.frozen import frozen
from comity.trust.key_validity import CompromiseNotice, JudgedPublication, KeyCircumstances, compromise_notices
from comity.trust.node_records import signed_by_node
from comity.trust.places import Place, Reach, declared_reach
from comity.trust.policy import Policy
from comity.trust.resolution import Candidate
from comity.trust.rows.findings import check_facts
from comity.trust.statement import Entry
from comity.trust.statement_kinds import HOLD_PREDICATES, HOLD_WITHDRAWN
from comity.trust.statements import Advisory
from comity.wire.client import NodeClient
from comity.wire.limits import STAT_DIGESTS

from comity_client.cache_basis import CacheBasis
from comity_client.copies import LoggedResult, audit_results
from comity_client.evidence.collect import collect
from comity_client.evidence.home_positions import proven_indexes
from comity_client.evidence.inquiry import Inquiry, is_about
from comity_client.evidence.known_since import KnownSince, cosigned_since, proven_times
from comity_client.evidence.names import versions
from comity_client.evidence.proofs import fetch_ahead, fetch_object, prove_kinds
from comity_client.evidence.resolve import DecidedArtifact, Resolution
from comity_client.session import RemoteNode, Session


@frozen
class ArtifactStatement:
    """One statement about an artifact: its kind, its author, the claimed log positions, and since when it is known."""

    predicate: str
    by: str
    places: tuple[tuple[str, int], ...]
    known_since: KnownSince | None = None


@frozen
class Replica:
    """A node and its copy. `claimed`: a signed statement of the node about the copy was found; `held` of `files` blobs
    are there according to its answer, None if it does not answer (`why`). `withdrawn` is the reason if it withdrew the
    claim later; `audits` are the newest results that other members' nodes logged and signed about its copy, or say that
    they will log; `place` is what the node record of the pin declares about its machines. `state` is what all of that
    makes of the claim today (one of `copy_counts.STATES`), empty without a claim. `known_since`: that of its newest
    claim."""

    node: str
    member: str
    jurisdiction: str
    claimed: bool
    held: int | None
    files: int
    why: str = ""
    withdrawn: str = ""
    audits: tuple[LoggedResult, ...] = ()
    place: Place | None = None
    state: str = ""
    known_since: KnownSince | None = None

    @property
    def counts(self) -> bool:
        """Whether it counts as a copy: claimed, or answered in full, and not withdrawn or found to be bad."""
        return (self.claimed or self.complete) and self.state not in NOT_COUNTED

    @property
    def reach(self) -> Reach:
        """The jurisdictions whose law reaches the copy; empty where nothing is declared."""
        return declared_reach(self.jurisdiction, self.place)

    @property
    def complete(self) -> bool:
        return self.held == self.files


@frozen
class ArtifactInfo:
    """All information about one artifact. `statements` are those of its publisher about these bytes, the newest first;
    the licence, the lineage and the documents are those of `current`, the first one. `advised`: proven advisories, each
    with its entry. `known`: since when statements are known, by line, as proofs here show or nodes say. `not_read` says
    what a limit left out. `kind`: what the publisher states, else a model. `continued`: the commits of upstreams whose
    bytes somebody says these are, with what is said of each. `cache`: no node gave it, and all of this is
    what an earlier pull left."""

    title: str
    artifact: Digest
    basis: str
    publication: Publication | None
    manifest: Manifest
    versions: tuple[Candidate, ...]
    advised: tuple[tuple[Entry, Advisory], ...]
    said: tuple[ArtifactStatement, ...] = field(default=())
    checks: tuple[RowFact, ...] = field(default=())
    vouches: tuple[Vouch, ...] = field(default=())
    lost_keys: tuple[CompromiseNotice, ...] = field(default=())
    rivals: tuple[RivalPublication, ...] = field(default=())
    mirroring: MirrorEvidence = field(default=MirrorEvidence((), (), ()))
    statements: tuple[Candidate, ...] = field(default=())
    not_read: tuple[str, ...] = field(default=())
    cache: CacheBasis | None = None
    known: Mapping[bytes, KnownSince] = field(default_factory=dict)
    kind: str = field(default=MODEL)
    continued: tuple[ContinuedCommit, ...] = ()

    @property
    def advisories(self) -> tuple[Advisory, ...]:
        return tuple(advisory for _, advisory in self.advised)

    @property
    def withdrawn(self) -> bool:
        """Whether its publisher yanked or superseded it."""
        by = self.publication
        return by is not None and any(each.withdraws_for(by.publisher.id) for each in self.advisories)

    def known_since(self, entry: Entry) -> KnownSince | None:
        """By when a statement was known; None if nothing here shows it, and no node says it."""
        return self.known.get(entry.line)

    @property
    def current(self) -> Publication | None:
        return self.statements[0].publication if self.statements else self.publication


async def describe_artifact(resolution: Resolution, proofs: tuple[InclusionEvidence, ...] = ()) -> ArtifactInfo:
    """Raises NotFound, Unavailable.

    Args:
        proofs: those that are here of statements of its publisher about it, not verified.
    """
    inquiry, evidence, publication = resolution.inquiry, resolution.evidence, resolution.publication
    manifest = Manifest.parse(await fetch_object(inquiry.session, resolution.artifact))
    others = resolution.decision.versions
    if others is None and publication is not None:
        others = await inquiry.session.ahead.take(*_versions(inquiry, publication))
    nodes = {node.record.node.id: node.record.name for node in inquiry.session.nodes}
    known = _known(resolution, others or (), proofs)
    said = tuple(
        ArtifactStatement(
            entry.statement.predicate,
            _author_name(entry, evidence.claims, nodes),
            tuple(sorted(evidence.places.get(entry.line, ()))),
            known.get(entry.line),
        )
        for entry in evidence.claims.entries
        if is_about(entry, resolution.artifact)
    )
    return ArtifactInfo(
        title=resolution.title,
        artifact=resolution.artifact,
        basis=resolution.basis,
        publication=publication,
        manifest=manifest,
        versions=others or (),
        advised=resolution.advised,
        said=said,
        mirroring=resolution.mirroring,
        statements=resolution.statements,
        vouches=evidence.vouches(),
        lost_keys=resolution.lost_keys,
        rivals=rivals(evidence.claims, publication) if publication else (),
        checks=_checks(evidence.claims, resolution.artifact, inquiry.policy),
        not_read=evidence.bounds,
        continued=await _continued(inquiry, evidence),
        known=known,
        kind=await _kind(inquiry, evidence, publication) if publication else MODEL,
    )


async def _kind(inquiry: Inquiry, evidence: CollectedEvidence, publication: Publication) -> str:
    given = (await prove_kinds(inquiry.session, evidence)).circumstances(inquiry.session.reader)
    return claimed_kind(given, publication.publisher.id, evidence.artifact)


async def _continued(inquiry: Inquiry, evidence: CollectedEvidence) -> tuple[ContinuedCommit, ...]:
    """Ask who says which bytes the commits had that the artifact is said to continue. Statements by keys that were
    retired since do not count here: their proofs are not fetched."""
    found: list[ContinuedCommit] = []
    for repository in continued_repositories(evidence.claims.entries, evidence.artifact, inquiry.policy):
        try:
            about = await collect(inquiry, Collector(upstream_key(repository), inquiry.policy))
        except (NotFound, Unavailable):
            continue
        given = KeyCircumstances(about.claims, (), about.bound, inquiry.policy, {}, inquiry.session.reader)
        commits = await asyncio.to_thread(continued_commits, given)
        found += (each for each in commits.values() if evidence.artifact in each.members)
    return tuple(found)


def _known(
    resolution: Resolution, others: Iterable[Candidate], proofs: tuple[InclusionEvidence, ...]
) -> Mapping[bytes, KnownSince]:
    """Since when the statements about an artifact, and `others`, are known."""
    inquiry, evidence = resolution.inquiry, resolution.evidence
    lines = (*evidence.lines, *(each.publication.entry.line for each in (*resolution.statements, *others)))
    claimed = {line: since for line in lines if (since := inquiry.claimed_times.of(line)) is not None}
    stated = (each.publication for each in resolution.statements)
    return claimed | proven_times(evidence, stated, proofs, inquiry.session.reader)


def kept_advisories(
    given: KeyCircumstances, artifact: Digest, pins: Iterable[Federation]
) -> tuple[tuple[Entry, Advisory], ...]:
    """The advisories about an artifact that statements which were kept prove, each with its entry. Their authors are
    those that count when nodes are asked: publishers, and the members and nodes of `pins`; and those of the policy."""
    federations = tuple(pins)
    bodies = (*given.policy.pins, *(pin.body for pin in federations))
    nodes = (*(node.record for node in given.bound), *(node.record for pin in federations for node in pin.nodes))
    members = [member for body in bodies for member in body.members]
    return verify_advisories(given.claims, artifact, nodes, members)[0]


def kept_info(
    title: str,
    manifest: bytes,
    given: KeyCircumstances,
    chosen: JudgedPublication | None,
    cache: CacheBasis,
    pins: Iterable[Federation],
) -> ArtifactInfo:
    """Describe an artifact from statements that were kept, without a node: nothing says who holds it now, nor where the
    statements are in logs. `chosen`: the publication that counts, judged with the proofs that were kept.
    `pins`: those of the user."""
    artifact, publication = sha256(manifest), chosen.publication if chosen else None
    stated, policy = given.claims, given.policy
    since = cosigned_since(chosen, policy) if chosen else None
    known = {publication.entry.line: since} if publication and since else {}
    own = tuple(Candidate(publication, None) for publication in ([publication] if publication else []))
    about = (entry for entry in stated.entries if is_about(entry, artifact))
    bound = given.bound
    nodes = {node.record.node.id: node.record.name for node in bound}
    by = (publication.publisher.id, publication.chain, publication.entry.envelope) if publication else None
    return ArtifactInfo(
        title=title,
        artifact=artifact,
        basis=cache.text,
        publication=publication,
        manifest=Manifest.parse(manifest),
        versions=(),
        advised=kept_advisories(given, artifact, pins),
        said=tuple(
            ArtifactStatement(e.statement.predicate, _author_name(e, stated, nodes), (), known.get(e.line))
            for e in about
        ),
        mirroring=collect_mirror_evidence(stated.entries, artifact, bound),
        statements=own,
        vouches=verify_vouches(stated, artifact, stated.authors(policy.pins))[0],
        lost_keys=compromise_notices(stated, *by) if by else (),
        rivals=rivals(stated, publication) if publication else (),
        checks=_checks(stated, artifact, policy),
        cache=cache,
        known=known,
        kind=claimed_kind(given, publication.publisher.id, artifact) if publication else MODEL,
    )


def describe_ahead(inquiry: Inquiry, decision: DecidedArtifact) -> None:
    """Begin what `describe_artifact` will ask about an artifact whose evidence is being collected."""
    fetch_ahead(inquiry.session, [decision.artifact])
    if decision.versions is None and decision.chosen is not None:
        inquiry.session.ahead.begin(*_versions(inquiry, decision.chosen))


def _versions(
    inquiry: Inquiry, publication: Publication
) -> tuple[tuple[Inquiry, str, Digest], Callable[[], Coroutine[Any, Any, tuple[Candidate, ...]]]]:
    """The question for the versions that a publisher published under a name: its key, and how it is asked."""
    repository, publisher = publication.published.name.repository, publication.publisher.id
    return (inquiry, repository, publisher), partial(versions, inquiry, repository, publisher)


def _checks(readings: ParsedClaims, artifact: Digest, policy: Policy) -> tuple[RowFact, ...]:
    """Return the verifications that others claim; their signatures are verified."""
    checks, _ = verify_checks(readings, artifact, [seat for body in policy.pins for seat in body.members])
    return check_facts(checks, readings, policy.pins)


async def replicas(resolution: Resolution) -> list[Replica]:
    """Return what each node of the pinned federations claims and now answers about its copy."""
    session, evidence = resolution.inquiry.session, resolution.evidence
    manifest = Manifest.parse(await fetch_object(session, resolution.artifact))
    wanted = sorted({entry.sha256 for entry in manifest.files})
    answers = await session.ask(lambda node: _count_stored_blobs(node, wanted))
    claimed, times = _claimants(evidence), resolution.inquiry.claimed_times
    withdrawn = await _withdrawn(session, evidence.claims, evidence.places, resolution.artifact)
    audits, today = await audit_results(session, resolution.artifact), int(time.time()) // DAY
    found = []
    for node in session.nodes:
        own = node.record.node.id
        tests = tuple(each for each in audits if each.prover == own and each.result.auditor != node.member.id)
        copy = ClaimedCopy(node.member.id, own, node.jurisdiction, withdrawn.get(own, ""))
        replica = Replica(
            node=node.name,
            member=node.member.name,
            jurisdiction=node.jurisdiction,
            claimed=own in claimed and not copy.withdrawn,
            held=answers.found.get(node),
            files=len(wanted),
            why=str(answers.failed.get(node, "")),
            withdrawn=copy.withdrawn,
            audits=tests,
            place=node.record.place,
            state=assess(copy, [each.result for each in tests], today).state if own in claimed else "",
            known_since=times.of(claimed[own]) if own in claimed and not copy.withdrawn else None,
        )
        found.append(replica)
    return found


async def _count_stored_blobs(node: NodeClient, digests: Sequence[Digest]) -> int:
    count = 0
    for start in range(0, len(digests), STAT_DIGESTS):
        count += sum(stat.have for stat in await node.stat(digests[start : start + STAT_DIGESTS]))
    return count


def _claimants(evidence: CollectedEvidence) -> Mapping[Digest, bytes]:
    """Return the online keys of pinned nodes that claim a copy of the artifact, each with the line of its newest claim
    by the claimed positions; its logging is not verified here."""

    def newest(entry: Entry) -> int:
        return max((index for _, index in evidence.places.get(entry.line, ())), default=-1)

    holds = sorted(evidence.claims.about(evidence.artifact, *HOLD_PREDICATES), key=newest)
    return {node.record.node.id: e.line for node in evidence.bound for e in holds if signed_by_node(e, node.record)}


async def _withdrawn(
    session: Session,
    readings: ParsedClaims,
    places: Mapping[bytes, Collection[tuple[str, int]]],
    artifact: Digest,
) -> dict[Digest, str]:
    """Return the reason of each node that withdrew its hold, by the positions of its statements in its own log."""
    found: dict[Digest, str] = {}
    for node in session.nodes:
        last: tuple[int, str] = (-1, "")
        for entry in readings.entries:
            statement = entry.statement
            wanted = statement.predicate in (*HOLD_PREDICATES, HOLD_WITHDRAWN) and is_about(entry, artifact)
            if not (wanted and signed_by_node(entry, node.record)):
                continue
            reason = HoldWithdrawn.parse(statement).reason if statement.predicate == HOLD_WITHDRAWN else ""
            last = max(last, (await _own_index(session, node, entry, places.get(entry.line, ())), reason))
        if last[1]:
            found[node.record.node.id] = last[1]
    return found


async def _own_index(session: Session, node: RemoteNode, entry: Entry, places: Iterable[tuple[str, int]]) -> int:
    """Return the index of an entry in the log of its node: what nodes claim, or where they claim several or none, what
    they prove, because any member may log the line again in a log of this origin, or in so many logs that an answer
    leaves this one out; -1 if there is none."""
    claimed = [index for origin, index in places if origin == node.record.origin]
    own = claimed if len(claimed) == 1 else await proven_indexes(session, entry.line, node.record.log)
    return max(own, default=-1)


def _author_name(entry: Entry, readings: ParsedClaims, nodes: Mapping[Digest, str]) -> str:
    """Name of whom a statement says it is by; `nodes` are the names of the nodes of the pinned charters."""
    by = entry.statement.by
    if by is None:
        return "nobody"
    if by.kind == "node":
        return f"{nodes.get(by.id, 'unknown node')} [{by.id[:12]}]"
    known = readings.inceptions.get(by.id)
    return known.display if known else f"{by.kind} {by.id[:12]}"
