"""`CharterService`: certified epochs, statements about the next one, requests to join. Values and calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from itertools import groupby
from typing import Annotated, Protocol, TypeAlias

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.v1 import charter_pb2, node_pb2
from comity.wire import limits
from comity.wire.access import Caller
from comity.wire.calls import ServiceCalls, call, collected
from comity.wire.codec import At, Read
from comity.wire.fields import read_line, read_many
from comity.wire.messages import LocatedEntry
from comity.wire.node import CHARTER, Charter, charter_parts, join_charter
from comity.wire.rpc import Context, Rpcs, rpc_of

rpc = Rpcs(charter_pb2)


@frozen
class AskReceipt:
    """The receipt of a request to join. `since` is the time of its first request; `waiting` counts all requests."""

    member: Digest
    since: int
    waiting: int


def card_lines(lines: Sequence[bytes]) -> tuple[bytes, ...]:
    """Check the number and size of the lines of a request to join. Raises Malformed."""
    card = read_many(lines, "lines of a card", limits.ASK_LINES, read_line)
    if not card or sum(map(len, card)) > limits.ASK_BYTES:
        raise Malformed("not a card", why=f"1 to {limits.ASK_LINES} lines, {limits.ASK_BYTES} bytes together")
    return card


_Card: TypeAlias = Annotated[Sequence[bytes], Read(card_lines)]


@frozen
class JoinRequest:
    """A waiting request to join, with the lines of its card: inception, rotations, node-records, addresses."""

    member: Digest
    since: int
    lines: Annotated[tuple[bytes, ...], Read(card_lines)]


async def _serve_epochs(
    service: CharterService, request: charter_pb2.GetEpochsRequest, context: Context
) -> AsyncIterator[node_pb2.GetCharterResponse]:
    epochs_left, bytes_left = limits.EPOCHS, limits.ANSWER
    async with aclosing(rpc_of(CharterService.epochs).ask(service, request)) as epochs:
        async for charter in epochs:
            epochs_left -= 1
            bytes_left -= len(charter.body) + sum(map(len, charter.certificate))
            if epochs_left < 0 or (bytes_left < 0 and charter.epoch > request.from_epoch):
                return
            for part in charter_parts(charter):
                yield CHARTER.encode(part)


class CharterService(Protocol):
    @rpc("GetEpochs", items=2 * limits.ANSWER // limits.CHUNK + 2 * limits.EPOCHS, serve=_serve_epochs)
    def epochs(self, start: Annotated[int, At("from_epoch")] = 0) -> AsyncGenerator[Charter, None]:
        """Certified epochs from `start`, in order, without gaps. Raises NotFound if the node does not have `start`."""

    @rpc(
        "GetProceedings",
        items=limits.ANSWER_LINES,
        size=limits.ANSWER_BYTES + limits.ANSWER_LINES * limits.NAME,
        cut=True,
    )
    def next_epoch_entries(self, prev: Digest | None = None) -> AsyncGenerator[LocatedEntry, None]:
        """Statements about the epoch after the body `prev`, by default the node's newest. Raises NotFound."""

    @rpc("Ask")
    async def ask(self, caller: Caller, lines: _Card) -> AskReceipt:
        """Request to join, with the lines of a card. Raises Untrusted, and Refused if this caller asks too often."""

    @rpc("ListAsks", items=limits.ASKS)
    def asks(self) -> AsyncGenerator[JoinRequest, None]:
        """The waiting requests to join, in the order of the requests."""


class CharterCalls(ServiceCalls):
    next_epoch_entries = collected(CharterService.next_epoch_entries)
    ask = call(CharterService.ask)
    asks = collected(CharterService.asks)

    async def epochs(self, start: int = 0) -> tuple[Charter, ...]:
        """Certified epochs from `start`, as many as fit in one answer; get more with another call. Raises NotFound if
        the node does not have epoch `start`."""
        rpc = rpc_of(CharterService.epochs)
        async with aclosing(self._calls.stream(rpc, rpc.request.encode(start))) as messages:
            parts = [CHARTER.decode(message) async for message in messages]
        epochs = tuple(join_charter(*run) for run in groupby(parts, lambda part: part.epoch))
        if not epochs or [charter.epoch for charter in epochs] != list(range(start, start + len(epochs))):
            raise Malformed("not the requested epochs", why=f"expected consecutive epochs from {start}")
        return epochs
