"""RPC service for pins: what the operator of this node pins, and how it is met."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from comity.node.copies.pins import PinRepair
from comity.node.members import Membership
from comity.trust.artifact_pins import Pin, PinnedArtifact
from comity.trust.copies import CopyCount, CopyPolicy
from comity.trust.encoding import Digest, short
from comity.trust.errors import NotFound
from comity.wire.pin import ListedPin, ListedPinnedCopy


class PinService:
    """Implements `PinOrders`."""

    def __init__(self, repair: PinRepair, membership: Membership) -> None:
        self._repair = repair
        self._membership = membership

    async def put(self, pin: Pin) -> None:
        if not await self._repair.put(pin):
            raise NotFound("no such artifact", why=f"no log that this node has names {short(pin.artifact)}")

    async def end(self, artifact: Digest) -> None:
        if not await self._repair.end(artifact):
            raise NotFound("it is not pinned", why=short(artifact), hint="comity pin ls", code="NOT-PINNED")

    async def listed(self, artifact: Digest | None) -> AsyncGenerator[ListedPin, None]:
        for pin in sorted(self._repair.pins.values(), key=lambda pin: pin.artifact):
            if artifact in (None, pin.artifact):
                yield self._shown(await self._repair.count(pin))

    def _shown(self, found: PinnedArtifact) -> ListedPin:
        names = {peer.record.node.id: self._membership.shown_name(peer) for peer in self._membership.peers}
        own = self._membership.seat.record
        names[own.node.id] = own.name
        copies = tuple(
            ListedPinnedCopy(names.get(item.copy.node, short(item.copy.node)), item.copy.jurisdiction, item.state)
            for item in found.copies
        )
        asked = self._repair.asks(found.pin.artifact)
        return ListedPin(found.pin, _numbers(found.verified), _numbers(found.hoped), found.met, asked, copies)


def _numbers(count: CopyCount) -> CopyPolicy:
    return CopyPolicy(count.copies, count.jurisdictions, count.reaches)
