"""One client: requests in, answers out, one after the other, until somebody has had enough.

The first part of a blob is verified before its answer begins, so that a damaged blob is a clear 503. What turns out
wrong later cuts the connection: the client sees an answer that is too short, and nothing of the wrong piece.


The listening socket of the blob server: a thread a connection, and no more of them than there is room for.

A place is held from the moment a connection is accepted; when all are taken, `FairShares` decides which connection is
cut, so that one address block cannot keep the others out.

Threads, because that is what file-server speed takes in Python: `sendfile`, hashing and encryption run outside the
interpreter's lock (bench/gateway.py). One more thread watches the deadlines of all.


The blob servers of a running node: one for stock clients, one for peers, over the same verified blobs.

Bytes of blobs over HTTP: a small file server beside the ASGI application, at the speed of one.

    urls        signed, short-lived URLs, each bound to one blob
    request     the head of a request: parsed or refused
    ranges      which bytes of a file a request asks for
    checked     bytes that are known to be right when they leave; cut, proofs: how that is known
    response    what a request is answered
    pipe        ways out of a socket, and the patience they have
    connection  one client: requests in, answers out, and how long that may take
    server      sockets, threads, and how many of each
    serving     the servers of a running node

Who may have a blob is decided by whoever signs its URL; names, artifacts and tokens are not known here.
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
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal
from urllib.parse import urlsplit

import structlog

from comity.gateway.fileserver.http1 import (
    HEADERS_END,
    MAX_HEAD,
    Deadline,
    FileRequest,
    Pipe,
    PlainPipe,
    SignedUrls,
    TlsPipe,
    given_to,
    parse,
    refusal,
    reply,
)
from comity.gateway.fileserver.verified import FilePart, PieceRecords, VerifiedBlobs
from comity.gateway.http import tls_context
from comity.ledger.records import PieceRecordTable
from comity.node.context import LIFETIME, NodeContext
from comity.node.listeners import connection_limits
from comity.trust.artifact import FIXED, TENSOR
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, Unavailable
from comity.wire.limits import FairShares
from comity.wire.messages import BlobLocation
from comity.wire.tls import address_block, server_context

HEAD_SECONDS: Final = 10.0
"""From the first byte of a request to the end of its head."""
DISK_SECONDS: Final = 3600.0
"""From there to the first byte of the answer: a blob whose piece records are gone has to be hashed as a whole, once."""
IDLE: Final = 30.0
"""Before the first byte of a request."""


@dataclass(frozen=True, slots=True)
class RequestRecord:
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
class FileSite:
    """What connections serve. `delivered` is told of every request, from the connection's thread."""

    urls: SignedUrls
    checked: VerifiedBlobs
    delivered: Callable[[RequestRecord], None]


class FileConnection:
    """Serves one client over `pipe` until it leaves, is refused, or is too slow."""

    def __init__(self, site: FileSite, pipe: Pipe, host: str) -> None:
        self._site = site
        self._pipe = pipe
        self._host = host
        self._ahead = b""

    def serve(self) -> None:
        """Raises OSError where the client is gone, or too slow."""
        while (head := self._head()) is not None:
            if not _FileExchange(self._site, self._pipe, self._host).answer(head):
                return

    def _head(self) -> bytes | None:
        """The next request's head; None where the client has left."""
        self._pipe.deadline.within(HEAD_SECONDS if self._ahead else IDLE)
        while (end := self._ahead.find(HEADERS_END)) < 0:
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
        head, self._ahead = self._ahead[:end], self._ahead[end + len(HEADERS_END) :]
        return head


class _FileExchange:
    """One request and its answer."""

    def __init__(self, site: FileSite, pipe: Pipe, host: str) -> None:
        self._site = site
        self._pipe = pipe
        self._host = host
        self._blob: Digest | None = None
        self._peer = ""
        self._status = self._asked = self._sent = 0
        self._code = "GONE"

    def answer(self, head: bytes) -> bool:
        """Whether the connection may go on."""
        request: FileRequest | None = None
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
                RequestRecord(self._host, self._peer, self._blob, self._status, self._asked, self._sent, self._code)
            )

    def _open(self, request: FileRequest, digest: Digest) -> None:
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


CONNECTIONS: Final = 1024
HANDSHAKE: Final = 10.0
LINGER: Final = 1.0
"""Seconds that a client has to read why it was refused, while what it still sends is thrown away."""
BACKLOG: Final = 256
WATCH: Final = 0.5
"""Seconds between two looks at the deadlines of all connections."""
CLOSING_SECONDS: Final = 5.0
"""Seconds that threads are waited for when the server ends."""

