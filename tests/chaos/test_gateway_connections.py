"""The gateway and its blob servers keep answering while strangers open and close connections, or hold them open.

The long form is 100,000 connections at each address: python -m pytest -m long tests/chaos/test_gateway_connections.py
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from attackers.connections import brief_connections
from support.gateway import GatewayNode, gateway_node
from support.ports import free_port
from support.waiting import PATIENCE


@pytest.fixture(autouse=True)
def few_open_files() -> Iterator[None]:
    """Limits this process to its open files, and 256 more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 256, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def settings() -> dict[str, Any]:
    return {name: f"127.0.0.1:{free_port()}" for name in ("http", "files", "ranges")}


async def answers(served: GatewayNode) -> None:
    """The gateway, and the operator's socket."""
    async with httpx2.AsyncClient(base_url=served.url, timeout=PATIENCE) as client:
        assert (await client.get("/healthz")).status_code == 200
    async with served.home.client() as node:
        assert (await node.node()).origin == served.home.origin


async def survived(folder: Path, connections: int) -> None:
    addresses = settings()
    async with gateway_node(folder, **addresses) as served:
        for address in addresses.values():
            port = int(str(address).rpartition(":")[2])
            made = 0
            while made < connections:
                made += await asyncio.to_thread(
                    brief_connections, "127.0.0.1", port, min(2_000, connections), threads=4
                )
            await answers(served)


@pytest.mark.slow
async def test_short_connections_leave_the_gateway_and_the_operator_served(tmp_path: Path) -> None:
    await survived(tmp_path, 1_000)


@pytest.mark.long
async def test_a_hundred_thousand_connections_leave_the_gateway_and_the_operator_served(tmp_path: Path) -> None:
    await survived(tmp_path, 100_000)


@contextlib.contextmanager
def silent_elsewhere(port: int, count: int) -> Iterator[None]:
    """`count` connections from another block of addresses that say nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            held = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=("127.66.0.1", 0))
            stack.enter_context(held)
        yield


async def test_more_silent_connections_than_slots_keep_no_client_out(tmp_path: Path) -> None:
    addresses = settings()
    async with gateway_node(tmp_path, **addresses) as served:
        for address in addresses.values():
            port = int(str(address).rpartition(":")[2])
            with silent_elsewhere(port, 80):
                await answers(served)
