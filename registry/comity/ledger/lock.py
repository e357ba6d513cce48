"""One writer process for each ledger, for as long as the process lives.

The lock of a ledger in a folder is the kernel's (`flock`), so that it goes with the process however that ends. Nothing
in the file matters. `advisory` has the lock of a ledger in PostgreSQL.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final, Protocol

from comity.trust.errors import Conflict, Unavailable

NAME: Final = "ledger.lock"


class WriterLock(Protocol):
    """Held from the moment it was made until `release`, or until it is lost."""

    def require(self) -> None:
        """Raises Unavailable(code="LEDGER-LOCK-LOST") once it is held no longer. Quick; called from any thread."""

    def release(self) -> None:
        """Let another process have it."""


class FolderLock:
    """Holds the exclusive lock on a ledger folder. Raises Conflict(code="LEDGER-LOCKED")."""

    def __init__(self, folder: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(folder / NAME, flags, 0o600), "rb")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise taken("stop the node that runs on this folder, or wait until it has ended") from error

    def require(self) -> None:
        """The kernel takes it from nobody."""

    def release(self) -> None:
        self._file.close()


def taken(hint: str) -> Conflict:
    why = "another process writes to it, and a log has one writer"
    return Conflict("the ledger is in use", why=why, hint=hint, code="LEDGER-LOCKED")


def lost(why: str) -> Unavailable:
    return Unavailable(
        "this node no longer writes its ledger",
        why=why,
        hint="start the node again: it takes the lock, or says who has it",
        code="LEDGER-LOCK-LOST",
    )
