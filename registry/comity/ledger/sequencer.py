"""Many writers, one log: statements come in one by one, are committed in batches, and checkpoints are signed over them.

    append() -> queue -> batch -> commit (one fsync) -> index to each writer -> checkpoint, at most one an interval

A writer has its index once its entry is on the disk, signed or not; `covered` waits for the checkpoint. While a batch
is being committed the next one gathers, so that a busy log needs no timer; in an idle one the first entry waits a
moment for company. Cosigners are no concern of this room: publishing never waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from comity.ledger.ledger import Ledger
from comity.ledger.log_store import OwnLogTransaction
from comity.trust.errors import ComityError, Conflict, Malformed, OutOfSpace, Unavailable
from comity.trust.statement import parse_entry
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, VerifierKey

BATCH: Final = 256
LINGER: Final = 0.005
"""Seconds that the first entry of an idle log waits for others."""
INTERVAL: Final = 1.0
"""Least seconds from one checkpoint to the next."""
WAITING: Final = 4096
"""Entries that may wait; whoever brings more waits with them."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """Lines that are logged together, and the index that each gets."""

    lines: tuple[bytes, ...]
    indexes: asyncio.Future[list[int]]


Make = Callable[[OwnLogTransaction], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class _Made:
    """Lines that are made of the log as it stands; `made` is the first one's index, and the lines."""

    make: Make
    made: asyncio.Future[tuple[int, tuple[bytes, ...]]]


