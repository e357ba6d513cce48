"""Processes forked from a server that has imported the product already, so that hundreds of them cost seconds.

Each is nevertheless a process of its own: it is killed, limited and traced like any other. Tests that measure a fresh
process, its memory or its imports, must not use these.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import multiprocessing
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from comity_cli import commands
from comity_cli.main import COMMANDS

FORKS = multiprocessing.get_context("forkserver")
forkserver.set_forkserver_preload(
    [
        "pytest",
        "alembic.command",
        "comity.gateway.app",
        "comity.gateway.front_end",
        "comity.node.app",
        "comity_client.client",
        "comity_cli.main",
        *(f"comity_cli.commands.{found.name}" for found in pkgutil.iter_modules(commands.__path__)),
        *(command.module for command in COMMANDS.values() if not command.module.startswith(".")),
        "support.forked",
        "support.made_classes",
    ]
)
NETWORKS: Final = Path("/run/netns")
CLONE_NEWNET: Final = 0x40000000
PR_SET_PDEATHSIG: Final = 1
_PROCESSES = threading.Lock()
"""Held while processes are started or asked for their status: `multiprocessing` asks all of them, and each once."""


def start_forked(
    work: Callable[..., Any],
    *arguments: object,
    environ: Mapping[str, str],
    log: Path,
    errors: Path | None = None,
    given: Path = Path(os.devnull),
    network: str = "",
) -> ForkServerProcess:
    """Run `work(*arguments)` in a process with this environment and the working folder of this one, with `given` as its
    input. Its output is appended to `log`; its standard error to `errors` if there is one.

    Args:
        network: the name of the network namespace in which it runs, as `ip netns` names it; by default this one.
    """
    streams = (str(given), str(log), str(errors or log))
    started = (dict(environ), str(Path.cwd()), streams, network, work, arguments)
    process = FORKS.Process(target=_work, args=started, daemon=True)
    with _PROCESSES:
        _start_server()
        process.start()
    return process


@functools.cache
def _start_server() -> None:
    """Start the server, unless it runs. That of Python 3.11 takes no paths from the process that starts it, and passes
    over a module that it does not find: it is told by its environment, which no forked process keeps.
    """
    with patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(sys.path)}):
        forkserver.ensure_running()


class ForkedProgram:
    """A forked process, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        self.pid = process.pid or 0

    @classmethod
    def python(cls, program: str, *arguments: str, environ: Mapping[str, str], log: Path) -> ForkedProgram:
        """As `python -c PROGRAM ARGUMENT…`."""
        return cls(start_forked(_run_program, program, arguments, environ=environ, log=log))

    @classmethod
    def comity(cls, *arguments: str, environ: Mapping[str, str], log: Path, network: str = "") -> ForkedProgram:
        """As `comity ARGUMENT…`."""
        return cls(start_forked(_comity, arguments, environ=environ, log=log, network=network))

    def poll(self) -> int | None:
        with _PROCESSES:
            return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def wait(self, timeout: float | None = None) -> int:
        if not (wait([self._process.sentinel], timeout) and (status := self.poll()) is not None):
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._process.kill()


def run_comity(
    *arguments: str, environ: Mapping[str, str], given: str = "", patience: float, network: str = ""
) -> subprocess.CompletedProcess[str]:
    """As `comity ARGUMENT…` with `given` on its standard input; it is killed after `patience` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        question, log, errors = (Path(folder) / name for name in ("given", "printed", "errors"))
        question.write_text(given, "utf-8")
        process = start_forked(
            _comity, arguments, environ=environ, log=log, errors=errors, given=question, network=network
        )
        if not wait([process.sentinel], patience):
            process.kill()
            raise subprocess.TimeoutExpired(arguments, patience)
        with _PROCESSES:
            status = process.exitcode
        assert status is not None
        printed, said = (path.read_text("utf-8") if path.exists() else "" for path in (log, errors))
        return subprocess.CompletedProcess(arguments, status, printed, said)


def _comity(arguments: tuple[str, ...]) -> None:
    from comity_cli.main import main

    sys.argv = ["comity", *arguments]
    main()


def _run_program(program: str, arguments: tuple[str, ...]) -> None:
    sys.argv = ["-c", *arguments]
    exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})


def _end_with_the_tests() -> None:
    """Have the kernel kill this process when its parent, the server of forks, ends. The server ends with the test
    process, also when that was killed and could end nothing itself, once no forked process holds the server's lifeline
    as `multiprocessing` has it."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "no signal at the death of the parent")
    if (lifeline := forkserver._forkserver._forkserver_alive_fd) is not None:  # type: ignore[attr-defined]
        os.close(lifeline)
        forkserver._forkserver._forkserver_alive_fd = None  # type: ignore[attr-defined]


def _enter_network(name: str) -> None:
    """As `ip netns exec NAME`, for the threads of this process that begin from now on."""
    space = os.open(NETWORKS / name, os.O_RDONLY | os.O_CLOEXEC)
    if ctypes.CDLL(None, use_errno=True).setns(space, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"no way into the network namespace {name}")
    os.close(space)


def _work(
    environ: dict[str, str],
    folder: str,
    streams: tuple[str, str, str],
    network: str,
    work: Callable[..., Any],
    arguments: tuple[object, ...],
) -> None:
    from comity.content import fault

    _end_with_the_tests()
    gc.freeze()  # what the server has loaded is no garbage, and a search through it would copy its memory
    if network:
        _enter_network(network)
    os.chdir(folder)
    for name in set(os.environ) - set(environ):
        del os.environ[name]
    os.environ.update(environ)
    given, log, errors = streams
    os.dup2(os.open(given, os.O_RDONLY), 0)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it is open until the process ends
    for path, descriptor in ((log, 1), (errors, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
    fault.point = fault.arm(environ)
    work(*arguments)
