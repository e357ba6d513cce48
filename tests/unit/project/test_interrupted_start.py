"""Ctrl-C while the command line is still being imported."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

INTERRUPTING = """
import os, signal
os.kill(os.getpid(), signal.SIGINT)
raise ImportError("the interruption was lost")
"""
START = "from comity_cli.start import start; start()"


@pytest.mark.parametrize("module", ["click", "comity_client"])
def test_an_interruption_during_imports_ends_without_a_traceback(tmp_path: Path, module: str) -> None:
    """A module of this name, found first, interrupts the process that imports it."""
    (tmp_path / f"{module}.py").write_text(INTERRUPTING)
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    ran = subprocess.run(
        [sys.executable, "-c", START, "search", "word"],
        env={**os.environ, "PYTHONPATH": paths, "COMITY_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 130, ran.stderr
    assert ran.stderr.strip().startswith("interrupted")
    assert "Traceback" not in ran.stderr


def test_the_installed_program_begins_there() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert project["project"]["scripts"]["comity"] == "comity_cli.start:start"
