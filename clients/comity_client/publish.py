"""Publish statements of this user: hash a folder, sign, log, and verify the receipt.

A receipt of a node counts only after a checkpoint proves the line in the log.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from comity.bounded_file import read_bounded
from comity.content.ingest import Ingested, ingest
from comity.formats.model_card import CARD_FILE, MAX_CARD_FILE, front_matter
from comity.rules.artifact_kind import KindStated, by_lost_keys, check_kind, next_statement, stated_by
from comity.rules.collector import Collector
from comity.rules.image_signature import ImageSigned, classical_half, sign_image
from comity.rules.image_summary import ImageVerified, summarise_image
from comity.rules.model_pack import pack_image
from comity.rules.signing import sign_content
from comity.trust.artifact import Manifest
from comity.trust.claims import ParsedClaims, proven_advisories
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.trust.home_logs import home_origin
from comity.trust.keys import PrivateKey, PublicKey, Signer
from comity.trust.names import Name
from comity.trust.policy import Policy, SafetyRule
from comity.trust.report import Verified
from comity.trust.statement import MAX_OBJECT_BYTES, Entry, SideObject, parse_entry
from comity.trust.statements import LINEAGE_RELATIONS, Advisory, Licence, Parent, Published
from comity.trust.tlog.proof import TlogProof
from comity.wire.publish import SubmitReceipt as Promised

from comity_client.events import Note, OnEvent, Progress, Started, in_thread
from comity_client.evidence.collect import collect
from comity_client.evidence.inquiry import Inquiry
from comity_client.evidence.proofs import fetch_object
from comity_client.evidence.resolve import Resolution
from comity_client.licences import canonical_licence
from comity_client.publishers import Publisher
from comity_client.pull.model_sig import sign_folder
from comity_client.scan import refusals
from comity_client.seen import SeenLogs, consistency_proofs, cosigner_names, reconcile_checkpoint
from comity_client.session import Session, Target
from comity_client.uplink import Uplink, log_lines, open_uplink

PROOF_TIMEOUT: Final = 60.0
"""Seconds until a checkpoint must cover a logged line."""
PROOF_POLL: Final = 0.2


@frozen
class Logged:
    """A line proven to be in a log: its index, the size of the tree that proves it, and the cosigners of that tree."""

    node: str
    origin: str
    index: int
    size: int
    line: Digest
    cosigners: tuple[str, ...]
    log: str = ""
    """The verifier key of the log."""


@frozen
class ImageReceipt:
    """The signature of the image of an artifact: the digest of the image manifest, the algorithm and the id of the key
    that signed it, and where the signature was logged."""

    digest: Digest
    algorithm: str
    key: Digest
    logged: tuple[Logged, ...]


@frozen
class PublishReceipt:
    """What was logged, about which artifact, and where. `ignored`: paths that a publication never contains.
    `model_key`: the hint of the key that signed the `model.sig` of the folder; `uncovered`: paths that this
    signature does not cover. `image`: the signature of its image, if one was made. `kind`: the kind that it was
    published as, if one was given."""

    title: str
    artifact: Digest
    logged: tuple[Logged, ...]
    files: int = 0
    bytes: int = 0
    ignored: tuple[str, ...] = ()
    model_key: Digest | None = None
    uncovered: tuple[str, ...] = ()
    image: ImageReceipt | None = None
    kind: str | None = None


@frozen
class PublicationDetails:
    """What a publisher states in addition to the bytes. Files default to LICENSE and README.md in the folder, if
    present. `model_key` writes a `model.sig` first; `sign_image` signs the image of the artifact once it is logged;
    `kind` is stated with it, None to state none. The licence is written as SPDX spells it; raises Malformed
    (BAD-LICENCE) if it is no SPDX expression and not `unlisted`, and Malformed (BAD-KIND)."""

    licence: str
    licence_file: Path | None = None
    card: Path | None = None
    parents: tuple[Parent, ...] = ()
    model_key: PrivateKey | None = None
    documents: Mapping[str, Path] = field(default_factory=dict)
    unlisted: bool = False
    sign_image: bool = False
    kind: str | None = None

    def __post_init__(self) -> None:
        if self.kind is not None:
            check_kind(self.kind)
        object.__setattr__(self, "licence", canonical_licence(self.licence, unlisted=self.unlisted))


@frozen
class LogTargets:
    """Where statements are logged: at each of `nodes` in turn, in a session in which the receipts are verified."""

    session: Session
    seen_logs: SeenLogs
    nodes: Sequence[Target]
    on_event: OnEvent


async def with_digests(
    parents: Iterable[Parent], resolve: Callable[[str], Awaitable[Resolution]], on_event: OnEvent
) -> tuple[Parent, ...]:
    """Return `parents`; a parent without a digest gets the digest that its name resolves to now, because a claim must
    not change with later resolutions. A parent that does not resolve is kept unchanged, with a note."""
    named = []
    for parent in parents:
        if parent.digest is None:
            try:
                resolution = await resolve(parent.name)
                parent = Parent(parent.relation, resolution.title, resolution.artifact)
                on_event(Note(f"parent {resolution.title} is sha256:{resolution.artifact}, by {resolution.basis}"))
            except ComityError as error:
                on_event(Note(f"parent {parent.name} is named without a digest: {error}"))
        named.append(parent)
    return tuple(named)


async def publish_folder(
    targets: LogTargets,
    folder: Path,
    name: Name,
    publisher: Publisher,
    details: PublicationDetails,
    *,
    workers: int,
    link: bool,
) -> PublishReceipt:
    """Publish the files in `folder`. At least one node must log it; else raises Malformed, Conflict, Refused,
    Untrusted, OutOfSpace, Unavailable. After a failure, the same call resumes."""
    on_event = targets.on_event
    made = await in_thread(
        lambda report: ingest(folder, workers=workers, on_progress=lambda count: report(Progress("", count))), on_event
    )
    await in_thread(lambda report: _warn_of_refusals(made.files, report), on_event)
    if not details.parents and (base := await asyncio.to_thread(named_base, folder, details.card)):
        on_event(Note(base.warning))
    signed = None
    if details.model_key is not None:
        signed = await asyncio.to_thread(sign_folder, made, folder, str(name), details.model_key)
        made = signed.ingested
    objects, published = _publication(made, folder, name, publisher, details)
    known = await _known_claims(targets.session, published)
    for warning in _known_bytes(known, published) if known else ():
        on_event(Note(warning))
    kind = await asyncio.to_thread(_kind_line, publisher, published, details.kind, known) if details.kind else None
    earlier = await asyncio.to_thread(publisher.other_statements, published)
    entry = await asyncio.to_thread(publisher.sign, published)
    files = {made.manifest.by_path[path].sha256: source for path, source in made.files.items()}
    sizes = {entry.sha256: entry.size for entry in made.manifest.files}
    work = sum(sizes.values()) * sum(map(bool, targets.nodes))
    on_event(Started(len(made.files), made.manifest.size, 0, work))
    image = await asyncio.to_thread(sign_own_image, publisher, name, made.manifest) if details.sign_image else None
    # In one submission, and first: nobody sees the artifact as another kind meanwhile.
    lines = [*publisher.lines, *([kind] if kind else []), entry.line]
    logged = await _log_at(targets, lines, objects, files, link=link)
    if earlier and (warning := _order_warning(publisher, name, logged, targets.session)):
        on_event(Note(warning))
    receipt = PublishReceipt(str(name), published.artifact, logged, len(made.files), made.manifest.size, made.ignored)
    receipt = replace(receipt, kind=details.kind)
    if image is not None:
        receipt = replace(receipt, image=await log_image(targets, publisher, image))
    return replace(receipt, model_key=signed.key.hint, uncovered=signed.uncovered) if signed else receipt


async def _known_claims(session: Session, published: Published) -> ParsedClaims | None:
    """Return what nodes know of these bytes; None if they know nothing, or do not answer."""
    policy = Policy(pins=tuple(pin.body for pin in session.pins), origins=session.origins)
    collector = Collector(published.artifact, policy, published.by)
    try:
        return (await collect(Inquiry(session, policy), collector)).claims
    except (NotFound, Unavailable):
        return None


def _kind_line(publisher: Publisher, published: Published, kind: str, known: ParsedClaims | None) -> bytes | None:
    """Return the line that states the kind; None if that kind counts already. Raises as `next_statement` and
    `Publisher.signer` do."""
    wanted = KindStated(publisher.id, published.name, published.artifact, kind, 0)
    lost = by_lost_keys(known, publisher.id, published.artifact) if known else ()
    others = [entry for entry in known.entries if entry not in lost] if known else ()
    said, stolen = (stated_by(each, publisher.id, published.artifact) for each in (others, lost))
    stated = next_statement(said, wanted, stolen)
    return sign_content(stated, publisher.signer()).line if stated else None


def _known_bytes(claims: ParsedClaims, published: Published) -> tuple[str, ...]:
    """Return what its publisher should know before it signs: what it said about these bytes under other names holds for
    the new name too, because statements are about bytes."""
    own = (each.published.name for each in claims.publications if each.publisher.id == published.by)
    others = [str(name) for name in dict.fromkeys(own) if name != published.name]
    if not others:
        return ()
    said = proven_advisories(claims, published.artifact)
    withdrawn = [each for each in said if each.withdraws_for(published.by)]
    replaced = (
        f"these bytes are {', '.join(others)} already: the newest statement about them counts, so its licence, lineage "
        "and documents replace the older ones under all of these names"
    )
    inherited = (
        f"{each.kind} ({each.text}) is about these bytes, so {published.name} has it too" for each in withdrawn
    )
    return (replaced, *inherited)


@frozen
class NamedBase:
    """The base models that a card names, and the relation in the words of lineage."""

    models: tuple[str, ...]
    relation: str

    @property
    def warning(self) -> str:
        options = " ".join(f"--parent {self.relation}=hf:{name}" for name in self.models)
        return (
            f"the card names {', '.join(self.models)} as base model, and the publication names no parent. To name it: "
            f"{options}, or its name or digest in your federation"
        )


def named_base(folder: Path, card: Path | None) -> NamedBase | None:
    """Return the base models that the card of a folder names; None if it names none. Blocking. Raises Unavailable."""
    path = card or folder / CARD_FILE
    if not path.is_file() or path.stat().st_size > MAX_CARD_FILE:
        return None
    found = front_matter(read_bounded(path, MAX_CARD_FILE))
    models, said = found.get("base_model", ()), next(iter(found.get("base_model_relation", ())), "")
    return NamedBase(models[:MAX_BASES], said if said in LINEAGE_RELATIONS else "finetune") if models else None


MAX_BASES: Final = 4
"""Base models of a card that are named to its publisher."""


def _warn_of_refusals(files: Mapping[str, Path], report: OnEvent) -> None:
    """Tell the publisher, before anything is signed, which files the default policy of readers refuses."""
    refused = list(itertools.islice(refusals(files, SafetyRule()), MAX_REFUSALS + 1))
    for path, reason in refused[:MAX_REFUSALS]:
        report(Note(f"the default policy of readers refuses {path}: {reason}"))
    if len(refused) > MAX_REFUSALS:
        report(Note("and other files; all of them: comity scan DIR"))


MAX_REFUSALS: Final = 5


def _order_warning(publisher: Publisher, name: Name, logged: Sequence[Logged], session: Session) -> str:
    """Return why a statement about bytes that this publisher published before may not replace the older one."""
    if not publisher.home:
        return (
            f"{publisher.label} has no home log, so nothing orders two statements about {name}: "
            "publish the correction under the next version"
        )
    if any(item.log in session.home_logs(publisher.home).logs for item in logged):
        return ""
    origin = home_origin(publisher.home)
    return f"this statement replaces the older one about the same bytes, but counts only when it is in {origin}"


async def publish_advisory(targets: LogTargets, title: str, advisory: Advisory, publisher: Publisher) -> PublishReceipt:
    """Log an advisory. Raises as `publish_folder` does."""
    entry = await asyncio.to_thread(sign_content, advisory, publisher.signer())
    return await publish_statement(targets, title, entry, publisher.lines)


async def publish_statement(
    targets: LogTargets, title: str, entry: Entry, keys: Sequence[bytes], objects: Mapping[Digest, bytes] | None = None
) -> PublishReceipt:
    """Log a signed statement about an artifact, side objects first. Raises as `publish_folder` does.

    Args:
        keys: lines that prove the keys of its author; they are logged before it.
    """
    logged = await _log_at(targets, [*keys, entry.line], objects or {})
    return PublishReceipt(title, entry.statement.subject, logged)


@frozen
class SignedImage:
    """The digest of the image of an artifact, the key that signed it, and the line to log."""

    image: Digest
    key: PublicKey
    entry: Entry


def image_key(publisher: Publisher) -> PublicKey:
    """Return the key by which other programs check the images of a publisher, of its newest keys. Raises Malformed
    (NO-CLASSICAL-KEY)."""
    return classical_half(publisher.chain.current.keys.keys[0])


def image_digest(manifest: Manifest, title: str) -> Digest:
    """Return the digest of the image of an artifact. Raises Malformed (NO-IMAGE) if it has none."""
    image = pack_image(manifest)
    if image is None:
        why = f"its {len(manifest.files)} files do not fit into an image manifest"
        hint = "publish it without --sign-oci"
        raise Malformed(f"{title} has no OCI form", why=why, hint=hint, code="NO-IMAGE")
    return image.manifest.digest


def sign_own_image(publisher: Publisher, name: Name, manifest: Manifest) -> SignedImage:
    """Sign the image of an artifact that the publisher published under `name`. Raises Malformed (NO-IMAGE,
    NO-CLASSICAL-KEY), and as `Publisher.signer` does."""
    image, signer = image_digest(manifest, str(name)), publisher.signer()
    return _to_log(sign_image(publisher.id, name, manifest.digest, image, signer), signer)


def summarise_own_image(publisher: Publisher, manifest: Manifest, verified: Verified) -> SignedImage:
    """Sign, for the image of an artifact, that the publisher verified and accepted it. Raises Refused (IMAGE-REFUSED),
    Malformed (NO-IMAGE, NO-CLASSICAL-KEY), and as `Publisher.signer` does."""
    if manifest.digest != verified.artifact:
        raise Malformed("not the manifest of the report", why=f"it is of sha256:{manifest.digest}")
    image, signer = image_digest(manifest, verified.name), publisher.signer()
    return _to_log(summarise_image(verified, image, signer), signer)


def _to_log(said: ImageSigned | ImageVerified, signer: Signer) -> SignedImage:
    """Check what was signed as a reader does, and sign the line."""
    key = classical_half(signer.public)
    said.verify(key)
    return SignedImage(said.image, key, sign_content(said, signer))


async def published_manifest(session: Session, artifact: Digest) -> Manifest:
    """Return the manifest of an artifact, from any node. Raises as `fetch_object` does."""
    return Manifest.parse(await fetch_object(session, artifact))


def require_own(publisher: Publisher, by: Digest | None, title: str) -> None:
    """Raises Refused (NOT-PUBLISHER) unless the artifact was published by the publisher."""
    if by != publisher.id:
        why = f"it was published by {by[:12]}" if by else "no publisher signed it"
        hint = "only the publisher of a name signs its images; what you checked yourself: comity vouch --help"
        raise Refused(f"{publisher.label} does not sign the image of {title}", why=why, hint=hint, code="NOT-PUBLISHER")


async def log_image(targets: LogTargets, publisher: Publisher, image: SignedImage) -> ImageReceipt:
    """Log the signature of an image. Raises as `publish_folder` does."""
    logged = await _log_at(targets, [*publisher.lines, image.entry.line], {})
    return ImageReceipt(image.image, image.key.alg, image.key.id, logged)


async def log_keys(targets: LogTargets, publisher: Publisher) -> tuple[Logged, ...]:
    """Log the keys of a publisher: its inception and rotations. Raises as `publish_folder` does."""
    return await _log_at(targets, publisher.lines, {})


def _publication(
    made: Ingested, folder: Path, name: Name, publisher: Publisher, details: PublicationDetails
) -> tuple[Mapping[Digest, bytes], Published]:
    """Return the side objects by digest, and the statement that names them."""
    if not made.files:
        raise Malformed(f"{folder} has no files", why="an artifact has at least one", code="EMPTY")
    manifest, index = made.manifest.encode(), made.index.encode()
    licence = _document(details.licence_file, folder / "LICENSE")
    documents = {kind: read_bounded(path, MAX_OBJECT_BYTES) for kind, path in details.documents.items()}
    if card := _document(details.card, folder / "README.md"):
        documents.setdefault("card", card)
    published = Published(
        by=publisher.id,
        name=name,
        artifact=made.manifest.digest,
        manifest=SideObject.of(manifest),
        pieces=SideObject.of(index),
        licence=Licence(details.licence, SideObject.of(licence) if licence else None),
        lineage=details.parents,
        documents={kind: SideObject.of(data) for kind, data in documents.items()},
    )
    carried = (data for data in (manifest, index, licence, *documents.values()) if data)
    return {sha256(data): data for data in carried}, published


def _document(chosen: Path | None, usual: Path) -> bytes | None:
    if chosen is None and not usual.is_file():
        return None
    return read_bounded(chosen or usual, MAX_OBJECT_BYTES)


async def _log_at(
    targets: LogTargets,
    lines: Sequence[bytes],
    objects: Mapping[Digest, bytes],
    files: Mapping[Digest, Path] = MappingProxyType({}),
    *,
    link: bool = False,
) -> tuple[Logged, ...]:
    """Log `lines` at each target in turn. Returns the proof of the last line from each; one success is enough."""
    session, seen_logs, on_event = targets.session, targets.seen_logs, targets.on_event
    logged: list[Logged] = []
    failure: ComityError = NotFound(
        "no node to log at",
        why="no node is named, and the publisher has no home log",
        hint="comity status; then name a node of that list: --node NAME",
        code="NO-NODE-NAMED",
    )
    for target in (each for each in targets.nodes if each):
        try:
            async with open_uplink(session, target) as uplink:
                receipts = await log_lines(uplink, lines, objects, files, link=link, on_event=on_event)
                logged.append(await verify_logged(session, seen_logs, uplink, lines[-1], receipts[-1], on_event))
        except ComityError as error:
            failure = error
            on_event(Note(f"{target}: {error}"))
    if not logged:
        raise failure
    return tuple(logged)


async def verify_logged(
    session: Session, seen_logs: SeenLogs, uplink: Uplink, line: bytes, promised: Promised, on_event: OnEvent
) -> Logged:
    """Verify that the line is in the log at the promised index, under a checkpoint that extends all checkpoints seen
    before.

    If the log already had the same statement in another envelope, that line is verified.
    """
    if promised.line_digest != sha256(line):
        line = await _existing_line(uplink, line, promised)
    ends = asyncio.get_running_loop().time() + PROOF_TIMEOUT
    while (proof := await _proof(uplink, line)) is None:
        if asyncio.get_running_loop().time() > ends:
            why = f"no checkpoint of {uplink.origin} covers it after {PROOF_TIMEOUT:g} s"
            raise Unavailable("logged, but not proven", why=why, hint="run the same command again", code="NO-PROOF")
        await asyncio.sleep(PROOF_POLL)
    checkpoint = proof.verify(line, uplink.log)
    if proof.index != promised.index:
        why = f"{uplink.name} promised index {promised.index} but proves {proof.index}"
        raise Untrusted("the receipt is not valid", why=why, code="RECEIPT")
    try:
        await reconcile_checkpoint(seen_logs, uplink.log, proof.checkpoint, consistency_proofs(session, uplink.client))
    except Unavailable as error:
        on_event(Note(str(error)))
    return Logged(
        uplink.name,
        uplink.origin,
        proof.index,
        checkpoint.size,
        sha256(line),
        cosigner_names(session, proof.checkpoint, checkpoint),
        str(uplink.log),
    )


async def _existing_line(uplink: Uplink, line: bytes, promised: Promised) -> bytes:
    """Return the line in the log with the same statement as `line`. Raises Untrusted (RECEIPT)."""
    batches = uplink.client.entries(uplink.origin, promised.index, promised.index + 1)
    found = [existing async for batch in batches for existing in batch.lines]
    alike = [each for each in found if sha256(each) == promised.line_digest]
    if not alike or parse_entry(alike[0]).statement_digest != parse_entry(line).statement_digest:
        why = f"entry {promised.index} of {uplink.origin} is another statement"
        raise Untrusted("the receipt is not valid", why=why, code="RECEIPT")
    return alike[0]


async def _proof(uplink: Uplink, line: bytes) -> TlogProof | None:
    try:
        located = await uplink.client.proofs(sha256(line), uplink.origin)
    except NotFound:
        return None
    return TlogProof.parse(located[0].proof) if located else None
