"""The gRPC services: one protocol per service, which the node implements, and its servicer.

Methods of a protocol may raise any error of comity.trust.errors, which is sent to the caller as a status. Arguments are
within `limits`, and otherwise unchecked. Iterators are read with back-pressure, and closed when the caller disconnects.
Data iterators yield chunks of 64 KiB to 1 MiB, except the last. No method may block the event loop.

Servicers convert messages to values and back, check limits, and split answers into messages. They have no other logic.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import grpc

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound
from comity.v1 import artifact_pb2, blob_pb2, charter_pb2, log_pb2, node_pb2, operator_pb2, publish_pb2, types_pb2
from comity.v1.artifact_pb2_grpc import ArtifactServiceServicer
from comity.v1.blob_pb2_grpc import BlobServiceServicer
from comity.v1.charter_pb2_grpc import CharterServiceServicer
from comity.v1.log_pb2_grpc import LogServiceServicer
from comity.v1.node_pb2_grpc import NodeServiceServicer
from comity.v1.operator_pb2_grpc import OperatorServiceServicer
from comity.v1.publish_pb2_grpc import PublishServiceServicer
from comity.wire import limits
from comity.wire.access import CALLER, Caller, require_operator
from comity.wire.limits import read_data, read_digest, read_integer, read_line, read_log, read_many, read_text
from comity.wire.messages import (
    GO_AHEAD,
    AskReceipt,
    BlobLocation,
    BlobStat,
    Charter,
    EntryBatch,
    InlineObject,
    JoinRequest,
    LocatedEntry,
    LocatedProof,
    LogHead,
    NodeFacts,
    NodeStatus,
    SearchPage,
    ShownMisbehaviour,
    Submitted,
    UploadHeader,
    card_lines,
    decode_inline,
    decode_upload_header,
    encode_ask_receipt,
    encode_batch,
    encode_charter,
    encode_head,
    encode_join_request,
    encode_located,
    encode_location,
    encode_misbehaviour,
    encode_node,
    encode_page,
    encode_proof,
    encode_stat,
    encode_submitted,
)
from comity.wire.status import encode_status


class NodeReads(Protocol):
    async def node(self) -> NodeFacts: ...

    async def charter(self, epoch: int | None) -> Charter:
        """Returns the charter of an epoch; None means the newest. Raises NotFound."""


class CharterReads(Protocol):
    def epochs(self, start: int) -> AsyncGenerator[Charter, None]:
        """Yields the epochs from `start`, in order, without gaps. Raises NotFound."""

    def next_epoch_entries(self, prev: Digest | None) -> AsyncGenerator[LocatedEntry, None]:
        """Yields lines about the epoch after `prev`; None means the newest body. Raises NotFound."""

    async def ask(self, caller: Caller, lines: Sequence[bytes]) -> AskReceipt:
        """Store a request to join. Raises Untrusted, and Refused if this caller asks too often."""

    def asks(self) -> AsyncGenerator[JoinRequest, None]: ...


class LogReads(Protocol):
    def logs(self) -> AsyncGenerator[LogHead, None]: ...

    async def checkpoint(self, origin: str, index: int | None) -> bytes:
        """Returns the newest note, or the note that covers `index` and has most cosigners. Raises NotFound."""

    async def entries(self, origin: str, start: int, end: int) -> Sequence[bytes]:
        """Returns some lines from `start` to before `end`; none only at the end of the log. Raises NotFound for an
        unknown log and for a start above its size."""

    async def inclusion(self, origin: str, index: int, size: int) -> Sequence[bytes]: ...

    async def consistency(self, origin: str, old_size: int, new_size: int) -> Sequence[bytes]: ...

    def proofs(self, line_digest: Digest, origin: str | None) -> AsyncGenerator[LocatedProof, None]: ...

    def misbehaviour(self) -> AsyncGenerator[ShownMisbehaviour, None]: ...


class ArtifactReads(Protocol):
    def resolve(
        self, name: str, version: str | None, publisher: Digest | None
    ) -> AsyncGenerator[LocatedEntry, None]: ...

    def claims(self, artifact: Digest) -> AsyncGenerator[LocatedEntry, None]: ...

    async def search(self, query: str, cursor: str, limit: int) -> SearchPage: ...


class BlobReads(Protocol):
    async def stat(self, digests: Sequence[Digest]) -> Sequence[BlobStat]:
        """Returns one result per digest, in order."""

    async def records(self, digest: Digest, layout: str) -> bytes:
        """Raises NotFound."""

    async def locations(self, digest: Digest) -> Sequence[BlobLocation]:
        """Raises NotFound."""

    def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """Yields `length` bytes, fewer only at the end of the blob. Raises NotFound."""


class PublishService(Protocol):
    async def submit(self, caller: Caller, lines: Sequence[bytes], objects: Sequence[InlineObject]) -> Submitted:
        """Log lines, or return the missing objects. Raises Refused if this caller may not publish here."""

    async def upload(self, caller: Caller, header: UploadHeader, chunks: AsyncIterator[bytes]) -> int:
        """Store the chunks. Returns how many bytes of the object are stored. The caller sends no data until `chunks`
        is read first: refuse before that. `chunks` may end early, or raise."""


class OperateService(Protocol):
    async def adopt(self, path: Path, digest: Digest, size: int) -> bool:
        """Add the file at `path` (absolute) to the store. Returns whether it was stored already."""

    async def decide_ask(self, member: Digest, *, keep: bool) -> None:
        """Keep or dismiss a request to join. Raises NotFound, OutOfSpace."""

    async def status(self) -> NodeStatus: ...


V = TypeVar("V")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class NodeServicer(NodeServiceServicer):
    def __init__(self, node: NodeReads) -> None:
        self._node = node

    async def GetNode(self, request: node_pb2.GetNodeRequest, context: Context) -> node_pb2.GetNodeResponse:
        return encode_node(await self._node.node())

    async def GetCharter(
        self, request: node_pb2.GetCharterRequest, context: Context
    ) -> AsyncIterator[node_pb2.GetCharterResponse]:
        epoch = read_integer(request.epoch, "epoch") if request.HasField("epoch") else None
        for part in _parts(await self._node.charter(epoch)):
            yield encode_charter(part)


class CharterServicer(CharterServiceServicer):
    def __init__(self, governance: CharterReads) -> None:
        self._governance = governance

    async def GetEpochs(
        self, request: charter_pb2.GetEpochsRequest, context: Context
    ) -> AsyncIterator[node_pb2.GetCharterResponse]:
        start, bytes_left = read_integer(request.from_epoch, "epoch"), limits.ANSWER
        async with aclosing(_at_most(limits.EPOCHS, self._governance.epochs(start))) as epochs:
            async for charter in epochs:
                bytes_left -= len(charter.body) + sum(map(len, charter.certificate))
                if bytes_left < 0 and charter.epoch > start:
                    return
                for part in _parts(charter):
                    yield encode_charter(part)

    async def GetProceedings(
        self, request: charter_pb2.GetProceedingsRequest, context: Context
    ) -> AsyncIterator[types_pb2.Located]:
        prev, bytes_left = read_digest(request.prev) if request.HasField("prev") else None, limits.ANSWER_BYTES
        async with aclosing(_at_most(limits.ANSWER_LINES, self._governance.next_epoch_entries(prev))) as lines:
            async for located in lines:
                bytes_left -= len(located.line)
                if bytes_left < 0:
                    return
                yield encode_located(located)

    async def Ask(self, request: charter_pb2.AskRequest, context: Context) -> charter_pb2.AskResponse:
        lines = card_lines(request.lines)
        return encode_ask_receipt(await self._governance.ask(CALLER.get(), lines))

    async def ListAsks(
        self, request: charter_pb2.ListAsksRequest, context: Context
    ) -> AsyncIterator[charter_pb2.JoinRequest]:
        async for ask in _at_most(limits.ASKS, self._governance.asks()):
            yield encode_join_request(ask)


class LogServicer(LogServiceServicer):
    def __init__(self, logs: LogReads) -> None:
        self._logs = logs

    async def ListLogs(self, request: log_pb2.ListLogsRequest, context: Context) -> AsyncIterator[types_pb2.LogHead]:
        async for head in _at_most(limits.LOGS, self._logs.logs()):
            yield encode_head(head)

    async def GetCheckpoint(
        self, request: log_pb2.GetCheckpointRequest, context: Context
    ) -> log_pb2.GetCheckpointResponse:
        index = read_integer(request.index, "index") if request.HasField("index") else None
        return log_pb2.GetCheckpointResponse(note=await self._logs.checkpoint(read_log(request.origin), index))

    async def GetEntries(
        self, request: log_pb2.GetEntriesRequest, context: Context
    ) -> AsyncIterator[log_pb2.EntryBatch]:
        origin = read_log(request.origin)
        start = read_integer(request.start, "start")
        end = read_integer(request.end, "end", least=start + 1, most=start + limits.ENTRIES_PER_CALL)
        while start < end and (lines := await self._logs.entries(origin, start, end)):
            for batch in _batches(lines):
                yield encode_batch(EntryBatch(start, batch))
                start += len(batch)

    async def GetInclusion(
        self, request: log_pb2.GetInclusionRequest, context: Context
    ) -> log_pb2.GetInclusionResponse:
        size = read_integer(request.size, "size", least=1)
        index = read_integer(request.index, "index", most=size - 1)
        hashes = await self._logs.inclusion(read_log(request.origin), index, size)
        return log_pb2.GetInclusionResponse(hashes=hashes)

    async def GetConsistency(
        self, request: log_pb2.GetConsistencyRequest, context: Context
    ) -> log_pb2.GetConsistencyResponse:
        new = read_integer(request.new_size, "new size", least=1)
        old = read_integer(request.old_size, "old size", least=1, most=new)
        hashes = await self._logs.consistency(read_log(request.origin), old, new)
        return log_pb2.GetConsistencyResponse(hashes=hashes)

    async def GetProof(self, request: log_pb2.GetProofRequest, context: Context) -> AsyncIterator[log_pb2.LocatedProof]:
        origin = read_log(request.origin) if request.HasField("origin") else None
        async for proof in _at_most(limits.PROOFS, self._logs.proofs(read_digest(request.line_digest), origin)):
            yield encode_proof(proof)

    async def ListMisbehaviour(
        self, request: log_pb2.ListMisbehaviourRequest, context: Context
    ) -> AsyncIterator[log_pb2.Misbehaviour]:
        async for misbehaviour in _at_most(limits.MISBEHAVIOUR, self._logs.misbehaviour()):
            yield encode_misbehaviour(misbehaviour)


class ArtifactServicer(ArtifactServiceServicer):
    def __init__(self, artifacts: ArtifactReads) -> None:
        self._artifacts = artifacts

    async def Resolve(self, request: artifact_pb2.ResolveRequest, context: Context) -> AsyncIterator[types_pb2.Located]:
        name = read_text(request.name, "name", limits.NAME)
        version = read_text(request.version, "version", limits.NAME) if request.HasField("version") else None
        publisher = read_digest(request.publisher) if request.HasField("publisher") else None
        async for located in _at_most(limits.RESOLVED, self._artifacts.resolve(name, version, publisher)):
            yield encode_located(located)

    async def GetClaims(
        self, request: artifact_pb2.GetClaimsRequest, context: Context
    ) -> AsyncIterator[types_pb2.Located]:
        async for located in _at_most(limits.CLAIMS, self._artifacts.claims(read_digest(request.artifact))):
            yield encode_located(located)

    async def Search(self, request: artifact_pb2.SearchRequest, context: Context) -> artifact_pb2.SearchResponse:
        page = await self._artifacts.search(
            read_text(request.query, "query", limits.NAME),
            read_text(request.cursor, "cursor", limits.TOKEN),
            read_integer(request.limit, "limit", most=limits.SEARCH_PAGE) or limits.SEARCH_PAGE,
        )
        return encode_page(page)


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

    async def GetRecords(self, request: blob_pb2.GetRecordsRequest, context: Context) -> AsyncIterator[blob_pb2.Chunk]:
        layout = read_text(request.layout, "layout", limits.LABEL)
        records = await self._blobs.records(read_digest(request.blob), layout)
        for start in range(0, len(records), limits.CHUNK):
            yield blob_pb2.Chunk(data=records[start : start + limits.CHUNK])

    async def Stat(self, request: blob_pb2.StatRequest, context: Context) -> blob_pb2.StatResponse:
        digests = read_many(request.digests, "digests", limits.STAT_DIGESTS, read_digest)
        return blob_pb2.StatResponse(blobs=map(encode_stat, await self._blobs.stat(digests)))

    async def ListLocations(
        self, request: blob_pb2.ListLocationsRequest, context: Context
    ) -> blob_pb2.ListLocationsResponse:
        locations = await self._blobs.locations(read_digest(request.digest))
        return blob_pb2.ListLocationsResponse(locations=map(encode_location, locations[: limits.LOCATIONS]))

    async def Read(self, request: blob_pb2.ReadRequest, context: Context) -> AsyncIterator[Any]:
        """Yields the raw bytes; `server` registers this call without a serializer."""
        offset = read_integer(request.offset, "offset")
        length = read_integer(request.length, "length", least=1, most=limits.READ)
        async with aclosing(self._blobs.read(read_digest(request.digest), offset, length)) as chunks:
            async for chunk in chunks:
                yield chunk


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


class OperatorServicer(OperatorServiceServicer):
    def __init__(self, operating: OperateService) -> None:
        self._operating = operating

    async def Adopt(self, request: operator_pb2.AdoptRequest, context: Context) -> operator_pb2.AdoptResponse:
        require_operator()
        path = Path(read_text(request.path, "path", limits.PATH))
        if not path.is_absolute():
            raise Malformed("not an absolute path", why="the node has another working directory")
        digest, size = read_digest(request.object.digest), read_integer(request.object.size, "size")
        return operator_pb2.AdoptResponse(already_held=await self._operating.adopt(path, digest, size))

    async def DecideAsk(
        self, request: operator_pb2.DecideAskRequest, context: Context
    ) -> operator_pb2.DecideAskResponse:
        require_operator()
        await self._operating.decide_ask(read_digest(request.member), keep=request.keep)
        return operator_pb2.DecideAskResponse()

    async def GetStatus(
        self, request: operator_pb2.GetStatusRequest, context: Context
    ) -> operator_pb2.GetStatusResponse:
        require_operator()
        return encode_status(await self._operating.status())


def _parts(charter: Charter) -> Iterable[Charter]:
    """Splits a charter into parts that fit into one message."""
    for start in range(0, len(charter.body), limits.CHUNK):
        yield Charter(charter.epoch, charter.body[start : start + limits.CHUNK], ())
    for lines in _batches(charter.certificate):
        yield Charter(charter.epoch, b"", lines)


def _batches(lines: Iterable[bytes]) -> Iterable[tuple[bytes, ...]]:
    """Splits lines into batches that fit into one message: at most CHUNK bytes and BATCH_LINES lines."""
    batch: list[bytes] = []
    size = 0
    for line in lines:
        if batch and (size + len(line) > limits.CHUNK or len(batch) == limits.BATCH_LINES):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield tuple(batch)


async def _at_most(count: int, values: AsyncGenerator[V, None]) -> AsyncGenerator[V, None]:
    async with aclosing(values):
        async for value in values:
            if count == 0:
                return
            count -= 1
            yield value


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
