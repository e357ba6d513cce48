"""The file under way. Blocking; its methods run in worker threads, several at once.

A partial file is its own journal. Only verified pieces are ever written into it, and what is found in it later is
believed only after hashing, so there is no second file that could be torn, stale, or about other records, and no
fsync per piece: a crash can lose pieces, never smuggle them in. Holes are skipped where the file system reports them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from comity.content import durable, fault
from comity.transfer.plan import Wanted
from comity.trust.digest import short
from comity.trust.errors import OutOfSpace, Unavailable

MAKE_ROOM: Final = "make room, then run the same command again: it goes on from here"
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Partial:
    """The partial file of `want` at `path`. All methods raise OutOfSpace, or Unavailable (code DISK) with the reason.

    Each opens the file anew: a thread that outlives a cancelled transfer then holds no descriptor that is closed, or
    given to another file, under it.
    """

    def __init__(self, path: Path, want: Wanted) -> None:
        self._path = path
        self._want = want

    def claimed(self) -> list[int]:
        """Pieces of which bytes are in the file: worth hashing, no more. Creates the file where there is none."""
        offsets, claimed = self._want.offsets, list[int]()
        with self._open(os.O_RDWR | os.O_CREAT) as fd:
            for start, stop in _extents(fd):
                first = max(bisect_right(offsets, start) - 1, claimed[-1] + 1 if claimed else 0)
                claimed.extend(range(first, min(bisect_left(offsets, stop), len(offsets) - 1)))
        return claimed

    def require_room(self, missing: int) -> None:
        """Refuse before the first byte is fetched what the disk could not take."""
        with self._open(os.O_RDONLY) as fd:
            disk = os.fstatvfs(fd)
        free = disk.f_bavail * disk.f_frsize
        if disk.f_blocks and free < missing:
            raise OutOfSpace(
                f"no room for {short(self._want.digest)}",
                why=f"{missing} bytes are missing and the disk has {free} left",
                hint=MAKE_ROOM,
            )

    def holds(self, piece: int, view: memoryview) -> bool:
        """Read a piece into `view` and say whether it is right."""
        return self.read(piece, view) and hashlib.sha256(view).digest() == self._want.records[piece].sha256

    def keep(self, piece: int, view: memoryview) -> bytes:
        """Write `view` where `piece` belongs if it has the piece's hash. Returns the hash that it has."""
        found = hashlib.sha256(view).digest()
        if found == self._want.records[piece].sha256:
            with self._open(os.O_WRONLY) as fd:
                at = self._want.offsets[piece]
                written = 0
                while written < len(view):
                    written += os.pwrite(fd, view[written:], at + written)
            fault.point("partial.piece")
        return found

    def read(self, piece: int, view: memoryview) -> bool:
        """Read a piece into `view`. False where the file ends inside it."""
        with self._open(os.O_RDONLY) as fd:
            return os.preadv(fd, [view], self._want.offsets[piece]) == len(view)

    def seal(self) -> None:
        """Cut the file to its size and make it durable. An empty file is whole before anything has opened it."""
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
            what = f"cannot keep {short(self._want.digest)}"
            why = f"{error.strerror}, at {self._path}"
            if error.errno in _FULL:
                raise OutOfSpace(what, why=why, hint=MAKE_ROOM) from error
            raise Unavailable(what, why=why, code="DISK") from error


def _extents(fd: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the ranges that hold data; the whole file where the file system cannot tell."""
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
