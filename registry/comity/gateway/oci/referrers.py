"""What refers to an artifact, as OCI referrers: each a small image manifest whose `subject` is the ModelPack manifest.

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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from comity.gateway.oci.modelpack import (
    EMPTY,
    IMAGE_INDEX,
    OCTETS,
    TITLE,
    Document,
    descriptor,
    image_manifest,
    of_document,
)
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, Json, canonical
from comity.trust.evidence import MODEL_SIG
from comity.trust.statement import Entry, Statement, parse_entry
from comity.trust.statements import Published

STATEMENT: Final = "application/vnd.in-toto+json"
ENVELOPE: Final = "application/vnd.dsse.envelope.v1+json"
PROOF: Final = "application/vnd.c2sp.tlog-proof.v1"
SIGNATURE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
CYCLONEDX: Final = "application/vnd.cyclonedx+json"
SPDX: Final = "application/spdx+json"
DOCUMENT: Final = "application/vnd.comity.document.v1"
PREDICATE: Final = "in-toto.io/predicate-type"
KIND: Final = "dev.comity.document"
MAX_STATEMENTS: Final = 128
"""Statements that are listed of an artifact, those that were proven first."""
MAX_PROOFS: Final = 8

_BOMS: Final[Mapping[str, str]] = {"bom.json": CYCLONEDX, ".cdx.json": CYCLONEDX, ".spdx.json": SPDX}


@dataclass(frozen=True, slots=True)
class Referrer:
    """One referrer: its image manifest and, if it is made here, the blob that it names."""

    manifest: Document
    kind: str
    annotations: Mapping[str, str]
    blob: Document | None = None

    def describe(self) -> dict[str, Json]:
        return of_document(self.manifest, artifactType=self.kind, annotations=dict(self.annotations))


@dataclass(frozen=True, slots=True)
class Referrers:
    """The referrers of the manifest `subject`; `documents` are their manifests and blobs, `files` those that are in the
    store."""

    subject: Digest
    all: tuple[Referrer, ...]
    documents: Mapping[Digest, Document]
    files: Mapping[Digest, FileEntry]

    @property
    def size(self) -> int:
        """Bytes of all documents."""
        return sum(len(document.data) for document in self.documents.values())

    def index(self, kind: str | None) -> bytes:
        """Return the image index of all referrers, or of those of an artifact type."""
        chosen: list[Json] = [found.describe() for found in self.all if kind in (None, found.kind)]
        return canonical({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": chosen})


def about(lines: Sequence[bytes], artifact: Digest) -> tuple[Entry, ...]:
    """Return the statements among `lines` whose subject is the artifact."""
    entries = map(parse_entry, lines)
    return tuple(e for e in entries if any(subject.digest == artifact for subject in e.statement.subjects))


def claims(entries: Sequence[Entry]) -> tuple[Digest, ...]:
    """Return the digests of the lines that have proofs."""
    return tuple(e.digest for e in entries if e.statement.predicate in ("published", "observed"))[:MAX_PROOFS]


def make_referrers(
    subject: Document, manifest: Manifest, entries: Sequence[Entry], proofs: Sequence[bytes]
) -> Referrers:
    """Return the referrers of the image manifest `subject`."""
    made: list[Referrer] = []
    files: dict[Digest, FileEntry] = {}
    for entry in entries[:MAX_STATEMENTS]:
        predicate = {PREDICATE: _predicate_type(entry.statement)}
        made.append(_made(subject, STATEMENT, Document(entry.line, ENVELOPE), predicate))
    made += (_made(subject, PROOF, Document(proof, PROOF), {}) for proof in proofs)
    for kind, notes, file in (*_signed_files(manifest), *_documents(entries)):
        layer = descriptor(kind if kind != DOCUMENT else OCTETS, file.sha256, file.size, annotations={TITLE: file.path})
        made.append(Referrer(_manifest(subject, kind, layer, notes), kind, notes))
        files[file.sha256] = file
    documents = {found.manifest.digest: found.manifest for found in made}
    documents |= {found.blob.digest: found.blob for found in made if found.blob is not None}
    return Referrers(subject.digest, tuple(made), documents, files)


def _made(subject: Document, kind: str, blob: Document, annotations: Mapping[str, str]) -> Referrer:
    return Referrer(_manifest(subject, kind, of_document(blob), annotations), kind, annotations, blob)


def _manifest(subject: Document, kind: str, layer: Json, annotations: Mapping[str, str]) -> Document:
    return image_manifest(kind, EMPTY, [layer], annotations, subject=of_document(subject))


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
        if entry.statement.predicate == "published":
            for kind, item in Published.parse(entry.statement).documents.items():
                found.setdefault((kind, item.digest), FileEntry(kind, item.size, item.digest))
    for (kind, _), file in found.items():
        yield DOCUMENT, {KIND: kind}, file
