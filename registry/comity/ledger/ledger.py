"""A ledger: one database, one writer process, and the tables in it; and how another process follows what it commits.

The database is SQLite or PostgreSQL (`postgres`, which needs psycopg), with the same tables and code.

ledger.logs                   write to logs: create, append, stage, advance, set_note
ledger.history                read logs: entries, tiles, roots, proofs, checks
ledger.cosignatures           cosignatures of checkpoints; the best note for an entry
ledger.intake                 intake position of each log, and parked lines
ledger.proven                 verified identities, publications, and statements about a digest
ledger.key_notices            reports of lost keys
ledger.listed                 what a list of repositories needs to know of many names
ledger.side_object_positions  for each log, the position below which all side objects are in the blob store
ledger.kept                   positions of the rows that readers of the proven tables keep
ledger.replicas               copies that this node claims, and artifacts that it lacks
ledger.pins                   artifacts that the operator pinned
ledger.index                  verified statements by subject, predicate and author
ledger.pieces                 piece records of files, and the files that contain a piece
ledger.misbehaviour           proofs that a log showed two histories
ledger.witnessed              the newest submitted checkpoint of each log, mirrored here or not
ledger.epochs                 certified charters
ledger.join_requests          requests to become a member
ledger.outside_usage          usage of the own log by callers that are not members
ledger.marks                  the identity that the database had when it was last written to
ledger.repair                 checks of logs in parts, and repair of damaged entries
ledger.pages                  checksums of the pages of the database file, if it is SQLite
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, Protocol, Self

from sqlalchemy import Engine

from comity.content.durable import disk_errors
from comity.ledger.copy_tables import MirrorCharges, PinTable, ProvenTimes, ReaderPositions, ReplicaTable, WaitingCopies
from comity.ledger.database import (
    Database,
    NoWriter,
    ReadBacking,
    WriterLock,
    migrate,
    raise_fence,
    replaced,
    require_revision,
    revision_of,
    touch_fence,
)
from comity.ledger.entry_index import EntryIndex
from comity.ledger.history import History, LogRepair
from comity.ledger.intake import IntakeStore
from comity.ledger.key_notices import KeyNotices
from comity.ledger.listed_names import ListedNames
from comity.ledger.log_store import LogStore
from comity.ledger.marks import MarkTable
from comity.ledger.page_check import ExaminedPages
from comity.ledger.page_sums import PageSums
from comity.ledger.piece_records import PieceRecordTable
from comity.ledger.proven import ProvenTables
from comity.ledger.quotas import JoinRequestTable, OutsideUsageTable
from comity.ledger.records import (
    Cosignatures,
    Epochs,
    MisbehaviourTable,
    SideObjectPositions,
    WitnessedTable,
)
from comity.ledger.sqlite import SqliteFile
from comity.trust.errors import Untrusted
from comity.trust.frozen import frozen

DATABASE_FILE: Final = "ledger.sqlite"


class Backing(Protocol):
    """The database of a ledger: a factory for its lock and its connections."""

    def lock(self) -> WriterLock:
        """Take the writer lock. Called first. Raises Conflict(code="LEDGER-LOCKED"), Unavailable."""

    def examine(self, lock: WriterLock, *, all_pages: bool) -> ExaminedPages:
        """Compare the pages of a database file with their sums, and repair them, before anything reads them.

        Args:
            lock: of `lock`, which is held.
            all_pages: also where the file is so large that it is not compared at every start.

        Raises Unavailable, OutOfSpace.
        """

    def pages(self) -> PageSums | None:
        """Sums of the pages of a database file; None for a database that keeps such sums itself. Called before
        `engine`."""

    def engine(self) -> Engine:
        """Create an engine whose commits survive a power failure and whose transactions read one snapshot."""

    def identity(self) -> str:
        """Returns one line that identifies the database. A copy of the database has another identity."""


@frozen
class LockedDatabase:
    """A database that this process alone may write: it holds the lock, and every earlier writer is fenced off. What its
    members are is said at `Ledger`."""

    database: Database
    lock: WriterLock
    pages: PageSums | None
    identity: str
    examined: ExaminedPages

    @classmethod
    def take(
        cls, folder: Path, backing: Backing, *, all_pages: bool, prepare: Callable[[Database], None] | None = None
    ) -> Self:
        """Take the lock, compare the pages, and fence off earlier writers.

        Args:
            folder: made if it is missing.
            all_pages: as of `Backing.examine`.
            prepare: has the tables made before; by default `migrate`. It may refuse the database by an error.

        Raises as `Ledger.open`.
        """
        with ExitStack() as undo:
            with disk_errors("cannot create the ledger's folder"):
                folder.mkdir(parents=True, exist_ok=True)
            lock = backing.lock()
            undo.callback(lock.release)
            examined = backing.examine(lock, all_pages=all_pages)
            pages = backing.pages()
            if pages is not None:
                undo.callback(pages.close)
            database = Database(backing.engine(), lock)
            undo.callback(database.close)
            (prepare or migrate)(database)
            fence, check_writer = raise_fence(database)
            database.check_writes(check_writer)
            if pages is not None:
                pages.begin(fence)
                pages.checkpoint()  # the tables of a new ledger, or what a crash left
                database.watch(pages.committed)
            identity = backing.identity()
            undo.pop_all()
        return cls(database, lock, pages, identity, examined)

    def close(self) -> None:
        """Close the database, then release the lock. Running calls fail."""
        self.database.close()
        if self.pages is not None:
            self.pages.close()
        self.lock.release()


@frozen
class Ledger:
    """An open ledger. Its stores are thread-safe, and durable when a call returns."""

    logs: LogStore
    history: History
    cosignatures: Cosignatures
    index: EntryIndex
    intake: IntakeStore
    proven: ProvenTables
    listed: ListedNames
    key_notices: KeyNotices
    side_object_positions: SideObjectPositions
    reader_positions: ReaderPositions
    replicas: ReplicaTable
    mirror_charges: MirrorCharges
    waiting_copies: WaitingCopies
    proven_times: ProvenTimes
    pins: PinTable
    pieces: PieceRecordTable
    misbehaviour: MisbehaviourTable
    witnessed: WitnessedTable
    epochs: Epochs
    join_requests: JoinRequestTable
    outside_usage: OutsideUsageTable
    marks: MarkTable
    repair: LogRepair
    pages: PageSums | None
    identity: str
    """Identifies the database. A copy that was restored from a backup has another identity."""
    examined: ExaminedPages
    """What the check of the pages found, before this ledger was opened."""
    _database: Database
    _lock: WriterLock

    @classmethod
    def open(cls, folder: Path, clock: Callable[[], float], *, backing: Backing | None = None) -> Self:
        """Open the ledger in `folder`, create it if it does not exist, and migrate its tables.

        Args:
            clock: POSIX seconds.
            backing: the database. The default is an SQLite file in `folder`.

        Raises Conflict(code="LEDGER-LOCKED") while another process has the ledger open, Refused(code="LEDGER-NEWER") if
        a newer version of Comity wrote it, and the errors of `Database`.
        """
        take = partial(LockedDatabase.take, folder, backing or SqliteFile(folder / DATABASE_FILE))
        try:
            ledger = cls.of(take(all_pages=False), clock)
        except Untrusted:  # damage in a file that was too large to be compared
            return cls.of(take(all_pages=True), clock)
        if not ledger.examined.damaged:
            return ledger
        ledger.close()  # what a crash left in the write-ahead log is in the file now, which can be written again
        return cls.of(take(all_pages=True), clock)

    @classmethod
    def of(cls, locked: LockedDatabase, clock: Callable[[], float]) -> Self:
        """The ledger in a database that this process has locked. `clock`: POSIX seconds."""
        return cls._with(locked.database, locked.lock, locked.pages, locked.identity, clock, locked.examined)

    @classmethod
    def read_only(cls, backing: ReadBacking, clock: Callable[[], float]) -> Self:
        """Open a ledger that another process writes: no lock is taken, nothing is migrated, and every write raises
        Refused(code="FRONT-END"). What the other process commits is noticed by `LedgerFollower` alone.

        Raises Refused(code="LEDGER-OLDER" or "LEDGER-NEWER") if the tables have another revision than this version of
        Comity, and the errors of `Database`.
        """
        lock = NoWriter()
        database = Database(backing.engine(), lock)
        try:
            require_revision(revision_of(database))
            return cls._with(database, lock, None, backing.identity(), clock, ExaminedPages())
        except BaseException:
            database.close()
            raise

    @classmethod
    def _with(
        cls,
        database: Database,
        lock: WriterLock,
        pages: PageSums | None,
        identity: str,
        clock: Callable[[], float],
        examined: ExaminedPages,
    ) -> Self:
        return cls(
            LogStore(database),
            History(database),
            Cosignatures(database),
            EntryIndex(database),
            IntakeStore(database),
            ProvenTables(database),
            ListedNames(database),
            KeyNotices(database),
            SideObjectPositions(database),
            ReaderPositions(database),
            ReplicaTable(database),
            MirrorCharges(database),
            WaitingCopies(database),
            ProvenTimes(database, clock),
            PinTable(database),
            PieceRecordTable(database),
            MisbehaviourTable(database, clock),
            WitnessedTable(database),
            Epochs(database),
            JoinRequestTable(database, clock),
            OutsideUsageTable(database),
            MarkTable(database),
            LogRepair(database),
            pages,
            identity,
            examined,
            database,
            lock,
        )

    def mend_pages(self, pages: Sequence[int]) -> tuple[int, ...]:
        """Write the changed byte of damaged pages again, where it is one. Returns those pages. Raises Unavailable."""
        if self.pages is None:
            return ()
        with self._database.writing("mend-pages") as connection:
            mended = self.pages.mend(pages)
            if mended:
                touch_fence(connection)
                connection.detach()  # it keeps the pages that it read; the others read them again after this commit
        return mended

    def checkpoint(self) -> None:
        """Move what the write-ahead log has to the file of an SQLite ledger. Blocking."""
        if self.pages is not None:
            with self._database.between_writes():
                self.pages.checkpoint()

    def doubt(self) -> None:
        """An error was met that damage may have caused: the next start compares every page."""
        if self.pages is not None:
            self.pages.doubtful = True

    def require_lock(self) -> None:
        """Raises Unavailable(code="LEDGER-LOCK-LOST") if another process may write the ledger. Fast; thread-safe."""
        self._lock.require()

    @property
    def version(self) -> int:
        """A counter of commits. While it does not change, all reads return the same results."""
        return self._database.version

    def watch(self, committed: Callable[[], None]) -> None:
        """Call `committed` after each commit, in the writer's thread. It must be short and must not raise."""
        self._database.watch(committed)

    def changed_elsewhere(self) -> None:
        """Another process has committed: results of earlier reads are not kept any longer. Calls what `watch` was
        given."""
        self._database.changed_elsewhere()

    def close(self) -> None:
        """Close the database, then release the lock. Running calls fail."""
        self._database.close()
        if self.pages is not None:
            self.pages.close()
        self._lock.release()


