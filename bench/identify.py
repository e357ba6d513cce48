"""`comity identify`: hashing beside sha256sum on all cores, and a second run over a tree that has not changed.

    python bench/identify.py [--mib 2048] [--large 16] [--many 100000] [--rounds 5]

    identify      the first step of identify, without kept hashes; the start of a process is not counted
    sha256sum     the same files, as many processes at a time as there are cores
    second run    `comity identify` of many small files of which it has kept the hashes: the whole command, with its
                  questions to the four nodes of a lab, and the same without questions: found, hashed and matched

The large files are random and in memory. Of the second run CPU seconds are counted, of its own process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from comity_client.file_state import SETTLED_SECONDS
from comity_client.identify.disk import HashCache
from comity_client.identify.identify import hash_paths
from comity_client.identify.match import match
from harness import Spent, keep_bytecode, show, speeds, take_turns, write
from made import COMITY, Served, served

UNKNOWN = 9
"""Exit status: no node knows some of the files."""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mib", type=int, default=1_024)
    options.add_argument("--large", type=int, default=16)
    options.add_argument("--many", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--commands", type=int, default=5, help="second runs of the whole command; 0 starts no lab")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="comity-bench-") as scratch:
        root = Path(scratch)
        keep_bytecode(root / "bytecode")
        hashed = hashing(root / "large", given.mib, given.large, given.rounds)
        again = second_run(root, given.many, given.rounds, given.commands)
    for name, value in again.items():
        print(f"{name:<24}{value}")
    write("identify", rounds=given.rounds, bytes=given.mib << 20, hashing=hashed, second_run=again)


def hashing(folder: Path, mib: int, count: int, rounds: int) -> dict[str, object]:
    folder.mkdir()
    for number in range(count):
        with (folder / f"{number:03}.bin").open("wb") as file:
            for _ in range(mib // count):
                file.write(os.urandom(1 << 20))
    size = sum(path.stat().st_size for path in folder.iterdir())
    sums = f"find {folder} -type f -print0 | xargs -0 -n 1 -P {os.cpu_count()} sha256sum > /dev/null"

    def identify() -> None:
        hash_paths([folder], None, os.cpu_count() or 1, lambda count: None)

    def sha256sum() -> None:
        subprocess.run(["sh", "-c", sums], check=True)

    spent = Spent(time.process_time)  # identify runs in this process
    table = speeds(take_turns({"identify": identify, "sha256sum": sha256sum}, rounds, spent), size, "sha256sum")
    for name, row in table.items():
        cpu = [(own + here) / (size / 1e9) for own, here in zip(spent.own[name], spent.served[name], strict=True)]
        row |= {"cpu_s_per_gb": round(statistics.median(cpu), 2), "min_cpu": round(min(cpu), 2)}
    show(table)
    return {"peers": table, "load": {"min": min(spent.load), "max": max(spent.load)}}


def second_run(root: Path, count: int, rounds: int, commands: int) -> dict[str, object]:
    tree = root / "many"
    for number in range(count):
        path = tree / f"folder-{number // 500:04}" / f"{number:06}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(200))
    time.sleep(SETTLED_SECONDS)
    (root / "cache").mkdir()
    local = [local_run(tree, root / "cache") for _ in range(rounds + 1)][1:]
    result: dict[str, object] = {"files": count, **columns("local", local), "load": os.getloadavg()[0]}
    if commands:
        with served(root) as lab:
            first, *later = [command(lab, tree) for _ in range(commands + 1)]
        result |= {"first_command_cpu_s": round(first, 2), **columns("command", later)}
    return result


def columns(name: str, cpu: list[float]) -> dict[str, float]:
    found = {"cpu_s": statistics.median(cpu), "cpu_min": min(cpu), "cpu_max": max(cpu)}
    return {f"{name}_{column}": round(value, 2) for column, value in found.items()}


def local_run(tree: Path, folder: Path) -> float:
    """CPU seconds of this process."""
    begun = time.process_time()
    cache = HashCache(folder)
    match(hash_paths([tree], cache, os.cpu_count() or 1, lambda count: None), {})
    return time.process_time() - begun


def command(lab: Served, tree: Path) -> float:
    """CPU seconds of the command."""
    before = os.times()
    environment = {**os.environ, "COMITY_HOME": str(lab.home)}
    ran = subprocess.run(
        [*COMITY, "identify", str(tree), "--quiet"], env=environment, capture_output=True, text=True, check=False
    )
    if ran.returncode != UNKNOWN:
        raise SystemExit(f"comity identify: exit {ran.returncode}\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    main()
