"""`CharterService`: certified epochs, statements about the next one, requests to join. Values, codec, calls and
servicer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Final, Protocol

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.v1 import charter_pb2, node_pb2, types_pb2
from comity.v1.charter_pb2_grpc import CharterServiceServicer, CharterServiceStub
from comity.wire import limits
from comity.wire.access import CALLER, Caller
from comity.wire.calls import ServiceCalls
from comity.wire.codec import LINE, Items, MessageCodec
from comity.wire.fields import encode_digest, read_digest, read_integer, read_line, read_many
from comity.wire.messages import LOCATED, Context, LocatedEntry, at_most
from comity.wire.node import CHARTER, Charter, charter_parts, join_charter

if TYPE_CHECKING:
    from comity.v1.charter_pb2_grpc import CharterServiceAsyncStub


@dataclass(frozen=True, slots=True)
class AskReceipt:
    """The receipt of a request to join. `since` is the time of its first request; `waiting` counts all requests."""

    member: Digest
    since: int
    waiting: int


ASK_RECEIPT: Final = MessageCodec(AskReceipt, charter_pb2.AskResponse)


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """A waiting request to join, with the lines of its card: inception, rotations, node-records, addresses."""

    member: Digest
    since: int
    lines: Annotated[tuple[bytes, ...], Items(limits.ASK_LINES, LINE)]


def card_lines(lines: Sequence[bytes]) -> tuple[bytes, ...]:
    """Check the number and size of the lines of a request to join. Raises Malformed."""
    card = read_many(lines, "lines of a card", limits.ASK_LINES, read_line)
    if not card or sum(map(len, card)) > limits.ASK_BYTES:
        raise Malformed("not a card", why=f"1 to {limits.ASK_LINES} lines, {limits.ASK_BYTES} bytes together")
    return card


JOIN_REQUEST: Final = MessageCodec(JoinRequest, charter_pb2.JoinRequest, lambda ask: card_lines(ask.lines))


class CharterCalls(ServiceCalls):
    """The calls of `CharterService`."""

    @cached_property
    def _charter(self) -> CharterServiceAsyncStub:
        return CharterServiceStub(self._calls.connection.channel)

    async def epochs(self, start: int = 0) -> tuple[Charter, ...]:
        """Returns certified epochs from `start`, as many as fit in one answer; get more with another call.
        Raises NotFound if the node does not have epoch `start`."""
        request = charter_pb2.GetEpochsRequest(from_epoch=start)
        items = 2 * limits.ANSWER // limits.CHUNK + 2 * limits.EPOCHS
        parts = await self._calls.all(self._charter.GetEpochs, request, CHARTER.decode, items)
        epochs = tuple(join_charter(*run) for run in groupby(parts, lambda part: part.epoch))
        if not epochs or [charter.epoch for charter in epochs] != list(range(start, start + len(epochs))):
            raise Malformed("not the requested epochs", why=f"expected consecutive epochs from {start}")
        return epochs

    async def next_epoch_entries(self, prev: Digest | None = None) -> tuple[LocatedEntry, ...]:
        """Returns statements about the epoch after the body `prev`, by default the node's newest. Raises NotFound."""
        request = charter_pb2.GetProceedingsRequest(prev=None if prev is None else encode_digest(prev))
        items = limits.ANSWER_LINES
        size = limits.ANSWER_BYTES + items * limits.NAME
        return await self._calls.all(self._charter.GetProceedings, request, LOCATED.decode, items, size)

    async def ask(self, lines: Sequence[bytes]) -> AskReceipt:
        """Request to join, with the lines of a card. Raises Untrusted and Refused."""
        return ASK_RECEIPT.decode(await self._calls.unary(self._charter.Ask, charter_pb2.AskRequest(lines=lines)))

    async def asks(self) -> tuple[JoinRequest, ...]:
        """Returns the waiting requests to join, in the order of the requests."""
        request = charter_pb2.ListAsksRequest()
        return await self._calls.all(self._charter.ListAsks, request, JOIN_REQUEST.decode, limits.ASKS)


class CharterReads(Protocol):
    def epochs(self, start: int) -> AsyncGenerator[Charter, None]:
        """Yields the epochs from `start`, in order, without gaps. Raises NotFound."""

    def next_epoch_entries(self, prev: Digest | None) -> AsyncGenerator[LocatedEntry, None]:
        """Yields lines about the epoch after `prev`; None means the newest body. Raises NotFound."""

    async def ask(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
        """Store a request to join. Raises Untrusted, and Refused if this caller asks too often."""

    def asks(self) -> AsyncGenerator[JoinRequest, None]: ...


class CharterServicer(CharterServiceServicer):
    def __init__(self, governance: CharterReads) -> None:
        self._governance = governance

    async def GetEpochs(
        self, request: charter_pb2.GetEpochsRequest, context: Context
    ) -> AsyncIterator[node_pb2.GetCharterResponse]:
        start, bytes_left = read_integer(request.from_epoch, "epoch"), limits.ANSWER
        async with aclosing(at_most(limits.EPOCHS, self._governance.epochs(start))) as epochs:
            async for charter in epochs:
                bytes_left -= len(charter.body) + sum(map(len, charter.certificate))
                if bytes_left < 0 and charter.epoch > start:
                    return
                for part in charter_parts(charter):
                    yield CHARTER.encode(part)

    async def GetProceedings(
        self, request: charter_pb2.GetProceedingsRequest, context: Context
    ) -> AsyncIterator[types_pb2.Located]:
        prev, bytes_left = read_digest(request.prev) if request.HasField("prev") else None, limits.ANSWER_BYTES
        async with aclosing(at_most(limits.ANSWER_LINES, self._governance.next_epoch_entries(prev))) as lines:
            async for located in lines:
                bytes_left -= len(located.line)
                if bytes_left < 0:
                    return
                yield LOCATED.encode(located)

    async def Ask(self, request: charter_pb2.AskRequest, context: Context) -> charter_pb2.AskResponse:
        lines = card_lines(request.lines)
        return ASK_RECEIPT.encode(await self._governance.ask(CALLER.get(), lines))

    async def ListAsks(
        self, request: charter_pb2.ListAsksRequest, context: Context
    ) -> AsyncIterator[charter_pb2.JoinRequest]:
        async for ask in at_most(limits.ASKS, self._governance.asks()):
            yield JOIN_REQUEST.encode(ask)
