"""What the modules of the services share: checked fields, values that several of them use, helpers of servicers.

Each service has a module named as its .proto file, with its values, their codec, its calls and its servicer. Digests
are 64 hex digits, times Unix seconds, sizes bytes, indexes counted from 0. Each message has a pair of functions
(`encode_*`, `decode_*`) that are inverse to each other. Decoding raises Malformed for a value above `limits`. Lines,
notes and proofs are unverified bytes.

The module of each service has a protocol, which the node implements, and its servicer. Methods of a protocol may raise
any error of comity.trust.errors, which is sent to the caller as a status. Arguments are within `limits`, and otherwise
unchecked. Iterators are read with back-pressure, and closed when the caller disconnects. Data iterators yield chunks of
64 KiB to 1 MiB, except the last. No method may block the event loop. Servicers convert messages to values and back,
check limits, and split answers into messages. They have no other logic.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import grpc

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.v1 import types_pb2
from comity.wire import limits

M = TypeVar("M")
V = TypeVar("V")


def read_digest(data: bytes) -> Digest:
    if len(data) != 32:
        raise Malformed("not a sha256 digest", why=f"expected 32 bytes, got {len(data)}")
    return Digest(data.hex())


def encode_digest(value: Digest) -> bytes:
    return bytes.fromhex(value)


def read_integer(value: int, what: str, *, least: int = 0, most: int = limits.INTEGER) -> int:
    if not least <= value <= most:
        raise Malformed(f"{what} out of range", why=f"{value} is not between {least} and {most}")
    return value


def read_text(value: str, what: str, limit: int) -> str:
    """Returns a printable string of at most `limit` bytes, without terminal controls or line breaks."""
    if len(value) > limit or len(value.encode("utf-8")) > limit:
        raise Malformed(f"{what} too long", why=f"at most {limit} bytes are allowed")
    if not value.isprintable():
        raise Malformed(f"{what} is not printable", why="it contains a control character or a line break")
    return value


def read_origin(value: str) -> str:
    """Returns the name of a log: 1 to 255 bytes without spaces or plus signs, as signed notes require."""
    if not value or "+" in value or any(character.isspace() for character in value):
        raise Malformed("not an origin", why="the name of a log must not be empty, or contain spaces or plus signs")
    return read_text(value, "origin", limits.ORIGIN)


def read_log(value: str) -> str:
    """Returns the name of a log in a request: its origin, or its verifier key (`origin+id+key`)."""
    name, plus, key = value.partition("+")
    read_text(key, "key of a log", limits.LOG_KEY)
    return read_origin(name) + plus + key


def read_data(value: bytes, what: str, limit: int) -> bytes:
    if len(value) > limit:
        raise Malformed(f"{what} too large", why=f"{len(value)} bytes, at most {limit}")
    return value


def read_line(value: bytes) -> bytes:
    """Returns a log entry: one line, not empty."""
    if not value or b"\n" in value:
        raise Malformed("not a log line", why="an entry is one line, not empty, without line feed")
    return read_data(value, "line", limits.LINE)


def read_many(items: Sequence[M], what: str, limit: int, decode: Callable[[M], V]) -> tuple[V, ...]:
    """Returns all items of a repeated field. Checks the count first: 4 MiB can encode two million empty items."""
    if len(items) > limit:
        raise Malformed(f"too many {what}", why=f"{len(items)}, at most {limit}")
    return tuple(decode(item) for item in items)


def read_hashes(items: Sequence[bytes], limit: int) -> tuple[bytes, ...]:
    return read_many(items, "hashes", limit, lambda item: encode_digest(read_digest(item)))


@dataclass(frozen=True, slots=True)
class LocatedEntry:
    """One entry of one log. In an answer that is a selection: `more`: its author says more about the subject than the
    answer has; `others`: so do authors who are neither named nor members."""

    origin: str
    index: int
    line: bytes
    more: bool = False
    others: bool = False


def encode_located(located: LocatedEntry) -> types_pb2.Located:
    marks = {"more": located.more, "others": located.others}
    return types_pb2.Located(origin=located.origin, index=located.index, line=located.line, **marks)


def decode_located(message: types_pb2.Located) -> LocatedEntry:
    place = read_origin(message.origin), read_integer(message.index, "index"), read_line(message.line)
    return LocatedEntry(*place, message.more, message.others)


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
