"""Side objects: bodies that entries name, which have to be here before the entries count."""

from __future__ import annotations

from collections.abc import Iterable

from comity.content.store import BlobStore
from comity.node.core import Core
from comity.trust.errors import Untrusted
from comity.trust.statement import SideObject, Statement
from comity.wire.client import NodeClient


async def fetch_side_objects(core: Core, client: NodeClient, statements: Iterable[Statement]) -> None:
    """Have every side object that `statements` name, durable.

    Raises NotFound where the peer has one not, Untrusted for other bytes, OutOfSpace.
    """
    named = dict.fromkeys(item for statement in statements for item in statement.objects)
    for item in await core.pools.files(_absent, core.store, list(named)):
        data = await client.object(item.digest)
        if len(data) != item.size:
            why = f"{item.digest} has {len(data)} bytes, not {item.size}"
            raise Untrusted("a size that cannot be", why=why, code="SIZE")
        await core.pools.files(core.store.put, item.digest, data)


def _absent(store: BlobStore, items: Iterable[SideObject]) -> list[SideObject]:
    return [item for item in items if not store.has(item.digest)]
