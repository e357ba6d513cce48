"""What stands around every request, before a route sees it and after it has answered.

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
import secrets
import time
from typing import Any, Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comity.gateway.errors import answer
from comity.node.core import Core
from comity.trust.errors import ComityError, Malformed, Unavailable
from comity.wire.address import caller_name
from comity.wire.doors import CALL
from comity.wire.throttle import Allowance, Throttle

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

_log: Final = structlog.get_logger("comity.gateway")


class CutOff(Exception):
    """An answer that was begun cannot be completed: the connection is cut, which the client notices."""


class Bounds:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, core: Core) -> None:
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
        except CutOff as error:
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
