"""Loopback ports for programs that cannot choose one themselves."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import subprocess
import time
from typing import Final

OURS: Final = range(15_000, 32_000, 3)
"""Below the ports that Linux gives to connections as they are made: nobody takes one in passing. A node takes the port
after its open one for ranges, where nobody says otherwise, so that no two neighbours are given."""
_start: Final = random.SystemRandom().randrange(len(OURS))
_in_turn: Final = itertools.cycle([*OURS[_start:], *OURS[:_start]])


def free_port() -> int:
    """A TCP port on the loopback interface that was free a moment ago, and is not given to anybody else here."""
    for port in _in_turn:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("there are no ports")


def wait_until_listening(port: int, process: subprocess.Popen[bytes] | None = None, *, patience: float = 20) -> None:
    """Return once something accepts connections on `port`; fail if `process` ends first, or after `patience` s."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the program ended with status {process.returncode} before it listened")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"nothing listened on port {port} after {patience} seconds")
