"""Blobs by HTTPS ranges, beside a node's gRPC streams: from the node, or from a service that the node names.

The node gives the location over gRPC, in URLs that expire soon. They are hints: pieces are hashed as from any source.
A node shows its pinned certificate. Reading runs in threads of the source, so that a slow node does not delay hashing.

Loaded where files are fetched only: `http.client` and what it imports take a tenth of the start of a command.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from comity.transfer.sources import BlockingStream, SourceKey
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Unavailable
from comity.trust.frozen import frozen
from comity.wire.addresses import Address, RangeUrl
from comity.wire.blob import BlobLocation
from comity.wire.tls import CertificatePin

T = TypeVar("T")
MIN_RANGE_SIZE: Final = 16 * 1024 * 1024
"""Smallest file, in bytes, for which an HTTPS source is used: locating and connecting take round trips."""
CHUNK: Final = 1024 * 1024
READ_TIMEOUT: Final = 3.0
"""Seconds without a byte before a range request fails."""
LOCATE_TIMEOUT: Final = 1.0
"""Seconds to wait for a node's blob location; the transfer continues without it after that."""
THREADS: Final = 4
_KINDS: Final = ("https-range", "s3-presigned")
Locate: TypeAlias = Callable[[Digest], Awaitable[Sequence[BlobLocation]]]
"""Asks the node for the locations of a blob. Raises ComityError."""


class Permission(Protocol):
    """Decides about connections to the addresses that a node names. Thread-safe."""

    def connecting(self, address: Address) -> Address:
        """Where to connect for an address, before each connection. Blocking. Raises Refused, Unavailable."""

    def served(self) -> None:
        """The address of the newest connection serves the file."""


@frozen
class _Location:
    url: RangeUrl
    pin: CertificatePin | None


class RangeSource:
    """A `BlobSource` over HTTPS that leads to `host`, for blobs for which `find` returned true. `close` ends its
    connections and threads.

    Args:
        name: the display name of the host.
        permission: by default every address may be connected to.
    """

    def __init__(
        self, host: SourceKey, name: str, pin: CertificatePin, locate: Locate, permission: Permission | None = None
    ) -> None:
        self.key = SourceKey("https", f"{host.kind} {host.value}")
        self.name = f"{name} over https"
        self.host = host
        self._host_name = name
        self._pin = pin
        self._locate = locate
        self._permission = permission
        self._unavailable = False
        self._locations: dict[Digest, tuple[_Location, ...]] = {}
        self._unreachable: set[Address] = set()
        self._idle: list[RangeClient] = []
        self._spared = permission is not None
        self._closed = False
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="range")

    async def find(self, digest: Digest) -> bool:
        """Whether the node gives a location for this blob. After an error, a timeout or no location, the node is not
        asked again."""
        if not self._unavailable:
            try:
                async with asyncio.timeout(LOCATE_TIMEOUT):
                    await self._look_up(digest)
            except (ComityError, TimeoutError):
                self._unavailable = True
        return not self._unavailable

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """As `BlobSource.read`."""
        async with self.open(digest, offset, length, READ_TIMEOUT) as stream:
            while length:
                buffer = bytearray(min(CHUNK, length))
                await stream.run(partial(stream.fill, memoryview(buffer), lambda count: None))
                length -= len(buffer)
                yield bytes(buffer)

    @asynccontextmanager
    async def open(
        self, digest: Digest, offset: int, length: int, read_timeout: float
    ) -> AsyncIterator[BlockingStream]:
        """As `BlockingSource.open`. An expired location is requested again, once."""
        try:
            stream = await self._begin(digest, offset, length, read_timeout)
        except Refused as error:
            if error.code != "URL-EXPIRED":
                raise
            await self._look_up(digest)
            stream = await self._begin(digest, offset, length, read_timeout)
        try:
            yield stream
        finally:
            if stream.whole:
                stream.client.done()
                self._idle.append(stream.client)
            else:
                stream.abandon()

    def close(self) -> None:
        self._closed = True
        for client in self._idle:
            client.close()
        self._idle.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, digest: Digest) -> None:
        """Ask the node for locations. Raises ComityError: NotFound (NO-LOCATION) if none can be used."""
        places = tuple(place for location in await self._locate(digest) if (place := self._place(location)))
        if not places:
            raise NotFound("no HTTPS location of the blob", why=f"{self._host_name} gives none", code="NO-LOCATION")
        reachable = tuple(place for place in places if place.url.address not in self._unreachable)
        self._locations[digest] = reachable or places

    def _place(self, location: BlobLocation) -> _Location | None:
        """None if it cannot be used, such as the plain HTTP of a bucket beside its node."""
        if location.kind not in _KINDS:
            return None
        try:
            url = RangeUrl.parse(location.url)
        except Malformed:
            return None
        return _Location(url, self._pin if location.kind == "https-range" else None)

    async def _begin(self, digest: Digest, offset: int, length: int, read_timeout: float) -> _RangeAnswer:
        """Begin at the first place, at another one where that does not answer: some reach a bucket, and others only
        the node."""
        while True:
            places = self._locations[digest]
            try:
                return await self._begin_at(places[0], offset, length, read_timeout)
            except Unavailable:
                if len(places) == 1:
                    raise
                self._unreachable.add(places[0].url.address)
                if self._locations[digest] is places:
                    self._locations[digest] = places[1:]

    async def _begin_at(self, place: _Location, offset: int, length: int, read_timeout: float) -> _RangeAnswer:
        stream = _RangeAnswer(self._client(place), self._threads, length)
        try:
            await stream.ask(place.url, offset, read_timeout)
        except BaseException:
            stream.abandon()
            raise
        self._connect_spare(place, read_timeout)
        return stream

    def _connect_spare(self, place: _Location, read_timeout: float) -> None:
        """Connect once more, once, for the request that begins while this one ends: a handshake takes several round
        trips, and longer beside a stream that fills the link. Not where connections are counted."""
        if self._spared or self._idle:
            return
        self._spared, client = True, RangeClient(place.url.address, place.pin)

        def connected(ended: asyncio.Future[None]) -> None:
            if self._closed or ended.cancelled() or job.cancelled() or job.exception():
                client.close()
            else:
                self._idle.append(client)

        job = self._threads.submit(client.connect, read_timeout)
        _end_of(job).add_done_callback(connected)

    def _client(self, place: _Location) -> RangeClient:
        for client in self._idle:
            if (client.address, client.pin) == (place.url.address, place.pin):
                self._idle.remove(client)
                return client
        return RangeClient(place.url.address, place.pin, self._permission)


