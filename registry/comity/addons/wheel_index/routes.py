"""HTTP routes of the index of wheels. What they serve is judged by the catalogue, as every file of an artifact."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from comity.addons.wheel_index.wheels import (
    BASE,
    MAX_WHEELS,
    PagePlace,
    WheelIndex,
    choose_form,
    index_wheels,
    normalised,
    project_page,
    projects_page,
)
from comity.gateway.access_tokens import GatewayAccess
from comity.gateway.declared_routes import DeclaredRoute, RouteAnswers
from comity.gateway.fileserver.http1 import is_known
from comity.gateway.http import error_response
from comity.gateway.hub.judge import AnswerCache
from comity.gateway.hub.mirrored import FILE_BYTES
from comity.gateway.hub.read_through import ReadThroughRoutes
from comity.gateway.hub.views import Snapshot
from comity.node.threads import Pools
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound

YANKED: Final = "withdrawn by its publisher"
MAX_KEPT: Final = 16 * MAX_WHEELS
"""Wheels in all indexes that are kept, about 30 MB."""


async def _on_error(request: Request, error: ComityError) -> Response:
    """Installers send a token as the password of Basic authentication, once they are asked for it."""
    response = error_response(error)
    if response.status_code == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="comity"'
    return response


ANSWERS: Final = RouteAnswers(_on_error, below=f"{BASE}/")


class WheelRoutes:
    """Handlers of the index of each artifact that is served."""

    def __init__(self, read_through: ReadThroughRoutes, pools: Pools, access: GatewayAccess) -> None:
        self._read_through = read_through
        self._pools = pools
        self._access = access
        self._indexes: AnswerCache[Digest, WheelIndex] = AnswerCache(
            _never_changes, MAX_KEPT, lambda index: 1 + index.wheels, unit=FILE_BYTES
        )

    async def close(self) -> None:
        await self._indexes.close()

    def routes(self) -> list[DeclaredRoute]:
        of_one = self._access.for_readers_of(_repository)
        index = f"{BASE}/{{namespace}}/{{name}}/{{revision}}/simple"
        return [
            DeclaredRoute(f"{index}/", self.projects, of_one, answers=ANSWERS),
            DeclaredRoute(f"{index}/{{project}}/", self.project, of_one, answers=ANSWERS),
        ]

    async def projects(self, request: Request) -> Response:
        index = await self._index(await self._snapshot(request))
        form = _form(request)
        return _page(request, projects_page(index, form), form)

    async def project(self, request: Request) -> Response:
        snapshot = await self._snapshot(request)
        index, project = await self._index(snapshot), normalised(request.path_params["project"])
        if project not in index.projects:
            raise NotFound(f"no wheel of {project[:200]!r} in {snapshot.repository}", code="NO-SUCH-FILE")
        withdrawn = await self._read_through.catalogue.is_withdrawn(snapshot.own_repository, snapshot.artifact)
        place = PagePlace(snapshot.repository, snapshot.commit, YANKED if withdrawn else "")
        form = _form(request)
        return _page(request, project_page(project, index.projects[project], place, form), form)

    async def _snapshot(self, request: Request) -> Snapshot:
        """Raises as `ReadThroughRoutes.snapshot`."""
        permit = self._access.permit(request)
        return await self._read_through.snapshot(_repository(request), request.path_params["revision"], permit)

    async def _index(self, snapshot: Snapshot) -> WheelIndex:
        async def make() -> WheelIndex:
            return await self._pools.hashing(index_wheels, snapshot.manifest)

        return await self._indexes.get(snapshot.artifact, make)


async def _never_changes() -> int:
    return 0


def _repository(request: Request) -> str:
    """Return the name in the address."""
    return f"{request.path_params['namespace']}/{request.path_params['name']}"


def _form(request: Request) -> str:
    return choose_form(",".join(request.headers.getlist("accept")))


def _page(request: Request, data: bytes, form: str) -> Response:
    etag = f'"{sha256(data)}"'
    headers = {"ETag": etag, "Vary": "Accept", "Cache-Control": "no-cache"}
    if is_known(etag, request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=form)
