"""Bounds of each request at the gateway, slots for those that hold memory, and error responses.

(1) each caller has a rate and a number of concurrent requests; unknown callers are counted by network address, which a
    proxy names if the settings list it
(2) the request target and body have size limits, and a body must arrive at `SLOWEST` bytes a second or faster
(3) a response that the client takes slower than that, or not at all, is aborted
(4) every error is a response of one table, or aborts a started response; internal errors are logged, not returned
(5) response headers forbid browsers to run, frame or sniff the content, because models contain HTML and JavaScript
(6) one log line per request, with the repository and the path on one bounded line, without the query and the headers,
    where tokens and signatures are

Slots limit requests that hold memory while the client is slow (file bodies, uploads). If all are used, a request waits;
the address block with most slots loses one to requests from other blocks: its connection is aborted, and the client can
resume. An error is JSON `{"error", "code", "hint"}` with `X-Error-Code` and `X-Error-Message` for Hub clients; a few
codes are mapped to those that they know.
"""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext, suppress
from typing import Any, Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comity.gateway.http_listener import ABORT
from comity.node.metrics import Metrics
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
from comity.wire.access import BLOCK, CALL
from comity.wire.addresses import address_block, caller_name
from comity.wire.draining import DRAINING, Draining
from comity.wire.errors import clean
from comity.wire.throttle import Allowance, FairShares, Throttle

SLOT_TIMEOUT: Final = 8.0
"""Seconds that a request waits for a slot; stock clients wait for ten."""
RETRY_INTERVAL: Final = 1.0
"""Seconds after which a waiting request tries again."""
ADDRESS: Final = "comity.address"
"""Key in an ASGI scope: the network address to which the request is charged."""
REPOSITORY: Final = "comity.repository"
"""Key in an ASGI scope: the repository that the request is about."""

_log: Final = structlog.get_logger("comity.gateway")


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


class ConnectionSlots:
    """At most `slots` concurrent holders. Not thread-safe: call from one event loop.

    Args:
        what: plural noun for the holders in the error text, for example `uploads`.
        wait: seconds that a request waits.
    """

    def __init__(self, slots: int, what: str, *, wait: float = SLOT_TIMEOUT) -> None:
        self._shares: FairShares[object] = FairShares(slots, _loop_time)
        self._aborts: dict[object, Callable[[], None]] = {}
        self._what = what
        self._wait = wait
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def slot(self, scope: Scope) -> AsyncIterator[Callable[[], None]]:
        """Hold a slot for the request of `scope`; yields a function to call when the client makes progress.

        Raises Unavailable (NODE-BUSY) on timeout.
        """
        item = object()
        await self._take(item, address_block(scope.get(ADDRESS) or charged_address(scope)))
        self._aborts[item] = scope.get(ABORT, lambda: None)
        try:
            yield lambda: self._shares.progress(item)
        finally:
            del self._aborts[item]
            self._shares.release(item)
            self._free()

    async def _take(self, item: object, block: str) -> None:
        try:
            async with asyncio.timeout(self._wait):
                while (evicted := self._shares.acquire(item, block)) is item:
                    with suppress(TimeoutError):  # FairShares may evict a stalled holder although no slot is freed
                        async with asyncio.timeout(RETRY_INTERVAL):
                            await self._freed.wait()
        except TimeoutError as error:
            why = f"all slots for {self._what} are used"
            hint = "try again in a few seconds"
            raise Unavailable("this node is busy", why=why, hint=hint, code="NODE-BUSY") from error
        if evicted is not None:
            self._aborts[evicted]()

    def _free(self) -> None:
        """Wake all waiting requests; they try again in order of arrival."""
        self._freed.set()
        self._freed = asyncio.Event()


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
    "TOKEN-EXPIRED": 401,
    "TOKEN-SCOPE": 403,
    "BODY-TOO-LARGE": 413,
    "METHOD": 405,
    "RANGE": 416,
    # C2SP tlog-witness and tlog-mirror: well-formed but invalid.
    "CHECKPOINT-EMPTY-ROOT": 422,
    "CONSISTENCY": 422,
    "EQUIVOCATION": 422,
    "NO-PENDING": 422,
    "ROOT-MISMATCH": 422,
    "SUBTREE": 422,
}
HUB_CODES: Final[Mapping[str, str]] = {
    "NO-SUCH-REPOSITORY": "RepoNotFound",
    "OTHER-KIND": "RepoNotFound",
    "NO-SUCH-REVISION": "RevisionNotFound",
    "CONTINUES-DISPUTED": "RevisionNotFound",
    "CONTINUES-SEVERAL": "RevisionNotFound",
    "NO-SUCH-FILE": "EntryNotFound",
    "NO-TOKEN": "RepoNotFound",
    "TOKEN-EXPIRED": "RepoNotFound",
    "UPSTREAM-NOT-ALLOWED": "RepoNotFound",
    "TOKEN-SCOPE": "RepoNotFound",
    "UPSTREAM-GATED": "GatedRepo",
}
"""Codes that Hub clients know. Without a token a repository is not found, as at the Hub. Source: huggingface_hub,
`hf_raise_for_status`.
"""
RETRY_SECONDS: Final = 2


