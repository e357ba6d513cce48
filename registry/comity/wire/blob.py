"""`BlobService`: objects, blobs and their piece records. Values, codec, calls and servicer."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

import grpc

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound, Untrusted
from comity.v1 import blob_pb2
from comity.v1.blob_pb2_grpc import BlobServiceServicer, BlobServiceStub
from comity.wire import limits
from comity.wire.calls import ServiceCalls
from comity.wire.codec import Exact, MessageCodec
from comity.wire.fields import encode_digest, read_digest, read_integer, read_many, read_text
from comity.wire.messages import Context, compress

if TYPE_CHECKING:
    from comity.v1.blob_pb2_grpc import BlobServiceAsyncStub


@dataclass(frozen=True, slots=True)
class BlobStat:
    """Whether a node has a blob, complete and verified by the node; `size` is 0 if it does not."""

    digest: Digest
    have: bool
    size: int


STAT: Final = MessageCodec(BlobStat, blob_pb2.BlobStat)


@dataclass(frozen=True, slots=True)
class BlobLocation:
    """Another location of a blob, unverified. The URL is a bearer secret until it expires: never log it."""

    kind: Annotated[str, Exact(limits.LABEL)]
    url: Annotated[str, Exact(limits.PATH)]

    def __repr__(self) -> str:
        return f"<BlobLocation {self.kind}>"


LOCATION: Final = MessageCodec(BlobLocation, blob_pb2.Location)


def encode_objects(objects: Sequence[tuple[Digest, bytes]]) -> blob_pb2.SmallObject:
    """At least one object in one message."""
    first, *more = (blob_pb2.SmallObject(digest=encode_digest(digest), data=data) for digest, data in objects)
    first.more.extend(more)
    return first


def decode_objects(message: blob_pb2.SmallObject) -> tuple[tuple[Digest, bytes], ...]:
    def decode(item: blob_pb2.SmallObject) -> tuple[Digest, bytes]:
        return read_digest(item.digest), item.data

    return decode(message), *read_many(message.more, "objects", limits.OBJECTS, decode)


class BlobCalls(ServiceCalls):
    """The calls of `BlobService`."""

    @cached_property
    def _blob(self) -> BlobServiceAsyncStub:
        return BlobServiceStub(self._calls.connection.channel)

    @cached_property
    def _read(self) -> grpc.aio.UnaryStreamMultiCallable[blob_pb2.ReadRequest, bytes]:
        call: grpc.aio.UnaryStreamMultiCallable[blob_pb2.ReadRequest, bytes]
        call = self._calls.connection.channel.unary_stream(
            "/comity.v1.BlobService/Read",
            request_serializer=blob_pb2.ReadRequest.SerializeToString,
            response_deserializer=None,  # the messages are the bytes themselves
        )
        return call

    async def object(self, digest: Digest) -> bytes:
        """Returns a whole object. Raises NotFound, and Untrusted if its SHA-256 is not `digest`."""
        data = await self._calls.join(
            self._blob.GetObject, blob_pb2.GetObjectRequest(digest=encode_digest(digest)), limits.OBJECT
        )
        if hashlib.sha256(data).hexdigest() != digest:
            raise Untrusted("not the requested object", why=f"its sha256 is not {digest}", code="DIGEST")
        return data

    async def objects(self, digests: Sequence[Digest]) -> AsyncGenerator[tuple[Digest, bytes], None]:
        """Yields those of some small objects that the node has, at most `limits.OBJECTS`, in the order of `digests`.
        Raises Untrusted for other bytes, and Unavailable (UNIMPLEMENTED) for a node of an older version."""
        request = blob_pb2.GetObjectsRequest(digests=map(encode_digest, digests), together=True)
        left = iter(digests)
        answer = self._calls.stream(
            self._blob.GetObjects, request, items=len(digests), size=limits.OBJECTS_BYTES + 64 * len(digests)
        )
        async with aclosing(answer) as messages:
            async for message in messages:
                for digest, data in decode_objects(message):
                    if digest not in left:  # consumes `left` up to the digest: the order is checked as well
                        raise Malformed(
                            "the answer has another object", why="expected the digests asked, in their order"
                        )
                    if hashlib.sha256(data).hexdigest() != digest:
                        raise Untrusted("not the requested object", why=f"its sha256 is not {digest}", code="DIGEST")
                    yield digest, data

    async def records(self, digest: Digest, layout: str, most: int = limits.RECORDS) -> bytes:
        """Returns the piece records of a blob, at most so many bytes. Check their root against a piece index. Raises
        NotFound, and Malformed (UNBOUNDED) for more bytes."""
        request = blob_pb2.GetRecordsRequest(blob=encode_digest(digest), layout=layout)
        return await self._calls.join(self._blob.GetRecords, request, most)

    async def stat(self, digests: Sequence[Digest]) -> tuple[BlobStat, ...]:
        """Returns what the node has of each blob, in the order of `digests`."""
        request = blob_pb2.StatRequest(digests=map(encode_digest, digests))
        answer = await self._calls.unary(self._blob.Stat, request)
        stats = read_many(answer.blobs, "blobs", limits.STAT_DIGESTS, STAT.decode)
        if [stat.digest for stat in stats] != list(digests):
            raise Malformed("the answer is about other blobs", why="expected the requested digests in their order")
        return stats

    async def locations(self, digest: Digest) -> tuple[BlobLocation, ...]:
        """Returns other locations of a blob, unverified; may be none. Raises NotFound."""
        request = blob_pb2.ListLocationsRequest(digest=encode_digest(digest))
        answer = await self._calls.unary(self._blob.ListLocations, request)
        return read_many(answer.locations, "locations", limits.LOCATIONS, LOCATION.decode)

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """Yields `length` unverified bytes of a blob from `offset`; fewer only if the node reports its end.
        Raises NotFound."""
        request = blob_pb2.ReadRequest(digest=encode_digest(digest), offset=offset, length=length)
        items = length // limits.MIN_CHUNK + 1
        async with aclosing(self._calls.stream(self._read, request, items=items, size=length)) as chunks:
            async for chunk in chunks:
                length -= len(chunk)
                if length < 0:
                    raise Malformed("more bytes than requested", code="UNBOUNDED")
                yield chunk


class BlobReads(Protocol):
    async def stat(self, digests: Sequence[Digest]) -> Sequence[BlobStat]:
        """Returns one result per digest, in order."""

    async def records(self, digest: Digest, layout: str) -> bytes:
        """Raises NotFound."""

    async def locations(self, digest: Digest) -> Sequence[BlobLocation]:
        """Raises NotFound."""

    def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """Yields `length` bytes, fewer only at the end of the blob. Raises NotFound."""


class BlobServicer(BlobServiceServicer):
    def __init__(self, blobs: BlobReads) -> None:
        self._blobs = blobs

    async def GetObject(self, request: blob_pb2.GetObjectRequest, context: Context) -> AsyncIterator[blob_pb2.Chunk]:
        digest = read_digest(request.digest)
        (stat,) = await self._blobs.stat([digest])
        if not stat.have:
            raise NotFound("no such object here", why=f"this node does not hold {digest}")
        if stat.size > limits.OBJECT:
            raise Malformed("object too large", why=f"it has {stat.size} bytes", hint="use Read", code="OVERSIZED")
        async with aclosing(self._blobs.read(digest, 0, stat.size)) as chunks:
            async for chunk in chunks:
                yield blob_pb2.Chunk(data=chunk)

    async def GetObjects(
        self, request: blob_pb2.GetObjectsRequest, context: Context
    ) -> AsyncIterator[blob_pb2.SmallObject]:
        digests = read_many(request.digests, "digests", limits.OBJECTS, read_digest)
        if len(set(digests)) != len(digests):
            raise Malformed("an object is asked for twice", why="each digest is named once")
        if request.together:
            compress(context)
        most = limits.CHUNK if request.together else 0
        together = list[tuple[Digest, bytes]]()
        left = limits.OBJECTS_BYTES
        for stat in await self._blobs.stat(digests):
            if not stat.have or stat.size > min(limits.SMALL_OBJECT, left):
                continue
            left -= stat.size
            if together and sum(len(data) for _, data in together) + stat.size > most:
                yield encode_objects(together)
                together = []
            async with aclosing(self._blobs.read(stat.digest, 0, stat.size)) as chunks:
                together.append((stat.digest, b"".join([chunk async for chunk in chunks])))
        if together:
            yield encode_objects(together)

    async def GetRecords(self, request: blob_pb2.GetRecordsRequest, context: Context) -> AsyncIterator[blob_pb2.Chunk]:
        layout = read_text(request.layout, "layout", limits.LABEL)
        records = await self._blobs.records(read_digest(request.blob), layout)
        for start in range(0, len(records), limits.CHUNK):
            yield blob_pb2.Chunk(data=records[start : start + limits.CHUNK])

    async def Stat(self, request: blob_pb2.StatRequest, context: Context) -> blob_pb2.StatResponse:
        digests = read_many(request.digests, "digests", limits.STAT_DIGESTS, read_digest)
        return blob_pb2.StatResponse(blobs=map(STAT.encode, await self._blobs.stat(digests)))

    async def ListLocations(
        self, request: blob_pb2.ListLocationsRequest, context: Context
    ) -> blob_pb2.ListLocationsResponse:
        locations = await self._blobs.locations(read_digest(request.digest))
        return blob_pb2.ListLocationsResponse(locations=map(LOCATION.encode, locations[: limits.LOCATIONS]))

    async def Read(self, request: blob_pb2.ReadRequest, context: Context) -> AsyncIterator[Any]:
        """Yields the raw bytes; `services` registers this call without a serializer."""
        offset = read_integer(request.offset, "offset")
        length = read_integer(request.length, "length", least=1, most=limits.READ)
        async with aclosing(self._blobs.read(read_digest(request.digest), offset, length)) as chunks:
            async for chunk in chunks:
                yield chunk
