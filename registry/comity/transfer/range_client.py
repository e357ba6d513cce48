"""One connection over which ranges of a blob come by HTTPS, one request at a time. Blocking.

Loaded where files are fetched only: `http.client` and what it imports take a tenth of the start of a command.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from comity.trust.encoding import sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Unavailable
from comity.wire.addresses import Address, RangeUrl
from comity.wire.tls import CertificatePin, unverified_context


class Permission(Protocol):
    """Decides about connections to the addresses that a node names. Thread-safe."""

    def connecting(self, address: Address) -> Address:
        """Where to connect for an address, before each connection. Blocking. Raises Refused, Unavailable."""

    def served(self) -> None:
        """The address of the newest connection serves the file."""


_EXPIRED: Final = frozenset({401, 403, 410})
_TOLD: Final = 64 * 1024
"""Bytes after which `RangeClient.fill` tells what arrived: the scheduler counts no less."""

PIPELINED: Final = 64 * 1024
"""Bytes of an answer, at least, beside which the next one is requested: more than the buffer through which its head is
read, so that no byte of the next answer gets into that."""


class RangeClient:
    """One connection, for one request at a time. Connects at the first request, and reconnects after a loss. Blocking.

    Args:
        pin: the certificate that the server must show; None for a service with a certificate of an authority that this
            machine trusts.
        permission: by default the address may be connected to.
    """

    def __init__(self, address: Address, pin: CertificatePin | None, permission: Permission | None = None) -> None:
        self.address = address
        self.pin = pin
        self._connection = _PinnedConnection(address, pin, permission)
        self._response: _Response | None = None
        self._buffered = False
        self._ahead: tuple[int, int] | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection; the server may have closed it."""
        return self._connection.sock is not None

    @property
    def settled(self) -> bool:
        """Whether the server is known to be the one that the node named, where connections to others are counted."""
        return not self._connection.unsettled

    @property
    def round_trip(self) -> float:
        """Seconds that the newest connection took to open, before TLS; 0 if there was none."""
        return self._connection.round_trip

    def connect(self, timeout: float) -> None:
        """Connect ahead of the first request. Raises as `ask` does."""
        self._connection.set_timeout(timeout)
        with self._connection_errors():
            self._connection.connect()

    def ask(self, url: RangeUrl, offset: int, length: int, timeout: float) -> None:
        """Request one range; returns when the answer begins. `fill` reads its bytes: exactly `length` of them.

        Args:
            timeout: seconds without data after which the request fails, now and in `fill`.

        Raises Unavailable (CONNECTION, HTTP), Refused (PIN-MISMATCH, URL-EXPIRED), NotFound, and Malformed (RANGE) if
        the answer is not that range.
        """
        self._connection.set_timeout(timeout)
        if self._ahead is not None:
            assert self._ahead == (offset, length), "the range that was asked for ahead comes next"
            self._ahead = None
            with self._connection_errors():
                self._receive_head(offset, length)
        elif not self._reuse_connection(url, offset, length):
            with self._connection_errors():
                self._request(url, offset, length)

    def ask_ahead(self, url: RangeUrl, offset: int, length: int) -> None:
        """Request one more range while the answer of the one before is read, so that no round trip is idle (RFC 9112,
        section 9.3.2). The next `ask` must be for it. At least `PIPELINED` bytes of the answer are still to be read.
        Does nothing if the server closes the connection after that answer. Raises Unavailable (CONNECTION)."""
        if self._response is not None and self._response.last:
            return
        with self._connection_errors():
            self._send(url, offset, length)
        self._ahead = offset, length

    def fill(self, view: memoryview, arrived: Callable[[int], None]) -> None:
        """Receive the next bytes of the answer into `view` without a copy, until it is full; `arrived` gets the number
        of each part, of a little more than 64 KiB at most. Raises Unavailable (CONNECTION), also if the answer ends."""
        response, socket_of = self._response, self._connection.sock
        assert response is not None and response.fp is not None and socket_of is not None, "call ask before fill"
        receive, size, filled, told = socket_of.recv_into, len(view), 0, 0
        try:
            with self._connection_errors():
                while filled < size:
                    rest = view[filled:]
                    if self._buffered:  # the head was read through a buffer, which may hold the first bytes
                        self._buffered = len(rest) < io.DEFAULT_BUFFER_SIZE
                        count = response.fp.readinto1(rest)
                    else:
                        count = receive(rest)  # 16 KiB at most: one record of TLS
                    if not count:
                        raise http.client.IncompleteRead(b"")
                    filled += count
                    if filled - told >= _TOLD:
                        arrived(filled - told)
                        told = filled
        finally:
            if filled > told:
                arrived(filled - told)

    def done(self) -> None:
        """The whole answer was read: the connection may be used again, if the server keeps it."""
        if self._response is not None:
            self._response.close()
            if self._response.last:
                self.close()
            self._response = None

    def abort(self) -> None:
        """Abort the request of another thread, which gets an error. After this only `close` may be called."""
        self._connection.abort()

    def close(self) -> None:
        """Close the connection. Must not be called while another thread uses it."""
        self._ahead = None
        self._connection.close()

    def _reuse_connection(self, url: RangeUrl, offset: int, length: int) -> bool:
        """Send the request on the existing connection. Returns False if it is closed: both sides close idle ones."""
        if self._connection.sock is None:
            return False
        try:
            self._request(url, offset, length)
        except (http.client.HTTPException, OSError):
            self.close()
            return False
        return True

    @contextlib.contextmanager
    def _connection_errors(self) -> Iterator[None]:
        try:
            yield
        except (http.client.HTTPException, OSError) as error:
            self.close()
            raise _connection_failed(self.address, error) from error

    def _request(self, url: RangeUrl, offset: int, length: int) -> None:
        self._send(url, offset, length)
        self._receive_head(offset, length)

    def _send(self, url: RangeUrl, offset: int, length: int) -> None:
        wanted = {"Range": f"bytes={offset}-{offset + length - 1}", "Accept-Encoding": "identity"}
        self._connection.request("GET", url.target, headers=wanted)

    def _receive_head(self, offset: int, length: int) -> None:
        response = self._connection.getresponse()
        assert isinstance(response, _Response)
        try:
            _check(response, offset, length, self.address)
        except ComityError:
            response.close()
            self.close()
            raise
        self._connection.settle()
        self._response, self._buffered = response, True