_log: Final = structlog.get_logger("comity.gateway.fileserver.server")


@dataclass(frozen=True, slots=True)
class _Client:
    thread: threading.Thread
    deadline: Deadline


class BlobServer:
    """Serves `site` at one address, over TLS where there is a context. `close` ends every connection."""

    def __init__(
        self,
        site: FileSite,
        address: tuple[str, int],
        *,
        tls: ssl.SSLContext | None = None,
        connections: int = CONNECTIONS,
    ) -> None:
        """Listen, and begin. Raises Unavailable (LISTEN).

        Args:
            connections: how many at once. Each has a thread, three open files, and a buffer of 256 KiB while it hashes
                or, with TLS, while it sends.
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
            hint = "choose another address in node.toml, or stop what listens there"
            why = error.strerror or str(error)
            raise Unavailable(
                f"cannot listen on {address[0]}:{address[1]}", why=why, hint=hint, code="LISTEN"
            ) from error
        self.port: int = self._listener.getsockname()[1]
        self._own = [threading.Thread(target=work, name="blobs", daemon=True) for work in (self._accept, self._watch)]
        for thread in self._own:
            thread.start()

    def close(self) -> None:
        """Stop listening, cut every connection, and wait for the threads. Blocking, for seconds at most."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._own:
            thread.join()
        with self._lock:
            threads = [client.thread for client in self._clients.values()]
        self._cut(float("inf"))
        ends = time.monotonic() + CLOSING_SECONDS
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, address = self._listener.accept()
            except OSError as error:
                if not self._closing.is_set():  # no more descriptors, for one: those who are served must end first
                    _log.warning("no connection was accepted", why=str(error))
                    time.sleep(0.1)
                continue
            self._begin(client, str(address[0]))

    def _watch(self) -> None:
        while not self._closing.wait(WATCH):
            self._cut(time.monotonic())

    def _cut(self, now: float) -> None:
        """End the connections that should have made a step by now: whoever waits for them gets an error."""
        with self._lock:
            for client, known in self._clients.items():
                if known.deadline.at < now:
                    with contextlib.suppress(OSError):
                        client.shutdown(socket.SHUT_RDWR)

    def _begin(self, client: socket.socket, host: str) -> None:
        deadline = Deadline(lambda: self._progress(client))
        deadline.within(HANDSHAKE)
        with self._lock:
            out = self._shares.take(client, address_block(host))
            if out is not client:
                work = (client, host, deadline)
                thread = threading.Thread(target=self._serve, args=work, name="blob", daemon=True)
                self._clients[client] = _Client(thread, deadline)
                if out is not None:
                    with contextlib.suppress(OSError):  # its thread notices, and closes it
                        out.shutdown(socket.SHUT_RDWR)
        if out is client:
            client.close()
            return
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            _log.warning("no connection was accepted", why=str(error))
            self._end(client)

    def _progress(self, client: socket.socket) -> None:
        with self._lock:
            self._shares.progress(client)

    def _serve(self, client: socket.socket, host: str, deadline: Deadline) -> None:
        """A thread's work. What breaks is logged and ends this connection only."""
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is None:
                FileConnection(self._site, PlainPipe(client, deadline), host).serve()
                deadline.within(LINGER)
                _linger(client)
            else:
                self._encrypted(self._tls, client, host, deadline)
        except OSError:
            pass  # it is gone, or too slow: its own affair
        except Exception:
            _log.exception("a connection broke")
        finally:
            self._end(client)

    def _encrypted(self, tls: ssl.SSLContext, client: socket.socket, host: str, deadline: Deadline) -> None:
        with tls.wrap_socket(client.dup(), server_side=True) as wrapped:
            FileConnection(self._site, TlsPipe(wrapped, deadline), host).serve()
            deadline.within(LINGER)
            wrapped.unwrap()

    def _end(self, client: socket.socket) -> None:
        with self._lock:
            del self._clients[client]
            self._shares.give_back(client)
        client.close()


def _linger(client: socket.socket) -> None:
    """Let the client read what it was sent last: closing over unread requests would take it back."""
    client.shutdown(socket.SHUT_WR)
    while client.recv(64 * 1024):
        pass


DIGITS: Final = 12
"""Of a blob's digest, in the log: enough to find it, too few for a URL."""


