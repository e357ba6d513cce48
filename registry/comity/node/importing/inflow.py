"""One file of an import, for those who read it while it comes.

No signature says what its pieces are; what is known is the SHA-256 that the upstream lists for the whole. So a range
that stops before the end waits for it: it would be a whole answer of bytes that nobody has verified. An answer that
reaches the end begins at once, and is cut off before its last slice where the hash turns out to be another one. Each
slice is read from the disk, and sent only if it is still what came in.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

from comity.node.coming import SLICE, Coming, changed, opened
from comity.node.pools import Pools
from comity.trust.errors import Unavailable


class Inflow(Coming):
    """`came` and `lost` are called in the thread that fetches it; everything else as for any `Coming`.

    Args:
        on_lost: called on the event loop where bytes were thrown away that somebody may have.
    """

    def __init__(self, path: Path, size: int, loop: asyncio.AbstractEventLoop, on_lost: Callable[[], None]) -> None:
        super().__init__()
        self._path = path
        self._size = size
        self._loop = loop
        self._on_lost = on_lost
        self._whole = False
        self._begin()

    def _begin(self) -> None:
        self._had, self._hash = 0, hashlib.sha256()
        self._slices: list[bytes] = []

    def came(self, data: bytes) -> None:
        known, view = len(self._slices), memoryview(data)
        while view:
            part = view[: SLICE - self._had % SLICE]
            view = view[len(part) :]
            self._hash.update(part)
            self._had += len(part)
            if self._had % SLICE == 0 or self._had == self._size:
                self._slices.append(self._hash.digest())
                self._hash = hashlib.sha256()
        if len(self._slices) > known:
            self._loop.call_soon_threadsafe(self._tell)

    def lost(self) -> None:
        had = self._had
        self._begin()
        if had:
            self._loop.call_soon_threadsafe(self._on_lost)

    def verified(self) -> None:
        """The whole of it has the hash that it should have."""
        self._whole = True
        self._tell()

    async def read(self, offset: int, length: int, pools: Pools) -> AsyncGenerator[bytes, None]:
        """As for any `Coming`. Raises Unavailable (BLOB-CHANGED) too where what came before was thrown away."""
        if offset + length < self._size:
            while not (self._whole or self._over):
                await self._change.wait()
        slices = self._slices
        async with aclosing(super().read(offset, length, pools)) as parts:
            async for part in parts:
                self._require_same(slices)
                yield part
        self._require_same(slices)  # the store has the end of another file

    def _ready(self, offset: int) -> bool:
        number = offset // SLICE
        return number < len(self._slices) and (self._whole or number < (self._size - 1) // SLICE)

    def _slice(self, offset: int, end: int) -> bytes | None:
        slices, number = self._slices, offset // SLICE
        begin = number * SLICE
        with opened(self._path, self._name) as descriptor:
            if descriptor is None:
                return None
            data = os.pread(descriptor, min(SLICE, self._size - begin), begin)
        if number >= len(slices) or hashlib.sha256(data).digest() != slices[number]:
            raise self._changed()
        return data[offset - begin : end - begin]

    def _require_same(self, slices: list[bytes]) -> None:
        if self._slices is not slices:
            raise self._changed()

    @property
    def _name(self) -> str:
        return f"file {self._path.name} of an import"

    def _changed(self) -> Unavailable:
        return changed(self._name, "what came before")
