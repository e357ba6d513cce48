"""Many clients on one site load models at the same moment, as at the start of a course."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.federation import WITH_GATEWAY, NodeHome, NodeProcess, found
from support.ports import free_port
from support.publisher import Publisher, model, release, send
from support.stock import Stock

MODELS = 4
PROCESSES = 8
WEIGHTS = 24_000_000
MIB = 1024 * 1024
PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "each", "bound"),
    [
        pytest.param(True, 4, 256 * MIB, id="32, file server"),
        pytest.param(True, 8, 256 * MIB, id="64, file server", marks=pytest.mark.long),
        pytest.param(False, 8, 640 * MIB, id="64, inline", marks=pytest.mark.long),
    ],
)
async def test_many_stock_clients_are_served_in_bounded_memory_though_some_stall(
    tmp_path: Path, files: bool, each: int, bound: int
) -> None:
    """24 MB a client are sent; the node's memory depends on the number of clients, not on the size of their
    downloads.
    """
    (home,) = found(tmp_path, 1).homes
    http = f"127.0.0.1:{free_port()}"
    home.set("gateway", http=http, files=f"127.0.0.1:{free_port()}" if files else "")
    with contextlib.closing(NodeProcess(home, main=WITH_GATEWAY, fresh=True)) as node:
        await node.ready()
        expected = await published(home, tmp_path)
        with stalled(http, sorted(expected)[0]):
            crowds = await asyncio.gather(
                *(crowd(f"http://{http}", tmp_path, expected, n, each) for n in range(PROCESSES))
            )
        peak = PEAK.search(Path(f"/proc/{node.pid}/status").read_text())
    wanted = [expected[name] for name in sorted(expected)] * (each // MODELS)
    assert crowds == [wanted] * PROCESSES
    assert peak is not None
    assert int(peak[1]) * 1024 < bound


async def published(home: NodeHome, folder: Path) -> dict[str, dict[str, str]]:
    """Four models on the node: what files each has."""
    publisher = Publisher.generate()
    expected: dict[str, dict[str, str]] = {}
    async with home.client() as client:
        for number in range(MODELS):
            name = f"course/model-{number}"
            made = model(folder / name, weights=WEIGHTS, seed=number)
            ready = release(publisher, made, f"{name}@v1")
            await send(client, ready)
            expected[name] = {entry.path: entry.sha256 for entry in ready.ingested.manifest.files}
    return expected


async def crowd(endpoint: str, folder: Path, expected: dict[str, dict[str, str]], number: int, each: int) -> object:
    """The results of one process, in which several clients ran, each with a cache of its own."""
    caches = [str(folder / f"cache-{number}-{reader}") for reader in range(each)]
    request = {"repository": "", "repositories": sorted(expected), "caches": caches}
    found_there = await Stock(endpoint, folder / f"user-{number}").run(["crowd"], patience=400, **request)
    return found_there["crowd"]


@contextlib.contextmanager
def stalled(http: str, repository: str) -> Iterator[None]:
    """Clients that ask for a whole model, and then read nothing of it."""
    url = urlsplit(f"http://{http}/{repository}/resolve/v1/weights.bin")
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            asking = stack.enter_context(socket.create_connection((url.hostname, url.port)))
            asking.sendall(f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
        yield
