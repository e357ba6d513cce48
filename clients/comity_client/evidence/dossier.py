"""Looking around: what there is, who says what about it, who has it, and how the nodes are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from comity.trust.digest import Digest
from comity.trust.errors import Malformed
from comity.trust.judging.compromise import Notice, notices
from comity.trust.judging.naming import Candidate
from comity.trust.judging.reading import Publication, Readings, read_claims, weigh_checks
from comity.trust.judging.rivals import Rival, rivals
from comity.trust.judging.speaking import Speakers
from comity.trust.judging.vouching import Vouch, weigh_vouches
from comity.trust.judging.witnessing import bind
from comity.trust.manifest import Manifest
from comity.trust.policy import Policy
from comity.trust.rows.corroboration import check_facts
from comity.trust.statement import Entry
from comity.trust.statements.claims import Advisory, signed_by_node
from comity.trust.upstream.observed import Observed
from comity.trust.upstream.weighing import Mirroring
from comity.trust.verdict import Fact
from comity.wire.client import NodeClient
from comity.wire.limits import STAT_DIGESTS
from comity.wire.values import Located

from comity_client.evidence.around import lines_around
from comity_client.evidence.catalogue import Resolution, versions
from comity_client.evidence.collecting import fetch_object
from comity_client.evidence.gather import prove, publisher_records
from comity_client.evidence.proving import readable
from comity_client.nodes.session import Session

MAX_PAGES: Final = 100
"""Pages of a search that one node is asked for."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One search hit. `publisher` is who claims to speak; `proven` says that they signed it."""

    name: str
    artifact: Digest
    publisher: Digest
    label: str
    licence: str
    proven: bool


@dataclass(frozen=True, slots=True)
class Said:
    """One statement about an artifact: of which kind, by whom, and where a node says that it is logged."""

    predicate: str
    by: str
    places: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Replica:
    """A node and its copy. `claimed` says that its own signed word about it was found; `held` of `files` blobs are
    there as it answers now, None where it does not answer (`why`)."""

    node: str
    member: str
    jurisdiction: str
    claimed: bool
    held: int | None
    files: int
    why: str = ""

    @property
    def complete(self) -> bool:
        return self.held == self.files


@dataclass(frozen=True, slots=True)
class Dossier:
    """All there is about one artifact."""

    title: str
    artifact: Digest
    basis: str
    publication: Publication | None
    manifest: Manifest
    versions: tuple[Candidate, ...]
    advisories: tuple[Advisory, ...]
    said: tuple[Said, ...] = field(default=())
    checks: tuple[Fact, ...] = field(default=())
    vouches: tuple[Vouch, ...] = field(default=())
    lost_keys: tuple[Notice, ...] = field(default=())
    rivals: tuple[Rival, ...] = field(default=())
    mirroring: Mirroring = field(default=Mirroring((), (), ()))


async def search(session: Session, text: str, limit: int) -> list[Listing]:
    """At most `limit` publications and mirrored commits whose names hold all words of `text`, by name.

    Raises Unavailable.
    """
    answers = await session.ask(lambda node: _pages(node, text, limit))
    if not answers.found:
        raise answers.failure("nobody could be asked")
    lines = dict.fromkeys(item.line for found in answers.found.values() for item in found)
    entries = [e for line in lines if (e := readable(line)) is not None]
    published = [entry for entry in entries if entry.statement.predicate == "published"][:limit]
    records = await publisher_records(session, published)
    found = [_listing(entry, prove(entry, records)) for entry in published]
    found += _mirrored(session, entries)[: limit - len(found)]
    return sorted(found, key=lambda listing: listing.name)


async def describe(session: Session, resolution: Resolution, policy: Policy) -> Dossier:
    """Raises NotFound, Unavailable."""
    manifest = Manifest.parse(await fetch_object(session, resolution.artifact))
    others: tuple[Candidate, ...] = ()
    if resolution.publication is not None:
        name = resolution.publication.published.name
        publisher = resolution.publication.publisher.id
        others = await versions(session, name.repository, publisher, policy)
    gathered, publication = resolution.gathered, resolution.publication
    around, _ = await lines_around(session, publication, policy)
    readings = read_claims((*gathered.lines, *around), resolution.artifact)
    said = tuple(
        Said(
            entry.statement.predicate, _by(entry, gathered.readings), tuple(sorted(gathered.places.get(entry.line, ())))
        )
        for entry in gathered.readings.entries
        if resolution.artifact in {subject.digest for subject in entry.statement.subjects}
    )
    return Dossier(
        title=resolution.title,
        artifact=resolution.artifact,
        basis=resolution.basis,
        publication=resolution.publication,
        manifest=manifest,
        versions=others,
        advisories=resolution.advisories,
        said=said,
        mirroring=resolution.mirroring,
        vouches=vouches_of(gathered.readings, resolution.artifact, policy),
        lost_keys=notices(readings, publication) if publication else (),
        rivals=rivals(readings, publication) if publication else (),
        checks=_checks(gathered.readings, resolution.artifact, policy),
    )


