"""Sources of a transfer: identity and protocol of a remote source, bounded streams, HTTPS ranges, and local pieces.

No source is trusted, nor is the local disk: all bytes are hashed before they count.

A range source reads a blob by HTTPS ranges, beside a node's gRPC streams, from the node or from a service that the node
names. The node gives the location over gRPC, in URLs that expire soon. They are hints: pieces are hashed as from any
source. Reading runs in its own threads, so that a slow node does not delay hashing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar, runtime_checkable

from comity.trust.artifact import PieceRecord
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound, Refused, Unavailable
from comity.wire.blob import BlobLocation
from comity.wire.tls import CertificatePin, RangeUrl

if TYPE_CHECKING:
    from comity.wire.range_client import RangeClient

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


class BlobSource(Protocol):
    """A remote source that may have the blob."""

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

    def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """Stream `length` bytes of the blob from `offset`, in messages of any size from one byte to about 1 MiB.

        An async generator: closing it must free the stream. It raises Unavailable (but not NotFound) for a temporary
        failure, and is asked again after a back-off. Any other ComityError is final: the source is dropped.
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


def names_of(sources: Sequence[BlobSource]) -> dict[SourceKey, str]:
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


MIN_RANGE_SIZE: Final = 16 * 1024 * 1024
"""Smallest file, in bytes, for which an HTTPS source is used: locating and connecting take round trips."""
CHUNK: Final = 1024 * 1024
READ_TIMEOUT: Final = 3.0
"""Seconds without a byte before a range request fails."""
LOCATE_TIMEOUT: Final = 1.0
"""Seconds to wait for a node's blob location; the transfer continues without it after that."""
THREADS: Final = 4
_KINDS: Final = ("https-range", "s3-presigned")

Locate: TypeAlias = Callable[[Digest], Awaitable[Sequence[BlobLocation]]]
"""Asks the node for the locations of a blob. Raises ComityError."""


@dataclass(frozen=True, slots=True)
class _Location:
    url: RangeUrl
    pin: CertificatePin | None


class RangeSource:
    """A `BlobSource` over HTTPS that leads to `host`, for blobs for which `find` returned true. `close` ends its
    connections and threads.

    Args:
        name: the display name of the host.
    """

    def __init__(self, host: SourceKey, name: str, pin: CertificatePin, locate: Locate) -> None:
        self.key = SourceKey("https", f"{host.kind} {host.value}")
        self.name = f"{name} over https"
        self.host = host
        self._host_name = name
        self._pin = pin
        self._locate = locate
        self._unavailable = False
        self._locations: dict[Digest, _Location] = {}
        self._idle: list[RangeClient] = []
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="range")

    async def find(self, digest: Digest) -> bool:
        """Whether the node gives a location for this blob. After an error, a timeout or no location, the node is not
        asked again."""
        if not self._unavailable:
            try:
                async with asyncio.timeout(LOCATE_TIMEOUT):
                    await self._look_up(digest)
            except (ComityError, TimeoutError):
                self._unavailable = True
        return not self._unavailable

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """As `BlobSource.read`."""
        async with self.open(digest, offset, length, READ_TIMEOUT) as stream:
            while length:
                buffer = bytearray(min(CHUNK, length))
                await stream.run(partial(stream.fill, memoryview(buffer), lambda count: None))
                length -= len(buffer)
                yield bytes(buffer)

    @asynccontextmanager
    async def open(
        self, digest: Digest, offset: int, length: int, read_timeout: float
    ) -> AsyncIterator[BlockingStream]:
        """As `BlockingSource.open`. An expired location is requested again, once."""
        try:
            stream = await self._begin(digest, offset, length, read_timeout)
        except Refused as error:
            if error.code != "URL-EXPIRED":
                raise
            await self._look_up(digest)
            stream = await self._begin(digest, offset, length, read_timeout)
        try:
            yield stream
        finally:
            if stream.whole:
                stream.client.done()
                self._idle.append(stream.client)
            else:
                stream.abandon()

    def close(self) -> None:
        for client in self._idle:
            client.close()
        self._idle.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, digest: Digest) -> None:
        """Ask the node for a location. Raises ComityError: NotFound (NO-LOCATION) if none can be used."""
        for location in await self._locate(digest):
            if location.kind not in _KINDS:
                continue
            pin = self._pin if location.kind == "https-range" else None
            self._locations[digest] = _Location(RangeUrl.parse(location.url), pin)
            return
        raise NotFound("no HTTPS location of the blob", why=f"{self._host_name} gives none", code="NO-LOCATION")

    async def _begin(self, digest: Digest, offset: int, length: int, read_timeout: float) -> _RangeAnswer:
        place = self._locations[digest]
        stream = _RangeAnswer(self._client(place), self._threads, length)
        try:
            await stream.ask(place.url, offset, read_timeout)
        except BaseException:
            stream.abandon()
            raise
        return stream

    def _client(self, place: _Location) -> RangeClient:
        for client in self._idle:
            if (client.address, client.pin) == (place.url.address, place.pin):
                self._idle.remove(client)
                return client
        from comity.wire.range_client import RangeClient  # few programs fetch files

        return RangeClient(place.url.address, place.pin)


async def sources_with_blob(sources: Iterable[RangeSource], digest: Digest, size: int) -> list[RangeSource]:
    """The `sources` that have a blob of `size` bytes; empty below MIN_RANGE_SIZE."""
    asked = tuple(sources) if size >= MIN_RANGE_SIZE else ()
    found = await asyncio.gather(*(source.find(digest) for source in asked))
    return [source for source, there in zip(asked, found, strict=True) if there]


class _RangeAnswer:
    """One open range request: a `BlockingStream`."""

    def __init__(self, client: RangeClient, threads: ThreadPoolExecutor, length: int) -> None:
        self.client = client
        self._threads = threads
        self._left = length
        self._work: Future[Any] = Future()
        self._work.set_result(None)

    @property
    def whole(self) -> bool:
        """Whether the whole range was read, so that the connection can be reused."""
        return not self._left

    async def ask(self, url: RangeUrl, offset: int, read_timeout: float) -> None:
        """Send the request; returns when the answer begins. If cancelled, does not wait for a slow connection."""
        self._work = self._threads.submit(self.client.ask, url, offset, self._left, read_timeout)
        await asyncio.wrap_future(self._work)

    def fill(self, view: memoryview, arrived: Callable[[int], None]) -> None:
        if len(view) > self._left:
            raise Unavailable("wrong length", why="the answer is too short", code="WRONG-LENGTH")
        self.client.fill(view, arrived)
        self._left -= len(view)

    async def run(self, work: Callable[[], T]) -> T:
        self._work = job = self._threads.submit(work)
        ended = _end_of(job)
        try:
            await ended
        except asyncio.CancelledError:
            self.client.abort()
            if not job.cancel():  # its thread gets an error soon
                await _end_of(job)
            raise
        return job.result()

    def abandon(self) -> None:
        """Abort the request; the connection is closed when its thread has ended."""
        self.client.abort()
        self._work.cancel()
        self._work.add_done_callback(lambda _: self.client.close())


def _end_of(job: Future[Any]) -> asyncio.Future[None]:
    """A future that is done when `job` has ended, however. Fewer turns of the event loop than `wrap_future`."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def set_ended() -> None:
        if not ended.done():
            ended.set_result(None)

    def wake(_: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(set_ended)

    job.add_done_callback(wake)
    return ended
