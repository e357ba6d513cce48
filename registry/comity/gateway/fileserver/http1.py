"""HTTP/1.1 for the file server: strict request parsing, byte ranges, signed URLs, responses, and sending with
deadlines.

Requests: stricter than RFC 9112. No bodies, folded lines, bare CR or LF, or leading empty lines; ambiguous requests are
refused, and a refusal closes the connection, so that no second request can be smuggled. Ranges: RFC 9110, sections
13.1.5 (If-Range) and 14 (Range). URLs open one blob for a limited time:

    /blobs/<sha256>?until=<POSIX seconds>&name=<file name>&peer=<node name>&mac=<base64url>

`name` is the download name, `peer` the node that got the URL, for accounting; both are optional. The MAC is HMAC-SHA256
over everything before it. The key is random per process, so a restart invalidates all URLs. A URL is a secret while it
is valid and is never logged.

Sending uses `sendfile`, or TLS. Sockets are blocking, because waking up between writes would need the interpreter lock
each time. Each step sets a `Deadline`, and the server closes connections that pass it: a client that takes less than
`SLOWEST` bytes a second, or nothing for `STALLED` seconds, holds a thread and, with TLS, a buffer.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import socket
import ssl
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, Literal, Protocol, cast
from urllib.parse import quote, unquote

from comity.content.durable import disk_errors
from comity.gateway.fileserver.verified import BUFFER, FilePart
from comity.gateway.http import HEADERS, error_response
from comity.trust.encoding import Digest, parse_digest
from comity.trust.errors import ComityError, Malformed, Refused, Unavailable
from comity.trust.frozen import frozen
from comity.wire.limits import SLOWEST

MAX_HEAD: Final = 16 * 1024
"""Maximum bytes of request line and header fields; stock clients send under 2 KiB."""
MAX_FIELDS: Final = 64
HEADERS_END: Final = b"\r\n\r\n"

_LINE: Final = re.compile(rb"(?P<method>[A-Z]{1,16}) (?P<target>[!-~]{1,2048}) HTTP/1\.(?P<minor>[01])")
_FIELD: Final = re.compile(rb"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}):(?P<value>[\t -~\x80-\xff]*)")
"""The value has the spaces around it: a pattern that leaves them out tries each way to divide a long run of them."""
_ONCE: Final = frozenset({"host", "range", "if-range", "content-length", "transfer-encoding"})


@frozen
class FileRequest:
    """The used parts of a request. `target` is the raw path with query."""

    method: Literal["GET", "HEAD"]
    target: str
    range: str | None
    if_range: str | None
    if_none_match: str | None
    keep_alive: bool


def parse(head: bytes) -> FileRequest:
    """Parse a request head without its final empty line.

    Raises Malformed (HTTP-REQUEST) for anything but a plain request without a body, and Refused (METHOD).
    """
    line, *rest = head.split(b"\r\n")
    found = _LINE.fullmatch(line)
    if found is None:
        raise _malformed("not a request line of HTTP/1.0 or 1.1")
    fields = _fields(rest)
    if "transfer-encoding" in fields or fields.get("content-length", "0") != "0":
        raise _malformed("a body is not allowed")
    if found["minor"] == b"1" and not fields.get("host"):
        raise _malformed("the host field is missing")
    if not found["target"].startswith(b"/"):
        raise _malformed("the target is not a path")
    method = found["method"].decode("ascii")
    if method not in ("GET", "HEAD"):
        raise Refused("blobs are read-only", why=f"{method} is not supported", code="METHOD")
    tokens = {token.strip().lower() for token in fields.get("connection", "").split(",")}
    return FileRequest(
        method=cast(Literal["GET", "HEAD"], method),
        target=found["target"].decode("ascii"),
        range=fields.get("range"),
        if_range=fields.get("if-range"),
        if_none_match=fields.get("if-none-match"),
        keep_alive="close" not in tokens and (found["minor"] == b"1" or "keep-alive" in tokens),
    )


def _fields(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_FIELDS:
        raise _malformed(f"more than {MAX_FIELDS} header fields")
    fields: dict[str, str] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise _malformed("a header field is not one line of name, colon and value")
        name, value = found["name"].decode("ascii").lower(), found["value"].strip(b" \t").decode("latin-1")
        if name in fields and name in _ONCE:
            raise _malformed(f"duplicate field {name}")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def _malformed(why: str) -> Malformed:
    return Malformed("not a request", why=why, code="HTTP-REQUEST")


_ONE_RANGE: Final = re.compile(
    r"bytes=[ \t]*(?P<first>[0-9]{0,19})-(?P<last>[0-9]{0,19})[ \t]*", re.ASCII | re.IGNORECASE
)


@frozen
class ByteRange:
    """Bytes offset <= i < offset + length of a file; `partial`: the response is 206."""

    offset: int
    length: int
    partial: bool


def parse_range(size: int, wanted: str | None, condition: str | None, etag: str) -> ByteRange | None:
    """Return the range to send of a file of `size` bytes; None if it is not satisfiable (416). Of an empty file it is
    always the whole, because some clients ask for `bytes=0-0` first whatever the size is.

    Args:
        wanted: the Range field. A malformed range, another unit or several ranges are ignored, as the RFC allows.
        condition: the If-Range field. Only the exact `etag` keeps the range: dates and weak tags do not identify bytes.
    """
    whole = ByteRange(0, size, partial=False)
    if not size or wanted is None or (condition is not None and condition != etag):
        return whole
    found = _ONE_RANGE.fullmatch(wanted)
    if found is None or not (found["first"] or found["last"]):
        return whole
    if not found["first"]:
        length = min(int(found["last"]), size)
        return ByteRange(size - length, length, partial=True) if length else None
    first = int(found["first"])
    last = min(int(found["last"]), size - 1) if found["last"] else size - 1
    if found["last"] and int(found["last"]) < first:
        return whole
    return ByteRange(first, last - first + 1, partial=True) if first < size else None


def is_known(etag: str, if_none_match: str | None) -> bool:
    """Whether the client has the file with this tag already, so that the answer is 304 (RFC 9110, section 13.1.2).

    Args:
        if_none_match: the field, with tags or `*`; the comparison is the weak one.
    """
    tags = {tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")}
    return etag in tags or "*" in tags


PREFIX: Final = "/blobs/"
KEY_BYTES: Final = 32
MAX_SECONDS: Final = 24 * 3600
MAX_NAME: Final = 255

_SIGNED: Final = re.compile(
    r"(?P<signed>/blobs/(?P<digest>[0-9a-f]{64})\?until=(?P<until>[0-9]{1,12})"
    r"(?:&name=(?P<name>[!-%'-~]{1,768}))?(?:&peer=(?P<peer>[!-%'-~]{1,768}))?)&mac=(?P<mac>[A-Za-z0-9_-]{43})",
    re.ASCII,
)


class SignedUrls:
    """Signs and checks URLs. Thread-safe.

    Args:
        key: 32 random bytes, known to this process only.
        clock: POSIX seconds.
    """

    def __init__(self, key: bytes, clock: Callable[[], float]) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a URL key has {KEY_BYTES} bytes")
        self._key = key
        self._clock = clock

    def sign(self, digest: Digest, *, seconds: float, name: str = "", peer: str = "") -> str:
        """Return path and query that open the blob for `seconds`, at most a day. Raises Malformed for a `name` or
        `peer` of more than 255 bytes."""
        until = int(self._clock() + min(max(seconds, 1), MAX_SECONDS))
        signed = f"{PREFIX}{parse_digest(digest)}?until={until}"
        for key, value in (("name", name), ("peer", peer)):
            if len(value.encode()) > MAX_NAME:
                raise Malformed(f"{key} too long", why=f"at most {MAX_NAME} bytes are allowed")
            signed += f"&{key}={quote(value, safe='')}" if value else ""
        return f"{signed}&mac={self._mac(signed)}"

    def check(self, target: str) -> Digest:
        """Return the blob that a path and query open. Raises Refused: URL-FORGED, URL-EXPIRED."""
        found = _SIGNED.fullmatch(target)
        if found is None or not hmac.compare_digest(found["mac"], self._mac(found["signed"])):
            why = "this process did not sign it: the URL was changed, or the node has restarted"
            raise Refused("the URL is not valid", why=why, hint="ask for a new one", code="URL-FORGED")
        if int(found["until"]) < self._clock():
            raise Refused(
                "the URL has expired",
                why="URLs are valid for a short time",
                hint="ask for a new one",
                code="URL-EXPIRED",
            )
        return Digest(found["digest"])

    def _mac(self, signed: str) -> str:
        return base64.urlsafe_b64encode(hmac.digest(self._key, signed.encode("ascii"), "sha256")).rstrip(b"=").decode()


def file_name(target: str) -> str:
    """Return the download name in a checked URL; empty if there is none."""
    return _part(target, "name")


def peer_of(target: str) -> str:
    """Return the peer that got a checked URL; empty if there is none."""
    return _part(target, "peer")


def _part(target: str, key: str) -> str:
    found = _SIGNED.fullmatch(target)
    return unquote(found[key] or "", errors="replace") if found else ""


@frozen
class FileResponse:
    """The head of a response, and the range of the blob that follows; empty for HEAD, 304 and 416."""

    status: int
    head: bytes
    span: ByteRange


def file_response(request: FileRequest, digest: Digest, size: int) -> FileResponse:
    """Return the response to a valid request for a blob of `size` bytes."""
    etag = f'"{digest}"'
    if is_known(etag, request.if_none_match):
        return FileResponse(304, _head(304, {"ETag": etag}, request.keep_alive), ByteRange(0, 0, partial=False))
    asked = request.range if request.method == "GET" else None  # RFC 9110, section 14.2: no other method has ranges
    wanted = parse_range(size, asked, request.if_range, etag)
    if wanted is None:
        fields = {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
        return FileResponse(416, _head(416, fields, request.keep_alive), ByteRange(0, 0, partial=False))
    fields = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(wanted.length),
        "Accept-Ranges": "bytes",
        "Cache-Control": "private",
        "ETag": etag,
        "Docker-Content-Digest": f"sha256:{digest}",  # of the blob in a registry, which redirects its clients here
    }
    if wanted.partial:
        fields["Content-Range"] = f"bytes {wanted.offset}-{wanted.offset + wanted.length - 1}/{size}"
    if name := file_name(request.target):
        fields["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    status = 206 if wanted.partial else 200
    span = ByteRange(0, 0, partial=False) if request.method == "HEAD" else wanted
    return FileResponse(status, _head(status, fields, request.keep_alive), span)


def error_bytes(error: ComityError, *, body: bool = True) -> tuple[int, bytes]:
    """Return status and bytes of an error response that closes the connection; without a body for HEAD."""
    response = error_response(error)
    head = _head(response.status_code, dict(response.headers), keep_alive=False)
    return response.status_code, head + (bytes(response.body) if body else b"")


def _head(status: int, fields: Mapping[str, str], keep_alive: bool) -> bytes:
    every = {"Date": formatdate(usegmt=True), "Connection": "keep-alive" if keep_alive else "close"}
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in {**every, **HEADERS, **fields}.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


STALLED: Final = 20.0
STEP: Final = 2 * 1024 * 1024
"""Bytes sent per deadline."""


class Deadline:
    """The monotonic time by which a connection must make progress.

    Args:
        stepped: called at each progress, when the next deadline is set.
    """

    def __init__(self, stepped: Callable[[], None]) -> None:
        self.at = float("inf")
        self._stepped = stepped

    def within(self, seconds: float) -> None:
        self.at = time.monotonic() + seconds
        self._stepped()


class ClientSocket(Protocol):
    """A connected socket. Methods raise OSError if the client disconnected, or was closed for being too slow."""

    deadline: Deadline

    @abstractmethod
    def receive(self, most: int) -> bytes:
        """Return some bytes, none at the end, within the deadline that the caller set."""

    @abstractmethod
    def send(self, data: bytes | memoryview, *, more: bool = False) -> None:
        """Send `data`; `more`: further data follow at once, so a small head need not be a packet of its own."""

    @abstractmethod
    def send_file(self, part: FilePart) -> None:
        """Also raises Unavailable (BLOB-CHANGED, DISK) for errors of the file."""


class PlainClientSocket(ClientSocket):
    def __init__(self, client: socket.socket, deadline: Deadline) -> None:
        self._client = client
        self.deadline = deadline

    def receive(self, most: int) -> bytes:
        return self._client.recv(most)

    def send(self, data: bytes | memoryview, *, more: bool = False) -> None:
        self.deadline.within(_send_timeout(len(data)))
        self._client.sendall(data, socket.MSG_MORE if more else 0)

    def send_file(self, part: FilePart) -> None:
        offset, end = part.offset, part.offset + part.length
        while offset < end:
            step = min(STEP, end - offset)
            self.deadline.within(_send_timeout(step))
            sent = os.sendfile(self._client.fileno(), part.descriptor, offset, step)
            if not sent:
                raise Unavailable("a blob changed", why="the file is too short", code="BLOB-CHANGED")
            offset += sent


class TlsClientSocket(ClientSocket):
    def __init__(self, client: ssl.SSLSocket, deadline: Deadline) -> None:
        self._client = client
        self._buffer = bytearray()
        self.deadline = deadline

    def receive(self, most: int) -> bytes:
        return self._client.recv(most)

    def send(self, data: bytes | memoryview, *, more: bool = False) -> None:
        self.deadline.within(_send_timeout(len(data)))
        self._client.sendall(data)

    def send_file(self, part: FilePart) -> None:
        offset, end = part.offset, part.offset + part.length
        self._buffer = self._buffer or bytearray(BUFFER)
        while offset < end:
            view = memoryview(self._buffer)[: min(BUFFER, end - offset)]
            with disk_errors("a blob was not read"):
                filled = os.preadv(part.descriptor, [view], offset)
            if not filled:
                raise Unavailable("a blob changed", why="the file is too short", code="BLOB-CHANGED")
            self.send(view[:filled])
            offset += filled


def _send_timeout(length: int) -> float:
    return STALLED + length / SLOWEST
