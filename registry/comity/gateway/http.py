"""Places for requests that hold memory while their client takes its time: bodies of files, and uploads.

When all are taken, a request waits for one. The address block that holds the most of them gives one up to requests
from elsewhere: its connection is cut, and a client that is served in good faith goes on where it was.


The gateway's listening socket, and the ASGI server behind it (docs/decisions/0008-asgi-server.md).

Who may read what through the gateway: anybody where it is public, else who shows one of the node's tokens.

A token that this node did not hand out is somebody else's secret: clients send what they have to whatever endpoint they
are told. It is never logged, and opens as much as no token does.


One table: the errors of this house as HTTP answers.

A refusal is JSON `{"error", "code", "hint"}` with `X-Error-Code` and `X-Error-Message`, which Hub clients read. They
know a few words of their own; every other code is the one of `comity explain`.


What stands around every request, before a route sees it and after it has answered.

(1) a caller has a rate and a number of requests at once; strangers are counted by network address
(2) a target and a body have bounds, and a body has to come at `SLOWEST` bytes a second or faster
(3) an answer that nobody takes, or that a client takes slower than that, is given up
(4) whatever goes wrong leaves as an answer of the one table, or cuts the one that was begun; a fault of our own is
    logged and told to nobody
(5) every answer forbids a browser to run, frame or guess what is in it: models hold HTML and JavaScript
(6) one line in the node's log, with the route and never the address itself: no token and no signature gets there
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import structlog
import uvicorn
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from comity.content.secrets import FILE, Token, TokenFile, hashed, looks_like_one
from comity.node.config import Gateway
from comity.node.context import NodeContext
from comity.node.listeners import connection_limits
from comity.trust.encoding import Digest
from comity.trust.errors import (
    ComityError,
    Conflict,
    Malformed,
    NotFound,
    OutOfSpace,
    PolicyNotMet,
    Refused,
    Unavailable,
    Untrusted,
)
from comity.wire import limits
from comity.wire.access import CALL
from comity.wire.errors import clean
from comity.wire.limits import Allowance, FairShares, Throttle
from comity.wire.tls import address_block, caller_name

WAIT: Final = 8.0
"""Seconds that a request waits for a place: stock clients wait for ten."""
AGAIN: Final = 1.0
"""Seconds after which a request that waits tries again."""
CUT: Final = "comity.cut"
"""Member of an ASGI scope: a function that ends its connection at once."""


class ConnectionPlaces:
    """At most `places` holders. Call from one event loop.

    Args:
        what: the holders in the plural, for the error: `uploads`.
        wait: seconds that a request waits.
    """

    def __init__(self, places: int, what: str, *, wait: float = WAIT) -> None:
        self._shares: FairShares[object] = FairShares(places, time.monotonic)
        self._cuts: dict[object, Callable[[], None]] = {}
        self._what = what
        self._wait = wait
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def taken(self, scope: Scope) -> AsyncIterator[Callable[[], None]]:
        """Hold a place for the request of `scope`; gives the function to call whenever the client made progress.

        Raises Unavailable (NODE-BUSY) where none came free in time.
        """
        item = object()
        await self._take(item, address_block(str((scope.get("client") or ("",))[0])))
        self._cuts[item] = scope.get(CUT, lambda: None)
        try:
            yield lambda: self._shares.progress(item)
        finally:
            del self._cuts[item]
            self._shares.give_back(item)
            self._free()

    async def _take(self, item: object, block: str) -> None:
        try:
            async with asyncio.timeout(self._wait):
                while (out := self._shares.take(item, block)) is item:
                    with suppress(TimeoutError):  # a holder that stalls gives way though no place comes free
                        async with asyncio.timeout(AGAIN):
                            await self._freed.wait()
        except TimeoutError as error:
            why = f"it has as many {self._what} at once as it has room for"
            hint = "try again in a few seconds"
            raise Unavailable("this node is busy", why=why, hint=hint, code="NODE-BUSY") from error
        if out is not None:
            self._cuts[out]()

    def _free(self) -> None:
        """Wake all who wait: they try again, in the order in which they came."""
        self._freed.set()
        self._freed = asyncio.Event()


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


class Access:
    """Reads the tokens again whenever their file has changed."""

    def __init__(self, core: NodeContext) -> None:
        self._core = core
        self._file = TokenFile(core.config.path(FILE))
        self._version: tuple[int, ...] | None = None
        self._tokens: dict[Digest, Token] = {}

    async def token(self, request: Request) -> Token | None:
        """The token that comes with a request, if it is one of this node's."""
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not looks_like_one(secret.strip()):
            return None
        await self._core.pools.files(self._refresh)
        return self._tokens.get(hashed(secret.strip()))

    async def require(self, request: Request, repository: str) -> None:
        """Raises Refused (NO-TOKEN, TOKEN-SCOPE) unless the request may read `repository`."""
        if self._core.config.gateway.public:
            return
        token = await self.token(request)
        if token is None:
            raise Refused(
                "this node serves nothing without a token of its own", hint="ask its operator", code="NO-TOKEN"
            )
        if not token.opens(repository):
            raise Refused("your token does not open this repository", hint="ask its operator", code="TOKEN-SCOPE")

    async def reach(self, request: Request) -> Callable[[str], bool]:
        """Whether the request may read a repository, by its name: for lists, which must not tell of others."""
        if self._core.config.gateway.public:
            return lambda name: True
        token = await self.token(request)
        return token.opens if token is not None else lambda name: False

    def _refresh(self) -> None:
        version = self._file.version()
        if version != self._version:
            self._tokens = {token.hash: token for token in self._file.read()}
            self._version = version


