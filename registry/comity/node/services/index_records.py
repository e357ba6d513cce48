"""Gives the index of files to those who keep it on their own disk (`ReadFileIndex`).

Reading is one pass over rows in their order. An answer ends at a bound with what the node signs about all records up to
there, so that its receiver keeps each answer. What was signed last is given again for a while: a signature is the only
work that a caller can ask for again and again without receiving something new.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Final

from comity.node.file_index import FileIndexReader
from comity.node.keys import NodeSigner
from comity.node.threads import AsyncLedger, Pools
from comity.rules.file_records import FileIndexState, listed_logs, sign_state
from comity.trust.encoding import Digest
from comity.wire import limits
from comity.wire.files import FileIndexPart

SIGNED_FOR: Final = 60
"""Seconds for which a state is given again, where it would say the same but its time and the lengths of logs."""


class FileIndexSender:
    """Reads the index that a reader keeps. Not thread-safe: call from the event loop."""

    def __init__(
        self,
        reader: FileIndexReader,
        ledger: AsyncLedger,
        pools: Pools,
        signer: NodeSigner,
        clock: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._ledger = ledger
        self._pools = pools
        self._signer = signer
        self._clock = clock
        self._signed: tuple[FileIndexState, bytes] | None = None

    async def send(self, after: int, head: bytes) -> AsyncGenerator[FileIndexPart, None]:
        """As `ArtifactService.file_index`. Raises NotFound (FILE-INDEX-REPLACED)."""
        index, left, size = self._reader.index, limits.INDEX_CALL, limits.INDEX_PART
        while left > 0:
            read = await self._pools.files(index.records, after, head, min(left, size))
            if not read.data:
                break
            after, head = read.number, read.head
            left -= len(read.data)
            yield FileIndexPart(read.data)
        yield FileIndexPart(state=await self._state(after, head))

    async def _state(self, records: int, head: bytes) -> bytes:
        heads = await self._ledger.read(self._ledger.tables.logs.heads)  # before what is read of these logs
        later, unread = await self._pools.files(self._left)
        now = int(self._clock())
        state = FileIndexState(
            by=self._signer.record.node,
            head=Digest(head.hex()),
            records=records,
            later=max(0, later - records),
            unread=unread,
            time=now,
            logs=listed_logs({log: size for log, (size, _) in heads.items()}),
        )
        if self._signed is not None and _alike(self._signed[0], state) and now - self._signed[0].time < SIGNED_FOR:
            return self._signed[1]
        line = await self._pools.files(sign_state, state, self._signer.online)
        self._signed = state, line
        return line

    def _left(self) -> tuple[int, int]:
        """Records in all; entries of logs and statements that are unread. Blocking."""
        processed, entries = self._ledger.tables.intake.entries_processed()
        progress = self._reader.progress()
        return self._reader.index.last_record, entries - processed + (progress.total or 0) - progress.done


def _alike(one: FileIndexState, other: FileIndexState) -> bool:
    return (one.head, one.records, one.later, one.unread) == (other.head, other.records, other.later, other.unread)
