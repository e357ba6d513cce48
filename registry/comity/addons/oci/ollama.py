"""Image manifests of GGUF files: for Ollama, and for llama.cpp before it used the Hub API. `comity.addons.oci` serves
them.

The layer digest is the SHA-256 of the file, and the image manifest is derived from the file only, so it is the same
everywhere. A tag is a version of the repository, else a quantisation in its newest version. Model family, template and
parameters are in the file. Newer llama.cpp (`-hf`) uses the Hub routes. Sources: Docker image manifest v2 schema 2 as
Ollama uses it; `ggufFile` as llama.cpp read it before it used the Hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound

MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG: Final = "application/vnd.docker.container.image.v1+json"
MODEL: Final = "application/vnd.ollama.image.model"
PROJECTOR: Final = "application/vnd.ollama.image.projector"
LATEST: Final = "latest"
PREFERRED: Final = "Q4_K_M"
"""Default quantisation of both programs."""

_QUANTISATION: Final = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q[0-9]\w*|TQ[0-9]\w*|MXFP4\w*|BF16|F16|F32))\.gguf\Z", re.I
)
_PART: Final = re.compile(r"-[0-9]{5}-of-[0-9]{5}\.gguf\Z", re.I)
_PROJECTOR: Final = re.compile(r"(?:^|/)mmproj[^/]*\.gguf\Z", re.I)


def quantisation(entry: FileEntry) -> str:
    """Return the quantisation in the name of the file, such as `Q4_K_M`; empty if there is none."""
    found = _QUANTISATION.search(entry.path)
    return found[1].upper() if found else ""


def list_models(manifest: Manifest) -> tuple[FileEntry, ...]:
    """Return the files that are complete models: no parts, which these programs cannot join, and no projectors."""
    return tuple(
        entry
        for entry in manifest.files
        if entry.path.lower().endswith(".gguf") and not _PART.search(entry.path) and not _PROJECTOR.search(entry.path)
    )


def choose_model(manifest: Manifest, tag: str) -> FileEntry:
    """Return the file for `tag`: a quantisation, a file name, or `latest`. Raises NotFound (NO-SUCH-FILE)."""
    files = list_models(manifest)
    wanted = PREFERRED if tag == LATEST else tag.upper()
    for entry in files:
        if wanted in (quantisation(entry), entry.path.upper(), entry.path.upper().removesuffix(".GGUF")):
            return entry
    if tag == LATEST and files:
        return files[0]
    known = ", ".join(filter(None, map(quantisation, files))) or "none"
    raise NotFound(f"no GGUF file for {tag[:80]!r}", why=f"there are: {known}", code="NO-SUCH-FILE")


def choose_image(manifest: Manifest, tag: str) -> bytes:
    """Return the image manifest of the file for `tag`. CPU-bound: an artifact has up to 100,000 files. Raises as
    `choose_model`."""
    return encode_image(model_image(choose_model(manifest, tag), find_projector(manifest)))


def find_projector(manifest: Manifest) -> FileEntry | None:
    """Return the file that converts images to tokens, if there is one."""
    return next((entry for entry in manifest.files if _PROJECTOR.search(entry.path)), None)


def model_config(entry: FileEntry) -> bytes:
    """Return the image configuration of a model; the same file gives the same bytes."""
    document = {
        "architecture": "amd64",
        "file_type": quantisation(entry) or "unknown",
        "model_format": "gguf",
        "os": "linux",
        "rootfs": {"diff_ids": [f"sha256:{entry.sha256}"], "type": "layers"},
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def model_image(entry: FileEntry, projector: FileEntry | None) -> dict[str, Any]:
    """Return the image manifest of a model, with the fields that llama.cpp reads."""
    configuration = model_config(entry)
    layers = [_layer(MODEL, entry)] + ([_layer(PROJECTOR, projector)] if projector else [])
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": f"sha256:{sha256(configuration)}", "size": len(configuration)},
        "layers": layers,
        "ggufFile": {"rfilename": entry.path, "size": entry.size},
    }
    if projector:
        document["mmprojFile"] = {"rfilename": projector.path, "size": projector.size}
    return document


def encode_image(document: Mapping[str, Any]) -> bytes:
    """Return the bytes of an image manifest; the same document gives the same bytes."""
    return json.dumps(document, separators=(",", ":")).encode()


def _layer(kind: str, entry: FileEntry) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{entry.sha256}", "size": entry.size}