def error_response(error: ComityError) -> JSONResponse:
    """Return the HTTP response for `error`."""
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
    if error.code == DRAINING:
        headers["Connection"] = "close"  # the next request goes elsewhere
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    document = {"error": message, "code": error.code, "hint": clean(error.hint, limits.ERROR_HINT)}
    return JSONResponse(document, status, headers)


async def on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ComityError)
    return error_response(error)


STATE_PATHS: Final = ("/healthz", "/readyz")
"""They tell how the node is, until it has ended."""
MAX_TARGET: Final = 8 * 1024
"""Maximum bytes of path and query."""
MAX_BODY: Final = 64 * 1024 * 1024
"""Maximum bytes of any request body; routes have lower limits."""
STALLED: Final = 20.0
"""Seconds without progress of a response or request body before it is aborted."""
SLOWEST: Final = 16 * 1024
"""Minimum bytes per second of a client, after the first `STALLED` seconds."""
PART: Final = 256 * 1024
"""Bytes of a body that are handed to the server at once."""
LONG: Final = 1024 * 1024
"""Bytes of a body that is in memory as a whole, such as a list, from which on its response needs a slot."""
LONG_AT_ONCE: Final = 32
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class ResponseTimeout(Exception):
    """A started response cannot be completed; the connection is aborted, so the client sees an error."""


def charged_address(scope: Scope, proxies: Collection[str] = ()) -> str:
    """Return the network address to which a request is charged: that of the connection, or where that is one of
    `proxies`, the last address in `X-Forwarded-For` that is none of them. A proxy adds the address that it saw at the
    end; what is before that may be the client's invention. If that entry is no address, the proxy's own is returned."""
    host = str((scope.get("client") or ("",))[0])
    if host in proxies:
        given = b",".join(value for name, value in scope.get("headers", ()) if name == b"x-forwarded-for")
        for text in reversed(given.decode("latin-1").split(",")):
            try:
                address = str(ipaddress.ip_address(text.strip()))
            except ValueError:
                break
            if address not in proxies:
                return address
    return host


