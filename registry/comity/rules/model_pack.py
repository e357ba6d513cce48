"""The image manifest of an artifact for registry clients: a CNCF ModelPack. Its digest is what clusters pin and what
publishers sign, so this is the only place where it is computed.

Manifest and configuration follow from the manifest of the artifact alone. They are the same at every node, at the
publisher, and under every name and version.

    {"annotations":{"dev.comity.artifact":"sha256:0a1b…"},
     "artifactType":"application/vnd.cncf.model.manifest.v1+json","config":{…},"layers":[
      {"annotations":{"org.cncf.model.filepath":"model.safetensors","org.opencontainers.image.title":…},
       "digest":"sha256:9f2c…","mediaType":"application/vnd.cncf.model.weight.v1.raw","size":90868376}],…}

Each layer is a file, as it is. The type of a layer is guessed from the name of the file, and annotated as untested. To
change a byte of what is made here is to change the digest of every artifact: signatures that publishers made are then
about images that nobody serves. Sources: CNCF ModelPack specification, docs/spec.md and docs/annotations.md; OCI image
specification 1.1, manifest.md; `title` is the name that oras gives a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Final

from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, Json, canonical, sha256
from comity.trust.frozen import frozen

IMAGE_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
IMAGE_INDEX: Final = "application/vnd.oci.image.index.v1+json"
IMAGE_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
MODEL_MANIFEST: Final = "application/vnd.cncf.model.manifest.v1+json"
MODEL_CONFIG: Final = "application/vnd.cncf.model.config.v1+json"
WEIGHT: Final = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG: Final = "application/vnd.cncf.model.weight.config.v1.raw"
DOC: Final = "application/vnd.cncf.model.doc.v1.raw"
CODE: Final = "application/vnd.cncf.model.code.v1.raw"
DATASET: Final = "application/vnd.cncf.model.dataset.v1.raw"

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


@frozen
class Document:
    """A blob or manifest that is made here, with its media type."""

    data: bytes
    media: str

    @property
    def digest(self) -> Digest:
        return sha256(self.data)


@frozen
class ModelImage:
    """The image manifest of an artifact, and its configuration."""

    manifest: Document
    config: Document


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


def pack_image(manifest: Manifest) -> ModelImage | None:
    """Return the ModelPack of an artifact; None if it has no file, or so many that registry clients do not read its
    manifest."""
    config = model_pack_config(manifest)
    image = image_manifest(MODEL_MANIFEST, config, map(_layer, manifest.files), {ARTIFACT: f"sha256:{manifest.digest}"})
    fits = bool(manifest.files) and len(image.data) <= MAX_IMAGE_MANIFEST
    return ModelImage(image, config) if fits else None


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


def _layer(entry: FileEntry) -> dict[str, Json]:
    annotations = {FILE_PATH: entry.path, TITLE: entry.path, UNTESTED: "true"}
    return descriptor(layer_type(entry.path), entry.sha256, entry.size, annotations=annotations)
