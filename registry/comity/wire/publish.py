"""`PublishService`: submissions and uploads. Values, codec, calls and servicer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Final, Protocol

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.v1 import publish_pb2
from comity.v1.publish_pb2_grpc import PublishServiceServicer, PublishServiceStub
from comity.wire import limits
from comity.wire.access import CALLER, Caller
from comity.wire.calls import ServiceCalls
from comity.wire.codec import ORIGIN, At, Data, Items, MessageCodec
from comity.wire.fields import read_data, read_integer, read_line, read_many
from comity.wire.messages import GO_AHEAD, Context

if TYPE_CHECKING:
    from comity.v1.publish_pb2_grpc import PublishServiceAsyncStub


@dataclass(frozen=True, slots=True)
class InlineObject:
    """A small side object, sent together with the lines that name it."""

    digest: Digest
    data: Annotated[bytes, Data(limits.SUBMIT_BYTES)]


@dataclass(frozen=True, slots=True)
class MissingObject:
    """An object that a submission needs; `received` is the offset to continue at."""

    digest: Annotated[Digest, At("object.digest")]
    size: Annotated[int, At("object.size")]
    received: int


@dataclass(frozen=True, slots=True)
class SubmitReceipt:
    """The index of a line in a log. Unverified until a checkpoint proves it."""

    origin: Annotated[str, ORIGIN]
    index: int
    line_digest: Digest


@dataclass(frozen=True, slots=True)
class Submitted:
    """The answer to a submission: receipts for all lines, or the objects to upload first."""

    submission: Digest
    missing: tuple[MissingObject, ...] = ()
    receipts: Annotated[tuple[SubmitReceipt, ...], Items(limits.SUBMIT_LINES)] = ()


@dataclass(frozen=True, slots=True)
class UploadHeader:
    """The header of an upload: its chunks are bytes of `digest` from `offset`, for one submission."""

    submission: Digest
    digest: Annotated[Digest, At("object.digest")]
    size: Annotated[int, At("object.size")]
    offset: int


def _check_missing(missing: MissingObject) -> None:
    read_integer(missing.received, "received bytes", most=missing.size)


def _check_submitted(submitted: Submitted) -> None:
    if bool(submitted.missing) == bool(submitted.receipts):
        raise Malformed("not an answer to a submission", why="expected either missing objects or receipts")


def _check_upload(header: UploadHeader) -> None:
    read_integer(header.offset, "offset", most=header.size)


INLINE: Final = MessageCodec(InlineObject, publish_pb2.InlineObject)
MISSING: Final = MessageCodec(MissingObject, publish_pb2.MissingObject, _check_missing)
SUBMITTED: Final = MessageCodec(
    Submitted, publish_pb2.SubmitResponse, _check_submitted, missing=Items(limits.MISSING, MISSING)
)
UPLOAD_HEADER: Final = MessageCodec(UploadHeader, publish_pb2.UploadHeader, _check_upload)


class PublishCalls(ServiceCalls):
    """The calls of `PublishService`."""

    @cached_property
    def _publish(self) -> PublishServiceAsyncStub:
        return PublishServiceStub(self._calls.connection.channel)

    async def submit(self, lines: Sequence[bytes], objects: Iterable[InlineObject] = ()) -> Submitted:
        """Log lines, or get the list of objects to upload first. Idempotent. Raises Untrusted and OutOfSpace."""
        request = publish_pb2.SubmitRequest(lines=lines, objects=map(INLINE.encode, objects))
        return SUBMITTED.decode(await self._calls.unary(self._publish.Submit, request))

    async def upload(self, header: UploadHeader, chunks: AsyncIterable[bytes]) -> int:
        """Upload an object from `header.offset`, in chunks of at most `limits.CHUNK`. Returns how many bytes of it the
        node has now. Raises NotFound, Conflict (another offset), Untrusted and OutOfSpace."""

        async def requests() -> AsyncIterator[publish_pb2.UploadRequest]:
            async for chunk in chunks:
                yield publish_pb2.UploadRequest(data=chunk)

        first = publish_pb2.UploadRequest(header=UPLOAD_HEADER.encode(header))
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
        objects = read_many(request.objects, "objects", limits.MISSING, INLINE.decode)
        return SUBMITTED.encode(await self._publishing.submit(CALLER.get(), lines, objects))

    async def Upload(
        self, request_iterator: AsyncIterator[publish_pb2.UploadRequest], context: Context
    ) -> publish_pb2.UploadResponse:
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("part") != "header":
            raise Malformed("no upload header", why="the first message must be a header")
        header = UPLOAD_HEADER.decode(first.header)
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
