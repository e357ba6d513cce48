"""Many readers of one file at the same time, by HTTPS ranges from one node.

    python bench/readers.py [--readers 200] [--mib 96] [--processes 4]

Each reader has a connection of its own, reads the whole file once, and compares its SHA-256. All begin together, and
share the machine with the node. Shown are the readers that failed, and why; the seconds of the median, of the slowest
tenth, and of the slowest; the largest resident memory of the node, before and meanwhile; and the node's CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from comity.federation_file import Federation
from comity.transfer.range_client import RangeClient
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.wire.addresses import Address, RangeUrl
from comity.wire.client import NodeClient
from comity.wire.tls import CertificatePin
from harness import keep_bytecode, process_seconds, write
from made import REFERENCE, Served, model, served

READ = 1 << 20
TIMEOUT = 60.0
"""Seconds without a byte after which a reader gives up: a reader waits for the turns of all others."""


@dataclass(frozen=True)
class Place:
    """The file at the node: what each reader needs."""

    url: str
    certificate: bytes
    size: int
    digest: str


def read(place: Place) -> tuple[float, str]:
    """Read the file. Returns the seconds, and why it failed; empty if the bytes are right."""
    began = time.perf_counter()
    url, found, buffer = RangeUrl.parse(place.url), hashlib.sha256(), memoryview(bytearray(READ))
    client = RangeClient(url.address, CertificatePin.of(place.certificate))
    try:
        client.ask(url, 0, place.size, TIMEOUT)
        for offset in range(0, place.size, READ):
            part = buffer[: min(READ, place.size - offset)]
            client.fill(part, lambda count: None)
            found.update(part)
    except ComityError as error:
        return time.perf_counter() - began, error.code
    finally:
        client.close()
    return time.perf_counter() - began, "" if found.hexdigest() == place.digest else "OTHER-BYTES"


def readers(place: Place, count: int) -> list[tuple[float, str]]:
    """The results of `count` readers in threads of this process, which begin together."""
    together = threading.Barrier(count)

    def one(_: int) -> tuple[float, str]:
        together.wait()
        return read(place)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--readers", type=int, default=200)
    options.add_argument("--mib", type=int, default=96)
    options.add_argument("--processes", type=int, default=4)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="comity-bench-") as scratch:
        root = Path(scratch)
        keep_bytecode(root / "bytecode")
        folder = model(root / "model", chosen.mib)
        (file,) = folder.iterdir()
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        with served(root) as lab:
            lab.comity("publish", str(folder), "--as", REFERENCE, "--licence", "other", "--node", lab.node.name)
            place = asyncio.run(located(lab, Digest(digest), file.stat().st_size))
            result = measured(lab, place, chosen.readers, chosen.processes)
    for name, value in result.items():
        print(f"{name:<28}{value}")
    write("readers", bytes=place.size, readers=chosen.readers, processes=chosen.processes, **result)


async def located(lab: Served, digest: Digest, size: int) -> Place:
    federation = Federation.parse(lab.lab.federation.read_bytes())
    record = next(node.record for node in federation.nodes if node.record.name == lab.node.name)
    async with NodeClient.connect(Address.parse(lab.node.address), CertificatePin.of(record.tls)) as client:
        (location,) = await client.locations(digest)
    return Place(location.url, record.tls, size, digest)


def measured(lab: Served, place: Place, count: int, processes: int) -> dict[str, object]:
    pid = lab.node.pid
    assert pid is not None
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the largest resident memory is counted from now on
    before, began = resident(pid), time.perf_counter()
    spent, load = process_seconds(pid), os.getloadavg()[0]
    shares = [count // processes + (n < count % processes) for n in range(processes)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        found = [
            each for one in pool.starmap(readers, [(place, share) for share in shares if share], 1) for each in one
        ]
    return {
        "failed": dict(Counter(why for _, why in found if why)),
        **spread([seconds for seconds, why in found if not why]),
        "all_mb_per_s": round(count * place.size / 1e6 / (time.perf_counter() - began)),
        "node_mb_before": before,
        "node_mb_largest": resident(pid),
        "node_cpu_s_per_gb": round((process_seconds(pid) - spent) / (count * place.size / 1e9), 2),
        "load": {"before": round(load, 1), "after": round(os.getloadavg()[0], 1)},
    }


def spread(seconds: Sequence[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {}
    median, tenth = statistics.median(seconds), statistics.quantiles(seconds, n=10)[-1]
    return {
        "median_s": round(median, 1),
        "slowest_tenth_s": round(tenth, 1),
        "slowest_s": round(max(seconds), 1),
        "slowest_tenth_to_median": round(tenth / median, 2),
    }


def resident(pid: int) -> int:
    """The largest resident memory of a process in 10^6 bytes."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) * 1024 / 1e6)


if __name__ == "__main__":
    main()
