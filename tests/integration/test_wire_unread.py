"""Callers that read nothing: what was made for them is bounded for the port, and others are served."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from attackers.connections import Stream
from comity.content.blobs import FolderStore
from comity.node.metrics import LocationProviders, Metrics, ServedBytes
from comity.node.services.blob import BlobServicer
from comity.node.threads import Pools
from comity.trust.encoding import Digest, sha256
from comity.wire import limits
from comity.wire.access import OpenAccess
from comity.wire.addresses import Address
from comity.wire.client import NodeClient
from comity.wire.server import make_server
from comity.wire.services import Services
from comity.wire.throttle import Allowance, Throttle
from support.federation import until
from support.raw_bytes import message
from support.wired import identity, pin

SERVER = identity()
SIZE = 8 << 20
OPEN = Allowance(calls_per_second=1_000, burst=1_000, at_once=32, all_at_once=128, block_at_once=48)
"""As an open port has it, with a higher rate."""


class CountingStore(FolderStore):
    """A store that counts the bytes that were read from it, and the ranges that were begun."""

    given = 0
    begun = 0

    def iterate(self, digest: Digest, offset: int, length: int, chunk: int = 4 << 20) -> Iterator[bytes]:
        self.begun += 1
        for part in super().iterate(digest, offset, length, chunk):
            self.given += len(part)
            yield part


@dataclass
class Served:
    address: Address
    store: CountingStore
    throttle: Throttle
    blob: Digest = field(default=Digest(""))

    def keep(self, data: bytes) -> None:
        self.blob = sha256(data)
        self.store.put(self.blob, data)

    @property
    def request(self) -> bytes:
        return message((1, bytes.fromhex(self.blob)), (3, SIZE))


@asynccontextmanager
async def serving(folder: Path, allowance: Allowance = OPEN) -> AsyncIterator[Served]:
    """A port with the blobs of a node, and one blob of `SIZE` bytes."""
    pools, store, throttle, rule = Pools(), CountingStore(folder), Throttle(allowance), OpenAccess(SERVER)
    members = type("Members", (), {"by_certificate": staticmethod(lambda certificate: None)})
    blobs = BlobServicer(None, store, pools, members, ServedBytes(Metrics()), LocationProviders())  # type: ignore[arg-type]
    server = make_server(rule, Services(blob=blobs), throttle)
    port = server.add_secure_port("127.0.0.1:0", rule.credentials())
    await server.start()
    served = Served(Address("127.0.0.1", port), store, throttle)
    served.keep(os.urandom(SIZE))
    try:
        yield served
    finally:
        await server.stop(0)
        pools.close()


async def unread(served: Served, held: ExitStack, block: int, calls: int, window: int = 0) -> None:
    """Calls of one address that read no more than `window` bytes of each answer."""
    address = served.address
    stream = await asyncio.to_thread(
        Stream.connect, address.host, address.port, source=f"127.0.{block}.1", window=window
    )
    held.callback(stream.close)
    for _ in range(calls):
        await asyncio.to_thread(stream.call, "BlobService/Read", served.request)


async def whole(served: Served) -> bytes:
    async with NodeClient.connect(served.address, pin(SERVER), timeout=20) as client:
        return b"".join([chunk async for chunk in client.read(served.blob, 0, SIZE)])


@pytest.mark.parametrize("window", [0, 65_535], ids=["nothing is read", "the first bytes are read"])
async def test_unread_answers_of_four_blocks_have_one_budget(
    tmp_path: Path, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEND_TIMEOUT", 600.0)
    async with serving(tmp_path) as served:
        with closing(ExitStack()) as held:
            for block in range(1, 5):
                await unread(served, held, block, 32, window)
            await until(lambda: served.store.begun >= 120, what="the calls to be served")
            received = 128 * window
            assert served.store.given - received <= limits.UNSENT_BYTES
            assert 0 < served.throttle.unsent.used <= limits.UNSENT_BYTES
            assert sha256(await whole(served)) == served.blob
            assert served.throttle.unsent.used <= limits.UNSENT_BYTES
        await until(lambda: served.throttle.unsent.used == 0, what="the bytes to be released")


@pytest.mark.slow
async def test_many_honest_readers_of_one_block_are_served_in_turn(tmp_path: Path) -> None:
    """Of a budget that a few of them would fill."""
    async with serving(tmp_path, replace(OPEN, unsent_bytes=2 * limits.CHUNK)) as served:
        answers = await asyncio.gather(*(whole(served) for _ in range(24)))
        assert {sha256(answer) for answer in answers} == {served.blob}
        await until(lambda: served.throttle.unsent.used == 0, what="the bytes to be released")
