"""Pending submissions, uploads, and checks that an artifact is complete.

Submissions that wait for objects are kept in memory, bounded. At the bound, an idle one is dropped first, then the
oldest of the caller with most: a large submission drops no smaller one that is being uploaded. Submitting the lines
again restores it. Uploads append to a partial file, which is hashed when complete, for itself and for its pieces in one
pass, and then stored. A file with a wrong hash is deleted. A `published` or `observed` statement is complete when its
side objects and then the files of its manifest are stored.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import field
from pathlib import Path
from typing import Any, Final, TypeAlias

import structlog

from comity.content.blobs import MAX_READ, BlobStore, blob_reader, lock_if_free, piece_lengths
from comity.content.durable import disk_errors
from comity.content.ingest import hash_pieces
from comity.ledger.piece_records import FileRecords
from comity.node.metrics import Metrics
from comity.node.threads import AsyncLedger, Pools
from comity.rules.pieces import CHAINED_LAYOUT, PieceIndex, PieceLayout, chained_records, check_records, encode_records
from comity.trust.artifact import MAX_MANIFEST, Manifest
from comity.trust.artifact import MAX_PIECE_INDEX as MAX_INDEX
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import Conflict, Malformed, NotFound, OutOfSpace, Untrusted
from comity.trust.frozen import frozen
from comity.trust.statement import SideObject, Statement
from comity.trust.statements import Published
from comity.trust.upstream import Observed

STEP_BYTES: Final = 1024 * 1024
"""Of manifests that a background reader reads in one step."""
MAX_PENDING: Final = 256
MAX_PER_CALLER: Final = 16
IDLE_SECONDS: Final = 600.0
"""Seconds without an upload after which a submission is dropped for any other."""
MAX_WANTED: Final = 400_000
"""Objects that all pending submissions together wait for."""

_log: Final = structlog.get_logger("comity.node.uploads")


_Key: TypeAlias = tuple[Digest, str]


@frozen
class Want:
    """An object to receive. `path` is its path in a manifest, or empty: it decides how the file is cut into pieces."""

    digest: Digest
    size: int
    path: str = ""


@frozen
class PendingSubmission:
    """A submission and the objects that it waits for."""

    id: Digest
    caller: str
    wants: Mapping[Digest, Want]
    block: str = ""
    """The block of addresses, or the caller, to which it is charged."""
    size: int = field(init=False)
    """Bytes of all objects; summed once, because every later submission is compared with it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", sum(want.size for want in self.wants.values()))

    @property
    def key(self) -> _Key:
        """What tells it from submissions of the same lines by other callers."""
        return self.id, self.caller


def submission_id(lines: Sequence[bytes]) -> Digest:
    """SHA-256 over the lines, each followed by a line feed."""
    return Digest(hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest())


