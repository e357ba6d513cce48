"""Blobs in a folder.

    blobs/ab/abcd…          whole files, read-only, named by their hash
    partial/abcd…           what a pull has so far; renamed into place when it is whole and verified
    partial/*.tmp           copies under way
    quarantine/abcd….N      what turned out wrong, with abcd….N.reason beside it

One file system holds all three, so that taking in a verified file is a rename. Many processes may share one folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

from comity.content import durable, fault
from comity.content.durable import disk_errors
from comity.content.store import CHUNK, MAX_READ, absent, check_range, check_source, mismatch
from comity.trust.digest import Digest, parse_digest, sha256
from comity.trust.errors import Malformed

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
