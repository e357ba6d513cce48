"""`LogService`: logs, their entries and proofs, and proofs of misbehaviour. Values and calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Final, Protocol, TypeAlias

from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen
from comity.trust.tlog.note import MAX_SIGNATURES, Checkpoint
from comity.trust.tlog.proof import TlogProof
from comity.v1 import log_pb2
from comity.wire import limits
from comity.wire.calls import ServiceCalls, call, collected
from comity.wire.codec import LINE, LOG, ORIGIN, SHA256_BYTES, Data, Exact, Items, MessageCodec, Number, Read
from comity.wire.fields import read_integer
from comity.wire.messages import batches, compress
from comity.wire.rpc import Context, Rpcs, rpc_of

rpc = Rpcs(log_pb2)
_Log: TypeAlias = Annotated[str, LOG]
KEY_ID: Final = 4
"""Bytes of the id of a key in a signed note."""
_Size: TypeAlias = Annotated[int, Number(least=1)]


@frozen
class LogHead:
    """A log and its newest note with all known cosignatures; `note` is empty before the first checkpoint."""

    origin: Annotated[str, ORIGIN]
    vkey: Annotated[str, Exact(limits.PATH)]
    note: Annotated[bytes, Data(limits.NOTE)]


@frozen
class EntryBatch:
    start: int
    lines: Annotated[tuple[bytes, ...], Items(limits.BATCH_LINES, LINE)]


@frozen
class LocatedProof:
    """A C2SP tlog-proof and the origin of its log."""

    origin: Annotated[str, ORIGIN]
    proof: Annotated[bytes, Data(limits.PROOF)]


def _read_signers(raw: bytes) -> tuple[bytes, ...]:
    if not raw or len(raw) % KEY_ID or len(raw) > MAX_SIGNATURES * KEY_ID:
        why = f"{len(raw)} bytes, expected 1 to {MAX_SIGNATURES} of {KEY_ID} bytes each"
        raise Malformed("not key ids of signatures", why=why)
    return tuple(raw[at : at + KEY_ID] for at in range(0, len(raw), KEY_ID))


@frozen
class ProofSummary:
    """What a node says of a proof that it has: the origin of the log, the size of the tree, and the key ids of the
    signatures of the checkpoint."""

    origin: Annotated[str, ORIGIN]
    size: int
    signers: Annotated[tuple[bytes, ...], Read(_read_signers, b"".join)]

    @classmethod
    def of(cls, located: LocatedProof) -> ProofSummary:
        """Raises Malformed."""
        note = TlogProof.parse(located.proof).checkpoint
        return cls(located.origin, Checkpoint.parse(note.text).size, tuple(each.key_id for each in note.signatures))


@frozen
class ShownMisbehaviour:
    """A proof of misbehaviour of a log: `parts` are contradictory signed notes, lines and proofs."""

    kind: Annotated[str, Exact(limits.LABEL)]
    origin: Annotated[str, ORIGIN]
    parts: Annotated[tuple[bytes, ...], Items(limits.MISBEHAVIOUR_PARTS, Data(limits.PROOF))]


def _check_batch(batch: EntryBatch) -> None:
    """An empty batch would make no progress."""
    if not batch.lines:
        raise Malformed("empty batch", why="a batch has at least one line")


BATCH: Final = MessageCodec(EntryBatch, log_pb2.EntryBatch, _check_batch)
PROOF: Final = MessageCodec(LocatedProof, log_pb2.LocatedProof)
_SUMMARY: Final = MessageCodec(ProofSummary, log_pb2.LocatedProof)


def _check_checkpoint(origin: str, index: int | None, up_to: int | None) -> None:
    if index is not None and up_to is not None:
        raise Malformed("two kinds of checkpoints are asked for", why="`index` and `up_to` exclude each other")


def _check_entries(origin: str, start: int, end: int) -> None:
    read_integer(end, "end", least=start + 1, most=start + limits.ENTRIES_PER_CALL)


async def _serve_entries(
    service: LogService, request: log_pb2.GetEntriesRequest, context: Context
) -> AsyncIterator[log_pb2.EntryBatch]:
    asked = rpc_of(LogService.entries).request.decode(request)
    if request.compressed:
        compress(context)
    start, end = asked["start"], asked["end"]
    while start < end and (lines := await service.entries(asked["origin"], start, end)):
        for batch in batches(lines):
            yield BATCH.encode(EntryBatch(start, batch))
            start += len(batch)


async def _serve_proofs(
    service: LogService, request: log_pb2.GetProofRequest, context: Context
) -> AsyncIterator[log_pb2.LocatedProof]:
    left = limits.PROOFS
    async with aclosing(rpc_of(LogService.proofs).ask(service, request)) as proofs:
        async for located in proofs:
            if not left:
                return
            left -= 1
            yield _SUMMARY.encode(ProofSummary.of(located)) if request.brief else PROOF.encode(located)


class LogService(Protocol):
    @rpc("ListLogs", items=limits.LOGS)
    def logs(self) -> AsyncGenerator[LogHead, None]:
        """All logs of the node, its own log first."""

    @rpc("GetCheckpoint", check=_check_checkpoint)
    async def checkpoint(
        self, origin: _Log, index: int | None = None, up_to: int | None = None
    ) -> Annotated[bytes, Data(limits.NOTE)]:
        """The newest note of a log; or the note that covers `index` and has most cosigners; or the note of the largest
        tree with at most `up_to` entries, for which a node of an older version gives the newest. Raises NotFound."""

    @rpc("GetEntries", check=_check_entries, serve=_serve_entries)
    async def entries(self, origin: _Log, start: int, end: int) -> Sequence[bytes]:
        """Some lines from `start` to before `end`; none only at the end of the log. Raises NotFound for an unknown log
        and for a start above its size."""

    @rpc("GetInclusion", check=lambda origin, index, size: read_integer(index, "index", most=size - 1))
    async def inclusion(
        self, origin: _Log, index: int, size: _Size
    ) -> Annotated[tuple[bytes, ...], Items(limits.INCLUSION_HASHES, SHA256_BYTES)]:
        """The hashes of an RFC 6962 inclusion proof. Raises NotFound."""

    @rpc(
        "GetConsistency",
        check=lambda origin, old_size, new_size: read_integer(old_size, "old size", least=1, most=new_size),
    )
    async def consistency(
        self, origin: _Log, old_size: int, new_size: _Size
    ) -> Annotated[tuple[bytes, ...], Items(limits.CONSISTENCY_HASHES, SHA256_BYTES)]:
        """The hashes of an RFC 6962 consistency proof. Raises NotFound."""

    @rpc("GetProof", items=limits.PROOFS, serve=_serve_proofs)
    def proofs(
        self, line_digest: Digest, origin: Annotated[str | None, LOG] = None
    ) -> AsyncGenerator[LocatedProof, None]:
        """Tlog-proofs of a line, one per log that has the line. Raises NotFound."""

    @rpc("ListMisbehaviour", items=limits.MISBEHAVIOUR)
    def misbehaviour(self) -> AsyncGenerator[ShownMisbehaviour, None]:
        """The proofs of misbehaviour that the node has."""


class LogCalls(ServiceCalls):
    logs = collected(LogService.logs)
    checkpoint = call(LogService.checkpoint)
    inclusion = call(LogService.inclusion)
    consistency = call(LogService.consistency)
    proofs = collected(LogService.proofs)
    misbehaviour = collected(LogService.misbehaviour)

    async def proofs_in_brief(self, line_digest: Digest) -> tuple[LocatedProof | ProofSummary, ...]:
        """As `proofs`, but only what is said of each proof; a node of an earlier version gives the proofs."""
        found = list[LocatedProof | ProofSummary]()
        proofs = rpc_of(LogService.proofs)
        request: Any = proofs.request.encode(line_digest)
        request.brief = True
        async with aclosing(self._calls.stream(proofs, request)) as messages:
            async for message in messages:
                found.append(PROOF.decode(message) if message.proof else _SUMMARY.decode(message))
        return tuple(found)

    async def entries(self, origin: str, start: int, end: int) -> AsyncGenerator[EntryBatch, None]:
        """Yields the entries from `start` to before `end` without gaps: at most `limits.ENTRIES_PER_CALL`, fewer at the
        end of the log. Raises NotFound."""
        end = min(end, start + limits.ENTRIES_PER_CALL)
        entries = rpc_of(LogService.entries)
        request: Any = entries.request.encode(origin, start, end)
        request.compressed = True
        items, size = end - start, (end - start) * limits.LINE
        async with aclosing(self._calls.stream(entries, request, items=items, size=size)) as messages:
            async for message in messages:
                batch = BATCH.decode(message)
                if batch.start != start or start + len(batch.lines) > end:
                    raise Malformed("entries out of order", why=f"expected a batch from {start}, up to {end} at most")
                start += len(batch.lines)
                yield batch
