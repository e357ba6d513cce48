"""Secrets come from files that only their owner can read; never from the environment or the command line."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from comity.content.durable import disk_errors
from comity.trust.errors import Malformed, Refused

MAX_SECRET: Final = 64 * 1024


def read_secret(path: Path) -> bytes:
    """The content of a secret file of at most 64 KiB.

    Raises Refused (code SECRET-EXPOSED) for a file that its group or others can open or that is not ours, Malformed for
    one that is too long, and Unavailable for one that cannot be read.
    """
    with disk_errors(f"the secret file {path.name} was not read"), path.open("rb") as file:
        found = os.fstat(file.fileno())
        if stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid not in (0, os.geteuid()):
            raise Refused(
                f"the secret file {path.name} is not private",
                why="others may read or own it",
                hint=f"chmod 600 {path}",
                code="SECRET-EXPOSED",
            )
        data = file.read(MAX_SECRET + 1)
    if len(data) > MAX_SECRET:
        raise Malformed(f"the secret file {path.name} is too long", why=f"at most {MAX_SECRET} bytes are read")
    return data
