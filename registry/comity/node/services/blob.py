"""Serves blobs by digest: only complete and verified ones from the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from comity.content.blobs import BlobStore
from comity.node.members import Membership
from comity.node.metrics import LocationProviders, ReadRecord, ServedBytes
from comity.node.threads import AsyncLedger, Pools
from comity.trust.encoding import Digest, short
from comity.trust.errors import NotFound
from comity.wire import limits
from comity.wire.access import CALLER, Caller
from comity.wire.blob import BlobLocation, BlobStat
from comity.wire.unsent import unsent

READ_AHEAD: Final = 2 * limits.CHUNK
"""Bytes that a thread reads at a time, while earlier ones are sent, where the port has room for them; else fewer, down
to `limits.MIN_CHUNK`, and only once earlier ones were received."""
_SIZES: Final = (READ_AHEAD, limits.CHUNK, limits.MIN_CHUNK)


class BlobServicer:
    """Implements `BlobService`."""

    def __init__(
        self,
        ledger: AsyncLedger,
        store: BlobStore,
        pools: Pools,
        membership: Membership,
        served: ServedBytes,
        locations: LocationProviders,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._membership = membership
        self._served = served
        self._locations = locations

    async def stat(self, digests: Sequence[Digest]) -> tuple[BlobStat, ...]:
        return await self._pools.files(lambda: tuple(self._stat(digest) for digest in digests))

    async def records(self, digest: Digest, layout: str) -> bytes:
        pieces = self._ledger.tables.pieces
        if size := await self._ledger.run(pieces.records_size, digest, layout):
            await unsent().take(size)  # until the call ends
        records = await self._ledger.run(pieces.records, digest, layout)
        if records is None:
            why = f"{short(digest)} in layout {layout}"
            raise NotFound("no piece records here", why=why, code="NO-RECORDS")
        return records

    async def locations(self, digest: Digest) -> tuple[BlobLocation, ...]:
        """Other locations of a blob; gRPC always suffices. They are never logged."""
        await self._pools.files(self._store.size, digest)
        return await self._pools.files(self._locations.of, digest, self._peer(CALLER.get()) or "")

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        room, sent, ahead, size = unsent(), 0, None, 0
        try:
            window = await room.take(*_windows(length))
            size, chunks = await self._pools.files(self._begin, digest, offset, min(length, window))
            end = min(offset + length, size)
            while chunks:
                # A small blob is read whole by then, and costs one thread.
                position = offset + sent + sum(map(len, chunks))
                room.release(window - sum(map(len, chunks)))
                window = room.try_take(*_windows(end - position)[:-1])
                ahead = self._window(digest, position, window) if window else None
                while chunks:
                    yield chunks[0]
                    room.release(len(chunks[0]))
                    sent += len(chunks.pop(0))
                if ahead is None and position < end:
                    window = await room.take(*_windows(end - position))
                    ahead = self._window(digest, position, window)
                chunks = await ahead if ahead is not None else []
        finally:
            if ahead is not None:
                ahead.cancel()
            caller = CALLER.get()
            self._delivered(caller, digest, offset, length, sent)
            if sent and offset + sent == size and caller.certificate is None:
                self._served.ended(digest)

    async def small(self, digests: Sequence[Digest]) -> AsyncGenerator[Sequence[tuple[Digest, bytes]], None]:
        room, sent, at, left = unsent(), dict[Digest, int](), 0, limits.OBJECTS_BYTES
        try:
            while at < len(digests):
                window = await room.take(limits.CHUNK, limits.SMALL_OBJECT)
                at, group = await self._pools.files(self._group, digests, at, window, left)
                size = sum(len(data) for _, data in group)
                room.release(window - size)
                if group:
                    yield group
                    room.release(size)
                    left -= size
                    sent |= {digest: len(data) for digest, data in group}
        finally:
            caller = CALLER.get()
            self._served.add_whole(self._peer(caller) or caller.name, sent, port=_port(caller))
            if caller.certificate is None:
                for digest in sent:
                    self._served.ended(digest)

    async def manifest(self, digest: Digest) -> bytes:
        """A manifest that comes along with an answer about its artifact. Raises NotFound for what is not here or has
        more than `limits.FOUND_MANIFEST` bytes."""
        return await self._pools.files(self._manifest, digest)

    def _manifest(self, digest: Digest) -> bytes:
        size = self._store.size(digest)
        if size > limits.FOUND_MANIFEST:
            raise NotFound("too long to come along", why=f"it has {size} bytes")
        return self._store.read(digest, 0, size)

    def _group(
        self, digests: Sequence[Digest], at: int, window: int, left: int
    ) -> tuple[int, list[tuple[Digest, bytes]]]:
        """The small blobs among the `digests` from `at` on, as many as fit into `window` bytes, at most `left` in all,
        and where to continue. Blocking."""
        group, used = list[tuple[Digest, bytes]](), 0
        while at < len(digests):
            stat = self._stat(digests[at])
            if stat.have and stat.size <= min(limits.SMALL_OBJECT, left - used):
                if used + stat.size > window:
                    break
                group.append((stat.digest, self._store.read(stat.digest, 0, stat.size)))
                used += stat.size
            at += 1
        return at, group

    def _begin(self, digest: Digest, offset: int, length: int) -> tuple[int, list[bytes]]:
        """The size of a blob, and the first few chunks of a range. Blocking."""
        size = self._store.size(digest)
        return size, self._chunks(digest, offset, min(length, size - offset))

    def _window(self, digest: Digest, offset: int, length: int) -> asyncio.Future[list[bytes]]:
        """The next few chunks, being read."""
        return asyncio.ensure_future(self._pools.files(self._chunks, digest, offset, length))

    def _chunks(self, digest: Digest, offset: int, length: int) -> list[bytes]:
        """The next few chunks; empty at the end. Blocking."""
        return list(self._store.iterate(digest, offset, length, limits.CHUNK)) if length > 0 else []

    def _stat(self, digest: Digest) -> BlobStat:
        try:
            return BlobStat(digest, True, self._store.size(digest))
        except NotFound:
            return BlobStat(digest, False, 0)

    def _peer(self, caller: Caller) -> str | None:
        peer = self._membership.by_certificate(caller.certificate) if caller.certificate else None
        return self._membership.shown_name(peer) if peer else None

    def _delivered(self, caller: Caller, digest: Digest, offset: int, asked: int, sent: int) -> None:
        self._served.add(ReadRecord(self._peer(caller) or caller.name, digest, offset, asked, sent), port=_port(caller))


def _port(caller: Caller) -> str:
    return "operator" if caller.operator else "mutual" if caller.certificate else "open"


def _windows(left: int) -> tuple[int, ...]:
    """How many bytes to read at a time, the preferred number first."""
    return tuple(min(size, left) for size in _SIZES)
