"""The partial file of a transfer, and the hash of one piece.

The partial file is its own journal. Only verified pieces are written, and pieces found in it later are hashed before
use, so there is no second file that could be torn, stale or about other records, and no fsync per piece: a crash can
lose pieces but never add bad ones. Holes are skipped where the file system reports them.

Pieces are written past the page cache where that is wanted and the file system allows it
(docs/decisions/0036-pieces-past-the-page-cache.md).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from comity.content import durable, fault
from comity.hashing import ENGINE
from comity.transfer.scheduler import WantedFile
from comity.trust.artifact import INITIAL_STATE, ContinuedHash, result_of
from comity.trust.encoding import short
from comity.trust.errors import OutOfSpace, Unavailable

MAKE_ROOM: Final = "free some space, then run the same command again: it continues from here"
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
ALIGNMENT: Final = 4096
"""Bytes: offset, length and memory of a direct write are multiples of it. No disk in use has larger sectors."""
_DIRECT: Final[int] = getattr(os, "O_DIRECT", 0)


class PieceHash:
    """The hash of one piece of `want`, in parts. Not thread-safe; releases the interpreter lock while it hashes."""

    def __init__(self, want: WantedFile, piece: int) -> None:
        self._want = want
        self._piece = piece
        self._continued: ContinuedHash | None = None
        self._plain = hashlib.sha256()
        if want.chained:
            assert ENGINE is not None, "chained records need an engine"
            before = want.records[piece - 1].sha256 if piece else INITIAL_STATE
            self._continued = ENGINE(before, want.offsets[piece])

    def update(self, data: memoryview) -> None:
        (self._continued or self._plain).update(data)

    def result(self) -> bytes:
        """What the record of the piece must say. May be called once."""
        if self._continued is None:
            return self._plain.digest()
        return result_of(self._want.records, self._piece, self._continued)


def hash_piece(want: WantedFile, piece: int, view: memoryview) -> bytes:
    """What the record of `piece` must say if its bytes are those in `view`."""
    hashed = PieceHash(want, piece)
    hashed.update(view)
    return hashed.result()


class PartialFile:
    """The partial file of `want` at `path`. Blocking; thread-safe. All methods raise OutOfSpace or Unavailable (DISK).

    While `past_cache` returns true, pieces are written past the page cache, from memory that is aligned as their offset
    (`PieceBuffers`).

    Each method opens the file itself: a thread that outlives a cancelled transfer then cannot use a descriptor that was
    closed or reused.
    """

    def __init__(self, path: Path, want: WantedFile, past_cache: Callable[[], bool] | None = None) -> None:
        self._path = path
        self._want = want
        self._past_cache = past_cache or (lambda: want.chained)
        self._direct = bool(_DIRECT)

    def candidate_pieces(self) -> list[int]:
        """Pieces whose bytes are in the file, not yet verified. Creates the file if missing."""
        self._make_writable()
        offsets, claimed = self._want.offsets, list[int]()
        with self._open(os.O_RDWR | os.O_CREAT) as fd:
            for start, stop in _extents(fd):
                first = max(bisect_right(offsets, start) - 1, claimed[-1] + 1 if claimed else 0)
                claimed.extend(range(first, min(bisect_left(offsets, stop), len(offsets) - 1)))
        return claimed

    def _make_writable(self) -> None:
        """Undo what a crash left that came after the file was made read-only and before it got its final name."""
        if self._path.exists():
            with self._open(os.O_RDONLY) as fd:
                mode = os.fstat(fd).st_mode
                if not mode & stat.S_IWUSR:
                    os.fchmod(fd, stat.S_IMODE(mode) | stat.S_IWUSR)

    def require_space(self, missing: int) -> None:
        """Raise OutOfSpace if the disk has less than `missing` bytes free."""
        with self._open(os.O_RDONLY) as fd:
            disk = os.fstatvfs(fd)
        free = disk.f_bavail * disk.f_frsize
        if disk.f_blocks and free < missing:
            raise OutOfSpace(
                f"not enough disk space for {short(self._want.digest)}",
                why=f"{missing} bytes are missing and {free} bytes are free",
                hint=MAKE_ROOM,
            )

    def has_piece(self, piece: int, view: memoryview) -> bool:
        """Read a piece into `view`; returns whether its hash matches."""
        return self.read(piece, view) and hash_piece(self._want, piece, view) == self._want.records[piece].sha256

    def write_piece(self, piece: int, view: memoryview) -> bytes:
        """Write `view` at the offset of `piece` if its hash matches. Returns the hash of `view`."""
        found = hash_piece(self._want, piece, view)
        self.write_hashed(piece, view, found)
        return found

    def write_hashed(self, piece: int, view: memoryview, found: bytes) -> None:
        """Write `view`, whose hash is `found`, at the offset of `piece` if the hash matches."""
        if found == self._want.records[piece].sha256:
            at = self._want.offsets[piece]
            direct = self._direct and self._past_cache()
            for start, stop in self._write_direct(view, at) if direct else ((0, len(view)),):
                if start < stop:
                    with self._open(os.O_WRONLY) as fd:
                        _write(fd, view[start:stop], at + start)
            fault.point("partial.piece")

    def _write_direct(self, view: memoryview, at: int) -> Sequence[tuple[int, int]]:
        """Write the whole blocks of `view` past the page cache. Returns the (start, stop) of what is left; that is all,
        also for all later pieces, if the file system refuses such a write."""
        start = -at % ALIGNMENT
        stop = start + (len(view) - start) // ALIGNMENT * ALIGNMENT
        if stop <= start:
            return ((0, len(view)),)
        try:
            with self._open(os.O_WRONLY | _DIRECT) as fd:
                _write(fd, view[start:stop], at + start)
        except Unavailable as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EINVAL:
                self._direct = False
                return ((0, len(view)),)
            raise
        return (0, start), (stop, len(view))

    def read(self, piece: int, view: memoryview) -> bool:
        """Read a piece into `view`. Returns False if the file ends inside the piece."""
        with self._open(os.O_RDONLY) as fd:
            return os.preadv(fd, [view], self._want.offsets[piece]) == len(view)

    def seal(self) -> None:
        """Truncate the file to its size and sync it. Creates the file if missing, for an empty file."""
        with self._open(os.O_WRONLY | os.O_CREAT) as fd:
            os.ftruncate(fd, self._want.size)
            durable.fsync(fd, point="partial.fsync")

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _open(self, flags: int) -> Iterator[int]:
        try:
            fd = os.open(self._path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                yield fd
            finally:
                os.close(fd)
        except OSError as error:
            what = f"the partial file of {short(self._want.digest)} failed"
            why = f"{error.strerror}, at {self._path}"
            if error.errno in _FULL:
                raise OutOfSpace(what, why=why, hint=MAKE_ROOM) from error
            raise Unavailable(what, why=why, code="DISK") from error


def _write(fd: int, view: memoryview, at: int) -> None:
    written = 0
    while written < len(view):
        written += os.pwrite(fd, view[written:], at + written)


def _extents(fd: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the ranges that hold data; the whole file if the file system does not report holes."""
    stop, size = 0, os.fstat(fd).st_size
    while stop < size:
        try:
            start = os.lseek(fd, stop, os.SEEK_DATA)
            stop = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            start, stop = stop, size
        yield start, stop