class PendingSubmissions:
    """The pending submissions. Not thread-safe: call from the event loop.

    The same lines may come from several callers: each is charged for its own submission of them, and one that is
    dropped ends no upload while that of another caller waits.

    Args:
        max_bytes: bytes that all of them together may upload.
        clock: seconds, monotonic.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_bytes = max_bytes
        self._clock = clock
        self._waiting: OrderedDict[_Key, PendingSubmission] = OrderedDict()
        """The one unused longest first."""
        self._callers: dict[Digest, dict[_Key, None]] = {}
        """By submission, the keys of those that wait."""
        self._used: dict[_Key, float] = {}
        self._wanted = 0
        """Objects that all of them together wait for."""
        self.bytes = 0
        """Bytes of these objects."""
        self._uploads: Counter[Digest] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, submission: PendingSubmission) -> None:
        """Add a submission. Raises OutOfSpace (UPLOAD-QUOTA) if it exceeds a limit alone, or beside smaller ones."""
        self._drop(submission.key)
        if submission.size > self.max_bytes or len(submission.wants) > MAX_WANTED:
            why = f"{submission.size} bytes in {len(submission.wants)} objects; this node takes {self.max_bytes}"
            raise OutOfSpace("submission too large", why=why, code="UPLOAD-QUOTA")
        same = [other.key for other in self._waiting.values() if other.caller == submission.caller]
        for old in same[: max(0, len(same) + 1 - MAX_PER_CALLER)]:
            self._drop(old)
        while not self._fits(submission):
            dropped = self._idle() or self._oldest_of_the_largest(submission)
            if dropped is None:
                raise OutOfSpace(
                    "too much is being uploaded",
                    why="this and the submissions of others exceed what this node takes at a time",
                    hint="try again later",
                    code="UPLOAD-QUOTA",
                )
            _log.info("pending submission dropped", submission=dropped.id, caller=dropped.caller, size=dropped.size)
            self._drop(dropped.key)
        self._waiting[submission.key], self._used[submission.key] = submission, self._clock()
        self._callers.setdefault(submission.id, {})[submission.key] = None
        self._wanted += len(submission.wants)
        self.bytes += submission.size

    def require(self, submission: Digest) -> list[PendingSubmission]:
        """The submissions of these lines that wait. Raises NotFound (NO-SUBMISSION) if there is none."""
        if not (found := [self._waiting[key] for key in self._callers.get(submission, ())]):
            raise NotFound(
                "no such submission",
                why="it was never made, or it expired",
                hint="submit the lines again",
                code="NO-SUBMISSION",
            )
        return found

    def want(self, submission: Digest, digest: Digest, size: int) -> Want:
        """The object that an upload is for. Raises NotFound (NO-SUBMISSION, NOT-WANTED)."""
        found = self.require(submission)
        for each in found:
            self._waiting.move_to_end(each.key)
            self._used[each.key] = self._clock()
        wants = (want for each in found if (want := each.wants.get(digest)) is not None and want.size == size)
        if (want := next(wants, None)) is None:
            raise NotFound("not an object of this submission", why=f"{digest} of {size} bytes", code="NOT-WANTED")
        return want

    def path_of(self, digest: Digest) -> str:
        """The path of a blob in a pending manifest; empty if there is none."""
        wants = (submission.wants.get(digest) for submission in self._waiting.values())
        return next((want.path for want in wants if want and want.path), "")

    @contextmanager
    def uploading(self, submission: Digest) -> Iterator[None]:
        """Inside the block, a submission is not idle."""
        self._uploads[submission] += 1
        try:
            yield
        finally:
            self._uploads[submission] -= 1
            if not self._uploads[submission]:
                del self._uploads[submission]
            for key in self._callers.get(submission, ()):
                self._used[key] = self._clock()

    def done(self, submission: Digest) -> None:
        """The lines are logged: no submission of them waits any longer."""
        for key in tuple(self._callers.get(submission, ())):
            self._drop(key)

    def _drop(self, key: _Key) -> None:
        ended = self._waiting.pop(key, None)
        if ended is not None:
            del self._used[key]
            del self._callers[ended.id][key]
            if not self._callers[ended.id]:
                del self._callers[ended.id]
            self._wanted -= len(ended.wants)
            self.bytes -= ended.size

    def _idle(self) -> PendingSubmission | None:
        before = self._clock() - IDLE_SECONDS
        waiting = self._waiting.items()
        return next(
            (found for key, found in waiting if self._used[key] <= before and not self._uploads[found.id]), None
        )

    def _oldest_of_the_largest(self, submission: PendingSubmission) -> PendingSubmission | None:
        """The submission to drop for `submission`; None if its own caller would have most."""
        by_block: dict[str, list[PendingSubmission]] = {}
        for waiting in self._waiting.values():
            by_block.setdefault(waiting.block, []).append(waiting)
        mine = by_block.get(submission.block, [])
        largest = max(by_block.values(), key=self._share, default=[])
        if self._share(largest) < self._share([*mine, submission]):
            largest = mine
        return next(iter(largest), None)

    def _share(self, submissions: Sequence[PendingSubmission]) -> float:
        """The largest part of a limit that they use."""
        wanted = sum(len(each.wants) for each in submissions) / MAX_WANTED
        return max(len(submissions) / MAX_PENDING, wanted, sum(each.size for each in submissions) / self.max_bytes)

    def _fits(self, submission: PendingSubmission) -> bool:
        return (
            len(self._waiting) < MAX_PENDING
            and self._wanted + len(submission.wants) <= MAX_WANTED
            and self.bytes + submission.size <= self.max_bytes
        )


LESS_RESERVE: Final = "its operator frees space, or lowers reserve_bytes in [storage] of node.toml"
_SUFFIX: Final = ".upload"


class Uploads:
    """Receives files. One writer for each blob at a time, across processes."""

    def __init__(
        self, ledger: AsyncLedger, store: BlobStore, pools: Pools, metrics: Metrics, *, reserve_bytes: int = 0
    ) -> None:
        """`reserve_bytes`: what uploads leave free on the disk."""
        self.reserve_bytes = reserve_bytes
        self._ledger = ledger
        self._store = store
        self._pools = pools
        self._metrics = metrics

    def received(self, digest: Digest) -> int:
        """Bytes of an object received so far. Blocking."""
        try:
            return self._partial(digest).stat().st_size
        except FileNotFoundError:
            return 0

    async def upload(self, want: Want, offset: int, chunks: AsyncIterator[bytes]) -> int:
        """Append the chunks at `offset`. Returns how many bytes of the object are stored.

        Raises Conflict (OFFSET, BLOB-BUSY), OutOfSpace, and Untrusted (DIGEST) if the complete file has another hash;
        then it is deleted.
        """
        if await self._pools.files(self._store.has, want.digest):
            return want.size
        with self._locked(want.digest):
            await self._pools.files(self._require_space, want.size - offset)
            received = await self._pools.files(self._begin, want.digest, offset)
            async for chunk in chunks:
                await self._pools.files(self._append, want.digest, received, chunk)
                received += len(chunk)
            if received == want.size:
                await self._pools.whole_files(self._admit, want)
            return received

    async def adopt(self, path: Path, want: Want) -> bool:
        """Store a file of this machine. Returns whether it was stored already.

        Raises NotFound, Malformed if it is not a regular file, Untrusted (DIGEST), Conflict (CHANGED, BLOB-BUSY).
        """
        if await self._pools.files(self._store.has, want.digest):
            return True
        with self._locked(want.digest):
            await self._pools.whole_files(self._adopt, path, want)
        return False

    async def put(self, digest: Digest, data: bytes) -> None:
        """Store a small object. Raises Untrusted if `data` has another hash, and OutOfSpace."""
        await self._pools.files(self._require_space, len(data))
        await self._pools.files(self._store.put, digest, data)

    async def put_small(self, objects: Sequence[tuple[Want, bytes]]) -> None:
        """Store small whole objects together. Raises OutOfSpace, and Untrusted (DIGEST) if one has another hash; then
        none is stored."""
        await self._pools.files(self._require_space, sum(len(data) for _, data in objects))
        await self._pools.whole_files(self.keep_small, objects)

    def keep_small(self, objects: Sequence[tuple[Want, bytes]]) -> None:
        """The same, without asking for free space. Blocking."""
        named = [(want, data) for want, data in objects if want.path]
        self._ledger.tables.pieces.store_all([self._hashed(io.BytesIO(data), want)[0] for want, data in named])
        self._store.put_all({want.digest: data for want, data in objects})

    def records(self, want: Want, layout: str) -> None:
        """Compute and store the piece records of a stored blob in a layout. Blocking.

        Raises Untrusted (PIECE-INDEX) if `want.path` and the head of the blob require another layout: a false index
        costs no more than that head. Raises Untrusted (DIGEST) if the blob is damaged; it is quarantined then.
        """
        with blob_reader(self._store, want.digest, want.size, MAX_READ) as file:
            if piece_lengths(want.path, file, want.size)[0] != layout:
                why = f"the pieces of {want.path} do not have layout {layout}"
                raise Untrusted("piece index refused", why=why, code="PIECE-INDEX")
            try:
                self._hash(file, want)
            except Untrusted:
                self._store.quarantine(want.digest, "its bytes no longer have its hash")
                raise

    def remember_states(self, digest: Digest, size: int, states: Sequence[bytes]) -> None:
        """Store the chained records of a stored blob that has none. Blocking."""
        pieces = self._ledger.tables.pieces
        if pieces.records(digest, CHAINED_LAYOUT) is None:
            records = encode_records(chained_records(size, states, digest))
            pieces.store_records(digest, size, CHAINED_LAYOUT, records)

    def check_pieces(self, published: Published | Observed) -> None:
        """Compare the piece index with the files, and store the piece records that others fetch by. Blocking.

        Raises Untrusted (PIECE-INDEX, PIECE-RECORDS) if the index does not match the files.
        """
        for want, layout in self.unrecorded(*read_artifact(self._store, published.manifest, published.pieces)):
            self.records(want, layout.layout)
            records = self._ledger.tables.pieces.records(want.digest, layout.layout) or b""
            check_records(records, size=want.size, expected=layout)

    def unrecorded(self, manifest: Manifest, index: PieceIndex) -> list[tuple[Want, PieceLayout]]:
        """The files of an artifact of which no piece records are stored in the layout of the index: each once, under
        whatever number of paths it is listed, because each is read whole. Blocking.

        Raises Untrusted (PIECE-RECORDS) if stored ones do not match the index, or it has two roots for one file.
        """
        stored = self._ledger.tables.pieces.all_records({entry.sha256 for entry in manifest.files})
        missing, known = [], dict[tuple[Digest, str], tuple[int, PieceLayout]]()
        for want, layout in _files_with_layouts(manifest, index):
            key, said = (want.digest, layout.layout), (want.size, layout)
            if (before := known.get(key)) is not None:
                if before != said:
                    why = f"{want.path} is listed under another path with another size or root"
                    raise Untrusted("piece records refused", why=why, code="PIECE-RECORDS")
                continue
            known[key] = said
            if (records := stored.get(key)) is None:
                missing.append((want, layout))
            else:
                check_records(records, size=want.size, expected=layout)
        return missing

    def remove_stale(self, before: float) -> None:
        """Remove partial uploads last written before a time (POSIX seconds). Blocking. Raises Unavailable (DISK)."""
        with disk_errors("stale uploads were not removed"):
            for partial in self._partial(sha256(b"")).parent.glob(f"*{_SUFFIX}"):
                with suppress(FileNotFoundError):  # it was complete meanwhile
                    if partial.stat().st_mtime < before:
                        partial.unlink()

    @contextmanager
    def _locked(self, digest: Digest) -> Iterator[None]:
        with lock_if_free(self._store.partial_path(digest).parent, digest) as free:
            if not free:
                raise Conflict("this object is being received already", why=short(digest), code="BLOB-BUSY")
            yield

    def _partial(self, digest: Digest) -> Path:
        path = self._store.partial_path(digest)
        return path.with_name(path.name + _SUFFIX)

    def _require_space(self, missing: int) -> None:
        free = self._store.free_bytes()
        if free is not None and free < missing + self.reserve_bytes:
            why = f"{missing} bytes to come, {free} free, and {self.reserve_bytes} of them stay free"
            raise OutOfSpace("the node's disk is full", why=why, hint=LESS_RESERVE)

    def _begin(self, digest: Digest, offset: int) -> int:
        received = self.received(digest)
        if offset != received:
            raise Conflict("wrong upload offset", why=f"{received} bytes are stored, not {offset}", code="OFFSET")
        return received

    def _append(self, digest: Digest, at: int, chunk: bytes) -> None:
        with disk_errors(f"{short(digest)} was not received"):
            descriptor = os.open(self._partial(digest), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                left = memoryview(chunk)
                while left:  # a disk that becomes full takes a part
                    written = os.pwrite(descriptor, left, at)
                    left, at = left[written:], at + written
            finally:
                os.close(descriptor)

    def _admit(self, want: Want) -> None:
        partial = self._partial(want.digest)
        try:
            with partial.open("rb") as file:
                self._hash(file, want)
        except Untrusted:
            partial.unlink(missing_ok=True)
            raise
        self._store.admit(partial, want.digest, want.size)

    def _adopt(self, path: Path, want: Want) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise NotFound(f"no file {path}") from error
        except OSError as error:
            raise Malformed(f"{path} cannot be adopted", why=error.strerror or "", code="NOT-A-FILE") from error
        with os.fdopen(descriptor, "rb") as file:
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                raise Malformed(f"{path} cannot be adopted", why="it is not a regular file", code="NOT-A-FILE")
            if before.st_size != want.size:
                raise Untrusted("size does not match", why=f"the file has {before.st_size} bytes", code="DIGEST")
            self._hash(file, want)
        if _file_version(path.lstat()) != _file_version(before):
            raise Conflict(f"{path} changed while it was read", why="another process writes to it", code="CHANGED")
        self._store.admit(path, want.digest, want.size, link=True)

    def _hash(self, file: io.BufferedReader[Any] | io.BytesIO, want: Want) -> None:
        """Hash a file and store its piece records. Raises Untrusted (DIGEST)."""
        hashed, states = self._hashed(file, want)
        if want.path:
            self._ledger.tables.pieces.store_all((hashed,))
            if states:
                self.remember_states(want.digest, want.size, states)

    def _hashed(
        self, file: io.BufferedReader[Any] | io.BytesIO, want: Want
    ) -> tuple[FileRecords, Sequence[bytes] | None]:
        """The piece records of a file, and its states for chained ones, if it has any. Raises Untrusted (DIGEST)."""
        layout, lengths = piece_lengths(want.path, file, want.size)
        file.seek(0)
        try:
            found = hash_pieces(file, lengths, lambda count: None)
        except EOFError as error:
            raise Untrusted("fewer bytes than announced", why=short(want.digest), code="DIGEST") from error
        if found.digest != want.digest:
            self._metrics.verify_failures.labels("upload").inc()
            raise Untrusted("digest does not match", why=f"the bytes hash to {found.digest}", code="DIGEST")
        return FileRecords(want.digest, want.size, layout, encode_records(found.records)), found.states


def _file_version(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def missing_objects(store: BlobStore, statements: Iterable[Statement]) -> list[Want]:
    """Side objects that are not stored. Blocking. Raises Untrusted if a stored one has another size."""
    named = dict.fromkeys(item for statement in statements for item in statement.objects)
    return [Want(item.digest, item.size) for item in named if not _has(store, item.digest, item.size)]


def read_artifact(store: BlobStore, manifest: SideObject, pieces: SideObject) -> tuple[Manifest, PieceIndex]:
    """The two stored documents that name every byte of an artifact. Blocking.

    Raises Malformed, and Untrusted (PIECE-INDEX) if they do not list the same files.
    """
    contents = read_manifest(store, manifest)
    if pieces.size > most_index(contents):  # else a member could have every other one parse 64 MiB for each artifact
        raise Untrusted("piece index refused", why="it is too large for the manifest's files", code="PIECE-INDEX")
    index = PieceIndex.parse(_document(store, pieces, MAX_INDEX))
    if [path for path, _ in index.files] != [entry.path for entry in contents.files]:
        raise Untrusted("piece index refused", why="it does not list the manifest's files", code="PIECE-INDEX")
    return contents, index


def most_index(manifest: Manifest) -> int:
    """Bytes that the piece index of these files has at most: some 130 a file, and the path, of which JSON escapes two
    characters by one more."""
    return 256 + sum(256 + 2 * len(entry.path.encode()) for entry in manifest.files)


def read_manifest(store: BlobStore, manifest: SideObject) -> Manifest:
    """Blocking. Raises Malformed, and what reading the store raises."""
    return Manifest.parse(_document(store, manifest, MAX_MANIFEST))


def read_in_one_step(manifests: Iterable[SideObject | None]) -> int:
    """How many of these, from the first, a background reader reads in one step: at least one, so many that their
    manifests have at most `STEP_BYTES` together."""
    count = size = 0
    for item in manifests:
        size += item.size if item else 0
        if count and size > STEP_BYTES:
            break
        count += 1
    return count


def missing_files(store: BlobStore, manifest: Manifest) -> list[Want]:
    """Files of an artifact that are not stored, each once. Blocking."""
    wants = {entry.sha256: Want(entry.sha256, entry.size, entry.path) for entry in manifest.files}
    if (empty := wants.get(sha256(b""))) is not None and empty.size == 0:
        store.put(empty.digest, b"")
    return [want for want in wants.values() if not _has(store, want.digest, want.size)]


def _files_with_layouts(manifest: Manifest, index: PieceIndex) -> Iterator[tuple[Want, PieceLayout]]:
    for entry, (_, layout) in zip(manifest.files, index.files, strict=True):
        yield Want(entry.sha256, entry.size, entry.path), layout


def _document(store: BlobStore, item: SideObject, limit: int) -> bytes:
    if item.size > limit:
        raise Malformed("document too large", why=f"{item.size} bytes, at most {limit} are read")
    if item.size <= MAX_READ:
        return store.read(item.digest, 0, item.size)  # without a question for the size
    return b"".join(store.iterate(item.digest, 0, item.size))


def _has(store: BlobStore, digest: Digest, size: int) -> bool:
    if not store.has(digest):
        return False
    if (found := store.size(digest)) != size:
        why = f"{digest} has {found} bytes, not {size}"
        raise Untrusted("size does not match", why=why, code="SIZE")
    return True
