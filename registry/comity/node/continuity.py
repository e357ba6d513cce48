"""Whether the ledger here is the one that this node wrote last, or a copy: what a backup brings back.

The file `ledger.inode` beside the database says which file the database was. A copy is another file, or lacks the mark,
and then nothing is signed before a peer has said what was signed. A disk rolled back underneath, or a backup written
over the same file, looks the same as before: against that, peers are asked at every start, though not waited for
without end.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from comity.content.durable import disk_errors, write_file

NAME: Final = "ledger.inode"
OUTSIDE: Final = "outside.inode"
"""The mark for what was signed for outside logs, which no peer tells: only the operator makes it anew."""


def is_copy(database: Path, *, begun: bool, mark: str = NAME) -> bool:
    """Whether `database` was written by this node as another file.

    Args:
        begun: whether it holds what may not be forgotten: entries of the own log, or what was signed for outside ones.
            A ledger is marked before the first of it: one that holds some and has no mark was brought here without it.

    Raises Unavailable.
    """
    with disk_errors("the ledger was not looked at"):
        file = database.with_name(mark)
        return file.read_bytes() != _identity(database) if file.exists() else begun


def remember(database: Path, mark: str = NAME) -> None:
    """This is the ledger now. Durable when it returns. Raises OutOfSpace, Unavailable."""
    with disk_errors("the ledger was not marked"):
        identity = _identity(database)
    write_file(database.with_name(mark), identity, point="continuity")


def adopt_command(database: Path, mark: str = NAME) -> str:
    """What an operator runs to vouch for a copy, where no peer is left to ask."""
    return f"stat -c %i {shlex.quote(str(database))} > {shlex.quote(str(database.with_name(mark)))}"


def _identity(database: Path) -> bytes:
    return b"%d\n" % database.stat().st_ino
