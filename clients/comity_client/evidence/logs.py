"""Looking into logs as an outsider: everything is checked against the pinned keys, and against what was seen before."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest, sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.statement import Entry
from comity.trust.tlog.checkpoint import Checkpoint, open_checkpoint
from comity.trust.tlog.cosignature import verified_cosigners
from comity.trust.tlog.merkle import Frontier, leaf_hash
from comity.trust.tlog.note import SignedNote, VerifierKey
from comity.trust.tlog.proof import TlogProof
from comity.wire import limits
from comity.wire.client import NodeClient

from comity_client.evidence.catalogue import log_keys
from comity_client.evidence.heads import consistency_proofs, meet
from comity_client.evidence.proving import readable
from comity_client.nodes.session import Question, RemoteNode, Session
from comity_client.owner.memory import Memory

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


async def newest_checkpoint(session: Session, memory: Memory, origin: str) -> SeenCheckpoint:
    """The largest that any node shows.

    Raises NotFound for a log that no pinned federation knows; Equivocation or Untrusted (UNRECONCILED) where it
    contradicts what was seen; Untrusted where no shown note is the log's; Unavailable.
    """
    return (await _newest(session, memory, origin))[1]


async def _newest(session: Session, memory: Memory, origin: str) -> tuple[RemoteNode, SeenCheckpoint]:
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


async def check_log(session: Session, memory: Memory, origin: str) -> LogCheck:
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
