"""Where tests have their files: the fast ones in memory, where files are made, synced and removed at once.

With files on a disk, the tests wait for the disk: a ledger syncs each commit, and hundreds of tests make one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Final

FAST: Final = "not slow and not long"
"""The tests that pyproject.toml chooses. Files of the slow ones are too large for the memory."""
SHARED: Final = Path("/dev/shm")
"""A file system in memory that Linux has for all users; its path is short enough for the sockets of tests."""
MEMORY: Final = Path("/proc/meminfo")
ROOM: Final = 2 << 30
"""Bytes that have to be free in the folder. The fast tests have at most a quarter of that there at a time."""
AVAILABLE: Final = 8 << 30
"""Bytes of memory that have to be available, for the files and the tests themselves."""
AFTER_ALL: Final = -1000
"""When `multiprocessing` has ended its processes and removed its own temporary folder, which it does at -100."""


def memory_folder(environ: Mapping[str, str], folder: Path = SHARED, memory: Path = MEMORY) -> Path | None:
    """`folder`, if files of tests should go there: `environ` names no other (`TMPDIR`), programs may run there, and it
    and `memory` (as /proc/meminfo) have space. Else None.
    """
    if "TMPDIR" in environ:
        return None
    try:
        found = os.statvfs(folder)
        lines = memory.read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    usable = os.access(folder, os.W_OK | os.X_OK) and not found.f_flag & os.ST_NOEXEC
    return folder if usable and found.f_bavail * found.f_frsize >= ROOM and available >= AVAILABLE else None


def folder_of_the_run(above: Path) -> str:
    """A new folder in `above` that is removed with all that is in it when this process ends. Other users can enter it,
    as the server of PostgreSQL has to; its path is short, because sockets lie there."""
    folder = tempfile.mkdtemp(prefix="comity-run-", dir=above)
    Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=AFTER_ALL)
    Path(folder).chmod(0o755)
    return folder