class LedgerFollower:
    """Notices what another process commits to `ledger`, by looking about once a second. Blocking; not thread-safe.

    A look tells which transactions the database shows now; while that is the same, all reads return the same. No
    message from the writer is needed, so a writer of an earlier version is followed too, and a lost connection loses
    nothing. Each look also compares the database with the one of the first look: its identity, the revision of its
    tables, and its logs, which only grow. After a difference the process has to end, because what it computed before
    is of another ledger.

    Attributes:
        writer: whether a process held the writer's lock at the last look.
    """

    def __init__(self, ledger: Ledger, backing: ReadBacking) -> None:
        self._ledger = ledger
        self._backing = backing
        self._visible = ""
        self._heads: Mapping[str, tuple[int, bytes]] = {}
        self.writer = False

    def look(self) -> bool:
        """Look once. Returns whether another process has committed since the last look; then the ledger forgets the
        results that it keeps.

        Raises Unavailable(code="LEDGER-FAILED") if the database does not answer. Raises Unavailable(
        code="LEDGER-REPLACED") and Refused(code="LEDGER-OLDER" or "LEDGER-NEWER") if this process has to end.
        """
        found = self._backing.look()
        if found.identity != self._ledger.identity:
            raise replaced("the address leads to another server, timeline, database or table than before")
        require_revision(found.revision)
        self.writer = found.writer
        if found.visible == self._visible:
            return False
        self._require_growth(self._ledger.logs.heads())
        self._visible = found.visible
        self._ledger.changed_elsewhere()
        return True

    def _require_growth(self, heads: Mapping[str, tuple[int, bytes]]) -> None:
        """Raises Unavailable(code="LEDGER-REPLACED") unless the logs continue those of the last look."""
        for log, (size, root) in self._heads.items():
            now, now_root = heads.get(log, (-1, b""))
            if now < size or (now == size and now_root != root):
                raise replaced(f"of the {size} entries of {log.partition('+')[0]} some are missing or changed")
        self._heads = heads