STATUS: Final[Mapping[type[ComityError], int]] = {
    ComityError: 500,
    Malformed: 400,
    Untrusted: 403,
    PolicyNotMet: 403,
    Unavailable: 503,
    NotFound: 404,
    Refused: 403,
    OutOfSpace: 507,
    Conflict: 409,
}
_BY_CODE: Final[Mapping[str, int]] = {
    "RATE": 429,
    "TOO-MANY-CALLS": 429,
    "NO-TOKEN": 401,
    "BAD-TOKEN": 401,
    "TOKEN-SCOPE": 403,
    "BODY-TOO-LARGE": 413,
    "METHOD": 405,
    "RANGE": 416,
    # C2SP tlog-witness and tlog-mirror: what is well said and does not hold.
    "CHECKPOINT-EMPTY-ROOT": 422,
    "CONSISTENCY": 422,
    "EQUIVOCATION": 422,
    "NO-PENDING": 422,
    "ROOT-MISMATCH": 422,
    "SUBTREE": 422,
}
HUB_CODES: Final[Mapping[str, str]] = {
    "NO-SUCH-REPOSITORY": "RepoNotFound",
    "NO-SUCH-REVISION": "RevisionNotFound",
    "NO-SUCH-FILE": "EntryNotFound",
    "NO-TOKEN": "RepoNotFound",
    "UPSTREAM-NOT-ALLOWED": "RepoNotFound",
    "TOKEN-SCOPE": "GatedRepo",
    "UPSTREAM-GATED": "GatedRepo",
}
"""The words that Hub clients know; to who shows no token a repository is not found, as at the Hub. Source:
huggingface_hub, `hf_raise_for_status`."""
RETRY_SECONDS: Final = 2


def answer(error: ComityError) -> JSONResponse:
    """The refusal that `error` is to an HTTP client."""
    kind = next(kind for kind in type(error).__mro__ if kind in STATUS)
    status = _BY_CODE.get(error.code, STATUS[kind])
    message = clean(str(error), limits.ERROR_WHAT + limits.ERROR_WHY)
    headers = {
        "Cache-Control": "no-store",
        "X-Error-Code": HUB_CODES.get(error.code, error.code),
        "X-Error-Message": message.encode("ascii", "replace").decode("ascii"),
    }
    if status in (429, 503):
        headers["Retry-After"] = str(RETRY_SECONDS)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    document = {"error": message, "code": error.code, "hint": clean(error.hint, limits.ERROR_HINT)}
    return JSONResponse(document, status, headers)


