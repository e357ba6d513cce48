"""Logs, read as an outsider reads them: checkpoints, entries, proofs of a line, whole logs, misbehaviour proofs.

Checkpoints and proofs are verified with the pinned keys and against the stored checkpoints. Misbehaviour proofs from
nodes are verified again here, with keys of pinned federations; the claim of a node alone does not count.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from comity.rules.misbehaviour import verify_misbehaviour
from comity.rules.tree_proofs import Frontier
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.trust.statement import Entry
from comity.trust.tlog.merkle import leaf_hash
from comity.trust.tlog.note import Checkpoint, SignedNote, VerifierKey, open_checkpoint
from comity.trust.tlog.proof import TlogProof
from comity.wire import limits
from comity.wire.client import NodeClient
from comity.wire.log import ShownMisbehaviour

from comity_client.seen import SeenLogs, consistency_proofs, cosigner_names, reconcile_checkpoint
from comity_client.session import Question, RemoteNode, Session
from comity_client.uplink import find_node

ENTRIES_AT_ONCE: Final = 4096


@frozen
class SeenCheckpoint:
    """The newest checkpoint of a log that any node returned; signature and cosignatures are verified."""

    checkpoint: Checkpoint
    note: bytes
    cosigners: tuple[str, ...]
    node: str


@frozen
class LogEntry:
    """One entry of a log; `entry` is None if the line is not a readable statement."""

    index: int
    line: bytes
    entry: Entry | None


@frozen
class ProvenIn:
    """A line is entry `index` of a log of `size` entries; verified here."""

    origin: str
    index: int
    size: int
    cosigners: tuple[str, ...]
    proof: bytes


@frozen
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
        for log in _keys_of_origin(session, located.origin):
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
    if keys := [node.record.log for node in session.nodes if str(node.record.log) == name] or _keys_of_origin(
        session, name
    ):
        with contextlib.suppress(NotFound):
            return session.home_node(name).record.log
        return keys[0]
    known = ", ".join(sorted({node.record.origin for node in session.nodes}))
    raise NotFound(f"no log {name!r}", why=f"known from pinned federations: {known}", hint="comity status")


@frozen
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
    for key in _keys_of_origin(session, proof.origin):
        try:
            verify_misbehaviour(proof.kind, proof.parts, key)
        except ComityError as error:
            claim = replace(claim, why=str(error))
        else:
            return replace(claim, proven=True, why="")
    return claim


def _keys_of_origin(session: Session, origin: str) -> tuple[VerifierKey, ...]:
    """Return the log keys of pinned nodes with log origin `origin`."""
    return tuple(dict.fromkeys(node.record.log for node in session.nodes if node.record.origin == origin))
