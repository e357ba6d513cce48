"""Blobs by HTTPS ranges, beside a node's gRPC streams: from the node, or from a service that the node names.

The node gives the location over gRPC, in URLs that expire soon. They are hints: pieces are hashed as from any source.
A node shows its pinned certificate. Reading runs in threads of the source, so that a slow node does not delay hashing.

Loaded where files are fetched only, as `range_client`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, TypeAlias

from comity.transfer.limits import CONNECTIONS, FAR
from comity.transfer.parallel_range import ConnectionRate, ParallelAnswer, WantedRange
from comity.transfer.range_answer import RangeAnswer
from comity.transfer.range_client import Permission, RangeClient
from comity.transfer.sources import BlockingStream, SourceKey
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed, NotFound, Refused, Unavailable
from comity.trust.frozen import frozen
from comity.wire.addresses import Address, RangeUrl
from comity.wire.blob import BlobLocation
from comity.wire.tls import CertificatePin

MIN_RANGE_SIZE: Final = 16 * 1024 * 1024
"""Smallest file, in bytes, for which an HTTPS source is used: locating and connecting take round trips."""
CHUNK: Final = 1024 * 1024
READ_TIMEOUT: Final = 3.0
"""Seconds without a byte before a range request fails."""
LOCATE_TIMEOUT: Final = 1.0
"""Seconds to wait for a node's blob location; the transfer continues without it after that."""
THREADS: Final = 12
"""At most: each connection has one while it brings bytes, and each open answer."""
SEVERAL: Final = 1024 * 1024
"""Shortest range, in bytes, that comes over several connections where the source is far."""
_KINDS: Final = ("https-range", "s3-presigned")
Locate: TypeAlias = Callable[[Digest], Awaitable[Sequence[BlobLocation]]]
"""Asks the node for the locations of a blob. Raises ComityError."""
_Answer: TypeAlias = RangeAnswer | ParallelAnswer


@frozen
class _Location:
    url: RangeUrl
    pin: CertificatePin | None


class RangeSource:
    """A `BlobSource` over HTTPS that leads to `host`, for blobs for which `find` returned true. `close` ends its
    connections and threads.

    Args:
        name: the display name of the host.
        permission: by default every address may be connected to.
    """

    def __init__(
        self, host: SourceKey, name: str, pin: CertificatePin, locate: Locate, permission: Permission | None = None
    ) -> None:
        self.key = SourceKey("https", f"{host.kind} {host.value}")
        self.name = f"{name} over https"
        self.host = host
        self._host_name = name
        self._pin = pin
        self._locate = locate
        self._permission = permission
        self._unavailable = False
        self._locations: dict[Digest, tuple[_Location, ...]] = {}
        self._unreachable: set[Address] = set()
        self._idle: list[RangeClient] = []
        self._spared = permission is not None
        self._closed = False
        self._lock = threading.Lock()
        self._parallel: list[ParallelAnswer] = []
        self._rate = ConnectionRate()
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
            self._end(stream)

    def close(self) -> None:
        with self._lock:
            self._closed, idle = True, self._idle
            self._idle = []
        for client in idle:
            client.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, digest: Digest) -> None:
        """Ask the node for locations. Raises ComityError: NotFound (NO-LOCATION) if none can be used."""
        places = tuple(place for location in await self._locate(digest) if (place := self._place(location)))
        if not places:
            raise NotFound("no HTTPS location of the blob", why=f"{self._host_name} gives none", code="NO-LOCATION")
        reachable = tuple(place for place in places if place.url.address not in self._unreachable)
        self._locations[digest] = reachable or places

    def _place(self, location: BlobLocation) -> _Location | None:
        """None if it cannot be used, such as the plain HTTP of a bucket beside its node."""
        if location.kind not in _KINDS:
            return None
        try:
            url = RangeUrl.parse(location.url)
        except Malformed:
            return None
        return _Location(url, self._pin if location.kind == "https-range" else None)

    async def _begin(self, digest: Digest, offset: int, length: int, read_timeout: float) -> _Answer:
        """Begin at the first place, at another one where that does not answer: some reach a bucket, and others only
        the node."""
        while True:
            places = self._locations[digest]
            try:
                return await self._begin_at(places[0], offset, length, read_timeout)
            except Unavailable:
                if len(places) == 1:
                    raise
                self._unreachable.add(places[0].url.address)
                if self._locations[digest] is places:
                    self._locations[digest] = places[1:]

    async def _begin_at(self, place: _Location, offset: int, length: int, read_timeout: float) -> _Answer:
        one = RangeAnswer(self._client(place), self._threads, length, self._give)
        answer: _Answer = one
        try:
            if length >= SEVERAL and not one.client.connected:
                await one.connect(read_timeout)
            if length >= SEVERAL and one.client.round_trip >= FAR:
                wanted = WantedRange(place.url, offset, length, read_timeout)
                answer = several = self._over_several(place, one.client, wanted)
                await several.ask()
            else:
                await one.ask(place.url, offset, read_timeout)
                self._connect_spare(place, read_timeout)
        except BaseException:
            self._end(answer)
            raise
        return answer

    def _end(self, answer: _Answer) -> None:
        if isinstance(answer, ParallelAnswer):
            self._parallel.remove(answer)
        answer.end()

    def _over_several(self, place: _Location, first: RangeClient, wanted: WantedRange) -> ParallelAnswer:
        """While another answer has the connections, this one begins with the idle ones, and gets those that the other
        needs no more."""
        clients = [first]
        while len(clients) < CONNECTIONS and (self._idle or not self._parallel):
            clients.append(self._client(place))
        answer = ParallelAnswer(wanted, clients, self._threads, self._rate, self._give)
        self._parallel.append(answer)
        return answer

    def _give(self, client: RangeClient) -> None:
        """Use a connection again. Called by any thread."""
        for answer in tuple(self._parallel):
            if answer.add(client):
                return
        with self._lock:
            if not self._closed:
                self._idle.append(client)
                return
        client.close()

    def _connect_spare(self, place: _Location, read_timeout: float) -> None:
        """Connect once more, once, for the request that begins while this one ends: a handshake takes several round
        trips, and longer beside a stream that fills the link. Not where connections are counted."""
        if self._spared or self._idle:
            return
        self._spared, client = True, RangeClient(place.url.address, place.pin)

        def connected(job: Future[None]) -> None:
            if job.cancelled() or job.exception():
                client.close()
            else:
                self._give(client)

        self._threads.submit(client.connect, read_timeout).add_done_callback(connected)

    def _client(self, place: _Location) -> RangeClient:
        with self._lock:
            for client in self._idle:
                if (client.address, client.pin) == (place.url.address, place.pin):
                    self._idle.remove(client)
                    return client
        return RangeClient(place.url.address, place.pin, self._permission)


async def sources_with_blob(sources: Iterable[RangeSource], digest: Digest, size: int) -> list[RangeSource]:
    """The `sources` that have a blob of `size` bytes; empty below MIN_RANGE_SIZE."""
    asked = tuple(sources) if size >= MIN_RANGE_SIZE else ()
    found = await asyncio.gather(*(source.find(digest) for source in asked))
    return [source for source, there in zip(asked, found, strict=True) if there]
