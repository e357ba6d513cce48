"""A file that a form of a page sends: its SHA-256. Nothing else of it is kept, in memory or on the disk.

A browser without scripts sends `multipart/form-data` (RFC 7578). The body has one part, the field `file`; it is hashed
while it arrives, and refused as soon as it is larger than `MAX_FILE` or anything else. All readers may send one:
nothing is changed by it, so the form has no key of a session.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Final

from starlette.requests import Request

from comity.gateway.access_tokens import ReaderAccess
from comity.gateway.console.forms import FORM, BrowserOrigins
from comity.gateway.declared_routes import Who
from comity.gateway.http import ConnectionSlots
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

MAX_FILE: Final = 16_000_000
MAX_HEAD: Final = 4 * 1024
"""Bytes before the content of the file."""
FILE: Final = "file"
"""The field of the form, and the key under which the handler finds the digest."""
_TYPE: Final = re.compile(r"multipart/form-data; *boundary=\"?([\w'()+,./:=?-]{1,70})\"?", re.ASCII)
_FIELD: Final = re.compile(rb'\r\n(?i:content-disposition): form-data; name="file"; filename="([^"\r\n]*)"(?:\r\n|\Z)')


@frozen
class PostedFileAccess:
    """Lets readers send a file by a form of a page of this node. Its digest goes on to the handler.

    Raises Refused (FORM-ORIGIN), as `GatewayAccess.require_any`, Malformed (FORM, BODY-TOO-LARGE) and Unavailable
    (NODE-BUSY).
    """

    access: ReaderAccess
    origins: BrowserOrigins
    slots: ConnectionSlots
    form: bool = True

    @property
    def who(self) -> Who:
        return self.access.who

    async def require(self, request: Request) -> None:
        self.origins.require_own(request)
        await self.access.require(request)
        async with self.slots.slot(request.scope) as progress:
            request.scope[FORM] = {FILE: await posted_digest(request, progress)}


async def posted_digest(request: Request, progress: Callable[[], None]) -> Digest:
    """The SHA-256 of the file in a request. Raises Malformed (FORM, BODY-TOO-LARGE)."""
    declared = _TYPE.fullmatch(request.headers.get("content-type", ""))
    if declared is None:
        raise _unreadable("its type is not multipart/form-data with a boundary")
    part = PostedPart(declared[1].encode())
    async for data in request.stream():
        part.add(data)
        progress()
    return part.digest()


class PostedPart:
    """Hashes the file in a body that comes in pieces. Each call raises Malformed (FORM, BODY-TOO-LARGE)."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._waiting = b"\r\n"  # as if a line came before the first boundary
        self._hash = hashlib.sha256()
        self._size = 0
        self._begun = self._ended = False

    def add(self, data: bytes) -> None:
        self._waiting += data
        if not self._begun:
            self._begin()
        if self._begun and not self._ended:
            self._take()
        if self._ended and len(self._waiting) > len(self._delimiter) + len(b"--\r\n"):
            raise _unreadable("more follows the file")

    def digest(self) -> Digest:
        if not self._ended or self._waiting.removesuffix(b"\r\n") != self._delimiter + b"--":
            raise _unreadable("the file is cut off")
        return Digest(self._hash.hexdigest())

    def _begin(self) -> None:
        head, end, rest = self._waiting.partition(b"\r\n\r\n")
        if len(head) > MAX_HEAD:
            raise _unreadable("what stands before the file is too long")
        if not end:
            return
        field = _FIELD.search(head)
        if not head.startswith(self._delimiter + b"\r\n") or field is None:
            raise _unreadable("it has other fields than its page")
        if not field[1]:
            raise _unreadable("no file was chosen")
        self._begun, self._waiting = True, rest

    def _take(self) -> None:
        """Hash what is certainly of the file: the rest may be the beginning of a boundary."""
        at = self._waiting.find(self._delimiter)
        self._ended = at >= 0
        taken = at if self._ended else max(0, len(self._waiting) - len(self._delimiter) + 1)
        self._size += taken
        if self._size > MAX_FILE:
            why = f"more than {MAX_FILE} bytes; hash it yourself, and put in the digest"
            raise Malformed("the file is too large", why=why, hint="sha256sum FILE", code="BODY-TOO-LARGE")
        self._hash.update(self._waiting[:taken])
        self._waiting = self._waiting[taken:]


def _unreadable(why: str) -> Malformed:
    return Malformed("the form cannot be read", why=why, code="FORM")
