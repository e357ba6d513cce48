"""Fault points: named places at which a test may kill this process, to show that a crash leaves the old or new state.

Durable operations call `fault.point(name)` between steps whose order matters. A point is an empty function unless an
environment variable was set when the process started:

    COMITY_FAULT=blob.rename:3      SIGKILL at the third hit of that point (`:1` is the default)
    COMITY_FAULT_LOG=hits.txt       append the name of each point that is hit, one a line, before any other action
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
    """The `point` function that `environ` configures."""
    plan, log = environ.get("COMITY_FAULT", ""), environ.get("COMITY_FAULT_LOG", "")
    if not plan and not log:
        return _unarmed
    target, _, count = plan.partition(":")
    lock = threading.Lock()
    left = int(count or "1")

    def armed(name: str, /) -> None:
        nonlocal left
        with lock:
            if log:
                _append(log, name)
            if name == target:
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
