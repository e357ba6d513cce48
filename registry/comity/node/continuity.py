"""Whether the ledger here is the one that this node wrote last, or a copy: what a backup brings back.

A mark beside the ledger says which database it was: which file, or in PostgreSQL which cluster, timeline, database and
table. A copy is another one, or lacks the mark, and then nothing is signed before a peer has said what was signed. A
disk rolled back underneath, or a backup written over the same file, looks the same as before: against that, peers are
asked at every start, though not waited for without end.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.content.durable import disk_errors, write_file

NAME: Final = "ledger.inode"
OUTSIDE: Final = "outside.inode"
"""The mark for what was signed for outside logs, which no peer tells: only the operator makes it anew."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The mark in `file`, beside a ledger whose `identity` is known."""

    file: Path
    identity: str

    def is_of_another(self, *, begun: bool) -> bool:
        """Whether this node wrote last into another database.

        Args:
            begun: whether the ledger holds what may not be forgotten: entries of the own log, or what was signed for
                outside ones. It is marked before the first of it: one that holds some and has no mark was brought here
                without it.

        Raises Unavailable.
        """
        with disk_errors("the ledger's mark was not read"):
            return self.file.read_text("utf-8", "replace").strip() != self.identity if self.file.exists() else begun

    def renew(self) -> None:
        """This is the ledger now. Durable when it returns. Raises OutOfSpace, Unavailable."""
        write_file(self.file, f"{self.identity}\n".encode(), point="continuity")

    def vouching_command(self) -> str:
        """What an operator runs to vouch for a copy, where no peer is left to ask."""
        return f"echo {shlex.quote(self.identity)} > {shlex.quote(str(self.file))}"
