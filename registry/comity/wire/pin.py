"""`PinService`: the artifacts that a node's operator pins. Values, codec, calls and servicer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Final, Protocol

from comity.rules.artifact_pins import MAX_WANTED, PINNED_STATES, Pin
from comity.rules.copy_counts import CopyPolicy
from comity.trust.encoding import Digest
from comity.v1 import pin_pb2
from comity.v1.pin_pb2_grpc import PinServiceServicer, PinServiceStub
from comity.wire import limits
from comity.wire.calls import ServiceCalls
from comity.wire.codec import At, Exact, Items, Merged, MessageCodec, OneOf, ShownName, Text
from comity.wire.errors import clean
from comity.wire.fields import encode_digest, read_digest, read_text
from comity.wire.messages import Context

if TYPE_CHECKING:
    from comity.v1.pin_pb2_grpc import PinServiceAsyncStub


_POLICY: Final = MessageCodec(
    CopyPolicy,
    pin_pb2.PinPolicy,
    min_copies=At("copies"),
    min_jurisdictions=At("jurisdictions"),
    min_reaches=At("reaches"),
)
_PIN: Final = Merged(name=Text(limits.NAME), policy=_POLICY)


@dataclass(frozen=True, slots=True)
class ListedPinnedCopy:
    """A copy of a pinned artifact: the shown name of its node, and one of PINNED_STATES."""

    node: ShownName
    jurisdiction: Annotated[str, Exact(limits.NAME)]
    state: Annotated[str, OneOf(PINNED_STATES)]


@dataclass(frozen=True, slots=True)
class ListedPin:
    """A pin and how it is met. `verified` counts the own copy and those that the node verified itself; `hoped` also
    those that are claimed and whose nodes answer. `asked`: the node asks others now."""

    pin: Annotated[Pin, _PIN]
    verified: Annotated[CopyPolicy, _POLICY]
    hoped: Annotated[CopyPolicy, _POLICY]
    met: bool
    asked: bool
    copies: Annotated[tuple[ListedPinnedCopy, ...], Items(limits.COPIES, cut=True)] = ()


LISTED: Final = MessageCodec(ListedPin, pin_pb2.ListPinsResponse)


class PinCalls(ServiceCalls):
    """The calls of `PinService`."""

    @cached_property
    def _pins(self) -> PinServiceAsyncStub:
        return PinServiceStub(self._calls.connection.channel)

    async def put(self, pin: Pin) -> None:
        """Pin an artifact, or change its pin. Over the Unix socket. Raises NotFound, OutOfSpace (PINS)."""
        request = pin_pb2.DecidePinRequest(
            artifact=encode_digest(pin.artifact),
            name=clean(pin.name, limits.NAME),
            policy=_POLICY.encode(pin.policy),
            keep=True,
        )
        await self._calls.unary(self._pins.DecidePin, request)

    async def end(self, artifact: Digest) -> None:
        """End a pin. Over the Unix socket. Raises NotFound (NOT-PINNED)."""
        await self._calls.unary(self._pins.DecidePin, pin_pb2.DecidePinRequest(artifact=encode_digest(artifact)))

    async def listed(self, artifact: Digest | None = None) -> AsyncGenerator[ListedPin, None]:
        """Every pin, or that of one artifact. For operators."""
        request = pin_pb2.ListPinsRequest(artifact=encode_digest(artifact) if artifact else b"")
        answers = self._calls.stream(self._pins.ListPins, request, items=MAX_WANTED, size=limits.PIN_BYTES)
        async with aclosing(answers):
            async for answer in answers:
                yield LISTED.decode(answer)


class PinOrders(Protocol):
    async def put(self, pin: Pin) -> None:
        """Raises NotFound, OutOfSpace (PINS)."""

    async def end(self, artifact: Digest) -> None:
        """Raises NotFound (NOT-PINNED)."""

    def listed(self, artifact: Digest | None) -> AsyncGenerator[ListedPin, None]:
        """Every pin, or that of one artifact."""


class PinServicer(PinServiceServicer):
    def __init__(self, pins: PinOrders) -> None:
        self._pins = pins

    async def DecidePin(self, request: pin_pb2.DecidePinRequest, context: Context) -> pin_pb2.DecidePinResponse:
        artifact = read_digest(request.artifact)
        if request.keep:
            name = read_text(request.name, "name", limits.NAME)
            await self._pins.put(Pin(artifact, name, _POLICY.decode(request.policy)))
        else:
            await self._pins.end(artifact)
        return pin_pb2.DecidePinResponse()

    async def ListPins(
        self, request: pin_pb2.ListPinsRequest, context: Context
    ) -> AsyncIterator[pin_pb2.ListPinsResponse]:
        artifact = read_digest(request.artifact) if request.artifact else None
        async with aclosing(self._pins.listed(artifact)) as pins:
            async for listed in pins:
                yield LISTED.encode(listed)
