"""What the modules of the services share: values that several of them use, and helpers of their servicers.

Each service has a module named as its .proto file, with its values, their codec, its calls and its servicer. Digests
are 64 hex digits, times Unix seconds, sizes bytes, indexes counted from 0. Each message has a pair of functions
(`encode_*`, `decode_*`) that are inverse to each other. Decoding raises Malformed for a value above `limits`. Lines,
notes and proofs are unverified bytes.

`GatewayUrl` is the URL of a gateway. It comes from unknown nodes and goes into command lines and configuration files,
so it may contain only letters, digits and `:/.-_~[]`, none of which ends a word, a quotation or a line, and it cannot
contain a secret. Quote it nevertheless.

The module of each service has a protocol, which the node implements, and its servicer. Methods of a protocol may raise
any error of comity.trust.errors, which is sent to the caller as a status. Arguments are within `limits`, and otherwise
unchecked. Iterators are read with back-pressure, and closed when the caller disconnects. Data iterators yield chunks of
64 KiB to 1 MiB, except the last. No method may block the event loop. Servicers convert messages to values and back,
check limits, and split answers into messages. They have no other logic.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import grpc

from comity.trust.errors import Malformed
from comity.v1 import types_pb2
from comity.wire import limits
from comity.wire.limits import GATEWAY_URL, read_integer, read_line, read_origin
from comity.wire.tls import Address

_PORTS: Final = {"http": 80, "https": 443}
_URL: Final = re.compile(r"(https?)://([^/]+)((?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)*)\Z")


@dataclass(frozen=True, slots=True)
class GatewayUrl:
    """The URL of a gateway. Create it with `parse` only; `str` returns the parsed text."""

    text: str
    scheme: str
    address: Address

    @classmethod
    def parse(cls, text: str) -> GatewayUrl:
        """`https://models.example.org`, `http://192.0.2.1:7480/hub`: no user, query, fragment or closing slash. Raises
        Malformed (GATEWAY-URL)."""
        found = _URL.match(text) if len(text) <= GATEWAY_URL else None
        if found is None:
            raise _refused()
        scheme, place, _ = found.groups()
        bare = ":" not in place.rpartition("]")[2]
        try:
            address = Address.parse(f"{place}:{_PORTS[scheme]}" if bare else place)
        except Malformed as error:
            raise _refused() from error
        return cls(text, scheme, address)

    def __str__(self) -> str:
        return self.text


def _refused() -> Malformed:
    """The error for an invalid URL. It does not contain the URL, which may contain a password."""
    why = f"allowed: at most {GATEWAY_URL} characters; letters, digits and ._~- in the path; no user, no query"
    return Malformed("not the URL of a gateway", why=why, hint="https://HOST[:PORT][/PATH]", code="GATEWAY-URL")


@dataclass(frozen=True, slots=True)
class LocatedEntry:
    """One entry of one log."""

    origin: str
    index: int
    line: bytes


def encode_located(located: LocatedEntry) -> types_pb2.Located:
    return types_pb2.Located(origin=located.origin, index=located.index, line=located.line)


def decode_located(message: types_pb2.Located) -> LocatedEntry:
    return LocatedEntry(read_origin(message.origin), read_integer(message.index, "index"), read_line(message.line))


GO_AHEAD: Final = ("comity-go-ahead", "1")
"""The initial metadata that asks the client for the chunks of an upload."""

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
