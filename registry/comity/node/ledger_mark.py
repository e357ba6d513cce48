"""The mark of a node's ledger, by which the node knows that it has not got a copy.

A mark identifies the database: a file beside an SQLite ledger, which has the file's number; or a row in PostgreSQL,
which has the cluster, timeline, database and table, so that another machine of the same node finds it too. A copy has
another identity or no mark; then nothing is signed before a peer has shown what was signed. A disk that was rolled
back, or a backup written over the same file, is not detected this way: therefore peers are asked at every start, for a
limited time.
"""

from __future__ import annotations

import shlex
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from comity.content.durable import disk_errors, write_file
from comity.trust.frozen import frozen

if TYPE_CHECKING:
    from comity.ledger.ledger import Ledger

LEDGER_MARK: Final = "ledger.inode"
OUTSIDE_MARK: Final = "outside.inode"
"""The mark for what was signed for outside logs. Peers cannot restore it: only the operator can reset it."""
_A_COPY: Final = "a copy"
"""The identity of no database."""


class LedgerMark(Protocol):
    """The mark of the database that this node last wrote to."""

    @abstractmethod
    def mismatches(self, *, begun: bool) -> bool:
        """Whether this node last wrote to another database.

        Args:
            begun: whether the ledger holds entries of the own log, or signatures for outside logs. The mark is written
                before the first of these, so a ledger that holds some and has no mark is a copy.

        Raises Unavailable.
        """

    @abstractmethod
    def write(self) -> None:
        """Mark this ledger as the current one. Durable when it returns. Raises OutOfSpace, Unavailable."""

    @abstractmethod
    def write_copy(self) -> None:
        """Mark this ledger as a copy. Durable when it returns. Raises OutOfSpace, Unavailable."""

    @abstractmethod
    def reset_command(self) -> str:
        """The command with which an operator accepts a copy, if no peer is left to ask."""


@frozen
class RowMark(LedgerMark):
    """The mark `name` in the tables of a ledger in PostgreSQL. One that an earlier version wrote to `file` counts until
    there is a row."""

    ledger: Ledger
    name: str
    database: str
    file: Path

    def mismatches(self, *, begun: bool) -> bool:
        marked = self.ledger.marks.get(self.name)
        if marked is None and self.file.exists():
            return FileMark(self.file, self.ledger.identity).mismatches(begun=begun)
        return marked != self.ledger.identity if marked is not None else begun

    def write(self) -> None:
        self.ledger.marks.put(self.name, self.ledger.identity)

    def write_copy(self) -> None:
        self.ledger.marks.put(self.name, _A_COPY)

    def reset_command(self) -> str:
        row = f"DELETE FROM marks WHERE name = '{self.name}'; "
        row += f"INSERT INTO marks VALUES ('{self.name}', '{self.ledger.identity}')"
        return f"psql {shlex.quote(self.database)} -c {shlex.quote(row)}"


@frozen
class FileMark(LedgerMark):
    """The mark in `file`, beside a ledger with a known `identity`."""

    file: Path
    identity: str

    def mismatches(self, *, begun: bool) -> bool:
        with disk_errors("the ledger's mark was not read"):
            return self.file.read_text("utf-8", "replace").strip() != self.identity if self.file.exists() else begun

    def write(self) -> None:
        write_file(self.file, f"{self.identity}\n".encode(), point="continuity")

    def write_copy(self) -> None:
        write_file(self.file, f"{_A_COPY}\n".encode(), point="continuity")

    def reset_command(self) -> str:
        return f"echo {shlex.quote(self.identity)} > {shlex.quote(str(self.file))}"
