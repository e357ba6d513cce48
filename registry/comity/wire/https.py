"""HTTPS between those who pin each other's certificates: the same rule as for gRPC, for ranges of blobs.

Equal bytes of the certificate, or a stranger. No authority, host name or validity is looked at: the node-record says
which certificate a node shows, and integrity comes from hashes. The client half is blocking, for threads.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from comity.trust.digest import sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Unavailable
from comity.wire.address import Address
from comity.wire.certs import Pin, TlsIdentity

_TARGET: Final = re.compile(r"/[!-~]*", re.ASCII)
_EXPIRED: Final = frozenset({401, 403, 410})


def server_context(identity: TlsIdentity) -> ssl.SSLContext:
    """For a server that shows the node's certificate, as the open port does. TLS 1.3 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    key, chain = identity.pem()
    # OpenSSL's binding reads files only; this one is in memory, without a name, and gone at the end of the block.
    with os.fdopen(os.memfd_create("comity-tls", os.MFD_CLOEXEC), "wb") as file:
        file.write(key + chain)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    return context


@dataclass(frozen=True, slots=True)
class RangeUrl:
    """Where one blob is to be had by ranges, over HTTPS. The target is a secret: it is in no error and no `repr`."""

    address: Address
    target: str

    @classmethod
    def parse(cls, url: str) -> RangeUrl:
        """Raises Malformed for anything but `https://host[:port]/path[?query]`; a node says what it likes."""
        try:
            parts = urlsplit(url)
            port = 443 if parts.port is None else parts.port
        except ValueError as error:
            raise Malformed("not a location", why="it is no URL") from error
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        if parts.scheme != "https" or "@" in parts.netloc or parts.fragment or not _TARGET.fullmatch(target):
            raise Malformed("not a location", why="expected https://host/path")
        host = parts.hostname or ""
        return cls(Address.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), target)

    def __repr__(self) -> str:
        return f"<RangeUrl at {self.address}>"


class RangeClient:
    """One connection, for one request at a time; made with the first, and again where it was lost. Blocking.

    Args:
        pin: the certificate that the other side has to show; None for a service that an authority of this machine's
            vouches for.
        patience: seconds without a byte after which it has failed.
    """

    def __init__(self, address: Address, pin: Pin | None, *, patience: float) -> None:
        self.address = address
        self.pin = pin
        self._connection = _Pinned(address, pin, patience)
        self._response: http.client.HTTPResponse | None = None

    def begin(self, url: RangeUrl, offset: int, length: int, most: int) -> bytes:
        """Ask for one range, and give its first bytes, at most `most`; `read` gives the others.

        Raises Unavailable (CONNECTION, HTTP), Refused (PIN-MISMATCH, URL-EXPIRED), NotFound, and Malformed (RANGE)
        where the answer is not that range.
        """
        if not self._asked_again(url, offset, length):
            with self._losses():
                self._ask(url, offset, length)
        return self.read(most)

    def read(self, most: int) -> bytes:
        """The next bytes of the range, none at its end. Raises Unavailable (CONNECTION)."""
        assert self._response is not None, "a range is read once its answer has begun"
        with self._losses():
            return self._response.read(most)

    def abort(self) -> None:
        """Give up what another thread is waiting for; it gets an error, and nothing more can be asked. `close` then."""
        self._connection.abort()

    def close(self) -> None:
        """Not while another thread is at work here."""
        self._connection.close()

    def _asked_again(self, url: RangeUrl, offset: int, length: int) -> bool:
        """Ask on the connection that is there, if it still is: both sides end those that are idle."""
        if self._connection.sock is None:
            return False
        try:
            self._ask(url, offset, length)
        except (http.client.HTTPException, OSError):
            self.close()
            return False
        return True

    @contextlib.contextmanager
    def _losses(self) -> Iterator[None]:
        try:
            yield
        except (http.client.HTTPException, OSError) as error:
            self.close()
            raise _lost(self.address, error) from error

    def _ask(self, url: RangeUrl, offset: int, length: int) -> None:
        wanted = {"Range": f"bytes={offset}-{offset + length - 1}", "Accept-Encoding": "identity"}
        self._connection.request("GET", url.target, headers=wanted)
        response = self._connection.getresponse()
        try:
            _check(response, offset, length, self.address)
        except ComityError:
            response.close()
            self.close()
            raise
        self._response = response


class _Pinned(http.client.HTTPSConnection):
    """Compares the certificate before the first request is sent."""

    def __init__(self, address: Address, pin: Pin | None, patience: float) -> None:
        context = ssl.create_default_context() if pin is None else _context()
        super().__init__(address.host, address.port, timeout=patience, context=context)
        self._address = address
        self._pin = pin
        self._aborted = False

    def connect(self) -> None:
        super().connect()
        assert isinstance(self.sock, ssl.SSLSocket)
        if self._aborted:
            self.close()
            raise ConnectionAbortedError("given up")
        shown = self.sock.getpeercert(binary_form=True) or b""
        if self._pin is not None and shown != self._pin.certificate:
            self.close()
            why = f"it shows certificate {short(sha256(shown))}, pinned is {short(sha256(self._pin.certificate))}"
            raise Refused(f"{self._address} is not the node that was pinned", why=why, code="PIN-MISMATCH")

    def abort(self) -> None:
        self._aborted = True
        if self.sock is not None:
            with contextlib.suppress(OSError):  # past `ssl`, whose own method also frees what the other thread uses
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _check(response: http.client.HTTPResponse, offset: int, length: int, address: Address) -> None:
    status = response.status
    if status in _EXPIRED:
        raise Refused("the location is no longer valid", why=f"{address} answers {status}", code="URL-EXPIRED")
    if status == 404:
        raise NotFound("the blob is not here", why=f"{address} answers {status}")
    if status == 429 or status >= 500:
        raise Unavailable("not served now", why=f"{address} answers {status}", code="HTTP")
    given = response.getheader("Content-Range", "")
    if status != 206 or response.chunked or response.length != length:
        raise Malformed("not the range asked for", why=f"{address} answers {status} with another length", code="RANGE")
    if not given.startswith(f"bytes {offset}-{offset + length - 1}/"):
        raise Malformed("not the range asked for", why=f"{address} gives another one", code="RANGE")


def _lost(address: Address, error: Exception) -> Unavailable:
    """What went wrong, without the URL."""
    if isinstance(error, TimeoutError):
        why = "no answer in time"
    else:
        why = (error.strerror if isinstance(error, OSError) else "") or type(error).__name__
    return Unavailable(f"{address} was not reached", why=why, code="CONNECTION")
