"""The files that withdrawals of this node have taken out of the store, and which withdrawals are still to be finished.

What is taken aside is readable for this node's own audits, until the withdrawal ends: it compares the answers of others
with these files. Nothing else reads them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from comity.content.blobs import BlobStore
from comity.trust.encoding import Digest, short
from comity.trust.errors import NotFound


class WithheldFiles:
    """Blocking; thread-safe. Raises Unavailable and OutOfSpace where the disk or the service fails."""

    def __init__(self, store: BlobStore) -> None:
        self._blobs = store.withheld()
        self._lock = threading.Lock()
        self._readable: dict[Digest, Digest] = {}
        """By file, the artifact whose withdrawal has taken it and is not over."""

    def artifacts(self) -> list[Digest]:
        return self._blobs.artifacts()

    def take(self, artifact: Digest, files: Iterable[Digest]) -> int:
        """Move files out of the store. Returns their bytes."""
        taken = 0
        for digest in files:
            with self._lock:
                self._readable[digest] = artifact
            taken += self._blobs.take(artifact, digest)
        return taken

    def end(self, artifact: Digest) -> None:
        """The withdrawal is over: its files are not read any more."""
        with self._lock:
            self._readable = {digest: other for digest, other in self._readable.items() if other != artifact}

    def give_back(self, artifact: Digest) -> None:
        """Move all files of an artifact back into the store."""
        self._blobs.give_back(artifact)

    def erase(self, artifact: Digest) -> None:
        self._blobs.erase(artifact)

    def read(self, digest: Digest, offset: int, length: int) -> Iterator[bytes]:
        """Read a file that a withdrawal has taken aside. Raises NotFound."""
        with self._lock:
            artifact = self._readable.get(digest)
        if artifact is None:
            raise NotFound("no such blob", why=short(digest))
        return self._blobs.read(artifact, digest, offset, length)
