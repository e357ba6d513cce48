"""Writes files as other programs' stores keep them: a cache of the Hub's clients, an Ollama store, an OCI layout."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from comity.trust.encoding import sha256

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_TAR = "application/vnd.oci.image.layer.v1.tar"
TITLE = "org.opencontainers.image.title"
REF_NAME = "org.opencontainers.image.ref.name"


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def hub_cache(root: Path, repository: str, revision: str, files: Mapping[str, bytes], branch: str = "") -> Path:
    """A snapshot as huggingface_hub makes it; returns its folder."""
    model = root / f"models--{repository.replace('/', '--')}"
    for path, data in files.items():
        place, blob = model / "snapshots" / revision / path, model / "blobs" / sha256(data)
        write_files(model / "blobs", {blob.name: data})
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(blob, place.parent))
    if branch:
        write_files(model / "refs", {branch: revision.encode()})
    return model / "snapshots" / revision


def ollama_store(root: Path, name: str, layers: Sequence[tuple[str, bytes]]) -> Path:
    """A model as `ollama pull` keeps it; `name`: HOST/NAMESPACE/MODEL/TAG, `layers`: (last word of the type, bytes).
    Returns its manifest."""
    config = b'{"model_format":"gguf"}'
    described = [_described(data, f"application/vnd.ollama.image.{kind}") for kind, data in layers]
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": _described(config, "application/vnd.docker.container.image.v1+json"),
        "layers": described,
    }
    write_files(root / "blobs", {f"sha256-{sha256(data)}": data for data in (config, *(data for _, data in layers))})
    write_files(root / "manifests", {name: json.dumps(manifest).encode()})
    return root / "manifests" / name


def oci_layout(root: Path, things: Mapping[str, Sequence[tuple[str, str, bytes]]]) -> Path:
    """Things by their tags, each a list of layers (type, path or empty, bytes), as `oras copy --to-oci-layout`, skopeo
    and podman write them."""
    manifests = list[dict[str, object]]()
    for tag, layers in things.items():
        config = b"{}"
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _described(config, "application/vnd.oci.empty.v1+json"),
            "layers": [_described(data, kind, {TITLE: path} if path else {}) for kind, path, data in layers],
        }
        data = json.dumps(document).encode()
        _blobs(root, data, config, *(each for _, _, each in layers))
        manifests.append(_described(data, OCI_MANIFEST, {REF_NAME: tag} if tag else {}))
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    return write_files(
        root, {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    )


def tarred(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return made.getvalue()


def _described(data: bytes, kind: str, annotations: Mapping[str, str] | None = None) -> dict[str, object]:
    found: dict[str, object] = {"mediaType": kind, "digest": f"sha256:{sha256(data)}", "size": len(data)}
    return found | ({"annotations": dict(annotations)} if annotations else {})


def _blobs(root: Path, *blobs: bytes) -> None:
    write_files(root / "blobs" / "sha256", {sha256(data): data for data in blobs})
