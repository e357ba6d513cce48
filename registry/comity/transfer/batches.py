"""Small files in batches: one call brings many of them, from many untrusted sources.

To the scheduler, the files of a transfer are one file, of which a batch is a piece. So it decides as for pieces who is
asked for which batch, and a source that leaves files out, sends wrong bytes, stops or never ends costs its batch, which
another source is asked for. The hash of a batch is made of the hashes of its files, which the manifest names: wrong
bytes accuse the source alone.

A file is small up to `limits.SMALL_OBJECT` bytes: what a node answers in one message with others, and what costs more
to ask for than to send, up to 20 MB/s with a round trip of 13 ms.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from bisect import bisect_left
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import accumulate
from typing import Final, Protocol, TypeVar

from comity.transfer.fetch import FetchOptions, FetchResult, PieceRequests, first_cause
from comity.transfer.links import SourceHealth
from comity.transfer.pieces import HeldPiece, PieceBuffers, WantedFile
from comity.transfer.scheduler import Schedule
from comity.transfer.sources import BlockingStream, NamedSource
from comity.trust.artifact import PIECE_SIZE, PieceRecord
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import NotFound, Unavailable
from comity.trust.frozen import frozen
from comity.wire import limits
from comity.wire.calls import span

T = TypeVar("T")
LEAST: Final = 1024 * 1024
"""Bytes of a batch below which more calls cost more than several sources at once save."""
FINAL: Final = frozenset({"PATIENCE", "DISK"})
"""The codes of failures after which it is of no use to ask for each file by itself."""
SHARES: Final = 8
"""Batches that a larger transfer has at least, so that several sources share it."""


@frozen
class SmallFile:
    """A wanted file of 1 to `limits.SMALL_OBJECT` bytes."""

    digest: Digest
    size: int


class ObjectSource(NamedSource, Protocol):
    """A remote source of whole small files."""

    def objects(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        """Those of these files that the source has, in their order, their hashes checked. Raises as `BlobSource.read`
        does."""


def cut(files: Sequence[SmallFile]) -> list[list[SmallFile]]:
    """The files in batches, in order: for one call each, and of at most one piece."""
    most = min(PIECE_SIZE, max(LEAST, sum(file.size for file in files) // SHARES))
    batches, size = list[list[SmallFile]](), 0
    for file in files:
        if not batches or len(batches[-1]) == limits.OBJECTS or size + file.size > most:
            batches.append([])
            size = 0
        batches[-1].append(file)
        size += file.size
    return batches


async def fetch_batches(
    files: Sequence[SmallFile],
    sources: Sequence[ObjectSource],
    keep: Callable[[Mapping[Digest, bytes]], None],
    *,
    on_kept: Callable[[Sequence[SmallFile], str], None] = lambda files, source: None,
    options: FetchOptions | None = None,
) -> FetchResult:
    """Fetch all `files`, each of another digest, verified.

    Args:
        keep: called in a thread with the verified files of a batch; it may be called again with the same ones.
        on_kept: called on the event loop, once for each file, with the name of the source that it came from.

    Raises as `fetch_file` does, and what `keep` raises. What was kept until then stays.
    """
    options, batches = options or FetchOptions(), cut(files)
    want = _joined(batches)
    health = {source.key: options.health.setdefault(source.key, SourceHealth()) for source in sources}
    # One batch a request, and a second one while the first arrives.
    bounds = replace(options.limits, run_bytes=1, fast=math.inf, divisible=False)
    receiver = _BatchReceiver(want, batches, keep, on_kept, options)
    hosts = {source.key: source.host for source in sources}
    schedule = Schedule(want.offsets, range(len(batches)), health, bounds, hosts)
    try:
        with span("fetch batches", comity_bytes=want.size, comity_sources=len(sources)):
            async with asyncio.TaskGroup() as tasks:
                ranges = [_BatchSource(source, want, batches) for source in sources]
                requests = PieceRequests(want, ranges, bounds, schedule, receiver, tasks, options.jitter)
                await requests.run()
    except BaseExceptionGroup as failures:
        cause = first_cause(failures)
        raise cause from cause.__cause__
    finally:
        schedule.accuse()
    return requests.result()


def _joined(batches: Sequence[Sequence[SmallFile]]) -> WantedFile:
    """The files as one, whose pieces are the batches."""
    records = [
        PieceRecord(sum(file.size for file in batch), _record(file.digest for file in batch)) for batch in batches
    ]
    return WantedFile(sha256(b"".join(record.sha256 for record in records)), sum(r.length for r in records), records)


def _record(digests: Iterator[str]) -> bytes:
    """The hash of a batch whose files have these digests."""
    return hashlib.sha256("".join(digests).encode()).digest()


class _BatchSource:
    """A source of files as one of ranges: a range is whole batches, and each of them a call."""

    def __init__(self, source: ObjectSource, want: WantedFile, batches: Sequence[Sequence[SmallFile]]) -> None:
        self.key = source.key
        self.name = source.name
        self.host = source.host
        self._source = source
        self._want = want
        self._batches = batches

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """As `BlobSource.read`. Raises NotFound if the source leaves a file out, and where it is of a version without
        batches."""
        first, stop = (bisect_left(self._want.offsets, at) for at in (offset, offset + length))
        for batch in self._batches[first:stop]:
            left = iter(batch)
            try:
                async with aclosing(self._source.objects([file.digest for file in batch])) as objects:
                    async for found, data in objects:
                        wanted = next(left, None)
                        if wanted is None or (found, len(data)) != (wanted.digest, wanted.size):
                            raise _left_out(wanted)
                        yield data
            except Unavailable as error:
                if error.code != "UNIMPLEMENTED":
                    raise
                raise NotFound("no batches of files here", why=error.why) from error
            if (wanted := next(left, None)) is not None:
                raise _left_out(wanted)


def _left_out(wanted: SmallFile | None) -> NotFound:
    which = f"{short(wanted.digest)} of {wanted.size} bytes" if wanted else "no other file"
    return NotFound("the answer is not the files asked for", why=f"{which} would have followed")


class _BatchReceiver:
    """Verifies each file of a received batch, and keeps them. A `PieceReceiver`."""

    def __init__(
        self,
        want: WantedFile,
        batches: Sequence[Sequence[SmallFile]],
        keep: Callable[[Mapping[Digest, bytes]], None],
        on_kept: Callable[[Sequence[SmallFile], str], None],
        options: FetchOptions,
    ) -> None:
        self._want = want
        self._batches = batches
        self._keep = keep
        self._on_kept = on_kept
        self._executor = options.executor
        self._buffers = PieceBuffers(options.limits.buffers, max(record.length for record in want.records))

    async def hold(self, piece: int) -> HeldPiece:
        buffer = await self._buffers.take()
        return HeldPiece(piece, self._buffers.view(buffer, self._want, piece), buffer, self._buffers)

    def receive(self, held: HeldPiece, stream: BlockingStream, arrived: Callable[[int], None]) -> bytes:
        stream.fill(held.view, arrived)
        return self._hash(held)

    def write(self, held: HeldPiece) -> bytes:
        return self.write_hashed(held, self._hash(held))

    def write_hashed(self, held: HeldPiece, found: bytes) -> bytes:
        if found == self._want.records[held.number].sha256:
            self._keep({file.digest: bytes(part) for file, part in self._parts(held)})
        return found

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._executor, work)

    def accept(self, held: HeldPiece, source: str) -> None:
        held.release()
        self._on_kept(self._batches[held.number], source)

    def _hash(self, held: HeldPiece) -> bytes:
        return _record(hashlib.sha256(part).hexdigest() for _, part in self._parts(held))

    def _parts(self, held: HeldPiece) -> Iterator[tuple[SmallFile, memoryview]]:
        batch = self._batches[held.number]
        for file, end in zip(batch, accumulate(file.size for file in batch), strict=True):
            yield file, held.view[end - file.size : end]
