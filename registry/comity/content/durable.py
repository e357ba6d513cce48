"""Crash-safe file writes: after any crash a file is the old one or the new one, and on disk when the call returns. And
the locks for the only writer of a file.

The order is always: write a temporary file, fsync it, rename it, fsync the folder, and fsync the source folder if that
is another. Before each step is a fault point: `<point>.fsync`, `<point>.rename`, `<point>.folder`, `<point>.source`;
`<point>.done` follows the last step. No other module calls fsync, so every fsync has a fault point.

A failed fsync is never repeated on the same file: the kernel may have dropped the dirty pages and would report success.
The temporary file is discarded instead. Known gap: when the fsync of the *folder* fails, the new name is already
visible. The error is raised, and the next caller that finds the file must fsync the folder before it reports success.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from comity.content import fault
from comity.trust.errors import OutOfSpace, Unavailable

if TYPE_CHECKING:
    from filelock import BaseFileLock

TEMPORARY: Final = ".tmp"
SYNCS_AT_ONCE: Final = 8

FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Numbers of the errors of a disk or a quota that is full."""


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Translate an OSError inside the block: OutOfSpace (disk or quota full), else Unavailable with code DISK. `what`
    names the operation that failed."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise OutOfSpace(what, why=str(error), hint="free some space and run the same command again") from error
        raise Unavailable(what, why=str(error), code="DISK") from error


def write_file(path: Path, data: bytes, *, mode: int = 0o600, point: str = "file") -> None:
    """Replace `path` by `data` atomically. The folder must exist. Raises OutOfSpace, Unavailable."""
    write_pieces(path, (data,), mode=mode, point=point)


def write_pieces(path: Path, pieces: Iterable[bytes], *, mode: int = 0o600, point: str = "file") -> None:
    """As `write_file`, for data that is made while it is written. Also raises what `pieces` raises; then the file is
    the old one."""
    what = f"{path.name} was not written"
    with disk_errors(what):
        if not path.parent.is_dir():
            hint = f"mkdir -p {shlex.quote(str(path.parent))}"
            raise Unavailable(what, why=f"there is no folder {path.parent}", hint=hint, code="DISK")
        with staged(path, mode=mode, point=point) as file:
            for piece in pieces:
                file.write(piece)


@contextmanager
def staged(path: Path, *, mode: int, folder: Path | None = None, point: str = "file") -> Iterator[BinaryIO]:
    """A new file that becomes `path` when the block ends, and is removed if the block raises.

    It is written in `folder` (default: the folder of `path`), which must be on the same file system. A crash may leave
    a file there whose name ends in `TEMPORARY`. Raises OSError.
    """
    import tempfile  # only who writes needs it

    descriptor, name = tempfile.mkstemp(suffix=TEMPORARY, dir=folder or path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(descriptor, mode)
            fsync(descriptor, point=f"{point}.fsync")
        move(temporary, path, point=point)
    finally:
        temporary.unlink(missing_ok=True)


def move(source: Path, path: Path, *, point: str = "file") -> None:
    """Rename a file that is already synced, replacing `path`; both folders are synced. Raises OSError."""
    fault.point(f"{point}.rename")
    source.replace(path)
    sync(path.parent, point=f"{point}.folder")
    if source.parent != path.parent:
        sync(source.parent, point=f"{point}.source")
    fault.point(f"{point}.done")


def move_together(moves: Mapping[Path, Path], *, point: str = "file") -> None:
    """Sync each of some files and rename it, replacing what has the new name; durable when the call returns. Syncs run
    at once, and a folder is synced once. After an error or a crash some of the files may have their new names. Raises
    OSError."""
    _sync_at_once(moves, point=f"{point}.fsync")
    rename_together(moves, point=point)


def rename_together(moves: Mapping[Path, Path], *, point: str = "file") -> None:
    """As `move_together`, for links and files that are synced."""
    for source, path in moves.items():
        fault.point(f"{point}.rename")
        source.replace(path)
    _sync_at_once({path.parent for path in moves.values()}, point=f"{point}.folder")
    _sync_at_once(
        {source.parent for source in moves} - {path.parent for path in moves.values()}, point=f"{point}.source"
    )
    fault.point(f"{point}.done")


def write_unsynced(files: Mapping[Path, bytes], *, mode: int) -> None:
    """Write several small files, each of which is there whole or not at all until the machine fails. Raises OSError."""
    name = os.urandom(8).hex()
    for number, (path, data) in enumerate(files.items()):
        temporary = path.with_name(f"{name}.{number}{TEMPORARY}")
        try:
            _write_new(temporary, data, mode)
            fault.point("unsynced.rename")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_together(files: Mapping[Path, bytes], *, mode: int, folder: Path, point: str = "file") -> None:
    """Write several small files, each as `staged` does, and durable when the call returns. Their syncs run at once, and
    a folder is synced once: a journal commits together what waits for it.

    After an error or a crash some of the files may be there, each of them whole. Raises OSError.
    """
    staged_as, name = dict[Path, Path](), os.urandom(8).hex()
    try:
        for number, (path, data) in enumerate(files.items()):
            staged_as[path] = folder / f"{name}.{number}{TEMPORARY}"
            _write_new(staged_as[path], data, mode)
        _sync_at_once(staged_as.values(), point=f"{point}.fsync")
        for path in files:
            fault.point(f"{point}.rename")
            staged_as[path].replace(path)
            del staged_as[path]
        _sync_at_once({path.parent for path in files}, point=f"{point}.folder")
        sync(folder, point=f"{point}.source")
        fault.point(f"{point}.done")
    finally:
        for temporary in staged_as.values():
            temporary.unlink(missing_ok=True)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that does not exist; it is not synced. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _sync_at_once(paths: Iterable[Path], *, point: str) -> None:
    """fsync files or folders, some at a time. Raises OSError."""
    every = list(paths)
    if not every:
        return
    shares = [every[first::SYNCS_AT_ONCE] for first in range(min(SYNCS_AT_ONCE, len(every)))]

    def sync_share(share: Iterable[Path]) -> None:
        for path in share:
            sync(path, point=point)

    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(shares), thread_name_prefix="sync") as threads:
        list(threads.map(sync_share, shares))


