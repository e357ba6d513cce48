"""Looking around: what there is, who says what about it, who has it, and how the nodes are.

Looking into logs as an outsider: everything is checked against the pinned keys, and against what was seen before.

How the nodes of the pinned federations are, as seen from here; and whether their logs still tell one history.

What nodes keep against logs: proofs of misbehaviour, asked for and judged again here. No node can convict a log by
its word alone; and a log has a key to judge it by only where a pinned federation gives one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Final

from comity.trust.artifact import Manifest
from comity.trust.claims import (
    KnownAuthors,
    MirrorEvidence,
    Publication,
    Readings,
    RivalPublication,
    Vouch,
    bind,
    read_claims,
    rivals,
    weigh_checks,
    weigh_vouches,
)
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.evidence import RowFact
from comity.trust.key_validity import CompromiseNotice, notices
from comity.trust.policy import Policy
from comity.trust.resolution import Candidate
from comity.trust.rows.signatures import check_facts
from comity.trust.statement import Entry
from comity.trust.statements import Advisory, signed_by_node
from comity.trust.tlog.merkle import Frontier, leaf_hash
from comity.trust.tlog.note import Checkpoint, SignedNote, VerifierKey, open_checkpoint, verified_cosigners
from comity.trust.tlog.proof import TlogProof, convict
from comity.trust.upstream import Observed
from comity.wire import limits
from comity.wire.client import NodeClient
from comity.wire.limits import STAT_DIGESTS
from comity.wire.messages import LocatedEntry, LogHead, NodeFacts, ShownMisbehaviour
from comity_client.events import MisbehaviourFound, OnEvent
from comity_client.evidence.gather import fetch_object, lines_around, prove, publisher_records
from comity_client.evidence.prove import readable
from comity_client.evidence.resolve import Resolution, log_keys, versions
from comity_client.seen import ALARMS, SeenLogs, consistency_proofs, meet
from comity_client.session import Question, RemoteNode, Session

MAX_PAGES: Final = 100
"""Pages of a search that one node is asked for."""


@dataclass(frozen=True, slots=True)
class FoundArtifacts:
    """One search hit. `publisher` is who claims to speak; `proven` says that they signed it."""

    name: str
    artifact: Digest
    publisher: Digest
    label: str
    licence: str
    proven: bool


@dataclass(frozen=True, slots=True)
class ArtifactStatement:
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
class ArtifactInfo:
    """All there is about one artifact."""

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


async def search_artifacts(session: Session, text: str, limit: int) -> list[FoundArtifacts]:
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


async def describe_artifact(session: Session, resolution: Resolution, policy: Policy) -> ArtifactInfo:
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
        ArtifactStatement(
            entry.statement.predicate, _by(entry, gathered.readings), tuple(sorted(gathered.places.get(entry.line, ())))
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
        vouches=vouches_of(gathered.readings, resolution.artifact, policy),
        lost_keys=notices(readings, publication) if publication else (),
        rivals=rivals(readings, publication) if publication else (),
        checks=_checks(gathered.readings, resolution.artifact, policy),
    )


def _checks(readings: Readings, artifact: Digest, policy: Policy) -> tuple[RowFact, ...]:
    """What others say that they verified; that they said it is proven here."""
    checks, _ = weigh_checks(readings, artifact, [seat for body in policy.pins for seat in body.members])
    return check_facts(checks, readings, policy.pins)


def vouches_of(readings: Readings, artifact: Digest, policy: Policy) -> tuple[Vouch, ...]:
    """What others say of it on their own account; that they said it is proven here."""
    bound, _, _ = bind(policy.pins, readings.entries, readings.chains)
    seats = [seat for body in policy.pins for seat in body.members]
    return weigh_vouches(readings, artifact, KnownAuthors(readings, bound, seats))[0]


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


async def _pages(node: NodeClient, text: str, limit: int) -> list[LocatedEntry]:
    """Raises Malformed (UNBOUNDED) for a node whose pages lead on and on."""
    found: list[LocatedEntry] = []
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


def _mirrored(session: Session, entries: Iterable[Entry]) -> list[FoundArtifacts]:
    """What nodes say to have mirrored: one hit for each artifact under a name, proven by a node that is known here."""
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


def _listing(entry: Entry, publication: Publication | None) -> FoundArtifacts:
    by = entry.statement.by
    return FoundArtifacts(
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


ENTRIES_AT_ONCE: Final = 4096


@dataclass(frozen=True, slots=True)
class SeenCheckpoint:
    """The newest checkpoint of a log that any node showed, its signature and cosignatures verified."""

    checkpoint: Checkpoint
    note: bytes
    cosigners: tuple[str, ...]
    node: str


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry as it stands in a log; `entry` is None where the line is no statement that we can read."""

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
    """A whole log was fetched and its root derived again from its lines. `continues` is the size that this user had
    seen before, which the log provably continues; 0 where it is new here."""

    origin: str
    size: int
    root: bytes
    cosigners: tuple[str, ...]
    node: str
    continues: int


