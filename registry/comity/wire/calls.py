"""Client calls: a deadline per call, a timeout per message, limits on streams, and errors of comity.trust.errors.

Calls and transfers have spans, for a tracer that a node may have; without one they cost a comparison. The wire and the
transfer know no tracing library: the owner of a tracer installs a function here (`traced`). Nothing about a trace is
sent to other nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sized
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, contextmanager, nullcontext
from dataclasses import field
from functools import update_wrapper
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar, cast, overload

import grpc
from google.protobuf.message import Message

from comity.trust.errors import ComityError, Malformed, Unavailable
from comity.trust.frozen import frozen
from comity.wire import limits
from comity.wire.access import Caller
from comity.wire.errors import from_rpc
from comity.wire.messages import GO_AHEAD
from comity.wire.rpc import Rpc, rpc_of
from comity.wire.tls import PinnedChannel

SpanStart: TypeAlias = Callable[[str, Mapping[str, str | int]], AbstractContextManager[object]]
"""Begins a span with a name and attributes; it ends with the block."""

_NONE: Final = nullcontext()
_start: SpanStart | None = None
P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")


def span(name: str, **attributes: str | int) -> AbstractContextManager[object]:
    """A span while the block runs. The first underscore of an attribute stands for a full stop: `rpc_system`."""
    return _NONE if _start is None else _start(name, attributes)


@contextmanager
def traced(start: SpanStart) -> Iterator[None]:
    """Make spans of this process with `start` while the block runs; for one node in a process."""
    global _start
    before, _start = _start, start
    try:
        yield
    finally:
        _start = before


@frozen
class Calls:
    """Makes calls on one connection. `timeout` is the time, in seconds, for an answer or for the next message."""

    connection: PinnedChannel
    timeout: float
    _stubs: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    async def unary(self, rpc: Rpc, request: Message) -> Any:
        async with self._failures():
            return _parsed(await self._stub(rpc)(request, timeout=self.timeout))

    async def stream(
        self, rpc: Rpc, request: Message, *, items: int | None = None, size: int | None = None
    ) -> AsyncGenerator[Any, None]:
        """Yields the messages of an answer. Raises Malformed (UNBOUNDED) after `items` messages or `size` bytes, by
        default those of the declaration. The deadline follows from `size`."""
        items, size = rpc.items if items is None else items, rpc.size if size is None else size
        async with self._failures():
            answer = self._stub(rpc)(request, timeout=self._deadline(size))
            size += items * limits.MESSAGE_COST
            try:
                while (message := await self._next(answer)) is not grpc.aio.EOF:
                    items -= 1
                    size -= _size(message)
                    if items < 0 or size < 0:
                        raise Malformed("the answer is too long", why="the node sent more than asked", code="UNBOUNDED")
                    yield message
            finally:
                answer.cancel()

    async def join(self, rpc: Rpc, request: Message, size: int) -> bytes:
        """Returns the chunks of an answer, joined."""
        data = bytearray()
        async with aclosing(self.stream(rpc, request, items=size // limits.MIN_CHUNK + 1, size=size)) as chunks:
            async for chunk in chunks:
                data += chunk.data
        return bytes(data)

    async def upload(self, rpc: Rpc, header: Message, chunks: AsyncIterator[Message], *, size: int) -> Any:
        """Send `header`, then `chunks` (about `size` bytes) if the node asks for them."""
        async with self._failures():
            call = self._stub(rpc)(timeout=self._deadline(size))
            try:
                async with asyncio.timeout(self.timeout):
                    await call.write(header)
                    wanted = GO_AHEAD in tuple(await call.initial_metadata())
                if wanted:
                    await self._send(call, chunks)
                return _parsed(await call)
            finally:
                call.cancel()

    async def _send(self, call: Any, chunks: AsyncIterator[Message]) -> None:
        try:
            async for chunk in chunks:
                async with asyncio.timeout(self.timeout):
                    await call.write(chunk)
            await call.done_writing()
        except (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError) as error:
            # The node ended the call. gRPC loses its status if a write was in progress.
            raise Unavailable(
                "the node ended the upload early", hint="submit again to get the reason", code="BROKEN-OFF"
            ) from error

    async def _next(self, answer: Any) -> Any:
        async with asyncio.timeout(self.timeout):
            return _parsed(await answer.read())

    def _stub(self, rpc: Rpc) -> Any:
        stub = self._stubs.get(rpc.path)
        if stub is None:
            stub = self._stubs[rpc.path] = rpc.stub(self.connection.channel)
        return stub

    def _deadline(self, size: int) -> float:
        return min(self.timeout + size / limits.SLOWEST, limits.LONGEST_CALL)

    @asynccontextmanager
    async def _failures(self) -> AsyncIterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise await self._error(error) from error
        except TimeoutError as error:
            raise Unavailable(
                "the node does not answer", why=f"no message in {self.timeout:g} s", code="DEADLINE"
            ) from error
        except grpc.aio.UsageError as error:
            raise _connection_closed() from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise _connection_closed() from error

    async def _error(self, error: grpc.aio.AioRpcError) -> ComityError:
        failure = from_rpc(error)
        failure.by_node = not self.connection.local
        if failure.code != "UNREACHABLE":
            return failure
        return await self.connection.explain() or failure


def _connection_closed() -> Unavailable:
    return Unavailable("the call was cancelled", why="its connection was closed on this side", code="CANCELLED")


def _parsed(message: R | None) -> R:
    """Raises Malformed for None, which gRPC returns for a message that it cannot parse."""
    if message is None:
        raise Malformed("the answer is not a valid message of comity.v1", why="its bytes do not parse")
    return message


def _size(message: object) -> int:
    return message.ByteSize() if isinstance(message, Message) else len(cast(Sized, message))


class ServiceCalls:
    """The calls of one service on a connection. `NodeClient` inherits those of most services."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls


@overload
def call(method: Callable[Concatenate[Any, Caller, P], R]) -> Callable[Concatenate[ServiceCalls, P], R]: ...
@overload
def call(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[ServiceCalls, P], R]: ...
def call(method: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the client's method for a call: the arguments of the service's method, but its caller, and its answer."""
    rpc = rpc_of(method)

    async def ask(service: ServiceCalls, *arguments: Any, **named: Any) -> Any:
        answer = await service._calls.unary(rpc, rpc.request.encode(*arguments, **named))
        return rpc.answer.decode(answer)

    async def ask_stream(service: ServiceCalls, *arguments: Any, **named: Any) -> AsyncGenerator[Any, None]:
        async with aclosing(service._calls.stream(rpc, rpc.request.encode(*arguments, **named))) as answer:
            async for message in answer:
                yield message if rpc.raw else rpc.answer.decode(message)

    return update_wrapper(ask_stream if rpc.descriptor.server_streaming else ask, method)


def collected(
    method: Callable[Concatenate[Any, P], AsyncGenerator[V, None]],
) -> Callable[Concatenate[ServiceCalls, P], Coroutine[Any, Any, tuple[V, ...]]]:
    """Returns the client's method for a call whose answer is a stream, which it returns as a whole."""
    rpc = rpc_of(method)

    async def ask(service: ServiceCalls, /, *arguments: P.args, **named: P.kwargs) -> tuple[V, ...]:
        async with aclosing(service._calls.stream(rpc, rpc.request.encode(*arguments, **named))) as answer:
            return tuple([rpc.answer.decode(message) async for message in answer])

    return update_wrapper(ask, method)
