"""Where bytes come from: the protocol of a remote source, its answer as the transfer reads it, and local pieces.

No source is trusted here, nor is the local disk: whatever these hand over is hashed before it counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from comity.transfer.source_key import SourceKey, shown_names
from comity.trust.digest import Digest
from comity.trust.errors import Unavailable
from comity.trust.pieces import PieceRecord


class Source(Protocol):
    """Somebody who may have the blob."""

    @property
    def key(self) -> SourceKey:
        """Which source this is; distinct among the sources of a transfer."""
        ...

    @property
    def name(self) -> str:
        """What people call it, in errors and results; several sources may have one name."""
        ...

    @property
    def host(self) -> SourceKey:
        """Where it leads. Sources of one host share its link: only the faster of them is asked, as far as is known."""
        ...

    def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """Stream `length` bytes of the blob from `offset`, in messages of any size from one byte to about 1 MiB.

        An async generator: closing it must free the stream. It raises Unavailable (but not NotFound) for what may
        pass, and is then asked again after a rest; any other ComityError is an answer, and it is not asked again.
        """
        ...


def names_of(sources: Sequence[Source]) -> dict[SourceKey, str]:
    """What to call each of `sources`, so that no two have one name."""
    return shown_names({source.key: source.name for source in sources})


class Answer:
    """One stream of a source, cut to measure. Every way in which it can fall short is an Unavailable with a code:
    STALLED (a silence), WRONG-LENGTH (ends early, or goes on), EMPTY-MESSAGE, CONNECTION."""

    def __init__(self, chunks: AsyncGenerator[bytes, None], *, silence: float) -> None:
        self._chunks = chunks
        self._silence = silence
        self._rest = memoryview(b"")

    async def fill(self, view: memoryview, arrived: Callable[[int], None]) -> None:
        """Fill `view`, reporting bytes as they arrive. Bytes beyond it are kept for the next call."""
        filled = 0
        while filled < len(view):
            if not self._rest:
                chunk = await self._next()
                if chunk is None:
                    raise Unavailable("wrong length", why="its answer ended early", code="WRONG-LENGTH")
                self._rest = memoryview(chunk)
            part = self._rest[: len(view) - filled]
            view[filled : filled + len(part)] = part
            filled += len(part)
            self._rest = self._rest[len(part) :]
            arrived(len(part))

    async def end(self) -> None:
        """Require that nothing follows."""
        if self._rest or await self._next() is not None:
            raise Unavailable("wrong length", why="it sent more than was asked", code="WRONG-LENGTH")

    async def _next(self) -> bytes | None:
        try:
            async with asyncio.timeout(self._silence):
                chunk = await anext(self._chunks, None)
        except TimeoutError as error:
            why = f"no byte for {self._silence:g} s"
            raise Unavailable("silent", why=why, code="STALLED") from error
        except OSError as error:
            raise Unavailable("connection lost", why=error.strerror or str(error), code="CONNECTION") from error
        if chunk == b"":  # a flood of these would never hand control back to the event loop
            raise Unavailable("empty message", why="it sent a message without bytes", code="EMPTY-MESSAGE")
        return chunk


class LocalSource:
    """Pieces that files on this machine may hold already: older revisions, other layouts, re-sharded models.

    Args:
        find: candidates for a piece as (file, offset). It is called in a worker thread.
    """

    def __init__(self, find: Callable[[PieceRecord], Iterable[tuple[Path, int]]]) -> None:
        self._find = find

    def copies(self, record: PieceRecord, view: memoryview) -> Iterator[None]:
        """Fill `view` with one candidate's bytes after another; blocking. A file that cannot be read is passed over:
        the piece is then fetched."""
        for path, offset in self._find(record):
            try:
                with path.open("rb", buffering=0) as file:
                    file.seek(offset)
                    complete = file.readinto(view) == len(view)
            except OSError:
                continue
            if complete:
                yield
