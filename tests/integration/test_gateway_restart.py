"""A restarted node: its first reader waits for one piece, and a change of the file since then is detected."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from comity.gateway.app import serve_gateway
from comity.node.app import RunningNode
from comity.node.home import OpenedHome
from comity.trust.artifact import PIECE_SIZE
from comity.trust.encoding import Digest
from support.federation import NodeHome, found, serving, until
from support.publisher import Publisher, model, release, send
from support.short_form import cases

pytestmark = pytest.mark.slow

SIZE = 6 * PIECE_SIZE + 12_345
"""Sizes of a file that is hashed piece by piece, or as a whole; the number of hashed bytes shows which."""


@dataclass
class Reader:
    """A client of a running node, and the number of bytes that the node has hashed for it."""

    node: OpenedHome
    url: str

    def hashed(self, what: str) -> float:
        return self.node.metrics.registry.get_sample_value("comity_hashed_bytes_total", {"what": what}) or 0.0

    async def get(self, *, first: bool = False) -> tuple[int, bytes]:
        """Status and bytes of the weights, or only of their first part; until the end, or the cut."""
        got, fields = b"", {"Range": "bytes=0-99"} if first else {}
        async with (
            httpx2.AsyncClient(follow_redirects=True, timeout=60) as client,
            client.stream("GET", f"{self.url}/tests/model/resolve/main/weights.bin", headers=fields) as answer,
        ):
            with contextlib.suppress(httpx2.RemoteProtocolError, httpx2.ReadError):
                async for part in answer.aiter_raw():
                    got += part
        return answer.status_code, got


@dataclass
class GatewayNode:
    """A stopped node, to which `tests/model` was published."""

    home: NodeHome
    weights: Digest
    data: bytes

    @contextlib.asynccontextmanager
    async def started(self) -> AsyncIterator[Reader]:
        opened: list[OpenedHome] = []

        def watched(node: RunningNode) -> AbstractAsyncContextManager[str]:
            opened.append(node.home)
            return serve_gateway(node)

        async with serving(self.home, companion=watched) as (listening,):
            yield Reader(opened[0], listening.http)

    def flip(self, at: int) -> None:
        path = self.home.config().storage.blobs / "blobs" / self.weights[:2] / self.weights
        data = bytearray(self.data)
        data[at] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
        path.chmod(0o444)

    def ledger(self, change: str) -> None:
        with contextlib.closing(sqlite3.connect(self.home.config().storage.ledger)) as database, database:
            changed = database.execute(change, {"blob": bytes.fromhex(self.weights)}).rowcount
            assert changed == 2  # of the signed layout and of the chained one


@pytest.fixture(params=cases(["", "127.0.0.1:0"], ["127.0.0.1:0"]), ids=["streamed", "from the file server"])
async def gateway_node(tmp_path: Path, request: pytest.FixtureRequest) -> GatewayNode:
    publisher = Publisher.generate()
    (home,) = found(tmp_path, 1, namespaces={"tests": publisher.id}).homes
    home.set("gateway", files=request.param)
    folder = model(tmp_path / "model", weights=SIZE)
    ready = release(publisher, folder, "tests/model@v1")
    async with serving(home, companion=serve_gateway):
        async with home.client() as client:
            await send(client, ready)
        await until(lambda: _held(home), what="the node to hold it")
    (weights,) = [digest for digest, path in ready.blobs.items() if path.name == "weights.bin"]
    return GatewayNode(home, weights, (folder / "weights.bin").read_bytes())


async def test_a_restart_costs_the_first_reader_one_piece(gateway_node: GatewayNode) -> None:
    async with gateway_node.started() as reader:
        assert await reader.get(first=True) == (206, gateway_node.data[:100])
        assert (reader.hashed("piece"), reader.hashed("whole")) == (PIECE_SIZE, 0)
        assert await reader.get() == (200, gateway_node.data)
        assert reader.hashed("whole") == 0


async def test_a_file_whose_records_are_lost_is_hashed_once_and_not_at_every_restart(gateway_node: GatewayNode) -> None:
    gateway_node.ledger("DELETE FROM piece_records WHERE blob = :blob")
    async with gateway_node.started() as reader:
        assert await reader.get(first=True) == (206, gateway_node.data[:100])
        assert reader.hashed("whole") == SIZE
    async with gateway_node.started() as reader:
        assert await reader.get(first=True) == (206, gateway_node.data[:100])
        assert (reader.hashed("piece"), reader.hashed("whole")) == (PIECE_SIZE, 0)


async def test_a_file_whose_records_are_damaged_is_served_correctly(gateway_node: GatewayNode) -> None:
    gateway_node.ledger(
        "UPDATE piece_records SET records = CAST(substr(records, 1, 71) || x'00' AS BLOB) WHERE blob = :blob"
    )
    async with gateway_node.started() as reader:
        assert await reader.get() == (200, gateway_node.data)
        assert reader.node.store.quarantined() == 0
    async with gateway_node.started() as reader:
        assert await reader.get() == (200, gateway_node.data)
        assert reader.hashed("whole") == 0


async def test_a_byte_that_changed_while_the_node_was_down_is_not_sent(gateway_node: GatewayNode) -> None:
    gateway_node.flip(PIECE_SIZE + 77)
    async with gateway_node.started() as reader:
        status, got = await reader.get()
        assert status == 200
        assert gateway_node.data.startswith(got) and len(got) <= PIECE_SIZE
        assert reader.node.store.quarantined() == 1
        assert (await reader.get())[0] == 503


def _held(home: NodeHome) -> bool:
    with contextlib.closing(sqlite3.connect(home.config().storage.ledger)) as database:
        return bool(database.execute("SELECT count(*) FROM statements WHERE predicate LIKE 'hold%'").fetchone()[0])
