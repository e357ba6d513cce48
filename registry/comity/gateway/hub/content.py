"""The bytes of one file: what HEAD says of it, and what GET sends or where it sends the client.

A large file goes out through the blob server, where there is one; else it is streamed here. Either way no byte leaves
that was not read and verified just before, and what cannot be verified is a 503 before the first byte, or a cut
connection after it. What is not here is fetched while it is sent, where the settings allow that.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from comity.gateway.blobs.ranges import Span, requested
from comity.gateway.hub.snapshot import Claim
from comity.gateway.hub.streams import Stream, coming, placed, stored
from comity.gateway.running import Running
from comity.node.importing.passage import Passage
from comity.trust.errors import Malformed, Unavailable
from comity.trust.manifest import FileEntry

INLINE: Final = 256 * 1024
"""Bytes up to which a file is answered here even where a blob server runs: a redirect costs a round trip."""


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


async def answer(running: Running, request: Request, claim: Claim, entry: FileEntry) -> Response:
    """HEAD or GET of a file. Raises Unavailable where it is not to be had, or is damaged; Malformed (RANGE)."""
    described = headers(entry)
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


def _opens(running: Running, claim: Claim) -> bool:
    """Whether blobs of the store go out by a claim. Where tokens open some repositories and not others, a Hub that only
    lists what another one keeps here must give it first."""
    return running.settings.public or not isinstance(claim, Passage) or claim.proven


async def _stream(parts: AsyncGenerator[bytes, None], entry: FileEntry, span: Span, said: dict[str, str]) -> Response:
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
