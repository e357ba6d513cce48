"""A node as its callers see it: one method a call of comity.v1, values in, values out, errors of comity.trust.errors.

Every call has a deadline, and answers are bounded while they arrive. What a node answers is checked here only as far as
the question decides it: the digest of an object, the order of entries, the length of a range. All else is claims.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, Untrusted
from comity.v1 import artifact_pb2, blob_pb2, charter_pb2, log_pb2, node_pb2, operator_pb2, publish_pb2, types_pb2
from comity.v1.artifact_pb2_grpc import ArtifactServiceStub
from comity.v1.blob_pb2_grpc import BlobServiceStub
from comity.v1.charter_pb2_grpc import CharterServiceStub
from comity.v1.log_pb2_grpc import LogServiceStub
from comity.v1.node_pb2_grpc import NodeServiceStub
from comity.v1.operator_pb2_grpc import OperatorServiceStub
from comity.v1.publish_pb2_grpc import PublishServiceStub
from comity.wire import limits
from comity.wire.calls import Calls
from comity.wire.limits import encode_digest, read_data, read_hashes, read_integer, read_many
from comity.wire.messages import (
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
    decode_ask_receipt,
    decode_batch,
    decode_charter,
    decode_head,
    decode_join_request,
    decode_located,
    decode_location,
    decode_misbehaviour,
    decode_node,
    decode_page,
    decode_proof,
    decode_stat,
    decode_submitted,
    encode_inline,
    encode_upload_header,
    join_charter,
)
from comity.wire.offer import OfferCalls
from comity.wire.status import decode_status
from comity.wire.tls import Address, CertificatePin, PinnedChannel, TlsIdentity, connect, connect_operator
from comity.wire.upstream import UpstreamCalls


class NodeClient:
    """One node over one connection; close it, or use it as an async context manager.

    Any method may raise Unavailable (not reached, too late, overloaded), Refused (certificate, rate, permission) and
    Malformed (the answer breaks the contract); others are named where they can occur. Methods that return an async
    iterator end the call when the iterator is closed: wrap it in `contextlib.aclosing` where it may not be exhausted.
    """

    def __init__(self, connection: PinnedChannel, *, patience: float = limits.PATIENCE) -> None:
        channel = connection.channel
        self._calls = Calls(connection, patience)
        self._node = NodeServiceStub(channel)
        self._log = LogServiceStub(channel)
        self._artifact = ArtifactServiceStub(channel)
        self._blob = BlobServiceStub(channel)
        self._charter = CharterServiceStub(channel)
        self._publish = PublishServiceStub(channel)
        self._operator = OperatorServiceStub(channel)
        self.offers = OfferCalls(self._calls)
        self.upstream = UpstreamCalls(self._calls)
        self._read: grpc.aio.UnaryStreamMultiCallable[blob_pb2.ReadRequest, bytes] = channel.unary_stream(
            "/comity.v1.BlobService/Read",
            request_serializer=blob_pb2.ReadRequest.SerializeToString,
            response_deserializer=None,  # the messages are the bytes themselves
        )

    @classmethod
    def connect(
        cls,
        address: Address,
        pin: CertificatePin,
        identity: TlsIdentity | None = None,
        *,
        proxy: bool = False,
        patience: float = limits.PATIENCE,
    ) -> Self:
        """The node that shows the pinned certificate: at its mutual port with an identity, at its open port without."""
        return cls(connect(address, pin, identity, proxy=proxy), patience=patience)

    @classmethod
    def operator(cls, socket: Path, *, patience: float = limits.PATIENCE) -> Self:
        """The node on this machine that listens on a Unix socket."""
        return cls(connect_operator(socket), patience=patience)

    def within(self, patience: float) -> NodeClient:
        """The same connection with other patience: seconds until an answer, or between messages of a stream."""
        return NodeClient(self._calls.connection, patience=patience)

    async def close(self) -> None:
        await self._calls.connection.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def node(self) -> NodeFacts:
        return decode_node(await self._calls.unary(self._node.GetNode, node_pb2.GetNodeRequest()))

    async def charter(self, epoch: int | None = None) -> Charter:
        """The charter of an epoch, or the newest one that the node holds. Raises NotFound."""
        request = node_pb2.GetCharterRequest(epoch=epoch)
        parts = await self._calls.all(self._node.GetCharter, request, decode_charter, limits.CERTIFICATE_LINES)
        if len({part.epoch for part in parts}) != 1 or epoch not in (None, parts[0].epoch):
            raise Malformed("not one charter", why="the parts of the answer are of another epoch, or of several")
        return join_charter(parts[0].epoch, parts)

    async def epochs(self, start: int = 0) -> tuple[Charter, ...]:
        """Certified epochs from `start` on, as many as one answer holds; ask again from the next one.
        Raises NotFound where the node does not hold epoch `start`."""
        request = charter_pb2.GetEpochsRequest(from_epoch=start)
        items = 2 * limits.ANSWER // limits.CHUNK + 2 * limits.EPOCHS
        parts = await self._calls.all(self._charter.GetEpochs, request, decode_charter, items)
        epochs = tuple(join_charter(*run) for run in groupby(parts, lambda part: part.epoch))
        if not epochs or [charter.epoch for charter in epochs] != list(range(start, start + len(epochs))):
            raise Malformed("not the epochs asked for", why=f"expected them in order, from {start} on")
        return epochs

    async def proceedings(self, prev: Digest | None = None) -> tuple[LocatedEntry, ...]:
        """What is said about the epoch after the body `prev`, or after the newest held there. Raises NotFound."""
        request = charter_pb2.GetProceedingsRequest(prev=None if prev is None else encode_digest(prev))
        size = limits.PROCEEDINGS_BYTES + limits.PROCEEDINGS * limits.NAME
        return await self._calls.all(self._charter.GetProceedings, request, decode_located, limits.PROCEEDINGS, size)

    async def ask(self, lines: Sequence[bytes]) -> AskReceipt:
        """Ask to be admitted, with a card. Raises Untrusted and Refused."""
        return decode_ask_receipt(await self._calls.unary(self._charter.Ask, charter_pb2.AskRequest(lines=lines)))

    async def asks(self) -> tuple[JoinRequest, ...]:
        """Who waits to be admitted, in the order of asking."""
        request = charter_pb2.ListAsksRequest()
        return await self._calls.all(self._charter.ListAsks, request, decode_join_request, limits.ASKS)

    async def logs(self) -> tuple[LogHead, ...]:
        """Every log that the node holds, its own first."""
        return await self._calls.all(self._log.ListLogs, log_pb2.ListLogsRequest(), decode_head, limits.LOGS)

    async def checkpoint(self, origin: str, index: int | None = None) -> bytes:
        """The newest note of a log, or the note covering `index` that has most cosigners. Raises NotFound."""
        request = log_pb2.GetCheckpointRequest(origin=origin, index=index)
        return read_data((await self._calls.unary(self._log.GetCheckpoint, request)).note, "note", limits.NOTE)

    async def entries(self, origin: str, start: int, end: int) -> AsyncGenerator[EntryBatch, None]:
        """Entries start <= i < end in order and without a gap: at most `limits.ENTRIES_PER_CALL`, fewer where the log
        ends. Raises NotFound."""
        end = min(end, start + limits.ENTRIES_PER_CALL)
        request = log_pb2.GetEntriesRequest(origin=origin, start=start, end=end)
        items, size = end - start, (end - start) * limits.LINE
        async with aclosing(self._calls.stream(self._log.GetEntries, request, items=items, size=size)) as batches:
            async for message in batches:
                batch = decode_batch(message)
                if batch.start != start or start + len(batch.lines) > end:
                    raise Malformed("entries out of order", why=f"expected a batch from {start}, up to {end} at most")
                start += len(batch.lines)
                yield batch

    async def inclusion(self, origin: str, index: int, size: int) -> tuple[bytes, ...]:
        """The hashes of an RFC 6962 inclusion proof. Raises NotFound."""
        request = log_pb2.GetInclusionRequest(origin=origin, index=index, size=size)
        answer = await self._calls.unary(self._log.GetInclusion, request)
        return read_hashes(answer.hashes, limits.INCLUSION_HASHES)

    async def consistency(self, origin: str, old_size: int, new_size: int) -> tuple[bytes, ...]:
        """The hashes of an RFC 6962 consistency proof. Raises NotFound."""
        request = log_pb2.GetConsistencyRequest(origin=origin, old_size=old_size, new_size=new_size)
        answer = await self._calls.unary(self._log.GetConsistency, request)
        return read_hashes(answer.hashes, limits.CONSISTENCY_HASHES)

    async def proofs(self, line_digest: Digest, origin: str | None = None) -> tuple[LocatedProof, ...]:
        """tlog-proofs of a line, one for each log that holds it. Raises NotFound."""
        request = log_pb2.GetProofRequest(line_digest=encode_digest(line_digest), origin=origin)
        return await self._calls.all(self._log.GetProof, request, decode_proof, limits.PROOFS)

    async def misbehaviour(self) -> tuple[ShownMisbehaviour, ...]:
        """The proofs of misbehaviour that the node keeps."""
        request = log_pb2.ListMisbehaviourRequest()
        return await self._calls.all(self._log.ListMisbehaviour, request, decode_misbehaviour, limits.MISBEHAVIOUR)

    async def resolve(
        self, name: str, version: str | None = None, publisher: Digest | None = None
    ) -> tuple[LocatedEntry, ...]:
        """Statements that claim a name, the claimant that the node saw first before the others; only those of
        `publisher` where one is given. Raises NotFound."""
        asked = None if publisher is None else encode_digest(publisher)
        request = artifact_pb2.ResolveRequest(name=name, version=version, publisher=asked)
        return await self._calls.all(self._artifact.Resolve, request, decode_located, limits.RESOLVED)

    async def claims(self, digest: Digest) -> tuple[LocatedEntry, ...]:
        """Statements about an artifact, and those about who made them. Raises NotFound."""
        request = artifact_pb2.GetClaimsRequest(artifact=encode_digest(digest))
        return await self._calls.all(self._artifact.GetClaims, request, decode_located, limits.CLAIMS)

    async def search(self, query: str, cursor: str = "", limit: int = 0) -> SearchPage:
        request = artifact_pb2.SearchRequest(query=query, cursor=cursor, limit=limit)
        return decode_page(await self._calls.unary(self._artifact.Search, request))

    async def object(self, digest: Digest) -> bytes:
        """A whole object whose SHA-256 is `digest`. Raises NotFound, and Untrusted for other bytes."""
        data = await self._calls.join(
            self._blob.GetObject, blob_pb2.GetObjectRequest(digest=encode_digest(digest)), limits.OBJECT
        )
        if hashlib.sha256(data).hexdigest() != digest:
            raise Untrusted("not the object asked for", why=f"its sha256 is not {digest}", code="DIGEST")
        return data

    async def records(self, digest: Digest, layout: str) -> bytes:
        """The piece records of a blob; to be checked against the root in a piece index. Raises NotFound."""
        request = blob_pb2.GetRecordsRequest(blob=encode_digest(digest), layout=layout)
        return await self._calls.join(self._blob.GetRecords, request, limits.RECORDS)

    async def stat(self, digests: Sequence[Digest]) -> tuple[BlobStat, ...]:
        """What the node has of each, in the order asked."""
        request = blob_pb2.StatRequest(digests=map(encode_digest, digests))
        answer = await self._calls.unary(self._blob.Stat, request)
        stats = read_many(answer.blobs, "blobs", limits.STAT_DIGESTS, decode_stat)
        if [stat.digest for stat in stats] != list(digests):
            raise Malformed("the answer is about other blobs", why="not the digests asked, in their order")
        return stats

    async def locations(self, digest: Digest) -> tuple[BlobLocation, ...]:
        """Hints where else to read a blob; may be none. Raises NotFound."""
        request = blob_pb2.ListLocationsRequest(digest=encode_digest(digest))
        answer = await self._calls.unary(self._blob.ListLocations, request)
        return read_many(answer.locations, "locations", limits.LOCATIONS, decode_location)

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """Bytes of a blob from `offset` on: `length` of them, fewer only where the node says that the blob ends.
        Unverified. Raises NotFound."""
        request = blob_pb2.ReadRequest(digest=encode_digest(digest), offset=offset, length=length)
        items = length // limits.LEAST_CHUNK + 1
        async with aclosing(self._calls.stream(self._read, request, items=items, size=length)) as chunks:
            async for chunk in chunks:
                length -= len(chunk)
                if length < 0:
                    raise Malformed("more bytes than asked", code="UNBOUNDED")
                yield chunk

    async def submit(self, lines: Sequence[bytes], objects: Iterable[InlineObject] = ()) -> Submitted:
        """Log lines, or learn what has to be uploaded first. Safe to repeat. Raises Untrusted and OutOfSpace."""
        request = publish_pb2.SubmitRequest(lines=lines, objects=map(encode_inline, objects))
        return decode_submitted(await self._calls.unary(self._publish.Submit, request))

    async def upload(self, header: UploadHeader, chunks: AsyncIterable[bytes]) -> int:
        """Send an object from `header.offset` on; gives how many bytes of it the node now holds. `chunks` are at most
        `limits.CHUNK` each. Raises NotFound, Conflict (another offset), Untrusted and OutOfSpace."""

        async def requests() -> AsyncIterator[publish_pb2.UploadRequest]:
            async for chunk in chunks:
                yield publish_pb2.UploadRequest(data=chunk)

        first = publish_pb2.UploadRequest(header=encode_upload_header(header))
        size = header.size - header.offset
        answer = await self._calls.upload(self._publish.Upload, first, requests(), size=size)
        return read_integer(answer.received, "received bytes", most=header.size)

    async def adopt(self, path: Path, digest: Digest, size: int) -> bool:
        """Have the node take in a file of its own machine; gives whether it had it already. The node hashes it first,
        so give it patience. Raises NotFound, Untrusted and OutOfSpace."""
        named = types_pb2.ObjectSize(digest=encode_digest(digest), size=size)
        request = operator_pb2.AdoptRequest(path=str(path), object=named)
        return (await self._calls.unary(self._operator.Adopt, request)).already_held

    async def decide_ask(self, member: Digest, *, keep: bool) -> None:
        """Keep a request to join, or dismiss it. For operators. Raises NotFound, OutOfSpace."""
        request = operator_pb2.DecideAskRequest(member=encode_digest(member), keep=keep)
        await self._calls.unary(self._operator.DecideAsk, request)

    async def status(self) -> NodeStatus:
        return decode_status(await self._calls.unary(self._operator.GetStatus, operator_pb2.GetStatusRequest()))
