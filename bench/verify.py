"""Verifying one large file, beside sha256sum.

    python bench/verify.py [--rounds 5] [--mib 2048]

    sha256sum           of the file, on one core
    verify              `comity verify` of the pulled folder: evidence, policy, and the file on all cores by the chained
                        records in its pack
    verify, no chain    the same without these records: the file in order, on one core

Whole processes, one file of random bytes, warm in the page cache.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness import Spent, show, speeds, take_turns, write
from made import REFERENCE, model, served


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--mib", type=int, default=2048)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="comity-bench-") as scratch:
        root = Path(scratch)
        folder = model(root / "model", chosen.mib)
        size = sum(path.stat().st_size for path in folder.iterdir())
        with served(root) as lab:
            lab.comity("publish", str(folder), "--as", REFERENCE, "--licence", "other", "--node", lab.node.name)
            shutil.rmtree(folder)
            policy = root / "policy.toml"
            policy.write_text(
                'schema = "comity/policy/v1"\n[[pin]]\nfile = "lab/federation.json"\n[cosigners]\nat_least = 0\n'
            )
            chained, plain = root / "chained", root / "plain"
            lab.comity("pull", REFERENCE, "--policy", str(policy), "--to", str(chained))
        shutil.copytree(chained / ".comity", plain / ".comity", ignore=shutil.ignore_patterns("chains"))
        for file in chained.glob("*.safetensors"):
            (plain / file.name).hardlink_to(file)

        def verify(what: Path) -> Callable[[], None]:
            return lambda: print(end=lab.comity("verify", str(what), "--policy", str(policy), "--quiet"))

        def sum_of_file() -> None:
            subprocess.run(["sha256sum", *chained.glob("*.safetensors")], check=True, stdout=subprocess.DEVNULL)

        spent = Spent()
        peers = {"sha256sum": sum_of_file, "verify": verify(chained), "verify, no chain": verify(plain)}
        taken = take_turns(peers, chosen.rounds, spent)
    table = {name: row | spent.columns(name, size) for name, row in speeds(taken, size, "sha256sum").items()}
    show(table)
    load = {"min": min(spent.load), "max": max(spent.load)}
    write("verify", rounds=chosen.rounds, bytes=size, cache="warm", figure="whole processes", load=load, peers=table)


if __name__ == "__main__":
    main()
