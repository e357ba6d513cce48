"""The blob store interface, the folder store, blob locks, and how a file is cut into pieces.

A blob is a whole, immutable file named by its SHA-256. Two stores implement `BlobStore`: `FolderStore` here and
`S3Store` in `s3.py`. Stores are blocking and thread-safe; a node calls them from its thread pools. Every write checks
the hash, except `admit`: hashing 100 GB again is expensive, so `admit` trusts a caller that has just verified them.

    blobs/ab/abcd…          whole files, read-only, named by their hash
    partial/abcd…           the partial file of a pull; renamed when it is complete and verified
    partial/*.tmp           copies in progress
    quarantine/abcd….N      damaged blobs, each with abcd….N.reason beside it
    withheld/…              blobs that the operator took out of service (`withheld`)

One file system holds all these folders, so that admitting a verified file is a rename. Several processes may share one
folder. A blob lock is an flock on a file named by the digest; the kernel releases it when its process ends, so there
are no stale locks. A file is cut at its tensors where its header can be read, else every 4 MiB.
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

from filelock import Timeout

from comity.content import durable, fault
from comity.content.durable import disk_errors
from comity.content.withheld import WithheldBlobs, WithheldFolder
from comity.formats import TensorLayout
from comity.formats.source import RangeFile
from comity.formats.tensors import read_gguf_layout, read_safetensors_layout
from comity.rules.pieces import FIXED_LAYOUT, TENSOR_LAYOUT, fixed_pieces, tensor_pieces
from comity.trust.encoding import Digest, parse_digest, sha256, short
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Untrusted
from comity.trust.evidence import Inspection

MAX_READ: Final = 8 * 1024 * 1024
CHUNK: Final = 1024 * 1024


class BlobStore(Protocol):
    """All methods: Malformed if the name is not a digest, OutOfSpace if disk or quota is exhausted, Unavailable if the
    disk or the service does not answer. A failed call leaves the store unchanged."""

    def has(self, digest: Digest) -> bool:
        """Whether the store has the complete blob, whose hash was correct when it was stored."""

    def size(self, digest: Digest) -> int:
        """The length of the blob in bytes. Raises NotFound."""

    def read(self, digest: Digest, offset: int, length: int) -> bytes:
        """Read at most `length` <= MAX_READ bytes from `offset`; fewer only at the end of the blob. Raises NotFound.

        The bytes are not verified: a caller that needs correct bytes checks them against a piece record.
        """

    def iterate(self, digest: Digest, offset: int, length: int, chunk: int = CHUNK) -> Iterator[bytes]:
        """As `read`, for any `length`, in parts of at most `chunk` bytes. Raises NotFound immediately."""

    def put(self, digest: Digest, data: bytes) -> None:
        """Store a small object. Durable when it returns. Raises Untrusted unless `data` hashes to `digest`."""

    def put_all(self, objects: Mapping[Digest, bytes]) -> None:
        """Store small objects, all durable when it returns; much faster than one by one. Raises Untrusted before any is
        stored unless each hashes to its digest. After another error some of them may be stored."""

    def admit(self, path: Path, digest: Digest, size: int, *, link: bool = False) -> None:
        """Store a complete local file of `size` bytes whose hash the caller *has verified*. Durable when it returns.

        The file is consumed (renamed if possible, else copied and removed). With `link` the source stays: it is
        hard-linked if the store can, else copied. A linked file becomes read-only; if its owner writes to it anyway,
        `verify` detects that. Raises Untrusted if the file no longer has `size` bytes, or if the bytes are copied and
        no longer hash to `digest`.
        """

    def partial_path(self, digest: Digest) -> Path:
        """The path for a partial copy of this blob, on a disk from which `admit` is cheap. The path is always the
        same, so that a pull can be resumed; its folder exists. Only the holder of the blob's lock writes there."""

    def quarantine(self, digest: Digest, reason: str) -> None:
        """Move a damaged blob to quarantine, with the reason, for manual inspection; `has` is false from then on. Does
        nothing if the blob is missing, because another process may have moved it."""

    def remove(self, digest: Digest) -> None:
        """Delete a blob. Only the store's owner decides this, never a remote caller. Does nothing if it is missing."""

    def quarantined(self) -> int:
        """The number of blobs in quarantine."""

    def withheld(self) -> WithheldBlobs:
        """The blobs that the operator took out of this store."""

    def sizes(self, after: str = "") -> Iterator[tuple[Digest, int]]:
        """The blobs whose digests follow `after`, in their order, and their lengths in bytes; from a listing, without
        one request per blob. A blob that is added or removed meanwhile may be missed."""

    def verify(self, digest: Digest) -> bool:
        """Read every byte again; returns whether they still hash to `digest`. Raises NotFound."""

    def sweep(self) -> None:
        """Remove temporary files of crashed writers. Does not affect active writers."""

    def free_bytes(self) -> int | None:
        """Free space in bytes; None if unknown."""

    def probe(self) -> tuple[ComityError, ...]:
        """What a store in another machine's hands does not keep of what it says, and the node can do without. Raises
        Untrusted if it does not keep bytes, and what the other methods raise if it cannot be used."""


