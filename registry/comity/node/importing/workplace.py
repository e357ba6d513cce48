"""Where imports collect their files: a folder for each, in the store's own place for what is not whole yet."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Final

from comity.content.durable import disk_errors, make_folders
from comity.content.store import BlobStore
from comity.trust.digest import sha256
from comity.trust.upstream.naming import Upstream

FOLDER: Final = "imports"


def workplace(store: BlobStore, upstream: Upstream) -> Path:
    """The folder for one commit of one endpoint; it exists. Raises OutOfSpace, Unavailable (DISK)."""
    key = sha256(f"{upstream.endpoint} {upstream.name}".encode())
    folder = store.scratch(key).parent / FOLDER / key
    with disk_errors("no room was made for an import"):
        make_folders(folder)
    return folder


def clear(folder: Path) -> None:
    """Nobody goes on with it any more."""
    shutil.rmtree(folder, ignore_errors=True)


def forget(store: BlobStore, before: float) -> None:
    """Remove what imports left in which nothing was written since a time (POSIX seconds). Raises Unavailable (DISK)."""
    imports = store.scratch(sha256(b"")).parent / FOLDER
    with disk_errors("leftovers of imports were not looked at"), contextlib.suppress(FileNotFoundError):
        for folder in imports.iterdir():
            written = max((path.stat().st_mtime for path in (folder, *folder.iterdir())), default=before)
            if written < before:
                clear(folder)
