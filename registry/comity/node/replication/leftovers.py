"""Partial files of fetches that were not finished: the beginnings of later ones, kept within a bound. Blocking."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from comity.content.blob_lock import lock_if_free
from comity.content.durable import disk_errors
from comity.content.store import BlobStore
from comity.trust.digest import Digest

MOST: Final = 32 * 1024**3
"""Bytes on the disk, all of them together."""
BLOCK: Final = 512


def trim(store: BlobStore, newest_first: Iterable[Digest], most: int = MOST) -> list[Digest]:
    """Throw away the oldest beyond `most` bytes; gives those that are left. One that somebody writes to stays.

    Raises Unavailable (DISK).
    """
    left, total = [], 0
    for digest in newest_first:
        path = store.scratch(digest)
        with disk_errors("what was fetched in part was not looked at"), lock_if_free(path.parent, digest) as free:
            size = path.stat().st_blocks * BLOCK if path.exists() else 0
            if size and free and total + size > most:
                path.unlink()
            elif size:
                total += size
                left.append(digest)
    return left
