"""What a program waits for before it loads an adopted model: `comity_client.local_verdict.check`, and the command.

    python bench/local_verdict.py [--rounds 9] [--mib 64]

    remembered          nothing has changed since the last verdict
    judged              the evidence is judged again, the hashes are kept
    fresh               every file is read
    command             `comity identify --require` in a process of its own, nothing has changed
    python, comity      processes that do nothing: an empty Python, `comity --version`

One artifact of the tests, with a file of random bytes beside its others. Milliseconds, medians; warm in the page cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness import keep_bytecode, show, write

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from comity_client import local_verdict
from comity_client.home import Home
from comity_client.local_verdict import check
from support.case import FILES, case
from support.weights import safetensors

COMITY = [sys.executable, "-m", "comity_cli.main"]
SETTLED = 3.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--mib", type=int, default=64)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="comity-bench-") as scratch:
        root = Path(scratch)
        keep_bytecode(root / "bytecode")
        weights = {"model-2.safetensors": safetensors({"b": os.urandom(chosen.mib << 20)})}
        model, policy, home = case(files={**FILES, **weights}).write(root), root / "policy.toml", Home(root / "home")
        time.sleep(SETTLED)
        environ = {**os.environ, "COMITY_HOME": str(home.root)}

        def ask(*, fresh: bool = False) -> None:
            assert check(model, policy, fresh=fresh, home=home).accepted

        def judged() -> None:
            (home.memory / local_verdict.MEMORY).unlink(missing_ok=True)
            ask()

        def process(*words: str) -> Callable[[], None]:
            return lambda: print(
                end=subprocess.run(words, env=environ, capture_output=True, check=True).stderr.decode()
            )

        peers: dict[str, Callable[[], None]] = {
            "judged": judged,
            "remembered": ask,
            "command": process(*COMITY, "identify", "--require", str(policy), str(model), "--quiet"),
            "fresh": lambda: ask(fresh=True),
            "python": process(sys.executable, "-c", "pass"),
            "comity --version": process(*COMITY, "--version"),
        }
        taken = {name: list[float]() for name in peers}
        loads = list[float]()
        for counted in (False, *([True] * chosen.rounds)):
            for name, peer in peers.items():
                began = time.perf_counter()
                peer()
                if counted:
                    taken[name].append((time.perf_counter() - began) * 1000)
            loads.append(os.getloadavg()[0])
    table = {
        name: {
            "median_ms": round(statistics.median(found), 1),
            "min_ms": round(min(found), 1),
            "max_ms": round(max(found), 1),
        }
        for name, found in taken.items()
    }
    show(table)
    load = {"min": min(loads), "max": max(loads)}
    write(
        "local_verdict", rounds=chosen.rounds, bytes=chosen.mib << 20, cache="warm", figure="ms", load=load, peers=table
    )


if __name__ == "__main__":
    main()
