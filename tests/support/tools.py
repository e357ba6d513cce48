"""Outside programs that a test needs: found, or the test skips and says how to install them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

REQUIRE_ALL = "COMITY_TESTS_REQUIRE_ALL"
"""Set to 1, a missing program fails its tests: for the machine that must run all of them."""


def needs(program: str, *, unlock: str) -> str:
    """The path of `program`. Skips the test where it is missing, saying what to do (`unlock`)."""
    path = shutil.which(program)
    if path is None:
        missing(f"{program} is not installed; unlock: {unlock}")
    return path


def missing(reason: str) -> NoReturn:
    """Skip, or fail where every test must run."""
    if os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def running(
    command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, stop: signal.Signals = signal.SIGTERM
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server while the block lasts, its output going to `log`; it is then stopped by its own process id."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
        try:
            yield process
        finally:
            process.send_signal(stop)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
