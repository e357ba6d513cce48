"""Signed URLs: a path that opens one blob for a short while, for whoever has it.

    /blobs/<sha256>?until=<POSIX seconds>&name=<file name>&peer=<node name>&mac=<base64url>

`name` is what a browser should call the file, `peer` the node that was given the URL, for the accounts; both may be
missing. The MAC is HMAC-SHA256 over everything before it. The key is made when the process starts and is kept nowhere,
so that a restart ends every URL; whoever holds one gets a new one where it came from. A URL is a secret for as long as
it lives: it is never logged.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, unquote

from comity.trust.digest import Digest, parse_digest
from comity.trust.errors import Malformed, Refused

PREFIX: Final = "/blobs/"
KEY_BYTES: Final = 32
MAX_SECONDS: Final = 24 * 3600
MAX_NAME: Final = 255

_SIGNED: Final = re.compile(
    r"(?P<signed>/blobs/(?P<digest>[0-9a-f]{64})\?until=(?P<until>[0-9]{1,12})"
    r"(?:&name=(?P<name>[!-%'-~]{1,768}))?(?:&peer=(?P<peer>[!-%'-~]{1,768}))?)&mac=(?P<mac>[A-Za-z0-9_-]{43})",
    re.ASCII,
)


class Urls:
    """Signs URLs and checks them. Thread-safe.

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
        """Path and query that open the blob for `seconds`, at most a day. Raises Malformed for a `name` or `peer` of
        more than 255 bytes."""
        until = int(self._clock() + min(max(seconds, 1), MAX_SECONDS))
        signed = f"{PREFIX}{parse_digest(digest)}?until={until}"
        for key, value in (("name", name), ("peer", peer)):
            if len(value.encode()) > MAX_NAME:
                raise Malformed(f"{key} too long", why=f"a URL carries at most {MAX_NAME} bytes of it")
            signed += f"&{key}={quote(value, safe='')}" if value else ""
        return f"{signed}&mac={self._mac(signed)}"

    def check(self, target: str) -> Digest:
        """The blob that a request's path and query open. Raises Refused: URL-FORGED, URL-EXPIRED."""
        found = _SIGNED.fullmatch(target)
        if found is None or not hmac.compare_digest(found["mac"], self._mac(found["signed"])):
            why = "it was not signed by this process: somebody changed it, or the node has restarted since"
            raise Refused("this URL opens nothing", why=why, hint="ask for a new one", code="URL-FORGED")
        if int(found["until"]) < self._clock():
            raise Refused("this URL is no longer valid", why="it was short-lived", hint="ask anew", code="URL-EXPIRED")
        return Digest(found["digest"])

    def _mac(self, signed: str) -> str:
        return base64.urlsafe_b64encode(hmac.digest(self._key, signed.encode("ascii"), "sha256")).rstrip(b"=").decode()


def file_name(target: str) -> str:
    """The name that a URL, checked before, gives its file; empty where it gives none."""
    return _part(target, "name")


def given_to(target: str) -> str:
    """The peer that a URL, checked before, was given to; empty for strangers."""
    return _part(target, "peer")


def _part(target: str, key: str) -> str:
    found = _SIGNED.fullmatch(target)
    return unquote(found[key] or "", errors="replace") if found else ""
