"""Requests to webhooks: which URL may be one, its secret, the signature, and the request itself.

Requests are signed as Standard Webhooks say: HMAC-SHA-256 over `id.timestamp.body`, in `webhook-signature: v1,…`. Who
configures a URL has the only say in where a request goes: no redirect is followed, no proxy of the environment is used.
`http://` is for a receiver on this machine only.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import ipaddress
import re
import socket
import ssl
import threading
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from comity.trust.encoding import b64decode
from comity.trust.errors import ComityError, Malformed, Unavailable

SECRET_PREFIX: Final = "whsec_"
LEAST_SECRET: Final = 24
MOST_SECRET: Final = 64
SECONDS: Final = 5.0
"""Seconds for which a receiver is waited for, at each step of a request."""
MAX_ANSWER: Final = 4096
"""Bytes of an answer that are read."""
_HOST: Final = re.compile(r"[A-Za-z0-9.\-]+\Z")


def check_url(url: str) -> None:
    """Raises Malformed (WEBHOOKS)."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise not_usable(f"the URL is not usable: {error}") from error
    if len(url) > 2_000 or not url.isascii() or not url.isprintable() or " " in url:
        raise not_usable("a URL has at most 2000 printable ASCII characters, without spaces")
    if parts.scheme not in ("https", "http") or parts.username is not None or parts.fragment or port == 0:
        raise not_usable("the URL must be https://host[:port]/path, without a user and a fragment")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        if not _HOST.match(host):
            raise not_usable("the URL has no host") from None
        loopback = host == "localhost"
    if parts.scheme == "http" and not loopback:
        raise not_usable("http:// is only for a receiver on this machine: others could read and change what is sent")


def parse_secret(data: bytes) -> bytes:
    """The key in a secret of the Standard Webhooks form. Raises Malformed (WEBHOOKS); the error has no part of the
    secret."""
    try:
        text = data.decode("ascii").strip()
        if not text.startswith(SECRET_PREFIX):
            raise ValueError
        key = b64decode(text.removeprefix(SECRET_PREFIX))
    except (ValueError, ComityError):
        raise not_usable(f"a secret is {SECRET_PREFIX} and base64") from None
    if not LEAST_SECRET <= len(key) <= MOST_SECRET:
        raise not_usable(f"the key of a secret has {LEAST_SECRET} to {MOST_SECRET} bytes")
    return key


def not_usable(why: str, hint: str = "comity explain WEBHOOKS") -> Malformed:
    return Malformed("the webhooks are not usable", why=why, hint=hint, code="WEBHOOKS")


def signature(key: bytes, message: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    mac = hmac.new(key, f"{message}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(mac).decode()}"


def message_id(body: bytes) -> str:
    """The value of `webhook-id`: the same at each attempt."""
    return f"msg_{hashlib.sha256(body).hexdigest()[:32]}"


def signed_headers(key: bytes, message: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a request whose body is a CloudEvent in JSON. `timestamp`: POSIX seconds, of this attempt."""
    return {
        "Content-Type": "application/cloudevents+json; charset=utf-8",
        "User-Agent": "comity",
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(key, message, timestamp, body),
    }


class Poster:
    """Posts to URLs, from several threads; `close` ends what is in progress. No redirect is followed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False

    def post(self, url: str, headers: dict[str, str], body: bytes) -> int:
        """Post once, and return the status of the answer. Blocking. Raises Unavailable (WEBHOOK)."""
        parts = urlsplit(url)
        connection = _connection(parts.scheme, parts.hostname or "", parts.port)
        opened: socket.socket | None = None
        try:
            connection.connect()
            with self._lock:
                opened = connection.sock  # an answer that closes its connection takes it from there
                self._open.add(opened)
                if self._closed:
                    raise ConnectionAbortedError("it was ended from here")
            connection.request("POST", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, headers)
            answer = connection.getresponse()
            answer.read(MAX_ANSWER)
            return answer.status
        except (OSError, http.client.HTTPException) as error:
            why = f"{type(error).__name__}: {error}"
            raise Unavailable("a webhook did not answer", why=why[:200], code="WEBHOOK") from error
        finally:
            with self._lock:
                self._open.discard(opened)
            connection.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for opened in self._open:
                with suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=SECONDS)
    return http.client.HTTPSConnection(host, port, timeout=SECONDS, context=ssl.create_default_context())
