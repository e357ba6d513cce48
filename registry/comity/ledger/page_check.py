"""The pages of an SQLite ledger against their sums (`page_sums`) before anything reads the file as a database.

A start makes this check first, so that no statement, key or table is read from a damaged page. A page in which one byte
changed is written again from its sum (`changed_byte`). Whether the sums are of this state of the file is known from
their header: the inode, the fencing token, and a write-ahead log if the last process did not end well.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from comity.content.durable import disk_errors
from comity.ledger.page_files import SUFFIX, DatabasePages, SumsHeader, SumTable, WriteAheadLog
from comity.trust.frozen import frozen

MAX_EXAMINED_BYTES: Final = 256 * 1024**2
"""A larger file, which the last process closed, is not compared at a start: the scrub compares it."""
MAX_DAMAGED: Final = 1_000
"""Damaged pages after which a check ends."""
PAGES_READ: Final = 256
"""Pages in one read of a check."""
SQLITE_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)
"""What a call of `sqlite3` raises: the second one if the text of the error has bytes of a damaged page."""


@frozen
class ExaminedPages:
    """The result of a check before a start.

    Attributes:
        mended: pages in which one byte had changed, which was written again, or can be.
        damaged: other pages whose bytes are not those that were written, at most `MAX_DAMAGED`.
        unchecked: why pages were not compared; empty if every page was.
        named: the pages with their tables, for people.
        rewritten: damaged pages without which the file was written again (`rebuilt_file`); `damaged` is empty then.
        refilled: the tables of these pages that are filled again. An index is complete at once.
    """

    mended: tuple[int, ...] = ()
    damaged: tuple[int, ...] = ()
    unchecked: str = ""
    named: str = ""
    rewritten: tuple[int, ...] = ()
    refilled: frozenset[str] = frozenset()


def examine_pages(file: Path, *, mend: bool, most_bytes: int | None = None) -> ExaminedPages:
    """Compare every page that no write-ahead log replaces. Call it while no process has the file open to write.

    Args:
        mend: write changed bytes again; else nothing is changed.
        most_bytes: a larger file is not compared if the last process closed it without an error.

    Raises Unavailable and OutOfSpace if the disk fails.
    """
    if not file.exists() or not file.with_name(file.name + SUFFIX).exists():
        return ExaminedPages(unchecked="it has no sums yet")
    flags = os.O_RDWR if mend else os.O_RDONLY
    with disk_errors("the ledger cannot be read"), closing(SumTable(file, os.O_RDONLY)) as table:
        header = table.header()
        if header is None:
            return ExaminedPages(unchecked="its sums are missing or damaged")
        with closing(DatabasePages(file, header.page_size, flags)) as pages:
            log = WriteAheadLog(file)
            if header.inode != pages.inode:
                return ExaminedPages(unchecked="its sums are of another file")
            if header.running and not log.has_pages:
                return ExaminedPages(unchecked="the node did not end well, and its write-ahead log is gone")
            closed_well = not (header.running or header.doubtful)
            if closed_well and most_bytes is not None and file.stat().st_size > most_bytes:
                return ExaminedPages(unchecked="it is large, and the scrub compares it")
            damage = _damage(pages, table, log.pages(header.page_size))
            if not header.running and not _continues(file, header, pages, damage.sums):
                return ExaminedPages(unchecked="another program wrote to the file after its sums")
            mended = mend_pages(pages, damage.sums, write=mend)
    left = tuple(page for page in sorted(damage.sums) if page not in mended)
    return ExaminedPages(mended, left, f"{damage.fresh} of its pages have no sum yet" if damage.fresh else "")


def mend_pages(pages: DatabasePages, sums: Mapping[int, int], *, write: bool = True) -> tuple[int, ...]:
    """Write the changed byte of those pages again in which it is one. Returns them; on the disk when it returns.

    Args:
        sums: of each page, the sum that it had.
        write: else they are only returned.
    """
    mended = list[int]()
    for page, wanted in sorted(sums.items()):
        if (found := pages.changed(page, wanted)) is not None:
            mended.append(page)
            if write:
                pages.change(page, *found)
    if mended and write:
        pages.sync("ledger.mend.fsync")
    return tuple(mended)


@frozen
class _Damage:
    """The sums that damaged pages had, and how many pages have none."""

    sums: Mapping[int, int]
    fresh: int


def _damage(pages: DatabasePages, table: SumTable, moving: Collection[int]) -> _Damage:
    """`moving`: pages of a write-ahead log, which replace those of the file."""
    damaged, fresh, first = dict[int, int](), 0, 1
    while len(damaged) < MAX_DAMAGED and (found := pages.sums_from(first, PAGES_READ)):
        at_rest = {page: value for page, value in found.items() if page not in moving}
        known = table.read(at_rest)
        damaged |= {page: known[page] for page, value in at_rest.items() if known.get(page, value) != value}
        fresh += len(at_rest) - len(known)
        first += PAGES_READ
    return _Damage(damaged, fresh)


def _continues(file: Path, header: SumsHeader, pages: DatabasePages, sums: Mapping[int, int]) -> bool:
    """Whether nobody wrote to a file that was closed after its sums. Each opener raises the fencing token; if the token
    itself is damaged, the pages that changed in one byte prove it: together with the others they are the file of then.
    """
    if _fence(file) in (None, header.fence):
        return True
    return bool(sums) and all(pages.changed(page, wanted) for page, wanted in sums.items())


def _fence(file: Path) -> int | None:
    """The fencing token in a closed file; None if it cannot be read."""
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?immutable=1", uri=True)) as database:
            (number,) = database.execute("SELECT number FROM writer").fetchone()
            return int(number)
    except (*SQLITE_ERRORS, TypeError, ValueError):
        return None
