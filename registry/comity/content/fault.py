"""Named places at which a test may kill this process, to show that every crash leaves the old or the new state.

Durable operations call `fault.point(name)` between the steps whose order matters. Unless the environment armed it when
the process started, a point is one call of an empty function.

    COMITY_FAULT=blob.rename:3      SIGKILL at the third hit of that point (`:1` where no count is given)
    COMITY_FAULT_LOG=hits.txt       append the name of each point that is hit, one a line, before anything else happens
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from typing import TypeAlias

Point: TypeAlias = Callable[[str], None]


def _unarmed(_name: str, /) -> None:
    pass


def arm(environ: Mapping[str, str]) -> Point:
    """The point function that `environ` asks for."""
    plan, log = environ.get("COMITY_FAULT", ""), environ.get("COMITY_FAULT_LOG", "")
    if not plan and not log:
        return _unarmed
    deadly, _, count = plan.partition(":")
    lock = threading.Lock()
    left = int(count or "1")

    def armed(name: str, /) -> None:
        nonlocal left
        with lock:
            if log:
                _append(log, name)
            if name == deadly:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

    return armed


def _append(log: str, name: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, name.encode() + b"\n")
    finally:
        os.close(descriptor)


point: Point = arm(os.environ)
