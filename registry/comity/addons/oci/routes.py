"""HTTP routes of the OCI distribution protocol, read-only.

/v2/                                   whether this is a registry, and whether the token is accepted
/v2/_catalog                           the repositories that this reader may read
/v2/{repository}/tags/list             the versions that are not withdrawn, and `latest`
/v2/{repository}/manifests/{reference} a manifest by tag or digest; the signatures of one by the tag sha256-….sig,
                                       verification summaries by sha256-….att
/v2/{repository}/blobs/{digest}        a file, or a document that is made here
/v2/{repository}/referrers/{digest}    what refers to a manifest
/v2/{repository}/image/…               tags, manifests and blobs of the image in an artifact

Repository names are found without case, because registry clients refuse capitals. Errors have the form of the
specification beside that of the gateway. Source: OCI distribution specification 1.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from comity.addons.oci.images import FOLDER, ImageRegistry
from comity.addons.oci.manifests import attached_to
from comity.addons.oci.ollama import list_models
from comity.addons.oci.registry import LATEST, MAX_VERSIONS, Registry
from comity.gateway.access_tokens import GatewayAccess, Permit
from comity.gateway.declared_routes import DeclaredRoute, RouteAnswers
from comity.gateway.http import error_response
from comity.gateway.hub.catalogue import RepositoryList
from comity.gateway.hub.files import FileResponses
from comity.gateway.hub.read_through import ReadThroughRoutes
from comity.gateway.hub.views import MAIN, Refs, Snapshot, read_integer
from comity.rules.model_pack import IMAGE_INDEX, IMAGE_MANIFEST, Document
from comity.trust.artifact import FileEntry
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, NotFound, PolicyNotMet, Refused, Unavailable
from comity.wire.errors import clean

VERSION: Final = {"Docker-Distribution-Api-Version": "registry/2.0"}
MAX_PAGE: Final = 1_000
MAX_WARNING: Final = 200

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}\Z")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_CODES: Final[Mapping[str, str]] = {
    "NO-SUCH-REPOSITORY": "NAME_UNKNOWN",
    "UPSTREAM-NOT-ALLOWED": "NAME_UNKNOWN",
    "NO-SUCH-REVISION": "MANIFEST_UNKNOWN",
    "NO-SUCH-FILE": "BLOB_UNKNOWN",
    "OCI-IMAGE": "MANIFEST_UNKNOWN",
    "OCI-DIGEST": "DIGEST_INVALID",
    "NO-TOKEN": "UNAUTHORIZED",
    "METHOD": "UNSUPPORTED",
    "RATE": "TOOMANYREQUESTS",
    "TOO-MANY-CALLS": "TOOMANYREQUESTS",
}
"""Codes of the specification, by those of this node."""
_BY_CLASS: Final[Mapping[type, str]] = {
    PolicyNotMet: "DENIED",
    Refused: "DENIED",
    Unavailable: "UNAVAILABLE",
    NotFound: "NAME_UNKNOWN",
}
"""Codes of the specification for all other errors."""


def oci_error(error: ComityError) -> JSONResponse:
    """Return the error as registry clients read it, with the fields of the gateway's own errors."""
    by_class = next((_BY_CLASS[kind] for kind in type(error).__mro__ if kind in _BY_CLASS), "UNSUPPORTED")
    plain = error_response(error)
    own = JSONResponse(
        {
            "errors": [
                {"code": _CODES.get(error.code, by_class), "message": str(error)[:MAX_PAGE], "detail": error.hint}
            ],
            **_own(error),
        },
        plain.status_code,
    )
    own.headers.update({name: plain.headers[name] for name in plain.headers if not name.startswith("content-")})
    if plain.status_code == 401:
        own.headers["WWW-Authenticate"] = 'Basic realm="comity"'
    return own


def _own(error: ComityError) -> dict[str, str]:
    return {"error": str(error)[:MAX_PAGE], "code": error.code, "hint": error.hint}


async def _on_error(request: Request, error: ComityError) -> Response:
    return oci_error(error)


OCI: Final = RouteAnswers(_on_error, VERSION, "/v2/")


