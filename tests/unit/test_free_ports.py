"""Ports that the tests hand out."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from support.ports import free_port


def test_a_port_is_not_given_while_the_one_after_it_is_taken() -> None:
    first = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 3 + 1))
        taken.listen()
        assert free_port() != first + 3


def test_a_process_that_took_ports_ends_without_a_warning() -> None:
    program = "import support.ports as ports; ports.free_port()"
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", program]
    ran = subprocess.run(command, cwd=tests, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
