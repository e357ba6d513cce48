"""Bodies of answers: verified bytes of a file that is here, or of one that is still coming in.

The bytes of one file: what HEAD says of it, and what GET sends or where it sends the client.

A large file goes out through the blob server, where there is one; else it is streamed here. Either way no byte leaves
that was not read and verified just before, and what cannot be verified is a 503 before the first byte, or a cut
connection after it. What is not here is fetched while it is sent, where the settings allow that.


The Hub's read routes over HTTP. Paths are read raw, by `address`; what they mean is decided in `catalogue`.

The read routes of a Hugging Face Hub, as unmodified clients ask for them. Facts: the design's hub protocol notes.

    address     what a request's path asks for
    catalogue   from a repository and a revision to the artifact that this node stands by
    judging     whether the node's own policy lets it be served, and what to warn of
    shelf       the repositories there are, for lists and search
    views       the JSON that clients expect
    content     the bytes of one file
    routes      all of it as HTTP

An artifact has no type: it is a model, a dataset or a space to whoever reads it as one. Nothing is ever written here,
nothing is compressed, and no answer names Xet.
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
from comity.gateway.fileserver.http1 import ByteRange, requested
from comity.gateway.http import Access, ConnectionPlaces, ResponseTimeout, read_body
from comity.gateway.http import answer as refusal
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
"""Parts of at most 256 KiB that a thread reads while those before are being sent."""
BODIES: Final = 64
"""Bodies of files that are sent at once: each has up to two times `AHEAD` parts in memory, 1 MiB."""
FIRST: Final = 8.0
"""Seconds to the first byte of a file that comes from elsewhere: stock clients wait for ten."""


class Stream(StreamingResponse):
    """A body of which the first part is there. What goes wrong later cuts the connection, and `parts` ends with it."""

    def __init__(
        self, first: bytes, parts: AsyncGenerator[bytes, None], status: int, headers: dict[str, str], media: str
    ) -> None:
        self._parts = parts
        super().__init__(_after(first, parts), status, headers, media)

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._parts):
            await super().stream_response(send)


async def placed(
    places: ConnectionPlaces, scope: Scope, parts: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """`parts`, sent from one of `places`. Raises Unavailable (NODE-BUSY) before the first one."""
    async with aclosing(parts), places.taken(scope) as progress:
        async for part in parts:
            yield part
            progress()


async def stored(running: GatewayContext, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
    """A range of a blob that is here: one window is sent while the next is read and verified."""
    parts = running.blobs.checked.read(digest, offset, length)
    ready = await running.core.pools.files(_window, parts)
    ahead = asyncio.ensure_future(running.core.pools.files(_window, parts))
    try:
        while ready:
            for part in ready:
                yield part
            ready = await ahead
            ahead = asyncio.ensure_future(running.core.pools.files(_window, parts))
    finally:
        ahead.add_done_callback(_ended)  # `parts` ends with its last reader


async def coming(
    running: GatewayContext, claim: Claim, entry: FileEntry, span: ByteRange
) -> AsyncGenerator[bytes, None]:
    """A range of a file that is fetched meanwhile, and from the store once it is whole. Raises Unavailable."""
    sent = 0
    try:
        async with aclosing(_brought(running, claim, entry, span)) as parts:
            async with asyncio.timeout(FIRST):
                part = await anext(parts, b"")
            while part:
                yield part
                sent += len(part)
                part = await anext(parts, b"")
    except TimeoutError as error:
        why = f"no verified byte of it came within {FIRST:g} s"
        raise Unavailable(f"{entry.path[:200]} is on its way", why=why, code="ON-ITS-WAY") from error
    except ComityError as error:  # no fault of who asks, and it may pass
        if type(error) is Unavailable:
            raise
        raise Unavailable(f"{entry.path[:200]} is not here now", why=str(error), code="NOT-HERE") from error
    if sent < span.length:
        async with aclosing(stored(running, entry.sha256, span.offset + sent, span.length - sent)) as rest:
            async for part in rest:
                yield part


async def _brought(
    running: GatewayContext, claim: Claim, entry: FileEntry, span: ByteRange
) -> AsyncGenerator[bytes, None]:
    """From the peers, else with what is being mirrored from its upstream, or may be mirrored again."""
    if isinstance(claim, ReadThroughImport):
        passage = claim
    else:
        try:
            async with aclosing(running.replication.cold.read(claim, entry, span.offset, span.length)) as parts:
                async for part in parts:
                    yield part
            return
        except NotFound:  # before the first byte: no peer has it
            if not isinstance(claim, Observed) or not running.passages.allows(claim.upstream.repository):
                raise
            passage = await running.passages.again(claim)
    async with aclosing(passage.read(entry, span.offset, span.length, running.core.pools)) as parts:
        async for part in parts:
            yield part


async def _after(first: bytes, parts: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    yield first
    try:
        async for part in parts:
            yield part
    except ComityError as error:
        raise ResponseTimeout(str(error)) from error


def _window(parts: Iterator[bytes]) -> list[bytes]:
    return list(itertools.islice(parts, AHEAD))


def _ended(ahead: asyncio.Future[list[bytes]]) -> None:
    """The client has gone, or was told: nobody else asks what became of the last window."""
    if not ahead.cancelled():
        ahead.exception()


INLINE: Final = 256 * 1024
"""Bytes up to which a file is answered here even where a blob server runs: a redirect costs a round trip."""


def content_headers(entry: FileEntry) -> dict[str, str]:
    """What is said of a file in any answer about it. Never anything of Xet; nothing is ever compressed."""
    etag = f'"{entry.sha256}"'
    return {
        "ETag": etag,
        "X-Linked-ETag": etag,
        "X-Linked-Size": str(entry.size),
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-transform",
    }


async def content_response(running: GatewayContext, request: Request, claim: Claim, entry: FileEntry) -> Response:
    """HEAD or GET of a file. Raises Unavailable where it is not to be had, or is damaged; Malformed (RANGE)."""
    described = content_headers(entry)
    here = not entry.size or (
        _opens(running, claim) and await running.core.pools.files(running.core.store.has, entry.sha256)
    )
    if not here and running.settings.cold == "off":
        why = "this node has not all of the artifact yet, or put the file aside as damaged"
        raise Unavailable(f"{entry.path[:200]} is not here now", why=why, code="NOT-HERE")
    if described["ETag"] in _listed(request.headers.get("if-none-match")):
        return Response(status_code=304, headers=described)
    spoiled = running.passages.spoiled(entry.sha256)
    wanted = None if spoiled else request.headers.get("range")
    span = requested(entry.size, wanted, request.headers.get("if-range"), described["ETag"])
    if span is None:
        raise Malformed("no such range", why=f"the file has {entry.size} bytes", code="RANGE")
    if request.method == "HEAD":
        described["Content-Length"] = str(entry.size)
        return Response(headers=described, media_type="application/octet-stream")
    if not here:
        return await _stream(
            placed(running.bodies, request.scope, coming(running, claim, entry, span)), entry, span, described
        )
    if running.blobs.address and entry.size > INLINE and not spoiled:  # a blob server gives ranges
        name = entry.path.rpartition("/")[2]
        to = running.blobs.location(entry.sha256, host=_host(request, running.settings.url), name=name)
        return RedirectResponse(to, 302, headers=described)
    parts = stored(running, entry.sha256, span.offset, span.length)
    return await _stream(placed(running.bodies, request.scope, parts), entry, span, described)


def _opens(running: GatewayContext, claim: Claim) -> bool:
    """Whether blobs of the store go out by a claim. Where tokens open some repositories and not others, a Hub that only
    lists what another one keeps here must give it first."""
    return running.settings.public or not isinstance(claim, ReadThroughImport) or claim.proven


async def _stream(
    parts: AsyncGenerator[bytes, None], entry: FileEntry, span: ByteRange, said: dict[str, str]
) -> Response:
    said["Content-Length"] = str(span.length)
    if span.partial:
        said["Content-Range"] = f"bytes {span.offset}-{span.offset + span.length - 1}/{entry.size}"
    status = 206 if span.partial else 200
    media = "application/octet-stream"
    if not span.length:
        return Response(b"", status, said, media)
    first = await anext(parts)  # what is wrong with its first piece is an error, not a cut
    return Stream(first, parts, status, said, media)


def _listed(header: str | None) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in (header or "").split(",")}


def _host(request: Request, url: str) -> str:
    """The host that the client has come to, as it stands in a URL."""
    host = urlsplit(url).hostname if url else request.url.hostname
    host = host or "127.0.0.1"
    return f"[{host}]" if ":" in host else host


LIST_PAGE: Final = 100
MAX_FORM: Final = 1024 * 1024
MAX_NOTICE: Final = 500


def hub_routes(running: GatewayContext, through: ReadThroughRoutes, access: Access) -> list[Route]:
    """The last of these takes every path that is left: mount them after all others."""
    hub = HubRoutes(running, through, access)
    return [
        Route("/api/whoami-v2", hub.whoami),
        *(Route(f"/api/{kind}", hub.repositories) for kind in KINDS),
        *(Route(f"/api/{kind}/{{rest:path}}", hub.about, methods=["GET", "POST"]) for kind in KINDS),
        Route("/{rest:path}", hub.resolve),
    ]


class HubRoutes:
    """Answers what a Hub answers."""

    def __init__(self, running: GatewayContext, through: ReadThroughRoutes, access: Access) -> None:
        self._running = running
        self._through = through
        self._access = access
        self._shelf = RepositoryList(running.core)
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
        limit = views.read_integer(query.get("limit"), LIST_PAGE, LIST_PAGE)
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
                return await self._shown(snapshot, lambda: views.commits_view(snapshot))
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
            answered = await content_response(self._running, request, snapshot.claim, entry)
        except ComityError as error:
            answered = refusal(error)
            if error.code == "RANGE" and entry is not None:
                answered.headers["Content-Range"] = f"bytes */{entry.size}"
        return _telling(answered, snapshot)

    async def _moved(self, request: Request, address: HubAddress) -> Response | None:
        """A redirect to the name that a repository goes by; None where it was asked for by it and may be read."""
        name = self._aliases.get(address.repository.lower(), address.repository)
        await self._access.require(request, name)
        spelling = await self._spelling(name, address)
        if spelling == address.repository:
            return None
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(self._running.settings.url + address.renamed(spelling) + query, 307)

    async def _spelling(self, name: str, address: HubAddress) -> str:
        if address.model:
            return await self._through.spelling(name, address.revision)
        return await self._through.catalogue.spelling(name)

    async def _snapshot(self, address: HubAddress) -> Snapshot:
        """What is mirrored for whoever asks is a model: other kinds have other repositories at their upstream."""
        snapshot = self._through.snapshot if address.model else self._through.catalogue.snapshot
        return await snapshot(address.repository, address.revision)

    async def _model(self, request: Request, address: HubAddress) -> Response:
        blobs = views.read_truth(request.query_params.get("blobs"))
        snapshot = await self._snapshot(address)
        return await self._shown(snapshot, lambda: views.model_view(snapshot, blobs=blobs))

    async def _tree(self, request: Request, address: HubAddress) -> Response:
        snapshot = await self._snapshot(address)
        query = request.query_params
        limit = views.read_integer(query.get("limit"), views.TREE_PAGE, views.TREE_PAGE)
        recursive, expand = views.read_truth(query.get("recursive")), views.read_truth(query.get("expand"))
        after = ""

        def page() -> list[views.Document]:
            nonlocal after
            whole = views.tree_view(snapshot, address.path, recursive=recursive, expand=expand)
            shown, after = views.page_view(whole, query.get("cursor", ""), limit)
            return shown

        answered = await self._shown(snapshot, page)
        answered.headers.update(self._link(request, after) if after else {})
        return answered

    async def _paths_info(self, request: Request, address: HubAddress) -> Response:
        snapshot = await self._snapshot(address)
        paths, expand = _form(request.headers.get("content-type", ""), await read_body(request, MAX_FORM))
        return await self._shown(snapshot, lambda: views.paths_info_view(snapshot, paths, expand=expand))

    async def _shown(self, snapshot: Snapshot, view: Callable[[], object]) -> Response:
        """What `view` gives, as JSON: made in a thread, since an artifact may have 100,000 files."""
        body = await self._running.core.pools.hashing(lambda: json.dumps(view(), ensure_ascii=False).encode())
        return _telling(Response(body, media_type="application/json"), snapshot)

    async def _refs(self, address: HubAddress) -> Response:
        refs = self._through.refs if address.model else self._through.catalogue.refs
        return JSONResponse(views.refs_view(*await refs(address.repository)))

    async def _listed(self, request: Request, name: str) -> dict[str, Any] | None:
        """A line of a list; None for what is not served."""
        full = views.read_truth(request.query_params.get("full"))
        try:
            return views.model_view(await self._through.catalogue.snapshot(name, "main"), siblings=full)
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
    return form.get("paths", []), views.read_truth(form.get("expand", [""])[0])
