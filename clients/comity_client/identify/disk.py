"""Files on this machine and their SHA-256: read only, whatever is found.

Links to files are followed, as a loader does, and each file is hashed once however many paths it has. What cannot be
read, is no file, or changes while it is read, is a line of the result and never the end.

Hashes are kept (`HashCache`), so that the same files are not read again: of a file with the same device, inode, size,
and times of its last change of content and of state. Who can set the clock, or write to the disk itself, can deceive
the cache.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final

from comity.content.durable import disk_errors
from comity.trust.encoding import Digest
from comity.trust.errors import Unavailable
from comity.trust.evidence import PACK
from comity.trust.frozen import frozen
from comity.verifier import hash_file

CACHE_FILE: Final = "hashes.sqlite"
SETTLED_SECONDS: Final = 2.0
"""A file that was changed a shorter time ago is not kept: it may change again within the resolution of its times."""
HUB_REPOSITORIES: Final = ("models--", "datasets--", "spaces--")
"""How the folders of repositories begin in a cache of the Hub's clients."""
TOGETHER: Final = 1_000
"""Hashes that are written in one transaction."""
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS hashed (device INTEGER, inode INTEGER, size INTEGER, modified INTEGER, changed INTEGER,"
    " sha256 BLOB, PRIMARY KEY (device, inode)) WITHOUT ROWID"
)


@frozen
class DiskFile:
    """A path at which something was found. `sha256` is None where it was not read, and `problem` says why. `identity`:
    device and inode; paths with the same ones are one file."""

    path: Path
    size: int = 0
    sha256: Digest | None = None
    problem: str = ""
    identity: tuple[int, int] = (0, 0)


@frozen
class _Seen:
    """A file before it is read."""

    path: Path
    state: os.stat_result


class HashCache:
    """The hashes of files in `folder`, which exists. Thread-safe. A cache that cannot be read or written is passed
    over: everything is hashed."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / CACHE_FILE
        self._lock = threading.Lock()
        self._known = dict[tuple[int, int], tuple[int, int, int, bytes]]()
        self._new = list[tuple[int, int, int, int, int, bytes]]()
        try:
            with closing(self._opened()) as database:
                for device, inode, *rest in database.execute("SELECT * FROM hashed"):
                    self._known[device, inode] = (rest[0], rest[1], rest[2], rest[3])
        except sqlite3.Error:
            self._known.clear()

    def get(self, state: os.stat_result) -> Digest | None:
        size, modified, changed, data = self._known.get(_identity(state), (0, 0, 0, b""))
        same = (size, modified, changed) == (state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        return Digest(data.hex()) if data and same else None

    def keep(self, state: os.stat_result, digest: Digest) -> None:
        if time.time() - max(state.st_mtime, state.st_ctime) < SETTLED_SECONDS:
            return
        row = (*_identity(state), state.st_size, state.st_mtime_ns, state.st_ctime_ns, bytes.fromhex(digest))
        with self._lock:
            self._new.append(row)
            if len(self._new) >= TOGETHER:
                self._write()

    def close(self) -> None:
        """Write what is not written yet."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        try:
            with closing(self._opened()) as database, database:
                database.executemany("INSERT OR REPLACE INTO hashed VALUES (?, ?, ?, ?, ?, ?)", self._new)
        except sqlite3.Error:
            pass  # the next run hashes them again
        self._new.clear()

    def _opened(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._file, timeout=10, check_same_thread=False)
        database.execute(_SCHEMA)
        return database


def read_files(
    paths: Iterable[Path],
    cache: HashCache | None,
    *,
    workers: int,
    on_hashed: Callable[[int], None] = lambda count: None,
) -> list[DiskFile]:
    """Return every file at or below the paths, in the order in which they are found, hashed by `workers` threads.
    Blocking.

    Args:
        cache: hashes that are known; None to read everything.
        on_hashed: called with the bytes since the last call, from several threads.
    """
    found = list(_walk(paths))
    first = {_identity(each.state): each for each in reversed(found) if isinstance(each, _Seen)}
    with ThreadPoolExecutor(workers, thread_name_prefix="identify") as pool:
        largest = sorted(first.values(), key=lambda seen: -seen.state.st_size)
        jobs = {_identity(seen.state): pool.submit(_read, seen, cache, on_hashed) for seen in largest}
        hashed = {identity: job.result() for identity, job in jobs.items()}
    return [
        each if isinstance(each, DiskFile) else replace(hashed[_identity(each.state)], path=each.path) for each in found
    ]


def _walk(paths: Iterable[Path]) -> Iterator[DiskFile | _Seen]:
    """What is at the paths: files, and what is none. Left out are links to folders, evidence packs, and what a cache of
    the Hub's clients keeps about its files."""
    for path in paths:
        if not path.is_dir():
            yield _look(path)
            continue
        problems = list[OSError]()
        for above, folders, names in os.walk(path, onerror=problems.append):
            folders[:] = sorted(name for name in folders if not _left_out(Path(above, name)))
            yield from (_look(Path(above, name)) for name in sorted(names))
        yield from (DiskFile(Path(error.filename or path), problem=_why(error)) for error in problems)


def _left_out(folder: Path) -> bool:
    name, above = folder.name, folder.parent.name
    of_cache = name == ".locks" or (above.startswith(HUB_REPOSITORIES) and name in ("refs", ".no_exist"))
    return name == PACK or of_cache or (above, name) == (".cache", "huggingface") or folder.is_symlink()


def _look(path: Path) -> DiskFile | _Seen:
    try:
        state = path.stat()
    except OSError as error:
        return DiskFile(path, problem="a link to nothing" if path.is_symlink() else _why(error))
    if not stat.S_ISREG(state.st_mode):
        return DiskFile(path, problem="no file: a device, a socket or a pipe")
    return _Seen(path, state)


def _read(seen: _Seen, cache: HashCache | None, on_hashed: Callable[[int], None]) -> DiskFile:
    path, state = seen.path, seen.state
    if cache is not None and (known := cache.get(state)) is not None:
        on_hashed(state.st_size)
        return DiskFile(path, state.st_size, known, identity=_identity(state))
    try:
        with disk_errors(f"{path} was not read"):
            size, digest = hash_file(path, on_hashed)
            after = path.stat()
    except Unavailable as error:
        return DiskFile(path, state.st_size, problem=error.why, identity=_identity(state))
    if size != after.st_size or _state(state) != _state(after):
        return DiskFile(path, state.st_size, problem="changed while it was read", identity=_identity(state))
    if cache is not None:
        cache.keep(after, digest)
    return DiskFile(path, size, digest, identity=_identity(state))


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino


def _state(state: os.stat_result) -> tuple[int, ...]:
    return *_identity(state), state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _why(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
