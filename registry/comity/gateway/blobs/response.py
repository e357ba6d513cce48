"""What a request is answered, as bytes of HTTP/1.1. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import quote

from comity.gateway.blobs.ranges import Span, requested
from comity.gateway.blobs.request import Request
from comity.gateway.blobs.urls import file_name
from comity.gateway.bounds import HEADERS
from comity.gateway.errors import answer
from comity.trust.digest import Digest
from comity.trust.errors import ComityError


@dataclass(frozen=True, slots=True)
class Reply:
    """The head of an answer, and which bytes of the blob follow it: none for HEAD and 416."""

    status: int
    head: bytes
    span: Span


def reply(request: Request, digest: Digest, size: int) -> Reply:
    """The answer to a request for a blob of `size` bytes that its URL opens."""
    etag = f'"{digest}"'
    asked = request.range if request.method == "GET" else None  # RFC 9110, section 14.2: no other method has ranges
    wanted = requested(size, asked, request.if_range, etag)
    if wanted is None:
        fields = {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
        return Reply(416, _head(416, fields, request.keep_alive), Span(0, 0, partial=False))
    fields = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(wanted.length),
        "Accept-Ranges": "bytes",
        "Cache-Control": "private",
        "ETag": etag,
    }
    if wanted.partial:
        fields["Content-Range"] = f"bytes {wanted.offset}-{wanted.offset + wanted.length - 1}/{size}"
    if name := file_name(request.target):
        fields["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    status = 206 if wanted.partial else 200
    span = Span(0, 0, partial=False) if request.method == "HEAD" else wanted
    return Reply(status, _head(status, fields, request.keep_alive), span)


def refusal(error: ComityError, *, body: bool = True) -> tuple[int, bytes]:
    """Status and bytes of the answer that ends a connection; without a body for HEAD."""
    said = answer(error)
    head = _head(said.status_code, dict(said.headers), keep_alive=False)
    return said.status_code, head + (bytes(said.body) if body else b"")


def _head(status: int, fields: Mapping[str, str], keep_alive: bool) -> bytes:
    every = {"Date": formatdate(usegmt=True), "Connection": "keep-alive" if keep_alive else "close"}
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in {**every, **HEADERS, **fields}.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
