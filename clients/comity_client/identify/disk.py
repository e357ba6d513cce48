"""Files on this machine and their SHA-256: read only, whatever is found.

Links to files are followed, as a loader does, and each file is hashed once however many paths it has. What cannot be
read, is no file, or changes while it is read, is a line of the result and never the end. The files in an archive follow
it, below a folder with its name and `!`.

Hashes are kept (`HashCache`), so that the same files are not read again: of a file with the same device, inode, size,
and times of its last change of content and of state. Who can set the clock, or write to the disk itself, can deceive
the cache.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Final

from comity.content.sqlite_cache import opened_sqlite
from comity.trust.encoding import Digest
from comity.trust.evidence import PACK
from comity.trust.frozen import frozen
from comity.verifier import BLOCK

from comity_client.file_state import SETTLED_SECONDS, FileState, file_state
from comity_client.identify.archives import ArchivedFiles, archived_files, is_archive

CACHE_FILE: Final = "hashes.sqlite"
HUB_REPOSITORIES: Final = ("models--", "datasets--", "spaces--")
"""How the folders of repositories begin in a cache of the Hub's clients."""
TOGETHER: Final = 1_000
"""Hashes that are written in one transaction."""
LARGEST: Final = 2**63 - 1
"""Largest number that the cache keeps; some file systems have larger inodes and times."""
UNPACKED: Final = "!"
"""What follows the name of an archive in the paths of the files in it."""
_STATE: Final = "device INTEGER, inode INTEGER, size INTEGER, modified INTEGER, changed INTEGER"
_SCHEMA: Final = "".join(
    f"CREATE TABLE IF NOT EXISTS {name} ({_STATE}, {column} BLOB, PRIMARY KEY (device, inode)) WITHOUT ROWID;"
    for name, column in (("hashed", "sha256"), ("archives", "held"))
)
_SAME: Final = "WHERE (device, inode, size, modified, changed) = (?, ?, ?, ?, ?)"
_HELD: Final = f"SELECT held FROM archives {_SAME}"
_ONE: Final = f"SELECT sha256 FROM hashed {_SAME}"


@frozen
class DiskFile:
    """A path at which something was found. `sha256` is None where it was not read, and `problem` says why.

    Attributes:
        identity: device and inode, and the number of a file in an archive; paths with the same ones are one file.
        within: the archive that has it, or the document of a store that gives it this path; None if it is at this path.
        named: whether its name is one that somebody gave it; else any name of these bytes is its name.
        opened: whether what it contains or names is in the result as files of their own.
        stored_as: what a store calls the thing that it is a file of.
    """

    path: Path
    size: int = 0
    sha256: Digest | None = None
    problem: str = ""
    identity: tuple[int, ...] = ()
    within: Path | None = None
    named: bool = True
    opened: bool = False
    stored_as: str = ""

    @property
    def in_archive(self) -> bool:
        """Whether no program can read it before the archive is unpacked."""
        return len(self.identity) > len(("device", "inode"))


@frozen
class _Seen:
    """A file before it is read."""

    path: Path
    state: FileState


