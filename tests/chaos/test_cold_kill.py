"""A node that is killed while it fetches a blob that a client reads."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from comity.trust.charter.document import Body
from comity_client.founding import consent_to, seal_federation
from support.federation import WITH_GATEWAY, NodeHome, NodeProcess, found, serving, until
from support.ports import free_port
from support.publisher import Publisher, model, release, send
from support.slow_links import SlowRelay
from support.waiting import PATIENCE

SIZE = 30_000_000
PIECE_SIZE = 4 * 1024 * 1024


@pytest.mark.slow
async def test_a_killed_node_continues_with_the_pieces_that_had_arrived(tmp_path: Path) -> None:
    founded = found(tmp_path, 2)
    full, cold = founded.homes
    http = f"127.0.0.1:{free_port()}"
    cold.set("replication", mirror="none")
    cold.set("gateway", http=http, cold="peers")
    folder = model(tmp_path / "model", weights=SIZE)
    ready = release(Publisher.generate(), folder, "tests/model@v1")
    (digest,) = [digest for digest, path in ready.blobs.items() if path.name == "weights.bin"]
    partial = cold.config().storage.blobs / "partial" / digest
    with contextlib.closing(SlowRelay(full.card.open[0])) as narrow:
        _lead_through(narrow, full, cold, founded.federation.body)
        async with serving(full):
            async with full.client() as client:
                await send(client, ready)
            narrow.rate = 2e6
            with contextlib.closing(NodeProcess(cold, main=WITH_GATEWAY)) as node:
                await node.ready()
                await until(lambda: _status(http, "/api/models/tests/model") == 200, what="the node to know of it")
                reader = asyncio.create_task(_read(http))
                await until(
                    lambda: partial.exists() and partial.stat().st_blocks * 512 >= 2 * PIECE_SIZE, what="two pieces"
                )
                node.kill()
                assert len(await reader) < SIZE
            narrow.rate = None
            with contextlib.closing(NodeProcess(cold, main=WITH_GATEWAY)) as node:
                await node.ready()
                await until(lambda: _status(http, "/api/models/tests/model") == 200, what="the node to know of it")
                assert await _read(http) == (folder / "weights.bin").read_bytes()
                (fetched,) = [event for event in node.events if event["event"] == "fetched"]
                assert int(str(fetched["resumed"])) >= 2 * PIECE_SIZE


def _lead_through(narrow: SlowRelay, full: NodeHome, cold: NodeHome, body: Body) -> None:
    """The node knows the other one by the address of the slow link only."""
    consents = [consent_to(body, home.directory) for home in (full, cold)]
    card = replace(full.card, mutual=(), open=(narrow.address,))
    (cold.directory / "federation.json").write_bytes(seal_federation(body, consents, [card, cold.card]).encode())
    full.set("advertise", mutual=[], open=[narrow.address])


def _status(http: str, path: str) -> int:
    return httpx2.get(f"http://{http}{path}", timeout=PATIENCE).status_code


async def _read(http: str) -> bytes:
    """The bytes that a client gets until the end, or until it is cut off."""
    got, url = b"", f"http://{http}/tests/model/resolve/main/weights.bin"
    with contextlib.suppress(httpx2.RemoteProtocolError, httpx2.ReadError):
        async with httpx2.AsyncClient(follow_redirects=True, timeout=60) as client, client.stream("GET", url) as answer:
            async for part in answer.aiter_raw():
                got += part
    return got
