"""The receiving side of a transfer: the partial file, the proof of the whole file, and what becomes of each piece.

A piece in a buffer (`HeldPiece`) goes one way; its holder passes it on or releases it:

    a request receives it -> a thread writes it to the partial file -> it is counted -> the proof hashes it

The partial file is its own journal. Only verified pieces are written, and pieces found in it later are hashed before
use, so there is no second file that could be torn, stale or about other records, and no fsync per piece: a crash can
lose pieces but never add bad ones. Holes are skipped where the file system reports them. Pieces are written past the
page cache where that is wanted and the file system allows it (docs/decisions, 36).

The whole file is proven in one of two ways. By plain records its hash is computed in file order while pieces arrive, so
that no second pass over the disk is needed; each byte is hashed twice. By chained records (`comity.trust.artifact`) the
last piece that is right proves it; each byte is hashed once, in any order.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, Protocol, TypeVar

from comity.content import durable, fault
from comity.hashing import FileHash
from comity.transfer.limits import TransferLimits
from comity.transfer.pieces import ALIGNMENT, HeldPiece, PieceBuffers, PieceHash, WantedFile, hash_piece
from comity.transfer.sources import BlockingStream, LocalSource
from comity.trust.encoding import Digest, short
from comity.trust.errors import OutOfSpace, Unavailable, Untrusted

LOCAL_NAME: Final = "this machine"
READERS: Final = 4
"""Local pieces that are read and hashed at a time."""
HOT: Final = 512 * 1024
"""Bytes that are received and then hashed: few enough to be still in the cache of the core."""
MAKE_ROOM: Final = "free some space, then run the same command again: it continues from here"
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DIRECT: Final[int] = getattr(os, "O_DIRECT", 0)
P = ParamSpec("P")
T = TypeVar("T")


class TransferObserver(Protocol):
    """Called on the transfer's event loop; must not block."""

    def arrived(self, piece: int) -> None:
        """A piece is verified and in the partial file."""
        ...

    def awaited(self) -> Collection[int]:
        """Pieces, ascending, that a reader waits for: fetched before others. May include pieces already here."""
        ...


class NoObserver:
    """An observer without readers."""

    def arrived(self, piece: int) -> None:
        pass

    def awaited(self) -> Collection[int]:
        return ()


class PieceReceiver(Protocol):
    """What the requests of a transfer do with its pieces; `TransferReceiver` says what each method does."""

    async def hold(self, piece: int) -> HeldPiece: ...
    def receive(self, held: HeldPiece, stream: BlockingStream, arrived: Callable[[int], None]) -> bytes: ...
    def write(self, held: HeldPiece) -> bytes: ...
    def write_hashed(self, held: HeldPiece, found: bytes) -> bytes: ...
    def start(self, work: Callable[[], T]) -> asyncio.Future[T]: ...
    def accept(self, held: HeldPiece, source: str) -> None: ...


