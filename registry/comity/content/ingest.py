"""Ingest: reads a publisher's folder and makes a manifest, piece records and a piece index.

Every byte is read once (the header of a weight file twice, to find its tensors) and hashed twice in that pass: for the
file, with its states for chained records, and for its piece. Files are hashed in parallel. Within a file of several
pieces the two hashes run in parallel too, because both release the interpreter lock.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, as_completed
from io import BufferedIOBase
from pathlib import Path
from typing import Final

from comity.content.blobs import piece_lengths
from comity.content.durable import disk_errors
from comity.hashing import FileHash
from comity.rules.pieces import PieceIndex, PieceLayout, records_root
from comity.trust.artifact import MAX_FILES, RESERVED, FileEntry, Manifest, PieceRecord, check_path
from comity.trust.encoding import Digest
from comity.trust.errors import Conflict, Malformed
from comity.trust.frozen import frozen

_READ_AHEAD: Final = 4  # pieces in memory for each file being read


@frozen
class Ingested:
    """The result of an ingest. `records` and `files` are keyed by the manifest's paths; `ignored` lists entries of the
    folder that are never published, such as `.git`."""

    manifest: Manifest
    index: PieceIndex
    records: Mapping[str, list[PieceRecord]]
    ignored: tuple[str, ...]
    files: Mapping[str, Path]


@frozen
class _Hashed:
    entry: FileEntry
    layout: PieceLayout
    records: list[PieceRecord]


def ingest(folder: Path, *, workers: int, on_progress: Callable[[int], None]) -> Ingested:
    """Read `folder` with `workers` files at a time.

    `on_progress` receives the number of bytes just hashed, from one thread at a time. Raises Malformed for links,
    special files and paths that a manifest cannot hold, Conflict (code CHANGED) if a file changes while it is read, and
    Unavailable if a file cannot be read.
    """
    with disk_errors(f"{folder.name} was not read"):
        files, ignored = _list(folder)
        hashed = _hash_all(files, workers, on_progress)
    manifest = Manifest.of(file.entry for file in hashed.values())
    return Ingested(
        manifest,
        PieceIndex(tuple((entry.path, hashed[entry.path].layout) for entry in manifest.files)),
        {path: file.records for path, file in hashed.items()},
        ignored,
        files,
    )


def with_file(ingested: Ingested, path: str, source: Path) -> Ingested:
    """`ingested` with the file `source` added or replaced at `path`. Raises as `ingest` does."""
    with disk_errors(f"{source.name} was not read"):
        hashed = _hash_file(check_path(path), source, lambda _: None)
    manifest = Manifest.of((*(entry for entry in ingested.manifest.files if entry.path != path), hashed.entry))
    layouts = {**dict(ingested.index.files), path: hashed.layout}
    return Ingested(
        manifest,
        PieceIndex(tuple((entry.path, layouts[entry.path]) for entry in manifest.files)),
        {**ingested.records, path: hashed.records},
        ingested.ignored,
        {**ingested.files, path: source},
    )


def _list(folder: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Files by manifest path, and ignored paths."""
    files: dict[str, Path] = {}
    ignored: list[str] = []
    for path, entry in _walk(folder, ""):
        if path in RESERVED:
            ignored.append(path)
        elif entry.is_file(follow_symlinks=False):
            files[check_path(path)] = Path(entry.path)
        else:
            raise _not_a_file(path)
        if len(files) > MAX_FILES:
            raise Malformed("too many files", why=f"at most {MAX_FILES} make an artifact", code="TOO-MANY-FILES")
    return files, tuple(sorted(ignored))


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All entries below `folder` except ordinary folders; reserved folders are not entered."""
    pending = [(folder, prefix)]
    while pending:
        folder, prefix = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                path = prefix + entry.name
                if entry.is_dir(follow_symlinks=False) and path not in RESERVED:
                    pending.append((Path(entry.path), path + "/"))
                else:
                    yield path, entry


def _hash_all(files: Mapping[str, Path], workers: int, on_progress: Callable[[int], None]) -> dict[str, _Hashed]:
    failed = threading.Event()
    lock = threading.Lock()

    def progress(count: int) -> None:
        if failed.is_set():
            raise CancelledError  # another file failed
        with lock:
            on_progress(count)

    def hashed(path: str) -> _Hashed:
        try:
            return _hash_file(path, files[path], progress)
        except BaseException:
            failed.set()  # here, so that this worker does not begin the next file
            raise

    largest_first = sorted(files, key=lambda path: files[path].lstat().st_size, reverse=True)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="ingest")
    try:
        return _results([pool.submit(hashed, path) for path in largest_first])
    except BaseException:
        failed.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _results(futures: Sequence[Future[_Hashed]]) -> dict[str, _Hashed]:
    """The hashed files by path. Raises the first error; CancelledError only if there is no other."""
    found, cancelled = dict[str, _Hashed](), list[CancelledError]()
    for future in as_completed(futures):
        try:
            file = future.result()
        except CancelledError as error:  # the error of another file follows
            cancelled.append(error)
        else:
            found[file.entry.path] = file
    if cancelled:
        raise cancelled[0]
    return found


def _hash_file(path: str, source: Path, progress: Callable[[int], None]) -> _Hashed:
    # If the name became a link or a pipe since the listing, the open neither follows it nor blocks.
    descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise _not_a_file(path)
        layout, lengths = piece_lengths(path, file, before.st_size)
        file.seek(0)
        try:
            found = hash_pieces(file, lengths, progress)
        except EOFError as error:
            raise _changed(path) from error
        if _version(source.lstat()) != _version(before):
            raise _changed(path)
    entry = FileEntry(path, before.st_size, found.digest)
    return _Hashed(entry, PieceLayout(layout, len(found.records), records_root(found.records)), found.records)


@frozen
class HashedFile:
    """The hash of a file, its piece records, and its states for chained records if they are known."""

    digest: Digest
    records: list[PieceRecord]
    states: list[bytes] | None


def hash_pieces(file: BufferedIOBase, lengths: Sequence[int], progress: Callable[[int], None]) -> HashedFile:
    """Hash the file and its pieces. Raises EOFError if the file is shorter than its pieces."""
    if len(lengths) < 2:  # the file is one piece
        data = _read(file, memoryview(bytearray(sum(lengths))))
        only = hashlib.sha256(data)
        progress(len(data))
        return HashedFile(Digest(only.hexdigest()), [PieceRecord(length, only.digest()) for length in lengths], None)
    whole = FileHash(sum(lengths))
    records: list[PieceRecord] = []
    buffers = [bytearray(max(lengths)) for _ in range(_READ_AHEAD)]
    queue: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="ingest-whole") as whole_hasher:
        for number, length in enumerate(lengths):
            if len(queue) == _READ_AHEAD:
                queue.popleft().result()
            piece = _read(file, memoryview(buffers[number % _READ_AHEAD])[:length])
            queue.append(whole_hasher.submit(whole.update, piece))
            records.append(PieceRecord(length, hashlib.sha256(piece).digest()))
            progress(length)
    return HashedFile(Digest(whole.digest().hex()), records, whole.states)


def _read(file: BufferedIOBase, piece: memoryview) -> memoryview:
    if file.readinto(piece) != len(piece):
        raise EOFError
    return piece


def _version(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _not_a_file(path: str) -> Malformed:
    return Malformed(
        f"{path} cannot be published",
        why="it is a link or a special file",
        hint="copy the folder with links resolved: cp -rL",
        code="NOT-A-FILE",
    )


def _changed(path: str) -> Conflict:
    return Conflict(f"{path} changed while it was read", why="another process writes to it", code="CHANGED")
