"""What the command costs before it does anything: CPU seconds of its help, and of `status` and `trust show` without a
pin, beside an empty Python.

python bench/command.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import keep_bytecode, show, write

PEERS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "comity --help": [sys.executable, "-m", "comity_cli.main", "--help"],
    "comity pull --help": [sys.executable, "-m", "comity_cli.main", "pull", "--help"],
    "comity --version": [sys.executable, "-m", "comity_cli.main", "--version"],
    "comity trust show": [sys.executable, "-m", "comity_cli.main", "trust", "show"],
    "comity status": [sys.executable, "-m", "comity_cli.main", "status"],
}


def cpu(command: list[str], home: str) -> float:
    environ = {**os.environ, "COMITY_HOME": home}
    before = os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=15)
    rounds = options.parse_args().rounds
    taken: dict[str, list[float]] = {name: [] for name in PEERS}
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as bytecode:
        keep_bytecode(Path(bytecode))
        load = os.getloadavg()[0]
        for counted in (False, *([True] * rounds)):
            for name, command in PEERS.items():
                seconds = cpu(command, home)
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
    figure = "user + system CPU seconds of the whole process"
    write("command", rounds=rounds, figure=figure, load_before=load, peers=table)


if __name__ == "__main__":
    main()
