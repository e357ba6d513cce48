"""What every call passes before a servicer sees a byte of it. In this order:

(1) whatever goes wrong from here on leaves as a status of the one table in `errors`; a fault of our own is logged here
    and told to nobody;
(2) a deadline is required, of at most an hour;
(3) the door says who calls, or refuses;
(4) that caller's calls are counted;
(5) only now is the request read, with patience for each message, and a bounded number of requests at once: gRPC keeps
    what came of them;
(6) each message that is sent has to be taken within a time, and bytes are paced.

gRPC would read a single request before it runs a handler, and wait for it without bound; and it would send a single
answer after the handler has ended, when nobody counts the call any more. On the line a single message is a stream of
one: so every handler is wrapped as one of two streams.


A gRPC server for one door, with a guard in front and only the services that the door offers."""

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
from comity.v1.blob_pb2_grpc import add_BlobServiceServicer_to_server
from comity.v1.charter_pb2_grpc import add_CharterServiceServicer_to_server
from comity.v1.log_pb2_grpc import add_LogServiceServicer_to_server
from comity.v1.node_pb2_grpc import add_NodeServiceServicer_to_server
from comity.v1.offer_pb2_grpc import add_OfferServiceServicer_to_server
from comity.v1.operator_pb2_grpc import add_OperatorServiceServicer_to_server
from comity.v1.publish_pb2_grpc import add_PublishServiceServicer_to_server
from comity.v1.upstream_pb2_grpc import add_UpstreamServiceServicer_to_server
from comity.wire import limits
from comity.wire.access import CALL, CALLER, Access, Caller
from comity.wire.connections import shut_down
from comity.wire.errors import to_status
from comity.wire.limits import AdmittedCall, Throttle
from comity.wire.offer import OfferService, OfferServicer
from comity.wire.services import (
    ArtifactReads,
    ArtifactServicer,
    BlobReads,
    BlobServicer,
    CharterReads,
    CharterServicer,
    LogReads,
    LogServicer,
    NodeReads,
    NodeServicer,
    OperateService,
    OperatorServicer,
    PublishService,
    PublishServicer,
)
from comity.wire.upstream import ImportService, UpstreamServicer

_log: Final = logging.getLogger(__name__)

# The four kinds of handlers take and give different things; gRPC's types cannot say so.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


Admitted: TypeAlias = Callable[[str, str], None]
"""Is told of each call that is let in: the peer as gRPC names it, and the certificate that it showed, or ""."""


def ignored(peer: str, owner: str) -> None:
    """An `Admitted` that wants to know nothing."""


class Guard(grpc.aio.ServerInterceptor):
    """Stands at one port of one server."""

    def __init__(self, door: Access, throttle: Throttle, admitted: Admitted = ignored) -> None:
        self._door = door
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
                patient = call.patiently(requests)
                answered = behaviour(patient if handler.request_streaming else await _only(patient), context)
                if not handler.response_streaming:
                    await call.send(await answered)
                elif hasattr(answered, "__aiter__"):
                    async with aclosing(answered):
                        async for message in answered:
                            await call.send(message)
                else:
                    await answered  # writes by itself, as grpcio's own health service does

        return grpc.stream_stream_rpc_method_handler(answer, handler.request_deserializer, handler.response_serializer)

    @asynccontextmanager
    async def _call(self, method: str, context: Context) -> AsyncIterator[_Call]:
        CALL.set(secrets.token_hex(8))
        async with _errors_answered(method, context):
            _require_deadline(context.time_remaining())
            caller = self._door.caller(context)
            call = _Call(context, caller, self._throttle)
            with self._throttle.call(caller.name, caller.block, call.end) as call.running:
                self._admitted(context.peer(), caller.name if caller.certificate else "")
                CALLER.set(caller)  # this task serves this call and ends with it
                async with call.until_ended():
                    yield call


