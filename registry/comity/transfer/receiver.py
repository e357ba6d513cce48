"""The receiving side of a transfer: buffers for pieces, the proof of the whole file, and what is done with each piece.

A piece in a buffer (`HeldPiece`) goes one way; its holder passes it on or releases it:

    a request receives it -> a thread writes it to the partial file -> it is counted -> the proof hashes it

The whole file is proven in one of two ways. By plain records its hash is computed in file order while pieces arrive, so
that no second pass over the disk is needed; each byte is hashed twice. By chained records (`comity.trust.artifact`) the
last piece that is right proves it; each byte is hashed once, in any order.
"""

from __future__ import annotations

import asyncio
import itertools
import mmap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, Protocol, TypeAlias, TypeVar

from comity.hashing import FileHash
from comity.transfer.partial import ALIGNMENT, PartialFile, PieceHash
from comity.transfer.scheduler import TransferLimits, WantedFile
from comity.transfer.sources import BlockingStream, LocalSource
from comity.trust.encoding import Digest, short
from comity.trust.errors import Unavailable, Untrusted

LOCAL_NAME: Final = "this machine"
READERS: Final = 4
"""Local pieces that are read and hashed at a time."""
HOT: Final = 512 * 1024
"""Bytes that are received and then hashed: few enough to be still in the cache of the core."""

PieceBuffer: TypeAlias = bytearray | mmap.mmap
"""Memory for one piece; an `mmap` begins at a page."""

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


class PieceBuffers:
    """A fixed number of reusable piece buffers. They give back-pressure: a stream that waits for a buffer does not read
    further from its source. With `aligned`, the bytes in a buffer are as far from the beginning of a page as in the
    file from the beginning of a block."""

    def __init__(self, count: int, size: int, *, aligned: bool = False) -> None:
        self._size = size
        self._aligned = aligned and size > 0
        self._free: list[PieceBuffer] = []
        self._semaphore = asyncio.Semaphore(count)

    async def take(self) -> PieceBuffer:
        await self._semaphore.acquire()
        if self._free:
            return self._free.pop()
        return mmap.mmap(-1, self._size + ALIGNMENT) if self._aligned else bytearray(self._size)

    def view(self, buffer: PieceBuffer, want: WantedFile, piece: int) -> memoryview:
        """Where the bytes of a piece are in a buffer."""
        offset, length = want.span(piece)
        start = offset % ALIGNMENT if self._aligned else 0
        return memoryview(buffer)[start : start + length]

    def give(self, buffer: PieceBuffer) -> None:
        self._free.append(buffer)
        self._semaphore.release()


@dataclass(frozen=True, slots=True, eq=False)
class HeldPiece:
    """Piece `number` of the file in a buffer; `view` is where its bytes are, or are to be."""

    number: int
    view: memoryview
    buffer: PieceBuffer
    buffers: PieceBuffers

    def release(self) -> None:
        """Give the buffer back. Call once; nothing reads or writes `view` from then on."""
        self.buffers.give(self.buffer)


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
