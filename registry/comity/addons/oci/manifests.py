"""What a registry serves of an artifact: its ModelPack, which `comity.rules.model_pack` makes, and what refers to it.

Referrers are small image manifests whose `subject` is the ModelPack manifest:

    statements about it     in-toto statements in DSSE envelopes, as they are in a log: published, vouched, advisories,
                            verification summaries (a logged report); the predicate type is an annotation
    proofs                  the inclusion proof of each statement by which somebody published or observed the artifact
    signatures, summaries   about this manifest, as Sigstore bundles; also at tags
    model.sig               the OpenSSF signature, if it is a file of the artifact
    bills of materials      files of the artifact by the names that CycloneDX and SPDX recommend
    documents               those that the publisher named in the statement (card, training summary, evaluation)

Programs that check images find the signatures of a model as such referrers (cosign 3), and at the tag `sha256-….sig` of
its repository, an image manifest with a layer for each signature: cosign 2, policy-controller, Kyverno and the
libraries of skopeo and podman read that. Verification summaries are at the tag `sha256-….att` in the same way. Sources:
cosign, specs/SIGNATURE_SPEC.md, specs/ATTESTATION_SPEC.md and specs/BUNDLE_SPEC.md; OCI image specification, config.md.

The node has verified the signatures of the statements; a client verifies them again. A statement and its referrer keep
their digests for ever. A proof is one under the best checkpoint that the node knows now, so its digest changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Final

from comity.addons.oci.ollama import MANIFEST as OLLAMA_MANIFEST
from comity.addons.oci.ollama import encode_image, find_projector, list_models, model_config, model_image
from comity.gateway.hub.mirrored import LocalStatements
from comity.rules.image_signature import COSIGN_PREDICATE, ImageSignature, foreign_signature
from comity.rules.image_summary import SUMMARY_PREDICATE, ImageSummary, SaidOfImage
from comity.rules.model_pack import (
    IMAGE_CONFIG,
    IMAGE_INDEX,
    IMAGE_MANIFEST,
    TITLE,
    Document,
    descriptor,
    image_manifest,
    of_document,
    pack_image,
)
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, Json, b64encode, canonical
from comity.trust.errors import Malformed
from comity.trust.evidence import MODEL_SIG
from comity.trust.frozen import frozen
from comity.trust.model_signing.bundle import Bundle, KeyMaterial
from comity.trust.statement import PAYLOAD_TYPE, Entry, Statement, parse_entry
from comity.trust.statement_kinds import ADVISORY, PUBLICATION_PREDICATES, PUBLISHED
from comity.trust.statements import Advisory, Published

OCTETS: Final = "application/octet-stream"

STATEMENT: Final = "application/vnd.in-toto+json"
ENVELOPE: Final = "application/vnd.dsse.envelope.v1+json"
PROOF: Final = "application/vnd.c2sp.tlog-proof.v1"
SIGNATURE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
CYCLONEDX: Final = "application/vnd.cyclonedx+json"
SPDX: Final = "application/spdx+json"
DOCUMENT: Final = "application/vnd.comity.document.v1"
PREDICATE: Final = "in-toto.io/predicate-type"
KIND: Final = "dev.comity.document"
ADVISED: Final = "dev.comity.advisory"
"""Annotation of an advisory: its kind and severity."""
STATE: Final = "dev.comity.state"
"""Annotation of a list of referrers: whether the publisher withdrew the artifact."""
WITHDRAWN: Final = "withdrawn by its publisher"
UNREAD: Final = "dev.comity.unread"
"""Annotation of a list of referrers that has not everything: what was left out."""
MORE_STATEMENTS: Final = "unknown: more statements than were read"
MAX_STATEMENTS: Final = 128
"""Statements that are listed of an artifact, in the order of `comity.rules.precedence`."""
MAX_PROOFS: Final = 8
NOTHING: Final = SaidOfImage()

PAYLOAD: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_NOTE: Final = "dev.cosignproject.cosign/signature"
"""Annotation of a layer: the signature of its bytes, in base64."""
CONTENT_NOTE: Final = "dev.sigstore.bundle.content"
PREDICATE_NOTE: Final = "dev.sigstore.bundle.predicateType"

_IMAGE_TAG: Final = re.compile(r"sha256-([0-9a-f]{64})\.(sig|att)\Z")

TITLE_DIGITS: Final = 16
"""Digits of the digest of a statement or proof in the name of its file."""
_ENDINGS: Final[Mapping[str, str]] = {STATEMENT: ".dsse.json", PROOF: ".tlog-proof", SIGNATURE: ".sigstore.json"}
_BOMS: Final[Mapping[str, str]] = {"bom.json": CYCLONEDX, ".cdx.json": CYCLONEDX, ".spdx.json": SPDX}


EMPTY: Final = Document(b"{}", "application/vnd.oci.empty.v1+json")


@frozen
class ModelPack:
    """What the registry serves of an artifact: its ModelPack manifest, None if it would be too large; every manifest
    and blob that is made of it, and its files, the two by digest."""

    manifest: Document | None
    documents: Mapping[Digest, Document]
    files: Mapping[Digest, FileEntry]


def make_pack(manifest: Manifest) -> ModelPack:
    """Return what the registry serves of an artifact."""
    image = pack_image(manifest)
    made = [*([image.manifest, image.config] if image else []), EMPTY, *_ollama_documents(manifest)]
    documents = {document.digest: document for document in made}
    return ModelPack(image.manifest if image else None, documents, {entry.sha256: entry for entry in manifest.files})


def _ollama_documents(manifest: Manifest) -> Iterable[Document]:
    projector = find_projector(manifest)
    for entry in list_models(manifest):
        yield Document(encode_image(model_image(entry, projector)), OLLAMA_MANIFEST)
        yield Document(model_config(entry), OCTETS)


@frozen
class Referrer:
    """One referrer: its image manifest and, if it is made here, the blob that it names."""

    manifest: Document
    kind: str
    annotations: Mapping[str, str]
    blob: Document | None = None

    def describe(self) -> dict[str, Json]:
        return of_document(self.manifest, artifactType=self.kind, annotations=dict(self.annotations))


@frozen
class Statements:
    """The statements about `artifact`, what counts of those about its image, and what refers to it without the proofs.
    `more`: there are others that a limit left out."""

    artifact: Digest
    entries: tuple[Entry, ...]
    more: bool
    of_image: SaidOfImage
    referrers: Referrers

    @property
    def subjects(self) -> tuple[Digest, ...]:
        """About what a statement changes them: the artifact, and those whose keys count."""
        return (self.artifact, *self.of_image.authors)

    @property
    def size(self) -> int:
        """Bytes of all lines and documents."""
        return sum(len(entry.line) for entry in self.entries) + self.referrers.size


@frozen
class Referrers:
    """The referrers of the manifest `subject`; `documents` are their manifests and blobs, `files` those that are in the
    store. `unread`: there are more statements than are listed. `attached`: the manifests at the tags of its signatures
    and summaries, `sig` and `att`, those that there are."""

    subject: Digest
    all: tuple[Referrer, ...]
    documents: Mapping[Digest, Document]
    files: Mapping[Digest, FileEntry]
    unread: bool = False
    attached: Mapping[str, Document] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all documents."""
        return sum(len(document.data) for document in self.documents.values())

    def index(self, kind: str | None, *, withdrawn: bool = False) -> bytes:
        """Return the image index of all referrers, or of those of an artifact type; with `withdrawn`, it says so."""
        chosen: list[Json] = [found.describe() for found in self.all if kind in (None, found.kind)]
        notes: dict[str, Json] = {STATE: WITHDRAWN} if withdrawn else {}
        notes |= {UNREAD: MORE_STATEMENTS} if self.unread else {}
        annotations: dict[str, Json] = {"annotations": notes} if notes else {}
        return canonical({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": chosen, **annotations})


def about(lines: Sequence[bytes], artifact: Digest) -> tuple[Entry, ...]:
    """Return the statements among `lines` whose subject is the artifact."""
    entries = map(parse_entry, lines)
    return tuple(e for e in entries if any(subject.digest == artifact for subject in e.statement.subjects))


def make_statements(
    subject: Document, manifest: Manifest, said: LocalStatements, of_image: SaidOfImage = NOTHING
) -> Statements:
    """Return the statements in `said` about the artifact whose image manifest is `subject`.

    Args:
        of_image: what counts of what is signed about the image.
    """
    entries = about(said.lines, manifest.digest)
    made = make_referrers(subject, manifest, entries, (), said.more, of_image)
    return Statements(manifest.digest, entries, said.more, of_image, made)


def claims(entries: Sequence[Entry]) -> tuple[Digest, ...]:
    """Return the digests of the lines that have proofs."""
    return tuple(e.digest for e in entries if e.statement.predicate in PUBLICATION_PREDICATES)[:MAX_PROOFS]


def make_referrers(
    subject: Document,
    manifest: Manifest,
    entries: Sequence[Entry],
    proofs: Sequence[bytes],
    more: bool,
    of_image: SaidOfImage = NOTHING,
) -> Referrers:
    """Return the referrers of the image manifest `subject`; with `more`, there are statements besides `entries`.
    `of_image`: what counts of what is signed about the image."""
    made: list[Referrer] = []
    files: dict[Digest, FileEntry] = {}
    for entry in entries[:MAX_STATEMENTS]:
        notes = {PREDICATE: _predicate_type(entry.statement), **_advised(entry.statement)}
        made.append(_made(subject, STATEMENT, Document(entry.line, ENVELOPE), notes))
    signed: tuple[ImageSignature | ImageSummary, ...] = (*of_image.signatures, *of_image.summaries)
    for each in signed:
        made.append(_made(subject, SIGNATURE, bundle_of(each), bundle_notes(each)))
    made += (_made(subject, PROOF, Document(proof, PROOF), {}) for proof in proofs)
    for kind, notes, file in (*_signed_files(manifest), *_documents(entries)):
        layer = descriptor(kind if kind != DOCUMENT else OCTETS, file.sha256, file.size, annotations={TITLE: file.path})
        made.append(Referrer(_manifest(subject, kind, layer, notes), kind, notes))
        files[file.sha256] = file
    documents = {found.manifest.digest: found.manifest for found in made}
    documents |= {found.blob.digest: found.blob for found in made if found.blob is not None}
    images = {"sig": signature_image(of_image.signatures), "att": summary_image(of_image.summaries)}
    documents |= {document.digest: document for image in images.values() for document in image}
    attached = {tag: image[0] for tag, image in images.items() if image}
    return Referrers(subject.digest, tuple(made), documents, files, more or len(entries) > MAX_STATEMENTS, attached)


def _made(subject: Document, kind: str, blob: Document, annotations: Mapping[str, str]) -> Referrer:
    """A referrer with one layer, under whose title oras writes it to a file."""
    title = f"{blob.digest[:TITLE_DIGITS]}{_ENDINGS[kind]}"
    layer = of_document(blob, annotations={TITLE: title})
    return Referrer(_manifest(subject, kind, layer, annotations), kind, annotations, blob)


def _manifest(subject: Document, kind: str, layer: Json, annotations: Mapping[str, str]) -> Document:
    return image_manifest(kind, EMPTY, [layer], annotations, subject=of_document(subject))


def _advised(statement: Statement) -> dict[str, str]:
    """The annotation of an advisory; it depends on the statement alone, as the digest of its referrer does."""
    if statement.predicate != ADVISORY:
        return {}
    with contextlib.suppress(Malformed):
        said = Advisory.parse(statement)
        return {ADVISED: f"{said.kind} ({said.severity})"}
    return {}


def _predicate_type(statement: Statement) -> str:
    """Return the predicate type as it is in the statement; a Comity predicate has a short name in memory."""
    return f"urn:comity:{statement.predicate}:v1" if statement.by is not None else statement.predicate


def _signed_files(manifest: Manifest) -> Iterator[tuple[str, dict[str, str], FileEntry]]:
    for entry in manifest.files:
        name = entry.path.lower().rpartition("/")[2]
        if entry.path == MODEL_SIG:
            yield SIGNATURE, {}, entry
        for ending, kind in _BOMS.items():
            if name == ending or (ending.startswith(".") and name.endswith(ending)):
                yield kind, {}, entry


def _documents(entries: Sequence[Entry]) -> Iterator[tuple[str, dict[str, str], FileEntry]]:
    found: dict[tuple[str, Digest], FileEntry] = {}
    for entry in entries:
        if entry.statement.predicate == PUBLISHED:
            for kind, item in Published.parse(entry.statement).documents.items():
                found.setdefault((kind, item.digest), FileEntry(kind, item.size, item.digest))
    for (kind, _), file in found.items():
        yield DOCUMENT, {KIND: kind}, file


def attached_to(tag: str) -> tuple[Digest, str] | None:
    """Return the digest of the image to which a tag belongs, and what is there, `sig` or `att`; None for a version."""
    found = _IMAGE_TAG.match(tag)
    return (Digest(found[1]), found[2]) if found else None


def bundle_of(said: ImageSignature | ImageSummary) -> Document:
    """Return the Sigstore bundle of a signature or summary. It has no entry of a Rekor log: the log that it is in is
    Comity's."""
    hint = b64encode(hashlib.sha256(said.key.to_der()).digest())
    made = foreign_signature(said.key, said.said.envelope)
    return Document(Bundle(KeyMaterial(hint), said.said.signed_statement, made).encode(), SIGNATURE)


def bundle_notes(said: ImageSignature | ImageSummary) -> dict[str, str]:
    """Return the annotations by which cosign finds a bundle before it reads it."""
    kind = COSIGN_PREDICATE if isinstance(said, ImageSignature) else SUMMARY_PREDICATE
    return {CONTENT_NOTE: "dsse-envelope", PREDICATE_NOTE: kind}


def signature_image(signatures: Sequence[ImageSignature]) -> tuple[Document, ...]:
    """Return what is at the tag of the signatures: the image manifest, and the documents that it names; nothing without
    a signature."""
    layers = []
    for each in signatures:
        made = b64encode(foreign_signature(each.key, each.said.payload))
        layers.append((Document(each.said.signed_payload, PAYLOAD), {SIGNATURE_NOTE: made}))
    return _attached(layers)


def summary_image(summaries: Sequence[ImageSummary]) -> tuple[Document, ...]:
    """As `signature_image`, at the tag of the summaries."""
    notes = {SIGNATURE_NOTE: "", "predicateType": SUMMARY_PREDICATE}
    return _attached([(_envelope(each), notes) for each in summaries])


def _envelope(summary: ImageSummary) -> Document:
    """The DSSE envelope of a summary, with the signature as other programs read it."""
    document: dict[str, Json] = {
        "payload": b64encode(summary.said.signed_statement),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": "", "sig": b64encode(foreign_signature(summary.key, summary.said.envelope))}],
    }
    return Document(canonical(document), ENVELOPE)


def _attached(blobs: Sequence[tuple[Document, Mapping[str, str]]]) -> tuple[Document, ...]:
    if not blobs:
        return ()
    layers: list[Json] = [of_document(blob, annotations=dict(notes)) for blob, notes in blobs]
    config = _config([blob for blob, _ in blobs])
    document: dict[str, Json] = {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "config": of_document(config),
        "layers": layers,
    }
    return (Document(canonical(document), IMAGE_MANIFEST), config, *(blob for blob, _ in blobs))


def _config(blobs: Sequence[Document]) -> Document:
    """The configuration of the image: registries and programs that copy images compare its list with the layers."""
    listed: list[Json] = [f"sha256:{blob.digest}" for blob in blobs]
    document: dict[str, Json] = {
        "architecture": "",
        "os": "",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": listed},
    }
    return Document(canonical(document), IMAGE_CONFIG)
