"""Processes forked from a server that has imported the product already, so that hundreds of them cost seconds.

Each is a process of its own all the same: it is killed, limited and traced like any other. What is measured of a fresh
process, its memory or its imports, must not be measured of these.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from multiprocessing.forkserver import set_forkserver_preload
from pathlib import Path
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
set_forkserver_preload(["pytest", "comity.gateway.app", "comity.node.app", "comity_client.client", "support.forked"])


def start_forked(
    work: Callable[..., Any], *arguments: object, environ: Mapping[str, str], log: Path
) -> ForkServerProcess:
    """Have `work(*arguments)` done in a process with this environment and the working folder of this one, whose output
    is added to `log`."""
    process = FORKS.Process(target=_work, args=(dict(environ), str(Path.cwd()), str(log), work, arguments), daemon=True)
    process.start()
    return process


class ForkedProgram:
    """`python -c PROGRAM ARGUMENT…` as a forked process, with the methods of `subprocess.Popen` that are used here."""

    def __init__(self, program: str, *arguments: str, environ: Mapping[str, str], log: Path) -> None:
        self._process = start_forked(_run_program, program, arguments, environ=environ, log=log)
        self.pid = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if (status := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _run_program(program: str, arguments: tuple[str, ...]) -> None:
    sys.argv = ["-c", *arguments]
    exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})


def _work(
    environ: dict[str, str], folder: str, log: str, work: Callable[..., Any], arguments: tuple[object, ...]
) -> None:
    from comity.content import fault

    os.chdir(folder)
    for name in set(os.environ) - set(environ):
        del os.environ[name]
    os.environ.update(environ)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(output, stream.fileno())
    fault.point = fault.arm(environ)
    work(*arguments)