def _checks(readings: Readings, artifact: Digest, policy: Policy) -> tuple[Fact, ...]:
    """What others say that they verified; that they said it is proven here."""
    checks, _ = weigh_checks(readings, artifact, [seat for body in policy.pins for seat in body.members])
    return check_facts(checks, readings, policy.pins)


def vouches_of(readings: Readings, artifact: Digest, policy: Policy) -> tuple[Vouch, ...]:
    """What others say of it on their own account; that they said it is proven here."""
    bound, _, _ = bind(policy.pins, readings.entries, readings.chains)
    seats = [seat for body in policy.pins for seat in body.members]
    return weigh_vouches(readings, artifact, Speakers(readings, bound, seats))[0]


async def replicas(session: Session, resolution: Resolution, policy: Policy) -> list[Replica]:
    """What each node of the pinned federations claims, and answers now, about its copy."""
    manifest = Manifest.parse(await fetch_object(session, resolution.artifact))
    wanted = sorted({entry.sha256 for entry in manifest.files})
    answers = await session.ask(lambda node: _held(node, wanted))
    claimed = _claimants(resolution.gathered.readings, resolution.artifact, policy)
    return [
        Replica(
            node=node.name,
            member=node.member.name,
            jurisdiction=node.jurisdiction,
            claimed=node.record.node.id in claimed,
            held=answers.found.get(node),
            files=len(wanted),
            why=str(answers.failed.get(node, "")),
        )
        for node in session.nodes
    ]


async def _pages(node: NodeClient, text: str, limit: int) -> list[Located]:
    """Raises Malformed (UNBOUNDED) for a node whose pages lead on and on."""
    found: list[Located] = []
    cursor = ""
    for _ in range(MAX_PAGES):
        page = await node.search(text, cursor)
        found += page.found
        if len(found) >= limit or not page.next_cursor or page.next_cursor == cursor:
            return found[:limit]
        cursor = page.next_cursor
    raise Malformed("the search does not end", why=f"{MAX_PAGES} pages, and there are more", code="UNBOUNDED")


async def _held(node: NodeClient, digests: Sequence[Digest]) -> int:
    held = 0
    for start in range(0, len(digests), STAT_DIGESTS):
        held += sum(stat.have for stat in await node.stat(digests[start : start + STAT_DIGESTS]))
    return held


def _claimants(readings: Readings, artifact: Digest, policy: Policy) -> frozenset[Digest]:
    """Online keys of pinned nodes that signed a hold of the artifact. Where it was logged is not proven here."""
    bound, _, _ = bind(policy.pins, readings.entries, readings.chains)
    holds = [e for e in readings.entries if e.statement.predicate == "hold" and e.statement.subject == artifact]
    return frozenset(node.record.node.id for node in bound if any(signed_by_node(e, node.record) for e in holds))


def _mirrored(session: Session, entries: Iterable[Entry]) -> list[Listing]:
    """What nodes say to have mirrored: one hit for each artifact under a name, proven by a node that is known here."""
    nodes = {node.record.node.id: node.record for node in session.nodes}
    found: dict[tuple[str, Digest], Listing] = {}
    for entry in entries:
        try:
            said = Observed.parse(entry.statement)
        except Malformed:
            continue
        record, key = nodes.get(said.by), (said.upstream.name, said.artifact)
        proven = record is not None and signed_by_node(entry, record)
        if key not in found or (proven and not found[key].proven):
            label = f"mirrored by {record.name}" if record else ""
            found[key] = Listing(*key, said.by, label, said.conditions.licence, proven)
    return list(found.values())


def _listing(entry: Entry, publication: Publication | None) -> Listing:
    by = entry.statement.by
    return Listing(
        name=entry.statement.subjects[0].name,
        artifact=entry.statement.subject,
        publisher=by.id if by else Digest(""),
        label=publication.publisher.label if publication else "",
        licence=publication.published.licence.spdx if publication else "",
        proven=publication is not None,
    )


def _by(entry: Entry, readings: Readings) -> str:
    if entry.statement.by is None:
        return "nobody"
    known = readings.inceptions.get(entry.statement.by.id)
    return known.display if known else f"{entry.statement.by.kind} {entry.statement.by.id[:12]}"
