"""Queries about artifacts, nodes and logs: search, describe, find replicas, check logs, list misbehaviour proofs.

Logs are read as an outsider: checkpoints and proofs are verified with the pinned keys and against the stored
checkpoints. Misbehaviour proofs from nodes are verified again here, with keys of pinned federations; the claim of a
node alone does not count.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from comity.trust.artifact import Manifest
from comity.trust.bound_nodes import bind_nodes
from comity.trust.claims import (
    KnownAuthors,
    MirrorEvidence,
    ParsedClaims,
    Publication,
    RivalPublication,
    Vouch,
    rivals,
    verify_checks,
    verify_vouches,
)
from comity.trust.copies import HOLD_PREDICATES, HOLD_WITHDRAWN, parse_hold_withdrawn
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.evidence import RowFact
from comity.trust.key_validity import CompromiseNotice, compromise_notices
from comity.trust.node_records import signed_by_node
from comity.trust.places import Place, Reach, declared_reach
from comity.trust.policy import Policy
from comity.trust.resolution import Candidate, newest_first
from comity.trust.rows.findings import check_facts
from comity.trust.statement import Entry
from comity.trust.statements import Advisory
from comity.trust.tlog.merkle import Frontier, leaf_hash
from comity.trust.tlog.note import Checkpoint, SignedNote, VerifierKey, open_checkpoint
from comity.trust.tlog.proof import TlogProof, verify_misbehaviour
from comity.trust.upstream import Observed
from comity.wire import limits
from comity.wire.client import NodeClient
from comity.wire.limits import STAT_DIGESTS
from comity.wire.log import ShownMisbehaviour
from comity.wire.messages import LocatedEntry
from comity_client.copies import LoggedResult, logged_results
from comity_client.evidence.gather import places_of, prove_publication, publisher_records
from comity_client.evidence.home_positions import HomePositions, proven_indexes
from comity_client.evidence.proofs import fetch_object
from comity_client.evidence.related import related_lines
from comity_client.evidence.resolve import Resolution, log_keys, order_statements, versions
from comity_client.seen import SeenLogs, consistency_proofs, cosigner_names, reconcile_checkpoint
from comity_client.session import Question, RemoteNode, Session
from comity_client.uplink import find_node

K = TypeVar("K")

MAX_PAGES: Final = 100
"""Maximum number of search pages per node."""


@dataclass(frozen=True, slots=True)
class FoundArtifacts:
    """One search result. `publisher` is the claimed author; `proven`: its signature is verified; `near`: its name has
    not every word of the search, but is near it."""

    name: str
    artifact: Digest
    publisher: Digest
    label: str
    licence: str
    proven: bool
    near: bool = False


@dataclass(frozen=True, slots=True)
class ArtifactStatement:
    """One statement about an artifact: its kind, its author, and the claimed log positions."""

    predicate: str
    by: str
    places: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Replica:
    """A node and its copy. `claimed`: a signed statement of the node about the copy was found; `held` of `files` blobs
    are there according to its answer, None if it does not answer (`why`). `withdrawn` is the reason if it withdrew the
    claim later; `audits` are the newest results that other members' nodes logged and signed about its copy; `place` is
    what the node record of the pin declares about its machines."""

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

    @property
    def reach(self) -> Reach:
        """The jurisdictions whose law reaches the copy; empty where nothing is declared."""
        return declared_reach(self.jurisdiction, self.place)

    @property
    def complete(self) -> bool:
        return self.held == self.files


@dataclass(frozen=True, slots=True)
class ArtifactInfo:
    """All information about one artifact. `statements` are those of its publisher about these bytes, the newest first;
    the licence, the lineage and the documents are those of `current`, the first one."""

    title: str
    artifact: Digest
    basis: str
    publication: Publication | None
    manifest: Manifest
    versions: tuple[Candidate, ...]
    advisories: tuple[Advisory, ...]
    said: tuple[ArtifactStatement, ...] = field(default=())
    checks: tuple[RowFact, ...] = field(default=())
    vouches: tuple[Vouch, ...] = field(default=())
    lost_keys: tuple[CompromiseNotice, ...] = field(default=())
    rivals: tuple[RivalPublication, ...] = field(default=())
    mirroring: MirrorEvidence = field(default=MirrorEvidence((), (), ()))
    statements: tuple[Candidate, ...] = field(default=())

    @property
    def current(self) -> Publication | None:
        return self.statements[0].publication if self.statements else self.publication


async def search_artifacts(session: Session, text: str, limit: int) -> list[FoundArtifacts]:
    """Return at most `limit` publications and mirrored commits whose names contain all words of `text`, sorted by name;
    if there are none, those whose names are near it, the nearest first. A publication that was stated several times is
    listed once, by its newest statement: by the positions that nodes claim if they agree, else by proven ones, of at
    most `MAX_ORDERED` publications. Where there are more, each node names one in turn, so that no node fills the list
    alone.

    Raises Unavailable.
    """
    answers = await session.ask(lambda node: _pages(node, text, limit))
    if not answers.found:
        raise answers.failure("the search has no answer")
    found = await _listings(session, list(_in_turn(answers.found.values())), limit)
    if found or not text.strip():
        return sorted(found, key=lambda listing: listing.name)
    fragments = name_fragments(text)
    nearby = await session.ask(lambda node: _containing(node, fragments))
    located = [item for found in nearby.found.values() for item in found]
    listed = [replace(each, near=True) for each in await _listings(session, located, len(located))]
    rated = {each: nearness(text, each.name) for each in listed}
    near = [each for each in listed if rated[each] >= NEAR]
    return sorted(near, key=lambda each: (-rated[each], each.name))[:limit]


def _in_turn(lists: Iterable[Sequence[LocatedEntry]]) -> Iterator[LocatedEntry]:
    """The first of each list, the second of each, and so on."""
    return (item for row in itertools.zip_longest(*lists) for item in row if item is not None)


async def _listings(session: Session, located: Sequence[LocatedEntry], limit: int) -> list[FoundArtifacts]:
    places = places_of(located)
    entries = [entry for line in places if (entry := session.reader.readable(line)) is not None]
    published = [entry for entry in entries if entry.statement.predicate == "published"]
    newest = list({_key(entry): entry for entry in published}.values())[:limit]
    records = await publisher_records(session, newest)
    stated: dict[tuple[str, Digest, Digest | None], list[Publication]] = {}
    for entry in published:
        if (publication := prove_publication(entry, records)) is not None:
            stated.setdefault(_key(entry), []).append(publication)
    chosen = await _newest_statements(HomePositions(session, Policy()), stated, places)
    found = []
    for entry in newest:
        own = chosen.get(_key(entry))
        found.append(_found(own.entry, own) if own else _found(entry, None))
    return found + _mirrored(session, entries)[: limit - len(found)]


MAX_ORDERED: Final = 16
"""Publications of one search whose statements are ordered by proofs, because nodes do not agree on their positions."""


async def _newest_statements(
    positions: HomePositions,
    stated: Mapping[K, Sequence[Publication]],
    places: Mapping[bytes, frozenset[tuple[str, int]]],
) -> dict[K, Publication]:
    """Return the newest of several statements of each publication."""
    found: dict[K, Publication] = {}
    disputed: list[K] = []
    for key, own in stated.items():
        claimed = [Candidate(each, positions.claimed(each, places[each.entry.line])) for each in own]
        found[key] = newest_first(claimed)[0].publication
        if len(own) > 1 and any(each.position is None for each in claimed):
            disputed.append(key)
    asked = disputed[:MAX_ORDERED]
    ordered = await asyncio.gather(*(order_statements(positions, stated[key], places) for key in asked))
    return found | {key: own[0].publication for key, own in zip(asked, ordered, strict=True)}


def _key(entry: Entry) -> tuple[str, Digest, Digest | None]:
    """What several statements of one publication have in common: name, artifact and author."""
    statement = entry.statement
    return statement.subjects[0].name, statement.subject, statement.by.id if statement.by else None


NEAR: Final = 0.6
"""Similarity from which a name is near a search, 0 to 1."""
MAX_WORDS: Final = 4
MAX_NEAR: Final = 50
"""Names of one node with one fragment of a word."""


def name_fragments(text: str) -> list[str]:
    """Return parts of the words of a search that a name near it probably contains: the words, their first three and
    four letters, and their last four."""
    parts = [part for word in text.casefold().split()[:MAX_WORDS] for part in (word, word[:4], word[-4:], word[:3])]
    return [part for part in dict.fromkeys(parts) if len(part) >= 2]


def nearness(text: str, name: str) -> float:
    """Return the similarity of a search and a name, 0 to 1: the mean over its words of the nearest part of the name."""
    import difflib

    words = text.casefold().split()[:MAX_WORDS]
    whole = name.casefold()
    parts = [whole, *re.split(r"[/@]", whole), *re.split(r"[/@._-]", whole)]
    return sum(max(difflib.SequenceMatcher(None, word, part).ratio() for part in parts) for word in words) / len(words)


async def _containing(node: NodeClient, fragments: Sequence[str]) -> list[LocatedEntry]:
    return [item for part in fragments for item in await _pages(node, part, MAX_NEAR)]


async def describe_artifact(session: Session, resolution: Resolution, policy: Policy) -> ArtifactInfo:
    """Raises NotFound, Unavailable."""
    manifest = Manifest.parse(await fetch_object(session, resolution.artifact))
    others = resolution.versions or ()
    if resolution.versions is None and resolution.publication is not None:
        name = resolution.publication.published.name
        publisher = resolution.publication.publisher.id
        others = await versions(session, name.repository, publisher, policy)
    gathered, publication = resolution.gathered, resolution.publication
    related, _ = await related_lines(session, publication, policy)
    readings = session.read_claims((*gathered.lines, *related), resolution.artifact)
    nodes = {node.record.node.id: node.record.name for node in session.nodes}
    said = tuple(
        ArtifactStatement(
            entry.statement.predicate,
            _author_name(entry, gathered.readings, nodes),
            tuple(sorted(gathered.places.get(entry.line, ()))),
        )
        for entry in gathered.readings.entries
        if resolution.artifact in {subject.digest for subject in entry.statement.subjects}
    )
    return ArtifactInfo(
        title=resolution.title,
        artifact=resolution.artifact,
        basis=resolution.basis,
        publication=resolution.publication,
        manifest=manifest,
        versions=others,
        advisories=resolution.advisories,
        said=said,
        mirroring=resolution.mirroring,
        statements=resolution.statements,
        vouches=vouches_of(gathered.readings, resolution.artifact, policy),
        lost_keys=_lost_keys(readings, publication),
        rivals=rivals(readings, publication) if publication else (),
        checks=_checks(gathered.readings, resolution.artifact, policy),
    )


def _lost_keys(readings: ParsedClaims, publication: Publication | None) -> tuple[CompromiseNotice, ...]:
    if publication is None:
        return ()
    return compromise_notices(readings, publication.publisher.id, publication.chain, publication.entry.envelope)


def _checks(readings: ParsedClaims, artifact: Digest, policy: Policy) -> tuple[RowFact, ...]:
    """Return the verifications that others claim; their signatures are verified."""
    checks, _ = verify_checks(readings, artifact, [seat for body in policy.pins for seat in body.members])
    return check_facts(checks, readings, policy.pins)


def vouches_of(readings: ParsedClaims, artifact: Digest, policy: Policy) -> tuple[Vouch, ...]:
    """Return the vouches of others; their signatures are verified."""
    bound, _, _ = bind_nodes(policy.pins, readings.entries, readings.chains)
    seats = [seat for body in policy.pins for seat in body.members]
    return verify_vouches(readings, artifact, KnownAuthors(readings, bound, seats))[0]


async def replicas(session: Session, resolution: Resolution, policy: Policy) -> list[Replica]:
    """Return what each node of the pinned federations claims and now answers about its copy."""
    manifest = Manifest.parse(await fetch_object(session, resolution.artifact))
    wanted = sorted({entry.sha256 for entry in manifest.files})
    answers = await session.ask(lambda node: _count_stored_blobs(node, wanted))
    readings, places = resolution.gathered.readings, resolution.gathered.places
    claimed = _claimants(readings, resolution.artifact, policy)
    withdrawn = await _withdrawn(session, readings, places, resolution.artifact)
    audits = await logged_results(session, resolution.artifact)
    return [
        Replica(
            node=node.name,
            member=node.member.name,
            jurisdiction=node.jurisdiction,
            claimed=node.record.node.id in claimed and node.record.node.id not in withdrawn,
            held=answers.found.get(node),
            files=len(wanted),
            why=str(answers.failed.get(node, "")),
            withdrawn=withdrawn.get(node.record.node.id, ""),
            audits=tuple(
                audit
                for audit in audits
                if audit.prover == node.record.node.id and audit.result.auditor != node.member.id
            ),
            place=node.record.place,
        )
        for node in session.nodes
    ]


async def _pages(node: NodeClient, text: str, limit: int) -> list[LocatedEntry]:
    """Raises Malformed (UNBOUNDED) if the pages of the node do not end."""
    found: list[LocatedEntry] = []
    cursor = ""
    for _ in range(MAX_PAGES):
        page = await node.search(text, cursor)
        found += page.found
        if len(found) >= limit or not page.next_cursor or page.next_cursor == cursor:
            return found[:limit]
        cursor = page.next_cursor
    raise Malformed("the search does not end", why=f"more than {MAX_PAGES} pages", code="UNBOUNDED")


async def _count_stored_blobs(node: NodeClient, digests: Sequence[Digest]) -> int:
    count = 0
    for start in range(0, len(digests), STAT_DIGESTS):
        count += sum(stat.have for stat in await node.stat(digests[start : start + STAT_DIGESTS]))
    return count


def _claimants(readings: ParsedClaims, artifact: Digest, policy: Policy) -> frozenset[Digest]:
    """Return the online keys of pinned nodes that claim a copy of the artifact; its logging is not verified here."""
    bound, _, _ = bind_nodes(policy.pins, readings.entries, readings.chains)
    holds = [e for e in readings.entries if e.statement.predicate in HOLD_PREDICATES and _is_about(e, artifact)]
    return frozenset(node.record.node.id for node in bound if any(signed_by_node(e, node.record) for e in holds))


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
            wanted = statement.predicate in (*HOLD_PREDICATES, HOLD_WITHDRAWN) and _is_about(entry, artifact)
            if not (wanted and signed_by_node(entry, node.record)):
                continue
            reason = parse_hold_withdrawn(statement).reason if statement.predicate == HOLD_WITHDRAWN else ""
            last = max(last, (await _own_index(session, node, entry, places.get(entry.line, ())), reason))
        if last[1]:
            found[node.record.node.id] = last[1]
    return found


async def _own_index(session: Session, node: RemoteNode, entry: Entry, places: Iterable[tuple[str, int]]) -> int:
    """Return the index of an entry in the log of its node: what nodes claim, or where they claim several, what they
    prove, because any member may log the line again in a log of this origin; -1 if there is none."""
    claimed = [index for origin, index in places if origin == node.record.origin]
    own = claimed if len(claimed) < 2 else await proven_indexes(session, entry.line, node.record.log)
    return max(own, default=-1)


def _is_about(entry: Entry, artifact: Digest) -> bool:
    return artifact in {subject.digest for subject in entry.statement.subjects}


def _mirrored(session: Session, entries: Iterable[Entry]) -> list[FoundArtifacts]:
    """Return one result per artifact and name that nodes claim to have mirrored; proven if a known node signed it."""
    nodes = {node.record.node.id: node.record for node in session.nodes}
    found: dict[tuple[str, Digest], FoundArtifacts] = {}
    for entry in entries:
        try:
            said = Observed.parse(entry.statement)
        except Malformed:
            continue
        record, key = nodes.get(said.by), (said.upstream.name, said.artifact)
        proven = record is not None and signed_by_node(entry, record)
        if key not in found or (proven and not found[key].proven):
            label = f"mirrored by {record.name}" if record else ""
            found[key] = FoundArtifacts(*key, said.by, label, said.conditions.licence, proven)
    return list(found.values())


def _found(entry: Entry, publication: Publication | None) -> FoundArtifacts:
    by = entry.statement.by
    return FoundArtifacts(
        name=entry.statement.subjects[0].name,
        artifact=entry.statement.subject,
        publisher=by.id if by else Digest(""),
        label=publication.publisher.label if publication else "",
        licence=publication.published.licence.spdx if publication else "",
        proven=publication is not None,
    )


def _author_name(entry: Entry, readings: ParsedClaims, nodes: Mapping[Digest, str]) -> str:
    """Name of whom a statement says it is by; `nodes` are the names of the nodes of the pinned charters."""
    by = entry.statement.by
    if by is None:
        return "nobody"
    if by.kind == "node":
        return f"{nodes.get(by.id, 'unknown node')} [{by.id[:12]}]"
    known = readings.inceptions.get(by.id)
    return known.display if known else f"{by.kind} {by.id[:12]}"


ENTRIES_AT_ONCE: Final = 4096


@dataclass(frozen=True, slots=True)
class SeenCheckpoint:
    """The newest checkpoint of a log that any node returned; signature and cosignatures are verified."""

    checkpoint: Checkpoint
    note: bytes
    cosigners: tuple[str, ...]
    node: str


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry of a log; `entry` is None if the line is not a readable statement."""

    index: int
    line: bytes
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class ProvenIn:
    """A line is entry `index` of a log of `size` entries; verified here."""

    origin: str
    index: int
    size: int
    cosigners: tuple[str, ...]
    proof: bytes