@dataclass(frozen=True, slots=True)
class FileRoutes:
    """Verified bytes for the gateway's routes.

    `checked` gives them to a route that answers by itself; `urls` opens them at the file server, whose address is
    `address`: scheme and authority, without a host where it is the one that the client has come to (`https://:7481`);
    empty where there is none.
    """

    checked: VerifiedBlobs
    urls: SignedUrls
    address: str

    def location(self, digest: Digest, *, host: str, name: str = "", seconds: float = LIFETIME) -> str:
        """Where to redirect a client that has come to `host` (a name or address, IPv6 in brackets)."""
        where = urlsplit(self.address)
        authority = f"{host}:{where.port}" if not where.hostname else where.netloc
        return f"{where.scheme}://{authority}{self.urls.sign(digest, seconds=seconds, name=name)}"


@asynccontextmanager
async def serving(core: NodeContext, lost: Callable[[], None]) -> AsyncIterator[FileRoutes]:
    """Serve the node's blobs at the addresses that its settings name, while the block lasts.

    `lost` is told, on this event loop, that a damaged blob was put aside.

    Raises Unavailable (LISTEN); NotFound and Malformed for the gateway's certificate and key.
    """
    settings = core.config.gateway
    loop = asyncio.get_running_loop()

    def damaged(digest: Digest, why: str) -> None:
        core.metrics.verify_failures.labels("blob").inc()
        _log.error("a blob is damaged and was put aside", blob=digest, why=why)
        with suppress(RuntimeError):  # the loop has ended, and the node with it
            loop.call_soon_threadsafe(lost)

    def hashed(what: Literal["piece", "whole"], count: int) -> None:
        core.metrics.hashed_bytes.labels(what).inc(count)

    checked = VerifiedBlobs(core.store, LedgerRecords(core.ledger.pieces), damaged, hashed)
    urls = SignedUrls(secrets.token_bytes(32), core.clock)
    async with AsyncExitStack() as stack:

        def begin(address: str, door: str, tls: ssl.SSLContext | None) -> str:
            """Gives the authority at which the server listens."""
            host, _, port = address.rpartition(":")
            server = BlobServer(
                FileSite(urls, checked, partial(_delivered, core, loop, door)),
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
            here = begin(settings.ranges, "ranges", server_context(core.keys.tls))
            base = settings.ranges_url or f"https://{_reached(core, here)}"
            stack.enter_context(
                core.places.offered(
                    lambda digest, peer: BlobLocation(
                        "https-range", base + urls.sign(digest, seconds=LIFETIME, peer=peer)
                    )
                )
            )
        yield FileRoutes(checked, urls, files)


def _reached(core: NodeContext, here: str) -> str:
    """The authority by which others reach a server that listens at `here`: the host that the node advertises."""
    host = next((address.rpartition(":")[0] for address in core.config.advertise.open), here.rpartition(":")[0])
    return f"{host}:{here.rpartition(':')[2]}"


class LedgerRecords(PieceRecords):
    """Those that the ledger has, in whichever layout."""

    def __init__(self, pieces: PieceRecordTable) -> None:
        self._pieces = pieces

    def of(self, digest: Digest) -> bytes | None:
        found = (self._pieces.records(digest, layout) for layout in (TENSOR, FIXED))
        return next((records for records in found if records is not None), None)

    def keep(self, digest: Digest, size: int, records: bytes) -> None:
        _log.info("a blob without piece records was hashed", blob=digest, size=size)
        try:
            self._pieces.remember_records(digest, size, FIXED, records)
        except ComityError as error:
            _log.warning("piece records were not kept", blob=digest, why=str(error))


def _delivered(core: NodeContext, loop: asyncio.AbstractEventLoop, door: str, delivery: RequestRecord) -> None:
    """A line in the log, and sums. From any thread; neither the URL nor all of the digest gets into the log."""
    core.metrics.served_bytes.labels(delivery.peer or door).inc(delivery.sent)
    if delivery.blob and delivery.sent:
        with suppress(RuntimeError):  # the loop has ended, and the node with it
            loop.call_soon_threadsafe(core.served.count, delivery.peer or delivery.host, delivery.blob, delivery.sent)
    _log.info(
        "blob served",
        door=door,
        peer=delivery.peer,
        host=delivery.host,
        blob=(delivery.blob or "")[:DIGITS],
        status=delivery.status,
        asked=delivery.asked,
        sent=delivery.sent,
        code=delivery.code,
    )