async def newest_checkpoint(session: Session, memory: SeenLogs, origin: str) -> SeenCheckpoint:
    """The largest that any node shows.

    Raises NotFound for a log that no pinned federation knows; Equivocation or Untrusted (UNRECONCILED) where it
    contradicts what was seen; Untrusted where no shown note is the log's; Unavailable.
    """
    return (await _newest(session, memory, origin))[1]


async def _newest(session: Session, memory: SeenLogs, origin: str) -> tuple[RemoteNode, SeenCheckpoint]:
    log = _key(session, origin)
    answers = await session.ask(lambda node: node.checkpoint(origin))
    if not answers.found:
        raise answers.failure(f"nobody shows a checkpoint of {origin}")
    seen: list[tuple[RemoteNode, SeenCheckpoint]] = []
    refusal: ComityError | None = None
    for node, data in answers.found.items():
        try:
            seen.append((node, _seen(session, log, node, data)))
        except (Malformed, Untrusted) as error:
            refusal = error
    if not seen:
        raise refusal or Unavailable(f"no checkpoint of {origin}")
    for _, each in seen:
        try:
            await meet(memory, log, SignedNote.parse(each.note), consistency_proofs(session))
        except Unavailable:
            continue  # nobody links it to what was seen: nothing is known, and nothing is remembered
    return max(seen, key=lambda item: (item[1].checkpoint.size, len(item[1].cosigners)))


async def read_entries(session: Session, origin: str, start: int, end: int) -> list[LogEntry]:
    """Entries start <= i < end from the first node that gives them. They are claims; `check_log` proves a log."""
    if not 0 <= start < end or end - start > limits.ENTRIES_PER_CALL:
        raise Malformed("not a range of entries", why=f"0 <= start < end, at most {limits.ENTRIES_PER_CALL} at once")
    lines = await session.first(_entries(origin, start, end), f"nobody gives entries of {origin}")
    return [LogEntry(start + offset, line, readable(line)) for offset, line in enumerate(lines)]


async def prove_line(session: Session, digest: Digest) -> list[ProvenIn]:
    """Every proof that nodes give of a line in a log that a pinned federation knows, verified against the line itself.
    Raises NotFound, Unavailable, and Untrusted where none of those given holds."""
    answers = await session.ask(lambda node: node.proofs(digest))
    if not answers.found:
        raise answers.failure(f"nobody proves line {short(digest)}")
    proven: dict[str, ProvenIn] = {}
    for located in (item for found in answers.found.values() for item in found):
        for log in log_keys(session, located.origin):
            try:
                made = await _prove(session, log, digest, TlogProof.parse(located.proof))
            except ComityError:
                continue
            known = proven.get(made.origin)
            if known is None or (len(made.cosigners), made.size) > (len(known.cosigners), known.size):
                proven[made.origin] = made
    if not proven:
        raise Untrusted("no proof holds", why="those given do not prove that line in a known log", code="INCLUSION")
    return list(proven.values())


