"""The HTTP listener of the gateway: connections with limits on their number, their time and what they send ahead.

ASGI server: docs/decisions, 8.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from comity.node.listeners import connection_limits
from comity.node.settings import Gateway
from comity.trust.errors import (
    Malformed,
    NotFound,
    Unavailable,
)
from comity.wire.addresses import address_block
from comity.wire.draining import Draining
from comity.wire.throttle import FairShares

SHUTDOWN_GRACE: Final = 2
"""Seconds for what is left when the listener closes: transfers have ended, or were cut."""
KEEP_ALIVE: Final = 30
HEAD_SECONDS: Final = 60.0
"""Seconds until the head of a request must be complete, from the connection or the previous response."""
MAX_HEAD: Final = 64 * 1024
HANDSHAKE: Final = 10.0
"""Seconds for a TLS handshake."""
BACKLOG: Final = 1024
MAX_PIPELINED: Final = 16
"""Requests of one connection that wait for the response to an earlier one."""
ABORT: Final = "comity.cut"
"""Key in an ASGI scope: a function that aborts the connection."""

_log: Final = structlog.get_logger("comity.gateway")


@asynccontextmanager
async def listen_http(app: ASGIApp, settings: Gateway, draining: Draining) -> AsyncIterator[str]:
    """Serve `app` while the block lasts; yields its URL.

    Raises Unavailable (LISTEN); NotFound and Malformed for certificate and key.
    """
    tls = tls_context(settings)
    listener = _listen(settings.http)
    config = uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=SHUTDOWN_GRACE,
    )
    config.load()
    server = _Server(config)
    draining.count_unsent(lambda: _unsent(server))
    task = asyncio.create_task(server.serve([]), name="gateway")
    acceptor = asyncio.create_task(_Acceptor(server, listener, tls).run(), name="gateway connections")
    try:
        yield _url(settings, listener)
    finally:
        acceptor.cancel()
        await asyncio.wait([acceptor])
        listener.close()
        server.should_exit = True
        await task


def _unsent(server: uvicorn.Server) -> int:
    """The connections whose last bytes the client has not taken."""
    return sum(each.transport.get_write_buffer_size() > 0 for each in server.server_state.connections)


class _Server(uvicorn.Server):
    """A server that leaves signals to the node, and accepting to `_Acceptor`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Acceptor:
    """Accepts connections and counts them from the start, so that a stalled TLS handshake uses a slot too.

    If all slots are used, `FairShares` selects the connection to abort. Not thread-safe: call from the event loop.
    """

    def __init__(self, server: uvicorn.Server, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._server = server
        self._listener = listener
        self._tls = tls
        self._shares: FairShares[socket.socket] = FairShares(connection_limits().http, time.monotonic)
        self._handshakes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Accept until cancelled. An accept error is logged and delays the next accept by 0.1 s."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    client, address = await loop.sock_accept(self._listener)
                except OSError as error:
                    _log.warning("accept failed", why=str(error))
                    await asyncio.sleep(0.1)
                    continue
                self._admit(client, str(address[0]))
        finally:
            for task in self._handshakes:
                task.cancel()

    def _admit(self, client: socket.socket, host: str) -> None:
        evicted = self._shares.acquire(client, address_block(host))
        if evicted is client:
            client.close()
            return
        if evicted is not None:
            with contextlib.suppress(OSError):  # its transport closes the socket
                evicted.shutdown(socket.SHUT_RDWR)
        task = asyncio.create_task(self._handshake(client), name="gateway handshake")
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _handshake(self, client: socket.socket) -> None:
        """Do the TLS handshake, if any, and start the protocol."""
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: self._connection(client),
                client,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE if self._tls else None,
            )
        except (OSError, TimeoutError):  # not TLS, disconnected, aborted, or too slow
            self._shares.release(client)
            client.close()

    def _connection(self, client: socket.socket) -> _Connection:
        made = _Connection(self._server.config, self._server.server_state, {})
        made.attach_slot(self._shares, client)
        return made


class _TooManyPipelined(Exception):
    """Ends the parser, which would go on with the bytes that it has."""


class _Connection(HttpToolsProtocol):
    """A connection with limits on time and size of request heads. It holds one slot of `_Acceptor` until it closes;
    requests and taken response bytes count as progress.

    Also while an earlier response is sent, only `MAX_HEAD` bytes are kept that are no part of a body (the next head, or
    trailers), and `MAX_PIPELINED` requests. When the connection closes, every request of it is told.
    """

    _head = 0
    """Bytes since the last complete head or part of a body."""
    _requests: tuple[RequestResponseCycle, ...] = ()
    """Those without a complete response."""
    _timer: asyncio.TimerHandle | None = None
    _shares: FairShares[socket.socket]
    _client: socket.socket

    def attach_slot(self, shares: FairShares[socket.socket], client: socket.socket) -> None:
        """Set the slot that this connection holds."""
        self._shares, self._client = shares, client

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._shares.release(self._client)
        super().connection_lost(exc)
        for request in self._requests:  # uvicorn tells the last one only
            request.disconnected = not request.response_complete
            request.message_event.set()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope[ABORT] = self.transport.abort

    def resume_writing(self) -> None:
        self._shares.progress(self._client)
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        super().data_received(data)
        if self._head > MAX_HEAD:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        self._stop_head_timer()
        self._head = 0
        self._shares.progress(self._client)
        super().on_headers_complete()
        self._requests = (*(each for each in self._requests if not each.response_complete), self.cycle)
        if len(self.pipeline) > MAX_PIPELINED:
            self.transport.abort()
            raise _TooManyPipelined

    def on_body(self, body: bytes) -> None:
        self._head = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # else the next request is being handled already
            self._start_head_timer()

    def _start_head_timer(self) -> None:
        self._stop_head_timer()
        self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None


def tls_context(settings: Gateway) -> ssl.SSLContext | None:
    """Return the TLS context for the configured certificate, if any. Raises NotFound, Malformed."""
    if settings.certificate is None or settings.key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.certificate, settings.key)
    except FileNotFoundError as error:
        missing: list[Path] = [path for path in (settings.certificate, settings.key) if not path.exists()]
        raise NotFound("no certificate for the gateway", why=f"{missing[0]} is missing") from error
    except (ssl.SSLError, OSError) as error:
        raise Malformed("the certificate of the gateway is not usable", why=str(error), code="CONFIG") from error
    return context


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    # asyncio disables Nagle's algorithm only on sockets created as TCP; with Nagle, responses wait for 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host.strip("[]"), int(port)))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        hint = "choose another address in node.toml, or stop the program that listens there"
        why = error.strerror or str(error)
        raise Unavailable(f"cannot listen on {address}", why=why, hint=hint, code="LISTEN") from error
    return listener


def _url(settings: Gateway, listener: socket.socket) -> str:
    scheme = "https" if settings.certificate else "http"
    return f"{scheme}://{settings.http.rpartition(':')[0]}:{listener.getsockname()[1]}"
