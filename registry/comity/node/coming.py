"""A file that is read while it comes in, whatever brings it here.

What a reader gets is read from the disk in slices, and hashed in the memory that it is sent from. The end of the file
is not for readers until the whole has its hash: nobody can have all of a file that turns out to be another one.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from comity.content.durable import disk_errors
from comity.node.pools import Pools
from comity.trust.errors import ComityError, Unavailable

SLICE: Final = 256 * 1024
"""Bytes that a reader gets at a time: all that a client that takes nothing costs."""


class Coming(ABC):
    """Touched by the event loop, but for slices read in threads.

    Attributes:
        readers: how many read it now.
    """

    def __init__(self) -> None:
        self.readers = 0
        self._over = False
        self._failure: ComityError | None = None
        self._change = asyncio.Event()

    def end(self, failure: ComityError | None = None) -> None:
        """It is whole and in the store, or it will not be."""
        self._over, self._failure = True, failure
        self._tell()

    async def read(self, offset: int, length: int, pools: Pools) -> AsyncGenerator[bytes, None]:
        """Verified bytes of a range, in order, as they come in.

        Ends early once the whole file is in the store: whoever reads goes on there. Raises what ended the fetch, and
        Unavailable (DISK, BLOB-CHANGED) where the partial file is not what was written.
        """
        end = offset + length
        while offset < end and await self._reach(offset):
            data = await pools.files(self._slice, offset, end)
            if data is None:  # it was just moved to its place, or thrown away
                await self._until_over()
                continue
            yield data
            offset += len(data)

    async def _reach(self, offset: int) -> bool:
        """Wait for the slice at `offset`; False where the file is whole and in the store."""
        while not self._over:
            if self._ready(offset):
                return True
            await self._wait(offset)
        if self._failure is not None:
            raise self._failure
        return False

    @abstractmethod
    def _ready(self, offset: int) -> bool:
        """Whether a reader may have the byte at `offset`."""

    async def _wait(self, offset: int) -> None:
        """Until something has changed."""
        await self._change.wait()

    @abstractmethod
    def _slice(self, offset: int, end: int) -> bytes | None:
        """Blocking. Bytes from `offset` to the end of its slice, or `end`; None where the partial file is gone."""

    async def _until_over(self) -> None:
        while not self._over:
            await self._change.wait()

    def _tell(self) -> None:
        self._change.set()
        self._change = asyncio.Event()


@contextmanager
def opened(path: Path, what: str) -> Iterator[int | None]:
    """A descriptor to read a partial file by; None where it is gone. Raises Unavailable (DISK)."""
    with disk_errors(f"{what} was not read"):
        descriptor: int | None = None
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            yield descriptor
        finally:
            if descriptor is not None:
                os.close(descriptor)


def changed(what: str, part: str) -> Unavailable:
    return Unavailable(f"{what} changed", why=f"{part} is no longer what was written", code="BLOB-CHANGED")
