"""Loopback ports for programs that cannot choose one themselves."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import itertools
import socket
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

OURS: Final = range(15_000, 32_000)
"""Below the ports that Linux gives to new connections, so that no connection takes one."""
BLOCK: Final = 1_700
CLAIMS: Final = Path("/tmp/comity-test-ports")
"""Not in `TMPDIR`: runs with other temporary folders take ports of the same machine."""


def _block() -> range:
    """Ports that no other test run on this machine gives out while this one lasts: a node that is down for a moment
    finds its own still free. By default a node takes the port after its open one for ranges, so no two neighbouring
    ports are given.
    """
    CLAIMS.mkdir(exist_ok=True)
    for start in range(OURS.start, OURS.stop, BLOCK):
        claim = (CLAIMS / str(start)).open("wb")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            claim.close()
            continue
        atexit.register(claim.close)  # held until this process ends
        return range(start, start + BLOCK - 1, 3)
    raise AssertionError("every block of ports is taken by some test run")


@cache
def _in_turn() -> Iterator[int]:
    return itertools.cycle(_block())


def free_port() -> int:
    """A TCP port on the loopback interface that was free a moment ago, as was the one after it (which a node takes for
    ranges), and that is given to no other caller here.
    """
    for port in _in_turn():
        with contextlib.suppress(OSError), socket.socket() as probe, socket.socket() as next_probe:
            probe.bind(("127.0.0.1", port))
            next_probe.bind(("127.0.0.1", port + 1))
            return port
    raise AssertionError("there are no ports")


def is_listening(port: int) -> bool:
    """Whether something accepts connections on `port`."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until_listening(port: int, process: subprocess.Popen[bytes] | None = None, *, patience: float = 20) -> None:
    """Return once something accepts connections on `port`; fail if `process` ends first, or after `patience` s."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise AssertionError(f"the program ended with status {process.returncode} before it listened")
        if is_listening(port):
            return
        time.sleep(0.02)
    raise AssertionError(f"nothing listened on port {port} after {patience} seconds")
