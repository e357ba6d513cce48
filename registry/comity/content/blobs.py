"""What a blob store promises. Two stores keep it: a folder (`folder.py`) and an S3 bucket (`s3.py`).

A blob is a whole file named by its SHA-256. It never changes; it is there or it is not. Stores are synchronous and
safe to use from many threads; a node calls them from its thread pools.

The one unchecked door is `admit`: hashing 100 GB a second time is expensive, so it takes the caller's word, and the
caller is the code that has just verified every byte. Every other way in checks the hash.


Blobs in a folder.

    blobs/ab/abcd…          whole files, read-only, named by their hash
    partial/abcd…           what a pull has so far; renamed into place when it is whole and verified
    partial/*.tmp           copies under way
    quarantine/abcd….N      what turned out wrong, with abcd….N.reason beside it

One file system holds all three, so that taking in a verified file is a rename. Many processes may share one folder.


How a file is cut into pieces: at its tensors where we can read its header, else every 4 MiB.

A blob of a store, looked into like a file.

One writer a blob, across threads and processes, so that two pulls into one cache do not fight.

A flock on a file named by the digest. The kernel drops it when its holder dies, so there is no stale lock to break.


Bytes on this machine: blob stores, piece layouts and ingest.

Nothing here talks to a peer or knows who said what; a blob is named by its hash and that is all that is known of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO, Final, Protocol, TypeAlias

from comity.content import durable, fault
from comity.content.durable import disk_errors
from comity.formats import TensorLayout
from comity.formats.inspect import inspect
from comity.formats.tensors import read_gguf_layout, read_safetensors_layout
from comity.trust.artifact import FIXED, MAX_PIECES, PIECE, TENSOR, fixed_pieces, tensor_pieces
from comity.trust.encoding import Digest, parse_digest, sha256, short
from comity.trust.errors import Conflict, Malformed, NotFound, Untrusted
from comity.trust.evidence import Inspection

MAX_READ: Final = 8 * 1024 * 1024
CHUNK: Final = 1024 * 1024


class BlobStore(Protocol):
    """Every method raises Malformed for a name that is not a digest, OutOfSpace when disk or quota is exhausted and
    Unavailable when the disk or the service does not answer; what fails leaves the store as it was."""

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here, whole, and was right when it came in."""

    def size(self, digest: Digest) -> int:
        """Its length in bytes. Raises NotFound."""

    def read(self, digest: Digest, offset: int, length: int) -> bytes:
        """At most `length` <= MAX_READ bytes from `offset`; fewer only where the blob ends. Raises NotFound.

        The bytes are what the disk gives back: whoever needs them to be right checks them against a piece record.
        """

    def iterate(self, digest: Digest, offset: int, length: int, chunk: int = CHUNK) -> Iterator[bytes]:
        """The same range without a bound on `length`, in parts of at most `chunk` bytes. Raises NotFound, at once."""

    def put(self, digest: Digest, data: bytes) -> None:
        """Keep a small object. Durable when it returns. Raises Untrusted unless `data` hashes to `digest`."""

    def admit(self, path: Path, digest: Digest, size: int, *, link: bool = False) -> None:
        """Take in a complete local file of `size` bytes whose hash the caller *has verified*. Durable when it returns.

        The file is consumed (renamed where that is possible, else copied and removed). With `link` the source stays
        and is shared where the store can do that, else copied: a shared file turns read-only, and should its owner
        write to it all the same, `verify` tells. Raises Untrusted when the file no longer has `size` bytes, or
        where the bytes are copied and no longer hash to `digest`.
        """

    def scratch(self, digest: Digest) -> Path:
        """Where a partial copy of this blob may be written, on a disk from which `admit` is cheap. The same path each
        time, so that a pull can be resumed; its folder exists. Only the holder of the blob's lock writes there."""

    def quarantine(self, digest: Digest, reason: str) -> None:
        """Put a blob that turned out wrong aside, with the reason, for a person to look at; `has` is false from then
        on. Nothing happens when it is not here: somebody else was faster."""

    def remove(self, digest: Digest) -> None:
        """Delete a blob: a local decision of the store's owner, never a stranger's. Nothing happens when it is not
        here."""

    def quarantined(self) -> int:
        """How many were put aside."""

    def sizes(self) -> Iterator[tuple[Digest, int]]:
        """All blobs and their lengths in bytes, from a listing: nothing is asked for each. In no promised order; one
        that comes or goes meanwhile may be missed."""

    def verify(self, digest: Digest) -> bool:
        """Read every byte again: whether they still hash to `digest`. Raises NotFound."""

    def sweep(self) -> None:
        """Remove what crashed writers left behind. Does no harm to writers that are at work."""

    def free_bytes(self) -> int | None:
        """Room for more, in bytes; None where nobody can tell."""


