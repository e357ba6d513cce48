"""Checksums of the pages of an SQLite file, so that damage on the disk is found in every table, index and free page.

A file beside the ledger has a CRC-32 of each page (`page_files`). SQLite writes pages to the database file only in a
checkpoint of its write-ahead log, and this module makes all checkpoints of a ledger:

    commits -> write-ahead log -> checkpoint -> CRC-32 of each page that the log contained -> fsync

A writer cannot begin the next write-ahead log before that fsync, because the caller of `committed` holds the ledger's
write lock. After a crash the log is still there, and its pages get their sums again. A page without a sum gets one when
it is checked. All sums are forgotten when they may be of another state of the file: the file has another inode, the
ledger was opened without this module, or its write-ahead log disappeared after a crash.

A page that was damaged before a transaction read it, changed it and wrote it again keeps a wrong sum, so that the
damage is not forgotten. `accept` ends this, when the contents were repaired.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from comity.content.durable import disk_errors
from comity.ledger.page_check import MAX_DAMAGED, PAGES_READ, SQLITE_ERRORS, mend_pages
from comity.ledger.page_files import DatabasePages, SumsHeader, SumTable, WriteAheadLog, wrong
from comity.trust.errors import Unavailable, Untrusted
from comity.trust.frozen import frozen

MAX_SHOWN: Final = 8
"""Pages that an error names."""
CHECKPOINT_BYTES: Final = 16 * 1024 * 1024
"""Bytes of the write-ahead log from which on a commit makes a checkpoint. A page that changes often, such as the last
one of a table, is written to the file once for all its changes in the log."""


@frozen
class PageRange:
    """The result of a check of some pages.

    Attributes:
        next: the first page that was not checked; None after the last page.
        damaged: pages whose bytes are not those that were written.
        fresh: how many pages had no sum before.
    """

    next: int | None
    damaged: tuple[int, ...]
    fresh: int


@dataclass(slots=True)
class _PendingPages:
    """What is to be known of single pages until the next complete checkpoint gives each page of the log its sum.

    Attributes:
        moving: an incomplete checkpoint may have moved them: the file has the old or the new bytes.
        damaged: they are in the write-ahead log, were damaged before, and get a wrong sum.
        accepted: they get the sum of their bytes though they were damaged, because their contents were proven.
    """

    moving: set[int] = field(default_factory=set)
    damaged: set[int] = field(default_factory=set)
    accepted: set[int] = field(default_factory=set)


class PageSums:
    """The page sums of one database file. Made before any other connection to the file. Thread-safe.

    The connection that it keeps is the last one to be closed: SQLite makes a checkpoint when the last connection is
    closed, and `close` has made it before.

    Attributes:
        tables: what SQLite says about pages and tables.
        doubtful: whether an error was met: the next start compares every page.
    """

    def __init__(self, file: Path, checkpoint_bytes: int = CHECKPOINT_BYTES) -> None:
        self.tables = PageTables(file)
        self.doubtful = False
        self._file = file
        self._log = WriteAheadLog(file)
        self._checkpoint_bytes = checkpoint_bytes
        self._crashed_log = self._log.has_pages
        """Whether an earlier process left a write-ahead log."""
        self._lock = threading.Lock()
        self._tried = 0
        """Size of the write-ahead log at the last checkpoint, until the log begins again."""
        self._pending = _PendingPages()
        self._pages: DatabasePages | None = None
        self._table: SumTable | None = None
        self._header = SumsHeader(0, 0, 0, running=False)
        try:
            self._keeper = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise Unavailable("the ledger's database failed", why=str(error), code="LEDGER-FAILED") from error
        with contextlib.suppress(*SQLITE_ERRORS):  # the ledger's own connections meet the same error, and name it
            self._keeper.execute("PRAGMA journal_mode=WAL")
            self._keeper.execute("SELECT count(*) FROM sqlite_master").fetchone()  # opened now, not at its first use

    def begin(self, fence: int) -> None:
        """Use the sums that are there, or forget them. `fence`: the ledger's fencing token, incremented once by each
        opener. Raises OutOfSpace, Unavailable."""
        page_size = self._take_over_checkpoints()
        with disk_errors("cannot open the page sums of the ledger"):
            self._pages = DatabasePages(self._file, page_size, os.O_RDWR)
            self._table = table = SumTable(self._file, os.O_RDWR | os.O_CREAT)
            self._header = SumsHeader(page_size, self._inode(), fence, running=True)
            if not self._continues(table.header()):
                table.forget()
            if self._crashed_log:
                self._pending.moving |= self._log.pages(page_size)
            table.write_header(self._header)
            table.sync("ledger.sums.begin")

    def close(self) -> None:
        """Make the last checkpoint, and close. Every other connection of this process is closed already."""
        with self._lock:
            if self._pages is not None and self._table is not None:
                self._finish(self._pages, self._table)
                self._table.close()
            self._keeper.close()
            if self._pages is not None:
                self._pages.close()  # after the connections: it drops the locks of SQLite on the file
            self._pages = self._table = None

    def committed(self) -> None:
        """Make a checkpoint if the write-ahead log is large. Called after each commit, under the ledger's write lock.
        A checkpoint that fails is tried again after the next commit: the log still has every page."""
        size = self._log.size
        if size < self._tried:
            self._tried = 0
        if size >= self._tried + self._checkpoint_bytes:
            self._tried = size  # while a reader keeps an old state, the log grows, and is not read at each commit
            self.checkpoint()

    def checkpoint(self) -> None:
        """Make a checkpoint, so that little depends on the write-ahead log. Called while nobody commits. One that fails
        is tried again later."""
        with self._lock, contextlib.suppress(*SQLITE_ERRORS, OSError):
            if self._pages is not None and self._table is not None:
                self._checkpoint(self._pages, self._table, "PASSIVE")

    def check(self, first: int, count: int = PAGES_READ) -> PageRange:
        """Check `count` pages from page `first`, which is 1 or more. Reads from the disk, not from the page cache.

        Raises Unavailable if the disk cannot be read.
        """
        with self._using("the ledger cannot be read") as (pages, table):
            pages.drop_cached(first, count)
            found = pages.sums_from(first, count)
            at_rest = {page: value for page, value in found.items() if page not in self._pending.moving}
            known = table.read(at_rest)
            damaged = tuple(page for page, value in at_rest.items() if known.get(page, value) != value)
            fresh = {page: value for page, value in at_rest.items() if page not in known}
            table.write(fresh)
        return PageRange(first + count if len(found) == count else None, damaged, len(fresh))

    def mend(self, pages: Iterable[int]) -> tuple[int, ...]:
        """Write the changed byte of damaged pages again, if it is one. Returns those pages. A connection that
        read one before still has it: the caller commits a change, after which SQLite reads pages again."""
        with self._using("the ledger cannot be repaired") as (database, table):
            known = table.read(set(pages) - self._pending.moving - self._pending.damaged)
            return mend_pages(database, known)

    def accept(self, pages: Iterable[int]) -> None:
        """Give damaged pages, whose contents were checked and repaired by other means, the sums of their bytes."""
        accepted = set(pages)
        with self._using("the page sums of the ledger cannot be written") as (database, table):
            pending = self._pending
            pending.accepted |= accepted
            pending.damaged -= accepted
            table.write(database.sums(pending.accepted - pending.moving))

    @contextlib.contextmanager
    def _using(self, what: str) -> Iterator[tuple[DatabasePages, SumTable]]:
        with self._lock, disk_errors(what):
            if self._pages is None or self._table is None:
                raise Unavailable(what, why="the ledger is closed", code="LEDGER-FAILED")
            yield self._pages, self._table

    def _take_over_checkpoints(self) -> int:
        """From now on SQLite makes none. Returns the size of a page."""
        try:
            self._keeper.execute("PRAGMA wal_autocheckpoint=0")
            (page_size,) = self._keeper.execute("PRAGMA page_size").fetchone()
            self._keeper.execute("PRAGMA busy_timeout=0")  # a checkpoint does not wait for readers
        except SQLITE_ERRORS as error:
            raise Unavailable("the ledger's database failed", why=str(error), code="LEDGER-FAILED") from error
        return int(page_size)

    def _continues(self, found: SumsHeader | None) -> bool:
        """Whether the sums are of the file as the last process left it."""
        if found is None:
            return False
        before = replace(self._header, fence=self._header.fence - 1, running=found.running, doubtful=found.doubtful)
        return found == before and (not found.running or self._crashed_log)

    def _inode(self) -> int:
        assert self._pages is not None
        return self._pages.inode

    def _finish(self, pages: DatabasePages, table: SumTable) -> None:
        with contextlib.suppress(OSError, *SQLITE_ERRORS):  # the next start finds the write-ahead log
            if self._checkpoint(pages, table, "TRUNCATE"):
                table.write_header(replace(self._header, running=False, doubtful=self.doubtful))
                table.sync("ledger.sums.end")

    def _checkpoint(self, pages: DatabasePages, table: SumTable, mode: str) -> bool:
        """Returns whether every page of the write-ahead log is in the file, and has its sum."""
        pending, changed = self._pending, self._log.pages(pages.page_size)
        pending.damaged |= table.mismatches(pages.sums(changed - pending.moving)) - pending.accepted
        if not self._move(mode, changed):
            return False
        try:
            now = pages.sums(changed)
            table.write({page: wrong(value) if page in pending.damaged else value for page, value in now.items()})
            table.sync("ledger.sums.fsync")
        except OSError:
            table.forget()  # wrong sums are worse than none
        self._pending = _PendingPages()
        return True

    def _move(self, mode: str, changed: set[int]) -> bool:
        """Have SQLite move the pages of the write-ahead log, which are `changed`, to the file. Returns whether all
        are there."""
        try:
            busy, frames, moved = self._keeper.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except SQLITE_ERRORS:
            self._pending.moving |= changed  # a full disk stops it in the middle
            raise
        if busy or frames != moved:
            self._pending.moving |= changed  # a reader still reads an older state; the pages keep their place
            return False
        return True


class PageTables:
    """What SQLite says about the pages and tables of a database file, as far as it can. Each question has a connection
    of its own, so that no commit waits for a long read. Thread-safe."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def of_pages(self, pages: Collection[int]) -> Mapping[int, str]:
        """The table or index to which each of `pages` belongs, as far as the way to the page is undamaged. Reads the
        whole file."""
        found = dict[int, str]()
        try:
            with self._reading() as database:
                names = database.execute("SELECT name FROM sqlite_master WHERE rootpage > 0").fetchall()
                for (name,) in (("sqlite_schema",), *names):
                    with contextlib.suppress(*SQLITE_ERRORS):  # damaged on the way, or dbstat is not compiled in
                        rows = database.execute("SELECT pageno FROM dbstat WHERE name = ?", (name,))
                        found |= {int(page): str(name) for (page,) in rows if page in pages}
        except SQLITE_ERRORS:
            pass  # the list of the tables is damaged
        return found

    def owner(self, name: str) -> str:
        """The table of an index, or the table itself; empty if there is no such table."""
        try:
            with self._reading() as database:
                found = database.execute("SELECT tbl_name FROM sqlite_master WHERE name = ?", (name,)).fetchone()
                return "" if found is None else str(found[0])
        except (sqlite3.Error, ValueError):
            return ""

    def is_well_formed(self, table: str) -> bool:
        """Whether SQLite finds the pages of a table in order, and its indexes equal to it. Reads the table."""
        try:
            with self._reading() as database:
                return database.execute(f"PRAGMA integrity_check('{table}')").fetchall() == [("ok",)]
        except (sqlite3.Error, ValueError):
            return False

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(f"{self._file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            yield database


def named_pages(sums: PageSums, pages: Sequence[int]) -> str:
    """Some of these pages, with their tables and indexes, for people."""
    return shown_pages(sums.tables.of_pages(tuple(pages)), pages)


def shown_pages(names: Mapping[int, str], pages: Sequence[int]) -> str:
    """As `named_pages`, with the known names."""
    shown = ", ".join(f"{page} ({names[page]})" if page in names else str(page) for page in pages[:MAX_SHOWN])
    return f"{shown} and {len(pages) - MAX_SHOWN} more" if len(pages) > MAX_SHOWN else shown


def damaged_pages(sums: PageSums, damaged: tuple[int, ...]) -> Untrusted:
    """The error for pages that are damaged."""
    return Untrusted(
        "the ledger is damaged",
        why=f"{len(damaged)} pages of its file are not as they were written: {named_pages(sums, damaged)}",
        hint="comity doctor --node HOME; or comity backup restore BACKUP --node HOME, into a new home",
        code="LEDGER-CORRUPT",
    )


def check_pages(sums: PageSums, on_read: Callable[[int], None] = lambda count: None) -> tuple[int, ...]:
    """Check every page. Returns the damaged ones, at most `MAX_DAMAGED` and those of one read more. `on_read` gets the
    number of pages of each read."""
    damaged, first = list[int](), 1
    while len(damaged) < MAX_DAMAGED:
        found = sums.check(first)
        damaged += found.damaged
        on_read(PAGES_READ)
        if found.next is None:
            break
        first = found.next
    return tuple(damaged)
