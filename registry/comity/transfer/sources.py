"""What a source is, apart from what people call it: the key of every table about sources.

Where bytes come from: the protocol of a remote source, its answer as the transfer reads it, and local pieces.

No source is trusted here, nor is the local disk: whatever these hand over is hashed before it counts.


A blob by HTTPS ranges: a second way to a node, beside its gRPC streams, or a service that the node points to.

Where the blob lies the node says over gRPC, in URLs that open for a short while. They are hints: the pieces are hashed
like anybody's. Reading runs in threads of its own, so that a slow node never keeps the hashing waiting.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from comity.trust.artifact import PieceRecord
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, NotFound, Refused, Unavailable
from comity.wire.messages import BlobLocation
from comity.wire.tls import CertificatePin, RangeClient, RangeUrl

SHOWN: Final = 12
"""Hex digits that tell two sources of one name apart where they are shown."""


@dataclass(frozen=True, slots=True, order=True)
class SourceKey:
    """Two sources are one if their keys are equal, whatever their names.

    Attributes:
        kind: what sort of source it is, such as `node`.
        value: which of that sort: made of keys, identities and digests, never of a name that somebody chose.
    """

    kind: str
    value: str

    @property
    def short(self) -> str:
        return sha256(f"{self.kind}\n{self.value}".encode())[:SHOWN]


def shown_names(names: Mapping[SourceKey, str]) -> dict[SourceKey, str]:
    """A text for each source that no other one has: its name, with a short key behind it where that is not enough."""
    times = Counter(names.values())

    def alone(name: str) -> bool:
        return times[name] == 1 and not name.endswith(")")  # which could imitate another one's name and key

    return {key: name if alone(name) else f"{name} ({key.short})" for key, name in names.items()}


class BlobSource(Protocol):
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


def names_of(sources: Sequence[BlobSource]) -> dict[SourceKey, str]:
    """What to call each of `sources`, so that no two have one name."""
    return shown_names({source.key: source.name for source in sources})


class RangeStream:
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


WORTH: Final = 16 * 1024 * 1024
"""Bytes from which a file is worth a second way: asking for it and connecting take round trips."""
CHUNK: Final = 1024 * 1024
PATIENCE: Final = 3.0
"""Seconds without a byte."""
ANSWER: Final = 1.0
"""Seconds that a node has to say where its blobs lie: the transfer waits for it, and works without."""
THREADS: Final = 4
_KINDS: Final = ("https-range", "s3-presigned")

Locate: TypeAlias = Callable[[Digest], Awaitable[Sequence[BlobLocation]]]
"""Asks the node. Raises ComityError."""


@dataclass(frozen=True, slots=True)
class _Place:
    url: RangeUrl
    pin: CertificatePin | None


class RangeSource:
    """A `Source` that leads to `host`, for blobs of which `find` was true. `close` ends its connections and threads.

    Args:
        name: what people call the host.
    """

    def __init__(self, host: SourceKey, name: str, pin: CertificatePin, locate: Locate) -> None:
        self.key = SourceKey("https", f"{host.kind} {host.value}")
        self.name = f"{name} over https"
        self.host = host
        self._host_name = name
        self._pin = pin
        self._locate = locate
        self._mute = False
        self._places: dict[Digest, _Place] = {}
        self._idle: list[RangeClient] = []
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="range")

    async def find(self, digest: Digest) -> bool:
        """Whether the node names a place for this blob. One that does not answer, or has none, is not asked again."""
        if not self._mute:
            try:
                async with asyncio.timeout(ANSWER):
                    await self._look_up(digest)
            except (ComityError, TimeoutError):
                self._mute = True
        return not self._mute

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """As `Source` says. A location that has expired is asked for anew, once."""
        try:
            stream = await self._begin(digest, offset, length)
        except Refused as error:
            if error.code != "URL-EXPIRED":
                raise
            await self._look_up(digest)
            stream = await self._begin(digest, offset, length)
        try:
            while data := await stream.next():
                yield data
        finally:
            if stream.whole:
                self._idle.append(stream.client)
            else:
                stream.abandon()

    def close(self) -> None:
        for client in self._idle:
            client.close()
        self._idle.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, digest: Digest) -> None:
        """Raises ComityError: NotFound (NO-LOCATION) where the node names no place that can be used."""
        for location in await self._locate(digest):
            if location.kind not in _KINDS:
                continue
            pin = self._pin if location.kind == "https-range" else None
            self._places[digest] = _Place(RangeUrl.parse(location.url), pin)
            return
        raise NotFound("no other way to the blob", why=f"{self._host_name} names none", code="NO-LOCATION")

    async def _begin(self, digest: Digest, offset: int, length: int) -> _Stream:
        place = self._places[digest]
        stream = _Stream(self._client(place), self._threads, length)
        try:
            await stream.ask(place.url, offset)
        except BaseException:
            stream.abandon()
            raise
        return stream

    def _client(self, place: _Place) -> RangeClient:
        for client in self._idle:
            if (client.address, client.pin) == (place.url.address, place.pin):
                self._idle.remove(client)
                return client
        return RangeClient(place.url.address, place.pin, patience=PATIENCE)


async def offering(sources: Iterable[RangeSource], digest: Digest, size: int) -> list[RangeSource]:
    """Those of `sources` that lead to a blob of `size` bytes: none where it is too small to be worth the question."""
    asked = tuple(sources) if size >= WORTH else ()
    found = await asyncio.gather(*(source.find(digest) for source in asked))
    return [source for source, there in zip(asked, found, strict=True) if there]


class _Stream:
    """One request under way: a thread reads a chunk ahead of whoever takes them."""

    def __init__(self, client: RangeClient, threads: ThreadPoolExecutor, length: int) -> None:
        self.client = client
        self._threads = threads
        self._left = length
        self._work: Future[bytes] = Future()

    @property
    def whole(self) -> bool:
        """All of it has come: the connection is free."""
        return not self._left

    async def ask(self, url: RangeUrl, offset: int) -> None:
        """Until the answer begins."""
        self._work = self._threads.submit(self.client.begin, url, offset, self._left, CHUNK)
        await asyncio.wrap_future(self._work)

    async def next(self) -> bytes:
        """None at the end of the answer."""
        data = await asyncio.wrap_future(self._work)
        self._left -= len(data)
        if data:
            self._work = self._threads.submit(self.client.read, CHUNK)
        return data

    def abandon(self) -> None:
        """Free the connection, once the thread that is at work on it has noticed."""
        self.client.abort()
        self._work.cancel()
        self._work.add_done_callback(lambda _: self.client.close())
