"""Files that are either the old or the new one after any crash, and on the disk when the call returns.

The order is always the same: write a temporary file, fsync it, rename it, fsync the folder, and the folder that it left
where that is another. Each step is preceded by a fault point `<point>.fsync`, `<point>.rename`, `<point>.folder`,
`<point>.source`, and `<point>.done` follows the last. Nobody else calls fsync, so that none is without its point.

An fsync that fails is never tried again on the same file: the kernel may have dropped the dirty pages and would report
success. The temporary file is given up instead. The known gap: when the *folder's* fsync fails, the new name is already
visible; the error is raised, and the next caller that finds the file must fsync the folder before it promises anything.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from comity.content import fault
from comity.trust.errors import OutOfSpace, Unavailable

TEMPORARY: Final = ".tmp"

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn the operating system's refusals inside the block into ours: OutOfSpace (disk or quota), else Unavailable
    with code DISK. `what` says what did not happen."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise OutOfSpace(what, why=str(error), hint="free some space and run the same command again") from error
        raise Unavailable(what, why=str(error), code="DISK") from error


def write_file(path: Path, data: bytes, *, mode: int = 0o600, point: str = "file") -> None:
    """Replace `path` by `data`, whole or not at all. The folder must exist. Raises OutOfSpace, Unavailable."""
    with disk_errors(f"{path.name} was not written"), staged(path, mode=mode, point=point) as file:
        file.write(data)


@contextmanager
def staged(path: Path, *, mode: int, folder: Path | None = None, point: str = "file") -> Iterator[BinaryIO]:
    """A new file that becomes `path` when the block ends; when the block raises, nothing is left of it.

    It is written in `folder`, by default the one of `path`, which must be on the same file system. A crash may leave
    a file there whose name ends in `TEMPORARY`. Raises OSError.
    """
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
    """Rename a file whose bytes are already on the disk, replacing `path`; both folders are synced. Raises OSError."""
    fault.point(f"{point}.rename")
    source.replace(path)
    sync(path.parent, point=f"{point}.folder")
    if source.parent != path.parent:
        sync(source.parent, point=f"{point}.source")
    fault.point(f"{point}.done")


def sync(path: Path, *, point: str) -> None:
    """fsync a file, or a folder: the names in it. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fsync(descriptor, point=point)
    finally:
        os.close(descriptor)


def fsync(descriptor: int, *, point: str) -> None:
    """Put on the disk what was written to an open file; `point` names the fault point before it. Raises OSError."""
    fault.point(point)
    os.fsync(descriptor)


def make_folders(path: Path, *, mode: int = 0o755) -> None:
    """Create `path` and its missing parents, on the disk when the call returns. Raises OSError."""
    if path.is_dir():
        return
    make_folders(path.parent, mode=mode)
    path.mkdir(mode=mode, exist_ok=True)
    sync(path.parent, point="folders.fsync")
