"""One client: requests in, answers out, one after the other, until somebody has had enough.

The first part of a blob is verified before its answer begins, so that a damaged blob is a clear 503. What turns out
wrong later cuts the connection: the client sees an answer that is too short, and nothing of the wrong piece.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from comity.gateway.blobs.checked import Checked, FilePart
from comity.gateway.blobs.pipe import Pipe
from comity.gateway.blobs.request import END, MAX_HEAD, Request, parse
from comity.gateway.blobs.response import refusal, reply
from comity.gateway.blobs.urls import Urls, given_to
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, Malformed

HEAD_SECONDS: Final = 10.0
"""From the first byte of a request to the end of its head."""
DISK_SECONDS: Final = 3600.0
"""From there to the first byte of the answer: a blob whose piece records are gone has to be hashed as a whole, once."""
IDLE: Final = 30.0
"""Before the first byte of a request."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request as it ended, for the node's log and counters: `code` is why it was refused or cut off. `peer` is who
    was given the URL, empty for strangers; `host` is where the request came from."""

    host: str
    peer: str
    blob: Digest | None
    status: int
    asked: int
    sent: int
    code: str


@dataclass(frozen=True, slots=True)
class Site:
    """What connections serve. `delivered` is told of every request, from the connection's thread."""

    urls: Urls
    checked: Checked
    delivered: Callable[[Delivery], None]


class Connection:
    """Serves one client over `pipe` until it leaves, is refused, or is too slow."""

    def __init__(self, site: Site, pipe: Pipe, host: str) -> None:
        self._site = site
        self._pipe = pipe
        self._host = host
        self._ahead = b""

    def serve(self) -> None:
        """Raises OSError where the client is gone, or too slow."""
        while (head := self._head()) is not None:
            if not _Exchange(self._site, self._pipe, self._host).answer(head):
                return

    def _head(self) -> bytes | None:
        """The next request's head; None where the client has left."""
        self._pipe.deadline.within(HEAD_SECONDS if self._ahead else IDLE)
        while (end := self._ahead.find(END)) < 0:
            if len(self._ahead) >= MAX_HEAD:
                self._pipe.send(refusal(Malformed("the request is too large", why=f"over {MAX_HEAD} bytes of head"))[1])
                return None
            first = not self._ahead
            data = self._pipe.receive(MAX_HEAD - len(self._ahead))
            if not data:
                return None
            self._ahead += data
            if first:
                self._pipe.deadline.within(HEAD_SECONDS)
        head, self._ahead = self._ahead[:end], self._ahead[end + len(END) :]
        return head


class _Exchange:
    """One request and its answer."""

    def __init__(self, site: Site, pipe: Pipe, host: str) -> None:
        self._site = site
        self._pipe = pipe
        self._host = host
        self._blob: Digest | None = None
        self._peer = ""
        self._status = self._asked = self._sent = 0
        self._code = "GONE"

    def answer(self, head: bytes) -> bool:
        """Whether the connection may go on."""
        request: Request | None = None
        self._pipe.deadline.within(DISK_SECONDS)
        try:
            request = parse(head)
            self._blob, self._peer = self._site.urls.check(request.target), given_to(request.target)
            self._open(request, self._blob)
            self._code = ""
            return request.keep_alive
        except ComityError as error:
            self._code = error.code
            if not self._status:
                self._status, data = refusal(error, body=request is None or request.method != "HEAD")
                self._pipe.send(data)
            return False
        finally:
            self._site.delivered(
                Delivery(self._host, self._peer, self._blob, self._status, self._asked, self._sent, self._code)
            )

    def _open(self, request: Request, digest: Digest) -> None:
        with self._site.checked.open(digest) as blob:
            said = reply(request, digest, blob.size)
            parts = blob.parts(said.span.offset, said.span.length)
            first = next(parts, None)
            self._status, self._asked = said.status, said.span.length
            self._pipe.send(said.head, more=first is not None)
            for part in itertools.chain(() if first is None else (first,), parts):
                self._send(part)

    def _send(self, part: FilePart | memoryview) -> None:
        if isinstance(part, FilePart):
            self._pipe.send_file(part)
            self._sent += part.length
        else:
            self._pipe.send(part)
            self._sent += len(part)
