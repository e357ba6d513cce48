"""The gateway's listening socket, and the ASGI server behind it (docs/decisions/0008-asgi-server.md)."""

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
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from comity.gateway.places import CUT
from comity.node.config import Gateway
from comity.node.descriptors import connection_limits
from comity.trust.errors import Malformed, NotFound, Unavailable
from comity.wire.address import address_block
from comity.wire.fair_shares import FairShares

GRACE: Final = 2
"""Seconds that requests under way are given when the node stops."""
KEEP_ALIVE: Final = 30
HEAD_SECONDS: Final = 60.0
"""Within which the head of a request has to be there, counted from the connection or the answer before it."""
MAX_HEAD: Final = 64 * 1024
HANDSHAKE: Final = 10.0
"""Seconds that a TLS handshake may take."""
BACKLOG: Final = 1024

_log: Final = structlog.get_logger("comity.gateway")


@asynccontextmanager
async def listening(app: ASGIApp, settings: Gateway) -> AsyncIterator[str]:
    """Serve `app` while the block lasts; gives the URL at which it answers.

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
        timeout_graceful_shutdown=GRACE,
    )
    config.load()
    server = _Server(config)
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


class _Server(uvicorn.Server):
    """One that leaves the process's signals to the node, and accepting to `_Acceptor`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Acceptor:
    """Accepts connections, and counts them from their first moment on: a TLS handshake that stalls holds a place too.

    When all places are taken, `FairShares` decides which connection is cut. Call from the event loop only.
    """

    def __init__(self, server: uvicorn.Server, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._server = server
        self._listener = listener
        self._tls = tls
        self._shares: FairShares[socket.socket] = FairShares(connection_limits().http, time.monotonic)
        self._handshakes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Accept until cancelled. A connection that cannot be accepted costs a log line and a tenth of a second."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    client, address = await loop.sock_accept(self._listener)
                except OSError as error:
                    _log.warning("no connection was accepted", why=str(error))
                    await asyncio.sleep(0.1)
                    continue
                self._place(client, str(address[0]))
        finally:
            for task in self._handshakes:
                task.cancel()

    def _place(self, client: socket.socket, host: str) -> None:
        out = self._shares.take(client, address_block(host))
        if out is client:
            client.close()
            return
        if out is not None:
            with contextlib.suppress(OSError):  # its transport notices, and closes it
                out.shutdown(socket.SHUT_RDWR)
        task = asyncio.create_task(self._begin(client), name="gateway handshake")
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _begin(self, client: socket.socket) -> None:
        """Hand the connection to its protocol, after the TLS handshake where there is TLS."""
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: self._connection(client),
                client,
                ssl=self._tls,
                ssl_handshake_timeout=HANDSHAKE if self._tls else None,
            )
        except (OSError, TimeoutError):  # not TLS, gone, cut, or too slow
            self._shares.give_back(client)
            client.close()

    def _connection(self, client: socket.socket) -> _Connection:
        made = _Connection(self._server.config, self._server.server_state, {})
        made.counted(self._shares, client)
        return made


class _Connection(HttpToolsProtocol):
    """A connection whose requests have to begin in time, with heads of a bounded size. It holds one of `_Acceptor`'s
    places until it is lost, and makes progress by requests that begin and by answers that the client takes."""

    _head = 0
    _timer: asyncio.TimerHandle | None = None
    _shares: FairShares[socket.socket]
    _client: socket.socket

    def counted(self, shares: FairShares[socket.socket], client: socket.socket) -> None:
        """The place that this connection holds."""
        self._shares, self._client = shares, client

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        self._shares.give_back(self._client)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope[CUT] = self.transport.abort

    def resume_writing(self) -> None:
        self._shares.progress(self._client)
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._timer is not None:  # all of it was head, and there is more to come
            self._head += len(data)
            if self._head > MAX_HEAD:
                self.transport.abort()

    def on_headers_complete(self) -> None:
        self._have_head()
        self._shares.progress(self._client)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # else the next request has come already, and is being answered
            self._await_head()

    def _await_head(self) -> None:
        self._have_head()
        if not self.transport.is_closing():
            self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _have_head(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._head = None, 0


def tls_context(settings: Gateway) -> ssl.SSLContext | None:
    """For the certificate that the settings name, if any. Raises NotFound, Malformed."""
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
        raise Malformed("the gateway's certificate cannot be used", why=str(error), code="CONFIG") from error
    return context


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    # asyncio turns Nagle's algorithm off on sockets that say that they are TCP; with it, answers wait for 40 ms.
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
        hint = "choose another address in node.toml, or stop what listens there"
        why = error.strerror or str(error)
        raise Unavailable(f"cannot listen on {address}", why=why, hint=hint, code="LISTEN") from error
    return listener


def _url(settings: Gateway, listener: socket.socket) -> str:
    scheme = "https" if settings.certificate else "http"
    return f"{scheme}://{settings.http.rpartition(':')[0]}:{listener.getsockname()[1]}"
