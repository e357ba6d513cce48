"""What every call passes before a servicer sees a byte of it. In this order:

(1) whatever goes wrong from here on leaves as a status of the one table in `errors`; a fault of our own is logged here
    and told to nobody;
(2) a deadline is required, of at most an hour;
(3) the door says who calls, or refuses;
(4) that caller's calls are counted;
(5) only now is the request read, with patience for each message; and bytes sent are paced.

gRPC would read a single request before it runs a handler, and wait for it without bound. On the line a single request
is a stream of one: so every handler is wrapped as a reader of a stream.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message

from comity.trust.errors import ComityError, Malformed, Refused, Unavailable
from comity.wire import limits
from comity.wire.doors import CALL, CALLER, Caller, Door
from comity.wire.errors import to_status
from comity.wire.throttle import Throttle

_log: Final = logging.getLogger(__name__)

# The four kinds of handlers take and give different things; gRPC's types cannot say so.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Guard(grpc.aio.ServerInterceptor):
    """Stands at one door of one server."""

    def __init__(self, door: Door, throttle: Throttle) -> None:
        self._door = door
        self._throttle = throttle

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        return handler and self._guarded(handler, handler_call_details.method)

    def _guarded(self, handler: Handler, method: str) -> Handler:
        behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        async def answer(requests: AsyncIterator[Any], context: Context) -> Any:
            patient = _patiently(requests)
            return behaviour(patient if handler.request_streaming else await _only(patient), context)

        async def single(requests: AsyncIterator[Any], context: Context) -> Any:
            async with self._call(method, context):
                return await (await answer(requests, context))

        async def streaming(requests: AsyncIterator[Any], context: Context) -> None:
            async with self._call(method, context) as caller:
                messages = await answer(requests, context)
                if not hasattr(messages, "__aiter__"):
                    await messages  # writes by itself, as grpcio's own health service does
                    return
                async with aclosing(messages):
                    async for message in messages:
                        await context.write(message)
                        await asyncio.sleep(self._throttle.sent(caller.name, _size(message)))

        serializers = (handler.request_deserializer, handler.response_serializer)
        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(streaming, *serializers)
        return grpc.stream_unary_rpc_method_handler(single, *serializers)

    @asynccontextmanager
    async def _call(self, method: str, context: Context) -> AsyncIterator[Caller]:
        CALL.set(secrets.token_hex(8))
        async with _errors_answered(method, context):
            _require_deadline(context.time_remaining())
            caller = self._door.caller(context)
            with self._throttle.call(caller.name):
                CALLER.set(caller)  # this task serves this call and ends with it
                yield caller


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


async def _patiently(requests: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    while True:
        try:
            async with asyncio.timeout(limits.PATIENCE):
                request = await anext(requests)
        except StopAsyncIteration:
            return
        yield request


async def _only(requests: AsyncIterator[Any]) -> Any:
    async for request in requests:
        return request
    raise Malformed("no request", why="the call ended before its message")


def _size(message: object) -> int:
    return message.ByteSize() if isinstance(message, Message) else len(message)  # type: ignore[arg-type]
