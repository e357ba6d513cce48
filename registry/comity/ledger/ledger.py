"""A ledger: one database, one writer process, and the rooms over it.

The database is a file of SQLite, or one of PostgreSQL (`postgres`, which needs psycopg): the same tables and code.

ledger.logs          how logs grow: create, append, stage, advance, set_note
ledger.history       what they say: entries, tiles, roots, proofs, checks
ledger.cosignatures  who has cosigned which checkpoint; the best note for an entry
ledger.intake        how far each log went through the intake, and lines that wait for keys
ledger.proven        what is proven: identities, publications, what is said about a digest
ledger.custody       up to where the side objects of each log are known to be here
ledger.index         proven statements by subject, predicate and author
ledger.pieces        piece records of files, and where a piece is at hand
ledger.misbehaviour  proofs that a log showed two histories
ledger.witnessed     the newest checkpoint that somebody submitted, of a log held here or not
ledger.epochs        charters that were certified
ledger.asks          who asks to become a member
ledger.shares        what outsiders have brought into the own log


What a node remembers: logs, checkpoints and cosignatures, the index over statements, piece records, misbehaviour.

Everything here is synchronous, thread-safe and durable when a call returns; `sequencer` alone is asynchronous. Bytes
of artifacts and side objects live in `comity.content`; what may be believed is decided in `comity.trust`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

from sqlalchemy import Engine

from comity.content.durable import disk_errors
from comity.ledger.database import Database, WriterLock, migrate, raise_fence
from comity.ledger.intake import IntakeStore
from comity.ledger.log_store import EntryIndex, History, LogStore
from comity.ledger.proven import ProvenTables
from comity.ledger.quotas import JoinRequestTable, OutsideShares
from comity.ledger.records import (
    Cosignatures,
    Epochs,
    MisbehaviourTable,
    PieceRecordTable,
    SideObjectPositions,
    WitnessedTable,
)
from comity.ledger.sqlite import SqliteFile

NAME: Final = "ledger.sqlite"


class Backing(Protocol):
    """The database under a ledger, before and after it is opened."""

    def lock(self) -> WriterLock:
        """Become its one writer. Called first. Raises Conflict(code="LEDGER-LOCKED"), Unavailable."""

    def engine(self) -> Engine:
        """Connections whose commits survive a power cut, and whose transactions see one snapshot."""

    def identity(self) -> str:
        """Which database this is, where the tables are: another word for a copy of it. One line."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """An open ledger. Its rooms are thread-safe, and what they have written is on the disk when they return."""

    logs: LogStore
    history: History
    cosignatures: Cosignatures
    index: EntryIndex
    intake: IntakeStore
    proven: ProvenTables
    custody: SideObjectPositions
    pieces: PieceRecordTable
    misbehaviour: MisbehaviourTable
    witnessed: WitnessedTable
    epochs: Epochs
    asks: JoinRequestTable
    shares: OutsideShares
    identity: str
    """Which database it is in; another word for a copy that was restored from a backup."""
    _database: Database
    _lock: WriterLock

    @classmethod
    def open(cls, folder: Path, clock: Callable[[], float], *, backing: Backing | None = None) -> Self:
        """Open the ledger in `folder`, making it if there is none, and bring its tables up to date.

        Args:
            clock: POSIX seconds.
            backing: the database, where it is not to be a file in `folder`.

        Raises Conflict(code="LEDGER-LOCKED") while another process has it open, Refused(code="LEDGER-NEWER") where a
        newer Comity has written it, and the errors of `Database`.
        """
        backing = backing or SqliteFile(folder / NAME)
        with ExitStack() as undo:
            with disk_errors("the ledger's folder was not made"):
                folder.mkdir(parents=True, exist_ok=True)
            lock = backing.lock()
            undo.callback(lock.release)
            database = Database(backing.engine(), lock)
            undo.callback(database.close)
            migrate(database)
            database.guard(raise_fence(database))
            identity = backing.identity()
            undo.pop_all()
        return cls(
            LogStore(database),
            History(database),
            Cosignatures(database),
            EntryIndex(database),
            IntakeStore(database),
            ProvenTables(database),
            SideObjectPositions(database),
            PieceRecordTable(database),
            MisbehaviourTable(database, clock),
            WitnessedTable(database),
            Epochs(database),
            JoinRequestTable(database, clock),
            OutsideShares(database),
            identity,
            database,
            lock,
        )

    def require_lock(self) -> None:
        """Raises Unavailable(code="LEDGER-LOCK-LOST") once another process may write it. Quick; from any thread."""
        self._lock.require()

    @property
    def version(self) -> int:
        """Rises with whatever is written: while it stands, every room gives the answers it gave."""
        return self._database.version

    def close(self) -> None:
        """Give up the database and then the lock. Calls that are still running fail."""
        self._database.close()
        self._lock.release()
