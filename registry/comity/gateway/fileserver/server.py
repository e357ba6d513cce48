"""The file server: verified blobs over HTTP/1.1 by signed URLs, one server for stock clients and one for peers.

One thread per connection, because `sendfile`, hashing and encryption run outside the interpreter lock
(bench/gateway.py); one more thread checks the deadlines. A connection uses a slot from accept on; if all are used,
`FairShares` selects the connection to close, so that one address block cannot block the others. Memory for the pieces
of a remote store is shared in the same way. The first part of a
blob is verified before the response starts, so a corrupt blob is a 503. A later error closes the connection: the client
sees a short response without any byte of the corrupt piece. The signer of a URL decides about access; this module knows
no names, artifacts or tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import field
from functools import partial
from typing import Final, Literal, Protocol
from urllib.parse import urlsplit

import structlog

from comity.gateway.fileserver.http1 import (
    HEADERS_END,
    MAX_HEAD,
    ClientSocket,
    Deadline,
    FileRequest,
    PlainClientSocket,
    SignedUrls,
    TlsClientSocket,
    error_bytes,
    file_response,
    parse,
    peer_of,
)
from comity.gateway.fileserver.verified import BlobReader, FilePart, Hashed, PieceRecords, VerifiedBlobs
from comity.gateway.http_listener import tls_context
from comity.ledger.piece_records import PieceRecordTable
from comity.node.home import OpenedHome, ServedHome
from comity.node.listeners import connection_limits
from comity.node.metrics import LOCATION_SECONDS, Metrics, ServedBytes
from comity.rules.pieces import FIXED_LAYOUT, TENSOR_LAYOUT
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, Unavailable
from comity.trust.frozen import frozen
from comity.wire.access import undeclared
from comity.wire.addresses import address_block
from comity.wire.blob import BlobLocation
from comity.wire.draining import Draining
from comity.wire.throttle import FairShares
from comity.wire.tls import server_context

HEAD_SECONDS: Final = 10.0
"""Seconds from the first byte of a request to the end of its head."""
DISK_SECONDS: Final = 3600.0
"""Seconds from there to the first byte of the response; a blob without piece records must be hashed first."""
IDLE: Final = 30.0
"""Seconds until the first byte of a request."""


@frozen
class RequestRecord:
    """One finished request, for log and counters. `code`: why it was refused or aborted; `peer`: the node that got the
    URL, empty if none; `host`: the origin of the request."""

    host: str
    peer: str
    blob: Digest | None
    status: int
    asked: int
    sent: int
    code: str
    ended: bool = False
    """Whether the last byte of the blob was sent."""


class FileAccess(Protocol):
    """Who may read at a file server."""

    @property
    def who(self) -> str: ...

    def require(self, target: str) -> Digest:
        """Return the blob that a path and query open. Raise Refused unless the request may be answered."""


@frozen
class SignedAddresses:
    """Lets holders of an address that `urls` signed read what it names. Raises as `SignedUrls.check`."""

    urls: SignedUrls
    who: Literal["holders of a signed address"] = "holders of a signed address"

    def require(self, target: str) -> Digest:
        return self.urls.check(target)


@frozen
class FileSite:
    """What connections serve, and who may read it: without a declaration nobody. `on_request` is called for every
    request, from the thread of the connection."""

    access: FileAccess | None
    verified: VerifiedBlobs
    on_request: Callable[[RequestRecord], None]
    draining: Draining = field(default_factory=Draining)


class FileConnection:
    """Serves one client over `client` until it disconnects, is refused, or is too slow."""

    def __init__(self, site: FileSite, client: ClientSocket, host: str, reader: BlobReader) -> None:
        self._site = site
        self._client = client
        self._host = host
        self._reader = reader
        self._buffer = b""

    def serve(self) -> None:
        """Raises OSError if the client disconnected, or is too slow."""
        while (head := self._head()) is not None:
            if not _FileExchange(self._site, self._client, self._host, self._reader).answer(head):
                return

    def _head(self) -> bytes | None:
        """Return the head of the next request; None if the client disconnected."""
        self._client.deadline.within(HEAD_SECONDS if self._buffer else IDLE)
        while (end := self._buffer.find(HEADERS_END)) < 0:
            if len(self._buffer) >= MAX_HEAD:
                self._client.send(
                    error_bytes(Malformed("the request is too large", why=f"over {MAX_HEAD} bytes of head"))[1]
                )
                return None
            first = not self._buffer
            data = self._client.receive(MAX_HEAD - len(self._buffer))
            if not data:
                return None
            self._buffer += data
            if first:
                self._client.deadline.within(HEAD_SECONDS)
        head, self._buffer = self._buffer[:end], self._buffer[end + len(HEADERS_END) :]
        return head


class _FileExchange:
    """One request and its response."""

    def __init__(self, site: FileSite, client: ClientSocket, host: str, reader: BlobReader) -> None:
        self._site = site
        self._client = client
        self._host = host
        self._reader = reader
        self._blob: Digest | None = None
        self._peer = ""
        self._status = self._asked = self._sent = 0
        self._code = "GONE"
        self._ended = False

    def answer(self, head: bytes) -> bool:
        """Answer the request; returns whether the connection may be kept."""
        request: FileRequest | None = None
        self._client.deadline.within(DISK_SECONDS)
        try:
            request = parse(head)
            if self._site.access is None:
                raise undeclared("read files at this address")
            self._blob = self._site.access.require(request.target)
            self._peer = peer_of(request.target)
            with self._site.draining.counted(self._reader.abort):
                self._open(request, self._blob)
            self._code = ""
            return request.keep_alive and not self._site.draining.begun
        except ComityError as error:
            self._code = error.code
            if not self._status:
                self._status, data = error_bytes(error, body=request is None or request.method != "HEAD")
                self._client.send(data)
            return False
        finally:
            self._site.on_request(
                RequestRecord(
                    self._host,
                    self._peer,
                    self._blob,
                    self._status,
                    self._asked,
                    self._sent,
                    self._code,
                    self._ended,
                )
            )

    def _open(self, request: FileRequest, digest: Digest) -> None:
        with self._site.verified.blob(digest, self._reader) as blob:
            response = file_response(request, digest, blob.size)
            parts = blob.parts(response.span.offset, response.span.length)
            first = next(parts, None)
            self._status, self._asked = response.status, response.span.length
            self._client.send(response.head, more=first is not None)
            for part in itertools.chain(() if first is None else (first,), parts):
                self._send(part)
            self._ended = self._sent > 0 and response.span.offset + self._sent == blob.size

    def _send(self, part: FilePart | memoryview) -> None:
        if isinstance(part, FilePart):
            self._client.send_file(part)
            self._sent += part.length
        else:
            self._client.send(part)
            self._sent += len(part)


CONNECTIONS: Final = 1024
HANDSHAKE: Final = 10.0
LINGER: Final = 1.0
"""Seconds that a client has to read an error response, while its further input is discarded."""
BACKLOG: Final = 256
DEADLINE_CHECK_INTERVAL: Final = 0.5
"""Seconds between two checks of the deadlines."""
CLOSING_SECONDS: Final = 5.0
"""Seconds to wait for threads when the server stops."""

_log: Final = structlog.get_logger("comity.gateway.fileserver.server")


@frozen
class _Client:
    thread: threading.Thread
    deadline: Deadline


class BlobServer:
    """Serves `site` at one address, over TLS if there is a context. `close` closes every connection."""

    def __init__(
        self,
        site: FileSite,
        address: tuple[str, int],
        *,
        tls: ssl.SSLContext | None = None,
        connections: int = CONNECTIONS,
    ) -> None:
        """Listen and start. Raises Unavailable (LISTEN).

        Args:
            connections: maximum number of connections. Each has a thread, three open files, and a buffer of 256 KiB
                while it hashes or, with TLS, while it sends.
        """
        self._site = site
        self._tls = tls
        self._lock = threading.Lock()
        self._clients: dict[socket.socket, _Client] = {}
        self._shares: FairShares[socket.socket] = FairShares(connections, time.monotonic)
        self._closing = threading.Event()
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            self._listener = socket.create_server(address, family=family, backlog=BACKLOG)
        except OSError as error:
            hint = "choose another address in node.toml, or stop the program that listens there"
            why = error.strerror or str(error)
            raise Unavailable(
                f"cannot listen on {address[0]}:{address[1]}", why=why, hint=hint, code="LISTEN"
            ) from error
        self.port: int = self._listener.getsockname()[1]
        self._threads = [
            threading.Thread(target=work, name="blobs", daemon=True) for work in (self._accept, self._check_deadlines)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop listening, close every connection, and wait for the threads. Blocking, for a few seconds at most."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()
        with self._lock:
            threads = [client.thread for client in self._clients.values()]
        self._shut_expired(float("inf"))
        ends = time.monotonic() + CLOSING_SECONDS
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, address = self._listener.accept()
            except OSError as error:
                if not self._closing.is_set():  # for example no more file descriptors: wait for connections to end
                    _log.warning("accept failed", why=str(error))
                    time.sleep(0.1)
                continue
            self._start(client, str(address[0]))

    def _check_deadlines(self) -> None:
        while not self._closing.wait(DEADLINE_CHECK_INTERVAL):
            self._shut_expired(time.monotonic())

    def _shut_expired(self, now: float) -> None:
        """Shut down connections whose deadline is before `now`; their threads get an error."""
        with self._lock:
            for client, known in self._clients.items():
                if known.deadline.at < now:
                    _shut(client)

    def _start(self, client: socket.socket, host: str) -> None:
        block = address_block(host)
        reader = BlobReader(block, partial(_shut, client))
        deadline = Deadline(lambda: self._progress(client, reader))
        deadline.within(HANDSHAKE)
        with self._lock:
            evicted = self._shares.acquire(client, block)
            if evicted is not client:
                work = (client, host, deadline, reader)
                thread = threading.Thread(target=self._serve, args=work, name="blob", daemon=True)
                self._clients[client] = _Client(thread, deadline)
                if evicted is not None:
                    _shut(evicted)
        if evicted is client:
            client.close()
            return
        try:
            thread.start()
        except RuntimeError as error:  # no more threads
            _log.warning("accept failed", why=str(error))
            self._end(client)

    def _progress(self, client: socket.socket, reader: BlobReader) -> None:
        with self._lock:
            self._shares.progress(client)
        self._site.verified.memory.progress(reader)

    def _serve(self, client: socket.socket, host: str, deadline: Deadline, reader: BlobReader) -> None:
        """Run one connection in its thread. An unexpected error is logged and ends only this connection."""
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is None:
                FileConnection(self._site, PlainClientSocket(client, deadline), host, reader).serve()
                deadline.within(LINGER)
                _linger(client)
            else:
                self._encrypted(self._tls, client, host, deadline, reader)
        except OSError:
            pass  # disconnected, or too slow
        except Exception:
            _log.exception("connection failed")
        finally:
            self._end(client)

    def _encrypted(
        self, tls: ssl.SSLContext, client: socket.socket, host: str, deadline: Deadline, reader: BlobReader
    ) -> None:
        with tls.wrap_socket(client.dup(), server_side=True) as wrapped:
            FileConnection(self._site, TlsClientSocket(wrapped, deadline), host, reader).serve()
            deadline.within(LINGER)
            wrapped.unwrap()

    def _end(self, client: socket.socket) -> None:
        with self._lock:
            del self._clients[client]
            self._shares.release(client)
        client.close()


def _shut(client: socket.socket) -> None:
    """End a connection; its thread gets an error, and closes the socket."""
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)


def _linger(client: socket.socket) -> None:
    """Let the client read the last response: closing with unread input would discard it."""
    client.shutdown(socket.SHUT_WR)
    while client.recv(64 * 1024):
        pass


DIGITS: Final = 12
"""Number of digits of the digest of a blob in the log: enough to find it, too few for a URL."""


@frozen
class FileRoutes:
    """Verified bytes for the routes of the gateway.

    `verified` reads blobs for a route that streams by itself; `urls` signs URLs of the file server at `address`: scheme
    and authority, without a host if clients use the same host as for the gateway (`https://:7481`); empty if there is
    none.
    """

    verified: VerifiedBlobs
    urls: SignedUrls
    address: str

    def location(self, digest: Digest, *, host: str, name: str = "", seconds: float = LOCATION_SECONDS) -> str:
        """Return the redirect URL for a client that used `host` (a name or address, IPv6 in brackets)."""
        where = urlsplit(self.address)
        authority = f"{host}:{where.port}" if not where.hostname else where.netloc
        return f"{where.scheme}://{authority}{self.urls.sign(digest, seconds=seconds, name=name)}"


@asynccontextmanager
async def serve_files(home: OpenedHome, lost: Callable[[], None]) -> AsyncIterator[FileRoutes]:
    """Serve the blobs of the node at the configured addresses, while the block lasts. `lost` is called on this event
    loop when a corrupt blob was quarantined.

    Raises Unavailable (LISTEN); NotFound and Malformed for the certificate and key of the gateway.
    """
    loop, settings, metrics = asyncio.get_running_loop(), home.config.gateway, home.metrics

    def damaged(digest: Digest, why: str) -> None:
        metrics.verify_failures.labels("blob").inc()
        _log.error("corrupt blob quarantined", blob=digest, why=why)
        with suppress(RuntimeError):  # the event loop has ended
            loop.call_soon_threadsafe(lost)

    verified = VerifiedBlobs(home.store, LedgerRecords(home.ledger.tables.pieces), damaged, count_hashed(metrics))
    urls = SignedUrls(secrets.token_bytes(32), home.clock)
    async with AsyncExitStack() as stack:

        def begin(address: str, listener: str, tls: ssl.SSLContext | None) -> str:
            """Start a server and return its authority."""
            host, _, port = address.rpartition(":")
            server = BlobServer(
                FileSite(
                    SignedAddresses(urls),
                    verified,
                    partial(_record_request, metrics, home.served, loop, listener),
                    home.draining,
                ),
                (host.strip("[]"), int(port)),
                tls=tls,
                connections=connection_limits().blobs,
            )
            stack.push_async_callback(asyncio.to_thread, server.close)
            return f"{host}:{server.port}"

        files = ""
        if settings.files:
            tls = tls_context(settings)
            port = begin(settings.files, "files", tls).rpartition(":")[2]
            files = settings.files_url or f"{'https' if tls else 'http'}://:{port}"
        if settings.ranges:
            listening_at = begin(settings.ranges, "ranges", server_context(home.keys.tls))
            base = settings.ranges_url or f"https://{_authority(home.config.advertise.open, listening_at)}"
            stack.enter_context(
                home.locations.registered(
                    lambda digest, peer: BlobLocation(
                        "https-range", base + urls.sign(digest, seconds=LOCATION_SECONDS, peer=peer)
                    )
                )
            )
        yield FileRoutes(verified, urls, files)


def read_files(home: ServedHome) -> FileRoutes:
    """Read the blobs of a store that another process owns, and serve them at no address of their own: a signed URL of
    one front end would mean nothing to another."""

    def damaged(digest: Digest, why: str) -> None:
        home.metrics.verify_failures.labels("blob").inc()
        _log.error("corrupt blob", blob=digest, why=why)

    records, hashed = LedgerRecords(home.ledger.tables.pieces), count_hashed(home.metrics)
    verified = VerifiedBlobs(home.store, records, damaged, hashed, quarantines=False)
    return FileRoutes(verified, SignedUrls(secrets.token_bytes(32), home.clock), "")


def count_hashed(metrics: Metrics) -> Hashed:
    """What counts hashed bytes."""

    def hashed(what: Literal["piece", "whole"], count: int) -> None:
        metrics.hashed_bytes.labels(what).inc(count)

    return hashed


def _authority(advertised: Sequence[str], listening_at: str) -> str:
    """Return the authority for other machines of a server at `listening_at`: its port, and the advertised host of the
    node."""
    host = next((address.rpartition(":")[0] for address in advertised), listening_at.rpartition(":")[0])
    return f"{host}:{listening_at.rpartition(':')[2]}"


class LedgerRecords(PieceRecords):
    """Piece records of the ledger, in any layout."""

    def __init__(self, pieces: PieceRecordTable) -> None:
        self._pieces = pieces

    def of(self, digest: Digest) -> bytes | None:
        found = (self._pieces.records(digest, layout) for layout in (TENSOR_LAYOUT, FIXED_LAYOUT))
        return next((records for records in found if records is not None), None)

    def keep(self, digest: Digest, size: int, records: bytes) -> None:
        _log.info("hashed a blob without piece records", blob=digest, size=size)
        try:
            self._pieces.store_records(digest, size, FIXED_LAYOUT, records)
        except ComityError as error:
            _log.warning("piece records were not stored", blob=digest, why=str(error))


def _record_request(
    metrics: Metrics, served: ServedBytes, loop: asyncio.AbstractEventLoop, listener: str, record: RequestRecord
) -> None:
    """Log one request and update counters. Thread-safe. Neither the URL nor the full digest is logged."""
    metrics.served_bytes.labels(record.peer or listener).inc(record.sent)
    if record.blob and record.sent:
        with suppress(RuntimeError):  # the event loop has ended
            loop.call_soon_threadsafe(served.count, record.peer or record.host, record.blob, record.sent)
            if record.ended and not record.peer:
                loop.call_soon_threadsafe(served.ended, record.blob)
    _log.info(
        "blob served",
        listener=listener,
        peer=record.peer,
        host=record.host,
        blob=(record.blob or "")[:DIGITS],
        status=record.status,
        asked=record.asked,
        sent=record.sent,
        code=record.code,
    )