def absent(digest: Digest) -> NotFound:
    return NotFound("blob is not here", why=short(digest))


def mismatch(digest: Digest, found: str) -> Untrusted:
    return Untrusted("bytes differ from their name", why=f"expected {short(digest)}, they hash to {found}", code="HASH")


def check_source(path: Path, size: int) -> None:
    """Raises Untrusted unless `path` is a regular file of `size` bytes, and OSError."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size != size:
        raise Untrusted("not the file that was verified", why=f"expected a file of {size} bytes", code="SIZE")


def check_range(offset: int, length: int, limit: int | None = None) -> None:
    """Raises Malformed for a negative range or one beyond `limit`."""
    if offset < 0 or length < 0:
        raise Malformed("not a range", why="offset and length are at least 0", code="RANGE")
    if limit is not None and length > limit:
        raise Malformed("range too long", why=f"{length} bytes, at most {limit} are read at once", code="RANGE")


_READ_ONLY: Final = 0o444
_WRITABLE: Final = 0o644
_POINT: Final = "blob"
_ONLY_A_COPY: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP})


class FolderStore:
    """A `BlobStore` below `root`, which is created where it is missing. Raises OutOfSpace, Unavailable."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs, self._partial, self._quarantine = root / "blobs", root / "partial", root / "quarantine"
        with disk_errors(f"the blob store {root.name} was not opened"):
            for folder in (self._blobs, self._partial, self._quarantine):
                durable.make_folders(folder)
            for first in range(256):  # all at once, so that no put has to create and sync one
                (self._blobs / f"{first:02x}").mkdir(exist_ok=True)
            durable.sync(self._blobs, point="store.fsync")

    def path(self, digest: Digest) -> Path:
        """Where the blob lies or would lie, for whoever links to it or maps it. Never write there."""
        name = parse_digest(digest)
        return self._blobs / name[:2] / name

    def has(self, digest: Digest) -> bool:
        return self._stat(self.path(digest)) is not None

    def size(self, digest: Digest) -> int:
        if (found := self._stat(self.path(digest))) is None:
            raise absent(digest)
        return found.st_size

    def read(self, digest: Digest, offset: int, length: int) -> bytes:
        check_range(offset, length, MAX_READ)
        with self._open(digest) as descriptor:
            return os.pread(descriptor, length, offset)

    def iterate(self, digest: Digest, offset: int, length: int, chunk: int = CHUNK) -> Iterator[bytes]:
        check_range(offset, length)
        end = min(offset + length, self.size(digest))
        return self._chunks(digest, offset, end, chunk)

    def put(self, digest: Digest, data: bytes) -> None:
        blob = self.path(digest)
        if (found := sha256(data)) != blob.name:
            raise mismatch(digest, found)
        with disk_errors(f"blob {blob.name} was not written"):
            if self._is_durable(blob):
                return
            with self._writing(), durable.staged(blob, mode=_READ_ONLY, folder=self._partial, point=_POINT) as file:
                file.write(data)

    def admit(self, path: Path, digest: Digest, size: int, *, link: bool = False) -> None:
        blob = self.path(digest)
        with disk_errors(f"blob {blob.name} was not taken in"):
            check_source(path, size)
            if not self._is_durable(blob):
                try:
                    (self._share if link else self._rename)(path, blob)
                except OSError as error:
                    if error.errno not in _ONLY_A_COPY:
                        raise
                    self._copy(path, blob)
            if not link:
                path.unlink(missing_ok=True)

    def scratch(self, digest: Digest) -> Path:
        path = self._partial / parse_digest(digest)
        with disk_errors(f"no room was made for blob {digest}"), contextlib.suppress(FileNotFoundError):
            path.chmod(_WRITABLE)  # a crash inside admit may have left it read-only
        return path

    def quarantine(self, digest: Digest, reason: str) -> None:
        blob = self.path(digest)
        with disk_errors(f"blob {blob.name} was not put aside"):
            aside = next(path for n in count(1) if not (path := self._quarantine / f"{blob.name}.{n}").exists())
            try:
                durable.move(blob, aside, point="quarantine")
            except FileNotFoundError:
                return
            durable.write_file(aside.with_name(f"{aside.name}.reason"), reason.encode() + b"\n", point="quarantine")

    def quarantined(self) -> int:
        with disk_errors("what was put aside was not listed"):
            names = (entry.name for entry in os.scandir(self._quarantine))
            return sum(not name.endswith((".reason", durable.TEMPORARY)) for name in names)

    def remove(self, digest: Digest) -> None:
        blob = self.path(digest)
        with disk_errors(f"blob {blob.name} was not removed"):
            blob.unlink(missing_ok=True)
            durable.sync(blob.parent, point="remove.folder")

    def sizes(self) -> Iterator[tuple[Digest, int]]:
        for first in range(256):
            with disk_errors("the blobs were not listed"), os.scandir(self._blobs / f"{first:02x}") as entries:
                found = sorted(filter(None, map(_measured, entries)))
            yield from found

    def verify(self, digest: Digest) -> bool:
        hasher = hashlib.sha256()
        for chunk in self._chunks(digest, 0, self.size(digest), CHUNK):
            hasher.update(chunk)
        return hasher.hexdigest() == self.path(digest).name

    def sweep(self) -> None:
        with disk_errors("the blob store was not swept"), self._gate(fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
            if alone:
                for leftover in self._partial.glob(f"*{durable.TEMPORARY}"):
                    leftover.unlink(missing_ok=True)

    def free_bytes(self) -> int | None:
        with disk_errors("free space is not known"):
            return shutil.disk_usage(self.root).free

    def _stat(self, blob: Path) -> os.stat_result | None:
        with disk_errors("the blob store did not answer"):
            try:
                found = blob.lstat()
            except FileNotFoundError:
                return None
        return found if stat.S_ISREG(found.st_mode) else None

    @contextlib.contextmanager
    def _open(self, digest: Digest) -> Iterator[int]:
        path = self.path(digest)
        with disk_errors(f"blob {path.name} was not read"):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError as error:
                raise absent(digest) from error
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    def _chunks(self, digest: Digest, offset: int, end: int, chunk: int) -> Iterator[bytes]:
        with self._open(digest) as descriptor:
            while offset < end and (data := os.pread(descriptor, min(chunk, end - offset), offset)):
                offset += len(data)
                yield data

    def _is_durable(self, blob: Path) -> bool:
        """Whether the blob is here, and will be after a power cut. The file was synced before it got its name, but
        whoever gave it the name may have died, or may be about to, before the folder was synced."""
        if self._stat(blob) is None:
            return False
        durable.sync(blob.parent, point=f"{_POINT}.again")
        return True

    def _rename(self, path: Path, blob: Path) -> None:
        path.chmod(_READ_ONLY)
        durable.sync(path, point=f"{_POINT}.fsync")
        durable.move(path, blob, point=_POINT)

    def _share(self, path: Path, blob: Path) -> None:
        """Give the file a second name in the store. Only once that is known to be possible does it turn read-only."""
        name = self._partial / f"{blob.name}.{secrets.token_hex(8)}{durable.TEMPORARY}"
        with self._writing():
            try:
                fault.point(f"{_POINT}.link")
                name.hardlink_to(path)
                self._rename(name, blob)
            finally:
                name.unlink(missing_ok=True)

    def _copy(self, path: Path, blob: Path) -> None:
        hasher = hashlib.sha256()
        into = durable.staged(blob, mode=_READ_ONLY, folder=self._partial, point=_POINT)
        with path.open("rb") as source, self._writing(), into as file:
            while chunk := source.read(CHUNK):
                hasher.update(chunk)
                file.write(chunk)
            if (found := hasher.hexdigest()) != blob.name:
                raise mismatch(Digest(blob.name), found)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with self._gate(fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def _gate(self, how: int) -> Iterator[bool]:
        """The lock that keeps `sweep` away from copies under way; whether it could be had."""
        descriptor = os.open(self._partial / ".writers", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, how)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(descriptor)


def _measured(entry: os.DirEntry[str]) -> tuple[Digest, int] | None:
    """A blob and its length; None for a file that is somebody else's business, and for one that has just gone."""
    try:
        return parse_digest(entry.name), entry.stat().st_size
    except (Malformed, FileNotFoundError):
        return None


_Reader: TypeAlias = Callable[[BinaryIO, int], TensorLayout]

_READERS: Final[Mapping[str, _Reader]] = {".safetensors": read_safetensors_layout, ".gguf": read_gguf_layout}


def piece_lengths(path: str, file: BinaryIO, size: int) -> tuple[str, list[int]]:
    """The layout's name and the lengths of the pieces of a file of `size` bytes, which they tile exactly.

    The name in `path` says which header to expect; one that does not parse is nobody's fault here, the file is then
    cut as any other. Raises Malformed for a file of more than MAX_PIECES pieces, and OSError where `file` does.
    """
    if size > MAX_PIECES * PIECE:
        raise Malformed("file too large", why=f"{size} bytes, at most {MAX_PIECES * PIECE}", code="FILE-TOO-LARGE")
    if read_layout := _READERS.get(PurePosixPath(path).suffix.lower()):
        try:
            found = read_layout(file, size)
            return TENSOR, tensor_pieces(size, found.header_end, found.starts)
        except Malformed:
            pass
    return FIXED, fixed_pieces(size)


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
