"""What a mirroring node spends on an artifact that a peer has published.

    python bench/mirror.py [--rounds 5] [--mib 512]

Each round publishes other random bytes at the first node of a lab; the others mirror all. Counted is the CPU of each
mirroring node from the publication until it has the file, less what it spends in the same time at rest: evidence and
records fetched, ranges received, each byte hashed by the piece index and as a file, written, synced and logged.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from comity.federation_file import Federation
from comity.trust.encoding import Digest
from comity.wire.addresses import Address
from comity.wire.client import NodeClient
from comity.wire.tls import CertificatePin
from comity_cli.lab.lab import LabNode
from harness import keep_bytecode, process_seconds, write
from made import Served, model, served

REST = 20.0
"""Seconds without work that are measured before the first publication."""
PATIENCE = 300.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--mib", type=int, default=512)
    chosen = options.parse_args()
    found: list[list[float]] = []
    with tempfile.TemporaryDirectory(prefix="comity-bench-") as scratch:
        root = Path(scratch)
        keep_bytecode(root / "bytecode")
        with served(root, copies=True) as lab:
            mirrors, load = lab.lab.nodes[1:], [os.getloadavg()[0]]
            began, before = time.perf_counter(), spent(mirrors)
            time.sleep(REST)
            rest = [
                (now - then) / (time.perf_counter() - began) for now, then in zip(spent(mirrors), before, strict=True)
            ]
            for version in range(chosen.rounds + 1):
                folder = model(root / "model", chosen.mib)
                found.append(one_round(lab, mirrors, folder, version, rest))
                load.append(os.getloadavg()[0])
                shutil.rmtree(folder)
    counted = [each for one in found[1:] for each in one]  # the first round also warms the connections
    result = {
        "cpu_s_per_gb": round(statistics.median(counted), 2),
        "min": round(min(counted), 2),
        "max": round(max(counted), 2),
        "rest_cpu_s_per_s": round(statistics.mean(rest), 3),
        "load": {"min": round(min(load), 1), "max": round(max(load), 1)},
    }
    print(result)
    write("mirror", rounds=chosen.rounds, mib=chosen.mib, mirrors=len(mirrors), **result)


def one_round(
    lab: Served, mirrors: Sequence[LabNode], folder: Path, version: int, rest: Sequence[float]
) -> list[float]:
    """CPU seconds a gigabyte of each mirroring node."""
    (file,) = folder.iterdir()
    with file.open("rb") as opened:
        digest = Digest(hashlib.file_digest(opened, "sha256").hexdigest())
    began, before, size = time.perf_counter(), spent(mirrors), file.stat().st_size
    name = f"bench/model@v{version}"
    lab.comity("publish", str(folder), "--as", name, "--licence", "other", "--node", lab.node.name)
    asyncio.run(held(lab, mirrors, digest))
    seconds = time.perf_counter() - began
    now = spent(mirrors)
    return [(now[n] - before[n] - seconds * rest[n]) / (size / 1e9) for n in range(len(mirrors))]


async def held(lab: Served, mirrors: Sequence[LabNode], digest: Digest) -> None:
    """Return when all `mirrors` have the file."""
    federation = Federation.parse(lab.lab.federation.read_bytes())
    records = {node.record.name: node.record for node in federation.nodes}
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        for node in mirrors:
            pin = CertificatePin.of(records[node.name].tls)
            client = await stack.enter_async_context(NodeClient.connect(Address.parse(node.address), pin))
            while not (await client.stat([digest]))[0].have:
                await asyncio.sleep(0.2)


def spent(nodes: Sequence[LabNode]) -> list[float]:
    return [process_seconds(node.pid) for node in nodes if node.pid is not None]


if __name__ == "__main__":
    main()
