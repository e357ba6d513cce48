"""Registry routes for GGUF files, read-only: for Ollama, and for llama.cpp before it used the Hub API.

The layer digest is the SHA-256 of the file, and the image manifest is derived from the file only, so it is the same
everywhere. A tag is a version of the repository, else a quantisation in its newest version. Model family, template and
parameters are in the file. Newer llama.cpp (`-hf`) uses the Hub routes. Sources: Docker image manifest v2 schema 2 as
Ollama uses it; `ggufFile` as llama.cpp read it before it used the Hub.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from comity.gateway.http import GatewayAccess
from comity.gateway.hub.files import FileResponses
from comity.gateway.hub.read_through import ReadThroughRoutes
from comity.gateway.hub.views import MAIN, Claim
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.errors import ComityError, NotFound

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


def model_blob(manifest: Manifest, digest: str) -> FileEntry | bytes:
    """Return the file or configuration with digest `sha256:…`. Raises NotFound (NO-SUCH-FILE)."""
    files: Sequence[FileEntry] = manifest.files
    for entry in files:
        if f"sha256:{entry.sha256}" == digest and entry.path.lower().endswith(".gguf"):
            return entry
    for entry in list_models(manifest):
        configuration = model_config(entry)
        if f"sha256:{sha256(configuration)}" == digest:
            return configuration
    raise NotFound("no such blob in this model", why=digest[:80], code="NO-SUCH-FILE")


def _layer(kind: str, entry: FileEntry) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{entry.sha256}", "size": entry.size}


def ollama_routes(registry: OllamaRoutes) -> list[Route]:
    return [
        Route("/v2/", version),
        Route("/v2/{namespace}/{name}/manifests/{tag}", registry.manifest),
        Route("/v2/{namespace}/{name}/blobs/{digest}", registry.blob),
    ]


async def version(request: Request) -> Response:
    """Registry clients call this to detect a registry."""
    return Response(b"{}", media_type="application/json", headers={"Docker-Distribution-Api-Version": "registry/2.0"})


class OllamaRoutes:
    def __init__(self, read_through: ReadThroughRoutes, access: GatewayAccess, files: FileResponses) -> None:
        self._files = files
        self._read_through = read_through
        self._catalogue = read_through.catalogue
        self._access = access

    async def manifest(self, request: Request) -> Response:
        repository, tag = await self._repository(request), request.path_params["tag"]
        try:
            snapshot, wanted = await self._catalogue.snapshot(repository, tag), LATEST
        except NotFound:
            snapshot, wanted = await self._read_through.snapshot(repository, MAIN), tag
        entry = choose_model(snapshot.manifest, wanted)
        body = json.dumps(model_image(entry, find_projector(snapshot.manifest)), separators=(",", ":")).encode()
        return Response(body, media_type=MANIFEST, headers={"Docker-Content-Digest": f"sha256:{sha256(body)}"})

    async def blob(self, request: Request) -> Response:
        claim, found = await self._find(await self._repository(request), request.path_params["digest"])
        if isinstance(found, FileEntry):
            return await self._files.response(request, claim, found)
        return Response(found, media_type="application/octet-stream")

    async def _find(self, repository: str, digest: str) -> tuple[Claim, FileEntry | bytes]:
        """Search all served versions, because a pull may continue while the next version is published."""
        failure: ComityError = NotFound("no such blob in this model", why=digest[:80], code="NO-SUCH-FILE")
        for version in reversed(await self._read_through.revisions(repository)):
            try:
                snapshot = await self._read_through.snapshot(repository, version)
                return snapshot.claim, model_blob(snapshot.manifest, digest)
            except ComityError as error:
                failure = error
        raise failure

    async def _repository(self, request: Request) -> str:
        name = f"{request.path_params['namespace']}/{request.path_params['name']}"
        await self._access.require(request, name)
        return name
