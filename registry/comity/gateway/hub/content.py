"""The bytes of one file: what HEAD says of it, and what GET sends or where it sends the client.

A large file goes out through the blob server, where there is one; else it is streamed here. Either way no byte leaves
that was not read and verified just before, and what cannot be verified is a 503 before the first byte, or a cut
connection after it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from comity.gateway.blobs.ranges import Span, requested
from comity.gateway.bounds import CutOff
from comity.gateway.running import Running
from comity.trust.errors import ComityError, Malformed, Unavailable
from comity.trust.manifest import FileEntry

INLINE: Final = 256 * 1024
"""Bytes up to which a file is answered here even where a blob server runs: a redirect costs a round trip."""
AHEAD: Final = 8
"""Parts of at most 256 KiB that a thread reads while those before are being sent."""


def headers(entry: FileEntry) -> dict[str, str]:
    """What is said of a file in any answer about it. Never anything of Xet; nothing is ever compressed."""
    etag = f'"{entry.sha256}"'
    return {
        "ETag": etag,
        "X-Linked-ETag": etag,
        "X-Linked-Size": str(entry.size),
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-transform",
    }


async def answer(running: Running, request: Request, entry: FileEntry) -> Response:
    """HEAD or GET of a file. Raises Unavailable where it is not here, or is damaged; Malformed (RANGE)."""
    described = headers(entry)
    if entry.size and not await running.core.pools.files(running.core.store.has, entry.sha256):
        why = "this node has not all of the artifact yet, or put the file aside as damaged"
        raise Unavailable(f"{entry.path[:200]} is not here now", why=why, code="NOT-HERE")
    if described["ETag"] in _listed(request.headers.get("if-none-match")):
        return Response(status_code=304, headers=described)
    span = requested(entry.size, request.headers.get("range"), request.headers.get("if-range"), described["ETag"])
    if span is None:
        raise Malformed("no such range", why=f"the file has {entry.size} bytes", code="RANGE")
    if request.method == "HEAD":
        described["Content-Length"] = str(entry.size)
        return Response(headers=described, media_type="application/octet-stream")
    if running.blobs.address and entry.size > INLINE:
        name = entry.path.rpartition("/")[2]
        to = running.blobs.location(entry.sha256, host=_host(request, running.settings.url), name=name)
        return RedirectResponse(to, 302, headers=described)
    return await _stream(running, entry, span, described)


async def _stream(running: Running, entry: FileEntry, span: Span, described: dict[str, str]) -> Response:
    described["Content-Length"] = str(span.length)
    if span.partial:
        described["Content-Range"] = f"bytes {span.offset}-{span.offset + span.length - 1}/{entry.size}"
    status = 206 if span.partial else 200
    media = "application/octet-stream"
    if not span.length:
        return Response(b"", status, described, media)
    parts = running.blobs.checked.read(entry.sha256, span.offset, span.length)
    first = await running.core.pools.files(_window, parts)  # what is wrong with its first piece is an error, not a cut
    return StreamingResponse(_read_ahead(running, parts, first), status, described, media)


async def _read_ahead(running: Running, parts: Iterator[bytes], ready: list[bytes]) -> AsyncIterator[bytes]:
    """Send one window while the next is read and verified. Raises CutOff."""
    ahead = asyncio.ensure_future(running.core.pools.files(_window, parts))
    try:
        while ready:
            for part in ready:
                yield part
            try:
                ready = await ahead
            except ComityError as error:
                raise CutOff(str(error)) from error
            ahead = asyncio.ensure_future(running.core.pools.files(_window, parts))
    finally:
        ahead.add_done_callback(_ended)  # `parts` ends with its last reader


def _window(parts: Iterator[bytes]) -> list[bytes]:
    return list(itertools.islice(parts, AHEAD))


def _ended(ahead: asyncio.Future[list[bytes]]) -> None:
    """The client has gone, or was told: nobody else asks what became of the last window."""
    if not ahead.cancelled():
        ahead.exception()


def _listed(header: str | None) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in (header or "").split(",")}


def _host(request: Request, url: str) -> str:
    """The host that the client has come to, as it stands in a URL."""
    host = urlsplit(url).hostname if url else request.url.hostname
    host = host or "127.0.0.1"
    return f"[{host}]" if ":" in host else host
