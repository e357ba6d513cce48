"""The CPU time that a page of the console, and a page of the Hub's list, costs a node, with many artifacts.

    python bench/console.py [--artifacts 10000] [--rounds 20]

One node with a gateway; each artifact is a signed statement in its log, and a manifest. The time is `process_time` of
the process, all threads, for one request at a time. The HTTP client is in the same process, so its time is counted too.
The items of the list are not made ahead here, so that each time is that of the request alone.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

from comity.rules.signing import sign_content

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import httpx2
import structlog
from comity.content.blobs import FolderStore
from comity.gateway.app import serve_gateway
from comity.gateway.hub.list_items import ListItems
from comity.ledger.ledger import Ledger
from comity.node.supervisor import Supervisor
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.names import Name
from comity.trust.statement import SideObject
from comity.trust.statements import Licence, Published
from harness import write
from support.federation import NodeHome, found, serving
from support.gateway import GatewayNode
from support.publisher import Publisher, model

BATCH = 50
QUIET = 0.15
"""Seconds of CPU in a second, below which a node has nothing to do."""
LICENCES = ("Apache-2.0", "MIT", "CC-BY-4.0", "gemma")


def published(publisher: Publisher, number: int, store: FolderStore) -> bytes:
    """A line about an artifact of three files; its manifest is stored."""
    names = ("README.md", "config.json", "model.safetensors" if number % 2 else "model.gguf")
    files = (FileEntry(name, 10**6 * (number + 1), sha256(f"{name} {number}".encode())) for name in names)
    data = Manifest.of(files).encode()
    manifest = SideObject.of(data)
    store.put(manifest.digest, data)
    name = Name("tests", f"model-{number:06}", "v1")
    said = Published(publisher.id, name, manifest.digest, manifest, manifest, Licence(LICENCES[number % 4], None))
    return sign_content(said, publisher.signer).line


def fill(home: NodeHome, publisher: Publisher, count: int) -> None:
    """Append the lines to the own log of a node that does not run; its intake verifies them at the start."""
    config = home.config()
    store, ledger = FolderStore(config.storage.blobs), Ledger.open(config.storage.ledger.parent, time.time)
    try:
        key = str(home.record.log)
        ledger.logs.create(home.origin, key, own=True)
        ledger.logs.append(key, [publisher.announcement])
        for start in range(0, count, BATCH):
            numbers = range(start, min(count, start + BATCH))
            ledger.logs.append(key, [published(publisher, number, store) for number in numbers])
    finally:
        ledger.close()


async def measure(node: GatewayNode, paths: dict[str, str], rounds: int) -> dict[str, dict[str, float]]:
    table = {}
    async with httpx2.AsyncClient(base_url=node.url, headers={"Accept": "text/html"}) as http:
        for name, path in paths.items():
            seconds, size = [], 0
            for _ in range(rounds):
                before = time.process_time()
                answer = await http.get(path)
                seconds.append(time.process_time() - before)
                size = len(answer.content)
                assert answer.status_code == 200, (path, answer.status_code)
            table[name] = {
                "first_ms": round(1000 * seconds[0], 1),
                "median_ms": round(1000 * statistics.median(seconds), 1),
                "p99_ms": round(1000 * sorted(seconds)[int(len(seconds) * 0.99)], 1),
                "max_ms": round(1000 * max(seconds), 1),
                "bytes": size,
            }
    return table


async def measure_list(node: GatewayNode, count: int) -> dict[str, dict[str, float]]:
    """A page of a hundred repositories that were never judged, the same page again, and searches for one name."""
    table = {}
    async with httpx2.AsyncClient(base_url=node.url, timeout=120) as http:
        page = f"/api/models?limit=100&cursor=tests/model-{max(0, count - 200):06}"
        for name in ("list, never judged", "list, judged before", "list, judged before, again"):
            table[name] = await cost_of_list(http, page, 100)
        searches = [f"/api/models?search=model-{count - 1 - number % 100:06}&limit=5" for number in range(200)]
        spent = sorted([(await cost_of_list(http, path, 1))["cpu_ms"] for path in searches])
        table["search of the list"] = {"p50_ms": spent[100], "p99_ms": spent[197]}
    return table


async def cost_of_list(http: httpx2.AsyncClient, path: str, expected: int) -> dict[str, float]:
    before, began = time.process_time(), time.perf_counter()
    answer = await http.get(path)
    spent, passed = time.process_time() - before, time.perf_counter() - began
    assert len(answer.json()) == expected, (path, len(answer.json()))
    return {"cpu_ms": round(1000 * spent, 1), "wall_ms": round(1000 * passed, 1)}


async def settled() -> None:
    """Wait until the work of the start is done, or for a minute and a half."""
    for _ in range(90):
        before = time.process_time()
        await asyncio.sleep(1)
        if time.process_time() - before < QUIET:
            return


def make_nothing_ahead(items: ListItems, supervisor: Supervisor) -> None:
    """Each item is made when it is asked for."""


async def main(count: int, rounds: int) -> None:
    ListItems.begin = make_nothing_ahead  # type: ignore[assignment, method-assign]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        publisher = Publisher.generate()
        (home,) = found(Path(folder), 1, namespaces={"tests": publisher.id}).homes
        home.set("gateway", calls_per_second=1_000_000)
        home.set("replication", mirror="none")
        fill(home, publisher, count)
        async with serving(home, companion=serve_gateway) as (listening,):
            node = GatewayNode(listening.http, home, publisher)
            await node.publish(model(Path(folder) / "model", weights=1_000), "tests/whole@v1")
            async with httpx2.AsyncClient(base_url=node.url, headers={"Accept": "text/html"}) as http:
                while f"model-{count - 1:06}" not in (await http.get(f"/-/catalogue?q=model-{count - 1:06}")).text:
                    await asyncio.sleep(1)
                logs = (await http.get("/-/logs")).text
                log = logs[logs.index("/-/logs/") :].partition('"')[0]
            paths = {
                "overview": "/",
                "overview, a member gone": "/?gone=in:CH",
                "catalogue": "/-/catalogue",
                "catalogue, a word that only the last name has": f"/-/catalogue?q=model-{count - 1:06}",
                "catalogue, nothing matches": "/-/catalogue?q=zzz",
                "artifact": "/tests/whole",
                "members": "/-/members",
                "logs": "/-/logs",
                "entries": log,
                "entry": f"{log}/5",
                "proposals": "/-/proposals",
                "compute": "/-/compute",
                "alerts": "/-/alerts",
            }
            await settled()
            lists = await measure_list(node, count)
            table = await measure(node, paths, rounds)
    for name, row in table.items():
        print(f"{name:50} {row}")
    for name, row in lists.items():
        print(f"{name:50} {row}")
    write("console", artifacts=count, rounds=rounds, pages=table, lists=lists)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifacts", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.artifacts, arguments.rounds))
