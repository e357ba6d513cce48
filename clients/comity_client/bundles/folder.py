"""Reads a bundle from folders, as hostile bytes: strict names, no links or devices, exact sizes, bounded lists.

A disk whose files do not have their sizes is damaged. A lost or damaged data disk is restored while it is read, from
the same range of as many other disks as there is data on; nothing is written. Nothing that is read is believed: who
reads compares it with a digest, a root or a signature.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Final

from comity.content.durable import disk_errors
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Malformed, NotFound, Untrusted
from comity.trust.frozen import frozen

from comity_client.bundles.contents import (
    CONTENTS,
    DISK,
    INDEX,
    MAX_CONTENTS,
    MAX_INDEX,
    MAX_LINE,
    BundleIndex,
    CarriedFile,
    DiskLayout,
    disk_folder,
    parity_files,
    parse_contents,
    parse_disk,
)

BLOCK: Final = 1024 * 1024
"""Bytes that are read, or restored, at a time."""
MAX_FOLDERS: Final = 255

Place = tuple[int, int, int]
"""A file by number, an offset in it, and a size."""


@frozen
class OpenedDisk:
    """A disk of a bundle, by its number from 0."""

    number: int
    root: Path

    def size(self, path: str) -> int:
        """The size of a regular file. Raises NotFound, and Untrusted (BUNDLE) for anything that is not a file."""
        with _opened(self.root, path) as descriptor:
            return os.fstat(descriptor).st_size

    def read(self, path: str, offset: int, length: int) -> bytes:
        """Bytes of a file. Raises NotFound, and Untrusted (BUNDLE) if it has fewer."""
        with _opened(self.root, path) as descriptor:
            parts, end = [], offset + length
            while offset < end and (data := os.pread(descriptor, min(BLOCK, end - offset), offset)):
                parts.append(data)
                offset += len(data)
        if offset < end:
            raise _damaged(f"{path} ends early")
        return b"".join(parts)


class BundleFolder:
    """An opened bundle. Blocking; may be used from several threads.

    Attributes:
        index: what the bundle says it is.
        layout: its files.
        disks: the usable disks by number.
        damaged: why a disk that was named is not used, by its folder.
    """

    def __init__(self, index: BundleIndex, layout: DiskLayout, disks: dict[int, OpenedDisk], damaged: dict[str, str]):
        self.index = index
        self.layout = layout
        self.disks = disks
        self.damaged = damaged
        self._numbers = {file.path: number for number, file in enumerate(layout.files)}
        self._objects: dict[bytes, Place] = {}
        self._records: dict[tuple[bytes, str], Place] = {}
        for number, file in enumerate(layout.files):
            self._add_members(number, file)

    @classmethod
    def open(cls, folders: Sequence[Path]) -> BundleFolder:
        """Open a bundle from its folder, from the folder with its disks, or from the folders of several disks.

        Raises NotFound (NO-BUNDLE, LOST-DISKS), Malformed, and Untrusted (BUNDLE) for damage that no parity repairs.
        """
        roots = [root for folder in folders for root in disk_roots(folder)]
        index, layout = read_listing(roots)
        disks, damaged = dict[int, OpenedDisk](), dict[str, str]()
        for root in roots:
            try:
                disk = OpenedDisk(parse_disk(_read_small(root, DISK, 16), index.code), root)
                _check_sizes(disk, layout)
                disks.setdefault(disk.number, disk)
            except ComityError as error:
                damaged[str(root)] = str(error)
        if damaged and len(disks) < index.code.data:
            where, why = next(iter(damaged.items()))
            hint = "copy it again from where it was made"
            raise Untrusted("this bundle is damaged", why=f"{where}: {why}", hint=hint, code="BUNDLE")
        return cls(index, layout, disks, damaged)

    @property
    def whole(self) -> bool:
        """Whether everything can be read."""
        code, here = self.index.code, len(self.disks)
        return here >= code.data and (code.total > code.data or here == code.total)

    def has(self, path: str) -> bool:
        return path in self._numbers and self._readable((self._numbers[path], 0, self._size(path)))

    def file(self, path: str, limit: int) -> bytes:
        """A whole file. Raises NotFound, Malformed above `limit` bytes, Untrusted (BUNDLE) if it is not as listed."""
        number = self._numbers.get(path)
        if number is None:
            raise NotFound("not in this bundle", why=path)
        file = self.layout.files[number]
        if file.size > limit:
            raise Malformed("a file of this bundle is too large", why=f"{path}: {file.size} bytes, at most {limit}")
        data = b"".join(self._read((number, 0, file.size), 0, file.size))
        if sha256(data) != file.sha256:
            raise _damaged(f"{path} has other bytes than listed")
        return data

    def blob_size(self, digest: Digest) -> int:
        """The size of an object or of a file of an artifact. Raises NotFound if it cannot be read from these disks."""
        return self._place(digest)[2]

    def read_blob(self, digest: Digest, offset: int, length: int) -> Iterator[bytes]:
        """Bytes of an object or of a file of an artifact, unverified; fewer only at its end. Raises NotFound."""
        place = self._place(digest)
        yield from self._read(place, offset, max(0, min(length, place[2] - offset)))

    def records(self, blob: Digest, layout: str) -> bytes:
        """The piece records of a blob, unverified. Raises NotFound."""
        place = self._records.get((bytes.fromhex(blob), layout))
        if place is None:
            raise NotFound("no piece records in this bundle", why=blob, code="NO-RECORDS")
        return b"".join(self._read(place, 0, place[2]))

    def carries(self, digest: Digest) -> bool:
        """Whether it lists an object or a file of an artifact."""
        return bytes.fromhex(digest) in self._objects

    def check(self, on_read: Callable[[int], None]) -> list[str]:
        """Read every file that is on these disks, or follows from them, and compare it with the list. Returns the paths
        of those that differ."""
        bad = []
        for number, file in enumerate(self.layout.files):
            place, digest = (number, 0, file.size), hashlib.sha256()
            if not self._readable(place):
                continue
            with suppress(NotFound, Untrusted):
                for data in self._read(place, 0, file.size):
                    digest.update(data)
                    on_read(len(data))
            if digest.hexdigest() != file.sha256:
                bad.append(file.path)
        return bad

    def _add_members(self, number: int, file: CarriedFile) -> None:
        if file.path.startswith("blobs/"):
            self._objects.setdefault(bytes.fromhex(file.sha256), (number, 0, file.size))
        at = 0
        for member in file.members:
            if member.blob is None:
                self._objects.setdefault(bytes.fromhex(member.sha256), (number, at, member.size))
            else:
                self._records.setdefault((bytes.fromhex(member.blob), member.layout), (number, at, member.size))
            at += member.size

    def _size(self, path: str) -> int:
        return self.layout.files[self._numbers[path]].size

    def _place(self, digest: Digest) -> Place:
        place = self._objects.get(bytes.fromhex(digest))
        if place is None or not self._readable(place):
            raise NotFound("not in this bundle", why=f"{digest} is not on the disks that are here")
        return place

    def _readable(self, place: Place) -> bool:
        code = self.index.code
        if code.total > code.data and len(self.disks) >= code.data:
            return True
        number, offset, size = place
        return all(
            part.disk in self.disks
            for part in self.layout.parts(number)
            if part.in_file < offset + size and offset < part.in_file + part.size
        )

    def _read(self, place: Place, offset: int, length: int) -> Iterator[bytes]:
        number, start, _ = place
        at, end = start + offset, start + offset + length
        for part in self.layout.parts(number):
            while part.in_file <= at < min(end, part.in_file + part.size):
                count = min(BLOCK, end - at, part.in_file + part.size - at)
                yield self._read_disk(part.disk, part.on_disk + at - part.in_file, count)
                at += count

    def _read_disk(self, disk: int, offset: int, length: int) -> bytes:
        """A range of a data disk, which is restored if it is not here. Raises NotFound (LOST-DISKS)."""
        if disk in self.disks:
            return self.stored(disk, offset, length)
        others = sorted(self.disks)[: self.index.code.data]
        return self.index.code.restore(disk, {number: self.stored(number, offset, length) for number in others})

    def stored(self, disk: int, offset: int, length: int) -> bytes:
        """A range of a disk that is here, with zeros after its end."""
        opened, data = self.disks[disk], []
        if disk < self.index.code.data:
            for number, inside, count in self.layout.files_of(disk, offset, length):
                parts = self.layout.parts(number)
                part = next(part for part in parts if part.disk == disk and part.in_file <= inside)
                data.append(opened.read(part.path, inside - part.in_file, count))
        else:
            for path, start, size in parity_files(self.layout.used(disk), offset, offset + length):
                begin, stop = max(start, offset), min(start + size, offset + length)
                data.append(opened.read(path, begin - start, stop - begin))
        return b"".join(data).ljust(length, b"\0")


def read_listing(roots: Sequence[Path]) -> tuple[BundleIndex, DiskLayout]:
    """The index and the list of contents of the bundle with these disks; nothing else of a disk is read.

    Raises NotFound, Malformed, Untrusted (BUNDLE).
    """
    data = _read_small(roots[0], INDEX, MAX_INDEX)
    index = BundleIndex.parse(data)
    for root in roots[1:]:
        if _read_small(root, INDEX, MAX_INDEX) != data:
            why = f"{root} and {roots[0]} have another {INDEX}"
            raise Untrusted("these are disks of different bundles", why=why, code="BUNDLE")
    layout = DiskLayout(_read_contents(roots, index), index.disk_bytes, index.code)
    if layout.size != index.size:
        raise Malformed("the contents of this bundle are malformed", why="they do not have its size", code="BUNDLE")
    return index, layout


def disk_roots(folder: Path) -> list[Path]:
    """The folders of the disks under a folder that was named."""
    if (folder / INDEX).is_file():
        return [folder]
    found = [folder / disk_folder(number) for number in range(MAX_FOLDERS)]
    roots = [root for root in found if (root / INDEX).is_file()]
    if not roots:
        why = f"it has no {INDEX}, and no {disk_folder(0)}/{INDEX}"
        hint = "an interrupted export has none: repeat it"
        raise NotFound(f"{folder} is no bundle", why=why, hint=hint, code="NO-BUNDLE")
    return roots


def _read_contents(roots: Sequence[Path], index: BundleIndex) -> list[CarriedFile]:
    """The list of contents, from the first disk on which it has its hash."""
    for root in roots:
        with suppress(NotFound), _opened(root, CONTENTS) as descriptor:
            if os.fstat(descriptor).st_size <= MAX_CONTENTS and _hash(descriptor) == index.contents:
                os.lseek(descriptor, 0, os.SEEK_SET)
                with os.fdopen(os.dup(descriptor), "rb") as lines:
                    return list(parse_contents(iter(lambda: lines.readline(MAX_LINE + 1), b"")))
    raise _damaged(f"{CONTENTS} has other bytes than {INDEX} says")


def _check_sizes(disk: OpenedDisk, layout: DiskLayout) -> None:
    """Raises NotFound, and Untrusted (BUNDLE) for a file of another size."""
    expected: Iterator[tuple[str, int]]
    if disk.number < layout.code.data:
        parts = (part for number in range(len(layout.files)) for part in layout.parts(number))
        expected = ((part.path, part.size) for part in parts if part.disk == disk.number)
    else:
        expected = ((path, size) for path, _, size in parity_files(layout.used(disk.number)))
    for path, size in expected:
        found = disk.size(path)
        if found != size:
            raise _damaged(f"{path} has {found} bytes, not {size}")


def _hash(descriptor: int) -> Digest:
    whole = hashlib.sha256()
    while data := os.read(descriptor, BLOCK):
        whole.update(data)
    return Digest(whole.hexdigest())


def _read_small(root: Path, path: str, limit: int) -> bytes:
    with _opened(root, path) as descriptor:
        size = os.fstat(descriptor).st_size
        if size > limit:
            raise Malformed(f"{path} of this bundle is too large", why=f"{size} bytes, at most {limit}", code="BUNDLE")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(size)  # not `limit`: as many bytes are allocated as are asked for


@contextmanager
def _opened(root: Path, path: str) -> Iterator[int]:
    """A descriptor of a regular file below `root`; no part of `path` may be a link. A pipe is not waited for."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    *folders, name = PurePosixPath(path).parts
    with disk_errors(f"{root / path} was not read"):
        held = [os.open(root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)]
        try:
            try:
                for folder in folders:
                    held.append(os.open(folder, flags | os.O_DIRECTORY, dir_fd=held[-1]))
                held.append(os.open(name, flags | os.O_NONBLOCK, dir_fd=held[-1]))
            except FileNotFoundError as error:
                raise NotFound("a file of this bundle is missing", why=str(root / path)) from error
            except OSError as error:
                raise _damaged(f"{path} is not a plain file: {error.strerror}") from error
            if not stat.S_ISREG(os.fstat(held[-1]).st_mode):
                raise _damaged(f"{path} is not a plain file")
            yield held[-1]
        finally:
            for descriptor in held:
                os.close(descriptor)


def _damaged(why: str) -> Untrusted:
    hint = "copy it again from where it was made"
    return Untrusted("this bundle is damaged", why=why, hint=hint, code="BUNDLE")
