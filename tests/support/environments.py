"""Environments of other people's software, made with pip and kept for the next run: one for each set of requirements.

They lie in `$COMITY_TESTS_ENVIRONMENTS`, else in `.cache/environments` of this repository. Only wheels go in.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.tools import missing

FOLDER = "COMITY_TESTS_ENVIRONMENTS"
FETCH_SECONDS = 900
_PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
_INSTALL = ("install", "--quiet", "--only-binary=:all:", "--no-compile")


def python_with(*requirements: str) -> str:
    """An interpreter that has these requirements and what they require. Skips the test where pip cannot get them."""
    made_of = "\n".join((sys.version, *requirements))
    home = _folder() / hashlib.sha256(made_of.encode()).hexdigest()[:16]
    python, finished = home / "bin" / "python", home / "finished"
    with _alone(home.with_suffix(".lock")):
        if not finished.exists():
            shutil.rmtree(home, ignore_errors=True)
            venv.create(home, symlinks=True, with_pip=False)
            command = [*_PIP, "--python", str(python), *_INSTALL, *requirements]
            try:
                ran = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
            except subprocess.TimeoutExpired:
                missing(f"pip did not fetch {requirements} within {FETCH_SECONDS} s; unlock: a package index at hand")
            if ran.returncode:
                missing(f"pip could not fetch {requirements}: {ran.stderr[-500:]}; unlock: a package index at hand")
            finished.write_text(made_of)
    return str(python)


def _folder() -> Path:
    chosen = os.environ.get(FOLDER)
    folder = Path(chosen) if chosen else Path(__file__).resolve().parents[2] / ".cache" / "environments"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """While another run makes the same environment, wait for it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