class HashCache:
    """The hashes of files in `folder`, which exists. Thread-safe. A cache that cannot be read or written is passed
    over: everything is hashed."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / CACHE_FILE
        self._lock = threading.Lock()
        self._new = list[tuple[int | bytes, ...]]()
        self._new_held = list[tuple[int | bytes, ...]]()

    def get(self, state: FileState) -> Digest | None:
        found = self._row(_ONE, state)
        return Digest(found.hex()) if found is not None else None

    def known(self, wanted: Container[FileState]) -> Iterator[tuple[FileState, Digest]]:
        """The hashes of many files, by one pass over all that is kept."""
        with suppress(sqlite3.Error), opened_sqlite(self._file, _SCHEMA) as database:
            for *state, data in database.execute("SELECT * FROM hashed"):
                device, inode, size, modified, changed = state
                if (kept := (device, inode, size, modified, changed)) in wanted:
                    yield kept, Digest(data.hex())

    def held(self, state: FileState) -> ArchivedFiles | None:
        """The files in an archive whose hash is kept."""
        try:
            found = self._row(_HELD, state)
            return ArchivedFiles.parse(found) if found is not None else None
        except (ValueError, TypeError):
            return None

    def _row(self, query: str, state: FileState) -> bytes | None:
        """What is kept of a file in this state."""
        try:
            with opened_sqlite(self._file, _SCHEMA) as database:
                found = database.execute(query, state).fetchone()
        except (sqlite3.Error, OverflowError):
            return None
        return bytes(found[0]) if found else None

    def keep(self, state: FileState, digest: Digest, held: ArchivedFiles | None) -> None:
        """Keep the hash of a file, and the files in it."""
        if time.time() - max(state[-2:]) / 1e9 < SETTLED_SECONDS or max(map(abs, state)) > LARGEST:
            return
        with self._lock:
            self._new.append((*state, bytes.fromhex(digest)))
            if held is not None:
                self._new_held.append((*state, held.encode()))
            if len(self._new) >= TOGETHER:
                self._write()

    def close(self) -> None:
        """Write what is not written yet."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        try:
            with opened_sqlite(self._file, _SCHEMA) as database, database:
                database.executemany("INSERT OR REPLACE INTO hashed VALUES (?, ?, ?, ?, ?, ?)", self._new)
                database.executemany("INSERT OR REPLACE INTO archives VALUES (?, ?, ?, ?, ?, ?)", self._new_held)
        except sqlite3.Error:
            pass  # the next run hashes them again
        self._new.clear()
        self._new_held.clear()


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
    found, first = list(_walk(paths)), dict[FileState, _Seen]()
    for each in found:
        if isinstance(each, _Seen):
            first.setdefault(each.state, each)
    read = dict[FileState, list[DiskFile]]()
    if cache is not None:
        for state, digest in cache.known(first):
            if (kept := _kept(first[state], digest, cache)) is not None:
                read[state] = kept
                on_hashed(_size(state))
    waiting = deque(sorted(first.keys() - read.keys(), key=_size, reverse=True))

    def read_waiting() -> None:
        while True:
            try:
                state = waiting.popleft()
            except IndexError:
                return
            read[state] = _read(first[state], cache, on_hashed)

    with ThreadPoolExecutor(workers, thread_name_prefix="identify") as pool:
        jobs = [pool.submit(read_waiting) for _ in range(workers)]
        try:
            wait(jobs, return_when=FIRST_EXCEPTION)
        finally:
            waiting.clear()  # an interruption waits only for files that are being read
    for job in jobs:
        job.result()
    return list(_in_order(found, first, read))


def _in_order(
    found: Iterable[DiskFile | _Seen],
    first: Mapping[FileState, _Seen],
    read: Mapping[FileState, list[DiskFile]],
) -> Iterator[DiskFile]:
    """Each path with what was read there; the files in an archive at its first path alone."""
    for each in found:
        if isinstance(each, DiskFile):
            yield each
        elif first[each.state] is each:
            yield from read[each.state]
        else:
            yield replace(read[each.state][0], path=each.path)


def _walk(paths: Iterable[Path]) -> Iterator[DiskFile | _Seen]:
    """What is at the paths: files, and what is none. Left out are evidence packs, what a cache of the Hub's clients
    keeps about its files, and links to folders that are below the paths anyway."""
    roots = [os.path.realpath(path) for path in paths]
    for path in paths:
        if not path.is_dir():
            yield _look(path)
            continue
        waiting = [str(path)]
        while waiting:
            folders = list[str]()
            yield from _entries(waiting.pop(), folders, roots)
            waiting += reversed(folders)


def _entries(folder: str, folders: list[str], roots: Sequence[str]) -> Iterator[DiskFile | _Seen]:
    """What is in a folder; the folders in it are added to `folders`."""
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        yield DiskFile(Path(folder), problem=_why(error))
        return
    for entry in entries:
        try:
            if not entry.is_dir():
                yield _look(Path(entry.path), entry)
            elif _left_out(folder, entry.name):
                continue
            elif not entry.is_symlink():
                folders.append(entry.path)
            elif not _is_below(os.path.realpath(entry.path), roots):
                yield DiskFile(Path(entry.path), problem="a link to a folder elsewhere: not followed")
        except OSError as error:
            yield DiskFile(Path(entry.path), problem=_why(error))


def _is_below(folder: str, roots: Iterable[str]) -> bool:
    return any(folder == root or folder.startswith(root.rstrip("/") + "/") for root in roots)