async def sources_with_blob(sources: Iterable[RangeSource], digest: Digest, size: int) -> list[RangeSource]:
    """The `sources` that have a blob of `size` bytes; empty below MIN_RANGE_SIZE."""
    asked = tuple(sources) if size >= MIN_RANGE_SIZE else ()
    found = await asyncio.gather(*(source.find(digest) for source in asked))
    return [source for source, there in zip(asked, found, strict=True) if there]


class _RangeAnswer:
    """One open range request: a `BlockingStream`."""

    def __init__(self, client: RangeClient, threads: ThreadPoolExecutor, length: int) -> None:
        self.client = client
        self._threads = threads
        self._left = length
        self._work: Future[Any] = Future()
        self._work.set_result(None)

    @property
    def whole(self) -> bool:
        """Whether the whole range was read, so that the connection can be reused."""
        return not self._left

    async def ask(self, url: RangeUrl, offset: int, read_timeout: float) -> None:
        """Send the request; returns when the answer begins. If cancelled, does not wait for a slow connection."""
        self._work = self._threads.submit(self.client.ask, url, offset, self._left, read_timeout)
        await asyncio.wrap_future(self._work)

    def fill(self, view: memoryview, arrived: Callable[[int], None]) -> None:
        if len(view) > self._left:
            raise Unavailable("wrong length", why="the answer is too short", code="WRONG-LENGTH")
        self.client.fill(view, arrived)
        self._left -= len(view)

    async def run(self, work: Callable[[], T]) -> T:
        self._work = job = self._threads.submit(work)
        ended = _end_of(job)
        try:
            await ended
        except asyncio.CancelledError:
            self.client.abort()
            if not job.cancel():  # its thread gets an error soon
                await _end_of(job)
            raise
        return job.result()

    def abandon(self) -> None:
        """Abort the request; the connection is closed when its thread has ended."""
        self.client.abort()
        self._work.cancel()
        self._work.add_done_callback(lambda _: self.client.close())


def _end_of(job: Future[Any]) -> asyncio.Future[None]:
    """A future that is done when `job` has ended, however. Fewer turns of the event loop than `wrap_future`."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def set_ended() -> None:
        if not ended.done():
            ended.set_result(None)

    def wake(_: Future[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(set_ended)

    job.add_done_callback(wake)
    return ended


_EXPIRED: Final = frozenset({401, 403, 410})
_TOLD: Final = 64 * 1024
"""Bytes after which `RangeClient.fill` tells what arrived: the scheduler counts no less."""


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
        self._response: http.client.HTTPResponse | None = None
        self._buffered = False

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
        if not self._reuse_connection(url, offset, length):
            with self._connection_errors():
                self._request(url, offset, length)

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
        """The whole answer was read: the connection may be used again."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def abort(self) -> None:
        """Abort the request of another thread, which gets an error. After this only `close` may be called."""
        self._connection.abort()

    def close(self) -> None:
        """Close the connection. Must not be called while another thread uses it."""
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
        wanted = {"Range": f"bytes={offset}-{offset + length - 1}", "Accept-Encoding": "identity"}
        self._connection.request("GET", url.target, headers=wanted)
        response = self._connection.getresponse()
        try:
            _check(response, offset, length, self.address)
        except ComityError:
            response.close()
            self.close()
            raise
        self._connection.settle()
        self._response, self._buffered = response, True


class _PinnedConnection(http.client.HTTPSConnection):
    """Checks the certificate before it sends the first request."""

    def __init__(self, address: Address, pin: CertificatePin | None, permission: Permission | None) -> None:
        context = ssl.create_default_context() if pin is None else _http_context()
        super().__init__(address.host, address.port, context=context)
        self._address = address
        self._pin = pin
        self._permission = permission
        self._unsettled = False
        self._aborted = False
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
        if self._unsettled and self._permission is not None:
            self._permission.served()
        self._unsettled = False

    def _permitted(self, _: object, *given: Any) -> socket.socket:
        target = self._address
        if self._permission is not None:
            target = self._permission.connecting(self._address)
            self._unsettled = True
        return socket.create_connection((target.host, target.port), *given)

    def abort(self) -> None:
        self._aborted = True
        if self.sock is not None:
            # Not `SSLSocket.shutdown`, which also frees objects that the other thread uses.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


def _http_context() -> ssl.SSLContext:
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