class OciRoutes:
    """Handlers of the distribution protocol."""

    def __init__(
        self,
        registry: Registry,
        read_through: ReadThroughRoutes,
        repository_list: RepositoryList,
        access: GatewayAccess,
        files: FileResponses,
    ) -> None:
        self._registry = registry
        self._read_through = read_through
        self._repository_list = repository_list
        self._access = access
        self._files = files

    def routes(self) -> list[DeclaredRoute]:
        readers, of_one = self._access.for_readers(), self._access.for_readers_of(_repository)
        repository = "/v2/{namespace}/{name}"
        return [
            DeclaredRoute("/v2/", self.version, readers, answers=OCI),
            DeclaredRoute("/v2/_catalog", self.repositories, readers, answers=OCI),
            DeclaredRoute(f"{repository}/tags/list", self.tags, of_one, answers=OCI),
            DeclaredRoute(f"{repository}/manifests/{{reference}}", self.manifest, of_one, answers=OCI),
            DeclaredRoute(f"{repository}/blobs/{{digest}}", self.blob, of_one, answers=OCI),
            DeclaredRoute(f"{repository}/referrers/{{digest}}", self.referrers, of_one, answers=OCI),
        ]

    async def version(self, request: Request) -> Response:
        """Registry clients call this to detect a registry, and whether it wants a password."""
        return Response(b"{}", media_type="application/json")

    async def repositories(self, request: Request) -> Response:
        most, last = _page(request)
        reach = await self._access.reach(request)
        async with self._repository_list.searches.slot(request.scope):
            names, after = await self._repository_list.names("", "", last, max(1, most), reach)
        return _listed(request, {"repositories": names[:most]}, after if most else "", most)

    async def tags(self, request: Request) -> Response:
        repository, (most, last) = _repository(request), _page(request)
        refs = await self._read_through.refs(repository, self._access.permit(request))
        shown, after = _tags_after(refs, most, last)
        return _listed(request, {"name": repository, "tags": shown}, after, most)

    async def manifest(self, request: Request) -> Response:
        repository, reference = _repository(request), request.path_params["reference"]
        permit = self._access.permit(request)
        if ":" in reference:
            return _manifest(*await self._registry.manifest(repository, _digest(reference), permit))
        if (attached := attached_to(reference)) is not None:
            return _manifest(*await self._registry.attached(repository, *attached, permit))
        if any(IMAGE_MANIFEST in accepted for accepted in request.headers.getlist("accept")):
            return await self._model_pack(await self._registry.tagged(repository, reference, permit))
        return await self._ollama_manifest(repository, reference, permit)

    async def blob(self, request: Request) -> Response:
        repository, digest = _repository(request), _digest(request.path_params["digest"])
        found = await self._registry.blob(repository, digest, self._access.permit(request))
        if isinstance(found.content, FileEntry):
            response = await self._files.response(request, found.snapshot.claim, found.content)
        else:
            response = Response(found.content.data, media_type="application/octet-stream")
        response.headers["Docker-Content-Digest"] = f"sha256:{digest}"
        return response

    async def referrers(self, request: Request) -> Response:
        repository, digest = _repository(request), _digest(request.path_params["digest"])
        kind = request.query_params.get("artifactType") or None
        index = await self._registry.referrers(repository, digest, kind, self._access.permit(request))
        filtered = {"OCI-Filters-Applied": "artifactType"} if kind else {}
        return Response(index, media_type=IMAGE_INDEX, headers=filtered)

    async def _model_pack(self, snapshot: Snapshot) -> Response:
        document = (await self._registry.pack(snapshot)).manifest
        if document is None:
            why = f"its {len(snapshot.manifest.files)} files do not fit into an image manifest"
            raise NotFound("no OCI form of this artifact", why=why, hint="comity pull NAME", code="NO-SUCH-REVISION")
        return _manifest(document, snapshot)

    async def _ollama_manifest(self, repository: str, tag: str, permit: Permit) -> Response:
        """A tag of Ollama is a version, else a quantisation in the newest version. A version without a file for Ollama
        has only the form of an OCI registry, which is the answer then, whatever the client accepts."""
        try:
            snapshot, wanted = await self._read_through.catalogue.snapshot(repository, tag), LATEST
        except NotFound:
            snapshot, wanted = await self._read_through.snapshot(repository, MAIN, permit), tag
        if wanted == LATEST and not list_models(snapshot.manifest):
            return await self._model_pack(snapshot)
        return _manifest(await self._registry.ollama_image(snapshot, wanted), snapshot)


