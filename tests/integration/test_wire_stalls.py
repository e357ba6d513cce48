"""Strangers that never end their connections and calls: these take slots from their own address block only."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing

import pytest
from attackers.connections import Stream, silent
from comity.trust.encoding import sha256
from comity.wire import limits
from comity.wire.access import OpenAccess
from comity.wire.addresses import Address
from comity.wire.client import NodeClient
from comity.wire.connections import ConnectionGuard, PortShares
from comity.wire.server import make_server
from comity.wire.throttle import Allowance, Throttle
from support.federation import until
from support.raw_bytes import message
from support.wired import MemoryNode, identity, pin

SERVER = identity()
NODE = MemoryNode()
BLOB = NODE.keep(bytes(8 << 20))
READ = message((1, bytes.fromhex(BLOB)), (3, 8 << 20))
ELSEWHERE = "127.0.9.1"


@asynccontextmanager
async def serving(allowance: Allowance, shares: PortShares | None = None) -> AsyncIterator[Address]:
    rule, watched = OpenAccess(SERVER), shares or PortShares(1_000)
    server = make_server(rule, NODE.services(), Throttle(allowance), admitted=watched.admitted)
    port = server.add_secure_port("127.0.0.1:0", rule.credentials())
    await server.start()
    guard = ConnectionGuard({port: watched})
    guard.start()
    try:
        yield Address("127.0.0.1", port)
    finally:
        await server.stop(0)
        guard.stop()


def honest(address: Address) -> NodeClient:
    return NodeClient.connect(address, pin(SERVER), timeout=5)


async def connected(address: Address, source: str = ELSEWHERE, window: int = 0) -> Stream:
    return await asyncio.to_thread(Stream.connect, address.host, address.port, source=source, window=window)


async def hand_in(stream: Stream, method: str, request: bytes = b"") -> None:
    await asyncio.to_thread(stream.call, method, request)


async def test_the_attackers_http2_is_valid() -> None:
    async with serving(Allowance()) as address:
        with closing(await connected(address, window=65_535)) as stream:
            await hand_in(stream, "NodeService/GetNode")
            assert b"comity/test" in await asyncio.to_thread(stream.received, 0.5)


@pytest.mark.parametrize(
    ("method", "request_"),
    [("BlobService/Read", READ), ("NodeService/GetNode", b"")],
    ids=["a stream", "a single answer"],
)
async def test_a_caller_that_reads_no_answer_loses_its_connection(
    method: str, request_: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEND_TIMEOUT", 0.3)
    async with serving(Allowance(at_once=4, all_at_once=4)) as address:
        with closing(await connected(address, source="127.0.0.1")) as stream:
            for _ in range(4):
                await hand_in(stream, method, request_)
            assert await asyncio.to_thread(stream.ended, 10)
        async with honest(address) as client:
            assert (await client.node()).software == "comity/test"


async def test_a_slow_caller_that_reads_keeps_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEND_TIMEOUT", 4.0)
    async with serving(Allowance()) as address, honest(address) as client:
        data = bytearray()
        async for chunk in client.read(BLOB, 0, 8 << 20):
            data += chunk
            await asyncio.sleep(0.7)
        assert sha256(bytes(data)) == BLOB


async def test_four_addresses_do_not_hold_all_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SEND_TIMEOUT", 60.0)
    async with serving(Allowance(at_once=8, all_at_once=16)) as address:
        with ExitStack() as held:
            for block in range(1, 5):
                stream = held.enter_context(closing(await connected(address, f"127.0.{block}.1")))
                for _ in range(6):
                    await hand_in(stream, "BlobService/Read", READ)
            async with honest(address) as client:
                for _ in range(5):
                    assert (await client.node()).software == "comity/test"


async def test_incomplete_requests_take_no_slot_from_other_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CALL_TIMEOUT", 60.0)
    async with serving(Allowance(at_once=64)) as address:
        with ExitStack() as held:
            for block in (1, 2):
                stream = held.enter_context(closing(await connected(address, f"127.0.{block}.1")))
                for _ in range(32):
                    await asyncio.to_thread(stream.half, "BlobService/Stat", 1_000)
            async with honest(address) as client:
                for _ in range(5):
                    assert (await client.node()).software == "comity/test"


async def test_many_concurrent_requests_of_one_caller_are_all_read() -> None:
    async with serving(Allowance(at_once=100)) as address, honest(address) as client:
        facts = await asyncio.gather(*(client.node() for _ in range(64)))
        assert len(facts) == 64


async def test_silent_connections_of_another_block_are_closed() -> None:
    async with serving(Allowance(), PortShares(8)) as address:
        with silent(address.host, address.port, 40, source=ELSEWHERE) as held:

            def closed() -> bool:
                return sum(ended(connection) for connection in held) >= 32

            await until(lambda: asyncio.to_thread(closed), what="those beyond the places to be closed")
            async with honest(address) as client:
                assert (await client.node()).software == "comity/test"


def ended(connection: socket.socket) -> bool:
    connection.settimeout(0.001)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True
