"""Whether the ledger here is the one that this node wrote last, or a copy: what a backup brings back.

The file `ledger.inode` beside the database says which file the database was. A copy is another file, and then nothing
is signed before a peer has said what was signed. A disk rolled back underneath looks the same as before: against that,
peers are asked at every start, though not waited for without end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from comity.content.durable import disk_errors, write_file

NAME: Final = "ledger.inode"


def is_copy(database: Path) -> bool:
    """Whether `database` was written by this node as another file. A new ledger is no copy. Raises Unavailable."""
    with disk_errors("the ledger was not looked at"):
        mark = _mark(database)
        return mark.exists() and mark.read_bytes() != _identity(database)


def remember(database: Path) -> None:
    """This is the ledger now. Durable when it returns. Raises OutOfSpace, Unavailable."""
    with disk_errors("the ledger was not marked"):
        identity = _identity(database)
    write_file(_mark(database), identity, point="continuity")


def _mark(database: Path) -> Path:
    return database.with_name(NAME)


def _identity(database: Path) -> bytes:
    return b"%d\n" % database.stat().st_ino
