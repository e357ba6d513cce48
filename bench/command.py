"""What short commands cost: CPU seconds of `show`, `whereis` and `status` of a federation of four nodes that answer at
once, of `trust show` with its pin, and of what prints a text only; beside an empty Python.

python bench/command.py [--rounds 15]

The nodes are those of the tests: real keys, logs and calls over TLS, in this process, whose time is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from comity_client.client import Client
from comity_client.home import Home
from harness import keep_bytecode, show, write
from support.fakes import FakeFederation, release

COMITY = (sys.executable, "-m", "comity_cli.start")
NAME = "swiss-ai/tiny"
PEERS = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "comity --version": (*COMITY, "--version"),
    "comity --help": (*COMITY, "--help"),
    "comity pull --help": (*COMITY, "pull", "--help"),
    "comity trust show": (*COMITY, "trust", "show"),
    "comity status": (*COMITY, "status"),
    f"comity show {NAME}": (*COMITY, "show", NAME),
    f"comity whereis {NAME}": (*COMITY, "whereis", NAME),
}


@contextmanager
def pinned(folder: Path) -> Iterator[Path]:
    """The home of a user who pinned a federation that has one artifact; its nodes answer while the block lasts."""
    with FakeFederation().running() as running:
        running.publish(release(folder / "source", {"config.json": b"{}"}, by=running.publisher))
        Client(Home(folder / "home")).pin(running.file())
        yield folder / "home"


def cpu(command: tuple[str, ...], home: Path) -> float:
    environ = {**os.environ, "COMITY_HOME": str(home)}
    before = os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=15)
    rounds = options.parse_args().rounds
    taken: dict[str, list[float]] = {name: [] for name in PEERS}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as bytecode:
        keep_bytecode(Path(bytecode))
        load = os.getloadavg()[0]
        with pinned(Path(folder)) as home:
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
