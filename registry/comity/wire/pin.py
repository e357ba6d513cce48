"""`PinService`: the artifacts that a node's operator pins. Values, codec, calls and servicer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from comity.trust.artifact_pins import MAX_WANTED, PINNED_STATES, Pin
from comity.trust.copies import CopyPolicy
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.v1 import pin_pb2
from comity.v1.pin_pb2_grpc import PinServiceServicer, PinServiceStub
from comity.wire import limits
from comity.wire.calls import ServiceCalls
from comity.wire.errors import clean
from comity.wire.messages import Context, encode_digest, read_digest, read_integer, read_many, read_text

if TYPE_CHECKING:
    from comity.v1.pin_pb2_grpc import PinServiceAsyncStub


@dataclass(frozen=True, slots=True)
class ListedPinnedCopy:
    """A copy of a pinned artifact: the shown name of its node, and one of PINNED_STATES."""

    node: str
    jurisdiction: str
    state: str


@dataclass(frozen=True, slots=True)
class ListedPin:
    """A pin and how it is met. `verified` counts the own copy and those that the node verified itself; `hoped` also
    those that are claimed and whose nodes answer. `asked`: the node asks others now."""

    pin: Pin
    verified: CopyPolicy
    hoped: CopyPolicy
    met: bool
    asked: bool
    copies: tuple[ListedPinnedCopy, ...] = ()


def _encode_policy(policy: CopyPolicy) -> pin_pb2.PinPolicy:
    return pin_pb2.PinPolicy(
        copies=policy.min_copies, jurisdictions=policy.min_jurisdictions, reaches=policy.min_reaches
    )


def _decode_policy(message: pin_pb2.PinPolicy) -> CopyPolicy:
    return CopyPolicy(
        read_integer(message.copies, "copies"),
        read_integer(message.jurisdictions, "jurisdictions"),
        read_integer(message.reaches, "reaches"),
    )


def encode_listed(listed: ListedPin) -> pin_pb2.ListPinsResponse:
    return pin_pb2.ListPinsResponse(
        artifact=encode_digest(listed.pin.artifact),
        name=clean(listed.pin.name, limits.NAME),
        policy=_encode_policy(listed.pin.policy),
        verified=_encode_policy(listed.verified),
        hoped=_encode_policy(listed.hoped),
        met=listed.met,
        asked=listed.asked,
        copies=(
            pin_pb2.PinnedCopy(node=clean(copy.node, limits.NAME), jurisdiction=copy.jurisdiction, state=copy.state)
            for copy in listed.copies[: limits.COPIES]
        ),
    )


def decode_listed(message: pin_pb2.ListPinsResponse) -> ListedPin:
    name = read_text(message.name, "name", limits.NAME)
    return ListedPin(
        Pin(read_digest(message.artifact), name, _decode_policy(message.policy)),
        _decode_policy(message.verified),
        _decode_policy(message.hoped),
        message.met,
        message.asked,
        read_many(message.copies, "copies", limits.COPIES, _decode_copy),
    )


def _decode_copy(message: pin_pb2.PinnedCopy) -> ListedPinnedCopy:
    if message.state not in PINNED_STATES:
        raise Malformed("unknown state of a copy", why=f"expected one of {', '.join(PINNED_STATES)}")
    node = read_text(message.node, "name", limits.NAME)
    return ListedPinnedCopy(node, read_text(message.jurisdiction, "jurisdiction", limits.NAME), message.state)


class PinCalls(ServiceCalls):
    """The calls of `PinService`."""

    @cached_property
    def _pins(self) -> PinServiceAsyncStub:
        return PinServiceStub(self._calls.connection.channel)

    async def put(self, pin: Pin) -> None:
        """Pin an artifact, or change its pin. Over the Unix socket. Raises NotFound, OutOfSpace (PINS)."""
        policy = _encode_policy(pin.policy)
        request = pin_pb2.DecidePinRequest(
            artifact=encode_digest(pin.artifact), name=clean(pin.name, limits.NAME), policy=policy, keep=True
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
                yield decode_listed(answer)


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
            await self._pins.put(Pin(artifact, name, _decode_policy(request.policy)))
        else:
            await self._pins.end(artifact)
        return pin_pb2.DecidePinResponse()

    async def ListPins(
        self, request: pin_pb2.ListPinsRequest, context: Context
    ) -> AsyncIterator[pin_pb2.ListPinsResponse]:
        artifact = read_digest(request.artifact) if request.artifact else None
        async with aclosing(self._pins.listed(artifact)) as pins:
            async for listed in pins:
                yield encode_listed(listed)