class RequestBounds:
    """ASGI middleware that applies the bounds to all requests.

    Args:
        proxies: addresses of proxies that name the addresses of their clients (`charged_address`).
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        draining: Draining,
        calls_per_second: float,
        proxies: Collection[str] = (),
    ) -> None:
        self._app = app
        self._draining = draining
        self._proxies = frozenset(proxies)
        self._metrics = metrics
        rate = calls_per_second
        allowance = Allowance(calls_per_second=rate, burst=int(10 * rate) + 1, at_once=640, all_at_once=1024)
        self._throttle = Throttle(allowance, time.monotonic)
        self._long = ConnectionSlots(LONG_AT_ONCE, "long answers")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send, lambda: self._long.slot(scope))
        CALL.set(exchange.id)
        begun = time.monotonic()
        host, abort = charged_address(scope, self._proxies), scope.get(ABORT, lambda: None)
        scope[ADDRESS] = host
        block = address_block(host)
        BLOCK.set(block)
        try:
            with self._throttle.call(caller_name(host), block, abort) as running:
                exchange.on_progress = lambda: self._throttle.progress(running)
                _require_short_target(scope)
                async with nullcontext() if scope["path"] in STATE_PATHS else self._draining.transfer():
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
            _log.warning("response aborted", route=_route(scope), why=str(error))
        except _NoSlot as error:
            await self._refuse(scope, exchange, error.refusal)
        except Exception:
            _log.exception("route failed", route=_route(scope))
            await self._refuse(scope, exchange, ComityError("internal error", why="see the log of the node"))
        finally:
            if exchange.cut_off:  # the server closes the connection when the client has taken what was sent
                asyncio.get_running_loop().call_later(STALLED, abort)
            route = _route(scope)
            self._metrics.http_requests.labels(route, str(exchange.status)).inc()
            _log.info(
                "request",
                method=scope["method"],
                route=route,
                repository=_shown(scope.get(REPOSITORY, "")),
                path=_shown(scope["path"]),
                status=exchange.status,
                code=exchange.code,
                sent=exchange.sent,
                seconds=round(time.monotonic() - begun, 3),
            )

    async def _refuse(self, scope: Scope, exchange: _Exchange, error: ComityError) -> None:
        """Send the error; if a response has started, only log it: the server then aborts the connection."""
        if exchange.status:
            _log.warning("response aborted", route=_route(scope), code=error.code, why=str(error))
            return
        await error_response(error)(scope, exchange.receive, exchange.send)


class _NoSlot(Exception):
    """A response was refused a slot. No `ComityError`: the application would answer that, and believes that it has
    begun a response."""

    def __init__(self, refusal: ComityError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


LongSlot = Callable[[], AbstractAsyncContextManager[Callable[[], None]]]


class _Exchange:
    """One request and its response; counts bytes and time. The head of a response is sent with the first part of its
    body, so that a refused slot can still be the response."""

    def __init__(self, receive: Receive, send: Send, long_slot: LongSlot) -> None:
        self.id = secrets.token_hex(8)
        self.status = 0
        self.code = ""
        self.sent = 0
        self.on_progress: Callable[[], None] = lambda: None
        """Called when the client sent or took something."""
        self._receive = receive
        self._send = send
        self._long_slot = long_slot
        self._head: Message | None = None
        self._received = 0
        self._waited = 0.0
        self._whole = False
        self._complete = False

    @property
    def cut_off(self) -> bool:
        """Whether a response was begun, and not completed."""
        return bool(self.status) and not self._complete

    async def receive(self) -> Message:
        if self._whole:  # only a disconnect message can follow
            return await self._receive()
        begun = time.monotonic()
        async with asyncio.timeout(STALLED + self._received / SLOWEST - self._waited):
            message = await self._receive()
        self._waited += time.monotonic() - begun
        self._whole = not message.get("more_body", False)
        self._received += len(message.get("body", b""))
        self.on_progress()
        if self._received > MAX_BODY:
            raise Malformed("the request is too large", why=f"more than {MAX_BODY} bytes", code="BODY-TOO-LARGE")
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = message
        elif len(message.get("body", b"")) < LONG:
            await self._pass_on(message)
        else:
            async with AsyncExitStack() as held:
                try:
                    progress = await held.enter_async_context(self._long_slot())
                except ComityError as error:
                    raise _NoSlot(error) from error
                await self._pass_on(message, progress)

    async def _pass_on(self, message: Message, progress: Callable[[], None] = lambda: None) -> None:
        head, self._head = self._head, None
        for part in itertools.chain([self._begun(head)] if head is not None else [], _parts(message)):
            self.sent += len(part.get("body", b""))
            async with asyncio.timeout(STALLED + len(part.get("body", b"")) / SLOWEST):
                await self._send(part)
            self.on_progress()
            progress()
        self._complete = not message.get("more_body", False)

    def _begun(self, head: Message) -> Message:
        self.status = head["status"]
        headers = MutableHeaders(scope=head)
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        headers.setdefault("X-Request-Id", self.id)
        self.code = headers.get("X-Error-Code", "")
        return head


def _parts(message: Message) -> Iterator[Message]:
    """Yield a message, or a long body in parts: the server waits for the client only between two of them."""
    body = memoryview(message.get("body", b""))
    if len(body) <= PART:
        yield message
        return
    while len(body) > PART:
        yield {**message, "body": bytes(body[:PART]), "more_body": True}
        body = body[PART:]
    yield {**message, "body": bytes(body)}


async def read_body(request: Request, most: int) -> bytes:
    """Return the body, at most `most` bytes. Raises Malformed (BODY-TOO-LARGE)."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise Malformed("the request is too large", why=f"more than {most} bytes", code="BODY-TOO-LARGE")
        parts.append(part)
    return b"".join(parts)


def _require_short_target(scope: Scope) -> None:
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_TARGET:
        raise Malformed("the request target is too long", why=f"more than {MAX_TARGET} bytes")


MAX_SHOWN: Final = 300
_TOKEN: Final = re.compile(r"hf_\w{8,}", re.A)


def _shown(text: str) -> str:
    """Return text of a client for a log line: on one line, bounded, without what may be a token."""
    return clean(_TOKEN.sub("(hidden)", text[:MAX_TARGET]), MAX_SHOWN)


def _route(scope: Scope) -> str:
    route: Any = scope.get("route")
    return str(getattr(route, "path", ""))
