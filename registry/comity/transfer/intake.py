"""Where pieces come in, from an earlier try, from this machine or from a source: checked, written, counted, hashed."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from comity.transfer.audience import Audience
from comity.transfer.partial import Partial
from comity.transfer.plan import Limits, Wanted
from comity.transfer.source import LocalSource
from comity.transfer.trail import Buffers, Trail
from comity.trust.digest import short
from comity.trust.errors import Untrusted

HERE: Final = "this machine"
READERS: Final = 4
"""Pieces on this machine that are read and hashed at a time."""

P = ParamSpec("P")
T = TypeVar("T")


class Intake:
    """The receiving end of one transfer. One event loop uses it; its disk and hash work runs in threads.

    Attributes:
        buffers: a buffer per piece, to be taken before its first byte is asked for.
    """

    def __init__(
        self,
        want: Wanted,
        into: Path,
        limits: Limits,
        on_progress: Callable[[int], None],
        audience: Audience,
        executor: Executor | None,
    ) -> None:
        self._want = want
        self._executor = executor
        self._on_progress = on_progress
        self._audience = audience
        self._partial = Partial(into, want)
        self.buffers = Buffers(limits.buffers, max((record.length for record in want.records), default=0))
        self._trail = Trail(want, self._partial, self.buffers, ahead=limits.buffers - limits.streams)
        self._givers: list[str | None] = [None] * len(want.records)

    def missing(self) -> list[int]:
        return [piece for piece, giver in enumerate(self._givers) if giver is None]

    def view(self, piece: int, buffer: bytearray) -> memoryview:
        return memoryview(buffer)[: self._want.records[piece].length]

    async def resume(self) -> int:
        """Take in what an earlier try left. Returns its bytes."""
        claimed = await self._in_thread(self._partial.claimed)
        return await self._take_in(claimed, self._partial.holds)

    async def reuse(self, local: LocalSource) -> int:
        """Take in what other files here hold. Returns its bytes."""

        def fill(piece: int, view: memoryview) -> bool:
            record = self._want.records[piece]
            return any(self._partial.keep(piece, view) == record.sha256 for _ in local.copies(record, view))

        return await self._take_in(self.missing(), fill)

    async def require_room(self) -> None:
        """Raise OutOfSpace before anything is fetched where the disk could not take what is missing."""
        missing = sum(self._want.records[piece].length for piece in self.missing())
        await self._in_thread(self._partial.require_room, missing)

    async def keep(self, piece: int, buffer: bytearray) -> bytes:
        """Write the piece in `buffer` to its place if it is right. Returns the hash that it has."""
        return await self._in_thread(self._partial.keep, piece, self.view(piece, buffer))

    def accept(self, piece: int, buffer: bytearray, giver: str) -> None:
        """Count a piece that is right and in its place, once. Takes the buffer over."""
        self._givers[piece] = giver
        self._trail.add(piece, buffer)
        self._on_progress(self._want.records[piece].length)
        self._audience.arrived(piece)

    async def hash_behind(self) -> None:
        """Hash the whole file in order while its pieces come in; make it durable when it is right.

        Raises Untrusted (code PIECE-INDEX), naming who gave what, and leaves nothing, where it is not.
        """
        digest = await self._trail.digest(self._executor)
        if digest == self._want.digest:
            await self._in_thread(self._partial.seal)
            return
        await self._in_thread(self._partial.discard)
        raise Untrusted(
            f"{short(self._want.digest)} cannot be put together from these pieces",
            why=f"each has its hash, but the file has sha256 {short(digest)}: {self._who_gave_what()}",
            hint="try another piece index",
            code="PIECE-INDEX",
        )

    async def _take_in(self, pieces: Iterable[int], fill: Callable[[int, memoryview], bool]) -> int:
        remaining, total = iter(pieces), 0

        async def reader() -> None:
            nonlocal total
            for piece in remaining:
                buffer = await self.buffers.take()
                if await self._in_thread(fill, piece, self.view(piece, buffer)):
                    self.accept(piece, buffer, HERE)
                    total += self._want.records[piece].length
                else:
                    self.buffers.give(buffer)

        async with asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(reader())
        return total

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, partial(function, *args, **kwargs))

    def _who_gave_what(self) -> str:
        runs: dict[str, list[str]] = {}
        start = 0
        for giver, group in itertools.groupby(self._givers):
            stop = start + sum(1 for _ in group)
            runs.setdefault(str(giver), []).append(f"{start}-{stop - 1}" if stop - start > 1 else str(start))
            start = stop
        return "; ".join(f"{giver}: pieces {', '.join(_first(numbers, 20))}" for giver, numbers in runs.items())


def _first(items: list[str], most: int) -> Iterator[str]:
    yield from items[:most]
    if len(items) > most:
        yield "…"
