"""Sources of a transfer: identity and protocol of a remote source, bounded streams, and local pieces.

No source is trusted, nor is the local disk: all bytes are hashed before they count.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeVar, runtime_checkable

from comity.trust.artifact import PieceRecord
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Unavailable

T = TypeVar("T")
SHOWN: Final = 12
"""Hex digits of a key, shown to distinguish sources of the same name."""


@dataclass(frozen=True, slots=True, order=True)
class SourceKey:
    """The identity of a source: two sources with equal keys are the same, whatever their names.

    Attributes:
        kind: the kind of source, such as `node`.
        value: unique within its kind: made of keys, identities and digests, never of a chosen name.
    """

    kind: str
    value: str

    @property
    def short(self) -> str:
        return sha256(f"{self.kind}\n{self.value}".encode())[:SHOWN]


def shown_names(names: Mapping[SourceKey, str]) -> dict[SourceKey, str]:
    """A unique text for each source: its name, followed by a short key if the name is ambiguous."""
    times = Counter(names.values())

    def alone(name: str) -> bool:
        return times[name] == 1 and not name.endswith(")")  # it could imitate the name and key of another source

    return {key: name if alone(name) else f"{name} ({key.short})" for key, name in names.items()}


class NamedSource(Protocol):
    """A remote source, of whatever."""

    @property
    def key(self) -> SourceKey:
        """The identity of this source; unique among the sources of a transfer."""
        ...

    @property
    def name(self) -> str:
        """The display name for errors and results; not necessarily unique."""
        ...

    @property
    def host(self) -> SourceKey:
        """The host that the source leads to. Sources of one host share its link: normally only the faster is asked."""
        ...


class BlobSource(NamedSource, Protocol):
    """A remote source that may have the blob."""

    def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """Stream `length` bytes of the blob from `offset`, in messages of any size from one byte to about 1 MiB.

        An async generator: closing it must free the stream. It raises Unavailable (but not NotFound) for a temporary
        failure, and is asked again after a back-off; where it limits the rate of calls (`asking.pause_of`), after the
        time that it names. Any other ComityError is final: the source is dropped.
        """
        ...


class BlockingStream(Protocol):
    """One open range of a source that is read by blocking calls, in a thread of its own."""

    def fill(self, view: memoryview, arrived: Callable[[int], None]) -> None:
        """Fill `view` with the next bytes, reporting their numbers as they arrive. Blocking; call inside `run`.

        Raises ComityError as `BlobSource.read` does; its streams have no byte beyond the range.
        """
        ...

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread of the source. If cancelled, aborts the stream, and returns when the thread has ended:
        what `work` used is free then."""
        ...


@runtime_checkable
class BlockingSource(BlobSource, Protocol):
    """A source whose streams need no event loop."""

    def open(
        self, digest: Digest, offset: int, length: int, read_timeout: float
    ) -> AbstractAsyncContextManager[BlockingStream]:
        """Request a range of the blob; raises as `BlobSource.read` does. The stream is freed with the block.

        Args:
            read_timeout: seconds without a byte after which the stream fails, with Unavailable.
        """
        ...


def names_of(sources: Sequence[NamedSource]) -> dict[SourceKey, str]:
    """A unique display name for each of `sources`."""
    return shown_names({source.key: source.name for source in sources})


class RangeStream:
    """One stream of a source, read in parts of exact length. Failures raise Unavailable with a code: STALLED (timeout),
    WRONG-LENGTH (too short or too long), EMPTY-MESSAGE, CONNECTION."""

    def __init__(self, chunks: AsyncGenerator[bytes, None], *, read_timeout: float) -> None:
        self._chunks = chunks
        self._read_timeout = read_timeout
        self._rest = memoryview(b"")

    async def fill(self, view: memoryview, arrived: Callable[[int], None]) -> None:
        """Fill `view`, reporting bytes as they arrive. Bytes beyond it are kept for the next call."""
        filled = 0
        while filled < len(view):
            if not self._rest:
                chunk = await self._next()
                if chunk is None:
                    raise Unavailable("wrong length", why="the answer is too short", code="WRONG-LENGTH")
                self._rest = memoryview(chunk)
            part = self._rest[: len(view) - filled]
            view[filled : filled + len(part)] = part
            filled += len(part)
            self._rest = self._rest[len(part) :]
            arrived(len(part))

    async def end(self) -> None:
        """Raise Unavailable (WRONG-LENGTH) if more bytes follow."""
        if self._rest or await self._next() is not None:
            raise Unavailable("wrong length", why="more bytes than requested", code="WRONG-LENGTH")

    async def _next(self) -> bytes | None:
        try:
            async with asyncio.timeout(self._read_timeout):
                chunk = await anext(self._chunks, None)
        except TimeoutError as error:
            why = f"no byte for {self._read_timeout:g} s"
            raise Unavailable("timeout", why=why, code="STALLED") from error
        except OSError as error:
            raise Unavailable("connection lost", why=error.strerror or str(error), code="CONNECTION") from error
        if chunk == b"":  # many of these would never return control to the event loop
            raise Unavailable("empty message", why="the source sent a message without bytes", code="EMPTY-MESSAGE")
        return chunk


class LocalSource:
    """Pieces that local files may already hold: older revisions, other layouts, re-sharded models.

    Args:
        find: candidates for a piece as (file, offset); called in a worker thread.
    """

    def __init__(self, find: Callable[[PieceRecord], Iterable[tuple[Path, int]]]) -> None:
        self._find = find

    def copies(self, record: PieceRecord, view: memoryview) -> Iterator[None]:
        """Fill `view` with each candidate's bytes in turn. Blocking. An unreadable file is skipped; the piece is then
        fetched."""
        for path, offset in self._find(record):
            try:
                with path.open("rb", buffering=0) as file:
                    file.seek(offset)
                    complete = file.readinto(view) == len(view)
            except OSError:
                continue
            if complete:
                yield
