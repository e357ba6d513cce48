"""A gRPC server for one port, with an interceptor (`Guard`) that checks each call before a servicer runs.

The order of the checks:

(1) errors from here on become a status of the table in `errors`; an internal error is logged, and its text not sent;
(2) a deadline is required, of at most one hour; health and reflection, which stock tools call without one, get
    `limits.DEFAULT_DEADLINE`;
(3) the port's `Access` identifies or refuses the caller;
(4) the call is counted for this caller;
(5) only now the request is read, with a timeout per message and a limit on requests that are read at the same time,
    because gRPC buffers them;
(6) the caller must receive each sent message within a time limit, and bytes are rate-limited.

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
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message

from comity.trust.errors import ComityError, Malformed, Refused, Unavailable
from comity.v1 import blob_pb2
from comity.v1.artifact_pb2_grpc import add_ArtifactServiceServicer_to_server
from comity.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from comity.v1.blob_pb2_grpc import add_BlobServiceServicer_to_server
from comity.v1.bundle_pb2_grpc import add_BundleServiceServicer_to_server
from comity.v1.charter_pb2_grpc import add_CharterServiceServicer_to_server
from comity.v1.log_pb2_grpc import add_LogServiceServicer_to_server
from comity.v1.news_pb2_grpc import add_NewsServiceServicer_to_server
from comity.v1.node_pb2_grpc import add_NodeServiceServicer_to_server
from comity.v1.offer_pb2_grpc import add_OfferServiceServicer_to_server
from comity.v1.operator_pb2_grpc import add_OperatorServiceServicer_to_server
from comity.v1.pin_pb2_grpc import add_PinServiceServicer_to_server
from comity.v1.publish_pb2_grpc import add_PublishServiceServicer_to_server
from comity.v1.upstream_pb2_grpc import add_UpstreamServiceServicer_to_server
from comity.wire import limits
from comity.wire.access import CALL, CALLER, Access, Caller
from comity.wire.artifact import ArtifactReads, ArtifactServicer
from comity.wire.audit import AuditReads, AuditServicer
from comity.wire.blob import BlobReads, BlobServicer
from comity.wire.bundle import BundleLoads, BundleServicer
from comity.wire.calls import span
from comity.wire.charter import CharterReads, CharterServicer
from comity.wire.connections import shut_down
from comity.wire.errors import to_status
from comity.wire.log import LogReads, LogServicer
from comity.wire.news import NewsReads, NewsServicer
from comity.wire.node import NodeReads, NodeServicer
from comity.wire.offer import OfferService, OfferServicer
from comity.wire.operator import OperateService, OperatorServicer
from comity.wire.pin import PinOrders, PinServicer
from comity.wire.publish import PublishService, PublishServicer
from comity.wire.throttle import AdmittedCall, Throttle
from comity.wire.upstream import ImportService, UpstreamServicer

_log: Final = logging.getLogger(__name__)

# The four kinds of handlers have different types, which gRPC's types cannot express.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


AdmitHook: TypeAlias = Callable[[str, str], None]
"""Called for each admitted call, with the peer as gRPC names it, and the owner: the caller's name if it showed a
certificate, else ""."""


def ignore_admitted(peer: str, owner: str) -> None:
    """An `AdmitHook` that does nothing."""


class Guard(grpc.aio.ServerInterceptor):
    """The interceptor of one port of one server."""

    def __init__(self, access: Access, throttle: Throttle, admitted: AdmitHook = ignore_admitted) -> None:
        self._access = access
        self._throttle = throttle
        self._admitted = admitted

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        return handler and self._guarded(handler, handler_call_details.method)

    def _guarded(self, handler: Handler, method: str) -> Handler:
        behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        async def answer(requests: AsyncIterator[Any], context: Context) -> None:
            async with self._call(method, context) as call:
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

        return grpc.stream_stream_rpc_method_handler(answer, handler.request_deserializer, handler.response_serializer)

    @asynccontextmanager
    async def _call(self, method: str, context: Context) -> AsyncIterator[_Call]:
        CALL.set(secrets.token_hex(8))
        async with _errors_to_status(method, context):
            bound = _bound(method, context.time_remaining())
            caller = self._access.caller(context)
            call = _Call(context, caller, self._throttle, bound)
            with self._throttle.call(caller.name, caller.block, call.end) as call.running:
                self._admitted(context.peer(), caller.name if caller.certificate else "")
                CALLER.set(caller)  # this task serves only this call
                with span(method.lstrip("/"), rpc_system="grpc", comity_caller=_kind(caller)):
                    async with call.until_ended():
                        yield call


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
        self._sending = True
        try:
            async with asyncio.timeout(limits.SEND_TIMEOUT):
                await self._context.write(message)
        except TimeoutError:
            shut_down(self._context.peer())
            raise
        finally:
            self._sending = False
        self._throttle.progress(self.running)
        await asyncio.sleep(self._throttle.sent(self._caller.name, _size(message)))


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
    except Exception:
        _log.exception("%s failed", method)
        await context.abort(grpc.StatusCode.INTERNAL, "internal error of the node; the reason is in its log")


def _bound(method: str, remaining: float | None) -> float | None:
    """Returns the seconds that a call without a deadline may take; None if it has one. Raises Malformed
    (DEADLINE-REQUIRED)."""
    if remaining is None and method.startswith(_WITHOUT_DEADLINE):
        return limits.DEFAULT_DEADLINE
    if remaining is None or remaining > limits.DEADLINE:
        raise Malformed(
            "the call needs a deadline",
            why=f"a call may take at most {limits.DEADLINE:g} s",
            hint="set a timeout, and resume the work in another call",
            code="DEADLINE-REQUIRED",
        )
    return None


async def _single_request(requests: AsyncIterator[Any]) -> Any:
    async for request in requests:
        return request
    raise Malformed("no request", why="the call ended before its request")


def _size(message: object) -> int:
    return message.ByteSize() if isinstance(message, Message) else len(message)  # type: ignore[arg-type]


_BLOBS: Final = "comity.v1.BlobService"
_WITHOUT_DEADLINE: Final = ("/grpc.health.", "/grpc.reflection.")
"""Services of gRPC itself, by the prefix of their methods."""
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


@dataclass(frozen=True, slots=True)
class Services:
    """The services of a port; None is answered with UNIMPLEMENTED."""

    node: NodeReads | None = None
    logs: LogReads | None = None
    artifacts: ArtifactReads | None = None
    blobs: BlobReads | None = None
    publishing: PublishService | None = None
    operating: OperateService | None = None
    governance: CharterReads | None = None
    offers: OfferService | None = None
    importing: ImportService | None = None
    news: NewsReads | None = None
    audits: AuditReads | None = None
    loading: BundleLoads | None = None
    pinning: PinOrders | None = None


class RefusedServices(grpc.GenericRpcHandler):
    """Answers every call of the named services with an error: of services that another process of the node has.

    Args:
        names: full names of services.
        refusal: makes the error.
    """

    def __init__(self, names: frozenset[str], refusal: Callable[[], ComityError]) -> None:
        self._names = names
        self._refusal = refusal

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        service = handler_call_details.method.strip("/").partition("/")[0]
        return grpc.stream_stream_rpc_method_handler(self._refuse) if service in self._names else None

    async def _refuse(self, requests: AsyncIterator[bytes], context: Context) -> AsyncGenerator[bytes, None]:
        raise self._refusal()
        yield b""


def make_server(
    access: Access,
    services: Services,
    throttle: Throttle,
    *,
    connections: int = 1024,
    shared_port: bool = False,
    admitted: AdmitHook = ignore_admitted,
) -> grpc.aio.Server:
    """Create a server. The caller then calls `server.add_secure_port(address, access.credentials())` and starts it.

    Other services (health, reflection) may be added; the same `Guard` protects them.

    Args:
        throttle: the limits of each caller; several servers may share one.
        connections: the maximum number of connections; gRPC closes further ones.
        shared_port: whether another server of this process listens on the same port. If false, listening fails when the
            port is in use.
        admitted: called for each admitted call (`AdmitHook`).
    """
    options = (
        *_OPTIONS,
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.so_reuseport", int(shared_port)),
    )
    server = grpc.aio.server(interceptors=(Guard(access, throttle, admitted),), options=options)
    if services.node:
        add_NodeServiceServicer_to_server(NodeServicer(services.node), server)
    if services.logs:
        add_LogServiceServicer_to_server(LogServicer(services.logs), server)
    if services.news:
        add_NewsServiceServicer_to_server(NewsServicer(services.news), server)
    if services.artifacts:
        add_ArtifactServiceServicer_to_server(ArtifactServicer(services.artifacts), server)
    if services.blobs:
        _add_blobs(BlobServicer(services.blobs), server)
    if services.publishing:
        add_PublishServiceServicer_to_server(PublishServicer(services.publishing), server)
    if services.operating:
        add_OperatorServiceServicer_to_server(OperatorServicer(services.operating), server)
    if services.governance:
        add_CharterServiceServicer_to_server(CharterServicer(services.governance), server)
    if services.offers:
        add_OfferServiceServicer_to_server(OfferServicer(services.offers), server)
    if services.audits:
        add_AuditServiceServicer_to_server(AuditServicer(services.audits), server)
    if services.pinning:
        add_PinServiceServicer_to_server(PinServicer(services.pinning), server)
    if services.loading:
        add_BundleServiceServicer_to_server(BundleServicer(services.loading), server)
    if services.importing:
        add_UpstreamServiceServicer_to_server(UpstreamServicer(services.importing), server)
    return server


def _add_blobs(blobs: BlobServicer, server: grpc.aio.Server) -> None:
    """Register BlobService with Read as raw bytes, which generated code cannot do. If a call has two handlers, grpcio
    1.80 and older use the first generic one, newer versions the last registered one."""
    read: grpc.RpcMethodHandler[blob_pb2.ReadRequest, Any] = grpc.unary_stream_rpc_method_handler(
        blobs.Read, request_deserializer=blob_pb2.ReadRequest.FromString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_BLOBS, {"Read": read}),))
    add_BlobServiceServicer_to_server(blobs, server)
    server.add_registered_method_handlers(_BLOBS, {"Read": read})
