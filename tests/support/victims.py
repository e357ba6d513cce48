"""Processes that are killed at a fault point: nodes, and commands of a user."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from support.forked import start_forked


class Victims:
    """Starts processes that are killed at chosen points, and counts the points hit and the kills."""

    def __init__(self, folder: Path) -> None:
        self.hits_file = folder / "hits.txt"
        self.killed: Counter[str] = Counter()

    def start(self, point: str, log: Path, work: Callable[..., Any], *arguments: object) -> ForkServerProcess:
        """Run `work(*arguments)` in a process that is killed at `point` (`name:nth`; never if it is empty)."""
        environ = {**os.environ, "COMITY_FAULT": point, "COMITY_FAULT_LOG": str(self.hits_file)}
        return start_forked(work, *arguments, environ=environ, log=log)

    def died(self, process: ForkServerProcess, point: str) -> bool:
        """Whether an ended process was killed at its point; anything but that and exit status 0 is a failure."""
        if process.exitcode == -signal.SIGKILL:
            self.killed[point.partition(":")[0]] += 1
            return True
        assert process.exitcode == 0, f"ended with {process.exitcode} instead of dying at {point}"
        return False

    def hits(self) -> Counter[str]:
        return Counter(self.hits_file.read_text().split()) if self.hits_file.exists() else Counter()

    def histogram(self) -> str:
        hits = self.hits()
        return "\n".join(f"{hits[name]:6d} hit {self.killed[name]:4d} killed  {name}" for name in sorted(hits))


def run_node(file: Path) -> None:
    from comity.node.app import run

    run(file)
