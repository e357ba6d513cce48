"""The registry routes over HTTP. A tag is a version of the repository, else a quantisation in its newest version."""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from comity.gateway.access import Access
from comity.gateway.gguf import models
from comity.gateway.hub import content
from comity.gateway.hub.address import MAIN
from comity.gateway.hub.snapshot import Claim
from comity.gateway.hub.through import Through
from comity.gateway.running import Running
from comity.trust.digest import sha256
from comity.trust.errors import ComityError, NotFound
from comity.trust.manifest import FileEntry


def routes(running: Running, through: Through, access: Access) -> list[Route]:
    registry = Registry(running, through, access)
    return [
        Route("/v2/", version),
        Route("/v2/{namespace}/{name}/manifests/{tag}", registry.manifest),
        Route("/v2/{namespace}/{name}/blobs/{digest}", registry.blob),
    ]


async def version(request: Request) -> Response:
    """Asked by registry clients to learn whether this is one."""
    return Response(b"{}", media_type="application/json", headers={"Docker-Distribution-Api-Version": "registry/2.0"})


class Registry:
    def __init__(self, running: Running, through: Through, access: Access) -> None:
        self._running = running
        self._through = through
        self._catalogue = through.catalogue
        self._access = access

    async def manifest(self, request: Request) -> Response:
        repository, tag = await self._repository(request), request.path_params["tag"]
        try:
            snapshot, wanted = await self._catalogue.snapshot(repository, tag), models.LATEST
        except NotFound:
            snapshot, wanted = await self._through.snapshot(repository, MAIN), tag
        entry = models.choose(snapshot.manifest, wanted)
        body = json.dumps(models.image(entry, models.projector(snapshot.manifest)), separators=(",", ":")).encode()
        return Response(body, media_type=models.MANIFEST, headers={"Docker-Content-Digest": f"sha256:{sha256(body)}"})

    async def blob(self, request: Request) -> Response:
        claim, found = await self._find(await self._repository(request), request.path_params["digest"])
        if isinstance(found, FileEntry):
            return await content.answer(self._running, request, claim, found)
        return Response(found, media_type="application/octet-stream")

    async def _find(self, repository: str, digest: str) -> tuple[Claim, FileEntry | bytes]:
        """A blob of any version that this node serves: a pull may go on while the next version is published."""
        failure: ComityError = NotFound("no such blob in this model", why=digest[:80], code="NO-SUCH-FILE")
        for version in reversed(await self._through.revisions(repository)):
            try:
                snapshot = await self._through.snapshot(repository, version)
                return snapshot.claim, models.blob(snapshot.manifest, digest)
            except ComityError as error:
                failure = error
        raise failure

    async def _repository(self, request: Request) -> str:
        name = f"{request.path_params['namespace']}/{request.path_params['name']}"
        await self._access.require(request, name)
        return name
