"""One writer a blob, across threads and processes, so that two pulls into one cache do not fight.

A flock on a file named by the digest. The kernel drops it when its holder dies, so there is no stale lock to break.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from comity.content.durable import disk_errors
from comity.trust.digest import Digest, parse_digest
from comity.trust.errors import Conflict


class BlobLock:
    """The exclusive right to write the partial copy of one blob below `folder`, which must exist. Not re-entrant; one
    object has one holder. It may be taken in one thread and released in another."""

    def __init__(self, folder: Path, digest: Digest) -> None:
        self._path = folder / f"{parse_digest(digest)}.lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Wait until the lock is ours. Blocks the thread: on an event loop poll `try_acquire` instead."""
        while not self._take(fcntl.LOCK_EX):
            pass

    def try_acquire(self) -> bool:
        """Take the lock if nobody holds it; whether it is ours now."""
        return self._take(fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._path.unlink(missing_ok=True)  # while it is still ours, or we could remove somebody else's
            os.close(descriptor)

    def __enter__(self) -> BlobLock:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def _take(self, how: int) -> bool:
        """Whether the lock is ours. It is not when somebody else has it, nor when its last holder removed the file
        while we waited: what we locked then has no name any more, and the next one to come would not see it."""
        if self._descriptor is not None:
            raise Conflict("this lock is already taken", why="a BlobLock has one holder", code="BLOB-LOCKED")
        with disk_errors("the blob was not locked"):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, how)
                if os.fstat(descriptor).st_nlink:
                    self._descriptor = descriptor
            except BlockingIOError:
                pass
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        return self._descriptor is not None


@contextmanager
def lock_if_free(folder: Path, digest: Digest) -> Iterator[bool]:
    """Hold the lock inside the block if nobody has it; whether it is ours."""
    lock = BlobLock(folder, digest)
    try:
        yield lock.try_acquire()
    finally:
        lock.release()
