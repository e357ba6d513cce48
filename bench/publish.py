"""Publishing without a copy, beside a loop that computes the same two hashes.

    python bench/publish.py [--rounds 5] [--mib 2048]

    loop     one process reads the folder's bytes once, 4 MiB at a time, and updates both hashes
    publish  `comity publish --link` over the operator's socket, the whole process: start, hashes on two threads,
             two signatures, upload of what is small, hard links, log entry, checkpoint, proof checked

Files are random bytes, warm in the page cache, on one disk. Each round publishes a new version, since a second
publication of the same one is answered without work.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import Spent, process_seconds, show, speeds, take_turns, write
from made import model, served

LOOP = """
import hashlib, pathlib, sys
buffer = bytearray(4 << 20)
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    whole = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            piece = memoryview(buffer)[:count]
            whole.update(piece)
            hashlib.sha256(piece).digest()
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--mib", type=int, default=2048)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="comity-bench-") as scratch:
        folder = model(Path(scratch) / "model", chosen.mib)
        size = sum(path.stat().st_size for path in folder.iterdir())
        version = itertools.count(1)
        with served(Path(scratch)) as lab:
            socket = str(lab.node.home / "operator.sock")

            def publish() -> None:
                name = f"bench/model@v{next(version)}"
                lab.comity(
                    "publish", str(folder), "--as", name, "--licence", "other", "--node", f"unix:{socket}", "--link"
                )

            def loop() -> None:
                subprocess.run([sys.executable, "-c", LOOP, str(folder)], check=True)

            pid = lab.node.pid
            assert pid is not None
            spent = Spent(lambda: process_seconds(pid))
            taken = take_turns({"loop": loop, "publish --link": publish}, chosen.rounds, spent)
    table = {name: row | spent.columns(name, size) for name, row in speeds(taken, size, "loop").items()}
    show(table)
    load = {"min": min(spent.load), "max": max(spent.load)}
    write("publish", rounds=chosen.rounds, bytes=size, cache="warm", figure="whole processes", load=load, peers=table)


if __name__ == "__main__":
    main()
