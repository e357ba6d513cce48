"""Ports that the tests choose for servers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

from support.ports import BLOCK, OURS, free_port

TESTS = Path(__file__).parents[2]


def test_a_port_is_not_given_while_the_one_after_it_is_taken() -> None:
    first = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 3 + 1))
        taken.listen()
        assert free_port() != first + 3


def test_a_process_that_took_ports_ends_without_a_warning() -> None:
    program = "import support.ports as ports; ports.free_port()"
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", program]
    ran = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_runs_with_other_temporary_folders_are_given_other_ports(tmp_path: Path) -> None:
    program = "import support.ports as ports; print(ports.free_port(), flush=True); input()"
    blocks = []
    with contextlib.ExitStack() as running:
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            environ = {**os.environ, "TMPDIR": str(tmp_path / name)}
            run = subprocess.Popen(
                [sys.executable, "-c", program],
                cwd=TESTS, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            running.enter_context(run)
            running.callback(run.kill)
            assert run.stdout is not None
            blocks.append((int(run.stdout.readline()) - OURS.start) // BLOCK)
    assert blocks[0] != blocks[1]
