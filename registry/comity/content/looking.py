"""A blob of a store, looked into like a file."""

from __future__ import annotations

import io

from comity.content.store import BlobStore
from comity.formats.inspecting import inspect
from comity.trust.digest import Digest
from comity.trust.evidence import Inspection


def look_into(store: BlobStore, digest: Digest, path: str, size: int) -> Inspection:
    """What a blob of `size` bytes is, which its artifact calls `path`. Raises NotFound, Unavailable."""
    return inspect(io.BufferedReader(_Blob(store, digest, size)), path, size)


class _Blob(io.RawIOBase):
    def __init__(self, store: BlobStore, digest: Digest, size: int) -> None:
        self._store, self._digest, self._size = store, digest, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        length = max(0, min(len(buffer), self._size - self._position))
        if not length:  # an empty file is no blob
            return 0
        data = b"".join(self._store.iterate(self._digest, self._position, length))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
