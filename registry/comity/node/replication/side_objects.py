"""Side objects: bodies that entries name, which have to be here before the entries count."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from comity.content.store import BlobStore
from comity.node.core import Core
from comity.trust.errors import Untrusted
from comity.trust.statement import SideObject, Statement
from comity.wire import limits
from comity.wire.client import NodeClient

AT_ONCE: Final = 4
"""Objects in memory, all peers together; each has at most 64 MiB."""
PATIENCE: Final = 30.0


class SideObjects:
    """Fetches side objects. What has come stays, so that the next try goes on from there."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._room = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, client: NodeClient, statements: Iterable[Statement]) -> None:
        """Have every side object that `statements` name, durable. Raises as `fetch_all` does."""
        await self.fetch_all(client, (item for statement in statements for item in statement.objects))

    async def fetch_all(self, client: NodeClient, objects: Iterable[SideObject]) -> None:
        """Raises NotFound where the peer has one not, Untrusted for other bytes, OutOfSpace, TimeoutError."""
        for item in await self._core.pools.files(absent, self._core.store, list(dict.fromkeys(objects))):
            async with self._room, asyncio.timeout(PATIENCE + item.size / limits.SLOWEST):
                data = await client.object(item.digest)
                if len(data) != item.size:
                    why = f"{item.digest} has {len(data)} bytes, not {item.size}"
                    raise Untrusted("a size that cannot be", why=why, code="SIZE")
                await self._core.pools.files(self._core.store.put, item.digest, data)


def absent(store: BlobStore, items: Iterable[SideObject]) -> list[SideObject]:
    """Blocking. Those of `items` that are not here."""
    return [item for item in items if not store.has(item.digest)]
