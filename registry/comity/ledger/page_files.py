"""The files of an SQLite ledger as bytes: pages of the database, its write-ahead log, and the sums of pages beside it.

`page_sums` says when each is read and written. Nothing here knows a state: each answer is what is on the disk now.
Every method may raise OSError.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from comity.content.durable import fsync
from comity.ledger.changed_byte import changed_byte
from comity.trust.frozen import frozen

SUFFIX: Final = "-sums"
"""Follows the name of the database file."""

_MAGIC: Final = b"comity-sums1"
_HEADER: Final = struct.Struct("<12sIQQB")
_CLOSED: Final = 0
_RUNNING: Final = 1
_DOUBTFUL: Final = 2
"""Versions before this state forget the sums, as after a process that did not end well."""
_CHECKSUM: Final = struct.Struct("<I")
_BLOCK: Final = 4096
_SUMS: Final = _BLOCK // 4 - 1
"""Sums in one block; the last four bytes are the block's own CRC-32."""
_WAL_HEADER: Final = 32
_FRAME_HEADER: Final = struct.Struct(">II8s8s")


class DatabasePages:
    """The sums of the pages as they are in the database file now. Pages are numbered from 1."""

    def __init__(self, file: Path, page_size: int, flags: int = os.O_RDONLY) -> None:
        self.page_size = page_size
        self._descriptor = os.open(file, flags | os.O_CLOEXEC)

    @property
    def inode(self) -> int:
        return os.fstat(self._descriptor).st_ino

    def sums(self, pages: Iterable[int]) -> dict[int, int]:
        """Of those pages that the file has."""
        found = dict[int, int]()
        for page in sorted(pages):
            data = os.pread(self._descriptor, self.page_size, (page - 1) * self.page_size)
            if len(data) == self.page_size:
                found[page] = _page_sum(data, page)
        return found

    def sums_from(self, first: int, count: int) -> dict[int, int]:
        """Of at most `count` pages from `first` on, read in one piece; of fewer where the file ends."""
        size = self.page_size
        view = memoryview(os.pread(self._descriptor, count * size, (first - 1) * size))
        pages = range(first, first + len(view) // size)
        return {page: _page_sum(view[at * size : (at + 1) * size], page) for at, page in enumerate(pages)}

    def read(self, page: int) -> bytes:
        return os.pread(self._descriptor, self.page_size, (page - 1) * self.page_size)

    def changed(self, page: int, wanted: int) -> tuple[int, int] | None:
        """The offset of the only byte whose change explains that the page does not have the sum `wanted`, and its
        changed bits; None if other bytes changed too."""
        difference = _page_sum(self.read(page), page) ^ wanted
        return None if difference in (0, wrong(0)) else changed_byte(self.page_size, difference)

    def change(self, page: int, offset: int, bits: int) -> None:
        """Change bits of one byte. On the disk after `sync`."""
        byte = self.read(page)[offset] ^ bits
        os.pwrite(self._descriptor, bytes([byte]), (page - 1) * self.page_size + offset)

    def sync(self, point: str) -> None:
        fsync(self._descriptor, point=point)

    def drop_cached(self, first: int, count: int) -> None:
        """Have the next read of these pages come from the disk, not from the page cache."""
        size = self.page_size
        os.posix_fadvise(self._descriptor, (first - 1) * size, count * size, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        os.close(self._descriptor)


class WriteAheadLog:
    """The write-ahead log of a database file."""

    def __init__(self, database: Path) -> None:
        self._file = database.with_name(database.name + "-wal")

    @property
    def size(self) -> int:
        try:
            return self._file.stat().st_size
        except OSError:
            return 0

    @property
    def has_pages(self) -> bool:
        return self.size > _WAL_HEADER

    def pages(self, page_size: int) -> set[int]:
        """The pages that the log contains, and perhaps some that a transaction which did not end wrote."""
        try:
            descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return set()
        try:
            return set(_frames(descriptor, page_size))
        finally:
            os.close(descriptor)


def _frames(log: int, page_size: int) -> Iterator[int]:
    """The page of each frame of a write-ahead log."""
    salt = os.pread(log, _WAL_HEADER, 0)[16:24]
    step, end = _FRAME_HEADER.size + page_size, os.fstat(log).st_size
    for at in range(_WAL_HEADER, end - step + 1, step):
        page, _size_after, found, _checksum = _FRAME_HEADER.unpack(os.pread(log, _FRAME_HEADER.size, at))
        if found != salt:
            return  # of an earlier log in the same file
        yield page


@frozen
class SumsHeader:
    """Of which database file the sums are. `fence`: the ledger's fencing token; `running`: whether a process writes;
    `doubtful`: whether the last process met an error, so that the next one compares every page."""

    page_size: int
    inode: int
    fence: int
    running: bool
    doubtful: bool = False


class SumTable:
    """The file of sums: a header, and blocks with a checksum each."""

    def __init__(self, database: Path, flags: int) -> None:
        file = database.with_name(database.name + SUFFIX)
        self._descriptor = os.open(file, flags | os.O_CLOEXEC, 0o600)

    def header(self) -> SumsHeader | None:
        """None if it is missing, damaged, or of another format."""
        data = os.pread(self._descriptor, _HEADER.size + _CHECKSUM.size, 0)
        if len(data) < _HEADER.size + _CHECKSUM.size:
            return None
        packed = data[: _HEADER.size]
        if zlib.crc32(packed) != _CHECKSUM.unpack_from(data, _HEADER.size)[0]:
            return None
        magic, page_size, inode, fence, state = _HEADER.unpack(packed)
        if magic != _MAGIC:
            return None
        return SumsHeader(page_size, inode, fence, state not in (_CLOSED, _DOUBTFUL), state == _DOUBTFUL)

    def write_header(self, header: SumsHeader) -> None:
        state = _RUNNING if header.running else _DOUBTFUL if header.doubtful else _CLOSED
        packed = _HEADER.pack(_MAGIC, header.page_size, header.inode, header.fence, state)
        os.pwrite(self._descriptor, packed + _CHECKSUM.pack(zlib.crc32(packed)), 0)

    def read(self, pages: Iterable[int]) -> dict[int, int]:
        """The sums that are known of `pages`."""
        known = dict[int, int]()
        for number, members in _by_block(pages).items():
            sums = self._read_block(number)
            known.update({page: sums[(page - 1) % _SUMS] for page in members})
        return {page: value for page, value in known.items() if value}

    def mismatches(self, sums: Mapping[int, int]) -> set[int]:
        """Those of the pages whose known sum is another one."""
        known = self.read(sums)
        return {page for page, value in sums.items() if known.get(page, value) != value}

    def write(self, sums: Mapping[int, int]) -> None:
        for number, members in _by_block(sums).items():
            block = self._read_block(number)
            for page in members:
                block[(page - 1) % _SUMS] = sums[page]
            packed = struct.pack(f"<{_SUMS}I", *block)
            os.pwrite(self._descriptor, packed + _CHECKSUM.pack(zlib.crc32(packed)), (number + 1) * _BLOCK)

    def forget(self) -> None:
        """Without a header and sums, every page is unknown."""
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


def wrong(value: int) -> int:
    """A sum that no page with the sum `value` matches."""
    return value ^ 0xFFFFFFFF or 1


def _by_block(pages: Iterable[int]) -> Mapping[int, list[int]]:
    """The pages by the number of the block that has their sums."""
    members = defaultdict[int, list[int]](list)
    for page in pages:
        members[(page - 1) // _SUMS].append(page)
    return members


def _page_sum(data: bytes | memoryview, page: int) -> int:
    """CRC-32 over the number of the page and its bytes; never 0, which means unknown."""
    return zlib.crc32(data, page) or 1
