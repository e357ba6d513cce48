"""How fast a folder is taken in, beside a loop that computes the same two hashes.

    python bench/ingest.py [--rounds 7] [--mib 1024]

Peers take turns in one run; the files are random bytes and warm in the page cache, so that hashing is what is measured.
Processor seconds stand beside the speed: they tell what the work costs where other programs compete for the cores, as
`load_average` says they did.

    loop      one thread reads 4 MiB at a time and updates both hashes, one after the other
    two loops the same work on two threads, as well as it can be split: the ceiling on two cores
    ingest    `comity.content.ingest`, manifest, piece records and index included
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from comity.content.ingest import ingest
from comity.trust.artifact import PIECE_SIZE

RESULT = Path(__file__).parent / "results" / "ingest.json"
WORKERS = 2


def loop(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        read(path, whole=True, pieces=True)


def two_loops(folder: Path) -> None:
    paths = sorted(folder.iterdir())
    with ThreadPoolExecutor(2) as pool:
        if len(paths) > 1:
            list(pool.map(lambda path: read(path, whole=True, pieces=True), paths))
        else:
            list(pool.map(lambda whole: read(paths[0], whole=whole, pieces=not whole), (True, False)))


def taken_in(folder: Path) -> None:
    ingest(folder, workers=WORKERS, on_progress=lambda _count: None)


def read(path: Path, *, whole: bool, pieces: bool) -> None:
    hasher, buffer = hashlib.sha256(), bytearray(PIECE_SIZE)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            piece = memoryview(buffer)[:count]
            if whole:
                hasher.update(piece)
            if pieces:
                hashlib.sha256(piece).digest()


PEERS: dict[str, Callable[[Path], None]] = {"loop": loop, "two loops": two_loops, "ingest": taken_in}


def measure(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    size = sum(path.stat().st_size for path in folder.iterdir())
    speeds: dict[str, list[float]] = {name: [] for name in PEERS}
    costs: dict[str, list[float]] = {name: [] for name in PEERS}
    for peer in PEERS.values():
        peer(folder)
    for _ in range(rounds):
        for name, peer in PEERS.items():
            started, busy = time.perf_counter(), time.process_time()
            peer(folder)
            speeds[name].append(size / 1e6 / (time.perf_counter() - started))
            costs[name].append((time.process_time() - busy) / (size / 1e9))
    base = statistics.median(speeds["loop"])
    return {
        name: {
            "median_mb_per_s": round(statistics.median(found)),
            "min": round(min(found)),
            "max": round(max(found)),
            "ratio_to_loop": round(statistics.median(found) / base, 2),
            "cpu_s_per_gb": round(statistics.median(costs[name]), 2),
        }
        for name, found in speeds.items()
    }


def fill(folder: Path, files: int, mib: int) -> Path:
    folder.mkdir()
    for number in range(files):
        with (folder / f"{number}.bin").open("wb") as file:
            for _ in range(mib // files):
                file.write(os.urandom(1024 * 1024))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mib", type=int, default=1024)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        cases = {
            "one file": measure(fill(Path(scratch, "one"), 1, asked.mib), asked.rounds),
            "eight files": measure(fill(Path(scratch, "eight"), 8, asked.mib), asked.rounds),
        }
    result = {
        "what": "MB/s of input, both hashes of every byte; interleaved, warm page cache, random bytes",
        "rounds": asked.rounds,
        "mib": asked.mib,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "load_average": round(os.getloadavg()[0], 1),
        "cases": cases,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
