"""Calls as such: a deadline for each, patience for each message, bounds while a stream arrives, our errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sized
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message

from comity.trust.errors import ComityError, Malformed, Unavailable
from comity.wire import limits
from comity.wire.channels import Connection
from comity.wire.errors import from_rpc

Q = TypeVar("Q")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Calls:
    """Makes calls on one connection. `patience` is how many seconds an answer, or the next message, may take."""

    connection: Connection
    patience: float

    async def unary(self, method: grpc.aio.UnaryUnaryMultiCallable[Q, R], request: Q) -> R:
        async with self._failures():
            return await method(request, timeout=self.patience)

    async def stream(
        self, method: grpc.aio.UnaryStreamMultiCallable[Q, R], request: Q, *, items: int, size: int
    ) -> AsyncGenerator[R, None]:
        """The messages of an answer of at most `items` messages and `size` bytes. A longer one is cut off with
        Malformed (UNBOUNDED)."""
        async with self._failures():
            answer = method(request, timeout=self._deadline(size))
            size += items * limits.MESSAGE_COST
            try:
                while (message := await self._next(answer)) is not None:
                    items -= 1
                    size -= _size(message)
                    if items < 0 or size < 0:
                        raise Malformed(
                            "the answer does not end", why="the node sent more than asked", code="UNBOUNDED"
                        )
                    yield message
            finally:
                answer.cancel()

    async def upload(
        self, method: grpc.aio.StreamUnaryMultiCallable[Q, R], requests: AsyncIterator[Q], *, size: int
    ) -> R:
        """Send `requests`, about `size` bytes in all. Where the node answers early, the rest is not sent."""
        async with self._failures():
            call = method(timeout=self._deadline(size))
            try:
                async for request in requests:
                    if call.done():
                        break
                    async with asyncio.timeout(self.patience):
                        await call.write(request)
                if not call.done():
                    await call.done_writing()
                return await call
            finally:
                call.cancel()

    async def _next(self, answer: grpc.aio.UnaryStreamCall[Q, R]) -> R | None:
        async with asyncio.timeout(self.patience):
            message = await answer.read()
        return None if message is grpc.aio.EOF else cast(R, message)

    def _deadline(self, size: int) -> float:
        return min(self.patience + size / limits.SLOWEST, limits.DEADLINE)

    @asynccontextmanager
    async def _failures(self) -> AsyncIterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise await self._meaning(error) from error
        except TimeoutError as error:
            raise Unavailable(
                "the node fell silent", why=f"no message in {self.patience:g} s", code="DEADLINE"
            ) from error
        except DecodeError as error:
            raise Malformed("the answer is no message of comity.v1", why=str(error)[:200]) from error

    async def _meaning(self, error: grpc.aio.AioRpcError) -> ComityError:
        failure = from_rpc(error)
        if failure.code != "UNREACHABLE":
            return failure
        return await self.connection.explain() or failure


def _size(message: object) -> int:
    return message.ByteSize() if isinstance(message, Message) else len(cast(Sized, message))
