"""What the command costs before it does anything: CPU seconds of `comity --help`, beside an empty Python.

python bench/command.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from harness import show, write

PEERS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "comity --help": [sys.executable, "-m", "comity_cli.main", "--help"],
    "comity pull --help": [sys.executable, "-m", "comity_cli.main", "pull", "--help"],
    "comity --version": [sys.executable, "-m", "comity_cli.main", "--version"],
}


def cpu(command: list[str]) -> float:
    before = os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=15)
    rounds = options.parse_args().rounds
    taken: dict[str, list[float]] = {name: [] for name in PEERS}
    for counted in (False, *([True] * rounds)):
        for name, command in PEERS.items():
            seconds = cpu(command)
            if counted:
                taken[name].append(seconds)
    table = {
        name: {
            "median_cpu_s": round(statistics.median(found), 3),
            "min": round(min(found), 3),
            "max": round(max(found), 3),
        }
        for name, found in taken.items()
    }
    show(table)
    write("command", rounds=rounds, figure="user + system CPU seconds of the whole process", peers=table)


if __name__ == "__main__":
    main()
