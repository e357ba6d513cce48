"""Checksums of the pages of an SQLite file, so that damage on the disk is found in every table, index and free page.

A file beside the ledger has a CRC-32 of each page. SQLite writes pages to the database file only in a checkpoint of its
write-ahead log, and this module makes all checkpoints of a ledger:

    commits -> write-ahead log -> checkpoint -> CRC-32 of each page that the log contained -> fsync

A writer cannot begin the next write-ahead log before that fsync, because the caller of `checkpoint` holds the ledger's
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
import struct
import threading
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from comity.content.durable import disk_errors, fsync
from comity.trust.errors import Unavailable, Untrusted

SUFFIX: Final = "-sums"
"""Follows the name of the database file."""
CHECKPOINT_BYTES: Final = 16 * 1024 * 1024
"""Bytes of the write-ahead log from which on a commit makes a checkpoint. A page that changes often, such as the last
one of a table, is written to the file once for all its changes in the log."""
PAGES_READ: Final = 256
"""Pages in one read of a check."""

_MAGIC: Final = b"comity-sums1"
_HEADER: Final = struct.Struct("<12sIQQB")
_CHECKSUM: Final = struct.Struct("<I")
_BLOCK: Final = 4096
_SUMS: Final = _BLOCK // 4 - 1
"""Sums in one block; the last four bytes are the block's own CRC-32."""
_WAL_HEADER: Final = 32
_FRAME_HEADER: Final = struct.Struct(">II8s8s")


@dataclass(frozen=True, slots=True)
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