class _Call:
    """One admitted call: its messages are awaited and sent with patience, and it can be ended for others' sake."""

    def __init__(self, context: Context, caller: Caller, throttle: Throttle) -> None:
        self.running = AdmittedCall(caller.block)
        self._context = context
        self._caller = caller
        self._throttle = throttle
        self._bound = asyncio.timeout(None)
        self._sending = False

    def end(self) -> None:
        """Have the call end now: another block's call takes its place."""
        if self._sending:
            shut_down(self._context.peer())  # what is being sent would hold the call's end up
        self._bound.reschedule(0)

    @asynccontextmanager
    async def until_ended(self) -> AsyncIterator[None]:
        """Raises Refused (TOO-MANY-CALLS) within the block once `end` was called."""
        try:
            async with self._bound:
                yield
        except TimeoutError:
            if not self._bound.expired():
                raise
            raise Refused(
                "the call was ended for another one",
                why="all that may run at once do, and this address block had the most",
                hint="make fewer calls at once",
                code="TOO-MANY-CALLS",
            ) from None

    async def patiently(self, requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        while True:
            try:
                async with asyncio.timeout(limits.PATIENCE), self._throttle.awaiting(self.running):
                    request = await anext(requests)
            except StopAsyncIteration:
                return
            self._throttle.progress(self.running)
            yield request

    async def send(self, message: Any) -> None:
        """Send one message. A caller that does not take it for `limits.STALL` seconds loses its connection: nothing
        else would free what gRPC holds for it."""
        self._sending = True
        try:
            async with asyncio.timeout(limits.STALL):
                await self._context.write(message)
        except TimeoutError:
            shut_down(self._context.peer())
            raise
        finally:
            self._sending = False
        self._throttle.progress(self.running)
        await asyncio.sleep(self._throttle.sent(self._caller.name, _size(message)))


@asynccontextmanager
async def _errors_answered(method: str, context: Context) -> AsyncIterator[None]:
    try:
        yield
    except grpc.aio.BaseError:
        raise  # gRPC's own: the call was aborted, or the caller has gone
    except ComityError as error:
        await context.abort_with_status(to_status(error))
    except DecodeError as error:
        malformed = Malformed("the request is no message of comity.v1", why=str(error))
        await context.abort_with_status(to_status(malformed))
    except TimeoutError:
        late = Unavailable("too slow", why=f"nothing happened for {limits.PATIENCE:g} s", code="DEADLINE")
        with contextlib.suppress(grpc.aio.InternalError):  # the connection may be closed already
            await context.abort_with_status(to_status(late))
    except Exception:
        _log.exception("%s failed", method)
        await context.abort(grpc.StatusCode.INTERNAL, "the node failed to answer; its log says why")


def _require_deadline(remaining: float | None) -> None:
    if remaining is None or remaining > limits.DEADLINE:
        raise Refused(
            "the call needs a deadline",
            why=f"calls end within {limits.DEADLINE:g} s",
            hint="set a timeout, and resume where it was not enough",
            code="DEADLINE-REQUIRED",
        )


async def _only(requests: AsyncIterator[Any]) -> Any:
    async for request in requests:
        return request
    raise Malformed("no request", why="the call ended before its message")


def _size(message: object) -> int:
    return message.ByteSize() if isinstance(message, Message) else len(message)  # type: ignore[arg-type]


_BLOBS: Final = "comity.v1.BlobService"
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", limits.MESSAGE),
    ("grpc.max_send_message_length", limits.MESSAGE),
    ("grpc.max_concurrent_streams", limits.STREAMS),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # The pings of our own clients are welcome; by default they count as abuse on a quiet stream.
    ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
    # A connection that has not ended its handshake by then is closed; gRPC's own default is two minutes.
    ("grpc.server_handshake_timeout_ms", int(limits.HANDSHAKE * 1000)),
    ("grpc.max_connection_idle_ms", int(limits.IDLE_CONNECTION * 1000)),
)


@dataclass(frozen=True, slots=True)
class Services:
    """The thinking halves that a door offers; None is answered as not offered here."""

    node: NodeReads | None = None
    logs: LogReads | None = None
    artifacts: ArtifactReads | None = None
    blobs: BlobReads | None = None
    publishing: PublishService | None = None
    operating: OperateService | None = None
    governance: CharterReads | None = None
    offers: OfferService | None = None
    importing: ImportService | None = None


def make_server(
    door: Access,
    services: Services,
    throttle: Throttle,
    *,
    connections: int = 1024,
    shared_port: bool = False,
    admitted: Admitted = ignored,
) -> grpc.aio.Server:
    """A server that listens nowhere yet: `server.add_secure_port(address, door.credentials())`, then start it.

    Other services (health, reflection) may be added to it, and stand behind the same guard.

    Args:
        throttle: what each caller may use; several servers may share one.
        connections: how many there may be at once; gRPC closes those beyond.
        shared_port: whether another server of this process listens at the same port. Without it the port is refused
            where anybody listens already.
        admitted: is told of each call that is let in: the peer as gRPC names it, and the owner of its connection.
    """
    options = (
        *_OPTIONS,
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.so_reuseport", int(shared_port)),
    )
    server = grpc.aio.server(interceptors=(Guard(door, throttle, admitted),), options=options)
    if services.node:
        add_NodeServiceServicer_to_server(NodeServicer(services.node), server)
    if services.logs:
        add_LogServiceServicer_to_server(LogServicer(services.logs), server)
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
    if services.importing:
        add_UpstreamServiceServicer_to_server(UpstreamServicer(services.importing), server)
    return server


def _add_blobs(blobs: BlobServicer, server: grpc.aio.Server) -> None:
    """Register BlobService with Read as bare bytes, which generated code cannot say. Of two handlers for one call,
    grpcio 1.80 and older take the first generic one, newer ones the last registered one."""
    read: grpc.RpcMethodHandler[blob_pb2.ReadRequest, Any] = grpc.unary_stream_rpc_method_handler(
        blobs.Read, request_deserializer=blob_pb2.ReadRequest.FromString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_BLOBS, {"Read": read}),))
    add_BlobServiceServicer_to_server(blobs, server)
    server.add_registered_method_handlers(_BLOBS, {"Read": read})