class Sequencer:
    """The one writer of an own log. `run` does the work, as one task; every other method waits for what it does.

    Args:
        sign: the log's signature over a checkpoint; called in a thread, and only over a root that is committed.
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
        self._queue: asyncio.Queue[_Entry | _Made] = asyncio.Queue(WAITING)
        self._batch: list[_Entry | _Made] = []
        """Taken from the queue; by the end of `run` each of them has its answer."""
        self._changed = asyncio.Condition()
        self._size = self._signed = 0
        """Of the log, and of its newest checkpoint. Written by `run` alone."""
        self._due = 0.0
        self._ended = False

    async def append(self, line: bytes) -> int:
        """Log one statement; its index, once it is on the disk. Raises as `append_all` does."""
        (index,) = await self.append_all((line,))
        return index

    async def append_all(self, lines: Sequence[bytes]) -> list[int]:
        """Log at most `BATCH` statements, one after the other, all or none; the index of each. One that stands already,
        under whatever signatures, is not logged again, and its first index is given.

        Raises Malformed for what is no statement, OutOfSpace, Conflict, and Unavailable(code="SEQUENCER-ENDED") where
        `run` has ended: whether the entries stand is then not known, and the log is to be looked at.
        """
        if not 1 <= len(lines) <= BATCH:
            raise Malformed("not a batch", why=f"{len(lines)} lines, 1 to {BATCH} are logged together")
        for line in lines:
            parse_entry(line)  # here, so that a bad line does not refuse the batch it would be in
        entry = _Entry(tuple(lines), asyncio.get_running_loop().create_future())
        self._check_running()
        await self._queue.put(entry)
        return await entry.indexes

    async def compose(self, make: Make) -> tuple[int, tuple[bytes, ...]]:
        """Log the statements that `make` makes of this log as it stands, in the transaction that reads it: the index of
        the first, and the lines; there may be none.

        `make` runs in a thread, once. What it raises reaches the caller of this method, and nothing is logged then.
        Also raises what `append_all` raises.
        """
        entry = _Made(make, asyncio.get_running_loop().create_future())
        self._check_running()
        await self._queue.put(entry)
        return await entry.made

    async def covered(self, index: int) -> None:
        """Return once a checkpoint covers entry `index`. Raises Unavailable(code="SEQUENCER-ENDED")."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._ended or self._signed > index)
        if self._signed <= index:
            self._check_running()

    async def run(self) -> None:
        """Work until cancelled; what is being committed then is finished first.

        Raises Untrusted(code="LEDGER-CORRUPT") at once where the log is damaged, and whatever makes going on unsafe:
        a commit that failed for another reason than a full disk or a busy database.
        """
        try:
            await self._recover()
            while True:
                await self._gather()
                if self._batch:
                    await _to_its_end(self._commit(self._batch))
                if self._signed < self._size and self._now() >= self._due:
                    await _to_its_end(self._checkpoint())
        finally:
            await self._end()

    async def _recover(self) -> None:
        """Check the log, and sign what an earlier run committed and did not get to sign."""
        await asyncio.to_thread(self._ledger.history.verify_right_edge, self._name)
        state = await asyncio.to_thread(self._ledger.logs.get, self._name)
        self._size = state.size
        if state.note is not None:
            self._signed = Checkpoint.parse(SignedNote.parse(state.note).text).size
        if state.note is None or self._signed < self._size:
            await _to_its_end(self._checkpoint())

    async def _gather(self) -> None:
        """Make `_batch` what is to be committed next: nothing, where a checkpoint falls due first."""
        self._batch = []
        try:
            async with asyncio.timeout_at(self._due if self._signed < self._size else None):
                self._batch.append(await self._queue.get())
        except TimeoutError:
            return
        if self._queue.empty():
            await asyncio.sleep(self._linger)
        while sum(_weight(entry) for entry in self._batch) < BATCH and not self._queue.empty():
            self._batch.append(self._queue.get_nowait())

    async def _commit(self, batch: list[_Entry | _Made]) -> None:
        """Statements that are at hand go together; those that are made of the log have a transaction each."""
        if at_hand := [entry for entry in batch if isinstance(entry, _Entry)]:
            await self._commit_lines(at_hand)
        for entry in batch:
            if isinstance(entry, _Made):
                await self._commit_made(entry)

    async def _commit_made(self, entry: _Made) -> None:
        refusals: list[Exception] = []

        def make(standing: OwnLogTransaction) -> Sequence[bytes]:
            try:
                return entry.make(standing)
            except Exception as error:
                refusals.append(error)
                raise

        try:
            first, lines = await asyncio.to_thread(self._ledger.logs.compose, self._name, make)
        except Exception as error:
            if not entry.made.done():
                entry.made.set_exception(error)
            if not refusals and not isinstance(error, OutOfSpace | Conflict | Malformed):
                raise
            return
        self._size = first + len(lines)
        if not entry.made.done():
            entry.made.set_result((first, lines))

    async def _commit_lines(self, batch: list[_Entry]) -> None:
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
        size = self._size
        await asyncio.to_thread(self._sign_and_keep, size)
        self._due = self._now() + self._interval
        async with self._changed:
            self._signed = size
            self._changed.notify_all()

    def _sign_and_keep(self, size: int) -> None:
        checkpoint = Checkpoint(self._origin, size, self._ledger.history.root(self._name, size))
        self._ledger.logs.set_note(self._name, SignedNote(checkpoint.text, (self._sign(checkpoint),)))

    async def _end(self) -> None:
        async with self._changed:
            self._ended = True
            self._changed.notify_all()
        left = self._batch
        while not self._queue.empty():
            left.append(self._queue.get_nowait())
            await asyncio.sleep(0)  # lets in those that wait for a place in the queue
        _refuse(left, _ended())

    def _check_running(self) -> None:
        if self._ended:
            raise _ended()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do `work`; when cancelled, pass that on only after its end: no commit is left behind unanswered."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        task.result()
        raise


def _weight(entry: _Entry | _Made) -> int:
    return len(entry.lines) if isinstance(entry, _Entry) else 1


def _refuse(batch: Sequence[_Entry | _Made], error: ComityError) -> None:
    for entry in batch:
        answer: asyncio.Future[Any] = entry.indexes if isinstance(entry, _Entry) else entry.made
        if not answer.done():
            answer.set_exception(error)


def _ended() -> Unavailable:
    return Unavailable(
        "the log takes no more entries",
        why="its sequencer has ended; whether this entry was logged is not known",
        code="SEQUENCER-ENDED",
    )
