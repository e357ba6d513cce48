"""Keep the evidence of a folder that was identified beside its files, as a pull does, and give the files to a Hub cache
without copying a byte. The files are never changed.

A cache gets its own files that share their blocks with those of the folder (a clone: btrfs, XFS, ZFS and other file
systems that copy on write). Elsewhere it can get hard links, if the user asks for them: a program that writes into a
file of the folder then changes the file of the cache too, which `verify` finds and a loader does not.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from comity.content import durable
from comity.content.durable import disk_errors
from comity.rules.refusal import refusal
from comity.trust.artifact import FileEntry
from comity.trust.encoding import Digest
from comity.trust.errors import Conflict, Unavailable
from comity.trust.evidence import Verdict
from comity.trust.frozen import frozen

from comity_client.identify.folder import IdentifiedFolder
from comity_client.pull.destinations import READ_ONLY, Destination, has_file, require_own_pack, write_pack

FICLONE: Final = 0x40049409
"""Number of the call that has two files share their blocks (linux/fs.h)."""
NO_CLONES: Final = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.EPERM})

FileState: TypeAlias = tuple[int, int, int, int]
"""Device, inode, size and time of the last change of content."""


@frozen
class AdoptedFolder:
    """What was written: the evidence into `folder`; and into `cache`, a folder in a Hub cache, if that was asked for.

    Attributes:
        missing: files of the artifact that are not there.
        basis: how it was found.
        alarms: contradictions of logs.
        cloned: the files in the cache share blocks with those of the folder; otherwise they are hard links.
    """

    title: str
    artifact: Digest
    folder: Path
    verdict: Verdict
    files: int
    bytes: int
    missing: tuple[str, ...]
    basis: str
    alarms: tuple[str, ...]
    cache: Path | None = None
    cloned: bool = False


def adopt(
    folder: Path,
    identified: IdentifiedFolder,
    states: Mapping[str, FileState],
    cache: Destination | None,
    *,
    hard_links: bool,
) -> AdoptedFolder:
    """Write the evidence of an identified folder into it, and its files into a cache. Blocking.

    Args:
        states: of the files, from before they were hashed (`states_of`).
        cache: where else the files go, and the evidence with them.
        hard_links: link them there, instead of cloning them.

    Raises Untrusted, PolicyNotMet, Unavailable for what the policy refuses; Conflict (CHANGED) for a file that changed
    since it was hashed, (FOLDER-NOT-EMPTY) for a pack of another artifact; Unavailable (NO-CLONES) for a file system
    without clones; OutOfSpace, Unavailable. Then no evidence is beside the files that was not there before, unless all
    of it is.
    """
    verdict, gathered = identified.verdict, identified.gathered
    facts = f"comity verify {shlex.quote(str(folder))} --facts"
    if (refused := refusal(verdict, identified.title, "the policy", lambda rows, title: facts)) is not None:
        raise gathered.alarms[0] if gathered.alarms else refused
    found = {each.path for each in identified.evidence.files or ()}
    here = [entry for entry in gathered.manifest.files if entry.path in found]
    missing = tuple(entry.path for entry in gathered.manifest.files if entry.path not in found)
    require_own_pack(folder, gathered.manifest)
    _require_unchanged(folder, here, states)
    if cache is not None:
        cache.prepare()
        with cache.in_use():
            _fill(cache, folder, here, states, _hard_link if hard_links else _clone)
            write_pack(cache.folder, identified.evidence, gathered.evidence.proofs, missing=missing)
            cache.finish(here)
    write_pack(folder, identified.evidence, gathered.evidence.proofs, missing=missing)
    return AdoptedFolder(
        title=identified.title,
        artifact=gathered.manifest.digest,
        folder=folder,
        verdict=verdict,
        files=len(here),
        bytes=sum(entry.size for entry in here),
        missing=missing,
        basis=identified.basis,
        alarms=identified.alarms,
        cache=cache.folder if cache is not None else None,
        cloned=cache is not None and not hard_links,
    )


def states_of(folder: Path) -> dict[str, FileState]:
    """The states of the files of a folder, by path, before they are hashed."""
    found = ((path, _state(path)) for path in folder.rglob("*"))
    return {path.relative_to(folder).as_posix(): state for path, state in found if state is not None}


def _state(path: Path) -> FileState | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _require_unchanged(folder: Path, entries: Sequence[FileEntry], states: Mapping[str, FileState]) -> None:
    for entry in entries:
        if _state(folder / entry.path) != states.get(entry.path):
            raise _changed(entry)


def _changed(entry: FileEntry) -> Conflict:
    what, hint = "a file changed while it was read", "run the same command again"
    return Conflict(what, why=f"{entry.path} changed after it was hashed", hint=hint, code="CHANGED")


def _fill(
    cache: Destination,
    folder: Path,
    entries: Sequence[FileEntry],
    states: Mapping[str, FileState],
    give: Callable[[Path, Path, FileState | None], bool],
) -> None:
    """Have the cache's file of each entry. Each is complete or not there, also after a crash."""
    for entry in {each.sha256: each for each in entries}.values():
        path = cache.path_of(entry)
        if has_file(path, entry):
            continue
        temporary = cache.incoming / f"{secrets.token_hex(8)}{durable.TEMPORARY}"
        try:
            with disk_errors(f"{entry.path} was not put into the cache"):
                if not give((folder / entry.path).resolve(), temporary, states.get(entry.path)):
                    raise _changed(entry)
                durable.move(temporary, path, point="adopt")
        finally:
            temporary.unlink(missing_ok=True)


def _clone(source: Path, path: Path, state: FileState | None) -> bool:
    """Make `path` a read-only file that shares the blocks of `source`, as it was in `state`; return False if it
    changed. Raises OSError, Unavailable (NO-CLONES)."""
    with source.open("rb", buffering=0) as original, path.open("xb", buffering=0) as made:
        try:
            fcntl.ioctl(made.fileno(), FICLONE, original.fileno())
        except OSError as error:
            if error.errno in NO_CLONES:
                raise _no_clones(source, path, error) from error
            raise
        os.fchmod(made.fileno(), READ_ONLY)
        durable.fsync(made.fileno(), point="adopt.fsync")
    return _state(source) == state


def _no_clones(source: Path, path: Path, error: OSError) -> Unavailable:
    if source.stat().st_dev != path.parent.stat().st_dev:
        why, hint = "they are on different file systems", "copy the files, or pull the artifact into the cache"
    else:
        why = f"this file system cannot: {os.strerror(error.errno or 0)}"
        hint = "the same command with --hard-links; what then writes into a file of the folder changes the cache too"
    return Unavailable("the files cannot share their blocks with the cache", why=why, hint=hint, code="NO-CLONES")


def _hard_link(source: Path, path: Path, state: FileState | None) -> bool:
    """Make `path` another name of `source`, which was in `state`; return False if it changed. Raises OSError."""
    path.hardlink_to(source)
    return _state(path) == state
