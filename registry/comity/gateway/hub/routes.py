"""The Hub's read routes over HTTP. Paths are read raw, by `address`; what they mean is decided in `catalogue`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from comity.gateway.access import Access
from comity.gateway.bounds import read_body
from comity.gateway.errors import answer as refusal
from comity.gateway.hub import content, views
from comity.gateway.hub.address import KINDS, Address, read_api, read_resolve
from comity.gateway.hub.shelf import Shelf
from comity.gateway.hub.snapshot import Snapshot
from comity.gateway.hub.through import Through
from comity.gateway.running import Running
from comity.trust.encoding import parse_json
from comity.trust.errors import ComityError, Malformed, NotFound, Refused
from comity.wire.errors import clean

LIST_PAGE: Final = 100
MAX_FORM: Final = 1024 * 1024
MAX_NOTICE: Final = 500


def routes(running: Running, through: Through, access: Access) -> list[Route]:
    """The last of these takes every path that is left: mount them after all others."""
    hub = Hub(running, through, access)
    return [
        Route("/api/whoami-v2", hub.whoami),
        *(Route(f"/api/{kind}", hub.repositories) for kind in KINDS),
        *(Route(f"/api/{kind}/{{rest:path}}", hub.about, methods=["GET", "POST"]) for kind in KINDS),
        Route("/{rest:path}", hub.resolve),
    ]


class Hub:
    """Answers what a Hub answers."""

    def __init__(self, running: Running, through: Through, access: Access) -> None:
        self._running = running
        self._through = through
        self._access = access
        self._shelf = Shelf(running.core)
        self._aliases = running.settings.renamed()

    async def whoami(self, request: Request) -> Response:
        token = await self._access.token(request)
        if token is None:
            raise Refused("Invalid credentials in Authorization header", hint="ask the operator", code="BAD-TOKEN")
        role = {"displayName": token.name, "role": "read"}
        who = {"type": "user", "name": token.name, "fullname": token.name, "orgs": [], "auth": {"accessToken": role}}
        return JSONResponse(who)

    async def repositories(self, request: Request) -> Response:
        """`GET /api/models`: what this node serves to this reader, by name."""
        query = request.query_params
        limit = views.integer(query.get("limit"), LIST_PAGE, LIST_PAGE)
        words, author, after = query.get("search", ""), query.get("author", ""), query.get("cursor", "")
        reach = await self._access.reach(request)
        names, cursor = await self._shelf.names(words, author, after, limit, reach)
        listed = [await self._listed(request, name) for name in names]
        more = self._link(request, cursor) if cursor else {}
        return JSONResponse([item for item in listed if item is not None], headers=more)

    async def about(self, request: Request) -> Response:
        """`/api/{kind}/{id}/…`."""
        address = read_api(_raw(request))
        if (request.method == "POST") != (address.view == "paths-info"):
            raise Malformed("this address does not take such a request", why=request.method, code="METHOD")
        moved = await self._moved(request, address)
        if moved is not None:
            return moved
        match address.view:
            case "" | "revision":
                return await self._model(request, address)
            case "tree":
                return await self._tree(request, address)
            case "paths-info":
                return await self._paths_info(request, address)
            case "refs":
                return await self._refs(address)
            case "commits":
                snapshot = await self._snapshot(address)
                return await self._shown(snapshot, lambda: views.commits(snapshot))
            case _:  # auth-check: whoever may not was refused above
                return Response()

    async def resolve(self, request: Request) -> Response:
        """`/{id}/resolve/{revision}/{path}`."""
        address = read_resolve(_raw(request))
        moved = await self._moved(request, address)
        if moved is not None:
            return moved
        snapshot = await self._snapshot(address)
        entry = snapshot.manifest.by_path.get(address.path)
        try:
            if entry is None:
                raise NotFound(f"no file {address.path[:200]!r} in {snapshot.repository}", code="NO-SUCH-FILE")
            answered = await content.answer(self._running, request, snapshot.claim, entry)
        except ComityError as error:
            answered = refusal(error)
            if error.code == "RANGE" and entry is not None:
                answered.headers["Content-Range"] = f"bytes */{entry.size}"
        return _telling(answered, snapshot)

    async def _moved(self, request: Request, address: Address) -> Response | None:
        """A redirect to the name that a repository goes by; None where it was asked for by it and may be read."""
        name = self._aliases.get(address.repository.lower(), address.repository)
        await self._access.require(request, name)
        spelling = await self._spelling(name, address)
        if spelling == address.repository:
            return None
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(self._running.settings.url + address.renamed(spelling) + query, 307)

    async def _spelling(self, name: str, address: Address) -> str:
        if address.model:
            return await self._through.spelling(name, address.revision)
        return await self._through.catalogue.spelling(name)

    async def _snapshot(self, address: Address) -> Snapshot:
        """What is mirrored for whoever asks is a model: other kinds have other repositories at their upstream."""
        snapshot = self._through.snapshot if address.model else self._through.catalogue.snapshot
        return await snapshot(address.repository, address.revision)

    async def _model(self, request: Request, address: Address) -> Response:
        blobs = views.truth(request.query_params.get("blobs"))
        snapshot = await self._snapshot(address)
        return await self._shown(snapshot, lambda: views.model(snapshot, blobs=blobs))

    async def _tree(self, request: Request, address: Address) -> Response:
        snapshot = await self._snapshot(address)
        query = request.query_params
        limit = views.integer(query.get("limit"), views.TREE_PAGE, views.TREE_PAGE)
        recursive, expand = views.truth(query.get("recursive")), views.truth(query.get("expand"))
        after = ""

        def page() -> list[views.Document]:
            nonlocal after
            whole = views.tree(snapshot, address.path, recursive=recursive, expand=expand)
            shown, after = views.page(whole, query.get("cursor", ""), limit)
            return shown

        answered = await self._shown(snapshot, page)
        answered.headers.update(self._link(request, after) if after else {})
        return answered

    async def _paths_info(self, request: Request, address: Address) -> Response:
        snapshot = await self._snapshot(address)
        paths, expand = _form(request.headers.get("content-type", ""), await read_body(request, MAX_FORM))
        return await self._shown(snapshot, lambda: views.paths_info(snapshot, paths, expand=expand))

    async def _shown(self, snapshot: Snapshot, view: Callable[[], object]) -> Response:
        """What `view` gives, as JSON: made in a thread, since an artifact may have 100,000 files."""
        body = await self._running.core.pools.hashing(lambda: json.dumps(view(), ensure_ascii=False).encode())
        return _telling(Response(body, media_type="application/json"), snapshot)

    async def _refs(self, address: Address) -> Response:
        refs = self._through.refs if address.model else self._through.catalogue.refs
        return JSONResponse(views.refs(*await refs(address.repository)))

    async def _listed(self, request: Request, name: str) -> dict[str, Any] | None:
        """A line of a list; None for what is not served."""
        full = views.truth(request.query_params.get("full"))
        try:
            return views.model(await self._through.catalogue.snapshot(name, "main"), siblings=full)
        except ComityError:
            return None

    def _link(self, request: Request, cursor: str) -> dict[str, str]:
        base = self._running.settings.url or f"{request.url.scheme}://{request.url.netloc}"
        query = urlencode(
            [*((k, v) for k, v in request.query_params.multi_items() if k != "cursor"), ("cursor", cursor)]
        )
        return {"Link": f'<{base}{_raw(request)}?{query}>; rel="next"'}


def _telling(response: Response, snapshot: Snapshot) -> Response:
    """`response`, with what goes with any answer about an artifact: its commit, and what its reader should know."""
    response.headers["X-Repo-Commit"] = snapshot.commit
    for topic, text in snapshot.notices:
        words = (
            clean(f"{topic} {snapshot.repository}; {snapshot.repository}: {text}", MAX_NOTICE)
            .encode("ascii", "replace")
            .decode("ascii")
        )
        response.headers.append("X-HF-Warning", words)
    return response


def _raw(request: Request) -> str:
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    return raw.decode("ascii")


def _form(kind: str, body: bytes) -> tuple[list[str], bool]:
    """`paths` and `expand`, from a form or from JSON. Raises Malformed."""
    if kind.startswith("application/json"):
        document = parse_json(body, limit=MAX_FORM, what="request")
        paths = document.get("paths", []) if isinstance(document, dict) else None
        if not isinstance(paths, list) or len(paths) > views.PATHS or not all(isinstance(p, str) for p in paths):
            raise Malformed("the request cannot be read", why="expected {paths: [text, …]}")
        return [str(path) for path in paths], bool(isinstance(document, dict) and document.get("expand"))
    try:
        form = parse_qs(body.decode("utf-8"), max_num_fields=views.PATHS)
    except ValueError as error:
        raise Malformed("the request cannot be read", why=str(error)) from error
    return form.get("paths", []), views.truth(form.get("expand", [""])[0])