@dataclass(frozen=True, slots=True)
class LogCheck:
    """A whole log was fetched and its root computed from its lines. `seen`: the stored size before; 0 if the log was
    new here. `continues`: the same if these lines begin with the entries of that checkpoint; 0 if they are fewer."""

    origin: str
    size: int
    root: bytes
    cosigners: tuple[str, ...]
    node: str
    continues: int
    seen: int


async def newest_checkpoint(session: Session, seen_logs: SeenLogs, origin: str) -> SeenCheckpoint:
    """Return the largest checkpoint that any node returns.

    Raises NotFound for a log of no pinned federation; Equivocation or Untrusted (UNRECONCILED) if it contradicts a
    stored checkpoint; Untrusted if no note is signed by the log; Unavailable.
    """
    return (await _newest(session, seen_logs, origin))[1]


async def _newest(session: Session, seen_logs: SeenLogs, origin: str) -> tuple[RemoteNode, SeenCheckpoint]:
    log = _log_key(session, origin)
    answers = await session.ask(lambda node: node.checkpoint(str(log)))
    if not answers.found:
        raise answers.failure(f"no node returns a checkpoint of {log.name}")
    seen: list[tuple[RemoteNode, SeenCheckpoint]] = []
    refusal: ComityError | None = None
    for node, data in answers.found.items():
        try:
            seen.append((node, _verified_checkpoint(session, log, node, data)))
        except (Malformed, Untrusted) as error:
            refusal = error
    if not seen:
        raise refusal or Unavailable(f"no checkpoint of {log.name}")
    for _, each in seen:
        try:
            await reconcile_checkpoint(seen_logs, log, SignedNote.parse(each.note), consistency_proofs(session))
        except Unavailable:
            continue  # no node proves consistency: nothing is known, and nothing is stored
    return max(seen, key=lambda item: (item[1].checkpoint.size, len(item[1].cosigners)))