class _Response(http.client.HTTPResponse):
    """Leaves the socket to its connection, which reads from it and can abort. `http.client` would take it away from
    there when the server says that it closes the connection after this answer, which `last` says."""

    last = False

    def begin(self) -> None:
        super().begin()
        self.last, self.will_close = bool(self.will_close), False


class _PinnedConnection(http.client.HTTPSConnection):
    """Checks the certificate before it sends the first request."""

    response_class = _Response

    def __init__(self, address: Address, pin: CertificatePin | None, permission: Permission | None) -> None:
        context = ssl.create_default_context() if pin is None else unverified_context("http/1.1")
        super().__init__(address.host, address.port, context=context)
        self._address = address
        self._pin = pin
        self._permission = permission
        self.unsettled = False
        self._aborted = False
        self.round_trip = 0.0
        self._create_connection = self._permitted

    def set_timeout(self, timeout: float) -> None:
        """Seconds without data after which an operation fails."""
        self.timeout = timeout
        if self.sock is not None:
            self.sock.settimeout(timeout)

    def connect(self) -> None:
        super().connect()
        assert isinstance(self.sock, ssl.SSLSocket)
        if self._aborted:
            self.close()
            raise ConnectionAbortedError("aborted")
        shown = self.sock.getpeercert(binary_form=True) or b""
        if self._pin is not None and shown != self._pin.certificate:
            self.close()
            why = f"it shows certificate {short(sha256(shown))}, the pin is {short(sha256(self._pin.certificate))}"
            raise Refused(f"{self._address} is not the node that was pinned", why=why, code="PIN-MISMATCH")
        if self._pin is not None:
            self.settle()

    def settle(self) -> None:
        """The server is the one that the node named: the connection is not one to a stranger."""
        if self.unsettled and self._permission is not None:
            self._permission.served()
        self.unsettled = False

    def _permitted(self, _: object, *given: Any) -> socket.socket:
        target = self._address
        if self._permission is not None:
            target = self._permission.connecting(self._address)
            self.unsettled = True
        began = time.monotonic()
        connected = socket.create_connection((target.host, target.port), *given)
        self.round_trip = time.monotonic() - began
        return connected

    def abort(self) -> None:
        self._aborted = True
        if self.sock is not None:
            # Not `SSLSocket.shutdown`, which also frees objects that the other thread uses.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


def _check(response: http.client.HTTPResponse, offset: int, length: int, address: Address) -> None:
    status = response.status
    if status in _EXPIRED:
        raise Refused("the location is no longer valid", why=f"{address} answers {status}", code="URL-EXPIRED")
    if status == 404:
        raise NotFound("the node does not have the blob", why=f"{address} answers {status}")
    if status == 429 or status >= 500:
        raise Unavailable("not served at the moment", why=f"{address} answers {status}", code="HTTP")
    given = response.getheader("Content-Range", "")
    if status != 206 or response.chunked or response.length != length:
        raise Malformed("not the requested range", why=f"{address} answers {status} with another length", code="RANGE")
    if not given.startswith(f"bytes {offset}-{offset + length - 1}/"):
        raise Malformed("not the requested range", why=f"{address} sends another range", code="RANGE")


def _connection_failed(address: Address, error: Exception) -> Unavailable:
    """Returns the error of a connection, without the URL."""
    if isinstance(error, TimeoutError):
        why = "timed out"
    else:
        why = (error.strerror if isinstance(error, OSError) else "") or type(error).__name__
    return Unavailable(f"the connection to {address} failed", why=why, code="CONNECTION")
