"""Publish a folder, or warn of an artifact: hash, sign, log; and believe no receipt before a checkpoint proves it.

Vouching for an artifact: what was really done here comes first, then one signs that one did it.

Have a node mirror a repository from elsewhere. The node fetches, hashes, compares and signs; nothing is taken from
here but the order, and nothing is believed of the node but what a checkpoint proves to be in its log.

Statements of this user's: a publication, a repository mirrored from elsewhere, somebody's word on an artifact."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from comity.content.ingest import Ingested, ingest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Unavailable, Untrusted
from comity.trust.keys import PrivateKey
from comity.trust.names import Name
from comity.trust.policy import Policy
from comity.trust.statement import MAX_OBJECT_BYTES, Author, Entry, SideObject, parse_entry
from comity.trust.statements import Advisory, Licence, Parent, Published, Vouched, sign_advisory, sign_vouched
from comity.trust.tlog.note import Checkpoint, verified_cosigners
from comity.trust.tlog.proof import TlogProof
from comity.trust.upstream import Observed, UpstreamRequest, parse_changed, parse_gone
from comity.verifier import read_bounded
from comity.wire.limits import LONGEST_CALL
from comity.wire.messages import SubmitReceipt as Promised
from comity.wire.upstream import ImportDone, ImportEvent, ImportOrder, ImportProgress, ImportStarted, ImportWaiting
from comity_client.events import Note, OnEvent, Progress, Started
from comity_client.evidence.gather import gather
from comity_client.evidence.resolve import Resolution
from comity_client.offers.speaker import OfferSigner
from comity_client.publishers import Publisher
from comity_client.pull.destinations import LocalCopy, held
from comity_client.pull.model_sig import sign_folder
from comity_client.seen import SeenLogs, consistency_proofs, meet
from comity_client.session import Session
from comity_client.uplink import Uplink, log_lines, open_uplink

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
class PublishReceipt:
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
class PublicationDetails:
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
    memory: SeenLogs,
    folder: Path,
    name: Name,
    publisher: Publisher,
    described: PublicationDetails,
    targets: Sequence[str],
    *,
    workers: int,
    link: bool,
    on_event: OnEvent,
) -> PublishReceipt:
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
    receipt = PublishReceipt(str(name), published.artifact, logged, len(made.files), made.manifest.size, made.ignored)
    return replace(receipt, model_key=signed.key.hint, uncovered=signed.uncovered) if signed else receipt


async def publish_advisory(
    session: Session,
    memory: SeenLogs,
    title: str,
    advisory: Advisory,
    publisher: Publisher,
    targets: Sequence[str],
    *,
    on_event: OnEvent,
) -> PublishReceipt:
    """Log a warning. Raises as `publish_folder` does."""
    entry = await asyncio.to_thread(sign_advisory, advisory, publisher.signer())
    return await publish_statement(session, memory, title, entry, {}, publisher, targets, on_event=on_event)


async def publish_statement(
    session: Session,
    memory: SeenLogs,
    title: str,
    entry: Entry,
    objects: Mapping[Digest, bytes],
    publisher: Publisher,
    targets: Sequence[str],
    *,
    on_event: OnEvent,
) -> PublishReceipt:
    """Log what `publisher` signed about an artifact, its side objects first. Raises as `publish_folder` does."""
    lines = [*publisher.lines, entry.line]
    logged = await _log_at(session, memory, targets, lines, objects, {}, link=False, on_event=on_event)
    return PublishReceipt(title, entry.statement.subject, logged)


async def publish_word(
    session: Session,
    memory: SeenLogs,
    title: str,
    entry: Entry,
    proofs: Sequence[bytes],
    document: bytes | None,
    targets: Sequence[str],
    *,
    on_event: OnEvent,
) -> PublishReceipt:
    """Log somebody's signed word about an artifact, with its document. Raises as `publish_folder` does.

    Args:
        proofs: lines that prove by which keys its author speaks.
    """
    objects = {sha256(document): document} if document is not None else {}
    lines = [*proofs, entry.line]
    logged = await _log_at(session, memory, targets, lines, objects, {}, link=False, on_event=on_event)
    return PublishReceipt(title, entry.statement.subject, logged)


async def log_keys(
    session: Session, memory: SeenLogs, publisher: Publisher, targets: Sequence[str], *, on_event: OnEvent
) -> tuple[Logged, ...]:
    """Log by which keys a publisher speaks: its inception and rotations. Raises as `publish_folder` does."""
    return await _log_at(session, memory, targets, publisher.lines, {}, {}, link=False, on_event=on_event)


def _described(
    made: Ingested, folder: Path, name: Name, publisher: Publisher, described: PublicationDetails
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
    memory: SeenLogs,
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
    session: Session, memory: SeenLogs, uplink: Uplink, line: bytes, promised: Promised, on_event: OnEvent
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


REHASHED = "rehashed"


@dataclass(frozen=True, slots=True)
class Vouching:
    """What is said, and the document that says it at length."""

    statement: str
    text: str = ""
    document: bytes | None = None


async def vouch(
    session: Session,
    memory: SeenLogs,
    what: Path | str,
    word: Vouching,
    voice: OfferSigner,
    targets: Sequence[str],
    *,
    resolve: Callable[[str], Awaitable[Resolution]],
    policy: Policy,
    workers: int,
    on_event: OnEvent,
) -> PublishReceipt:
    """Log `word` about the folder or reference `what`.

    Raises as `held.held` does where the bytes are needed and are not here, or are not what their manifest lists: a
    folder is always hashed, a reference for *rehashed* alone. Raises Refused (NOT-A-SIGNER) where not enough of a
    member's keys are here. Else as `catalogue.resolve` and `publish_folder` do.
    """
    if not voice.whole:
        why = f"{voice.keys.threshold} of its keys sign together, and {len(voice.signers)} are here"
        raise Refused("not enough keys", why=why, hint="comity keys show", code="NOT-A-SIGNER")
    artifact, title = await _meant(session, what, word.statement, resolve, policy, workers, on_event)
    document = SideObject.of(word.document) if word.document is not None else None
    said = Vouched(Author("identity", voice.identity), artifact, word.statement, word.text, document)
    entry = await asyncio.to_thread(sign_vouched, said, *voice.signers)
    return await publish_word(session, memory, title, entry, voice.lines, word.document, targets, on_event=on_event)


async def _meant(
    session: Session,
    what: Path | str,
    statement: str,
    resolve: Callable[[str], Awaitable[Resolution]],
    policy: Policy,
    workers: int,
    on_event: OnEvent,
) -> tuple[Digest, str]:
    """The artifact, and what to call it. Somebody has to know it: a word about unknown bytes is of no use."""
    if isinstance(what, Path) or Path(what).is_dir():
        here = await _hashed(what, workers, on_event)
        await gather(session, here.artifact, policy)
        return here.artifact, here.title
    resolution = await resolve(what)
    if statement == REHASHED:
        here = await _hashed(f"sha256:{resolution.artifact}", workers, on_event)
        assert here.artifact == resolution.artifact
    return resolution.artifact, resolution.title


async def _hashed(what: Path | str, workers: int, on_event: OnEvent) -> LocalCopy:
    told = str(what)
    return await asyncio.to_thread(held, what, workers=workers, on_hashed=lambda count: on_event(Progress(told, count)))


SILENCE: Final = 60.0
"""Seconds without a sign of life from the node."""
TRIES: Final = 5
"""Connections in a row that bring nothing, after which the node is given up."""
PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Imported:
    """What the node observed, proven to be in its log; `before` says that it was there already."""

    observed: Observed
    logged: Logged
    before: bool

    @property
    def artifact(self) -> Digest:
        return self.observed.artifact


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """How an upstream stands now: `same`, `changed` (to the commit `successor`) or `gone` (`lost` says what)."""

    name: str
    state: str
    successor: str = ""
    lost: str = ""
    index: int = 0


async def import_at(session: Session, memory: SeenLogs, target: str, order: ImportOrder, on_event: OnEvent) -> Imported:
    """Have the node behind `target` (its operator's socket) import. Repeating it goes on from where it stood.

    Raises Refused, NotFound, Malformed, Untrusted, OutOfSpace, Unavailable: what the node found out, and Untrusted
    (RECEIPT) where what it gives back is not what was ordered.
    """
    if order.name:
        UpstreamRequest.parse(order.name)
    done = await _driven(session, target, order, on_event)
    observed = Observed.parse(parse_entry(done.line).statement)
    _require_ordered(order, observed)
    async with open_uplink(session, target) as uplink:
        promised = Promised(done.origin, done.index, sha256(done.line))
        logged = await proven(session, memory, uplink, done.line, promised, on_event)
    return Imported(observed, logged, done.before)


async def check_at(session: Session, target: str, name: str, token: str) -> UpstreamState:
    """Have the node ask an upstream again about what it mirrored. Raises NotFound, Refused, Unavailable."""
    async with open_uplink(session, target) as uplink:
        _require_operator(uplink)
        found = await uplink.client.within(LONGEST_CALL).upstream.check(name, token)
    if found.state == "same":
        return UpstreamState(name, found.state)
    statement = parse_entry(found.line).statement
    if found.state == "changed":
        return UpstreamState(name, found.state, successor=parse_changed(statement).successor, index=found.index)
    return UpstreamState(name, found.state, lost=parse_gone(statement).lost, index=found.index)


async def _driven(session: Session, target: str, order: ImportOrder, on_event: OnEvent) -> ImportDone:
    """Call the node until it is done: again after an hour, and after each restart of the node."""
    barren = 0
    while True:
        told = _Told(on_event)
        try:
            async with open_uplink(session, target) as uplink:
                _require_operator(uplink)
                events = uplink.client.within(SILENCE).upstream.run(order)
                async with aclosing(events):
                    async for event in events:
                        if isinstance(event, ImportDone):
                            return event
                        told.tell(event)
            raise Unavailable("the node ended the import", why="without a result", code="BROKEN-OFF")
        except Unavailable as error:
            barren = 0 if told.came else barren + 1
            if error.code not in ("DEADLINE", "UNREACHABLE", "BROKEN-OFF", "LOG-STARTING") or barren >= TRIES:
                raise
            on_event(Note(f"{error}; going on"))
            await asyncio.sleep(PAUSE * 2**barren)


class _Told:
    """One connection's events, passed on."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._last = ""
        self.came = False

    def tell(self, event: ImportEvent) -> None:
        match event:
            case ImportStarted():
                self._on_event(Started(event.files, event.bytes, 0))
            case ImportProgress() if event.count:
                self.came = True
                self._on_event(Progress(event.path, event.count))
            case ImportWaiting() if event.why != self._last:
                self._last = event.why
                self._on_event(Note(f"waiting: {event.why}"))
            case _:
                pass


def _require_operator(uplink: Uplink) -> None:
    if not uplink.operator:
        hint = "name its operator's socket: --node PATH"
        raise Refused(f"{uplink.name} imports for its operators only", why="it was reached as by anybody", hint=hint)


def _require_ordered(order: ImportOrder, observed: Observed) -> None:
    """That the statement is about what was asked for: a repository may have been renamed, a commit may not."""
    upstream = observed.upstream
    commit = UpstreamRequest.parse(order.name).revision if order.name else upstream.commit
    if len(commit) == 40 and upstream.commit != commit and upstream.requested != commit:
        why = f"it logged an observation of {upstream.name}"
        raise Untrusted("the receipt does not hold", why=why, code="RECEIPT")


def read_token(file: Path | None) -> str:
    """The token in a file, one line. Raises Malformed."""
    if file is None:
        return ""
    text = file.read_text("utf-8", "replace").strip()
    if not text or not text.isprintable() or " " in text or len(text) > 256:
        raise Malformed(f"{file} holds no token", why="expected one word on one line", code="CONFIG")
    return text
