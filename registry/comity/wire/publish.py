"""`PublishService`: submissions and uploads. Values, codec, calls and servicer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.v1 import publish_pb2, types_pb2
from comity.v1.publish_pb2_grpc import PublishServiceServicer, PublishServiceStub
from comity.wire import limits
from comity.wire.access import CALLER, Caller
from comity.wire.calls import ServiceCalls
from comity.wire.messages import (
    GO_AHEAD,
    Context,
    encode_digest,
    read_data,
    read_digest,
    read_integer,
    read_line,
    read_many,
    read_origin,
)

if TYPE_CHECKING:
    from comity.v1.publish_pb2_grpc import PublishServiceAsyncStub


@dataclass(frozen=True, slots=True)
class InlineObject:
    """A small side object, sent together with the lines that name it."""

    digest: Digest
    data: bytes


@dataclass(frozen=True, slots=True)
class MissingObject:
    """An object that a submission needs; `received` is the offset to continue at."""

    digest: Digest
    size: int
    received: int


@dataclass(frozen=True, slots=True)
class SubmitReceipt:
    """The index of a line in a log. Unverified until a checkpoint proves it."""

    origin: str
    index: int
    line_digest: Digest


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer to a submission: receipts for all lines, or the objects to upload first."""

    submission: Digest
    missing: tuple[MissingObject, ...] = ()
    receipts: tuple[SubmitReceipt, ...] = ()


@dataclass(frozen=True, slots=True)
class UploadHeader:
    """The header of an upload: its chunks are bytes of `digest` from `offset`, for one submission."""

    submission: Digest
    digest: Digest
    size: int
    offset: int


def encode_inline(inline: InlineObject) -> publish_pb2.InlineObject:
    return publish_pb2.InlineObject(digest=encode_digest(inline.digest), data=inline.data)


def decode_inline(message: publish_pb2.InlineObject) -> InlineObject:
    return InlineObject(read_digest(message.digest), read_data(message.data, "object", limits.SUBMIT_BYTES))


def encode_submitted(submitted: Submitted) -> publish_pb2.SubmitResponse:
    return publish_pb2.SubmitResponse(
        submission=encode_digest(submitted.submission),
        missing=map(_encode_missing, submitted.missing),
        receipts=map(_encode_receipt, submitted.receipts),
    )


def decode_submitted(message: publish_pb2.SubmitResponse) -> Submitted:
    """Raises Malformed unless the answer has either missing objects or receipts."""
    if bool(message.missing) == bool(message.receipts):
        raise Malformed("not an answer to a submission", why="expected either missing objects or receipts")
    return Submitted(
        submission=read_digest(message.submission),
        missing=read_many(message.missing, "missing objects", limits.MISSING, _decode_missing),
        receipts=read_many(message.receipts, "receipts", limits.SUBMIT_LINES, _decode_receipt),
    )


def _encode_missing(missing: MissingObject) -> publish_pb2.MissingObject:
    named = types_pb2.ObjectSize(digest=encode_digest(missing.digest), size=missing.size)
    return publish_pb2.MissingObject(object=named, received=missing.received)


def _decode_missing(message: publish_pb2.MissingObject) -> MissingObject:
    size = read_integer(message.object.size, "size")
    return MissingObject(
        digest=read_digest(message.object.digest),
        size=size,
        received=read_integer(message.received, "received bytes", most=size),
    )


def _encode_receipt(receipt: SubmitReceipt) -> publish_pb2.Receipt:
    return publish_pb2.Receipt(
        origin=receipt.origin, index=receipt.index, line_digest=encode_digest(receipt.line_digest)
    )


def _decode_receipt(message: publish_pb2.Receipt) -> SubmitReceipt:
    return SubmitReceipt(
        origin=read_origin(message.origin),
        index=read_integer(message.index, "index"),
        line_digest=read_digest(message.line_digest),
    )


