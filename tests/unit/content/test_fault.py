"""Fault points, at which a test kills a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from comity.content import fault

HITS = "from comity.content import fault\nfor name in ('a', 'b', 'a', 'a'): fault.point(name)\nprint('alive')"


def run(**environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HITS], env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )


def test_an_unarmed_point_does_nothing() -> None:
    assert run(COMITY_FAULT="", COMITY_FAULT_LOG="").stdout == "alive\n"


def test_the_process_dies_at_the_named_hit(tmp_path: Path) -> None:
    log = tmp_path / "hits"
    child = run(COMITY_FAULT="a:2", COMITY_FAULT_LOG=str(log))
    assert child.returncode == -signal.SIGKILL
    assert log.read_text().split() == ["a", "b", "a"]


def test_a_name_without_count_means_the_first_hit(tmp_path: Path) -> None:
    log = tmp_path / "hits"
    assert run(COMITY_FAULT="b", COMITY_FAULT_LOG=str(log)).returncode == -signal.SIGKILL
    assert log.read_text().split() == ["a", "b"]


def test_a_log_without_a_point_kills_no_process(tmp_path: Path) -> None:
    log = tmp_path / "hits"
    point = fault.arm({"COMITY_FAULT_LOG": str(log)})
    for name in ("x", "y"):
        point(name)
    assert log.read_text().split() == ["x", "y"]
