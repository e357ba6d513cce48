"""`PinService`: the artifacts that a node's operator pins. Values and calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Final, Protocol

from comity.rules.artifact_pins import MAX_WANTED, PINNED_STATES, Pin
from comity.rules.copy_counts import CopyPolicy
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen
from comity.v1 import pin_pb2
from comity.wire import limits
from comity.wire.calls import ServiceCalls, call
from comity.wire.codec import At, Exact, Items, Merged, MessageCodec, OneOf, ShownName, Text
from comity.wire.rpc import Rpcs

rpc = Rpcs(pin_pb2)

_POLICY: Final = MessageCodec(
    CopyPolicy,
    pin_pb2.PinPolicy,
    min_copies=At("copies"),
    min_jurisdictions=At("jurisdictions"),
    min_reaches=At("reaches"),
)
_PIN: Final = Merged(name=Text(limits.NAME), policy=_POLICY)


@frozen
class ListedPinnedCopy:
    """A copy of a pinned artifact: the shown name of its node, and one of PINNED_STATES."""

    node: ShownName
    jurisdiction: Annotated[str, Exact(limits.NAME)]
    state: Annotated[str, OneOf(PINNED_STATES)]


@frozen
class ListedPin:
    """A pin and how it is met. `verified` counts the own copy and those that the node verified itself; `hoped` also
    those that are claimed and whose nodes answer. `asked`: the node asks others now."""

    pin: Annotated[Pin, _PIN]
    verified: Annotated[CopyPolicy, _POLICY]
    hoped: Annotated[CopyPolicy, _POLICY]
    met: bool
    asked: bool
    copies: Annotated[tuple[ListedPinnedCopy, ...], Items(limits.COPIES, cut=True)] = ()


class PinService(Protocol):
    @rpc("DecidePin")
    async def decide(
        self,
        artifact: Digest,
        name: ShownName = "",
        policy: Annotated[CopyPolicy | None, _POLICY] = None,
        *,
        keep: bool = False,
    ) -> None:
        """Pin an artifact, or change its pin; end it unless `keep`. Raises NotFound (NOT-PINNED), OutOfSpace (PINS)."""

    @rpc("ListPins", items=MAX_WANTED, size=limits.PIN_BYTES)
    def listed(self, artifact: Digest | None = None) -> AsyncGenerator[ListedPin, None]:
        """Every pin, or that of one artifact."""


class PinCalls(ServiceCalls):
    listed = call(PinService.listed)
    _decide = call(PinService.decide)

    async def put(self, pin: Pin) -> None:
        """Pin an artifact, or change its pin. Raises NotFound, OutOfSpace (PINS)."""
        await self._decide(pin.artifact, pin.name, pin.policy, keep=True)

    async def end(self, artifact: Digest) -> None:
        """End a pin. Raises NotFound (NOT-PINNED)."""
        await self._decide(artifact)
