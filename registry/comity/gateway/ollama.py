"""GGUF files for programs that do not speak Hub: Ollama, and llama.cpp before it did. Their registry routes, read-only.

    models    which file of an artifact a tag means, and the manifest that wraps it
    routes    /v2/{namespace}/{name}/manifests/{tag} and blobs/{digest}

Newer llama.cpp (`-hf`) uses the Hub's own routes and finds nothing special here.


A GGUF file as an Ollama model. Pure.

The file's SHA-256 is its layer digest, so the manifest is all that has to be made up, and it follows from the file: the
same file gives the same bytes everywhere. What the model is (family, template, parameters) stands in the file itself.
Source: Docker image manifest v2 schema 2 as Ollama uses it; `ggufFile` as llama.cpp read it before it used the Hub.


The registry routes over HTTP. A tag is a version of the repository, else a quantisation in its newest version."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from comity.gateway.context import GatewayContext
from comity.gateway.http import Access
from comity.gateway.hub.read_through import ReadThroughRoutes
from comity.gateway.hub.routes import content_response
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
"""What both programs take where nobody names a quantisation."""

_QUANTISATION: Final = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q[0-9]\w*|TQ[0-9]\w*|MXFP4\w*|BF16|F16|F32))\.gguf\Z", re.I
)
_PART: Final = re.compile(r"-[0-9]{5}-of-[0-9]{5}\.gguf\Z", re.I)
_PROJECTOR: Final = re.compile(r"(?:^|/)mmproj[^/]*\.gguf\Z", re.I)


def quantisation(entry: FileEntry) -> str:
    """What the file's name says: `Q4_K_M`; empty where it says nothing."""
    found = _QUANTISATION.search(entry.path)
    return found[1].upper() if found else ""


def list_models(manifest: Manifest) -> tuple[FileEntry, ...]:
    """The files that are a whole model each: neither parts of one, which these programs cannot join, nor projectors."""
    return tuple(
        entry
        for entry in manifest.files
        if entry.path.lower().endswith(".gguf") and not _PART.search(entry.path) and not _PROJECTOR.search(entry.path)
    )


def choose_model(manifest: Manifest, tag: str) -> FileEntry:
    """The file that `tag` means: a quantisation, a file's name, or `latest`. Raises NotFound (NO-SUCH-FILE)."""
    files = list_models(manifest)
    wanted = PREFERRED if tag == LATEST else tag.upper()
    for entry in files:
        if wanted in (quantisation(entry), entry.path.upper(), entry.path.upper().removesuffix(".GGUF")):
            return entry
    if tag == LATEST and files:
        return files[0]
    known = ", ".join(filter(None, map(quantisation, files))) or "none"
    raise NotFound(f"no GGUF file for {tag[:80]!r}", why=f"there is {known}", code="NO-SUCH-FILE")


def find_projector(manifest: Manifest) -> FileEntry | None:
    """The file that turns images into tokens, where there is one."""
    return next((entry for entry in manifest.files if _PROJECTOR.search(entry.path)), None)


def model_config(entry: FileEntry) -> bytes:
    """The image configuration of a model. The same bytes for the same file."""
    document = {
        "architecture": "amd64",
        "file_type": quantisation(entry) or "unknown",
        "model_format": "gguf",
        "os": "linux",
        "rootfs": {"diff_ids": [f"sha256:{entry.sha256}"], "type": "layers"},
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def model_image(entry: FileEntry, projector: FileEntry | None) -> dict[str, Any]:
    """The image manifest of a model, with what llama.cpp reads in it."""
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
    """What `sha256:…` names in an artifact's images: a file, or a configuration. Raises NotFound (NO-SUCH-FILE)."""
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


def ollama_routes(running: GatewayContext, through: ReadThroughRoutes, access: Access) -> list[Route]:
    registry = OllamaRoutes(running, through, access)
    return [
        Route("/v2/", version),
        Route("/v2/{namespace}/{name}/manifests/{tag}", registry.manifest),
        Route("/v2/{namespace}/{name}/blobs/{digest}", registry.blob),
    ]


async def version(request: Request) -> Response:
    """Asked by registry clients to learn whether this is one."""
    return Response(b"{}", media_type="application/json", headers={"Docker-Distribution-Api-Version": "registry/2.0"})


class OllamaRoutes:
    def __init__(self, running: GatewayContext, through: ReadThroughRoutes, access: Access) -> None:
        self._running = running
        self._through = through
        self._catalogue = through.catalogue
        self._access = access

    async def manifest(self, request: Request) -> Response:
        repository, tag = await self._repository(request), request.path_params["tag"]
        try:
            snapshot, wanted = await self._catalogue.snapshot(repository, tag), LATEST
        except NotFound:
            snapshot, wanted = await self._through.snapshot(repository, MAIN), tag
        entry = choose_model(snapshot.manifest, wanted)
        body = json.dumps(model_image(entry, find_projector(snapshot.manifest)), separators=(",", ":")).encode()
        return Response(body, media_type=MANIFEST, headers={"Docker-Content-Digest": f"sha256:{sha256(body)}"})

    async def blob(self, request: Request) -> Response:
        claim, found = await self._find(await self._repository(request), request.path_params["digest"])
        if isinstance(found, FileEntry):
            return await content_response(self._running, request, claim, found)
        return Response(found, media_type="application/octet-stream")

    async def _find(self, repository: str, digest: str) -> tuple[Claim, FileEntry | bytes]:
        """A blob of any version that this node serves: a pull may go on while the next version is published."""
        failure: ComityError = NotFound("no such blob in this model", why=digest[:80], code="NO-SUCH-FILE")
        for version in reversed(await self._through.revisions(repository)):
            try:
                snapshot = await self._through.snapshot(repository, version)
                return snapshot.claim, model_blob(snapshot.manifest, digest)
            except ComityError as error:
                failure = error
        raise failure

    async def _repository(self, request: Request) -> str:
        name = f"{request.path_params['namespace']}/{request.path_params['name']}"
        await self._access.require(request, name)
        return name