async def check_log(session: Session, memory: SeenLogs, origin: str) -> LogCheck:
    """Fetch every entry of a log and derive its root, as an outsider would; compare it with what was seen before.

    Raises Equivocation where two histories show, Untrusted where the lines do not give the signed root, NotFound,
    Unavailable.
    """
    log = _key(session, origin)
    before = memory.newest(log)
    node, newest = await _newest(session, memory, origin)
    frontier = Frontier.empty()
    while frontier.size < newest.checkpoint.size:
        start, end = frontier.size, min(newest.checkpoint.size, frontier.size + ENTRIES_AT_ONCE)
        lines = await node.ask(_entries(origin, start, end))
        if not lines:
            why = f"it shows a checkpoint of {newest.checkpoint.size} and no entry from {start} on"
            raise Untrusted(f"{node.name} hides entries of {origin}", why=why, code="HIDDEN-ENTRIES")
        frontier = frontier.extend(leaf_hash(line) for line in lines)
    if frontier.root() != newest.checkpoint.root:
        why = f"{frontier.size} entries from {node.name} give another root than the log signed"
        raise Untrusted(f"the entries of {origin} are not its entries", why=why, code="ROOT")
    known = Checkpoint.parse(before.text).size if before else 0
    return LogCheck(origin, frontier.size, frontier.root(), newest.cosigners, node.name, known)


async def _prove(session: Session, log: VerifierKey, digest: Digest, proof: TlogProof) -> ProvenIn:
    lines = await session.first(
        _entries(log.name, proof.index, proof.index + 1), f"nobody gives entry {proof.index} of {log.name}"
    )
    if [sha256(line) for line in lines] != [digest]:
        raise Untrusted("another line stands there", why=f"at {proof.index} of {log.name}", code="INCLUSION")
    checkpoint = proof.verify(lines[0], log)
    cosigners = _cosigners(session, proof.checkpoint, checkpoint)
    return ProvenIn(log.name, proof.index, checkpoint.size, cosigners, proof.encode())


def _entries(origin: str, start: int, end: int) -> Question[list[bytes]]:
    async def ask(node: NodeClient) -> list[bytes]:
        async with aclosing(node.entries(origin, start, end)) as batches:
            return [line async for batch in batches for line in batch.lines]

    return ask


def _seen(session: Session, log: VerifierKey, node: RemoteNode, data: bytes) -> SeenCheckpoint:
    note = SignedNote.parse(data)
    checkpoint = open_checkpoint(note, log)
    return SeenCheckpoint(checkpoint, data, _cosigners(session, note, checkpoint), node.name)


def _cosigners(session: Session, note: SignedNote, checkpoint: Checkpoint) -> tuple[str, ...]:
    keys = [key for node in session.nodes for key in node.record.cosigners]
    return tuple(sorted({key.name for key in verified_cosigners(note, keys, checkpoint)}))


