"""The first files of a pull, asked for while its evidence is gathered and judged, and kept in memory until then.

From far away a pull takes as long as the questions that it asks one after the other, and a new connection brings little
in each round trip. So some files, of one piece together, are asked for as soon as the manifest is known, in shares from
several nodes at once. Nothing of them is on a disk before the early verdict; their SHA-256 in the manifest decides.
What is late, wrong or missing is fetched like all other files, as if nobody had asked: so a node that answers nothing
costs `STILL` seconds once, and one that answers slowly `LONGEST`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from comity.transfer.batches import ObjectSource
from comity.transfer.sources import BlobSource, RangeStream, SourceKey
from comity.trust.artifact import PIECE_SIZE, FileEntry
from comity.trust.encoding import Digest, sha256, short
from comity.trust.errors import ComityError, NotFound
from comity.trust.frozen import frozen
from comity.wire.limits import OBJECTS, SMALL_OBJECT

MOST: Final = PIECE_SIZE
"""Bytes that are asked for before the verdict: what a refused pull costs its nodes at most."""
SHARES: Final = 4
LEAST_SHARE: Final = 64 * 1024
"""Bytes below which a node more costs more than it saves."""
STILL: Final = 1.0
"""Seconds without a byte after which what has not arrived is given up."""
LONGEST: Final = 5.0
"""Seconds after the verdict in which all is to be here."""


class FirstSource(BlobSource, ObjectSource, Protocol):
    """A node that is asked for the first files."""


@frozen
class ArrivedFile:
    """A verified file, and how many of its bytes each source brought."""

    data: bytes
    by_source: Mapping[SourceKey, int]


@frozen
class AskedPart:
    """Bytes of a file that one source is asked for."""

    entry: FileEntry
    offset: int
    length: int

    @property
    def small(self) -> bool:
        """Whether it comes in one call with others."""
        return self.entry.size <= SMALL_OBJECT


def first_of(entries: Iterable[FileEntry]) -> list[FileEntry]:
    """The files of at most `MOST` bytes together that are asked for first: many small ones before few larger ones."""
    chosen, left = dict[Digest, FileEntry](), MOST
    for entry in sorted(entries, key=lambda entry: entry.size):
        if entry.size and entry.sha256 not in chosen and entry.size <= left:
            chosen[entry.sha256] = entry
            left -= entry.size
    return list(chosen.values())


def shared(entries: Sequence[FileEntry], sources: int) -> list[list[AskedPart]]:
    """The files as shares of about one size for at most as many sources; a small one is not divided. Each part is added
    to the share that has the fewest bytes."""
    total = sum(entry.size for entry in entries)
    count = max(1, min(sources, SHARES, total // LEAST_SHARE))
    fair, shares, sizes = -(-total // count), [list[AskedPart]() for _ in range(count)], [0] * count
    for entry in entries:
        at = 0
        while left := entry.size - at:
            least = sizes.index(min(sizes))
            room = max(fair - sizes[least], LEAST_SHARE)
            length = left if entry.size <= SMALL_OBJECT or left - room < LEAST_SHARE else room
            shares[least].append(AskedPart(entry, at, length))
            sizes[least] += length
            at += length
    return shares


@dataclass(slots=True)
class _Arriving:
    """A file of which parts arrive. `ended`: all are here, or one never will be."""

    data: bytearray
    left: int
    by_source: Counter[SourceKey] = field(default_factory=Counter)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def count(self, size: int, source: SourceKey) -> None:
        self.by_source[source] += size
        self.left -= size
        if not self.left:
            self.ended.set()


class FirstFiles:
    """What was asked for first in a pull. `begin` asks, `take` gives."""

    def __init__(self) -> None:
        self._files: dict[Digest, _Arriving] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._received = 0
        self._until: float | None = None

    def begin(self, sources: Sequence[FirstSource], entries: Iterable[FileEntry]) -> None:
        """Ask these sources for the first of these files; each gets a share."""
        if not sources:
            return
        chosen = first_of(entries)
        self._files = {entry.sha256: _Arriving(bytearray(entry.size), entry.size) for entry in chosen}
        for source, share in zip(sources, shared(chosen, len(sources)), strict=False):
            small = [part.entry.sha256 for part in share if part.small]
            for start in range(0, len(small), OBJECTS):
                files = {digest: self._files[digest] for digest in small[start : start + OBJECTS]}
                self._start(partial(self._objects, source, files), files.values())
            for part in share:
                if not part.small:
                    file = self._files[part.entry.sha256]
                    self._start(partial(self._read, source, part, file), [file])

    async def take(self, entry: FileEntry) -> ArrivedFile | None:
        """Return the file when all of it is here and right; None if it was not asked for, or is not to be waited for.
        To be called once for a file, after the early verdict."""
        file = self._files.pop(entry.sha256, None)
        if file is None:
            return None
        await self._wait_for(file)
        if file.left:
            return None
        data = bytes(file.data)
        return ArrivedFile(data, file.by_source) if sha256(data) == entry.sha256 else None

    async def close(self) -> None:
        """End what is still asked for."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _wait_for(self, file: _Arriving) -> None:
        """Return when the file has ended, or after giving it up: then nothing more is asked for here."""
        now = asyncio.get_running_loop().time
        if self._until is None:
            self._until = now() + LONGEST
        while not file.ended.is_set() and now() < self._until:
            received = self._received
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(file.ended.wait(), STILL)
            if received == self._received and not file.ended.is_set():
                self._until = now()
        if not file.ended.is_set():
            await self.close()

    def _start(self, asking: Callable[[], Coroutine[Any, Any, None]], files: Iterable[_Arriving]) -> None:
        async def ask() -> None:
            answered = False
            try:
                await asking()
                answered = True
            except ComityError:
                pass  # who needs the files asks again, and hears why
            finally:
                for file in () if answered else files:
                    file.ended.set()

        self._tasks.append(asyncio.create_task(ask()))

    async def _objects(self, source: FirstSource, files: Mapping[Digest, _Arriving]) -> None:
        lacking = dict(files)
        async with aclosing(source.objects(list(lacking))) as objects:
            async for digest, data in objects:
                file = lacking.pop(digest, None)
                if file is None or len(data) != len(file.data):
                    raise NotFound("the answer is not the files asked for", why=f"{short(digest)} is none of them")
                self._received += len(data)
                file.data[:] = data
                file.count(len(data), source.key)
        if lacking:
            raise NotFound("the answer is not the files asked for", why=f"it lacks {len(lacking)} of them")

    async def _read(self, source: FirstSource, part: AskedPart, file: _Arriving) -> None:
        def arrived(size: int) -> None:
            self._received += size

        async with aclosing(source.read(part.entry.sha256, part.offset, part.length)) as chunks:
            stream = RangeStream(chunks, read_timeout=LONGEST)
            await stream.fill(memoryview(file.data)[part.offset : part.offset + part.length], arrived)
            await stream.end()
        file.count(part.length, source.key)


@asynccontextmanager
async def first_files() -> AsyncIterator[FirstFiles]:
    """What is asked for first in a pull; with the block ends what nobody took."""
    first = FirstFiles()
    try:
        yield first
    finally:
        await first.close()
