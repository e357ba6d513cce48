"""A blob by HTTPS ranges: a second way to a node, beside its gRPC streams, or a service that the node points to.

Where the blob lies the node says over gRPC, in URLs that open for a short while. They are hints: the pieces are hashed
like anybody's. Reading runs in threads of its own, so that a slow node never keeps the hashing waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeAlias

from comity.transfer.source_key import SourceKey
from comity.trust.digest import Digest
from comity.trust.errors import ComityError, NotFound, Refused
from comity.wire.certs import Pin
from comity.wire.https import RangeClient, RangeUrl
from comity.wire.values import Location

WORTH: Final = 16 * 1024 * 1024
"""Bytes from which a file is worth a second way: asking for it and connecting take round trips."""
CHUNK: Final = 1024 * 1024
PATIENCE: Final = 3.0
"""Seconds without a byte."""
ANSWER: Final = 1.0
"""Seconds that a node has to say where its blobs lie: the transfer waits for it, and works without."""
THREADS: Final = 4
_KINDS: Final = ("https-range", "s3-presigned")

Locate: TypeAlias = Callable[[Digest], Awaitable[Sequence[Location]]]
"""Asks the node. Raises ComityError."""


@dataclass(frozen=True, slots=True)
class _Place:
    url: RangeUrl
    pin: Pin | None


class RangeSource:
    """A `Source` that leads to `host`, for blobs of which `find` was true. `close` ends its connections and threads.

    Args:
        name: what people call the host.
    """

    def __init__(self, host: SourceKey, name: str, pin: Pin, locate: Locate) -> None:
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