def _key(session: Session, origin: str) -> VerifierKey:
    keys = log_keys(session, origin)
    if not keys:
        known = ", ".join(sorted({node.record.origin for node in session.nodes})) or "none"
        raise NotFound(f"no log {origin!r}", why=f"known from pinned federations: {known}", hint="comity status")
    return keys[0]


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node as it answers now. `size` is of its own log, None where its checkpoint is not at hand; `cosigners` are the
    names that verify on it; `logs` counts the logs that it holds. `gateway` is the URL at which it claims to have one.
    `why` says why it is not `reachable`."""

    name: str
    member: str
    jurisdiction: str
    addresses: tuple[str, ...]
    reachable: bool
    why: str = ""
    software: str = ""
    origin: str = ""
    size: int | None = None
    cosigners: tuple[str, ...] = ()
    logs: int = 0
    misbehaviour: int = 0
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class _Answer:
    facts: NodeFacts
    heads: tuple[LogHead, ...]
    misbehaviour: int


async def node_states(session: Session, memory: SeenLogs, on_event: OnEvent) -> list[NodeState]:
    """Ask every node how it is. Each checkpoint of a pinned log meets what is remembered; contradictions are alarms."""
    answers = await session.ask(_ask)
    keys = {node.record.origin: node.record.log for node in session.nodes}
    notes = {
        (head.origin, head.note)
        for answer in answers.found.values()
        for head in answer.heads
        if head.note and head.origin in keys
    }
    for origin, note in sorted(notes, key=lambda item: item[0]):
        await _meet(session, memory, keys[origin], note, on_event)
    return [_state(session, node, answers.found.get(node), str(answers.failed.get(node, ""))) for node in session.nodes]


async def _ask(node: NodeClient) -> _Answer:
    return _Answer(await node.node(), await node.logs(), len(await node.misbehaviour()))


async def _meet(session: Session, memory: SeenLogs, log: VerifierKey, note: bytes, on_event: OnEvent) -> None:
    try:
        await meet(memory, log, SignedNote.parse(note), consistency_proofs(session))
    except ComityError as error:  # else: the log did not sign it, or nobody links it: not evidence of anything
        if error.code in ALARMS:
            on_event(MisbehaviourFound(str(error), error.hint))


def _state(session: Session, node: RemoteNode, answer: _Answer | None, why: str) -> NodeState:
    known = (node.name, node.member.name, node.jurisdiction, node.addresses)
    if answer is None:
        return NodeState(*known, reachable=False, why=why, origin=node.record.origin)
    size, cosigners = _own_head(session, node, answer.heads)
    return NodeState(
        *known,
        reachable=True,
        software=answer.facts.software,
        origin=node.record.origin,
        size=size,
        cosigners=cosigners,
        logs=len(answer.heads),
        misbehaviour=answer.misbehaviour,
        gateway=str(answer.facts.gateway or ""),
    )


def _own_head(session: Session, node: RemoteNode, heads: tuple[LogHead, ...]) -> tuple[int | None, tuple[str, ...]]:
    for head in heads:
        if head.origin != node.record.origin or not head.note:
            continue
        try:
            note = SignedNote.parse(head.note)
            checkpoint = open_checkpoint(note, node.record.log)
            keys = [key for other in session.nodes for key in other.record.cosigners]
            cosigners = {key.name for key in verified_cosigners(note, keys, checkpoint)}
        except ComityError:
            continue
        return checkpoint.size, tuple(sorted(cosigners))
    return None, ()


@dataclass(frozen=True, slots=True)
class LogAccusation:
    """A proof that nodes show against a log. `why` says why it is not `proven` here: then it is no more than a claim of
    those nodes."""

    kind: str
    log: str
    parts: tuple[bytes, ...]
    nodes: tuple[str, ...]
    proven: bool
    why: str = ""


async def accusations(session: Session, names: Sequence[str] = ()) -> list[LogAccusation]:
    """What the named nodes keep, or all of them; each proof once, whoever shows it.

    Raises NotFound for a name that nobody has, and where nobody answers what kept them from it.
    """
    told = await _told(session, [session.named(name) for name in names])
    found: dict[ShownMisbehaviour, LogAccusation] = {}
    for node, proofs in told.items():
        for proof in {replace(proof, parts=tuple(sorted(proof.parts))) for proof in proofs}:
            known = found.get(proof) or _judged(session, proof)
            found[proof] = replace(known, nodes=(*known.nodes, node.name))
    return sorted(found.values(), key=lambda item: (not item.proven, item.log, item.kind))


async def _told(session: Session, nodes: Sequence[RemoteNode]) -> dict[RemoteNode, tuple[ShownMisbehaviour, ...]]:
    if nodes:
        return {node: await node.ask(lambda client: client.misbehaviour()) for node in nodes}
    answers = await session.ask(lambda client: client.misbehaviour())
    if not answers.found:
        raise answers.failure("nobody says what is kept against logs")
    return dict(answers.found)


def _judged(session: Session, proof: ShownMisbehaviour) -> LogAccusation:
    claim = LogAccusation(
        proof.kind, proof.origin, proof.parts, (), proven=False, why="no pinned federation has this log"
    )
    for key in log_keys(session, proof.origin):
        try:
            convict(proof.kind, proof.parts, key)
        except ComityError as error:
            claim = replace(claim, why=str(error))
        else:
            return replace(claim, proven=True, why="")
    return claim
