"""Side objects: bodies that entries name, which must be stored before the entries count.

They are fetched before a log advances. But after a restore the ledger may be newer than the blob store. So every entry
is checked once, and all again if the ledger is a copy or a blob was lost; missing objects are fetched from any peer
until found, one of each log in turn: a log whose objects nobody shows delays no other's. The position is saved in the
ledger while nothing is missing: a restart checks only new entries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, MutableSequence, Sequence
from contextlib import aclosing
from functools import partial
from itertools import zip_longest
from typing import Final

import structlog

from comity.content.blobs import BlobStore
from comity.ledger.ledger import Ledger
from comity.node.members import PeerKey
from comity.node.replication.fair_queue import FairSlots
from comity.node.replication.link import share_out
from comity.node.supervisor import LoopTiming, Supervisor
from comity.node.threads import AsyncLedger, Pools
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, NotFound, Unavailable, Untrusted
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
AT_A_TIME: Final = 2_048
"""Missing objects that are asked for together."""
WINDOW: Final = 256
"""Entries checked at a time."""
MAX_MISSING: Final = 10_000
"""Missing objects of one log tracked at a time; its further entries are checked only after some were found."""
DEADLINE: Final = 7 * 86_400.0
SIDE_OBJECTS: Final = "side objects"
"""The name of the loop."""

_log: Final = structlog.get_logger("comity.node")


FetchObjects = Callable[[Sequence[SideObject]], Awaitable[Mapping[SideObject, ComityError]]]
"""Fetches missing side objects from any peer. Returns those that are still missing, each with the reason."""


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

        Raises NotFound if the peer does not have an object, Untrusted if the bytes do not match, also those that are
        stored already, OutOfSpace, TimeoutError, and Unavailable (BUSY) if too many calls wait for this peer's member.
        """
        missing = await self._pools.files(_missing_and_fitting, self._store, list(dict.fromkeys(objects)))
        received = 0
        if len(missing) > 1 and not self._knows_single_only(peer):
            received = await self._fetch_small(client, missing, peer, others)
            missing = await self._pools.files(missing_side_objects, self._store, missing)
        for item in missing:
            await self._fetch_one(client, item, peer)
            received += item.size
        return received

    async def fetch_some(self, client: NodeClient, batch: Sequence[SideObject], peer: PeerKey) -> list[SideObject]:
        """Fetch those of the objects of one `next_batch` that the peer has. Returns these.

        Raises Untrusted if the bytes of an object that is fetched alone do not match, OutOfSpace, TimeoutError, and
        Unavailable (BUSY) if too many calls wait for this peer's member.
        """
        if len(batch) > 1 and not self._knows_single_only(peer):
            try:
                return await self._fetch_batch(client, batch, peer)
            except Unavailable as error:
                if error.code != "UNIMPLEMENTED":
                    raise
                self._take_for_old(peer)
        found = list[SideObject]()
        async with asyncio.timeout(_seconds_for(batch)):
            for item in batch:
                try:
                    await self._fetch_one(client, item, peer)
                    found.append(item)
                except NotFound:
                    continue
        return found

    def _knows_single_only(self, peer: PeerKey) -> bool:
        return self._single_until.get(peer, 0.0) > asyncio.get_running_loop().time()

    def _take_for_old(self, peer: PeerKey) -> None:
        self._single_until[peer] = asyncio.get_running_loop().time() + WITHOUT_SECONDS

    async def _fetch_one(self, client: NodeClient, item: SideObject, peer: PeerKey) -> None:
        async with self._slots.slot(peer.member), asyncio.timeout(_seconds_for([item])):
            data = await client.object(item.digest)
            _check_size(item, len(data))
            await self._pools.files(self._store.put, item.digest, data)

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
            received.extend(item.size for item in await self._fetch_batch(used, batch, peer))

        try:
            await share_out(batches_of_small(missing), client, others if others is not None else [], fetch_batch)
        except Unavailable as error:
            if error.code != "UNIMPLEMENTED":
                raise
            self._take_for_old(peer)
        return sum(received)

    async def _fetch_batch(self, client: NodeClient, batch: Sequence[SideObject], peer: PeerKey) -> list[SideObject]:
        """The small objects of a batch that the peer has, without those whose size is not what their statement says: a
        false statement about one must not lose the others."""
        by_digest = {item.digest: item for item in batch}
        found = dict[Digest, bytes]()
        async with self._batch_slots.slot(peer.member), asyncio.timeout(_seconds_for(batch)):
            async with aclosing(client.objects(list(by_digest))) as objects:
                async for digest, data in objects:
                    if len(data) == by_digest[digest].size:
                        found[digest] = data
            await self._pools.files(self._store.put_all, found)
        return [by_digest[digest] for digest in found]


