"""Many clients on one site load models that their node does not hold yet."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import httpx2
import pytest
from comity.trust.encoding import sha256
from support.federation import WITH_GATEWAY, NodeProcess, found, until
from support.hub_like import hub_like
from support.ports import free_port
from support.publisher import Publisher, model, release, send
from support.reading_through import fetched, reading_through
from support.stock import Stock
from support.waiting import PATIENCE

MODELS = 4
PROCESSES = 8
CLIENTS = 64
WEIGHTS = 6_000_000
MIB = 1024 * 1024
PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


@pytest.mark.long
async def test_64_stock_clients_on_4_cold_models_cause_one_fetch_a_file(tmp_path: Path) -> None:
    """Long: `test_gateway_cold.py` has as many readers without a stock client, and the short form fewer clients."""
    full, cold = found(tmp_path, 2).homes
    http = f"127.0.0.1:{free_port()}"
    cold.set("replication", mirror="none")
    cold.set("gateway", http=http, cold="peers")
    publisher = Publisher.generate()
    expected: dict[str, dict[str, str]] = {}
    sizes: dict[str, int] = {}
    with (
        contextlib.closing(NodeProcess(full)) as source,
        contextlib.closing(NodeProcess(cold, main=WITH_GATEWAY, fresh=True)) as node,
    ):
        await source.ready()
        await node.ready()
        async with full.client() as client:
            for number in range(MODELS):
                name = f"course/model-{number}"
                ready = release(publisher, model(tmp_path / name, weights=WEIGHTS, seed=number), f"{name}@v1")
                await send(client, ready)
                files = ready.ingested.manifest.files
                expected[name] = {entry.path: entry.sha256 for entry in files}
                sizes |= {entry.sha256: entry.size for entry in files if entry.path == "weights.bin"}
        await until(lambda: all(known(http, name) for name in expected), what="the cold node to know of them")
        crowds = await asyncio.gather(*(crowd(f"http://{http}", tmp_path, expected, n) for n in range(PROCESSES)))
        peak = PEAK.search(Path(f"/proc/{node.pid}/status").read_text())
        await until(lambda: sent(source, sizes) >= Counter(sizes), what="the source to tell what it served")
        served = sent(source, sizes)
    assert crowds == [[expected[name] for name in sorted(expected)] * (CLIENTS // PROCESSES // MODELS)] * PROCESSES
    assert served == sizes
    assert peak is not None
    assert int(peak[1]) * 1024 < 512 * MIB


@pytest.mark.slow
async def test_stock_clients_read_through_from_a_hub_that_is_asked_for_each_file_once(tmp_path: Path) -> None:
    shards = {f"shard-{number}.bin": random.Random(number).randbytes(WEIGHTS // 2) for number in range(6)}
    files = {"README.md": b"# Shards\n", "config.json": b"{}\n", **shards}
    hashes = {path: sha256(data) for path, data in files.items()}
    with hub_like() as hub:
        commit = hub.repository("org/shards").commit(files).sha
        async with reading_through(tmp_path, hub) as node:
            clients = [Stock(node.url, tmp_path / f"user-{number}") for number in range(3)]
            runs = (client.run(["snapshot"], patience=400, repository="org/shards") for client in clients)
            got = await asyncio.gather(*runs)
            alone = await Stock(node.url, tmp_path / "later").run(["info", "snapshot"], repository="org/shards")
        assert [found_there["snapshot"] for found_there in (*got, alone)] == [{"commit": commit, "files": hashes}] * 4
        assert sorted(fetched(hub)) == sorted(files)
    assert "no publisher signed it" in got[0]["stderr"]


def sent(node: NodeProcess, blobs: Mapping[str, int]) -> Counter[str]:
    """How many bytes of each of these blobs a node has sent."""
    found = Counter[str]()
    for event in node.events:
        if event["event"] == "served" and str(event["blob"]) in blobs:
            found[str(event["blob"])] += int(str(event["sent"]))
    return found


def known(http: str, name: str) -> bool:
    return httpx2.get(f"http://{http}/api/models/{name}", timeout=PATIENCE).status_code == 200


async def crowd(endpoint: str, folder: Path, expected: dict[str, dict[str, str]], number: int) -> object:
    """The results of one process, in which several clients ran, each with a cache of its own."""
    caches = [str(folder / f"cache-{number}-{each}") for each in range(CLIENTS // PROCESSES)]
    request = {"repository": "", "repositories": sorted(expected), "caches": caches, "comes_back": True}
    found_there = await Stock(endpoint, folder / f"user-{number}").run(["crowd"], patience=400, **request)
    return found_there["crowd"]