@contextmanager
def locked_for_append(path: Path, *, owner_of: Path) -> Iterator[BinaryIO]:
    """Open the file `path`, which is made with mode 0600 if it is missing, and hold its lock (flock) while the block
    runs. Where root makes it, it gets the owner of the folder `owner_of`. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        give_to_owner(path, owner_of=owner_of)
        yield file


def give_to_owner(path: Path, *, owner_of: Path) -> None:
    """Where this process is root, give the file `path` to the owner of `owner_of`, so that the node, which is not root,
    can go on with it. Raises OSError."""
    if os.geteuid() == 0:
        owner = owner_of.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def sync(path: Path, *, point: str) -> None:
    """fsync a file, or the names in a folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fsync(descriptor, point=point)
    finally:
        os.close(descriptor)


def fsync(descriptor: int, *, point: str) -> None:
    """fsync an open file; `point` names the fault point before it. Raises OSError."""
    fault.point(point)
    os.fsync(descriptor)


def make_folders(path: Path, *, mode: int = 0o755) -> None:
    """Create `path` and its missing parents; durable when the call returns. Raises OSError."""
    if path.is_dir():
        return
    make_folders(path.parent, mode=mode)
    path.mkdir(mode=mode, exist_ok=True)
    sync(path.parent, point="folders.fsync")


def file_lock(path: Path) -> BaseFileLock:
    """An exclusive lock (flock) on the file `path`, which is made if it is missing and stays. It works across threads
    and processes, and the kernel releases it when its process ends. A file system without flock raises OSError: a lock
    by the existence of a file would outlive its process."""
    from filelock import FileLock  # a program that only reads takes no lock

    return FileLock(path, mode=0o600, thread_local=False, poll_interval=0.01, fallback_to_soft=False)


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold the lock (flock) on the file `path` while the block runs; waits until it is free. Raises OutOfSpace,
    Unavailable; `what` names the operation that failed."""
    with flock(path, fcntl.LOCK_EX, what):
        yield


@contextmanager
def flock(path: Path, how: int, what: str) -> Iterator[bool]:
    """Lock the file `path`, which is made if it is missing and stays; yields whether it was acquired.

    Args:
        how: `fcntl.LOCK_SH`, which several holders have at once, or `LOCK_EX`, which one has alone; with `LOCK_NB` it
            does not wait for a lock that is not free.
        what: names the operation that failed.

    Raises OutOfSpace, Unavailable.
    """
    with disk_errors(what):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield _flocked(descriptor, how, what)
    finally:
        os.close(descriptor)


def _flocked(descriptor: int, how: int, what: str) -> bool:
    with disk_errors(what):
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            return False
        return True
