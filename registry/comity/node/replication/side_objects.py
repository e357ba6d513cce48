"""Fetches side objects: bodies that entries name, which must be stored before the entries count."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from comity.content.blobs import BlobStore
from comity.node.members import PeerKey
from comity.node.replication.fair_queue import FairSlots
from comity.node.threads import Pools
from comity.trust.errors import Untrusted
from comity.trust.statement import SideObject, Statement
from comity.wire import limits
from comity.wire.client import NodeClient

MAX_CONCURRENT: Final = 4
"""Objects in memory for all peers together; each has at most 64 MiB."""
MAX_PER_MEMBER: Final = 2
"""Objects in memory from the nodes of one member, so that a slow member does not block the others."""
MAX_WAITING: Final = 64
"""Calls for objects that may wait for one member's nodes."""
TIMEOUT: Final = 30.0


class SideObjectFetcher:
    """Fetches side objects. Received objects are kept, so that the next try continues."""

    def __init__(self, store: BlobStore, pools: Pools) -> None:
        self._store = store
        self._pools = pools
        self._slots = FairSlots(MAX_CONCURRENT, per_key=MAX_PER_MEMBER, max_per_key=MAX_WAITING)

    async def fetch(self, client: NodeClient, statements: Iterable[Statement], peer: PeerKey) -> int:
        """Fetch every missing side object of `statements` durably. Returns and raises as `fetch_all` does."""
        return await self.fetch_all(client, (item for statement in statements for item in statement.objects), peer)

    async def fetch_all(self, client: NodeClient, objects: Iterable[SideObject], peer: PeerKey) -> int:
        """Fetch missing objects durably. Returns the number of bytes received.

        Raises NotFound if the peer does not have an object, Untrusted if the bytes do not match, OutOfSpace,
        TimeoutError, and Unavailable (BUSY) if too many calls wait for this peer's member.
        """
        received = 0
        for item in await self._pools.files(missing_side_objects, self._store, list(dict.fromkeys(objects))):
            async with self._slots.slot(peer.member), asyncio.timeout(TIMEOUT + item.size / limits.SLOWEST):
                data = await client.object(item.digest)
                if len(data) != item.size:
                    why = f"{item.digest} has {len(data)} bytes, not {item.size}"
                    raise Untrusted("size does not match", why=why, code="SIZE")
                await self._pools.files(self._store.put, item.digest, data)
                received += item.size
        return received


def missing_side_objects(store: BlobStore, items: Iterable[SideObject]) -> list[SideObject]:
    """The objects that are not stored. Blocking."""
    return [item for item in items if not store.has(item.digest)]