async def read_entries(session: Session, origin: str, start: int, end: int) -> list[LogEntry]:
    """Return entries start <= i < end from the first node that serves them. They are claims; `check_log` verifies a
    log."""
    if not 0 <= start < end or end - start > limits.ENTRIES_PER_CALL:
        raise Malformed("not a range of entries", why=f"0 <= start < end, at most {limits.ENTRIES_PER_CALL} at once")
    log = _log_key(session, origin)
    lines = await session.first(_entries(str(log), start, end), f"no node serves entries of {log.name}")
    return [LogEntry(start + offset, line, session.reader.readable(line)) for offset, line in enumerate(lines)]


async def prove_line(session: Session, digest: Digest) -> list[ProvenIn]:
    """Return every valid proof of a line in a log of a pinned federation, one per log. Raises NotFound, Unavailable,
    and Untrusted if no proof is valid."""
    answers = await session.ask(lambda node: node.proofs(digest))
    if not answers.found:
        raise answers.failure(f"no node proves line {short(digest)}")
    proven: dict[str, ProvenIn] = {}
    for located in (item for found in answers.found.values() for item in found):
        for log in log_keys(session, located.origin):
            try:
                made = await _prove(session, log, digest, session.reader.proof(located.proof))
            except ComityError:
                continue
            known = proven.get(str(log))
            if known is None or (len(made.cosigners), made.size) > (len(known.cosigners), known.size):
                proven[str(log)] = made
    if not proven:
        raise Untrusted("no valid proof", why="the proofs are not for that line in a known log", code="INCLUSION")
    return list(proven.values())


