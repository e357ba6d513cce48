"""Publish a folder, or warn of an artifact: hash, sign, log; and believe no receipt before a checkpoint proves it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from comity.content.ingest import Ingested, ingest
from comity.trust.digest import Digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.names import Name
from comity.trust.statement import MAX_OBJECT_BYTES, Entry, SideObject, parse_entry
from comity.trust.statements.claims import Advisory, sign_advisory
from comity.trust.statements.published import Licence, Parent, Published
from comity.trust.tlog.checkpoint import Checkpoint
from comity.trust.tlog.cosignature import verified_cosigners
from comity.trust.tlog.proof import TlogProof
from comity.verifier import read_bounded
from comity.wire.values import Receipt as Promised

from comity_client.events import Note, OnEvent, Progress, Started
from comity_client.evidence.heads import consistency_proofs, meet
from comity_client.nodes.session import Session
from comity_client.nodes.uplink import Uplink, log_lines, open_uplink
from comity_client.owner.memory import Memory
from comity_client.owner.publishers import Publisher
from comity_client.pulling.model_signing import sign_folder

PROOF_PATIENCE: Final = 60.0
"""Seconds until a checkpoint has to cover what was just logged."""
PROOF_POLL: Final = 0.2


@dataclass(frozen=True, slots=True)
class Logged:
    """A line proven to be in a log: its index, the size of the tree that proves it, and who had cosigned that tree."""

    node: str
    origin: str
    index: int
    size: int
    line: Digest
    cosigners: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was logged, about which artifact, and where. `ignored` lists paths that a publication never contains.
    `model_key` is the hint of the key that signed the folder's `model.sig`, and `uncovered` what that leaves out."""

    title: str
    artifact: Digest
    logged: tuple[Logged, ...]
    files: int = 0
    bytes: int = 0
    ignored: tuple[str, ...] = ()
    model_key: Digest | None = None
    uncovered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Described:
    """What a publisher says beside the bytes. Files default to LICENSE and README.md in the folder, where they are.
    `model_key` writes a `model.sig` first."""

    licence: str
    licence_file: Path | None = None
    card: Path | None = None
    parents: tuple[Parent, ...] = ()
    model_key: PrivateKey | None = None
    documents: Mapping[str, Path] = field(default_factory=dict)


async def publish_folder(
    session: Session,
    memory: Memory,
    folder: Path,
    name: Name,
    publisher: Publisher,
    described: Described,
    targets: Sequence[str],
    *,
    workers: int,
    link: bool,
    on_event: OnEvent,
) -> Receipt:
    """Publish what is in `folder`. Logged at one node at least, or raised: Malformed, Conflict, Refused, Untrusted,
    OutOfSpace, Unavailable. Repeating it after a failure goes on from there."""
    made = await asyncio.to_thread(ingest, folder, workers=workers, on_progress=lambda n: on_event(Progress("", n)))
    signed = None
    if described.model_key is not None:
        signed = await asyncio.to_thread(sign_folder, made, folder, str(name), described.model_key)
        made = signed.ingested
    objects, published = _described(made, folder, name, publisher, described)
    entry = await asyncio.to_thread(publisher.sign, published)
    files = {made.manifest.by_path[path].sha256: source for path, source in made.files.items()}
    on_event(Started(len(made.files), made.manifest.size, 0))
    logged = await _log_at(
        session, memory, targets, [*publisher.lines, entry.line], objects, files, link=link, on_event=on_event
    )
    receipt = Receipt(str(name), published.artifact, logged, len(made.files), made.manifest.size, made.ignored)
    return replace(receipt, model_key=signed.key.hint, uncovered=signed.uncovered) if signed else receipt


async def publish_advisory(
    session: Session,
    memory: Memory,
    title: str,
    advisory: Advisory,
    publisher: Publisher,
    targets: Sequence[str],
    *,
    on_event: OnEvent,
) -> Receipt:
    """Log a warning. Raises as `publish_folder` does."""
    entry = await asyncio.to_thread(sign_advisory, advisory, publisher.signer())
    return await publish_statement(session, memory, title, entry, {}, publisher, targets, on_event=on_event)


async def publish_statement(
    session: Session,
    memory: Memory,
    title: str,
    entry: Entry,
    objects: Mapping[Digest, bytes],
    publisher: Publisher,
    targets: Sequence[str],
    *,
    on_event: OnEvent,
) -> Receipt:
    """Log what `publisher` signed about an artifact, its side objects first. Raises as `publish_folder` does."""
    lines = [*publisher.lines, entry.line]
    logged = await _log_at(session, memory, targets, lines, objects, {}, link=False, on_event=on_event)
    return Receipt(title, entry.statement.subject, logged)


async def publish_word(
    session: Session,
    memory: Memory,
    title: str,
    entry: Entry,
    proofs: Sequence[bytes],
    document: bytes | None,
    targets: Sequence[str],
    *,
    on_event: OnEvent,
) -> Receipt:
    """Log somebody's signed word about an artifact, with its document. Raises as `publish_folder` does.

    Args:
        proofs: lines that prove by which keys its author speaks.
    """
    objects = {sha256(document): document} if document is not None else {}
    lines = [*proofs, entry.line]
    logged = await _log_at(session, memory, targets, lines, objects, {}, link=False, on_event=on_event)
    return Receipt(title, entry.statement.subject, logged)


