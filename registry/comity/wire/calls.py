"""Client calls: a deadline per call, a timeout per message, limits on streams, and errors of comity.trust.errors.

Calls and transfers have spans, for a tracer that a node may have; without one they cost a comparison. The wire and the
transfer know no tracing library: the owner of a tracer installs a function here (`traced`). Nothing about a trace is
sent to other nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.message import Message

from comity.trust.errors import ComityError, Malformed, Unavailable
from comity.v1.blob_pb2 import Chunk
from comity.wire import limits
from comity.wire.errors import from_rpc
from comity.wire.messages import GO_AHEAD
from comity.wire.tls import PinnedChannel

SpanStart: TypeAlias = Callable[[str, Mapping[str, str | int]], AbstractContextManager[object]]
"""Begins a span with a name and attributes; it ends with the block."""

_NONE: Final = nullcontext()
_start: SpanStart | None = None
Q = TypeVar("Q")
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


@dataclass(frozen=True, slots=True)
class Calls:
    """Makes calls on one connection. `timeout` is the time, in seconds, for an answer or for the next message."""

    connection: PinnedChannel
    timeout: float

    async def unary(self, method: grpc.aio.UnaryUnaryMultiCallable[Q, R], request: Q) -> R:
        async with self._failures():
            return _parsed(await method(request, timeout=self.timeout))

    async def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Q, R],
        request: Q,
        *,
        items: int,
        size: int,
        deadline: float | None = None,
    ) -> AsyncGenerator[R, None]:
        """Yields the messages of an answer. Raises Malformed (UNBOUNDED) after `items` messages or `size` bytes.

        `deadline` is in seconds; by default it follows from `size`.
        """
        async with self._failures():
            answer = method(request, timeout=deadline or self._deadline(size))
            size += items * limits.MESSAGE_COST
            try:
                while (message := await self._next(answer)) is not grpc.aio.EOF:
                    items -= 1
                    size -= _size(message)
                    if items < 0 or size < 0:
                        raise Malformed("the answer is too long", why="the node sent more than asked", code="UNBOUNDED")
                    yield cast(R, message)
            finally:
                answer.cancel()

    async def all(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Q, R],
        request: Q,
        decode: Callable[[R], V],
        items: int,
        size: int = limits.ANSWER,
    ) -> tuple[V, ...]:
        """Returns all messages of an answer, decoded."""
        async with aclosing(self.stream(method, request, items=items, size=size)) as messages:
            return tuple([decode(message) async for message in messages])

    async def join(self, method: grpc.aio.UnaryStreamMultiCallable[Q, Chunk], request: Q, size: int) -> bytes:
        """Returns the chunks of an answer, joined."""
        data = bytearray()
        async with aclosing(self.stream(method, request, items=size // limits.MIN_CHUNK + 1, size=size)) as chunks:
            async for chunk in chunks:
                data += chunk.data
        return bytes(data)

    async def upload(
        self, method: grpc.aio.StreamUnaryMultiCallable[Q, R], header: Q, chunks: AsyncIterator[Q], *, size: int
    ) -> R:
        """Send `header`, then `chunks` (about `size` bytes) if the node asks for them."""
        async with self._failures():
            call = method(timeout=self._deadline(size))
            try:
                async with asyncio.timeout(self.timeout):
                    await call.write(header)
                    wanted = GO_AHEAD in tuple(await call.initial_metadata())
                if wanted:
                    await self._send(call, chunks)
                return _parsed(await call)
            finally:
                call.cancel()

    async def _send(self, call: grpc.aio.StreamUnaryCall[Q, R], chunks: AsyncIterator[Q]) -> None:
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

    async def _next(self, answer: grpc.aio.UnaryStreamCall[Q, R]) -> object:
        async with asyncio.timeout(self.timeout):
            return _parsed(await answer.read())

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
    """The calls of one service on a connection. `NodeClient` inherits those of all services; a stub is made when it
    is first used."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