def _left_out(above: str, name: str) -> bool:
    over = above.rpartition("/")[2]
    of_cache = name == ".locks" or (over.startswith(HUB_REPOSITORIES) and name in ("refs", ".no_exist"))
    return name == PACK or of_cache or (over, name) == (".cache", "huggingface")


def _look(path: Path, entry: os.DirEntry[str] | None = None) -> DiskFile | _Seen:
    try:
        state = path.stat() if entry is None else entry.stat()
    except OSError as error:
        nothing = error.errno == errno.ENOENT and path.is_symlink()
        return DiskFile(path, problem="a link to nothing" if nothing else _why(error))
    if not stat.S_ISREG(state.st_mode):
        return DiskFile(path, problem="no file: a device, a socket or a pipe")
    return _Seen(path, file_state(state))


def _kept(seen: _Seen, digest: Digest, cache: HashCache) -> list[DiskFile] | None:
    """A file whose hash is kept, and the files in it; None if these are not kept."""
    held = None
    if is_archive(seen.path.name) and (held := cache.held(seen.state)) is None:
        return None
    return _with_held(seen, digest, held)


def _read(seen: _Seen, cache: HashCache | None, on_hashed: Callable[[int], None]) -> list[DiskFile]:
    """A file as it is now, and the files in it."""
    try:
        with open(seen.path, "rb", buffering=0, opener=_opener) as file:
            before, size = file_state(os.fstat(file.fileno())), _size(seen.state)
            digest = _hash(file, size, on_hashed)
            held = archived_files(file, size) if is_archive(seen.path.name) else None
            after = file_state(os.fstat(file.fileno()))
    except OSError as error:
        return [_unread(seen, _why(error))]
    if not seen.state == before == after:
        return [_unread(seen, "changed while it was read")]
    if cache is not None:
        cache.keep(after, digest, held)
    return _with_held(seen, digest, held)


def unpack(archive: DiskFile, cache: HashCache | None) -> ArchivedFiles:
    """The files in an archive that was hashed, whatever its name is."""
    try:
        with open(archive.path, "rb", buffering=0, opener=_opener) as file:
            before = file_state(os.fstat(file.fileno()))
            if cache is not None and (kept := cache.held(before)) is not None:
                return kept
            held = archived_files(file, _size(before))
            after = file_state(os.fstat(file.fileno()))
    except OSError as error:
        return ArchivedFiles(problem=_why(error))
    if _identity(after) != archive.identity or before != after or archive.sha256 is None:
        return ArchivedFiles(problem="changed while it was read")
    if cache is not None:
        cache.keep(after, archive.sha256, held)
    return held


def _opener(path: str, flags: int) -> int:
    """Opens a file so that its time of last access stays as it is, where the system allows that, and so that a pipe
    that has taken its place stops nobody."""
    flags |= os.O_NONBLOCK
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:  # of another owner
        return os.open(path, flags)


def _hash(file: FileIO, size: int, on_hashed: Callable[[int], None]) -> Digest:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(min(BLOCK, size + 1)))
    while count := file.readinto(buffer):
        digest.update(buffer[:count])
        on_hashed(count)
    return Digest(digest.hexdigest())


def _unread(seen: _Seen, problem: str) -> DiskFile:
    return DiskFile(seen.path, _size(seen.state), problem=problem, identity=_identity(seen.state))


def _with_held(seen: _Seen, digest: Digest, held: ArchivedFiles | None) -> list[DiskFile]:
    """A file, then the files in it, and what else is to say of these."""
    identity, whole = _identity(seen.state), held is not None and not held.problem
    file = DiskFile(seen.path, _size(seen.state), digest, identity=identity, opened=whole)
    return [file, *held_within(file, held)] if held else [file]


def held_within(archive: DiskFile, held: ArchivedFiles, folder: Path | None = None) -> Iterator[DiskFile]:
    """The files in an archive, below a folder named after it, or below another one."""
    below = folder or archive.path.with_name(archive.path.name + UNPACKED)
    for number, each in enumerate(held.files):
        identity = (*archive.identity, number)
        path = Path(f"{below}/{each.name}")
        yield DiskFile(path, each.size, each.sha256, each.problem, identity, within=archive.path)
    if held.problem:
        yield DiskFile(below, problem=held.problem, within=archive.path)


def _identity(state: FileState) -> tuple[int, int]:
    return state[:2]


def _size(state: FileState) -> int:
    return state[2]


def _why(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
