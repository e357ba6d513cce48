"""`BlobService`: objects, blobs and their piece records. Values and calls."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, Protocol

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound, Untrusted
from comity.trust.frozen import frozen
from comity.v1 import blob_pb2
from comity.wire import limits
from comity.wire.calls import ServiceCalls, call
from comity.wire.codec import At, Exact, Items, Number
from comity.wire.fields import encode_digest, read_digest, read_many
from comity.wire.messages import compress
from comity.wire.rpc import Context, Rpcs, rpc_of

rpc = Rpcs(blob_pb2)


@frozen
class BlobStat:
    """Whether a node has a blob, complete and verified by the node; `size` is 0 if it does not."""

    digest: Digest
    have: bool
    size: int


@frozen
class BlobLocation:
    """Another location of a blob, unverified. The URL is a bearer secret until it expires: never log it."""

    kind: Annotated[str, Exact(limits.LABEL)]
    url: Annotated[str, Exact(limits.PATH)]

    def __repr__(self) -> str:
        return f"<BlobLocation {self.kind}>"


def encode_objects(objects: Sequence[tuple[Digest, bytes]]) -> blob_pb2.SmallObject:
    """At least one object in one message."""
    first, *more = (blob_pb2.SmallObject(digest=encode_digest(digest), data=data) for digest, data in objects)
    first.more.extend(more)
    return first


def decode_objects(message: blob_pb2.SmallObject) -> tuple[tuple[Digest, bytes], ...]:
    def decode(item: blob_pb2.SmallObject) -> tuple[Digest, bytes]:
        return read_digest(item.digest), item.data

    return decode(message), *read_many(message.more, "objects", limits.OBJECTS, decode)


@rpc.served("GetObject")
async def _serve_object(
    service: BlobService, request: blob_pb2.GetObjectRequest, context: Context
) -> AsyncIterator[blob_pb2.Chunk]:
    digest = read_digest(request.digest)
    (stat,) = await service.stat([digest])
    if not stat.have:
        raise NotFound("no such object here", why=f"this node does not hold {digest}")
    if stat.size > limits.OBJECT:
        raise Malformed("object too large", why=f"it has {stat.size} bytes", hint="use Read", code="OVERSIZED")
    async with aclosing(service.read(digest, 0, stat.size)) as chunks:
        async for chunk in chunks:
            yield blob_pb2.Chunk(data=chunk)


@rpc.served("GetObjects")
async def serve_objects(
    service: BlobService, request: blob_pb2.GetObjectsRequest, context: Context
) -> AsyncIterator[blob_pb2.SmallObject]:
    """Those of the asked objects that the node has and that fit into the answer, several in a message if asked so."""
    digests = read_many(request.digests, "digests", limits.OBJECTS, read_digest)
    if len(set(digests)) != len(digests):
        raise Malformed("an object is asked for twice", why="each digest is named once")
    if request.together and not request.uncompressed:
        compress(context)
    async with aclosing(service.small(digests)) as groups:
        async for group in groups:
            for together in (group,) if request.together else ((each,) for each in group):
                yield encode_objects(together)


async def small_of(
    service: BlobService, digests: Sequence[Digest]
) -> AsyncGenerator[Sequence[tuple[Digest, bytes]], None]:
    """`BlobService.small` by its other methods, for a service that has nothing faster."""
    group, left = list[tuple[Digest, bytes]](), limits.OBJECTS_BYTES
    for stat in await service.stat(digests):
        if not stat.have or stat.size > min(limits.SMALL_OBJECT, left):
            continue
        left -= stat.size
        if group and sum(len(data) for _, data in group) + stat.size > limits.CHUNK:
            yield group
            group = []
        async with aclosing(service.read(stat.digest, 0, stat.size)) as chunks:
            group.append((stat.digest, b"".join([chunk async for chunk in chunks])))
    if group:
        yield group


async def _serve_records(
    service: BlobService, request: blob_pb2.GetRecordsRequest, context: Context
) -> AsyncIterator[blob_pb2.Chunk]:
    records = await rpc_of(BlobService.records).ask(service, request)
    for start in range(0, len(records), limits.CHUNK):
        yield blob_pb2.Chunk(data=records[start : start + limits.CHUNK])


class BlobService(Protocol):
    @rpc("Stat")
    async def stat(
        self, digests: Annotated[Sequence[Digest], Items(limits.STAT_DIGESTS)]
    ) -> Annotated[tuple[BlobStat, ...], Items(limits.STAT_DIGESTS)]:
        """What the node has of each blob, in the order of `digests`."""

    @rpc("GetRecords", serve=_serve_records)
    async def records(
        self, digest: Annotated[Digest, At("blob")], layout: Annotated[str, Exact(limits.LABEL)]
    ) -> bytes:
        """The piece records of a blob. Raises NotFound."""

    @rpc("ListLocations")
    async def locations(self, digest: Digest) -> Annotated[tuple[BlobLocation, ...], Items(limits.LOCATIONS, cut=True)]:
        """Other locations of a blob, unverified; may be none. Raises NotFound."""

    @rpc("Read", raw=True, items=limits.READ)
    def read(
        self, digest: Digest, offset: int, length: Annotated[int, Number(least=1, most=limits.READ)]
    ) -> AsyncGenerator[bytes, None]:
        """`length` bytes of a blob, fewer only at its end. Raises NotFound."""

    def small(self, digests: Sequence[Digest]) -> AsyncGenerator[Sequence[tuple[Digest, bytes]], None]:
        """Those of some blobs that the node has and that are small, in their order, in groups for one message: at most
        `limits.SMALL_OBJECT` bytes each, `limits.CHUNK` a group, and `limits.OBJECTS_BYTES` in all."""


class BlobCalls(ServiceCalls):
    locations = call(BlobService.locations)
    _stat = call(BlobService.stat)

    async def object(self, digest: Digest) -> bytes:
        """Returns a whole object. Raises NotFound, and Untrusted if its SHA-256 is not `digest`."""
        request = blob_pb2.GetObjectRequest(digest=encode_digest(digest))
        data = await self._calls.join(rpc_of(_serve_object), request, limits.OBJECT)
        _check_object(digest, data)
        return data

    async def objects(
        self, digests: Sequence[Digest], *, uncompressed: bool = False
    ) -> AsyncGenerator[tuple[Digest, bytes], None]:
        """Yields those of some small objects that the node has, at most `limits.OBJECTS`, in the order of `digests`.
        Raises Untrusted for other bytes, and Unavailable (UNIMPLEMENTED) for a node of an older version.

        Args:
            uncompressed: the node need not try to compress them: they are files, which may be weights.
        """
        request = blob_pb2.GetObjectsRequest(
            digests=map(encode_digest, digests), together=True, uncompressed=uncompressed
        )
        left, size = iter(digests), limits.OBJECTS_BYTES + 64 * len(digests)
        answer = self._calls.stream(rpc_of(serve_objects), request, items=len(digests), size=size)
        async with aclosing(answer) as messages:
            async for message in messages:
                for digest, data in decode_objects(message):
                    if digest not in left:  # consumes `left` up to the digest: the order is checked as well
                        raise Malformed(
                            "the answer has another object", why="expected the digests asked, in their order"
                        )
                    _check_object(digest, data)
                    yield digest, data

    async def records(self, digest: Digest, layout: str, most: int = limits.RECORDS) -> bytes:
        """Returns the piece records of a blob, at most so many bytes. Check their root against a piece index. Raises
        NotFound, and Malformed (UNBOUNDED) for more bytes."""
        records = rpc_of(BlobService.records)
        return await self._calls.join(records, records.request.encode(digest, layout), most)

    async def stat(self, digests: Sequence[Digest]) -> tuple[BlobStat, ...]:
        """Returns what the node has of each blob, in the order of `digests`."""
        stats = await self._stat(digests)
        if [stat.digest for stat in stats] != list(digests):
            raise Malformed("the answer is about other blobs", why="expected the requested digests in their order")
        return stats

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """Yields `length` unverified bytes of a blob from `offset`; fewer only if the node reports its end.
        Raises NotFound."""
        read = rpc_of(BlobService.read)
        items, request = length // limits.MIN_CHUNK + 1, read.request.encode(digest, offset, length)
        async with aclosing(self._calls.stream(read, request, items=items, size=length)) as chunks:
            async for chunk in chunks:
                length -= len(chunk)
                if length < 0:
                    raise Malformed("more bytes than requested", code="UNBOUNDED")
                yield chunk


def _check_object(digest: Digest, data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != digest:
        raise Untrusted("not the requested object", why=f"its sha256 is not {digest}", code="DIGEST")
