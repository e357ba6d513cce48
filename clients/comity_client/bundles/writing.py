"""Writes a bundle to disks. After an interruption the same export continues.

Small files are written first, each with its line in a journal, then the large ones, which continue where they ended;
then parity, the list of contents, and last the index: a folder without an index is no bundle. In a bundle of several
disks the small files are collected in `staged` before they are put on the disks, because the size of a disk may follow
from the size of everything.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

from comity.content import durable
from comity.content.durable import disk_errors
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, Malformed, OutOfSpace, Untrusted
from comity.trust.frozen import frozen

from comity_client.bundles.contents import (
    CONTENTS,
    DISK,
    INDEX,
    MAX_LINE,
    BundleIndex,
    CarriedFile,
    DiskLayout,
    DiskPart,
    PackMember,
    disk_folder,
    parity_files,
    parse_contents,
)
from comity_client.bundles.erasure import ErasureCode
from comity_client.bundles.folder import BLOCK, BundleFolder, OpenedDisk

JOURNAL: Final = "export.journal"
PLAN: Final = "export.json"
LOCK: Final = "export.lock"
STAGED: Final = "staged"
UNFINISHED: Final = ".part"
RESERVED: Final = 16 * 1024 * 1024
"""Bytes that a disk of a given size keeps free for the index and the file system."""


@frozen
class DiskPlan:
    """How a bundle is cut: into disks of at most `disk_bytes`, if given, or into those of `code`; or not at all."""

    disk_bytes: int | None = None
    code: ErasureCode | None = None

    @property
    def several(self) -> bool:
        return self.disk_bytes is not None or self.code is not None

    def layout(self, files: Sequence[CarriedFile]) -> DiskLayout:
        """Raises OutOfSpace (DISK-SIZE) if the disks of `code` would be larger than `disk_bytes`, Malformed if too many
        disks were needed."""
        size = sum(file.size for file in files)
        usable = self.disk_bytes
        if usable is not None and usable > 4 * RESERVED:
            usable -= RESERVED
        if self.code is None:
            each = usable or max(1, size)
            return DiskLayout(files, each, ErasureCode(max(1, -(-size // each)), max(1, -(-size // each))))
        each = max(1, -(-size // self.code.data))
        if usable is not None and each > usable:
            needed = -(-size // usable)
            why = f"each of {self.code.data} data disks would have {each} bytes"
            hint = f"use more data disks: --parity {needed}/{needed + self.code.total - self.code.data}"
            raise OutOfSpace("the disks are too small", why=why, hint=hint, code="DISK-SIZE")
        return DiskLayout(files, each, self.code)


class BundleWriter:
    """Writes one bundle. Blocking; not thread-safe.

    Attributes:
        written: bytes written by this process.
    """

    def __init__(self, folder: Path, plan: DiskPlan) -> None:
        self._folder = folder
        self._plan = plan
        self._staged = folder / STAGED if plan.several else folder
        self._done: dict[str, CarriedFile] = {}
        self.written = 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Inside the block no other process exports into the folder: each would cut off what the other writes. Raises
        Conflict (EXPORT-RUNS, BUNDLE-EXISTS)."""
        self._require_own()
        with disk_errors(f"{self._folder} was not written"):
            durable.make_folders(self._folder)
        what = f"{self._folder} was not locked"
        with durable.flock(self._folder / LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB, what) as acquired:
            if not acquired:
                hint = "wait until it has ended, or name another folder with --out"
                raise Conflict(f"another export into {self._folder} runs", hint=hint, code="EXPORT-RUNS")
            yield

    def begin(self, plan: bytes) -> bytes:
        """Begin, or continue, an export. Returns the plan with which it was begun. Raises Conflict (BUNDLE-EXISTS) if
        there is a bundle already."""
        self._require_own()
        with disk_errors(f"{self._folder} was not written"):
            durable.make_folders(self._staged)
            if not (self._folder / PLAN).exists():
                durable.write_file(self._folder / PLAN, plan, mode=0o644, point="export")
        begun = (self._folder / PLAN).read_bytes()
        self._read_journal()
        return begun

    @property
    def files(self) -> list[CarriedFile]:
        """The small files that are written."""
        return list(self._done.values())

    def find(self, path: str) -> CarriedFile | None:
        return self._done.get(path)

    def read(self, path: str) -> bytes:
        """A small file that is written. Raises Unavailable."""
        with disk_errors(f"{path} was not read"):
            return (self._staged / path).read_bytes()

    def add(self, path: str, data: bytes, members: tuple[PackMember, ...] = ()) -> CarriedFile:
        """Write a small file. Raises OutOfSpace, Unavailable."""
        file = CarriedFile(path, len(data), sha256(data), members)
        target = self._staged / path
        with disk_errors(f"{path} was not written"):
            durable.make_folders(target.parent)
            durable.write_file(target, data, mode=0o644, point="export")
            with (self._folder / JOURNAL).open("ab") as journal:
                journal.write(file.encode())
                journal.flush()
                durable.fsync(journal.fileno(), point="export.journal")
        self.written += len(data) + len(file.encode())
        self._done[path] = file
        return file

    def lay_out(self, blobs: Sequence[tuple[Digest, int]]) -> DiskLayout:
        """Put the small files on the disks, and say where the large ones go. Raises OutOfSpace, Unavailable."""
        large = [CarriedFile(f"blobs/{digest}", size, digest) for digest, size in blobs]
        layout = self._plan.layout([*self._done.values(), *large])
        self._require_space(layout)
        if self._plan.several:
            for number, file in enumerate(layout.files[: len(self._done)]):
                self._place(file, layout.parts(number))
        return layout

    def open_large(self, layout: DiskLayout, number: int) -> LargeFile:
        """Continue to write a large file of the layout."""
        places = [(self._root(layout, part.disk) / part.path, part.size) for part in layout.parts(number)]
        return LargeFile(layout.files[number], places, self._count)

    def _count(self, written: int) -> None:
        self.written += written

    def finish(self, layout: DiskLayout, index: BundleIndex, on_parity: Callable[[int], None]) -> BundleIndex:
        """Write parity, the list of contents, and the index. Returns the index with what only the layout knows."""
        contents = b"".join(file.encode() for file in layout.files)
        index = replace(
            index,
            contents=sha256(contents),
            size=layout.size,
            disk_bytes=layout.disk_bytes,
            code=layout.code,
        )
        with disk_errors(f"{self._folder} was not written"):
            self._write_parity(layout, index, on_parity)
            for name, data in ((CONTENTS, contents), (DISK, b""), (INDEX, index.encode())):
                for disk in reversed(range(layout.code.total)):  # `begin` takes the index of the first one for all
                    root, text = self._root(layout, disk), b"%d\n" % (disk + 1)
                    durable.make_folders(root)
                    durable.write_file(root / name, text if name == DISK else data, mode=0o644, point="export")
                    self.written += len(data)
            if self._plan.several:
                shutil.rmtree(self._staged)
            for name in (JOURNAL, PLAN, LOCK):
                (self._folder / name).unlink(missing_ok=True)
        return index

    def _require_own(self) -> None:
        """Raise Conflict (BUNDLE-EXISTS) for a bundle, and for files of others that an export would replace or remove:
        people export into a stick that has other things on it."""
        several = self._plan.several
        never = [self._folder / disk_folder(0) / INDEX if several else self._folder / INDEX]
        if not (self._folder / PLAN).exists():
            never += [self._folder / name for name in ((STAGED, disk_folder(0)) if several else (CONTENTS, DISK))]
        for path in never:
            if path.exists():
                hint = "name another folder with --out"
                what = f"{self._folder} has a bundle, or something under the names of one"
                raise Conflict(what, why=str(path), hint=hint, code="BUNDLE-EXISTS")

    def _root(self, layout: DiskLayout, disk: int) -> Path:
        return self._folder / disk_folder(disk) if self._plan.several else self._folder

    def _read_journal(self) -> None:
        """Read which small files were written; what was not finished is written again."""
        path = self._folder / JOURNAL
        if not path.exists():
            return
        with disk_errors(f"{path} was not read"), path.open("rb") as lines, suppress(Malformed):
            for file in parse_contents(iter(lambda: lines.readline(MAX_LINE + 1), b"")):
                staged = self._staged / file.path
                if staged.is_file() and staged.stat().st_size == file.size:
                    self._done[file.path] = file
        with disk_errors(f"{path} was not written"):
            durable.write_file(path, b"".join(file.encode() for file in self.files), mode=0o644, point="export")

    def _require_space(self, layout: DiskLayout) -> None:
        parity = (layout.code.total - layout.code.data) * layout.used(layout.code.data)
        here = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
        needed, free = layout.size + parity - here, shutil.disk_usage(self._folder).free
        if needed > free:
            why = f"{needed} more bytes are needed, {free} are free"
            hint = "name a folder on a larger disk, or fewer artifacts"
            raise OutOfSpace(f"{self._folder} has too little space", why=why, hint=hint)

    def _place(self, file: CarriedFile, parts: Sequence[DiskPart]) -> None:
        source = self._staged / file.path
        with disk_errors(f"{file.path} was not written"):
            for part in parts:
                target = self._folder / disk_folder(part.disk) / part.path
                if target.exists():
                    continue
                durable.make_folders(target.parent)
                with suppress(OSError):  # not on every file system
                    if part.size == file.size:
                        os.link(source, target)
                        durable.sync(target.parent, point="export.folder")
                        continue
                with source.open("rb") as data:
                    data.seek(part.in_file)
                    durable.write_file(target, data.read(part.size), mode=0o644, point="export")
                self.written += part.size

    def _write_parity(self, layout: DiskLayout, index: BundleIndex, on_parity: Callable[[int], None]) -> None:
        code, roots = layout.code, {disk: self._root(layout, disk) for disk in range(layout.code.total)}
        if code.total == code.data:
            return
        data = {disk: OpenedDisk(disk, roots[disk]) for disk in range(code.data)}
        bundle = BundleFolder(index, layout, data, {})
        for path, start, size in parity_files(layout.used(code.data)):
            targets = [roots[disk] / path for disk in range(code.data, code.total)]
            if all(target.exists() for target in targets):
                on_parity(size)
                continue
            with ExitStack() as opened:
                for target in targets:
                    durable.make_folders(target.parent)
                files = [opened.enter_context(durable.staged(target, mode=0o644, point="export")) for target in targets]
                for at in range(start, start + size, BLOCK):
                    count = min(BLOCK, start + size - at)
                    blocks = [bundle.stored(disk, at, count) for disk in range(code.data)]
                    for file, parity in zip(files, code.parity(blocks), strict=True):
                        file.write(parity)
                        self.written += count
                    on_parity(count)


