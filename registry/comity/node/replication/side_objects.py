"""Fetches side objects: bodies that entries name, which must be stored before the entries count."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, MutableSequence, Sequence
from contextlib import aclosing
from typing import Final

from comity.content.blobs import BlobStore
from comity.node.members import PeerKey
from comity.node.replication.fair_queue import FairSlots
from comity.node.replication.parallel_fetch import share_out
from comity.node.threads import Pools
from comity.trust.encoding import Digest
from comity.trust.errors import Unavailable, Untrusted
from comity.trust.statement import SideObject
from comity.wire import limits
from comity.wire.client import NodeClient

MAX_CONCURRENT: Final = 4
"""Objects in memory for all peers together; each has at most 64 MiB."""
MAX_PER_MEMBER: Final = 2
"""Objects in memory from the nodes of one member, so that a slow member does not block the others."""
BATCH_BYTES: Final = 1024 * 1024
"""Small objects fetched with one call."""
MAX_BATCHES: Final = 32
"""Batches of small objects in memory for all peers together."""
MAX_BATCHES_PER_MEMBER: Final = 8
MAX_WAITING: Final = 64
"""Calls for objects that may wait for one member's nodes."""
TIMEOUT: Final = 30.0


WITHOUT_SECONDS: Final = 600.0
"""Seconds for which a peer of an older version is asked for one object at a time."""


class SideObjectFetcher:
    """Fetches side objects: small ones many at a time. Received objects are kept, so that the next try continues."""

    def __init__(self, store: BlobStore, pools: Pools) -> None:
        self._store = store
        self._pools = pools
        self._slots = FairSlots(MAX_CONCURRENT, per_key=MAX_PER_MEMBER, max_per_key=MAX_WAITING)
        self._batch_slots = FairSlots(MAX_BATCHES, per_key=MAX_BATCHES_PER_MEMBER, max_per_key=MAX_WAITING)
        self._single_until: dict[PeerKey, float] = {}
        """Peers of older versions, and until when, by the event loop's clock, they are taken for such."""

    async def fetch_all(
        self,
        client: NodeClient,
        objects: Iterable[SideObject],
        peer: PeerKey,
        others: MutableSequence[NodeClient] | None = None,
    ) -> int:
        """Fetch missing objects durably, the small ones also over `others`, further connections to the same peer.
        Returns the number of bytes received.

        Raises NotFound if the peer does not have an object, Untrusted if the bytes do not match, OutOfSpace,
        TimeoutError, and Unavailable (BUSY) if too many calls wait for this peer's member.
        """
        missing = await self._pools.files(missing_side_objects, self._store, list(dict.fromkeys(objects)))
        received = 0
        if len(missing) > 1 and self._single_until.get(peer, 0.0) <= asyncio.get_running_loop().time():
            received = await self._fetch_small(client, missing, peer, others)
            missing = await self._pools.files(missing_side_objects, self._store, missing)
        for item in missing:
            async with self._slots.slot(peer.member), asyncio.timeout(TIMEOUT + item.size / limits.SLOWEST):
                data = await client.object(item.digest)
                _check_size(item, data)
                await self._pools.files(self._store.put, item.digest, data)
                received += item.size
        return received

    async def _fetch_small(
        self,
        client: NodeClient,
        missing: Iterable[SideObject],
        peer: PeerKey,
        others: MutableSequence[NodeClient] | None,
    ) -> int:
        """Fetch small objects in batches, some at once. Returns the number of bytes received."""
        received = list[int]()

        async def fetch_batch(used: NodeClient, batch: Sequence[SideObject]) -> None:
            received.append(await self._fetch_batch(used, batch, peer))

        try:
            await share_out(batches_of_small(missing), client, others if others is not None else [], fetch_batch)
        except Unavailable as error:
            if error.code != "UNIMPLEMENTED":
                raise
            self._single_until[peer] = asyncio.get_running_loop().time() + WITHOUT_SECONDS
        return sum(received)

    async def _fetch_batch(self, client: NodeClient, batch: Sequence[SideObject], peer: PeerKey) -> int:
        by_digest = {item.digest: item for item in batch}
        size = sum(item.size for item in batch)
        found = dict[Digest, bytes]()
        async with self._batch_slots.slot(peer.member), asyncio.timeout(TIMEOUT + size / limits.SLOWEST):
            async with aclosing(client.objects(list(by_digest))) as objects:
                async for digest, data in objects:
                    _check_size(by_digest[digest], data)
                    found[digest] = data
            await self._pools.files(self._store.put_all, found)
        return sum(map(len, found.values()))


def _check_size(item: SideObject, data: bytes) -> None:
    if len(data) != item.size:
        why = f"{item.digest} has {len(data)} bytes, not {item.size}"
        raise Untrusted("size does not match", why=why, code="SIZE")


def batches_of_small(objects: Iterable[SideObject]) -> Iterator[list[SideObject]]:
    """The small ones of `objects`, each digest once, in batches that one answer can hold."""
    batch, size, seen = list[SideObject](), 0, set[Digest]()
    for item in objects:
        if item.size > limits.SMALL_OBJECT or item.digest in seen:
            continue
        seen.add(item.digest)
        if len(batch) == limits.OBJECTS or size + item.size > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.size
    if batch:
        yield batch


def missing_side_objects(store: BlobStore, items: Iterable[SideObject]) -> list[SideObject]:
    """The objects that are not stored. Blocking."""
    return [item for item in items if not store.has(item.digest)]
