"""Processes that are killed at a fault point: nodes, and commands of a user. Forked from a server that has imported
everything already, so that hundreds of them cost seconds; each is a process of its own all the same."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from multiprocessing.forkserver import set_forkserver_preload
from pathlib import Path
from typing import Any

_FORKS = multiprocessing.get_context("forkserver")
set_forkserver_preload(["pytest", "comity.node.app", "comity_client.client", "support.victims"])


class Victims:
    """Starts processes that die at chosen points, and keeps count of the points hit and of the deaths."""

    def __init__(self, folder: Path) -> None:
        self.hits_file = folder / "hits.txt"
        self.killed: Counter[str] = Counter()

    def start(self, point: str, log: Path, work: Callable[..., Any], *arguments: object) -> ForkServerProcess:
        """Have `work(*arguments)` done in a process that dies at `point` (`name:nth`; lives where it is empty)."""
        environ = {"COMITY_FAULT": point, "COMITY_FAULT_LOG": str(self.hits_file)}
        process = _FORKS.Process(target=_armed, args=(environ, str(log), work, arguments))
        process.start()
        return process

    def died(self, process: ForkServerProcess, point: str) -> bool:
        """Whether an ended process was killed at its point; anything but that and a clean end is a failure."""
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


def _armed(environ: dict[str, str], log: str, work: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    from comity.content import fault

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output, stream.fileno())
    fault.point = fault.arm(environ)
    work(*arguments)


def run_node(file: Path) -> None:
    from comity.node.app import run

    run(file)
