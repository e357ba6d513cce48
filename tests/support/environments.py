"""Outside software, installed from the package index and kept for the next run.

It lies in `$COMITY_TESTS_ENVIRONMENTS`, else in `.cache/environments` of this repository, a folder for each. uv
installs it, because an environment costs it a tenth of the CPU seconds that it costs pip.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.tools import missing

FOLDER = "COMITY_TESTS_ENVIRONMENTS"
FETCH_SECONDS = 900
TRANSFORMERS = "transformers==5.24.0"
"""The version that tests load models with."""
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
_UV = (sys.executable, "-m", "uv", "--quiet", "pip")


def python_with(*requirements: str) -> str:
    """An interpreter with these requirements and their dependencies. Skips the test where pip cannot get them."""
    with kept(sys.version, *requirements) as (home, fresh):
        python = home / "bin" / "python"
        if fresh:
            venv.create(home, symlinks=True, with_pip=False)
            cache = ("--cache-dir", str(_folder() / "uv"))
            links = tuple(f"--find-links={place}" for place in os.environ.get("PIP_FIND_LINKS", "").split())
            _run(*_UV, "install", "--python", str(python), "--only-binary=:all:", *cache, *links, *requirements)
    return str(python)


def pip(*arguments: str) -> None:
    """Run pip. Skips the test if it fails."""
    _run(*_PIP, *arguments)


def _run(*command: str) -> None:
    unlock = "unlock: a package index at hand"
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        missing(f"it did not end within {FETCH_SECONDS} s: {_shown(command)}; {unlock}")
    if ran.returncode:
        missing(f"could not run: {_shown(command)}: {ran.stderr[-500:]}; {unlock}")


@contextmanager
def kept(*made_of: str) -> Iterator[tuple[Path, bool]]:
    """The folder for these requirements, and whether the block has to fill it. Waits while another run does."""
    home = _folder() / hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]
    finished = home / "finished"
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fresh = not finished.exists()
        if fresh:
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
        yield home, fresh
        finished.write_text("\n".join(made_of))


def _folder() -> Path:
    chosen = os.environ.get(FOLDER)
    folder = Path(chosen) if chosen else Path(__file__).resolve().parents[2] / ".cache" / "environments"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _shown(arguments: Sequence[str]) -> str:
    return " ".join(arguments)[-200:]
