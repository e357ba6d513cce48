"""Bytes coming in: appended to a partial file, hashed when whole, and only then taken into the store.

A file is hashed for itself and for its pieces in one pass. What does not have its hash is removed, not kept for a
second look: the sender has it.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from comity.content.blob_lock import lock_if_free
from comity.content.durable import disk_errors
from comity.content.ingest import hash_pieces
from comity.content.layout import piece_lengths
from comity.content.store import MAX_READ, BlobStore
from comity.node.core import Core
from comity.node.publishing.pending import Want
from comity.trust.digest import Digest, sha256, short
from comity.trust.errors import Conflict, Malformed, NotFound, OutOfSpace, Untrusted
from comity.trust.pieces import encode_records

SPARE: Final = 256 * 1024 * 1024
"""Bytes of the disk that uploads leave free."""
_SUFFIX: Final = ".upload"


class Arrivals:
    """Takes files in. One writer a blob at a time, across processes."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._store = core.store

    def received(self, digest: Digest) -> int:
        """How much of an object arrived already. Blocking."""
        try:
            return self._partial(digest).stat().st_size
        except FileNotFoundError:
            return 0

    async def upload(self, want: Want, offset: int, chunks: AsyncIterator[bytes]) -> int:
        """Append what comes at `offset`; gives how much of the object is here.

        Raises Conflict (OFFSET, BLOB-BUSY), OutOfSpace, and Untrusted (DIGEST) where the whole is not what it should
        be: nothing of it is kept then.
        """
        if await self._core.pools.files(self._store.has, want.digest):
            return want.size
        with self._claimed(want.digest):
            await self._core.pools.files(self._require_room, want.size - offset)
            received = await self._core.pools.files(self._begin, want.digest, offset)
            async for chunk in chunks:
                await self._core.pools.files(self._append, want.digest, received, chunk)
                received += len(chunk)
            if received == want.size:
                await self._core.pools.hashing(self._take_in, want)
            return received

    async def adopt(self, path: Path, want: Want) -> bool:
        """Take in a file of this machine; whether it was here already.

        Raises NotFound, Malformed for what is no regular file, Untrusted (DIGEST), Conflict (CHANGED, BLOB-BUSY).
        """
        if await self._core.pools.files(self._store.has, want.digest):
            return True
        with self._claimed(want.digest):
            await self._core.pools.hashing(self._adopt, path, want)
        return False

    async def put(self, digest: Digest, data: bytes) -> None:
        """Take in a small object. Raises Untrusted where `data` has another hash, and OutOfSpace."""
        await self._core.pools.files(self._require_room, len(data))
        await self._core.pools.files(self._store.put, digest, data)

    def records(self, want: Want) -> None:
        """Make sure of the piece records of a blob that is here, cut as `want.path` asks. Blocking.

        Raises Untrusted (DIGEST) where the blob is damaged; it is put aside then.
        """
        with io.BufferedReader(_Stored(self._store, want.digest, want.size), MAX_READ) as file:
            try:
                self._hash(file, want)
            except Untrusted:
                self._store.quarantine(want.digest, "its bytes no longer have its hash")
                raise

    def forget(self, before: float) -> None:
        """Remove partial uploads that were last written before a time (POSIX seconds). Blocking."""
        for partial in self._partial(sha256(b"")).parent.glob(f"*{_SUFFIX}"):
            if partial.stat().st_mtime < before:
                partial.unlink(missing_ok=True)

    @contextmanager
    def _claimed(self, digest: Digest) -> Iterator[None]:
        with lock_if_free(self._store.scratch(digest).parent, digest) as free:
            if not free:
                raise Conflict("this object is on its way already", why=short(digest), code="BLOB-BUSY")
            yield

    def _partial(self, digest: Digest) -> Path:
        path = self._store.scratch(digest)
        return path.with_name(path.name + _SUFFIX)

    def _require_room(self, missing: int) -> None:
        free = self._store.free_bytes()
        if free is not None and free < missing + SPARE:
            raise OutOfSpace("the node's disk is full", why=f"{missing} bytes to come, {free} free")

    def _begin(self, digest: Digest, offset: int) -> int:
        received = self.received(digest)
        if offset != received:
            raise Conflict("not where the upload stands", why=f"{received} bytes are here, not {offset}", code="OFFSET")
        return received

    def _append(self, digest: Digest, at: int, chunk: bytes) -> None:
        with disk_errors(f"{short(digest)} was not received"):
            descriptor = os.open(self._partial(digest), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.pwrite(descriptor, chunk, at)
            finally:
                os.close(descriptor)

    def _take_in(self, want: Want) -> None:
        partial = self._partial(want.digest)
        try:
            with partial.open("rb") as file:
                self._hash(file, want)
        except Untrusted:
            partial.unlink(missing_ok=True)
            raise
        self._store.admit(partial, want.digest, want.size)

    def _adopt(self, path: Path, want: Want) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise NotFound(f"no file {path}") from error
        except OSError as error:
            raise Malformed(f"{path} cannot be adopted", why=error.strerror or "", code="NOT-A-FILE") from error
        with os.fdopen(descriptor, "rb") as file:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise Malformed(f"{path} cannot be adopted", why="it is not a regular file", code="NOT-A-FILE")
            if before.st_size != want.size:
                raise Untrusted("not the file that was named", why=f"it has {before.st_size} bytes", code="DIGEST")
            self._hash(file, want)
        if _version(path.lstat()) != _version(before):
            raise Conflict(f"{path} changed while it was read", why="somebody writes to it", code="CHANGED")
        self._store.admit(path, want.digest, want.size, link=True)

    def _hash(self, file: io.BufferedReader[Any], want: Want) -> None:
        """Hash a file, and remember its pieces. Raises Untrusted (DIGEST)."""
        layout, lengths = piece_lengths(want.path, file, want.size)
        file.seek(0)
        try:
            found, records = hash_pieces(file, lengths, lambda count: None)
        except EOFError as error:
            raise Untrusted("fewer bytes than announced", why=short(want.digest), code="DIGEST") from error
        if found != want.digest:
            self._core.metrics.verify_failures.labels("upload").inc()
            raise Untrusted("bytes differ from their name", why=f"they hash to {found}", code="DIGEST")
        if want.path:
            self._core.ledger.pieces.remember_records(want.digest, want.size, layout, encode_records(records))


class _Stored(io.RawIOBase):
    """A blob as a file to read."""

    def __init__(self, store: BlobStore, digest: Digest, size: int) -> None:
        self._store = store
        self._digest = digest
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._store.read(self._digest, self._at, min(len(buffer), MAX_READ))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _version(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