async def check_log(session: Session, seen_logs: SeenLogs, origin: str) -> LogCheck:
    """Fetch every entry of a log, compute its root, and compare with the stored checkpoint.

    Raises Equivocation or Untrusted (UNRECONCILED) for two histories, Untrusted if the lines do not give the signed
    root, NotFound, Unavailable.
    """
    log = _log_key(session, origin)
    before = seen_logs.newest(log)
    known = Checkpoint.parse(before.text) if before else Checkpoint(log.name, 0, Frontier.empty().root())
    node, newest = await _newest(session, seen_logs, str(log))
    frontier, roots = Frontier.empty(), dict[int, bytes]()
    while frontier.size < newest.checkpoint.size:
        start, end = frontier.size, min(newest.checkpoint.size, frontier.size + ENTRIES_AT_ONCE)
        end = known.size if start < known.size < end else end
        lines = await node.ask(_entries(str(log), start, end))
        if not lines:
            why = f"the node has a checkpoint of size {newest.checkpoint.size}, but no entry from {start} on"
            raise Untrusted(f"{node.name} hides entries of {log.name}", why=why, code="HIDDEN-ENTRIES")
        frontier = frontier.extend(leaf_hash(line) for line in lines)
        roots[frontier.size] = frontier.root()
    if frontier.root() != newest.checkpoint.root:
        why = f"{frontier.size} entries from {node.name} do not give the root that the log signed"
        raise Untrusted(f"the entries do not match the checkpoint of {log.name}", why=why, code="ROOT")
    begins = known.size if known.size <= frontier.size else 0
    if before is not None and begins and roots.get(begins) != known.root:
        raise seen_logs.record_contradiction("unreconciled", log, before, SignedNote.parse(newest.note))
    return LogCheck(
        log.name, frontier.size, frontier.root(), newest.cosigners, node.name, continues=begins, seen=known.size
    )


