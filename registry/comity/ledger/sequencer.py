"""The sequencer of an own log: queues statements of many callers, commits them in batches, and signs checkpoints.

    append() -> queue -> batch -> commit (one fsync) -> index to each caller -> checkpoint, at most one per interval

A caller gets its index when its entry is durable, before the checkpoint; `covered` waits for the checkpoint. While a
batch is committed, the queue collects the next one, so a busy log needs no timer. In an idle log the first entry waits
LINGER seconds for others. The sequencer does not wait for cosigners.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from comity.ledger.ledger import Ledger
from comity.ledger.log_store import OwnLogTransaction
from comity.trust.errors import ComityError, Conflict, Malformed, OutOfSpace, Unavailable
from comity.trust.frozen import frozen
from comity.trust.statement import parse_entry
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, VerifierKey

BATCH: Final = 256
LINGER: Final = 0.005
"""Seconds that the first entry of an idle log waits for others, to share their commit."""
INTERVAL: Final = 1.0
"""Minimum seconds between checkpoints."""
RETRY: Final = 0.5
"""Seconds until a checkpoint that found the disk full or the database busy is tried again."""
QUEUE_SIZE: Final = 4096
"""Maximum size of the queue; further callers wait until it has space."""


@frozen
class _Append:
    """Lines to log together; `indexes` gets the index of each."""

    lines: tuple[bytes, ...]
    indexes: asyncio.Future[list[int]]


Make = Callable[[OwnLogTransaction], Sequence[bytes]]


@frozen
class _Compose:
    """Lines to make from the current log; `made` gets the index of the first, and the lines."""

    make: Make
    made: asyncio.Future[tuple[int, tuple[bytes, ...]]]


class Sequencer:
    """The one writer of an own log. `run` does the work in one task; the other methods queue work and wait for it.

    Args:
        sign: signs a checkpoint with the key of the log. Called in a thread, only for a committed root.
    """

    def __init__(
        self,
        ledger: Ledger,
        log: VerifierKey,
        sign: Callable[[Checkpoint], NoteSignature],
        *,
        linger: float = LINGER,
        interval: float = INTERVAL,
    ) -> None:
        self._ledger = ledger
        self._origin, self._name = log.name, str(log)
        self._sign = sign
        self._linger = linger
        self._interval = interval
        self._queue: asyncio.Queue[_Append | _Compose] = asyncio.Queue(QUEUE_SIZE)
        self._batch: list[_Append | _Compose] = []
        """Requests taken from the queue. `run` answers each of them before it ends."""
        self._changed = asyncio.Condition()
        self._size = self._signed = 0
        """Sizes of the log and of its newest checkpoint. Only `run` writes them."""
        self._due = 0.0
        self._ended = False

    async def append(self, line: bytes) -> int:
        """Log one statement. Returns its index when it is durable. Raises the errors of `append_all`."""
        (index,) = await self.append_all((line,))
        return index

    async def append_all(self, lines: Sequence[bytes]) -> list[int]:
        """Log at most `BATCH` statements in sequence, all or none. Returns the index of each. A statement that the log
        has already, with any signatures, is not logged again; its first index is returned.

        Raises Malformed if a line is no statement, OutOfSpace, Conflict, and Unavailable(code="SEQUENCER-ENDED") if
        `run` has ended; then the entries may or may not be logged, and the caller must read the log.
        """
        if not 1 <= len(lines) <= BATCH:
            raise Malformed("not a batch", why=f"{len(lines)} lines, expected 1 to {BATCH}")
        for line in lines:
            parse_entry(line)  # checked here, so that a bad line does not fail its whole batch
        entry = _Append(tuple(lines), asyncio.get_running_loop().create_future())
        self._check_running()
        await self._queue.put(entry)
        return await entry.indexes

    async def compose(self, make: Make) -> tuple[int, tuple[bytes, ...]]:
        """Log the statements that `make` returns for the current log, in the transaction that reads it. Returns the
        index of the first, and the lines, which may be none.

        `make` runs once, in a thread. If it raises, this method raises the same error and logs nothing. Also raises
        the errors of `append_all`.
        """
        entry = _Compose(make, asyncio.get_running_loop().create_future())
        self._check_running()
        await self._queue.put(entry)
        return await entry.made

    async def covered(self, index: int) -> None:
        """Wait until a checkpoint covers entry `index`. Raises Unavailable(code="SEQUENCER-ENDED")."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._ended or self._signed > index)
        if self._signed <= index:
            self._check_running()

    async def run(self) -> None:
        """Work until cancelled. On cancellation, a running commit is finished first.

        Raises Untrusted(code="LEDGER-CORRUPT") at once if the log is damaged, and the error of a commit or checkpoint
        that failed for another reason than a full disk or a busy database, because it is not safe to continue.
        """
        try:
            await self._recover()
            while True:
                await self._collect_batch()
                if self._batch:
                    await _finish(self._commit(self._batch))
                if self._signed < self._size and self._now() >= self._due:
                    await _finish(self._checkpoint())
        finally:
            await self._end()

    async def _recover(self) -> None:
        """Check the log, and sign entries that an earlier run committed but did not sign."""
        await asyncio.to_thread(self._ledger.history.verify_right_edge, self._name)
        state = await asyncio.to_thread(self._ledger.logs.get, self._name)
        self._size = state.size
        if state.note is not None:
            self._signed = Checkpoint.parse(SignedNote.parse(state.note).text).size
        if state.note is None or self._signed < self._size:
            await _finish(self._checkpoint())

    async def _collect_batch(self) -> None:
        """Fill `_batch` with the next requests to commit; leave it empty if a checkpoint is due first."""
        self._batch = []
        try:
            async with asyncio.timeout_at(self._due if self._signed < self._size else None):
                self._batch.append(await self._queue.get())
        except TimeoutError:
            return
        if self._queue.empty():
            await asyncio.sleep(self._linger)
        while sum(_entry_count(entry) for entry in self._batch) < BATCH and not self._queue.empty():
            self._batch.append(self._queue.get_nowait())

    async def _commit(self, batch: list[_Append | _Compose]) -> None:
        """Commit all given lines in one transaction, and each `compose` in its own."""
        if given := [entry for entry in batch if isinstance(entry, _Append)]:
            await self._commit_lines(given)
        for entry in batch:
            if isinstance(entry, _Compose):
                await self._commit_compose(entry)

    async def _commit_compose(self, entry: _Compose) -> None:
        make_errors: list[Exception] = []

        def make(log: OwnLogTransaction) -> Sequence[bytes]:
            try:
                return entry.make(log)
            except Exception as error:
                make_errors.append(error)
                raise

        try:
            first, lines = await asyncio.to_thread(self._ledger.logs.compose, self._name, make)
        except Exception as error:
            if not entry.made.done():
                entry.made.set_exception(error)
            if not make_errors and not isinstance(error, OutOfSpace | Conflict | Malformed):
                raise
            return
        self._size = first + len(lines)
        if not entry.made.done():
            entry.made.set_result((first, lines))

    async def _commit_lines(self, batch: list[_Append]) -> None:
        lines = [line for entry in batch for line in entry.lines]
        try:
            indexes = await asyncio.to_thread(self._ledger.logs.append, self._name, lines)
        except ComityError as error:
            _refuse(batch, error)
            if not isinstance(error, OutOfSpace | Conflict):
                raise
            return
        self._size = max(self._size, *(index + 1 for index in indexes))
        start = 0
        for entry in batch:
            end = start + len(entry.lines)
            if not entry.indexes.done():
                entry.indexes.set_result(indexes[start:end])
            start = end

    async def _checkpoint(self) -> None:
        """Sign the entries that no checkpoint covers. If the disk is full or the database is busy, they wait for the
        next attempt: who asks for a proof of them waits as well."""
        size = self._size
        try:
            await asyncio.to_thread(self._sign_and_store, size)
        except (OutOfSpace, Conflict):
            self._due = self._now() + max(self._interval, RETRY)
            return
        self._due = self._now() + self._interval
        async with self._changed:
            self._signed = size
            self._changed.notify_all()

    def _sign_and_store(self, size: int) -> None:
        checkpoint = Checkpoint(self._origin, size, self._ledger.history.root(self._name, size))
        self._ledger.logs.set_note(self._name, SignedNote(checkpoint.text, (self._sign(checkpoint),)))

    async def _end(self) -> None:
        async with self._changed:
            self._ended = True
            self._changed.notify_all()
        left = self._batch
        while not self._queue.empty():
            left.append(self._queue.get_nowait())
            await asyncio.sleep(0)  # lets callers that wait for space in the queue continue
        _refuse(left, _ended())

    def _check_running(self) -> None:
        if self._ended:
            raise _ended()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


async def _finish(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, even when cancelled, then pass the cancellation on. So each commit is answered."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        task.result()
        raise


def _entry_count(entry: _Append | _Compose) -> int:
    return len(entry.lines) if isinstance(entry, _Append) else 1


def _refuse(batch: Sequence[_Append | _Compose], error: ComityError) -> None:
    for entry in batch:
        answer: asyncio.Future[Any] = entry.indexes if isinstance(entry, _Append) else entry.made
        if not answer.done():
            answer.set_exception(error)


def _ended() -> Unavailable:
    return Unavailable(
        "the log accepts no more entries",
        why="its sequencer has ended; this entry may or may not be logged",
        code="SEQUENCER-ENDED",
    )
