"""What the servicers share.

The module of each service has a protocol, which the node implements, and its servicer. Methods of a protocol may raise
any error of comity.trust.errors, which is sent to the caller as a status. Arguments are within `limits`, and otherwise
unchecked. Iterators are read with back-pressure, and closed when the caller disconnects. Data iterators yield chunks of
64 KiB to 1 MiB, except the last. No method may block the event loop.

Servicers convert messages to values and back, check limits, and split answers into messages. They have no other logic.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any, TypeAlias, TypeVar

import grpc

from comity.wire import limits

V = TypeVar("V")
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


async def at_most(count: int, values: AsyncGenerator[V, None]) -> AsyncGenerator[V, None]:
    """Yields the first `count` values, then closes the iterator."""
    async with aclosing(values):
        async for value in values:
            if count == 0:
                return
            count -= 1
            yield value