class PartialFile:
    """The partial file of `want` at `path`. Blocking; thread-safe. All methods raise OutOfSpace or Unavailable (DISK).

    While `past_cache` returns true, pieces are written past the page cache, from memory that is aligned as their offset
    (`PieceBuffers`).

    Each method opens the file itself: a thread that outlives a cancelled transfer then cannot use a descriptor that was
    closed or reused.
    """

    def __init__(self, path: Path, want: WantedFile, past_cache: Callable[[], bool] | None = None) -> None:
        self._path = path
        self._want = want
        self._past_cache = past_cache or (lambda: want.chained)
        self._direct = bool(_DIRECT)

    def candidate_pieces(self) -> list[int]:
        """Pieces whose bytes are in the file, not yet verified. Creates the file if missing."""
        self._make_writable()
        offsets, claimed = self._want.offsets, list[int]()
        with self._descriptor(os.O_RDWR | os.O_CREAT) as fd:
            for start, stop in _extents(fd):
                first = max(bisect_right(offsets, start) - 1, claimed[-1] + 1 if claimed else 0)
                claimed.extend(range(first, min(bisect_left(offsets, stop), len(offsets) - 1)))
        return claimed

    def _make_writable(self) -> None:
        """Undo what a crash left that came after the file was made read-only and before it got its final name."""
        if self._path.exists():
            with self._descriptor(os.O_RDONLY) as fd:
                mode = os.fstat(fd).st_mode
                if not mode & stat.S_IWUSR:
                    os.fchmod(fd, stat.S_IMODE(mode) | stat.S_IWUSR)

    def require_space(self, missing: int) -> None:
        """Raise OutOfSpace if the disk has less than `missing` bytes free."""
        with self._descriptor(os.O_RDONLY) as fd:
            disk = os.fstatvfs(fd)
        free = disk.f_bavail * disk.f_frsize
        if disk.f_blocks and free < missing:
            raise OutOfSpace(
                f"not enough disk space for {short(self._want.digest)}",
                why=f"{missing} bytes are missing and {free} bytes are free",
                hint=MAKE_ROOM,
            )

    def has_piece(self, piece: int, view: memoryview) -> bool:
        """Read a piece into `view`; returns whether its hash matches."""
        return self.read(piece, view) and hash_piece(self._want, piece, view) == self._want.records[piece].sha256

    def write_piece(self, piece: int, view: memoryview) -> bytes:
        """Write `view` at the offset of `piece` if its hash matches. Returns the hash of `view`."""
        found = hash_piece(self._want, piece, view)
        self.write_hashed(piece, view, found)
        return found

    def write_hashed(self, piece: int, view: memoryview, found: bytes) -> None:
        """Write `view`, whose hash is `found`, at the offset of `piece` if the hash matches."""
        if found == self._want.records[piece].sha256:
            at = self._want.offsets[piece]
            direct = self._direct and self._past_cache()
            for start, stop in self._write_direct(view, at) if direct else ((0, len(view)),):
                if start < stop:
                    with self._descriptor(os.O_WRONLY) as fd:
                        _write(fd, view[start:stop], at + start)
            fault.point("partial.piece")

    def _write_direct(self, view: memoryview, at: int) -> Sequence[tuple[int, int]]:
        """Write the whole blocks of `view` past the page cache. Returns the (start, stop) of what is left; that is all,
        also for all later pieces, if the file system refuses such a write."""
        start = -at % ALIGNMENT
        stop = start + (len(view) - start) // ALIGNMENT * ALIGNMENT
        if stop <= start:
            return ((0, len(view)),)
        try:
            with self._descriptor(os.O_WRONLY | _DIRECT) as fd:
                _write(fd, view[start:stop], at + start)
        except Unavailable as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EINVAL:
                self._direct = False
                return ((0, len(view)),)
            raise
        return (0, start), (stop, len(view))

    def read(self, piece: int, view: memoryview) -> bool:
        """Read a piece into `view`. Returns False if the file ends inside the piece."""
        with self._descriptor(os.O_RDONLY) as fd:
            return os.preadv(fd, [view], self._want.offsets[piece]) == len(view)

    def seal(self) -> None:
        """Truncate the file to its size and sync it. Creates the file if missing, for an empty file."""
        with self._descriptor(os.O_WRONLY | os.O_CREAT) as fd:
            os.ftruncate(fd, self._want.size)
            durable.fsync(fd, point="partial.fsync")

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _descriptor(self, flags: int) -> Iterator[int]:
        try:
            fd = os.open(self._path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                yield fd
            finally:
                os.close(fd)
        except OSError as error:
            what = f"the partial file of {short(self._want.digest)} failed"
            why = f"{error.strerror}, at {self._path}"
            if error.errno in _FULL:
                raise OutOfSpace(what, why=why, hint=MAKE_ROOM) from error
            raise Unavailable(what, why=why, code="DISK") from error


def _write(fd: int, view: memoryview, at: int) -> None:
    written = 0
    while written < len(view):
        written += os.pwrite(fd, view[written:], at + written)


def _extents(fd: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the ranges that hold data; the whole file if the file system does not report holes."""
    stop, size = 0, os.fstat(fd).st_size
    while stop < size:
        try:
            start = os.lseek(fd, stop, os.SEEK_DATA)
            stop = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            start, stop = stop, size
        yield start, stop


class FileProof(Protocol):
    """Proves a whole file from its verified pieces."""

    def add(self, held: HeldPiece) -> None:
        """Add a piece that is verified and in the partial file, and release it sooner or later."""
        ...

    async def digest(self, executor: Executor | None) -> Digest:
        """The file's SHA-256, when every piece has been added. Raises Unavailable if a piece cannot be read."""
        ...

    @property
    def states(self) -> Sequence[bytes] | None:
        """The states for chained records, after `digest`; None if they are not known."""
        ...


class ChainProof:
    """The proof by chained records: once every piece is right, the last record is the hash of the file."""

    def __init__(self, want: WantedFile) -> None:
        self._want = want
        self._missing = len(want.records)
        self._complete = asyncio.Event()

    def add(self, held: HeldPiece) -> None:
        held.release()
        self._missing -= 1
        if not self._missing:
            self._complete.set()

    async def digest(self, executor: Executor | None) -> Digest:
        await self._complete.wait()
        return Digest(self._want.records[-1].sha256.hex())

    @property
    def states(self) -> Sequence[bytes] | None:
        return [record.sha256 for record in self._want.records[:-1]]


class FileHasher:
    """Hashes pieces in file order as they become verified.

    A piece is held until it is hashed if it extends the verified prefix of the file, or is less than `ahead` pieces
    beyond it. Pieces of the prefix do not depend on a source; `ahead` plus the open streams must leave a buffer
    for each stream. Other pieces are read back later from the partial file, into the hasher's own buffer, because all
    shared buffers may then be in use for later pieces.
    """

    def __init__(self, want: WantedFile, partial: PartialFile, *, ahead: int) -> None:
        self._want = want
        self._partial = partial
        self._ahead = ahead
        self._verified = bytearray(len(want.records) + 1)
        self._verified_prefix = 0
        self._held: dict[int, HeldPiece] = {}
        self._added = asyncio.Event()
        self._sha = FileHash(want.size)

    @property
    def states(self) -> Sequence[bytes] | None:
        return self._sha.states

    def add(self, held: HeldPiece) -> None:
        self._verified[held.number] = True
        while self._verified[self._verified_prefix]:
            self._verified_prefix += 1
        if held.number < self._verified_prefix + self._ahead:
            self._held[held.number] = held
        else:
            held.release()
        self._added.set()

    async def digest(self, executor: Executor | None) -> Digest:
        """The file's SHA-256, when every piece has been added. Raises Unavailable if a piece cannot be read."""
        loop, sha, own = asyncio.get_running_loop(), self._sha, bytearray()
        for piece, record in enumerate(self._want.records):
            while piece >= self._verified_prefix:
                self._added.clear()
                await self._added.wait()
            held = self._held.pop(piece, None)
            if held is not None:
                await loop.run_in_executor(executor, sha.update, held.view)
                held.release()
                continue
            own = own or bytearray(max(record.length for record in self._want.records))
            view = memoryview(own)[: record.length]
            if not await loop.run_in_executor(executor, self._partial.read, piece, view):
                what = f"the partial file of {short(self._want.digest)} failed"
                raise Unavailable(what, why=f"it lost piece {piece}, which was written", code="DISK")
            await loop.run_in_executor(executor, sha.update, view)
        return Digest(sha.digest().hex())


class TransferReceiver:
    """What becomes of the pieces of one transfer. Not thread-safe: call from the event loop. Disk work and hashing use
    threads.

    Attributes:
        buffers: those that bound the memory of the transfer.
    """

    def __init__(
        self,
        want: WantedFile,
        into: Path,
        limits: TransferLimits,
        on_progress: Callable[[int], None],
        observer: TransferObserver,
        executor: Executor | None,
        past_cache: Callable[[], bool] | None = None,
    ) -> None:
        self._want = want
        self._executor = executor
        self._on_progress = on_progress
        self._observer = observer
        self._partial = PartialFile(into, want, past_cache)
        largest = max((record.length for record in want.records), default=0)
        self.buffers = PieceBuffers(limits.buffers, largest, aligned=want.chained or past_cache is not None)
        self._proof: FileProof = (
            ChainProof(want) if want.chained else FileHasher(want, self._partial, ahead=limits.buffers - limits.streams)
        )
        self._piece_sources: list[str | None] = [None] * len(want.records)

    @property
    def states(self) -> Sequence[bytes] | None:
        """The file's states for chained records, after `hash_file`; None if they are not known."""
        return self._proof.states

    def missing(self) -> list[int]:
        return [piece for piece, source in enumerate(self._piece_sources) if source is None]

    async def resume(self) -> int:
        """Take in what an earlier try left. Returns its bytes."""
        claimed = await self._in_thread(self._partial.candidate_pieces)
        return await self._add_local_pieces(claimed, self._partial.has_piece)

    async def reuse(self, local: LocalSource) -> int:
        """Take in what other files here hold. Returns its bytes."""

        def fill(piece: int, view: memoryview) -> bool:
            record = self._want.records[piece]
            return any(self._partial.write_piece(piece, view) == record.sha256 for _ in local.copies(record, view))

        return await self._add_local_pieces(self.missing(), fill)

    async def require_space(self) -> None:
        """Raise OutOfSpace if the missing pieces do not fit on the disk."""
        missing = sum(self._want.records[piece].length for piece in self.missing())
        await self._in_thread(self._partial.require_space, missing)

    async def hold(self, piece: int) -> HeldPiece:
        """Wait for a buffer for a piece; before its first byte is read, so that a source sends no more than fits."""
        buffer = await self.buffers.take()
        return HeldPiece(piece, self.buffers.view(buffer, self._want, piece), buffer, self.buffers)

    def receive(self, held: HeldPiece, stream: BlockingStream, arrived: Callable[[int], None]) -> bytes:
        """Receive a piece, and hash each part while it is in the cache of the core. Returns its hash. Blocking. Raises
        errors of the source."""
        hashed = PieceHash(self._want, held.number)
        for start in range(0, len(held.view), HOT):
            part = held.view[start : start + HOT]
            stream.fill(part, arrived)
            hashed.update(part)
        return hashed.result()

    def write(self, held: HeldPiece) -> bytes:
        """Write a piece to the partial file if its hash matches. Returns its hash. Blocking."""
        return self._partial.write_piece(held.number, held.view)

    def write_hashed(self, held: HeldPiece, found: bytes) -> bytes:
        """Write a piece, whose hash is `found`, if that is right. Returns `found`. Blocking."""
        self._partial.write_hashed(held.number, held.view, found)
        return found

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run blocking `work` in a thread."""
        return asyncio.get_running_loop().run_in_executor(self._executor, work)

    def accept(self, held: HeldPiece, source: str) -> None:
        """Count a piece that is verified and written. Call once per piece."""
        piece = held.number
        self._piece_sources[piece] = source
        self._proof.add(held)
        self._on_progress(self._want.records[piece].length)
        self._observer.arrived(piece)

    async def hash_file(self) -> None:
        """Hash the whole file in order while its pieces arrive; sync the file if the hash matches.

        Otherwise removes the file and raises Untrusted (code PIECE-INDEX), which lists the source of each piece.
        """
        digest = await self._proof.digest(self._executor)
        if digest == self._want.digest:
            await self._in_thread(self._partial.seal)
            return
        await self._in_thread(self._partial.discard)
        raise Untrusted(
            f"the pieces of {short(self._want.digest)} do not make the file",
            why=f"each piece matches its hash, but the file has sha256 {short(digest)}: {self._pieces_by_source()}",
            hint="try another piece index",
            code="PIECE-INDEX",
        )

    async def _add_local_pieces(self, pieces: Iterable[int], fill: Callable[[int, memoryview], bool]) -> int:
        remaining, total = iter(pieces), 0

        async def reader() -> None:
            nonlocal total
            for piece in remaining:
                held = await self.hold(piece)
                if await self._in_thread(fill, piece, held.view):
                    self.accept(held, LOCAL_NAME)
                    total += self._want.records[piece].length
                else:
                    held.release()

        async with asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(reader())
        return total

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.start(partial(function, *args, **kwargs))

    def _pieces_by_source(self) -> str:
        runs: dict[str, list[str]] = {}
        start = 0
        for source, group in itertools.groupby(self._piece_sources):
            stop = start + sum(1 for _ in group)
            runs.setdefault(str(source), []).append(f"{start}-{stop - 1}" if stop - start > 1 else str(start))
            start = stop
        return "; ".join(f"{source}: pieces {', '.join(_first(numbers, 20))}" for source, numbers in runs.items())


def _first(items: list[str], most: int) -> Iterator[str]:
    yield from items[:most]
    if len(items) > most:
        yield "…"
