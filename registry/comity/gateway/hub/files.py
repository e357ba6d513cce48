"""The bodies of files, as responses.

A large file is served by redirect to the file server if there is one, else streamed here. Only bytes that were read and
verified just before are sent; a failure is a 503 before the first byte, and an aborted connection after it. A file that
is not here is fetched while it is sent, if the settings allow that.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import Scope, Send

from comity.gateway.fileserver.http1 import ByteRange, is_known, parse_range
from comity.gateway.fileserver.server import FileRoutes
from comity.gateway.http import ConnectionSlots, ResponseTimeout
from comity.gateway.hub.views import Claim
from comity.node.home import ServedHome
from comity.node.importing.read_through import ReadThroughImport, ReadThroughImports
from comity.node.replication.on_demand import OnDemandFetch
from comity.trust.artifact import FileEntry
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, NotFound, Unavailable
from comity.trust.frozen import frozen
from comity.trust.upstream import Observed

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


def _host(request: Request, url: str) -> str:
    """Return the host of the request URL, in URL syntax."""
    host = urlsplit(url).hostname if url else request.url.hostname
    host = host or "127.0.0.1"
    return f"[{host}]" if ":" in host else host


@frozen
class ColdFiles:
    """Where files come from that are not here: peers, and imports from an upstream."""

    on_demand: OnDemandFetch
    imports: ReadThroughImports


class FileResponses:
    """The responses with the bodies of files. Each body that is sent here uses one of `slots`. Without `cold`, no file
    is fetched that is not here. Of an artifact that this node has `withdrawn` no file is served, whatever else has the
    same file."""

    def __init__(
        self,
        home: ServedHome,
        file_routes: FileRoutes,
        cold: ColdFiles | None,
        slots: ConnectionSlots,
        withdrawn: Callable[[Digest], Awaitable[bool]],
    ) -> None:
        self._withdrawn = withdrawn
        self._settings = home.config.gateway
        self._store = home.store
        self._pools = home.pools
        self._file_routes = file_routes
        self._cold = cold
        self._slots = slots
        self._served = home.served

    async def response(self, request: Request, claim: Claim, entry: FileEntry) -> Response:
        """HEAD or GET of a file. Raises Unavailable if it is not available or corrupt; NotFound (NOT-HELD) if this node
        withdrew its copy; Malformed (RANGE)."""
        await self.require_held(claim, entry.path)
        headers, here = content_headers(entry), await self._is_here(claim, entry)
        if is_known(headers["ETag"], request.headers.get("if-none-match")):
            return Response(status_code=304, headers=headers)
        tainted = self._cold is not None and self._cold.imports.is_tainted(entry.sha256)
        wanted = None if tainted else request.headers.get("range")
        span = parse_range(entry.size, wanted, request.headers.get("if-range"), headers["ETag"])
        if span is None:
            raise Malformed("no such range", why=f"the file has {entry.size} bytes", code="RANGE")
        if request.method == "HEAD":
            headers["Content-Length"] = str(entry.size)
            return Response(headers=headers, media_type="application/octet-stream")
        if not here and self._cold is not None:
            incoming = self._counted(self._incoming(self._cold, claim, entry, span), entry, span)
            return await _stream(with_slot(self._slots, request.scope, incoming), entry, span, headers)
        redirected = self._file_routes.address and entry.size > INLINE and not self._is_cross_origin(request)
        if redirected and not tainted:  # the file server supports ranges
            name = entry.path.rpartition("/")[2]
            to = self._file_routes.location(entry.sha256, host=_host(request, self._settings.url), name=name)
            return RedirectResponse(to, 302, headers=headers)
        if not entry.size and wanted is not None:  # RFC 9110, section 14.4: in a 200 the field has no meaning, and
            headers["Content-Range"] = "bytes */0"  # @huggingface/hub takes the size of a file from it alone
        parts = self._counted(self._stored(entry.sha256, span.offset, span.length), entry, span)
        return await _stream(with_slot(self._slots, request.scope, parts), entry, span, headers)

    async def content(self, claim: Claim, entry: FileEntry) -> bytes:
        """Return the whole of a file whose size the caller has bounded. Raises as `response`."""
        await self.require_held(claim, entry.path)
        here = await self._is_here(claim, entry)
        if not entry.size:
            return b""
        parts = self._stored(entry.sha256, 0, entry.size)
        if not here and self._cold is not None:
            parts = self._incoming(self._cold, claim, entry, ByteRange(0, entry.size, partial=False))
        async with aclosing(parts):
            return b"".join([part async for part in parts])

    async def require_held(self, claim: Claim, what: str) -> None:
        """Raise NotFound (NOT-HELD) if this node withdrew its copy of the artifact; `what` names what is asked for."""
        if not isinstance(claim, ReadThroughImport) and await self._withdrawn(claim.artifact):
            why = "this node withdrew its copy"
            raise NotFound(f"{what[:200]} is not served here", why=why, code="NOT-HELD")

    async def _is_here(self, claim: Claim, entry: FileEntry) -> bool:
        """Whether a file may be read from the store. Raises Unavailable (NOT-HERE) if not, and it is not fetched."""
        here = not entry.size or (
            self._may_serve_stored(claim) and await self._pools.files(self._store.has, entry.sha256)
        )
        if not here and self._cold is None:
            why = "this node does not have the complete artifact yet, or quarantined the file"
            raise Unavailable(f"{entry.path[:200]} is not available now", why=why, code="NOT-HERE")
        return here

    async def _counted(
        self, parts: AsyncGenerator[bytes, None], entry: FileEntry, span: ByteRange
    ) -> AsyncGenerator[bytes, None]:
        """Yield `parts`, and count the file once its last byte was taken."""
        async with aclosing(parts):
            async for part in parts:
                yield part
        if span.offset + span.length == entry.size:
            self._served.ended(entry.sha256)

    def _is_cross_origin(self, request: Request) -> bool:
        """Return whether a page of an allowed origin asks: after a redirect to another port, the browser would not say
        any more which origin that is."""
        return request.headers.get("origin") in self._settings.cors_origins

    def _may_serve_stored(self, claim: Claim) -> bool:
        """Return whether stored blobs may be served for a claim. If tokens cover only some repositories, a repository
        that merely lists a blob of another one must deliver the bytes first."""
        return self._settings.public or not isinstance(claim, ReadThroughImport) or claim.proven

    async def _stored(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """Yield a range of a stored blob; one window is sent while the next is read and verified."""
        parts = self._file_routes.verified.read(digest, offset, length)
        ready = await self._pools.files(_window, parts)
        ahead = asyncio.ensure_future(self._pools.files(_window, parts))
        try:
            while ready:
                for part in ready:
                    yield part
                ready = await ahead
                ahead = asyncio.ensure_future(self._pools.files(_window, parts))
        finally:
            ahead.add_done_callback(_discard_error)  # retrieves the exception; `parts` is closed with its last reader

    async def _incoming(
        self, cold: ColdFiles, claim: Claim, entry: FileEntry, span: ByteRange
    ) -> AsyncGenerator[bytes, None]:
        """Yield a range of a file while it is fetched, and from the store once it is complete. Raises Unavailable."""
        sent = 0
        try:
            async with aclosing(self._fetched(cold, claim, entry, span)) as parts:
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
            async with aclosing(self._stored(entry.sha256, span.offset + sent, span.length - sent)) as rest:
                async for part in rest:
                    yield part

    async def _fetched(
        self, cold: ColdFiles, claim: Claim, entry: FileEntry, span: ByteRange
    ) -> AsyncGenerator[bytes, None]:
        """Yield a range from peers, else from a pending or new import of the upstream."""
        if isinstance(claim, ReadThroughImport):
            pending_import = claim
        else:
            try:
                async with aclosing(cold.on_demand.read(claim, entry, span.offset, span.length)) as parts:
                    async for part in parts:
                        yield part
                return
            except NotFound:  # before the first byte: no peer has it
                if not isinstance(claim, Observed) or not cold.imports.allows(claim.upstream.repository):
                    raise
                pending_import = await cold.imports.import_observed(claim)
        async with aclosing(pending_import.read(entry, span.offset, span.length, self._pools)) as parts:
            async for part in parts:
                yield part
