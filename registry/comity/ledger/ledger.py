"""A ledger: one database, one writer process, and the rooms over it.

ledger.logs          how logs grow: create, append, stage, advance, set_note
ledger.history       what they say: entries, tiles, roots, proofs, checks
ledger.cosignatures  who has cosigned which checkpoint; the best note for an entry
ledger.index         statements by subject, predicate, author and name
ledger.pieces        piece records of files, and where a piece is at hand
ledger.misbehaviour  proofs that a log showed two histories
ledger.witnessed     the newest checkpoint that somebody submitted, of a log held here or not
ledger.epochs        charters that were certified
ledger.asks          who asks to become a member
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from sqlalchemy import URL

from comity.content.durable import disk_errors
from comity.ledger.cosignatures import Cosignatures
from comity.ledger.database import Database
from comity.ledger.epochs import Asks, Epochs
from comity.ledger.history import History
from comity.ledger.index import Index
from comity.ledger.lock import LedgerLock
from comity.ledger.logs import Logs
from comity.ledger.migrate import migrate
from comity.ledger.misbehaviour import Misbehaviour
from comity.ledger.piece_index import PieceIndex
from comity.ledger.witnessed import Witnessed

NAME: Final = "ledger.sqlite"


@dataclass(frozen=True, slots=True)
class Ledger:
    """An open ledger. Its rooms are thread-safe, and what they have written is on the disk when they return."""

    logs: Logs
    history: History
    cosignatures: Cosignatures
    index: Index
    pieces: PieceIndex
    misbehaviour: Misbehaviour
    witnessed: Witnessed
    epochs: Epochs
    asks: Asks
    _database: Database
    _lock: LedgerLock

    @classmethod
    def open(cls, folder: Path, clock: Callable[[], float], *, url: str | None = None) -> Self:
        """Open the ledger in `folder`, making it if there is none, and bring its tables up to date.

        Args:
            clock: POSIX seconds.
            url: an SQLAlchemy database URL, where the tables are not to be in a file in `folder`.

        Raises Conflict(code="LEDGER-LOCKED") while another process has it open, Refused(code="LEDGER-NEWER") where a
        newer Comity has written it, and the errors of `Database`.
        """
        with ExitStack() as undo:
            with disk_errors("the ledger's folder was not made"):
                folder.mkdir(parents=True, exist_ok=True)
                lock = LedgerLock(folder)
            undo.callback(lock.release)
            database = Database(url or URL.create("sqlite", database=str(folder / NAME)))
            undo.callback(database.close)
            migrate(database)
            undo.pop_all()
        return cls(
            Logs(database),
            History(database),
            Cosignatures(database),
            Index(database),
            PieceIndex(database),
            Misbehaviour(database, clock),
            Witnessed(database),
            Epochs(database),
            Asks(database, clock),
            database,
            lock,
        )

    def close(self) -> None:
        """Give up the database and then the lock. Calls that are still running fail."""
        self._database.close()
        self._lock.release()
