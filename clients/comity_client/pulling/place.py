"""Where verified files go: a plain folder here, a Hugging Face Hub cache in `hub_cache`.

Files are placed read-only (0444) by a rename on one file system, so that a reader sees a whole file or none, and never
as a link to anything that somebody may write to.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

from comity.content import durable
from comity.content.durable import disk_errors
from comity.trust.digest import sha256
from comity.trust.errors import Conflict, OutOfSpace
from comity.trust.evidence import PACK
from comity.trust.manifest import MAX_BYTES, FileEntry, Manifest
from comity.verifier import hash_file, read_bounded

from comity_client.pulling.pack import INCOMING

READ_ONLY: Final = 0o444
COPY_BLOCK: Final = 1024 * 1024


class Place(Protocol):
    """A destination of one artifact. Methods block; they raise Conflict, OutOfSpace, Unavailable."""

    @property
    def folder(self) -> Path:
        """What is handed to the user: the artifact's files under their paths, the pack in `.comity/`."""
        ...

    @property
    def incoming(self) -> Path:
        """Where partial files are, on the file system of the destination."""
        ...

    def prepare(self) -> None:
        """Make what is missing, and refuse a destination that holds something else."""
        ...

    def holder(self, entry: FileEntry) -> Path:
        """The file that will hold the bytes of `entry`."""
        ...

    def replaceable(self, entry: FileEntry) -> bool:
        """Whether a file of ours that has gone bad there may be replaced; somebody else's may not."""
        ...

    def finish(self, entries: Sequence[FileEntry]) -> None:
        """Give the files, which are all placed, their names."""
        ...


class FolderPlace:
    """A folder that holds this artifact, whole or in part, and nothing else."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder = folder.absolute()
        self._manifest = manifest
        self._ours = False

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def incoming(self) -> Path:
        return self._folder / PACK / INCOMING

    def prepare(self) -> None:
        with disk_errors(f"{self._folder} was not made ready"):
            durable.make_folders(self._folder)
            self._refuse_strangers()
            durable.make_folders(self.incoming)

    def holder(self, entry: FileEntry) -> Path:
        return self._folder / entry.path

    def replaceable(self, entry: FileEntry) -> bool:
        return self._ours

    def finish(self, entries: Sequence[FileEntry]) -> None:
        """The files have their names already."""

    def _refuse_strangers(self) -> None:
        pack = self._folder / PACK / "manifest.json"
        if pack.exists():
            if sha256(read_bounded(pack, MAX_BYTES)) != self._manifest.digest:
                raise self._taken("another artifact is there")
            self._ours = True
        for root, folders, files in os.walk(self._folder):
            here = Path(root)
            if here == self._folder and PACK in folders:
                folders.remove(PACK)
            for name in (*files, *folders):
                path = here / name
                relative = path.relative_to(self._folder).as_posix()
                if path.is_symlink() or (name in files and relative not in self._manifest.by_path):
                    raise self._taken(f"{relative} is not part of the artifact")

    def _taken(self, why: str) -> Conflict:
        hint = "choose a new folder"
        return Conflict(f"{self._folder} holds something else", why=why, hint=hint, code="FOLDER-NOT-EMPTY")


def holds(path: Path, entry: FileEntry, on_hashed: Callable[[int], None] = lambda count: None) -> bool:
    """Whether a regular file with exactly the bytes of `entry` is at `path`; reads all of it to find out."""
    with disk_errors(f"{path} was not read"):
        if path.is_symlink() or not path.is_file() or path.stat().st_size != entry.size:
            return False
        return hash_file(path, on_hashed) == (entry.size, entry.sha256)


def settle(verified: Path, holders: Sequence[Path], entry: FileEntry) -> None:
    """Move a verified file to the last of `holders`, and copies of it to the others; all read-only, and on the disk
    when it returns. Another pull may have been faster: its file is hashed, and kept if it is right.

    Raises Conflict (code VANISHED) where neither is there, OutOfSpace, Unavailable.
    """
    missing = [holder for holder in holders if not holds(holder, entry)]
    if not missing:
        return
    if not verified.exists():
        why = f"somebody removed {verified} while it was in use"
        raise Conflict("a verified file vanished", why=why, hint="run the same command again", code="VANISHED")
    with disk_errors(f"{entry.path} was not placed"):
        for holder in missing:
            durable.make_folders(holder.parent)
        for holder in missing[:-1]:
            into = durable.staged(holder, mode=READ_ONLY, folder=verified.parent, point="place")
            with into as copy, verified.open("rb") as source:
                shutil.copyfileobj(source, copy, COPY_BLOCK)
        verified.chmod(READ_ONLY)
        durable.move(verified, missing[-1], point="place")


def require_room(folder: Path, missing: int) -> None:
    """Raises OutOfSpace, before anything is fetched, where the disk of `folder` cannot take `missing` bytes."""
    with disk_errors(f"the disk of {folder} did not answer"):
        free = shutil.disk_usage(folder).free
    if free < missing:
        raise OutOfSpace(
            f"no room for {missing} bytes",
            why=f"the disk of {folder} has {free} left",
            hint="make room, then run the same command again: what is verified stays",
        )


def allocated(path: Path) -> int:
    """Bytes of a partial file that are on the disk already."""
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0
