"""`PublishService`: submissions and uploads. Values and calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from typing import Annotated, Final, Protocol

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.v1 import publish_pb2
from comity.wire import limits
from comity.wire.access import CALLER, Caller
from comity.wire.calls import ServiceCalls, call
from comity.wire.codec import LINE, ORIGIN, At, Data, Items, MessageCodec
from comity.wire.fields import encode_digest, read_data, read_digest, read_integer, read_many
from comity.wire.messages import GO_AHEAD
from comity.wire.rpc import Context, Rpcs, rpc_of

rpc = Rpcs(publish_pb2)


@frozen
class InlineObject:
    """A small side object, sent together with the lines that name it."""

    digest: Digest
    data: Annotated[bytes, Data(limits.SUBMIT_BYTES)]


@frozen
class MissingObject:
    """An object that a submission needs; `received` is the offset to continue at."""

    digest: Annotated[Digest, At("object.digest")]
    size: Annotated[int, At("object.size")]
    received: int


@frozen
class SubmitReceipt:
    """The index of a line in a log. Unverified until a checkpoint proves it."""

    origin: Annotated[str, ORIGIN]
    index: int
    line_digest: Digest


@frozen
class Submitted:
    """The answer to a submission: receipts for all lines, or the objects to upload first."""

    submission: Digest
    missing: tuple[MissingObject, ...] = ()
    receipts: Annotated[tuple[SubmitReceipt, ...], Items(limits.SUBMIT_LINES)] = ()


@frozen
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


MISSING: Final = MessageCodec(MissingObject, publish_pb2.MissingObject, _check_missing)
SUBMITTED: Final = MessageCodec(
    Submitted, publish_pb2.SubmitResponse, _check_submitted, missing=Items(limits.MISSING, MISSING)
)
UPLOAD_HEADER: Final = MessageCodec(UploadHeader, publish_pb2.UploadHeader, _check_upload)


def _check_submission(lines: Sequence[bytes], objects: Sequence[InlineObject]) -> None:
    if not lines:
        raise Malformed("nothing to log", why="a submission has at least one line")


class PublishService(Protocol):
    @rpc("Submit", check=_check_submission)
    async def submit(
        self,
        caller: Caller,
        lines: Annotated[Sequence[bytes], Items(limits.SUBMIT_LINES, LINE)],
        objects: Annotated[Sequence[InlineObject], Items(limits.MISSING)] = (),
    ) -> Annotated[Submitted, SUBMITTED]:
        """Log lines, or return the list of objects to upload first. Idempotent. Raises Untrusted, OutOfSpace, and
        Refused if this caller may not publish here."""

    async def upload(self, caller: Caller, header: UploadHeader, chunks: AsyncIterator[bytes]) -> int:
        """Store the chunks. Returns how many bytes of the object are stored. The caller sends no data until `chunks`
        is read first: refuse before that. `chunks` may end early, or raise."""

    async def upload_objects(
        self, caller: Caller, submission: Digest, batches: AsyncIterator[Sequence[InlineObject]]
    ) -> int:
        """Store the small objects of each batch together. Returns how many of them are stored. As for `upload`, refuse
        before `batches` is read first."""


@rpc.served("Upload")
async def _serve_upload(
    service: PublishService, requests: AsyncIterator[publish_pb2.UploadRequest], context: Context
) -> publish_pb2.UploadResponse:
    first = await anext(aiter(requests), None)
    if first is None or first.WhichOneof("part") != "header":
        raise Malformed("no upload header", why="the first message must be a header")
    header = UPLOAD_HEADER.decode(first.header)
    received = await service.upload(CALLER.get(), header, _chunks(requests, header.size - header.offset, context))
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


@rpc.served("UploadObjects")
async def _serve_upload_objects(
    service: PublishService, requests: AsyncIterator[publish_pb2.UploadObjectsRequest], context: Context
) -> publish_pb2.UploadObjectsResponse:
    first = await anext(aiter(requests), None)
    if first is None or first.WhichOneof("part") != "submission":
        raise Malformed("no submission", why="the first message must name one")
    held = await service.upload_objects(CALLER.get(), read_digest(first.submission), _batches(requests, context))
    return publish_pb2.UploadObjectsResponse(held=held)


async def _batches(
    requests: AsyncIterator[publish_pb2.UploadObjectsRequest], context: Context
) -> AsyncGenerator[Sequence[InlineObject], None]:
    """Yields the objects of an upload. Asks for them at the first read. Raises Malformed for an object that is not
    small or was sent before, for too many objects, and for more than `limits.CHUNK` bytes of them in one message."""
    await context.send_initial_metadata((GO_AHEAD,))
    seen = set[Digest]()
    async for request in requests:
        batch = read_many(request.batch.objects, "objects", limits.MISSING - len(seen), _small_object)
        seen |= (fresh := {each.digest for each in batch} - seen)
        if not batch or len(fresh) != len(batch) or sum(len(each.data) for each in batch) > limits.CHUNK:
            why = "a message has no object, one that was sent before, or too many bytes"
            raise Malformed("the objects do not fit one upload", why=why)
        yield batch


def _small_object(message: publish_pb2.InlineObject) -> InlineObject:
    return InlineObject(read_digest(message.digest), read_data(message.data, "object", limits.SMALL_OBJECT))


class PublishCalls(ServiceCalls):
    submit = call(PublishService.submit)

    async def upload_objects(
        self, submission: Digest, batches: AsyncIterable[Sequence[InlineObject]], *, size: int
    ) -> int:
        """Upload small objects, about `size` bytes in all. Returns how many of them the node has now. Raises as
        `upload`, but Conflict, and Unavailable (UNIMPLEMENTED) for a node of an older version.

        Args:
            batches: objects of at most `limits.SMALL_OBJECT` bytes, at most `limits.CHUNK` in a batch, and
                `limits.MISSING` objects in all, each once.
        """
        count = 0

        async def requests() -> AsyncIterator[publish_pb2.UploadObjectsRequest]:
            nonlocal count
            async for batch in batches:
                count += len(batch)
                sent = (publish_pb2.InlineObject(digest=encode_digest(each.digest), data=each.data) for each in batch)
                yield publish_pb2.UploadObjectsRequest(batch=publish_pb2.ObjectBatch(objects=sent))

        first = publish_pb2.UploadObjectsRequest(submission=encode_digest(submission))
        answer = await self._calls.upload(rpc_of(_serve_upload_objects), first, requests(), size=size)
        return read_integer(answer.held, "objects", most=count)

    async def upload(self, header: UploadHeader, chunks: AsyncIterable[bytes]) -> int:
        """Upload an object from `header.offset`, in chunks of at most `limits.CHUNK`. Returns how many bytes of it the
        node has now. Raises NotFound, Conflict (another offset), Untrusted and OutOfSpace."""

        async def requests() -> AsyncIterator[publish_pb2.UploadRequest]:
            async for chunk in chunks:
                yield publish_pb2.UploadRequest(data=chunk)

        first = publish_pb2.UploadRequest(header=UPLOAD_HEADER.encode(header))
        size = header.size - header.offset
        answer = await self._calls.upload(rpc_of(_serve_upload), first, requests(), size=size)
        return read_integer(answer.received, "received bytes", most=header.size)
