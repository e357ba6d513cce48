"""`LogService`: logs, their entries and proofs, and proofs of misbehaviour. Values, codec, calls and servicer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Final, Protocol

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.v1 import log_pb2, types_pb2
from comity.v1.log_pb2_grpc import LogServiceServicer, LogServiceStub
from comity.wire import limits
from comity.wire.calls import ServiceCalls
from comity.wire.codec import LINE, ORIGIN, Data, Exact, Items, MessageCodec
from comity.wire.fields import encode_digest, read_data, read_digest, read_hashes, read_integer, read_log
from comity.wire.messages import Context, at_most, batches, compress

if TYPE_CHECKING:
    from comity.v1.log_pb2_grpc import LogServiceAsyncStub


@dataclass(frozen=True, slots=True)
class LogHead:
    """A log and its newest note with all known cosignatures; `note` is empty before the first checkpoint."""

    origin: Annotated[str, ORIGIN]
    vkey: Annotated[str, Exact(limits.PATH)]
    note: Annotated[bytes, Data(limits.NOTE)]


@dataclass(frozen=True, slots=True)
class EntryBatch:
    start: int
    lines: Annotated[tuple[bytes, ...], Items(limits.BATCH_LINES, LINE)]


@dataclass(frozen=True, slots=True)
class LocatedProof:
    """A C2SP tlog-proof and the origin of its log."""

    origin: Annotated[str, ORIGIN]
    proof: Annotated[bytes, Data(limits.PROOF)]


@dataclass(frozen=True, slots=True)
class ShownMisbehaviour:
    """A proof of misbehaviour of a log: `parts` are contradictory signed notes, lines and proofs."""

    kind: Annotated[str, Exact(limits.LABEL)]
    origin: Annotated[str, ORIGIN]
    parts: Annotated[tuple[bytes, ...], Items(limits.MISBEHAVIOUR_PARTS, Data(limits.PROOF))]


def _check_batch(batch: EntryBatch) -> None:
    """An empty batch would make no progress."""
    if not batch.lines:
        raise Malformed("empty batch", why="a batch has at least one line")


HEAD: Final = MessageCodec(LogHead, types_pb2.LogHead)
BATCH: Final = MessageCodec(EntryBatch, log_pb2.EntryBatch, _check_batch)
PROOF: Final = MessageCodec(LocatedProof, log_pb2.LocatedProof)
MISBEHAVIOUR: Final = MessageCodec(ShownMisbehaviour, log_pb2.Misbehaviour)


class LogCalls(ServiceCalls):
    """The calls of `LogService`."""

    @cached_property
    def _log(self) -> LogServiceAsyncStub:
        return LogServiceStub(self._calls.connection.channel)

    async def logs(self) -> tuple[LogHead, ...]:
        """Returns all logs of the node, its own log first."""
        return await self._calls.all(self._log.ListLogs, log_pb2.ListLogsRequest(), HEAD.decode, limits.LOGS)

    async def checkpoint(self, origin: str, index: int | None = None, *, up_to: int | None = None) -> bytes:
        """Returns the newest note of a log; or the note that covers `index` and has most cosigners; or the note of the
        largest tree with at most `up_to` entries, for which a node of an older version gives the newest. Raises
        NotFound."""
        request = log_pb2.GetCheckpointRequest(origin=origin, index=index, up_to=up_to)
        return read_data((await self._calls.unary(self._log.GetCheckpoint, request)).note, "note", limits.NOTE)

    async def entries(self, origin: str, start: int, end: int) -> AsyncGenerator[EntryBatch, None]:
        """Yields the entries from `start` to before `end` without gaps: at most `limits.ENTRIES_PER_CALL`, fewer at the
        end of the log. Raises NotFound."""
        end = min(end, start + limits.ENTRIES_PER_CALL)
        request = log_pb2.GetEntriesRequest(origin=origin, start=start, end=end, compressed=True)
        items, size = end - start, (end - start) * limits.LINE
        async with aclosing(self._calls.stream(self._log.GetEntries, request, items=items, size=size)) as batches:
            async for message in batches:
                batch = BATCH.decode(message)
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
        return await self._calls.all(self._log.GetProof, request, PROOF.decode, limits.PROOFS)

    async def misbehaviour(self) -> tuple[ShownMisbehaviour, ...]:
        """Returns the proofs of misbehaviour that the node has."""
        request = log_pb2.ListMisbehaviourRequest()
        return await self._calls.all(self._log.ListMisbehaviour, request, MISBEHAVIOUR.decode, limits.MISBEHAVIOUR)


class LogReads(Protocol):
    def logs(self) -> AsyncGenerator[LogHead, None]: ...

    async def checkpoint(self, origin: str, index: int | None, up_to: int | None = None) -> bytes:
        """Returns the newest note; the note that covers `index` and has most cosigners; or the note of the largest tree
        with at most `up_to` entries. Raises NotFound."""

    async def entries(self, origin: str, start: int, end: int) -> Sequence[bytes]:
        """Returns some lines from `start` to before `end`; none only at the end of the log. Raises NotFound for an
        unknown log and for a start above its size."""

    async def inclusion(self, origin: str, index: int, size: int) -> Sequence[bytes]: ...

    async def consistency(self, origin: str, old_size: int, new_size: int) -> Sequence[bytes]: ...

    def proofs(self, line_digest: Digest, origin: str | None) -> AsyncGenerator[LocatedProof, None]: ...

    def misbehaviour(self) -> AsyncGenerator[ShownMisbehaviour, None]: ...


class LogServicer(LogServiceServicer):
    def __init__(self, logs: LogReads) -> None:
        self._logs = logs

    async def ListLogs(self, request: log_pb2.ListLogsRequest, context: Context) -> AsyncIterator[types_pb2.LogHead]:
        async for head in at_most(limits.LOGS, self._logs.logs()):
            yield HEAD.encode(head)

    async def GetCheckpoint(
        self, request: log_pb2.GetCheckpointRequest, context: Context
    ) -> log_pb2.GetCheckpointResponse:
        index = read_integer(request.index, "index") if request.HasField("index") else None
        up_to = read_integer(request.up_to, "size") if request.HasField("up_to") else None
        if index is not None and up_to is not None:
            raise Malformed("two kinds of checkpoints are asked for", why="`index` and `up_to` exclude each other")
        return log_pb2.GetCheckpointResponse(note=await self._logs.checkpoint(read_log(request.origin), index, up_to))

    async def GetEntries(
        self, request: log_pb2.GetEntriesRequest, context: Context
    ) -> AsyncIterator[log_pb2.EntryBatch]:
        origin = read_log(request.origin)
        start = read_integer(request.start, "start")
        end = read_integer(request.end, "end", least=start + 1, most=start + limits.ENTRIES_PER_CALL)
        if request.compressed:
            compress(context)
        while start < end and (lines := await self._logs.entries(origin, start, end)):
            for batch in batches(lines):
                yield BATCH.encode(EntryBatch(start, batch))
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
        async for proof in at_most(limits.PROOFS, self._logs.proofs(read_digest(request.line_digest), origin)):
            yield PROOF.encode(proof)

    async def ListMisbehaviour(
        self, request: log_pb2.ListMisbehaviourRequest, context: Context
    ) -> AsyncIterator[log_pb2.Misbehaviour]:
        async for misbehaviour in at_most(limits.MISBEHAVIOUR, self._logs.misbehaviour()):
            yield MISBEHAVIOUR.encode(misbehaviour)