async def log_keys(
    session: Session, memory: Memory, publisher: Publisher, targets: Sequence[str], *, on_event: OnEvent
) -> tuple[Logged, ...]:
    """Log by which keys a publisher speaks: its inception and rotations. Raises as `publish_folder` does."""
    return await _log_at(session, memory, targets, publisher.lines, {}, {}, link=False, on_event=on_event)


def _described(
    made: Ingested, folder: Path, name: Name, publisher: Publisher, described: Described
) -> tuple[Mapping[Digest, bytes], Published]:
    """The statement, and the side objects that it names."""
    if not made.files:
        raise Malformed(f"{folder} has no files", why="an artifact has at least one", code="EMPTY")
    manifest, index = made.manifest.encode(), made.index.encode()
    licence = _document(described.licence_file, folder / "LICENSE")
    documents = {kind: read_bounded(path, MAX_OBJECT_BYTES) for kind, path in described.documents.items()}
    if card := _document(described.card, folder / "README.md"):
        documents.setdefault("card", card)
    published = Published(
        by=publisher.id,
        name=name,
        artifact=made.manifest.digest,
        manifest=SideObject.of(manifest),
        pieces=SideObject.of(index),
        licence=Licence(described.licence, SideObject.of(licence) if licence else None),
        lineage=described.parents,
        documents={kind: SideObject.of(data) for kind, data in documents.items()},
    )
    carried = (data for data in (manifest, index, licence, *documents.values()) if data)
    return {sha256(data): data for data in carried}, published


def _document(chosen: Path | None, usual: Path) -> bytes | None:
    if chosen is None and not usual.is_file():
        return None
    return read_bounded(chosen or usual, MAX_OBJECT_BYTES)


async def _log_at(
    session: Session,
    memory: Memory,
    targets: Sequence[str],
    lines: Sequence[bytes],
    objects: Mapping[Digest, bytes],
    files: Mapping[Digest, Path],
    *,
    link: bool,
    on_event: OnEvent,
) -> tuple[Logged, ...]:
    """Log `lines` at each target, one after the other; the last line's proof from each. One success is enough."""
    logged: list[Logged] = []
    failure: ComityError = NotFound(
        "no node to log it at",
        why="none is named, and the publisher has no home log",
        hint="name one of those in comity status, by --node",
        code="NO-NODE-NAMED",
    )
    for target in filter(None, targets):
        try:
            async with open_uplink(session, target) as uplink:
                receipts = await log_lines(uplink, lines, objects, files, link=link, on_event=on_event)
                logged.append(await proven(session, memory, uplink, lines[-1], receipts[-1], on_event))
        except ComityError as error:
            failure = error
            on_event(Note(f"{target}: {error}"))
    if not logged:
        raise failure
    return tuple(logged)


async def proven(
    session: Session, memory: Memory, uplink: Uplink, line: bytes, promised: Promised, on_event: OnEvent
) -> Logged:
    """The line is in the log, at the promised index, under a checkpoint that continues all that was seen before.

    Where the log had the same statement in another envelope, it is that line.
    """
    if promised.line_digest != sha256(line):
        line = await _standing(uplink, line, promised)
    ends = asyncio.get_running_loop().time() + PROOF_PATIENCE
    while (proof := await _proof(uplink, line)) is None:
        if asyncio.get_running_loop().time() > ends:
            why = f"no checkpoint of {uplink.origin} covers it after {PROOF_PATIENCE:g} s"
            raise Unavailable("logged, but not proven", why=why, hint="run the same command again", code="NO-PROOF")
        await asyncio.sleep(PROOF_POLL)
    checkpoint = proof.verify(line, uplink.log)
    if proof.index != promised.index:
        why = f"{uplink.name} promised index {promised.index}, and proves {proof.index}"
        raise Untrusted("the receipt does not hold", why=why, code="RECEIPT")
    try:
        await meet(memory, uplink.log, proof.checkpoint, consistency_proofs(session, uplink.client))
    except Unavailable as error:
        on_event(Note(str(error)))
    return Logged(
        uplink.name, uplink.origin, proof.index, checkpoint.size, sha256(line), _cosigners(session, proof, checkpoint)
    )


async def _standing(uplink: Uplink, line: bytes, promised: Promised) -> bytes:
    """The line that says what `line` says, where the log has it already. Raises Untrusted (RECEIPT)."""
    batches = uplink.client.entries(uplink.origin, promised.index, promised.index + 1)
    found = [standing async for batch in batches for standing in batch.lines]
    alike = [each for each in found if sha256(each) == promised.line_digest]
    if not alike or parse_entry(alike[0]).statement_digest != parse_entry(line).statement_digest:
        why = f"entry {promised.index} of {uplink.origin} says something else"
        raise Untrusted("the receipt does not hold", why=why, code="RECEIPT")
    return alike[0]


async def _proof(uplink: Uplink, line: bytes) -> TlogProof | None:
    try:
        located = await uplink.client.proofs(sha256(line), uplink.origin)
    except NotFound:
        return None
    return TlogProof.parse(located[0].proof) if located else None


def _cosigners(session: Session, proof: TlogProof, checkpoint: Checkpoint) -> tuple[str, ...]:
    keys = [key for node in session.nodes for key in node.record.cosigners]
    return tuple(sorted({key.name for key in verified_cosigners(proof.checkpoint, keys, checkpoint)}))
