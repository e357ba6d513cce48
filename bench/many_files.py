"""Many small files: a pull beside `hf download`, and a publication beside a copy and a hash of the same files.

    python bench/many_files.py [--rounds 5] [--files 2500 10000]

    pull                  `comity pull --to` from the nodes of a lab of four, of which one has the files: all verified
    hf download, gateway  the stock Hugging Face client from the gateway of that node, over plain HTTP; verifies nothing
    publish               `comity publish` of new files to that node at its open port, until a checkpoint proves it
    copy and hash         cp, then sha256sum of each copied file
    copy and hash, sync   the same, and the bytes on the disk when it ends, as publications and pulls leave them

Whole processes. Files are random hexadecimal digits of 11 kB, from 10,000 files on 10 kB, in folders of 500. Each round
publishes other bytes; each pull goes into a new folder with a client home that has pulled nothing.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from comity.trust.names import Name
from harness import Spent, keep_bytecode, process_seconds, take_turns, write
from made import COMITY, Served, served
from pull import fresh_home

REFERENCE = "bench/many@v1"
BASES = {"pull": "hf download, gateway", "publish": "copy and hash", "publish ": "copy and hash, sync"}
"""The peer with which each of ours is compared."""
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--files", type=int, nargs="+", default=[2_500, 10_000])
    options.add_argument("--result", default="many_files", help="the name of the result; empty writes none")
    chosen = options.parse_args()
    tables = {}
    with tempfile.TemporaryDirectory(prefix="comity-bench-") as scratch:
        keep_bytecode(Path(scratch) / "bytecode")
        for count in chosen.files:
            root = Path(scratch) / str(count)
            root.mkdir()
            tables[f"{count} files"] = measured(root, count, chosen.rounds)
    if chosen.result:
        figure = "whole processes; seconds, CPU seconds of the peer's processes, and of all four nodes"
        write(chosen.result, rounds=chosen.rounds, figure=figure, sizes=tables)


def measured(root: Path, count: int, rounds: int) -> dict[str, object]:
    """One table: peers in turns."""
    size = 10_000 if count >= 10_000 else 11_000
    folders = [many(root / f"files-{number}", count, size) for number in range(rounds + 1)]
    with served(root) as lab:
        publish(lab, folders[0], REFERENCE)
        pids = [pid for node in lab.lab.nodes if (pid := node.pid) is not None]
        spent = Spent(lambda: sum(map(process_seconds, pids)))
        taken = take_turns(peers(root, lab, folders), rounds, spent)
    rows = {name: row(name, taken, spent) for name in taken}
    print(f"{count} files of {size} bytes")
    for name, found in rows.items():
        print(f"{name:<22}" + "  ".join(f"{key} {value}" for key, value in found.items()))
    return {"bytes": count * size, "load": {"min": min(spent.load), "max": max(spent.load)}, "peers": rows}


def many(folder: Path, count: int, size: int) -> Path:
    """`folder` with that many files of random digits."""
    for number in range(count):
        path = folder / f"part-{number // 500}" / f"{number:05}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(os.urandom(size).hex()[:size])
    return folder


def publish(lab: Served, folder: Path, name: str) -> None:
    lab.comity("publish", str(folder), "--as", name, "--licence", "other", "--node", lab.node.name)


def peers(root: Path, lab: Served, folders: list[Path]) -> dict[str, Callable[[], None]]:
    policy = root / "policy.toml"
    policy.write_text('schema = "comity/policy/v1"\n[[pin]]\nfile = "lab/federation.json"\n[cosigners]\nat_least = 0\n')
    name, number, version = Name.parse(REFERENCE), itertools.count(), itertools.count(2)
    unpublished, copied, synced = (iter(folders) for _ in range(3))
    homes = iter([fresh_home(lab, number) for _ in folders])
    next(unpublished)
    new = itertools.chain(unpublished, [many(root / "files-last", *shape(folders[0]))])

    def fresh() -> str:
        return str(root / f"into-{next(number)}")

    def run(command: list[str], **environment: str) -> None:
        ran = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, errors="replace", check=False
        )
        if ran.returncode:
            raise SystemExit(f"{' '.join(command)}: exit {ran.returncode}\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")

    def pull() -> None:
        run(
            [*COMITY, "pull", REFERENCE, "--policy", str(policy), "--quiet", "--to", fresh()],
            COMITY_HOME=str(next(homes)),
        )

    def download() -> None:
        hf = str(Path(sys.executable).parent / "hf")
        where = ["--revision", name.version, "--local-dir", fresh()]
        run([hf, "download", name.repository, *where], HF_ENDPOINT=lab.node.endpoint, **QUIET)

    def copy(source: Iterator[Path]) -> None:
        into = fresh()
        hashed = f"find {into} -type f -print0 | xargs -0 sha256sum > /dev/null"
        run(["bash", "-c", f"set -e -o pipefail; cp -r {next(source)} {into}; {hashed}"])

    def copy_and_sync() -> None:
        copy(synced)
        os.sync()

    return {
        "pull": pull,
        "hf download, gateway": download,
        "publish": lambda: publish(lab, next(new), f"bench/many@v{next(version)}"),
        "copy and hash": lambda: copy(copied),
        "copy and hash, sync": copy_and_sync,
    }


def shape(folder: Path) -> tuple[int, int]:
    """The number of files in a folder made by `many`, and the size of each."""
    sizes = [path.stat().st_size for path in folder.rglob("*.txt")]
    return len(sizes), sizes[0]


def row(name: str, taken: dict[str, list[float]], spent: Spent) -> dict[str, object]:
    """Medians and spreads of a peer; for each of ours, the median of the ratios to its peers, round by round."""
    seconds, own, nodes = taken[name], spent.own[name], spent.served[name]
    found: dict[str, object] = {
        "seconds": round(statistics.median(seconds), 2),
        "min": round(min(seconds), 2),
        "max": round(max(seconds), 2),
        "cpu_s": round(statistics.median(own), 2),
        "nodes_cpu_s": round(statistics.median(nodes), 2),
    }
    for base in [base for ours, base in BASES.items() if ours.strip() == name]:
        ratios = [mine / other for mine, other in zip(seconds, taken[base], strict=True)]
        found[f"times {base}"] = round(statistics.median(ratios), 2)
    return found


if __name__ == "__main__":
    main()