async def on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ComityError)
    return answer(error)


MAX_TARGET: Final = 8 * 1024
"""Bytes of path and query."""
MAX_BODY: Final = 64 * 1024 * 1024
"""Bytes of any request's body; routes that read one bound it further."""
STALLED: Final = 20.0
"""Seconds that a client may take nothing of an answer, or send nothing of a body."""
SLOWEST: Final = 16 * 1024
"""Bytes a second that a client takes or sends at the least, after the first `STALLED` seconds."""
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class ResponseTimeout(Exception):
    """An answer that was begun cannot be completed: the connection is cut, which the client notices."""


class RequestBounds:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, core: NodeContext) -> None:
        self._app = app
        self._metrics = core.metrics
        rate = core.config.gateway.calls_per_second
        allowance = Allowance(calls_per_second=rate, burst=int(10 * rate) + 1, at_once=640, all_at_once=1024)
        self._throttle = Throttle(allowance, time.monotonic)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send)
        CALL.set(exchange.id)
        begun = time.monotonic()
        try:
            with self._throttle.call(caller_name(str((scope.get("client") or ("",))[0]))):
                _require_short(scope)
                await self._app(scope, exchange.receive, exchange.send)
        except ComityError as error:
            await self._refuse(scope, exchange, error)
        except TimeoutError:
            await self._refuse(
                scope, exchange, Unavailable("too slow", why=f"slower than {SLOWEST // 1024} KiB a second")
            )
        except ClientDisconnect:
            pass
        except ResponseTimeout as error:
            _log.warning("an answer was cut off", route=_route(scope), why=str(error))
        except Exception:
            _log.exception("a route broke", route=_route(scope))
            await self._refuse(scope, exchange, ComityError("the node failed to answer", why="its log says why"))
        finally:
            route = _route(scope)
            self._metrics.http_requests.labels(route, str(exchange.status)).inc()
            _log.info(
                "request",
                method=scope["method"],
                route=route,
                status=exchange.status,
                sent=exchange.sent,
                seconds=round(time.monotonic() - begun, 3),
            )

    async def _refuse(self, scope: Scope, exchange: _Exchange, error: ComityError) -> None:
        """Half an answer that is out is left as it is: the server then cuts the connection, which tells the client."""
        if exchange.status:
            _log.warning("an answer was cut off", route=_route(scope), code=error.code, why=str(error))
            return
        await answer(error)(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request and its answer, as they pass."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.id = secrets.token_hex(8)
        self.status = 0
        self.sent = 0
        self._receive = receive
        self._send = send
        self._received = 0
        self._waited = 0.0
        self._whole = False

    async def receive(self) -> Message:
        if self._whole:  # nothing more comes but the news that the client has gone
            return await self._receive()
        begun = time.monotonic()
        async with asyncio.timeout(STALLED + self._received / SLOWEST - self._waited):
            message = await self._receive()
        self._waited += time.monotonic() - begun
        self._whole = not message.get("more_body", False)
        self._received += len(message.get("body", b""))
        if self._received > MAX_BODY:
            raise Malformed("the request is too large", why=f"more than {MAX_BODY} bytes", code="BODY-TOO-LARGE")
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("X-Request-Id", self.id)
        self.sent += len(message.get("body", b""))
        async with asyncio.timeout(STALLED + len(message.get("body", b"")) / SLOWEST):
            await self._send(message)


async def read_body(request: Request, most: int) -> bytes:
    """The body, of at most `most` bytes. Raises Malformed (BODY-TOO-LARGE)."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise Malformed("the request is too large", why=f"more than {most} bytes", code="BODY-TOO-LARGE")
        parts.append(part)
    return b"".join(parts)


def _require_short(scope: Scope) -> None:
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_TARGET:
        raise Malformed("the address is too long", why=f"more than {MAX_TARGET} bytes")


def _route(scope: Scope) -> str:
    route: Any = scope.get("route")
    return str(getattr(route, "path", ""))
