"""A node that is killed while its gateway stores the piece records of a blob that it hashed as a whole."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from comity.trust.artifact import PIECE_SIZE
from comity.trust.encoding import Digest
from support.federation import WITH_GATEWAY, NodeHome, NodeProcess, found, until
from support.ports import free_port
from support.publisher import Publisher, model, release, send

SIZE = 3 * PIECE_SIZE + 12_345


@pytest.mark.slow
@pytest.mark.parametrize(("point", "kept"), [("before-commit", 0), ("after-commit", 1)])
async def test_a_node_killed_while_it_stores_records_continues_to_serve(tmp_path: Path, point: str, kept: int) -> None:
    publisher = Publisher.generate()
    (home,) = found(tmp_path, 1, namespaces={"tests": publisher.id}).homes
    http = f"127.0.0.1:{free_port()}"
    home.set("gateway", http=http)
    folder = model(tmp_path / "model", weights=SIZE)
    ready = release(publisher, folder, "tests/model@v1")
    (weights,) = [digest for digest, path in ready.blobs.items() if path.name == "weights.bin"]
    with contextlib.closing(NodeProcess(home, main=WITH_GATEWAY)) as node:
        await node.ready()
        async with home.client() as client:
            await send(client, ready)
        await until(lambda: _logged(node, "hold logged"), what="the node to hold it")
        assert node.stop() == 0
    assert _records(home, weights) == 2  # of the signed layout and of the chained one
    _forget(home, weights)

    environ = {"COMITY_FAULT": f"ledger.pieces.{point}"}
    with contextlib.closing(NodeProcess(home, environ, main=WITH_GATEWAY)) as node:
        await node.ready()
        with pytest.raises(httpx2.TransportError):
            await _read(http)
        await until(lambda: not node.alive, what="the node to die")
    assert _records(home, weights) == kept

    for hashed in (1 - kept, 0):
        with contextlib.closing(NodeProcess(home, main=WITH_GATEWAY)) as node:
            await node.ready()
            assert await _read(http) == (folder / "weights.bin").read_bytes()
            assert _logged(node, "hashed a blob without piece records") == hashed
            assert node.stop() == 0


async def _read(http: str) -> bytes:
    async with httpx2.AsyncClient(follow_redirects=True, timeout=60) as client:
        return (await client.get(f"http://{http}/tests/model/resolve/main/weights.bin")).content


def _logged(node: NodeProcess, what: str) -> int:
    return sum(event["event"] == what for event in node.events)


@contextlib.contextmanager
def _ledger(home: NodeHome) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(home.config().storage.ledger)) as database, database:
        yield database


def _records(home: NodeHome, blob: Digest) -> int:
    with _ledger(home) as database:
        rows = database.execute("SELECT count(*) FROM piece_records WHERE blob = ?", (bytes.fromhex(blob),))
        return int(rows.fetchone()[0])


def _forget(home: NodeHome, blob: Digest) -> None:
    with _ledger(home) as database:
        database.execute("DELETE FROM piece_records WHERE blob = ?", (bytes.fromhex(blob),))