def encode_upload_header(header: UploadHeader) -> publish_pb2.UploadHeader:
    return publish_pb2.UploadHeader(
        submission=encode_digest(header.submission),
        object=types_pb2.ObjectSize(digest=encode_digest(header.digest), size=header.size),
        offset=header.offset,
    )


def decode_upload_header(message: publish_pb2.UploadHeader) -> UploadHeader:
    size = read_integer(message.object.size, "size")
    return UploadHeader(
        submission=read_digest(message.submission),
        digest=read_digest(message.object.digest),
        size=size,
        offset=read_integer(message.offset, "offset", most=size),
    )


class PublishCalls(ServiceCalls):
    """The calls of `PublishService`."""

    @cached_property
    def _publish(self) -> PublishServiceAsyncStub:
        return PublishServiceStub(self._calls.connection.channel)

    async def submit(self, lines: Sequence[bytes], objects: Iterable[InlineObject] = ()) -> Submitted:
        """Log lines, or get the list of objects to upload first. Idempotent. Raises Untrusted and OutOfSpace."""
        request = publish_pb2.SubmitRequest(lines=lines, objects=map(encode_inline, objects))
        return decode_submitted(await self._calls.unary(self._publish.Submit, request))

    async def upload(self, header: UploadHeader, chunks: AsyncIterable[bytes]) -> int:
        """Upload an object from `header.offset`, in chunks of at most `limits.CHUNK`. Returns how many bytes of it the
        node has now. Raises NotFound, Conflict (another offset), Untrusted and OutOfSpace."""

        async def requests() -> AsyncIterator[publish_pb2.UploadRequest]:
            async for chunk in chunks:
                yield publish_pb2.UploadRequest(data=chunk)

        first = publish_pb2.UploadRequest(header=encode_upload_header(header))
        size = header.size - header.offset
        answer = await self._calls.upload(self._publish.Upload, first, requests(), size=size)
        return read_integer(answer.received, "received bytes", most=header.size)


class PublishService(Protocol):
    async def submit(self, caller: Caller, lines: Sequence[bytes], objects: Sequence[InlineObject]) -> Submitted:
        """Log lines, or return the missing objects. Raises Refused if this caller may not publish here."""

    async def upload(self, caller: Caller, header: UploadHeader, chunks: AsyncIterator[bytes]) -> int:
        """Store the chunks. Returns how many bytes of the object are stored. The caller sends no data until `chunks`
        is read first: refuse before that. `chunks` may end early, or raise."""


class PublishServicer(PublishServiceServicer):
    def __init__(self, publishing: PublishService) -> None:
        self._publishing = publishing

    async def Submit(self, request: publish_pb2.SubmitRequest, context: Context) -> publish_pb2.SubmitResponse:
        lines = read_many(request.lines, "lines", limits.SUBMIT_LINES, read_line)
        if not lines:
            raise Malformed("nothing to log", why="a submission has at least one line")
        objects = read_many(request.objects, "objects", limits.MISSING, decode_inline)
        return encode_submitted(await self._publishing.submit(CALLER.get(), lines, objects))

    async def Upload(
        self, request_iterator: AsyncIterator[publish_pb2.UploadRequest], context: Context
    ) -> publish_pb2.UploadResponse:
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("part") != "header":
            raise Malformed("no upload header", why="the first message must be a header")
        header = decode_upload_header(first.header)
        chunks = _chunks(request_iterator, header.size - header.offset, context)
        received = await self._publishing.upload(CALLER.get(), header, chunks)
        return publish_pb2.UploadResponse(received=received)


async def _chunks(
    requests: AsyncIterator[publish_pb2.UploadRequest], size: int, context: Context
) -> AsyncGenerator[bytes, None]:
    """Yields the data of an upload. Asks for it at the first read. Raises Malformed above the header's size."""
    await context.send_initial_metadata((GO_AHEAD,))
    async for request in requests:
        size -= len(request.data)
        if not request.data or size < 0:
            raise Malformed("the data does not match its header", why="a chunk is empty, or there are too many bytes")
        yield read_data(request.data, "chunk", limits.CHUNK)
