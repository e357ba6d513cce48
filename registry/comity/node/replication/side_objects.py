"""Side objects: bodies that entries name, which have to be here before the entries count."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from comity.content.blobs import BlobStore
from comity.node.context import NodeContext
from comity.node.members import PeerKey
from comity.node.replication.fair_queue import FairSlots
from comity.trust.errors import Untrusted
from comity.trust.statement import SideObject, Statement
from comity.wire import limits
from comity.wire.client import NodeClient

AT_ONCE: Final = 4
"""Objects in memory, all peers together; each has at most 64 MiB."""
OF_ONE_PEER: Final = 2
"""Of these, at most so many from the nodes of one member: who is slow does not keep the others out."""
MAX_WAITING: Final = 64
"""Calls for objects that may wait for one member's nodes."""
PATIENCE: Final = 30.0


class SideObjectFetcher:
    """Fetches side objects. What has come stays, so that the next try goes on from there."""

    def __init__(self, core: NodeContext) -> None:
        self._core = core
        self._slots = FairSlots(AT_ONCE, each=OF_ONE_PEER, most=MAX_WAITING)

    async def fetch(self, client: NodeClient, statements: Iterable[Statement], peer: PeerKey) -> int:
        """Have every side object that `statements` name, durable. Returns and raises as `fetch_all` does."""
        return await self.fetch_all(client, (item for statement in statements for item in statement.objects), peer)

    async def fetch_all(self, client: NodeClient, objects: Iterable[SideObject], peer: PeerKey) -> int:
        """Have what is not here, durable; how many bytes came.

        Raises NotFound where the peer has one not, Untrusted for other bytes, OutOfSpace, TimeoutError, Unavailable
        (BUSY) where too much of this peer's member waits already.
        """
        came = 0
        for item in await self._core.pools.files(absent, self._core.store, list(dict.fromkeys(objects))):
            async with self._slots.slot(peer.member), asyncio.timeout(PATIENCE + item.size / limits.SLOWEST):
                data = await client.object(item.digest)
                if len(data) != item.size:
                    why = f"{item.digest} has {len(data)} bytes, not {item.size}"
                    raise Untrusted("a size that cannot be", why=why, code="SIZE")
                await self._core.pools.files(self._core.store.put, item.digest, data)
                came += item.size
        return came


def absent(store: BlobStore, items: Iterable[SideObject]) -> list[SideObject]:
    """Blocking. Those of `items` that are not here."""
    return [item for item in items if not store.has(item.digest)]
