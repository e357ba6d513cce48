"""The client of a node: one method per call of comity.v1, with values of `messages` and errors of comity.trust.errors.

Every call has a deadline, and the size of answers is limited while they arrive. The client checks only what the request
determines: the digest of an object, the order of entries, the length of a range. All other data is unverified.
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
    """One connection to a node. Close it, or use it as an async context manager.

    Every method may raise Unavailable (unreachable, timeout, overload), Refused (certificate, rate, permission) and
    Malformed (invalid answer); further errors are in the docstrings. If a method returns an async iterator, closing the
    iterator ends the call: use `contextlib.aclosing` unless the iterator is exhausted.
    """

    def __init__(self, connection: PinnedChannel, *, timeout: float = limits.CALL_TIMEOUT) -> None:
        channel = connection.channel
        self._calls = Calls(connection, timeout)
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
        timeout: float = limits.CALL_TIMEOUT,
    ) -> Self:
        """Connect to the node with the pinned certificate: its mutual port with an identity, else its open port."""
        return cls(connect(address, pin, identity, proxy=proxy), timeout=timeout)

    @classmethod
    def operator(cls, socket: Path, *, timeout: float = limits.CALL_TIMEOUT) -> Self:
        """Connect to a node on this machine over its Unix socket."""
        return cls(connect_operator(socket), timeout=timeout)

    def with_timeout(self, timeout: float) -> NodeClient:
        """Returns a client on the same connection with this timeout: seconds for an answer, or for the next message."""
        return NodeClient(self._calls.connection, timeout=timeout)

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
        """Returns the charter of an epoch, by default the newest that the node has. Raises NotFound."""
        request = node_pb2.GetCharterRequest(epoch=epoch)
        parts = await self._calls.all(self._node.GetCharter, request, decode_charter, limits.CERTIFICATE_LINES)
        if len({part.epoch for part in parts}) != 1 or epoch not in (None, parts[0].epoch):
            raise Malformed("the answer is not one charter", why="its parts belong to another epoch or to several")
        return join_charter(parts[0].epoch, parts)

    async def epochs(self, start: int = 0) -> tuple[Charter, ...]:
        """Returns certified epochs from `start`, as many as fit in one answer; get more with another call.
        Raises NotFound if the node does not have epoch `start`."""
        request = charter_pb2.GetEpochsRequest(from_epoch=start)
        items = 2 * limits.ANSWER // limits.CHUNK + 2 * limits.EPOCHS
        parts = await self._calls.all(self._charter.GetEpochs, request, decode_charter, items)
        epochs = tuple(join_charter(*run) for run in groupby(parts, lambda part: part.epoch))
        if not epochs or [charter.epoch for charter in epochs] != list(range(start, start + len(epochs))):
            raise Malformed("not the requested epochs", why=f"expected consecutive epochs from {start}")
        return epochs

    async def next_epoch_entries(self, prev: Digest | None = None) -> tuple[LocatedEntry, ...]:
        """Returns statements about the epoch after the body `prev`, by default the node's newest. Raises NotFound."""
        request = charter_pb2.GetProceedingsRequest(prev=None if prev is None else encode_digest(prev))
        items = limits.ANSWER_LINES
        size = limits.ANSWER_BYTES + items * limits.NAME
        return await self._calls.all(self._charter.GetProceedings, request, decode_located, items, size)

    async def ask(self, lines: Sequence[bytes]) -> AskReceipt:
        """Request to join, with the lines of a card. Raises Untrusted and Refused."""
        return decode_ask_receipt(await self._calls.unary(self._charter.Ask, charter_pb2.AskRequest(lines=lines)))

    async def asks(self) -> tuple[JoinRequest, ...]:
        """Returns the waiting requests to join, in the order of the requests."""
        request = charter_pb2.ListAsksRequest()
        return await self._calls.all(self._charter.ListAsks, request, decode_join_request, limits.ASKS)

    async def logs(self) -> tuple[LogHead, ...]:
        """Returns all logs of the node, its own log first."""
        return await self._calls.all(self._log.ListLogs, log_pb2.ListLogsRequest(), decode_head, limits.LOGS)

    async def checkpoint(self, origin: str, index: int | None = None) -> bytes:
        """Returns the newest note of a log, or the note that covers `index` and has most cosigners. Raises NotFound."""
        request = log_pb2.GetCheckpointRequest(origin=origin, index=index)
        return read_data((await self._calls.unary(self._log.GetCheckpoint, request)).note, "note", limits.NOTE)

    async def entries(self, origin: str, start: int, end: int) -> AsyncGenerator[EntryBatch, None]:
        """Yields the entries from `start` to before `end` without gaps: at most `limits.ENTRIES_PER_CALL`, fewer at the
        end of the log. Raises NotFound."""
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
        """Returns the hashes of an RFC 6962 inclusion proof. Raises NotFound."""
        request = log_pb2.GetInclusionRequest(origin=origin, index=index, size=size)
        answer = await self._calls.unary(self._log.GetInclusion, request)
        return read_hashes(answer.hashes, limits.INCLUSION_HASHES)

    async def consistency(self, origin: str, old_size: int, new_size: int) -> tuple[bytes, ...]:
        """Returns the hashes of an RFC 6962 consistency proof. Raises NotFound."""
        request = log_pb2.GetConsistencyRequest(origin=origin, old_size=old_size, new_size=new_size)
        answer = await self._calls.unary(self._log.GetConsistency, request)
        return read_hashes(answer.hashes, limits.CONSISTENCY_HASHES)

    async def proofs(self, line_digest: Digest, origin: str | None = None) -> tuple[LocatedProof, ...]:
        """Returns tlog-proofs of a line, one per log that has the line. Raises NotFound."""
        request = log_pb2.GetProofRequest(line_digest=encode_digest(line_digest), origin=origin)
        return await self._calls.all(self._log.GetProof, request, decode_proof, limits.PROOFS)

    async def misbehaviour(self) -> tuple[ShownMisbehaviour, ...]:
        """Returns the proofs of misbehaviour that the node has."""
        request = log_pb2.ListMisbehaviourRequest()
        return await self._calls.all(self._log.ListMisbehaviour, request, decode_misbehaviour, limits.MISBEHAVIOUR)

    async def resolve(
        self, name: str, version: str | None = None, publisher: Digest | None = None
    ) -> tuple[LocatedEntry, ...]:
        """Returns statements that claim a name, in the order in which the node first saw the claimants; only those of
        `publisher` if given. Raises NotFound."""
        asked = None if publisher is None else encode_digest(publisher)
        request = artifact_pb2.ResolveRequest(name=name, version=version, publisher=asked)
        return await self._calls.all(self._artifact.Resolve, request, decode_located, limits.RESOLVED)

    async def claims(self, digest: Digest) -> tuple[LocatedEntry, ...]:
        """Returns statements about an artifact, and about the authors of those statements. Raises NotFound."""
        request = artifact_pb2.GetClaimsRequest(artifact=encode_digest(digest))
        return await self._calls.all(self._artifact.GetClaims, request, decode_located, limits.CLAIMS)

    async def search(self, query: str, cursor: str = "", limit: int = 0) -> SearchPage:
        request = artifact_pb2.SearchRequest(query=query, cursor=cursor, limit=limit)
        return decode_page(await self._calls.unary(self._artifact.Search, request))

    async def object(self, digest: Digest) -> bytes:
        """Returns a whole object. Raises NotFound, and Untrusted if its SHA-256 is not `digest`."""
        data = await self._calls.join(
            self._blob.GetObject, blob_pb2.GetObjectRequest(digest=encode_digest(digest)), limits.OBJECT
        )
        if hashlib.sha256(data).hexdigest() != digest:
            raise Untrusted("not the requested object", why=f"its sha256 is not {digest}", code="DIGEST")
        return data

    async def records(self, digest: Digest, layout: str) -> bytes:
        """Returns the piece records of a blob. Check their root against a piece index. Raises NotFound."""
        request = blob_pb2.GetRecordsRequest(blob=encode_digest(digest), layout=layout)
        return await self._calls.join(self._blob.GetRecords, request, limits.RECORDS)

    async def stat(self, digests: Sequence[Digest]) -> tuple[BlobStat, ...]:
        """Returns what the node has of each blob, in the order of `digests`."""
        request = blob_pb2.StatRequest(digests=map(encode_digest, digests))
        answer = await self._calls.unary(self._blob.Stat, request)
        stats = read_many(answer.blobs, "blobs", limits.STAT_DIGESTS, decode_stat)
        if [stat.digest for stat in stats] != list(digests):
            raise Malformed("the answer is about other blobs", why="expected the requested digests in their order")
        return stats

    async def locations(self, digest: Digest) -> tuple[BlobLocation, ...]:
        """Returns other locations of a blob, unverified; may be none. Raises NotFound."""
        request = blob_pb2.ListLocationsRequest(digest=encode_digest(digest))
        answer = await self._calls.unary(self._blob.ListLocations, request)
        return read_many(answer.locations, "locations", limits.LOCATIONS, decode_location)

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

    async def adopt(self, path: Path, digest: Digest, size: int) -> bool:
        """Add a file on the node's machine to its store. Returns whether the node had it already. The node hashes the
        file first: use a long timeout. Raises NotFound, Untrusted and OutOfSpace."""
        named = types_pb2.ObjectSize(digest=encode_digest(digest), size=size)
        request = operator_pb2.AdoptRequest(path=str(path), object=named)
        return (await self._calls.unary(self._operator.Adopt, request)).already_held

    async def decide_ask(self, member: Digest, *, keep: bool) -> None:
        """Keep or dismiss a request to join. For operators. Raises NotFound, OutOfSpace."""
        request = operator_pb2.DecideAskRequest(member=encode_digest(member), keep=keep)
        await self._calls.unary(self._operator.DecideAsk, request)

    async def status(self) -> NodeStatus:
        return decode_status(await self._calls.unary(self._operator.GetStatus, operator_pb2.GetStatusRequest()))