def _seconds_for(batch: Sequence[SideObject]) -> float:
    return TIMEOUT + sum(item.size for item in batch) / limits.SLOWEST


def _check_size(item: SideObject, size: int) -> None:
    if size != item.size:
        why = f"{item.digest} has {size} bytes, not {item.size}"
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


def next_batch(objects: Iterable[SideObject]) -> list[SideObject]:
    """The objects of the next call: as many small ones as one answer can hold; if there is none, a large one."""
    waiting = list(objects)
    return next(batches_of_small(waiting), waiting[:1])


def missing_side_objects(store: BlobStore, items: Iterable[SideObject]) -> list[SideObject]:
    """The objects that are not stored. Blocking."""
    return [item for item in items if not store.has(item.digest)]


def _missing_and_fitting(store: BlobStore, items: Iterable[SideObject]) -> list[SideObject]:
    """The same. Raises Untrusted if one is stored that has another size than its statement says. Blocking."""
    missing = list[SideObject]()
    for item in items:
        try:
            _check_size(item, store.size(item.digest))
        except NotFound:
            missing.append(item)
    return missing


class SideObjectRepair:
    """Tracks the missing side objects of logged entries. Not thread-safe: call from the event loop."""

    def __init__(
        self, ledger: AsyncLedger, store: BlobStore, pools: Pools, interval: float, fetch_objects: FetchObjects
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._interval = interval
        self._fetch_objects = fetch_objects
        self._checked: dict[str, int] = {}
        self._saved: dict[str, int] = {}
        self._missing: dict[str, dict[SideObject, None]] = {}
        """By log."""
        self._wake: Callable[[], None] = lambda: None
        """Runs the loop now; before `begin` there is none."""

    @property
    def missing(self) -> frozenset[SideObject]:
        return frozenset(item for items in self._missing.values() for item in items)

    @property
    def most_missing(self) -> int:
        """The most objects that are missing of one log, at most `MAX_MISSING`."""
        return max(map(len, self._missing.values()), default=0)

    async def begin(self, supervisor: Supervisor, *, recheck: bool) -> None:
        """Start the loop. With `recheck`, check all entries: the ledger is a copy and may be older or newer than the
        store."""
        self._saved = await self._ledger.run(self._ledger.tables.side_object_positions.positions)
        if not recheck:
            self._checked = dict(self._saved)
        timing = LoopTiming(max(1.0, self._interval), DEADLINE)
        supervisor.loop(SIDE_OBJECTS, self._step, timing)
        self._wake = partial(supervisor.wake, SIDE_OBJECTS)

    def recheck_all(self) -> None:
        """A stored object was lost: check every entry again."""
        self._checked.clear()
        self._wake()

    async def _step(self) -> None:
        if not self._checked:
            await self._save()
        await self._check()
        failure = ""
        in_turn = self._in_turn()
        for items in (in_turn[at : at + AT_A_TIME] for at in range(0, len(in_turn), AT_A_TIME)):
            left = await self._fetch_objects(items)
            for missing in self._missing.values():
                for item in missing.keys() & frozenset(items) - left.keys():
                    del missing[item]
            _log.info("side objects fetched", count=len(items) - len(left), missing=len(left))
            failure = next((str(error) for error in left.values()), failure)
        if self.missing:
            raise Unavailable(f"{len(self.missing)} side objects of logged entries are missing", why=failure)
        await self._save()

    def _in_turn(self) -> list[SideObject]:
        """The missing objects, each once, one of each log in turn."""
        rows = zip_longest(*self._missing.values())
        return list(dict.fromkeys(item for row in rows for item in row if item is not None))

    async def _save(self) -> None:
        """Save the position up to which nothing is missing."""
        if self._checked != self._saved:
            saved = dict(self._checked)
            await self._ledger.run(self._ledger.tables.side_object_positions.replace, saved)
            self._saved = saved

    async def _check(self) -> None:
        for log in await self._ledger.read(self._ledger.tables.logs.all):
            at, missing = self._checked.get(log.vkey, 0), self._missing.setdefault(log.vkey, {})
            while at < log.size and len(missing) < MAX_MISSING:
                end = min(at + WINDOW, log.size)
                named = await self._ledger.run(_named, self._ledger.tables, log.vkey, at, end)
                missing |= dict.fromkeys(await self._pools.files(missing_side_objects, self._store, named))
                self._checked[log.vkey] = at = end
                await asyncio.sleep(0)


def _named(ledger: Ledger, log: str, start: int, end: int) -> list[SideObject]:
    """The side objects that a range of entries names, and no entry before it. Blocking."""
    return ledger.side_object_positions.first_named(log, start, end)