async def _prove(session: Session, log: VerifierKey, digest: Digest, proof: TlogProof) -> ProvenIn:
    lines = await session.first(
        _entries(str(log), proof.index, proof.index + 1), f"no node serves entry {proof.index} of {log.name}"
    )
    if [sha256(line) for line in lines] != [digest]:
        raise Untrusted("the entry is another line", why=f"at {proof.index} of {log.name}", code="INCLUSION")
    checkpoint = proof.verify(lines[0], log)
    cosigners = cosigner_names(session, proof.checkpoint, checkpoint)
    return ProvenIn(log.name, proof.index, checkpoint.size, cosigners, proof.encode())


def _entries(origin: str, start: int, end: int) -> Question[list[bytes]]:
    async def ask(node: NodeClient) -> list[bytes]:
        async with aclosing(node.entries(origin, start, end)) as batches:
            return [line async for batch in batches for line in batch.lines]

    return ask


def _verified_checkpoint(session: Session, log: VerifierKey, node: RemoteNode, data: bytes) -> SeenCheckpoint:
    note = SignedNote.parse(data)
    checkpoint = open_checkpoint(note, log)
    return SeenCheckpoint(checkpoint, data, cosigner_names(session, note, checkpoint), node.name)


def _log_key(session: Session, name: str) -> VerifierKey:
    """Return the key of the log that `name` means: a verifier key, or an origin as an identity's home log is named. If
    several members bind the origin and none of them owns it, it is the log of the first pinned node."""
    session.require_nodes()
    if keys := [node.record.log for node in session.nodes if str(node.record.log) == name] or log_keys(session, name):
        with contextlib.suppress(NotFound):
            return session.home_node(name).record.log
        return keys[0]
    known = ", ".join(sorted({node.record.origin for node in session.nodes}))
    raise NotFound(f"no log {name!r}", why=f"known from pinned federations: {known}", hint="comity status")


