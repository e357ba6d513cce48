"""Image manifests of an artifact for registry clients: as a CNCF ModelPack, and of what refers to it.

The ModelPack and its configuration are derived from the manifest of the artifact only, so that they are the same at
every node, under every name and version.

    {"artifactType":"application/vnd.cncf.model.manifest.v1+json","config":{…},"layers":[
      {"annotations":{"org.cncf.model.filepath":"model.safetensors","org.opencontainers.image.title":…},
       "digest":"sha256:9f2c…","mediaType":"application/vnd.cncf.model.weight.v1.raw","size":90868376}],…}

The type of a layer is guessed from the name of the file, and annotated as untested. Sources: CNCF ModelPack
specification, docs/spec.md and docs/annotations.md; OCI image specification 1.1, manifest.md; `title` is the name that
oras gives a file.

Referrers are small image manifests whose `subject` is the ModelPack manifest:

    statements about it     in-toto statements in DSSE envelopes, as they are in a log: published, vouched, advisories,
                            verification summaries (a logged report); the predicate type is an annotation
    proofs                  the inclusion proof of each statement by which somebody published or observed the artifact
    model.sig               the OpenSSF signature, if it is a file of the artifact
    bills of materials      files of the artifact by the names that CycloneDX and SPDX recommend
    documents               those that the publisher named in the statement (card, training summary, evaluation)

The node has verified the signatures of the statements; a client verifies them again. A statement and its referrer keep
their digests for ever. A proof is one under the best checkpoint that the node knows now, so its digest changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from comity.addons.oci.ollama import MANIFEST as OLLAMA_MANIFEST
from comity.addons.oci.ollama import encode_image, find_projector, list_models, model_config, model_image
from comity.gateway.hub.mirrored import LocalStatements
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, Json, canonical, sha256
from comity.trust.errors import Malformed
from comity.trust.evidence import MODEL_SIG
from comity.trust.frozen import frozen
from comity.trust.statement import Entry, Statement, parse_entry
from comity.trust.statement_kinds import ADVISORY, PUBLICATION_PREDICATES, PUBLISHED
from comity.trust.statements import Advisory, Published

IMAGE_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
IMAGE_INDEX: Final = "application/vnd.oci.image.index.v1+json"
MODEL_MANIFEST: Final = "application/vnd.cncf.model.manifest.v1+json"
MODEL_CONFIG: Final = "application/vnd.cncf.model.config.v1+json"
WEIGHT: Final = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG: Final = "application/vnd.cncf.model.weight.config.v1.raw"
DOC: Final = "application/vnd.cncf.model.doc.v1.raw"
CODE: Final = "application/vnd.cncf.model.code.v1.raw"
DATASET: Final = "application/vnd.cncf.model.dataset.v1.raw"
OCTETS: Final = "application/octet-stream"

FILE_PATH: Final = "org.cncf.model.filepath"
UNTESTED: Final = "org.cncf.model.file.mediatype.untested"
TITLE: Final = "org.opencontainers.image.title"
ARTIFACT: Final = "dev.comity.artifact"
"""Annotation of an image manifest: the digest of the artifact, which `comity verify` takes."""

MAX_IMAGE_MANIFEST: Final = 4 * 1024 * 1024
"""Bytes that registry clients read of a manifest."""

_BY_ENDING: Final[Mapping[str, str]] = {
    **dict.fromkeys((".md", ".pdf", ".rst", ".html", ".png", ".jpg", ".jpeg", ".svg"), DOC),
    **dict.fromkeys((".py", ".ipynb", ".sh", ".c", ".cc", ".cpp", ".cu", ".h", ".js", ".ts", ".rs", ".go"), CODE),
    **dict.fromkeys((".parquet", ".arrow", ".csv", ".tsv"), DATASET),
    **dict.fromkeys(
        (".safetensors", ".gguf", ".ggml", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".onnx_data", ".h5", ".npz"), WEIGHT
    ),
    **dict.fromkeys((".msgpack", ".tflite", ".pb", ".mlmodel", ".engine"), WEIGHT),
}
_DOC_NAMES: Final = ("readme", "license", "licence", "notice", "copying")
_FORMATS: Final = ("safetensors", "gguf", "onnx")
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

TITLE_DIGITS: Final = 16
"""Digits of the digest of a statement or proof in the name of its file."""
_ENDINGS: Final[Mapping[str, str]] = {STATEMENT: ".dsse.json", PROOF: ".tlog-proof"}
_BOMS: Final[Mapping[str, str]] = {"bom.json": CYCLONEDX, ".cdx.json": CYCLONEDX, ".spdx.json": SPDX}


@frozen
class Document:
    """A blob or manifest that is made here, with its media type."""

    data: bytes
    media: str

    @property
    def digest(self) -> Digest:
        return sha256(self.data)


EMPTY: Final = Document(b"{}", "application/vnd.oci.empty.v1+json")


@frozen
class ModelPack:
    """What the registry serves of an artifact: its ModelPack manifest, None if it would be too large; every manifest
    and blob that is made of it, and its files, the two by digest."""

    manifest: Document | None
    documents: Mapping[Digest, Document]
    files: Mapping[Digest, FileEntry]


def layer_type(path: str) -> str:
    """Return the media type of a file, by its name."""
    name = PurePosixPath(path.lower())
    if name.stem in _DOC_NAMES and name.suffix in ("", ".txt"):
        return DOC
    return _BY_ENDING.get(name.suffix, WEIGHT_CONFIG)


def descriptor(media: str, digest: Digest, size: int, **more: Json) -> dict[str, Json]:
    """Return an OCI content descriptor."""
    return {"mediaType": media, "digest": f"sha256:{digest}", "size": size, **more}


def of_document(document: Document, **more: Json) -> dict[str, Json]:
    """Return the content descriptor of a document."""
    return descriptor(document.media, document.digest, len(document.data), **more)


def image_manifest(
    kind: str, config: Document, layers: Iterable[Json], annotations: Mapping[str, str], **more: Json
) -> Document:
    """Return an image manifest with the artifact type `kind`."""
    document: dict[str, Json] = {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "artifactType": kind,
        "config": of_document(config),
        "layers": list(layers),
        "annotations": dict(annotations),
        **more,
    }
    return Document(canonical(document), IMAGE_MANIFEST)


def model_pack_config(manifest: Manifest) -> Document:
    """Return the configuration of a ModelPack. It names no publisher: what publishers say is signed, in referrers."""
    endings = {PurePosixPath(entry.path).suffix.lower().removeprefix(".") for entry in manifest.files}
    known = next((name for name in _FORMATS if name in endings), "")
    document: dict[str, Json] = {
        "descriptor": {},
        "config": {"format": known} if known else {},
        "modelfs": {"type": "layers", "diffIds": [f"sha256:{entry.sha256}" for entry in manifest.files]},
    }
    return Document(canonical(document), MODEL_CONFIG)


def make_pack(manifest: Manifest) -> ModelPack:
    """Return what the registry serves of an artifact."""
    config = model_pack_config(manifest)
    image = image_manifest(MODEL_MANIFEST, config, map(_layer, manifest.files), {ARTIFACT: f"sha256:{manifest.digest}"})
    fits = bool(manifest.files) and len(image.data) <= MAX_IMAGE_MANIFEST
    made = [*([image, config] if fits else []), EMPTY, *_ollama_documents(manifest)]
    documents = {document.digest: document for document in made}
    return ModelPack(image if fits else None, documents, {entry.sha256: entry for entry in manifest.files})


def _layer(entry: FileEntry) -> dict[str, Json]:
    annotations = {FILE_PATH: entry.path, TITLE: entry.path, UNTESTED: "true"}
    return descriptor(layer_type(entry.path), entry.sha256, entry.size, annotations=annotations)


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
    """The statements about `artifact`, and what refers to it without the proofs. `more`: there are others that a limit
    left out."""

    artifact: Digest
    entries: tuple[Entry, ...]
    more: bool
    referrers: Referrers

    @property
    def size(self) -> int:
        """Bytes of all lines and documents."""
        return sum(len(entry.line) for entry in self.entries) + self.referrers.size


@frozen
class Referrers:
    """The referrers of the manifest `subject`; `documents` are their manifests and blobs, `files` those that are in the
    store. `unread`: there are more statements than are listed."""

    subject: Digest
    all: tuple[Referrer, ...]
    documents: Mapping[Digest, Document]
    files: Mapping[Digest, FileEntry]
    unread: bool = False

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


def make_statements(subject: Document, manifest: Manifest, said: LocalStatements) -> Statements:
    """Return the statements in `said` about the artifact whose image manifest is `subject`."""
    entries = about(said.lines, manifest.digest)
    return Statements(manifest.digest, entries, said.more, make_referrers(subject, manifest, entries, (), said.more))


def claims(entries: Sequence[Entry]) -> tuple[Digest, ...]:
    """Return the digests of the lines that have proofs."""
    return tuple(e.digest for e in entries if e.statement.predicate in PUBLICATION_PREDICATES)[:MAX_PROOFS]


def make_referrers(
    subject: Document, manifest: Manifest, entries: Sequence[Entry], proofs: Sequence[bytes], more: bool
) -> Referrers:
    """Return the referrers of the image manifest `subject`; with `more`, there are statements besides `entries`."""
    made: list[Referrer] = []
    files: dict[Digest, FileEntry] = {}
    for entry in entries[:MAX_STATEMENTS]:
        notes = {PREDICATE: _predicate_type(entry.statement), **_advised(entry.statement)}
        made.append(_made(subject, STATEMENT, Document(entry.line, ENVELOPE), notes))
    made += (_made(subject, PROOF, Document(proof, PROOF), {}) for proof in proofs)
    for kind, notes, file in (*_signed_files(manifest), *_documents(entries)):
        layer = descriptor(kind if kind != DOCUMENT else OCTETS, file.sha256, file.size, annotations={TITLE: file.path})
        made.append(Referrer(_manifest(subject, kind, layer, notes), kind, notes))
        files[file.sha256] = file
    documents = {found.manifest.digest: found.manifest for found in made}
    documents |= {found.blob.digest: found.blob for found in made if found.blob is not None}
    return Referrers(subject.digest, tuple(made), documents, files, more or len(entries) > MAX_STATEMENTS)


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