class _SumTable:
    """The file of sums: a header, and blocks with a checksum each. Raises OSError."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def header(self) -> tuple[bytes, int, int, int, int] | None:
        """Magic, page size, inode, fencing token, and whether a process writes; None if it is missing or damaged."""
        data = os.pread(self._descriptor, _HEADER.size + _CHECKSUM.size, 0)
        if len(data) < _HEADER.size + _CHECKSUM.size:
            return None
        packed = data[: _HEADER.size]
        if zlib.crc32(packed) != _CHECKSUM.unpack_from(data, _HEADER.size)[0]:
            return None
        magic, page_size, inode, fence, running = _HEADER.unpack(packed)
        return magic, page_size, inode, fence, running

    def write_header(self, page_size: int, inode: int, fence: int, *, running: bool) -> None:
        packed = _HEADER.pack(_MAGIC, page_size, inode, fence, running)
        os.pwrite(self._descriptor, packed + _CHECKSUM.pack(zlib.crc32(packed)), 0)

    def read(self, pages: Iterable[int]) -> dict[int, int]:
        """The sums that are known of `pages`."""
        known = dict[int, int]()
        for number, members in _by_block(pages).items():
            sums = self._read_block(number)
            known.update({page: sums[(page - 1) % _SUMS] for page in members})
        return {page: value for page, value in known.items() if value}

    def write(self, sums: Mapping[int, int]) -> None:
        for number, members in _by_block(sums).items():
            block = self._read_block(number)
            for page in members:
                block[(page - 1) % _SUMS] = sums[page]
            packed = struct.pack(f"<{_SUMS}I", *block)
            os.pwrite(self._descriptor, packed + _CHECKSUM.pack(zlib.crc32(packed)), (number + 1) * _BLOCK)

    def forget(self) -> None:
        os.ftruncate(self._descriptor, 0)

    def sync(self, point: str) -> None:
        fsync(self._descriptor, point=point)

    def close(self) -> None:
        os.close(self._descriptor)

    def _read_block(self, number: int) -> list[int]:
        """The sums of one block; zeros, which mean unknown, if it is missing or damaged."""
        data = os.pread(self._descriptor, _BLOCK, (number + 1) * _BLOCK)
        if len(data) < _BLOCK or zlib.crc32(data[:-4]) != _CHECKSUM.unpack(data[-4:])[0]:
            return [0] * _SUMS
        return list(struct.unpack(f"<{_SUMS}I", data[:-4]))


class PageSums:
    """The page sums of one database file. Made before any other connection to the file. Thread-safe.

    The connection that it keeps is the last one to be closed: SQLite makes a checkpoint when the last connection is
    closed, and `close` has made it before.
    """

    def __init__(self, file: Path, checkpoint_bytes: int = CHECKPOINT_BYTES) -> None:
        self._file = file
        self._sums = file.with_name(file.name + SUFFIX)
        self._wal = file.with_name(file.name + "-wal")
        self._checkpoint_bytes = checkpoint_bytes
        self._crashed_log = _size(self._wal) > _WAL_HEADER
        """Whether an earlier process left a write-ahead log."""
        self._lock = threading.Lock()
        self._tried = 0
        """Size of the write-ahead log at the last checkpoint, until the log begins again."""
        try:
            self._keeper = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise Unavailable("the ledger's database failed", why=str(error), code="LEDGER-FAILED") from error
        with contextlib.suppress(sqlite3.Error):  # the ledger's own connections meet the same error, and name it
            self._keeper.execute("PRAGMA journal_mode=WAL")
            self._keeper.execute("SELECT count(*) FROM sqlite_master").fetchone()  # opened now, not at its first use
        self._descriptor = -1
        self._opened: _SumTable | None = None
        self._page_size = 0
        self._fence = 0
        self._moving = set[int]()
        """Pages that an incomplete checkpoint may have moved: the file has the old or the new bytes."""
        self._damaged = set[int]()
        """Damaged pages that are in the write-ahead log and get a wrong sum."""
        self._accepted = set[int]()
        """Pages that get the sum of their bytes though they were damaged, because their contents were proven."""

    def begin(self, fence: int) -> None:
        """Use the sums that are there, or forget them. `fence`: the ledger's fencing token, incremented once by each
        opener. Raises OutOfSpace, Unavailable."""
        try:
            self._keeper.execute("PRAGMA wal_autocheckpoint=0")
            (self._page_size,) = self._keeper.execute("PRAGMA page_size").fetchone()
            self._keeper.execute("PRAGMA busy_timeout=0")  # a checkpoint does not wait for readers
        except sqlite3.Error as error:
            raise Unavailable("the ledger's database failed", why=str(error), code="LEDGER-FAILED") from error
        self._fence = fence
        with disk_errors("cannot open the page sums of the ledger"):
            # Never closed before the connections: closing any descriptor of the file drops SQLite's locks on it.
            self._descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
            self._opened = table = _SumTable(os.open(self._sums, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            if not self._continues(table, fence):
                table.forget()
            if self._crashed_log:
                self._moving.update(self._wal_pages())
            table.write_header(self._page_size, self._inode(), fence, running=True)
            table.sync("ledger.sums.begin")

    def close(self) -> None:
        """Make the last checkpoint, and close. Every other connection of this process is closed already."""
        with self._lock:
            if self._opened is not None:
                self._finish(self._opened)
                self._opened.close()
            self._keeper.close()
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._opened, self._descriptor = None, -1

    def _finish(self, table: _SumTable) -> None:
        with contextlib.suppress(OSError, sqlite3.Error):  # the next start finds the write-ahead log
            if self._checkpoint(table, "TRUNCATE"):
                table.write_header(self._page_size, self._inode(), self._fence, running=False)
                table.sync("ledger.sums.end")

    def committed(self) -> None:
        """Make a checkpoint if the write-ahead log is large. Called after each commit, under the ledger's write lock.
        A checkpoint that fails is tried again after the next commit: the log still has every page."""
        size = _size(self._wal)
        if size < self._tried:
            self._tried = 0
        if size >= self._tried + self._checkpoint_bytes:
            self._tried = size  # while a reader keeps an old state, the log grows, and is not read at each commit
            with self._lock, contextlib.suppress(sqlite3.Error, OSError):
                if self._opened is not None:
                    self._checkpoint(self._opened, "PASSIVE")

    def check(self, first: int, count: int = PAGES_READ) -> PageRange:
        """Check `count` pages from page `first`, which is 1 or more. Reads from the disk, not from the page cache.

        Raises Unavailable if the disk cannot be read.
        """
        with self._using("the ledger cannot be read") as table:
            offset, length = (first - 1) * self._page_size, count * self._page_size
            os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_DONTNEED)
            data = os.pread(self._descriptor, length, offset)
            found = dict(_page_sums(data, first, self._page_size))
            known = table.read(found)
            damaged = [page for page, value in found.items() if known.get(page, value) != value]
            damaged = [page for page in damaged if page not in self._moving]
            fresh = {page: value for page, value in found.items() if page not in known and page not in self._moving}
            table.write(fresh)
        ends = len(data) < length
        return PageRange(None if ends else first + count, tuple(damaged), len(fresh))

    def accept(self, pages: Iterable[int]) -> None:
        """Give damaged pages, whose contents were checked and repaired by other means, the sums of their bytes."""
        with self._using("the page sums of the ledger cannot be written") as table:
            self._accepted.update(pages)
            self._damaged.difference_update(pages)
            table.write(dict(self._current(page for page in sorted(self._accepted - self._moving))))

    def tables(self, pages: tuple[int, ...]) -> Mapping[int, str]:
        """The table or index to which each of `pages` belongs, as far as SQLite can say it. Reads the whole file."""
        marks = ",".join("?" * len(pages))
        try:
            with self._reading() as database:
                rows = database.execute(f"SELECT pageno, name FROM dbstat WHERE pageno IN ({marks})", pages)
                return {int(page): str(name) for page, name in rows}
        except (sqlite3.Error, ValueError):
            return {}  # not compiled in, or the damage is on the way to the page

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
        """A connection of its own, so that no commit waits for a long read."""
        with contextlib.closing(sqlite3.connect(f"{self._file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            yield database

    @contextlib.contextmanager
    def _using(self, what: str) -> Iterator[_SumTable]:
        with self._lock, disk_errors(what):
            if self._opened is None:
                raise Unavailable(what, why="the ledger is closed", code="LEDGER-FAILED")
            yield self._opened

    def _continues(self, table: _SumTable, fence: int) -> bool:
        """Whether the sums are of the file as the last process left it."""
        header = table.header()
        if header is None or header[:4] != (_MAGIC, self._page_size, self._inode(), fence - 1):
            return False
        return not header[4] or self._crashed_log

    def _inode(self) -> int:
        return os.fstat(self._descriptor).st_ino

    def _checkpoint(self, table: _SumTable, mode: str) -> bool:
        """Returns whether every page of the write-ahead log is in the file, and has its sum."""
        changed = set(self._wal_pages())
        before = dict(self._current(sorted(changed - self._moving)))
        known = table.read(before)
        wrong = {page for page, value in before.items() if known.get(page, value) != value}
        self._damaged |= wrong - self._accepted
        try:
            busy, frames, moved = self._keeper.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error:
            self._moving |= changed  # a full disk stops it in the middle
            raise
        if busy or frames != moved:
            self._moving |= changed  # a reader still reads an older state; the pages keep their place in the log
            return False
        try:
            now = dict(self._current(sorted(changed)))
            table.write({page: _wrong(value) if page in self._damaged else value for page, value in now.items()})
            table.sync("ledger.sums.fsync")
        except OSError:
            table.forget()  # wrong sums are worse than none
        for pages in (self._moving, self._damaged, self._accepted):
            pages.clear()
        return True

    def _current(self, pages: Iterable[int]) -> Iterator[tuple[int, int]]:
        for page in pages:
            data = os.pread(self._descriptor, self._page_size, (page - 1) * self._page_size)
            if len(data) == self._page_size:
                yield page, _page_sum(data, page)

    def _wal_pages(self) -> Iterator[int]:
        """The pages that the write-ahead log contains, and perhaps some that a transaction which did not end wrote."""
        try:
            descriptor = os.open(self._wal, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            salt = os.pread(descriptor, _WAL_HEADER, 0)[16:24]
            step, end = _FRAME_HEADER.size + self._page_size, os.fstat(descriptor).st_size
            for at in range(_WAL_HEADER, end - step + 1, step):
                page, _size_after, found, _checksum = _FRAME_HEADER.unpack(os.pread(descriptor, _FRAME_HEADER.size, at))
                if found != salt:
                    return  # of an earlier log in the same file
                yield page
        finally:
            os.close(descriptor)


def damaged_pages(sums: PageSums, damaged: tuple[int, ...]) -> Untrusted:
    """The error for pages that are damaged."""
    names = sums.tables(damaged)
    shown = ", ".join(f"{page} ({names[page]})" if page in names else str(page) for page in damaged[:8])
    return Untrusted(
        "the ledger is damaged",
        why=f"{len(damaged)} pages of its file are not as they were written: {shown}",
        hint="comity backup restore BACKUP --node HOME, into a new home",
        code="LEDGER-CORRUPT",
    )


def check_pages(sums: PageSums, on_read: Callable[[int], None] = lambda count: None) -> tuple[int, ...]:
    """Check every page. Returns the damaged ones, at most 1,000. `on_read` gets the number of pages of each read."""
    damaged, first = list[int](), 1
    while len(damaged) < 1_000:
        found = sums.check(first)
        damaged += found.damaged
        on_read(PAGES_READ)
        if found.next is None:
            break
        first = found.next
    return tuple(damaged)


def closed_file_damage(file: Path) -> tuple[int, ...] | None:
    """Check every page of a database that no process writes. Returns the damaged ones, at most 1,000; None if there are
    no sums of this file. Changes nothing. Raises Unavailable."""
    sums = file.with_name(file.name + SUFFIX)
    if not sums.exists():
        return None
    with disk_errors("the ledger cannot be read"), file.open("rb") as database:
        table = _SumTable(os.open(sums, os.O_RDONLY | os.O_CLOEXEC))
        try:
            header = table.header()
            if header is None or header[0] != _MAGIC or header[4] or header[2] != os.fstat(database.fileno()).st_ino:
                return None
            return tuple(islice(_damaged(database.fileno(), table, header[1]), 1_000))
        finally:
            table.close()


def _damaged(descriptor: int, table: _SumTable, page_size: int) -> Iterator[int]:
    first = 1
    while data := os.pread(descriptor, PAGES_READ * page_size, (first - 1) * page_size):
        found = dict(_page_sums(data, first, page_size))
        known = table.read(found)
        yield from (page for page, value in found.items() if known.get(page, value) != value)
        first += PAGES_READ


def _by_block(pages: Iterable[int]) -> Mapping[int, list[int]]:
    """The pages by the number of the block that has their sums."""
    members = defaultdict[int, list[int]](list)
    for page in pages:
        members[(page - 1) // _SUMS].append(page)
    return members


def _page_sums(data: bytes, first: int, page_size: int) -> Iterator[tuple[int, int]]:
    view = memoryview(data)
    for nth in range(len(data) // page_size):
        yield first + nth, _page_sum(view[nth * page_size : (nth + 1) * page_size], first + nth)


def _page_sum(data: bytes | memoryview, page: int) -> int:
    """CRC-32 over the number of the page and its bytes; never 0, which means unknown."""
    return zlib.crc32(data, page) or 1


def _wrong(value: int) -> int:
    return value ^ 0xFFFFFFFF or 1


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
