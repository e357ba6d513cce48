"""A call whose connection is closed on this side raises an error of its own; no task that waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Unavailable
from comity.wire.blob import BlobStat
from support.wired import MemoryNode, visited

BLOB = sha256(b"a blob")


class SilentNode(MemoryNode):
    """Accepts calls and answers none."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def stat(self, digests: Sequence[Digest]) -> tuple[BlobStat, ...]:
        self.asked.set()
        await asyncio.Event().wait()
        return ()

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        yield b"the first part"
        self.asked.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_whose_connection_is_closed_meanwhile_is_unavailable(streamed: bool) -> None:
    node = SilentNode()
    async with visited(node.services()) as client:

        async def call() -> None:
            if streamed:
                async for _ in client.read(BLOB, 0, 1 << 20):
                    pass
            else:
                await client.stat([BLOB])

        running = asyncio.create_task(call())
        async with asyncio.timeout(10):
            await node.asked.wait()
        await client.close()
        for waiting in (running, call()):
            with pytest.raises(Unavailable) as closed:
                await waiting
            assert closed.value.code == "CANCELLED"


async def test_a_task_that_waits_for_a_call_can_be_cancelled() -> None:
    node = SilentNode()
    async with visited(node.services()) as client:
        running = asyncio.create_task(client.stat([BLOB]))
        async with asyncio.timeout(10):
            await node.asked.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
