"""What the modules of the services share: a value that several of them use, and helpers of servicers.

Each service has a module named as its .proto file, with its values, its calls and its servicer. Digests are 64 hex
digits, times Unix seconds, sizes bytes, indexes counted from 0. The codec of a message is derived from the annotations
of its value (`codec`). Lines, notes and proofs are unverified bytes.

The module of each service has a protocol, which the node implements, and its servicer. Methods of a protocol may raise
any error of comity.trust.errors, which is sent to the caller as a status. Arguments are within `limits`, and otherwise
unchecked. Iterators are read with back-pressure, and closed when the caller disconnects. Data iterators yield chunks of
64 KiB to 1 MiB, except the last. No method may block the event loop. Servicers convert messages to values and back,
check limits, and split answers into messages. They have no other logic.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import grpc

from comity.v1 import types_pb2
from comity.wire import limits
from comity.wire.codec import LINE, ORIGIN, MessageCodec

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class LocatedEntry:
    """One entry of one log. In an answer that is a selection: `more`: its author says more about the subject than the
    answer has; `others`: so do authors who are neither named nor members."""

    origin: Annotated[str, ORIGIN]
    index: int
    line: Annotated[bytes, LINE]
    more: bool = False
    others: bool = False


LOCATED: Final = MessageCodec(LocatedEntry, types_pb2.Located)

GO_AHEAD: Final = ("comity-go-ahead", "1")
"""The initial metadata that asks the client for the chunks of an upload."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def batches(lines: Iterable[bytes]) -> Iterable[tuple[bytes, ...]]:
    """Splits lines into batches that fit into one message: at most CHUNK bytes and BATCH_LINES lines."""
    batch: list[bytes] = []
    size = 0
    for line in lines:
        if batch and (size + len(line) > limits.CHUNK or len(batch) == limits.BATCH_LINES):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield tuple(batch)


def compress(context: Context) -> None:
    """Compress each message of the answer that gets smaller by it. Call it before the first one. A caller that asked
    for it knows gzip; gRPC ends a call whose message decompresses to more than it may have."""
    context.set_compression(grpc.Compression.Gzip)


async def at_most(count: int, values: AsyncGenerator[V, None]) -> AsyncGenerator[V, None]:
    """Yields the first `count` values, then closes the iterator."""
    async with aclosing(values):
        async for value in values:
            if count == 0:
                return
            count -= 1
            yield value
