"""A gRPC server for one port, with an interceptor (`Guard`) that checks each call before a servicer runs.

The order of the checks:

(1) errors from here on become a status of the table in `errors`; an internal error is logged, and its text not sent;
(2) a deadline is required, of at most one hour; calls of gRPC's own services, which stock tools make without one, get
    `limits.DEFAULT_DEADLINE`;
(3) the port's `Access` identifies or refuses the caller;
(4) the call is counted for this caller, by its declared cost;
(5) the declared rule of the call admits or refuses the caller; a call without a rule is refused;
(6) only now the request is read, with a timeout per message and a limit on requests that are read at the same time,
    because gRPC buffers them; it may be as long as the call declares;
(7) a node that ends refuses the call, and cuts it if it is late (`draining`);
(8) the caller must receive each sent message within a time limit, bytes are rate-limited, and what callers have not
    received is charged to one budget of the port (`unsent`).

gRPC itself would read a single request before the handler runs, without a time limit, and send a single answer after
the handler has ended, when the call is no longer counted. On the wire a single message is a stream of one message, so
every handler is wrapped as a handler of two streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, nullcontext
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message

from comity.trust.errors import ComityError, Malformed, Refused, Unavailable
from comity.wire import limits
from comity.wire.access import CALL, CALLER, Access, Caller, CallRule, require_allowed
from comity.wire.calls import span
from comity.wire.connections import shut_down
from comity.wire.draining import Draining
from comity.wire.errors import to_status
from comity.wire.rpc import Context, Handler
from comity.wire.services import CALL_RULES, Services, register
from comity.wire.throttle import Throttle
from comity.wire.unsent import UNSENT, AdmittedCall

_log: Final = logging.getLogger(__name__)


AdmitHook: TypeAlias = Callable[[str, str], None]
"""Called for each admitted call, with the peer as gRPC names it, and the owner: the caller's name if it showed a
certificate, else ""."""


def ignore_admitted(peer: str, owner: str) -> None:
    """An `AdmitHook` that does nothing."""


class Guard(grpc.aio.ServerInterceptor):
    """The interceptor of one port of one server."""

    def __init__(
        self,
        access: Access,
        throttle: Throttle,
        admitted: AdmitHook = ignore_admitted,
        draining: Draining | None = None,
    ) -> None:
        self._access = access
        self._throttle = throttle
        self._admitted = admitted
        self._draining = draining or Draining()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        return handler and self._guarded(handler, handler_call_details.method)

    def _guarded(self, handler: Handler, method: str) -> Handler:
        rule = CALL_RULES.get(method)
        behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        async def answer(requests: AsyncIterator[Any], context: Context) -> None:
            async with self._call(method, rule, context) as call:
                received = call.requests_with_timeout(requests)
                answered = behaviour(
                    received if handler.request_streaming else await _single_request(received), context
                )
                if not handler.response_streaming:
                    await call.send(await answered)
                elif hasattr(answered, "__aiter__"):
                    async with aclosing(answered):
                        async for message in answered:
                            await call.send(message)
                else:
                    await answered  # the handler writes itself, like the health service of grpcio

        read = _bounded(handler.request_deserializer, rule.request_bytes) if rule else handler.request_deserializer
        return grpc.stream_stream_rpc_method_handler(answer, read, handler.response_serializer)

    @asynccontextmanager
    async def _call(self, method: str, rule: CallRule | None, context: Context) -> AsyncIterator[_Call]:
        CALL.set(secrets.token_hex(8))
        async with _errors_to_status(method, context):
            bound = _bound(rule, context.time_remaining())
            caller = self._access.caller(context)
            call = _Call(context, caller, self._throttle, bound)
            with (
                self._throttle.call(caller.name, caller.block, call.end, rule.cost if rule else 1) as call.running,
                self._throttle.unsent.serving(call.running) as held,
            ):
                require_allowed(rule, caller, self._access.operators_call)
                self._admitted(context.peer(), caller.name if caller.certificate else "")
                CALLER.set(caller)  # this task serves only this call
                UNSENT.set(held)
                with span(method.lstrip("/"), rpc_system="grpc", comity_caller=_kind(caller)):
                    counted = self._draining.transfer() if _is_transfer(method, caller) else nullcontext()
                    async with counted, call.until_ended():
                        yield call


_STATE: Final = ("/grpc.", "/comity.v1.LogService/", "/comity.v1.NewsService/", "/comity.v1.OperatorService/GetStatus")
"""How the paths of calls begin that tell how the node is and what its log is: they go on until it has ended."""
_OBJECTS: Final = ("/comity.v1.BlobService/GetObject", "/comity.v1.BlobService/GetObjects")
"""What a peer needs beside the entries of a log, before it has them."""


def _is_transfer(method: str, caller: Caller) -> bool:
    return not (method.startswith(_STATE) or (caller.certificate is not None and method in _OBJECTS))


def _kind(caller: Caller) -> str:
    return "operator" if caller.operator else "peer" if caller.certificate else "open"


class _Call:
    """One admitted call: reads and sends messages with timeouts, and can be ended in favour of another call."""

    def __init__(self, context: Context, caller: Caller, throttle: Throttle, bound: float | None) -> None:
        """`bound`: the seconds that the call may take if its caller set no deadline; else None."""
        self.running = AdmittedCall(caller.block)
        self._context = context
        self._caller = caller
        self._throttle = throttle
        self._seconds = bound
        self._bound = asyncio.timeout(bound)
        self._replaced = False
        self._sending = False

    def end(self) -> None:
        """End the call now, because a call of another block gets its slot."""
        if self._sending:
            shut_down(self._context.peer())  # a pending send would delay the end of the call
        self._replaced = True
        self._bound.reschedule(0)

    @asynccontextmanager
    async def until_ended(self) -> AsyncIterator[None]:
        """Raises Refused (TOO-MANY-CALLS) inside the block when `end` is called, and Unavailable (DEADLINE) at the end
        of the time that a call without a deadline has."""
        try:
            async with self._bound:
                yield
        except TimeoutError:
            if not self._bound.expired():
                raise
            if not self._replaced:
                why = f"a call without a deadline may take {self._seconds:g} s here"
                raise Unavailable("the call timed out", why=why, hint="set a timeout", code="DEADLINE") from None
            raise Refused(
                "the call was ended in favour of another call",
                why="the limit of concurrent calls is reached, and this address block has the most",
                hint="make fewer concurrent calls",
                code="TOO-MANY-CALLS",
            ) from None

    async def requests_with_timeout(self, requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        while True:
            try:
                async with asyncio.timeout(limits.CALL_TIMEOUT), self._throttle.awaiting(self.running):
                    request = await anext(requests)
            except StopAsyncIteration:
                return
            self._throttle.progress(self.running)
            yield request

    async def send(self, message: Any) -> None:
        """Send one message. If the caller does not receive it within `limits.SEND_TIMEOUT` seconds, the connection is
        closed, because nothing else frees the buffers that gRPC holds for it."""
        size = _size(message)
        self._sending = True
        try:
            with self._throttle.unsent.charged(self.running, size):
                async with asyncio.timeout(limits.SEND_TIMEOUT):
                    await self._context.write(message)
        except TimeoutError:
            shut_down(self._context.peer())
            raise
        finally:
            self._sending = False
        self._throttle.progress(self.running)
        self._throttle.unsent.progress(self.running)
        await asyncio.sleep(self._throttle.sent(self._caller.name, size))


@asynccontextmanager
async def _errors_to_status(method: str, context: Context) -> AsyncIterator[None]:
    try:
        yield
    except grpc.aio.BaseError:
        raise  # the call was aborted, or the caller disconnected
    except ComityError as error:
        await context.abort_with_status(to_status(error))
    except DecodeError as error:
        malformed = Malformed("the request is not a valid message of comity.v1", why=str(error))
        await context.abort_with_status(to_status(malformed))
    except TimeoutError:
        late = Unavailable("the call timed out", why=f"no progress in {limits.CALL_TIMEOUT:g} s", code="DEADLINE")
        with contextlib.suppress(grpc.aio.InternalError):  # the connection may be closed already
            await context.abort_with_status(to_status(late))
    except NotImplementedError:  # by a servicer of grpcio, for a call that is newer than it
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this node does not have this call")
    except Exception:
        _log.exception("%s failed", method)
        await context.abort(grpc.StatusCode.INTERNAL, "internal error of the node; the reason is in its log")


def _bound(rule: CallRule | None, remaining: float | None) -> float | None:
    """Returns the seconds that a call without a deadline may take; None if it has one. Raises Malformed
    (DEADLINE-REQUIRED)."""
    if remaining is None and rule is not None and not rule.needs_deadline:
        return limits.DEFAULT_DEADLINE
    if remaining is None or remaining > limits.DEADLINE:
        raise Malformed(
            "the call needs a deadline",
            why=f"a call may take at most {limits.DEADLINE:g} s",
            hint="set a timeout, and resume the work in another call",
            code="DEADLINE-REQUIRED",
        )
    return None


def _bounded(deserialize: Callable[[bytes], Any] | None, most: int) -> Callable[[bytes], Any]:
    """A deserializer that raises Malformed (BODY-TOO-LARGE) for more than `most` bytes, before it parses them."""

    def read(data: bytes) -> Any:
        if len(data) > most:
            why = f"it has {len(data)} bytes, and this call takes at most {most}"
            raise Malformed("the request is too large", why=why, code="BODY-TOO-LARGE")
        return deserialize(data) if deserialize else data

    return read


async def _single_request(requests: AsyncIterator[Any]) -> Any:
    async for request in requests:
        return request
    raise Malformed("no request", why="the call ended before its request")


def _size(message: object) -> int:
    return message.ByteSize() if isinstance(message, Message) else len(message)  # type: ignore[arg-type]


_OPTIONS: Final = (
    ("grpc.max_receive_message_length", limits.MESSAGE),
    ("grpc.max_send_message_length", limits.MESSAGE),
    ("grpc.max_concurrent_streams", limits.STREAMS),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Allows the pings of our clients; by default gRPC counts pings on an idle stream as abuse.
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    # A connection is closed if its handshake takes longer; the default of gRPC is two minutes.
    ("grpc.server_handshake_timeout_ms", int(limits.HANDSHAKE * 1000)),
    ("grpc.max_connection_idle_ms", int(limits.IDLE_CONNECTION * 1000)),
)


def make_server(
    access: Access,
    services: Services,
    throttle: Throttle,
    *,
    connections: int = 1024,
    shared_port: bool = False,
    admitted: AdmitHook = ignore_admitted,
    draining: Draining | None = None,
) -> grpc.aio.Server:
    """Create a server. The caller then calls `server.add_secure_port(address, access.credentials())` and starts it.

    Other services (health, reflection) may be added; the same `Guard` protects them.

    Args:
        throttle: the limits of each caller; several servers may share one.
        connections: the maximum number of connections; gRPC closes further ones.
        shared_port: whether another server of this process listens on the same port. If false, listening fails when the
            port is in use.
        admitted: called for each admitted call (`AdmitHook`).
        draining: counts the calls, refuses new ones and ends them, when the node ends.
    """
    options = (
        *_OPTIONS,
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.so_reuseport", int(shared_port)),
    )
    server = grpc.aio.server(interceptors=(Guard(access, throttle, admitted, draining),), options=options)
    register(services, server)
    return server
