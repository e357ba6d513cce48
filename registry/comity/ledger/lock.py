"""One writer process for each ledger, for as long as the process lives.

The lock is the kernel's (`flock`), so that it goes with the process however that ends. Nothing in the file matters.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from comity.trust.errors import Conflict

NAME: Final = "ledger.lock"


class LedgerLock:
    """Holds the exclusive lock on a ledger folder until `release`. Raises Conflict(code="LEDGER-LOCKED")."""

    def __init__(self, folder: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(folder / NAME, flags, 0o600), "rb")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise Conflict(
                "the ledger is in use",
                why="another process writes to it, and a log has one writer",
                hint="stop the node that runs on this folder, or wait until it has ended",
                code="LEDGER-LOCKED",
            ) from error

    def release(self) -> None:
        self._file.close()