class LargeFile:
    """A file that is written in order to one or more parts; continues after what is there. Blocking.

    Args:
        on_written: called with the number of bytes of each write.

    Attributes:
        size: bytes that are written.
    """

    def __init__(
        self, file: CarriedFile, places: Sequence[tuple[Path, int]], on_written: Callable[[int], None]
    ) -> None:
        self._on_written = on_written
        self._file = file
        self._places = places
        self._hash = hashlib.sha256()
        self.size = 0
        self._open: BinaryIO | None = None

    def resume(self, on_read: Callable[[int], None]) -> None:
        """Hash what is there; a part that has all its bytes, but not yet its name, gets it. Raises OutOfSpace,
        Unavailable."""
        with disk_errors(f"{self._file.path} was not read"):
            for path, size in self._places:
                unfinished = path.with_name(path.name + UNFINISHED)
                present = path if path.exists() else unfinished
                if not present.exists():
                    return
                for data in _blocks(present, size):
                    self._hash.update(data)
                    self.size += len(data)
                    on_read(len(data))
                if present == unfinished:
                    if present.stat().st_size < size:
                        return
                    self._open = self._continued(path, 0)
                    self._seal(path)

    @property
    def complete(self) -> bool:
        return self.size == self._file.size and all(path.exists() for path, _ in self._places)

    def write(self, data: bytes) -> None:
        """Raises OutOfSpace, Unavailable, and Malformed for more bytes than the file has."""
        view = memoryview(data)
        with disk_errors(f"{self._file.path} was not written"):
            while view:
                path, left = self._next()
                if self._open is None:
                    self._open = self._continued(path, left)
                part = view[:left]
                self._write(part)
                self._hash.update(part)
                self.size += len(part)
                self._on_written(len(part))
                view = view[len(part) :]
                if len(part) == left:
                    self._seal(path)

    def _write(self, part: memoryview) -> None:
        assert self._open is not None
        try:
            self._open.write(part)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            why = "its file system takes no file of this size"
            hint = "remove the folder, and export again with --split 4G"
            raise OutOfSpace(f"{self._file.path} does not fit on this disk", why=why, hint=hint) from error

    def close(self) -> None:
        """What a full disk does not take now is fetched again by the next try."""
        if self._open is not None:
            with suppress(OSError):
                self._open.close()
            self._open = None

    def finish(self) -> None:
        """Raises Untrusted (DIGEST) if the file has another hash; then it is written again from its start."""
        with disk_errors(f"{self._file.path} was not written"):
            if not self._file.size:
                self._open = self._continued(self._places[0][0], 0)
                self._seal(self._places[0][0])
            if self._hash.hexdigest() == self._file.sha256 and self.size == self._file.size:
                return
            for path, _ in self._places:
                path.unlink(missing_ok=True)
                path.with_name(path.name + UNFINISHED).unlink(missing_ok=True)
        why = f"{self._file.path} has {self.size} bytes, with another sha256"
        raise Untrusted("not the requested file", why=why, hint="run the same command again", code="DIGEST")

    def _next(self) -> tuple[Path, int]:
        """The part with the next byte, and the bytes that it lacks."""
        end = 0
        for path, size in self._places:
            end += size
            if self.size < end:
                return path, end - self.size
        raise Malformed("more bytes than requested", why=self._file.path, code="UNBOUNDED")

    def _continued(self, path: Path, left: int) -> BinaryIO:
        durable.make_folders(path.parent)
        unfinished = path.with_name(path.name + UNFINISHED)
        size = dict(self._places)[path] - left
        file = os.fdopen(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644), "r+b")
        file.truncate(size)
        file.seek(size)
        return file

    def _seal(self, path: Path) -> None:
        assert self._open is not None
        with closing(self._open) as file:
            file.flush()
            durable.fsync(file.fileno(), point="export.fsync")
        self._open = None
        durable.move(path.with_name(path.name + UNFINISHED), path, point="export")


def _blocks(path: Path, most: int) -> Iterator[bytes]:
    """The first `most` bytes of a file."""
    with path.open("rb") as file:
        while most and (data := file.read(min(BLOCK, most))):
            most -= len(data)
            yield data