@dataclass(frozen=True, slots=True)
class LogAccusation:
    """A misbehaviour proof against a log, as nodes returned it. If not `proven` here, it is only a claim, and `why`
    gives the reason."""

    kind: str
    log: str
    parts: tuple[bytes, ...]
    nodes: tuple[str, ...]
    proven: bool
    why: str = ""


async def accusations(session: Session, names: Sequence[str] = ()) -> list[LogAccusation]:
    """Return the misbehaviour proofs of the named nodes, or of all nodes, without duplicates.

    Raises NotFound for an unknown name, and the error of the nodes if none answers.
    """
    shown = await _shown_misbehaviour(session, [await find_node(session, name) for name in names])
    found: dict[ShownMisbehaviour, LogAccusation] = {}
    for node, proofs in shown.items():
        for proof in {replace(proof, parts=tuple(sorted(proof.parts))) for proof in proofs}:
            known = found.get(proof) or _verify_misbehaviour(session, proof)
            found[proof] = replace(known, nodes=(*known.nodes, node.name))
    return sorted(found.values(), key=lambda item: (not item.proven, item.log, item.kind))


async def _shown_misbehaviour(
    session: Session, nodes: Sequence[RemoteNode]
) -> dict[RemoteNode, tuple[ShownMisbehaviour, ...]]:
    if nodes:
        return {node: await node.ask(lambda client: client.misbehaviour()) for node in nodes}
    answers = await session.ask(lambda client: client.misbehaviour())
    if not answers.found:
        raise answers.failure("no node returns misbehaviour proofs")
    return dict(answers.found)


def _verify_misbehaviour(session: Session, proof: ShownMisbehaviour) -> LogAccusation:
    claim = LogAccusation(
        proof.kind, proof.origin, proof.parts, (), proven=False, why="no pinned federation has this log"
    )
    for key in log_keys(session, proof.origin):
        try:
            verify_misbehaviour(proof.kind, proof.parts, key)
        except ComityError as error:
            claim = replace(claim, why=str(error))
        else:
            return replace(claim, proven=True, why="")
    return claim
