"""HTTP routes of the Hub API, and the bodies of files.

A large file is served by redirect to the file server if there is one, else streamed here. Only bytes that were read and
verified just before are sent; a failure is a 503 before the first byte, and an aborted connection after it. A file that
is not here is fetched while it is sent, if the settings allow that.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Scope, Send

from comity.gateway.context import GatewayContext
from comity.gateway.fileserver.http1 import ByteRange, parse_range
from comity.gateway.http import ConnectionSlots, GatewayAccess, ResponseTimeout, error_response, read_body
from comity.gateway.hub import views
from comity.gateway.hub.catalogue import RepositoryList
from comity.gateway.hub.read_through import ReadThroughRoutes
from comity.gateway.hub.views import KINDS, Claim, HubAddress, Snapshot, read_api, read_resolve
from comity.node.importing.read_through import ReadThroughImport
from comity.trust.artifact import FileEntry
from comity.trust.encoding import Digest, parse_json
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Unavailable
from comity.trust.upstream import Observed
from comity.wire.errors import clean

AHEAD: Final = 2
"""Parts of at most 256 KiB that a thread reads while earlier parts are sent."""
BODIES: Final = 64
"""Maximum concurrent file bodies; each has up to two times `AHEAD` parts in memory, 1 MiB."""
FIRST: Final = 8.0
"""Seconds to the first byte of a file that is fetched from elsewhere; stock clients wait for ten."""


class Stream(StreamingResponse):
    """A body whose first part is read already. A later failure aborts the connection and closes `parts`."""

    def __init__(
        self, first: bytes, parts: AsyncGenerator[bytes, None], status: int, headers: dict[str, str], media: str
    ) -> None:
        self._parts = parts
        super().__init__(_remaining(first, parts), status, headers, media)

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._parts):
            await super().stream_response(send)


async def with_slot(
    slots: ConnectionSlots, scope: Scope, parts: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """Yield `parts` while holding a slot. Raises Unavailable (NODE-BUSY) before the first one."""
    async with aclosing(parts), slots.slot(scope) as progress:
        async for part in parts:
            yield part
            progress()


async def stored_range(
    context: GatewayContext, digest: Digest, offset: int, length: int
) -> AsyncGenerator[bytes, None]:
    """Yield a range of a stored blob; one window is sent while the next is read and verified."""
    parts = context.blobs.verified.read(digest, offset, length)
    ready = await context.core.pools.files(_window, parts)
    ahead = asyncio.ensure_future(context.core.pools.files(_window, parts))
    try:
        while ready:
            for part in ready:
                yield part
            ready = await ahead
            ahead = asyncio.ensure_future(context.core.pools.files(_window, parts))
    finally:
        ahead.add_done_callback(_discard_error)  # retrieves the exception; `parts` is closed with its last reader


async def incoming_range(
    context: GatewayContext, claim: Claim, entry: FileEntry, span: ByteRange
) -> AsyncGenerator[bytes, None]:
    """Yield a range of a file while it is fetched, and from the store once it is complete. Raises Unavailable."""
    sent = 0
    try:
        async with aclosing(_fetched_range(context, claim, entry, span)) as parts:
            async with asyncio.timeout(FIRST):
                part = await anext(parts, b"")
            while part:
                yield part
                sent += len(part)
                part = await anext(parts, b"")
    except TimeoutError as error:
        why = f"no verified byte arrived within {FIRST:g} s"
        raise Unavailable(f"{entry.path[:200]} is being fetched", why=why, code="ON-ITS-WAY") from error
    except ComityError as error:  # a transient server-side error for the client
        if type(error) is Unavailable:
            raise
        raise Unavailable(f"{entry.path[:200]} is not available now", why=str(error), code="NOT-HERE") from error
    if sent < span.length:
        async with aclosing(stored_range(context, entry.sha256, span.offset + sent, span.length - sent)) as rest:
            async for part in rest:
                yield part


async def _fetched_range(
    context: GatewayContext, claim: Claim, entry: FileEntry, span: ByteRange
) -> AsyncGenerator[bytes, None]:
    """Yield a range from peers, else from a pending or new import of the upstream."""
    if isinstance(claim, ReadThroughImport):
        pending_import = claim
    else:
        try:
            async with aclosing(context.replication.on_demand.read(claim, entry, span.offset, span.length)) as parts:
                async for part in parts:
                    yield part
            return
        except NotFound:  # before the first byte: no peer has it
            if not isinstance(claim, Observed) or not context.read_through.allows(claim.upstream.repository):
                raise
            pending_import = await context.read_through.import_observed(claim)
    async with aclosing(pending_import.read(entry, span.offset, span.length, context.core.pools)) as parts:
        async for part in parts:
            yield part


async def _remaining(first: bytes, parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    yield first
    try:
        async for part in parts:
            yield part
    except ComityError as error:
        raise ResponseTimeout(str(error)) from error


def _window(parts: Iterator[bytes]) -> list[bytes]:
    return list(itertools.islice(parts, AHEAD))


def _discard_error(ahead: asyncio.Future[list[bytes]]) -> None:
    """Mark the error of the last window as retrieved: the client has disconnected or got an error."""
    if not ahead.cancelled():
        ahead.exception()


INLINE: Final = 256 * 1024
"""Bytes up to which a file is sent here although a file server runs, because a redirect costs a round trip."""


def content_headers(entry: FileEntry) -> dict[str, str]:
    """Return the headers of every response about a file. None mention Xet; nothing is compressed."""
    etag = f'"{entry.sha256}"'
    return {
        "ETag": etag,
        "X-Linked-ETag": etag,
        "X-Linked-Size": str(entry.size),
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-transform",
    }


async def content_response(context: GatewayContext, request: Request, claim: Claim, entry: FileEntry) -> Response:
    """HEAD or GET of a file. Raises Unavailable if it is not available or corrupt; Malformed (RANGE)."""
    headers = content_headers(entry)
    here = not entry.size or (
        _may_serve_stored(context, claim) and await context.core.pools.files(context.core.store.has, entry.sha256)
    )
    if not here and context.settings.cold == "off":
        why = "this node does not have the complete artifact yet, or quarantined the file"
        raise Unavailable(f"{entry.path[:200]} is not available now", why=why, code="NOT-HERE")
    if headers["ETag"] in _etags(request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    tainted = context.read_through.is_tainted(entry.sha256)
    wanted = None if tainted else request.headers.get("range")
    span = parse_range(entry.size, wanted, request.headers.get("if-range"), headers["ETag"])
    if span is None:
        raise Malformed("no such range", why=f"the file has {entry.size} bytes", code="RANGE")
    if request.method == "HEAD":
        headers["Content-Length"] = str(entry.size)
        return Response(headers=headers, media_type="application/octet-stream")
    if not here:
        return await _stream(
            with_slot(context.bodies, request.scope, incoming_range(context, claim, entry, span)), entry, span, headers
        )
    if context.blobs.address and entry.size > INLINE and not tainted:  # the file server supports ranges
        name = entry.path.rpartition("/")[2]
        to = context.blobs.location(entry.sha256, host=_host(request, context.settings.url), name=name)
        return RedirectResponse(to, 302, headers=headers)
    parts = stored_range(context, entry.sha256, span.offset, span.length)
    return await _stream(with_slot(context.bodies, request.scope, parts), entry, span, headers)


def _may_serve_stored(context: GatewayContext, claim: Claim) -> bool:
    """Return whether stored blobs may be served for a claim. If tokens cover only some repositories, a repository that
    merely lists a blob of another one must deliver the bytes first."""
    return context.settings.public or not isinstance(claim, ReadThroughImport) or claim.proven


async def _stream(
    parts: AsyncGenerator[bytes, None], entry: FileEntry, span: ByteRange, headers: dict[str, str]
) -> Response:
    headers["Content-Length"] = str(span.length)
    if span.partial:
        headers["Content-Range"] = f"bytes {span.offset}-{span.offset + span.length - 1}/{entry.size}"
    status = 206 if span.partial else 200
    media = "application/octet-stream"
    if not span.length:
        return Response(b"", status, headers, media)
    first = await anext(parts)  # a corrupt first piece is an error response, not an abort
    return Stream(first, parts, status, headers, media)


def _etags(header: str | None) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in (header or "").split(",")}


def _host(request: Request, url: str) -> str:
    """Return the host of the request URL, in URL syntax."""
    host = urlsplit(url).hostname if url else request.url.hostname
    host = host or "127.0.0.1"
    return f"[{host}]" if ":" in host else host


LIST_PAGE: Final = 100
MAX_FORM: Final = 1024 * 1024
MAX_NOTICE: Final = 500


def hub_routes(context: GatewayContext, read_through: ReadThroughRoutes, access: GatewayAccess) -> list[Route]:
    """Return the routes; the last one matches every remaining path, so mount them after all others."""
    hub = HubRoutes(context, read_through, access)
    return [
        Route("/api/whoami-v2", hub.whoami),
        *(Route(f"/api/{kind}", hub.repositories) for kind in KINDS),
        *(Route(f"/api/{kind}/{{rest:path}}", hub.repository_view, methods=["GET", "POST"]) for kind in KINDS),
        Route("/{rest:path}", hub.resolve),
    ]


class HubRoutes:
    """Handlers of the Hub API."""

    def __init__(self, context: GatewayContext, read_through: ReadThroughRoutes, access: GatewayAccess) -> None:
        self._context = context
        self._read_through = read_through
        self._access = access
        self._repository_list = RepositoryList(context.core)
        self._aliases = context.settings.alias_targets()

    async def whoami(self, request: Request) -> Response:
        token = await self._access.token(request)
        if token is None:
            raise Refused("Invalid credentials in Authorization header", hint="ask the operator", code="BAD-TOKEN")
        role = {"displayName": token.name, "role": "read"}
        who = {"type": "user", "name": token.name, "fullname": token.name, "orgs": [], "auth": {"accessToken": role}}
        return JSONResponse(who)

    async def repositories(self, request: Request) -> Response:
        """`GET /api/models`: the repositories that this reader may read, by name."""
        query = request.query_params
        limit = views.read_integer(query.get("limit"), LIST_PAGE, LIST_PAGE)
        words, author, after = query.get("search", ""), query.get("author", ""), query.get("cursor", "")
        readable_names = await self._access.readable_names(request)
        names, cursor = await self._repository_list.names(words, author, after, limit, readable_names)
        listed = [await self._list_item(request, name) for name in names]
        more = self._link(request, cursor) if cursor else {}
        return JSONResponse([item for item in listed if item is not None], headers=more)

    async def repository_view(self, request: Request) -> Response:
        """`/api/{kind}/{id}/…`."""
        address = read_api(_raw(request))
        if (request.method == "POST") != (address.view == "paths-info"):
            raise Malformed("the address does not support this method", why=request.method, code="METHOD")
        redirect = await self._redirect(request, address)
        if redirect is not None:
            return redirect
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
                return await self._json(snapshot, lambda: views.commits_view(snapshot))
            case _:  # auth-check: access was checked above
                return Response()

    async def resolve(self, request: Request) -> Response:
        """`/{id}/resolve/{revision}/{path}`."""
        address = read_resolve(_raw(request))
        redirect = await self._redirect(request, address)
        if redirect is not None:
            return redirect
        snapshot = await self._snapshot(address)
        entry = snapshot.manifest.by_path.get(address.path)
        try:
            if entry is None:
                raise NotFound(f"no file {address.path[:200]!r} in {snapshot.repository}", code="NO-SUCH-FILE")
            response = await content_response(self._context, request, snapshot.claim, entry)
        except ComityError as error:
            response = error_response(error)
            if error.code == "RANGE" and entry is not None:
                response.headers["Content-Range"] = f"bytes */{entry.size}"
        return _with_notices(response, snapshot)

    async def _redirect(self, request: Request, address: HubAddress) -> Response | None:
        """Check access, and return a redirect to the canonical name of the repository; None if the address uses it."""
        name = self._aliases.get(address.repository.lower(), address.repository)
        await self._access.require(request, name)
        canonical_name = await self._canonical_name(name, address)
        if canonical_name == address.repository:
            return None
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(self._context.settings.url + address.renamed(canonical_name) + query, 307)

    async def _canonical_name(self, name: str, address: HubAddress) -> str:
        if address.model:
            return await self._read_through.canonical_name(name, address.revision)
        return await self._read_through.catalogue.canonical_name(name)

    async def _snapshot(self, address: HubAddress) -> Snapshot:
        """Only models are mirrored on demand: other kinds are other repositories at the upstream."""
        snapshot = self._read_through.snapshot if address.model else self._read_through.catalogue.snapshot
        return await snapshot(address.repository, address.revision)

    async def _model(self, request: Request, address: HubAddress) -> Response:
        blobs = views.read_bool(request.query_params.get("blobs"))
        snapshot = await self._snapshot(address)
        return await self._json(snapshot, lambda: views.model_view(snapshot, blobs=blobs))

    async def _tree(self, request: Request, address: HubAddress) -> Response:
        snapshot = await self._snapshot(address)
        query = request.query_params
        limit = views.read_integer(query.get("limit"), views.TREE_PAGE, views.TREE_PAGE)
        recursive, expand = views.read_bool(query.get("recursive")), views.read_bool(query.get("expand"))
        after = ""

        def page() -> list[views.Document]:
            nonlocal after
            whole = views.tree_view(snapshot, address.path, recursive=recursive, expand=expand)
            shown, after = views.page_view(whole, query.get("cursor", ""), limit)
            return shown

        response = await self._json(snapshot, page)
        response.headers.update(self._link(request, after) if after else {})
        return response

    async def _paths_info(self, request: Request, address: HubAddress) -> Response:
        snapshot = await self._snapshot(address)
        paths, expand = _form(request.headers.get("content-type", ""), await read_body(request, MAX_FORM))
        return await self._json(snapshot, lambda: views.paths_info_view(snapshot, paths, expand=expand))

    async def _json(self, snapshot: Snapshot, view: Callable[[], object]) -> Response:
        """Return `view()` as JSON; runs in a thread, because an artifact may have 100,000 files."""
        body = await self._context.core.pools.hashing(lambda: json.dumps(view(), ensure_ascii=False).encode())
        return _with_notices(Response(body, media_type="application/json"), snapshot)

    async def _refs(self, address: HubAddress) -> Response:
        refs = self._read_through.refs if address.model else self._read_through.catalogue.refs
        return JSONResponse(views.refs_view(*await refs(address.repository)))

    async def _list_item(self, request: Request, name: str) -> dict[str, Any] | None:
        """Return an item of a list; None if the repository is not served."""
        full = views.read_bool(request.query_params.get("full"))
        try:
            return views.model_view(await self._read_through.catalogue.snapshot(name, "main"), siblings=full)
        except ComityError:
            return None

    def _link(self, request: Request, cursor: str) -> dict[str, str]:
        base = self._context.settings.url or f"{request.url.scheme}://{request.url.netloc}"
        query = urlencode(
            [*((k, v) for k, v in request.query_params.multi_items() if k != "cursor"), ("cursor", cursor)]
        )
        return {"Link": f'<{base}{_raw(request)}?{query}>; rel="next"'}


def _with_notices(response: Response, snapshot: Snapshot) -> Response:
    """Add the headers of every response about an artifact: its commit and notices."""
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
    """Parse `paths` and `expand` from a form or JSON. Raises Malformed."""
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
    return form.get("paths", []), views.read_bool(form.get("expand", [""])[0])
