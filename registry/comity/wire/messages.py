"""What the modules of the services share: a value that several of them use, and helpers of what they serve by hand.

Each service has a module named as its .proto file, with its values, its calls as the node implements them (`rpc`), and
its calls as a client makes them. Digests are 64 hex digits, times Unix seconds, sizes bytes, indexes counted from 0.
The codec of a message is derived from the annotations of its value (`codec`). Lines, notes and proofs are unverified
bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from typing import TYPE_CHECKING, Annotated, Final

import grpc

from comity.trust.encoding import LAST_TIME, Digest
from comity.trust.frozen import frozen
from comity.wire import limits
from comity.wire.codec import LINE, ORIGIN, Constant, Number

if TYPE_CHECKING:
    from comity.wire.rpc import Context


@frozen
class LocatedEntry:
    """One entry of one log. In an answer that is a selection: `more`: its author says more about the subject than the
    answer has; `others`: so do authors who are neither named nor members.

    `known_since`: by when the node that answers had verified the line, in POSIX seconds by its own clock; 0: it does
    not say.

    Not in the message: `attached`: it is about keys or a node, and comes along with statements; `digest`: SHA-256 of
    the line, where the node knows it.
    """

    origin: Annotated[str, ORIGIN]
    index: int
    line: Annotated[bytes, LINE]
    more: bool = False
    others: bool = False
    attached: Annotated[bool, Constant(False)] = field(default=False, compare=False, repr=False)
    digest: Annotated[Digest | None, Constant(None)] = field(default=None, compare=False, repr=False)
    known_since: Annotated[int, Number(most=LAST_TIME)] = field(default=0, compare=False)


GO_AHEAD: Final = ("comity-go-ahead", "1")
"""The initial metadata that asks the client for the chunks of an upload."""


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