class ImageRoutes:
    """Handlers of the distribution protocol for the images of artifacts, in repositories of their own. The image of the
    version `v1` of `swiss-ai/chat-kit` is `swiss-ai/chat-kit/image:v1`, so that the ModelPack of the whole artifact
    keeps its name. Who may read an artifact may read its image."""

    def __init__(
        self, images: ImageRegistry, read_through: ReadThroughRoutes, access: GatewayAccess, files: FileResponses
    ) -> None:
        self._images = images
        self._read_through = read_through
        self._access = access
        self._files = files

    def routes(self) -> list[DeclaredRoute]:
        of_one = self._access.for_readers_of(_repository)
        repository = f"/v2/{{namespace}}/{{name}}/{FOLDER}"
        return [
            DeclaredRoute(f"{repository}/tags/list", self.tags, of_one, answers=OCI),
            DeclaredRoute(f"{repository}/manifests/{{reference}}", self.manifest, of_one, answers=OCI),
            DeclaredRoute(f"{repository}/blobs/{{digest}}", self.blob, of_one, answers=OCI),
        ]

    async def tags(self, request: Request) -> Response:
        """The tags of the artifact whose version has an image; a page may have fewer than were asked for."""
        repository, (most, last) = _repository(request), _page(request)
        permit = self._access.permit(request)
        refs = await self._read_through.refs(repository, permit)
        shown, after = _tags_after(refs, min(most, MAX_VERSIONS), last)
        found = await self._images.with_image(repository, shown, permit)
        return _listed(request, {"name": f"{repository}/{FOLDER}", "tags": found}, after, most)

    async def manifest(self, request: Request) -> Response:
        repository, reference = _repository(request), request.path_params["reference"]
        permit = self._access.permit(request)
        if ":" in reference:
            return _manifest(*await self._images.manifest(repository, _digest(reference), permit))
        return _manifest(*await self._images.tagged(repository, reference, permit))

    async def blob(self, request: Request) -> Response:
        digest = _digest(request.path_params["digest"])
        file, snapshot = await self._images.blob(_repository(request), digest, self._access.permit(request))
        response = await self._files.response(request, snapshot.claim, file)
        response.headers["Docker-Content-Digest"] = f"sha256:{digest}"
        return response


def _repository(request: Request) -> str:
    """Return the name in the address."""
    return f"{request.path_params['namespace']}/{request.path_params['name']}"


def _tags_after(refs: Refs, most: int, last: str) -> tuple[list[str], str]:
    """Return the next tags of a repository, and after which one the list goes on, empty at its end."""
    # A tag list has no marks, and clients take its highest version: a withdrawn one is found by its name only.
    standing = refs.commits.keys() - refs.withdrawn
    found = {name for name in standing if _TAG.match(name)} | ({LATEST} if refs.main else set())
    later = sorted(name for name in found if name > last)
    shown = later[:most]
    return shown, shown[-1] if shown and len(later) > len(shown) else ""


def _manifest(document: Document, snapshot: Snapshot) -> Response:
    """The response with a manifest, and the notices about the artifact that it is of or about."""
    digest = f"sha256:{document.digest}"
    headers = {"Docker-Content-Digest": digest, "ETag": f'"{digest}"', "Vary": "Accept"}
    response = Response(document.data, media_type=document.media, headers=headers)
    if snapshot.continues:
        response.headers["X-Comity-Continues"] = snapshot.continues.header
    for topic, text in snapshot.notices:
        words = clean(f"{topic}: {text}", MAX_WARNING).encode("ascii", "replace").decode("ascii")
        response.headers.append("Warning", f'299 - "{words.replace(chr(92), "/").replace(chr(34), chr(39))}"')
    return response


def _digest(text: str) -> Digest:
    """Return the digest in an address. Raises Malformed (OCI-DIGEST)."""
    if not _DIGEST.match(text):
        hint = "this registry has sha256 digests only: sha256: and 64 hex digits"
        raise Malformed("not a digest", why=text[:80], hint=hint, code="OCI-DIGEST")
    return Digest(text.removeprefix("sha256:"))


def _page(request: Request) -> tuple[int, str]:
    """Return `n` and `last`. Raises Malformed."""
    wanted = request.query_params.get("n")
    most = 0 if wanted == "0" else read_integer(wanted, MAX_PAGE, MAX_PAGE)
    return most, request.query_params.get("last", "")


def _listed(request: Request, document: dict[str, Any], after: str, most: int) -> Response:
    """The response with a page of a list, and the address of the next one where there is one."""
    query = urlencode({"n": most, "last": after})
    link = {"Link": f'<{request.url.path}?{query}>; rel="next"'} if after else {}
    return JSONResponse(document, headers=link)