def blobs_folder(root: Path) -> Path:
    """Where a `FolderStore` in `root` has its whole files."""
    return root / "blobs"


def blob_not_found(digest: Digest) -> NotFound:
    return NotFound("the blob was not found", why=short(digest))


def hash_mismatch(digest: Digest, found: str) -> Untrusted:
    return Untrusted("hash does not match", why=f"expected {short(digest)}, the bytes hash to {found}", code="HASH")


def check_objects(objects: Mapping[Digest, bytes]) -> None:
    """Raises Untrusted unless each object hashes to its digest."""
    for digest, data in objects.items():
        if (found := sha256(data)) != parse_digest(digest):
            raise hash_mismatch(digest, found)


def check_source(path: Path, size: int) -> None:
    """Raises Untrusted unless `path` is a regular file of `size` bytes, and OSError."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size != size:
        raise Untrusted("this is not the verified file", why=f"expected a regular file of {size} bytes", code="SIZE")


def check_range(offset: int, length: int, limit: int | None = None) -> None:
    """Raises Malformed for a negative range or one beyond `limit`."""
    if offset < 0 or length < 0:
        raise Malformed("invalid range", why="offset and length must be at least 0", code="RANGE")
    if limit is not None and length > limit:
        raise Malformed("range too long", why=f"{length} bytes, at most {limit} per read", code="RANGE")


_READ_ONLY: Final = 0o444
_WRITABLE: Final = 0o644
_FAULT_POINT: Final = "blob"
_COPY_ERRORS: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP})


class FolderStore:
    """A `BlobStore` in the folder `root`, which is created if missing. Raises OutOfSpace, Unavailable."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs, self._partial, self._quarantine = blobs_folder(root), root / "partial", root / "quarantine"
        with disk_errors(f"the blob store {root.name} was not opened"):
            for folder in (self._blobs, self._partial, self._quarantine):
                durable.make_folders(folder)
            self._shards = {*_folders(self._blobs)}
            """Folders of blobs that survive a power failure."""
            durable.sync(self._blobs, point="store.fsync")

    def path(self, digest: Digest) -> Path:
        """The path of the blob, present or not, for callers that link to it or map it. Never write there."""
        name = parse_digest(digest)
        return self._blobs / name[:2] / name

    def has(self, digest: Digest) -> bool:
        return self._stat(self.path(digest)) is not None

    def size(self, digest: Digest) -> int:
        if (found := self._stat(self.path(digest))) is None:
            raise blob_not_found(digest)
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
            raise hash_mismatch(digest, found)
        with disk_errors(f"blob {blob.name} was not written"):
            if self._is_durable(blob):
                return
            self._make_shard(blob)
            with (
                self._block_sweep(),
                durable.staged(blob, mode=_READ_ONLY, folder=self._partial, point=_FAULT_POINT) as file,
            ):
                file.write(data)

    def put_all(self, objects: Mapping[Digest, bytes]) -> None:
        check_objects(objects)
        blobs = {self.path(digest): data for digest, data in objects.items()}
        with disk_errors(f"{len(blobs)} blobs were not written"):
            new = {blob: data for blob, data in blobs.items() if not self._is_durable(blob)}
            if not new:
                return
            for blob in new:
                self._make_shard(blob)
            with self._block_sweep():
                durable.write_together(new, mode=_READ_ONLY, folder=self._partial, point=_FAULT_POINT)

    def admit(self, path: Path, digest: Digest, size: int, *, link: bool = False) -> None:
        blob = self.path(digest)
        with disk_errors(f"blob {blob.name} was not admitted"):
            check_source(path, size)
            if not self._is_durable(blob):
                self._make_shard(blob)
                try:
                    (self._hard_link if link else self._rename)(path, blob)
                except OSError as error:
                    if error.errno not in _COPY_ERRORS:
                        raise
                    self._copy(path, blob)
            if not link:
                path.unlink(missing_ok=True)

    def partial_path(self, digest: Digest) -> Path:
        path = self._partial / parse_digest(digest)
        with disk_errors(f"no partial file was prepared for blob {digest}"), contextlib.suppress(FileNotFoundError):
            path.chmod(_WRITABLE)  # a crash inside admit may have left it read-only
        return path

    def quarantine(self, digest: Digest, reason: str) -> None:
        blob = self.path(digest)
        with disk_errors(f"blob {blob.name} was not moved to quarantine"):
            target = next(path for n in count(1) if not (path := self._quarantine / f"{blob.name}.{n}").exists())
            try:
                durable.move(blob, target, point="quarantine")
            except FileNotFoundError:
                return
            durable.write_file(target.with_name(f"{target.name}.reason"), reason.encode() + b"\n", point="quarantine")

    def quarantined(self) -> int:
        with disk_errors("the quarantine was not listed"):
            names = (entry.name for entry in os.scandir(self._quarantine))
            return sum(not name.endswith((".reason", durable.TEMPORARY)) for name in names)

    def remove(self, digest: Digest) -> None:
        blob = self.path(digest)
        with disk_errors(f"blob {blob.name} was not removed"):
            blob.unlink(missing_ok=True)
            if blob.parent.is_dir():
                durable.sync(blob.parent, point="remove.folder")

    def withheld(self) -> WithheldFolder:
        return WithheldFolder(self.root / "withheld", self._place)

    def sizes(self, after: str = "") -> Iterator[tuple[Digest, int]]:
        with disk_errors("the blobs were not listed"):
            shards = sorted(self._shards | {*_folders(self._blobs)})
        for shard in shards:
            if shard < after[:2]:
                continue
            with disk_errors("the blobs were not listed"), os.scandir(self._blobs / shard) as entries:
                found = sorted(filter(None, map(_blob_size, entries)))
            yield from (each for each in found if each[0] > after)

    def verify(self, digest: Digest) -> bool:
        hasher = hashlib.sha256()
        for chunk in self._chunks(digest, 0, self.size(digest), CHUNK):
            hasher.update(chunk)
        return hasher.hexdigest() == self.path(digest).name

    def sweep(self) -> None:
        with disk_errors("the blob store was not swept"), self._writers_lock(fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
            if alone:
                for temporary in self._partial.glob(f"*{durable.TEMPORARY}"):
                    temporary.unlink(missing_ok=True)

    def free_bytes(self) -> int | None:
        with disk_errors("free space is unknown"):
            return shutil.disk_usage(self._blobs).free  # which is missing while its disk is not mounted

    def probe(self) -> tuple[ComityError, ...]:
        return ()

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
                raise blob_not_found(digest) from error
            try:
                yield descriptor
            finally:
                os.close(descriptor)

    def _chunks(self, digest: Digest, offset: int, end: int, chunk: int) -> Iterator[bytes]:
        with self._open(digest) as descriptor:
            while offset < end and (data := os.pread(descriptor, min(chunk, end - offset), offset)):
                offset += len(data)
                yield data

    def _place(self, digest: Digest) -> Path:
        """Return the path of a blob, after its folder was created."""
        blob = self.path(digest)
        self._make_shard(blob)
        return blob

    def _make_shard(self, blob: Path) -> None:
        """Create the folder of a blob. It survives a power failure, also if another process has just created it."""
        if blob.parent.name not in self._shards:
            blob.parent.mkdir(exist_ok=True)
            durable.sync(self._blobs, point="store.fsync")
            self._shards.add(blob.parent.name)

    def _is_durable(self, blob: Path) -> bool:
        """Whether the blob exists and will survive a power failure. The file was synced before it was renamed, but the
        process that renamed it may end before it syncs the folder; so the folder is synced here."""
        if self._stat(blob) is None:
            return False
        durable.sync(blob.parent, point=f"{_FAULT_POINT}.again")
        return True

    def _rename(self, path: Path, blob: Path) -> None:
        path.chmod(_READ_ONLY)
        durable.sync(path, point=f"{_FAULT_POINT}.fsync")
        durable.move(path, blob, point=_FAULT_POINT)

    def _hard_link(self, path: Path, blob: Path) -> None:
        """Give the file a second name in the store. The file becomes read-only only if the hard link succeeds."""
        name = self._partial / f"{blob.name}.{secrets.token_hex(8)}{durable.TEMPORARY}"
        with self._block_sweep():
            try:
                fault.point(f"{_FAULT_POINT}.link")
                name.hardlink_to(path)
                self._rename(name, blob)
            finally:
                name.unlink(missing_ok=True)

    def _copy(self, path: Path, blob: Path) -> None:
        hasher = hashlib.sha256()
        into = durable.staged(blob, mode=_READ_ONLY, folder=self._partial, point=_FAULT_POINT)
        with path.open("rb") as source, self._block_sweep(), into as file:
            while chunk := source.read(CHUNK):
                hasher.update(chunk)
                file.write(chunk)
            if (found := hasher.hexdigest()) != blob.name:
                raise hash_mismatch(Digest(blob.name), found)

    @contextlib.contextmanager
    def _block_sweep(self) -> Iterator[None]:
        with self._writers_lock(fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def _writers_lock(self, how: int) -> Iterator[bool]:
        """Hold the lock that protects copies in progress from `sweep`; yields whether it was acquired."""
        with durable.flock(self._partial / ".writers", how, "the blob store was not locked") as acquired:
            yield acquired


def _folders(folder: Path) -> Iterator[str]:
    """The names of the folders in `folder`. Raises OSError."""
    with os.scandir(folder) as entries:
        yield from (entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def _blob_size(entry: os.DirEntry[str]) -> tuple[Digest, int] | None:
    """A blob and its length; None for a file that is not a blob, or was just removed."""
    try:
        return parse_digest(entry.name), entry.stat().st_size
    except (Malformed, FileNotFoundError):
        return None


_Reader: TypeAlias = Callable[[BinaryIO, int], TensorLayout]

_READERS: Final[Mapping[str, _Reader]] = {".safetensors": read_safetensors_layout, ".gguf": read_gguf_layout}


def piece_lengths(path: str, file: BinaryIO, size: int) -> tuple[str, list[int]]:
    """The layout's name, and the lengths of the pieces that tile a file of `size` bytes exactly.

    The suffix of `path` tells which header to expect. If that does not parse, the file is cut into fixed pieces. Raises
    Malformed for a file of more than MAX_PIECES pieces, and OSError if `file` does.
    """
    fixed = fixed_pieces(size)
    if read_layout := _READERS.get(PurePosixPath(path).suffix.lower()):
        try:
            found = read_layout(file, size)
            return TENSOR_LAYOUT, tensor_pieces(size, found.header_end, found.starts)
        except Malformed:
            pass
    return FIXED_LAYOUT, fixed


def inspect_blob(store: BlobStore, digest: Digest, path: str, size: int) -> Inspection:
    """Inspect a blob of `size` bytes that its artifact names `path`. Raises NotFound, Unavailable."""
    with blob_reader(store, digest, size, io.DEFAULT_BUFFER_SIZE) as file:
        from comity.formats.inspect import inspect  # most programs inspect no file

        return inspect(file, path, size)


def blob_reader(store: BlobStore, digest: Digest, size: int, buffer: int) -> io.BufferedReader[RangeFile]:
    """A blob of `size` bytes as a file that reads `buffer` bytes at a time. Reading raises NotFound, Unavailable."""
    read = RangeFile(lambda offset, length: store.read(digest, offset, min(length, MAX_READ)), size)
    return io.BufferedReader(read, buffer)


class BlobLock:
    """An exclusive lock on the partial copy of one blob in `folder`, which must exist. It works across threads and
    processes. Not re-entrant; one object has one holder. It may be acquired in one thread and released in another. It
    is released with its last reference."""

    def __init__(self, folder: Path, digest: Digest) -> None:
        self._path = folder / f"{parse_digest(digest)}.lock"
        self._lock = durable.file_lock(self._path)

    def acquire(self) -> None:
        """Wait for the lock. Blocking: on an event loop poll `try_acquire` instead."""
        self._take(blocking=True)

    def try_acquire(self) -> bool:
        """Acquire the lock if it is free; returns whether it was acquired."""
        return self._take(blocking=False)

    def release(self) -> None:
        if self._lock.is_locked:
            self._path.unlink(missing_ok=True)  # before the release, else another holder's file could be removed
            self._lock.release()

    def __enter__(self) -> BlobLock:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def _take(self, *, blocking: bool) -> bool:
        """Whether the lock was acquired. A file that its last holder has removed meanwhile does not count as locked."""
        if self._lock.is_locked:
            raise Conflict("this lock is already held", why="a BlobLock has one holder", code="BLOB-LOCKED")
        with disk_errors("the blob was not locked"):
            try:
                self._lock.acquire(blocking=blocking)
            except Timeout:
                return False
        return True


@contextmanager
def lock_if_free(folder: Path, digest: Digest) -> Iterator[bool]:
    """Hold the lock inside the block if it is free; yields whether it was acquired."""
    lock = BlobLock(folder, digest)
    try:
        yield lock.try_acquire()
    finally:
        lock.release()
