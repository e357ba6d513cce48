"""Many writers and one log: what each writer is told, and when."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from comity.ledger import sequencer as sequencer_module
from comity.ledger.ledger import DATABASE_FILE, Ledger
from comity.ledger.log_store import LogStore, OwnLogTransaction
from comity.ledger.page_files import SUFFIX
from comity.ledger.sequencer import BATCH, Sequencer
from comity.trust.errors import ComityError, Conflict, Malformed, OutOfSpace, Unavailable, Untrusted
from comity.trust.tlog.note import Checkpoint, NoteSignature, SignedNote, sign_note
from support.logs import LogKeys, statement_line, statement_lines

LOG = LogKeys.generate("own.example/log")


def sign(checkpoint: Checkpoint) -> NoteSignature:
    return sign_note(checkpoint.text, LOG.origin, LOG.key)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1_000)
    opened.logs.create(LOG.origin, LOG.vkey, own=True)
    yield opened
    opened.close()


@asynccontextmanager
async def running(
    ledger: Ledger, sign: Callable[[Checkpoint], NoteSignature] = sign, *, interval: float = 0
) -> AsyncIterator[Sequencer]:
    sequencer = Sequencer(ledger, LOG.verifier, sign, linger=0, interval=interval)
    task = asyncio.create_task(sequencer.run())
    try:
        yield sequencer
    finally:
        task.cancel()
        await asyncio.wait([task])


def signed_size(ledger: Ledger) -> int:
    note = ledger.logs.get(LOG.origin).note
    assert note is not None
    return Checkpoint.parse(SignedNote.parse(note).text).size


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are committed."""
    sizes: list[int] = []
    append = LogStore.append

    def counted(self: LogStore, origin: str, lines: Sequence[bytes]) -> list[int]:
        sizes.append(len(lines))
        return append(self, origin, lines)

    monkeypatch.setattr(LogStore, "append", counted)
    return sizes


async def test_a_writer_gets_the_index_of_its_entry_once_it_is_committed(ledger: Ledger) -> None:
    async with running(ledger) as sequencer:
        for number in range(3):
            line = statement_line(number)
            assert await sequencer.append(line) == number
            assert ledger.history.entry(LOG.origin, number) == line


async def test_each_of_many_writers_gets_the_index_of_its_own_entry(ledger: Ledger, batches: list[int]) -> None:
    lines = statement_lines(0, 2 * BATCH + 10)
    async with running(ledger) as sequencer:
        indexes = await asyncio.gather(*map(sequencer.append, lines))
    stored = ledger.history.entries(LOG.origin, 0, len(lines))
    assert [stored[index] for index in indexes] == lines
    assert max(batches) <= BATCH
    assert len(batches) < len(lines) / 10


async def test_a_checkpoint_covers_the_entry_that_was_waited_for(ledger: Ledger) -> None:
    async with running(ledger) as sequencer:
        index = await sequencer.append(statement_line(0))
        await sequencer.covered(index)
        assert signed_size(ledger) == 1


async def test_a_new_log_starts_with_a_signed_empty_checkpoint(ledger: Ledger) -> None:
    async with running(ledger) as sequencer:
        await sequencer.append(statement_line(0))
        await sequencer.covered(0)
    assert Checkpoint.parse(ledger.cosignatures.cosigned(LOG.origin, 0).text).size == 0


async def test_committed_entries_without_a_checkpoint_are_signed_at_start(ledger: Ledger) -> None:
    ledger.logs.append(LOG.origin, statement_lines(0, 3))
    async with running(ledger) as sequencer:
        await sequencer.covered(2)
        assert signed_size(ledger) == 3


async def test_checkpoints_come_no_faster_than_the_interval(ledger: Ledger) -> None:
    async with running(ledger, interval=3_600) as sequencer:
        for number in range(3):
            await sequencer.append(statement_line(number))
    assert ledger.logs.get(LOG.origin).size == 3
    assert signed_size(ledger) == 0


async def test_a_checkpoint_falls_due_without_another_entry(ledger: Ledger) -> None:
    async with running(ledger, interval=0.05) as sequencer:
        await sequencer.append(statement_line(0))
        await sequencer.covered(0)


async def test_only_a_committed_root_is_signed(ledger: Ledger) -> None:
    seen: list[Checkpoint] = []

    def watching(checkpoint: Checkpoint) -> NoteSignature:
        assert ledger.history.root(LOG.origin, checkpoint.size) == checkpoint.root
        seen.append(checkpoint)
        return sign(checkpoint)

    async with running(ledger, watching) as sequencer:
        await asyncio.gather(*map(sequencer.append, statement_lines(0, 20)))
        await sequencer.covered(19)
    assert seen[-1].size == 20


async def test_a_line_that_is_no_statement_refuses_its_writer_alone(ledger: Ledger) -> None:
    async with running(ledger) as sequencer:
        good, bad = await asyncio.gather(
            sequencer.append(statement_line(0)), sequencer.append(b"no"), return_exceptions=True
        )
    assert good == 0
    assert isinstance(bad, Malformed)


async def test_a_full_disk_refuses_the_batch_and_the_next_one_may_pass(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(ledger) as sequencer:
        with monkeypatch.context() as patch:
            patch.setattr(LogStore, "append", _full)
            with pytest.raises(OutOfSpace):
                await sequencer.append(statement_line(0))
        assert await sequencer.append(statement_line(1)) == 0


@pytest.mark.parametrize("failure", (OutOfSpace("the disk is full"), Conflict("busy", code="LEDGER-BUSY")))
async def test_a_full_disk_or_a_busy_database_delays_a_checkpoint_and_ends_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, failure: ComityError
) -> None:
    tried = 0

    def fills(self: LogStore, name: str, note: SignedNote) -> None:
        nonlocal tried
        tried += 1
        if tried == 2:  # the first covers the empty log
            raise failure
        set_note(self, name, note)

    set_note = LogStore.set_note
    monkeypatch.setattr(LogStore, "set_note", fills)
    monkeypatch.setattr(sequencer_module, "RETRY", 0.0)
    async with running(ledger) as sequencer:
        index = await sequencer.append(statement_line(0))
        await sequencer.covered(index)
        assert await sequencer.append(statement_line(1)) == 1
    assert tried >= 3


async def test_a_failed_commit_ends_the_sequencer_and_fails_all_writers(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequencer = Sequencer(ledger, LOG.verifier, sign, linger=0)
    task = asyncio.create_task(sequencer.run())
    await sequencer.append(statement_line(0))
    monkeypatch.setattr(LogStore, "append", _failed)
    with pytest.raises(Unavailable):
        await sequencer.append(statement_line(1))
    with pytest.raises(Unavailable):
        await task
    for call in (sequencer.append(statement_line(2)), sequencer.covered(1)):
        with pytest.raises(Unavailable) as refusal:
            await call
        assert refusal.value.code == "SEQUENCER-ENDED"


async def test_a_damaged_log_is_never_signed(ledger: Ledger, tmp_path: Path) -> None:
    ledger.logs.append(LOG.origin, statement_lines(0, 3))
    ledger.close()
    damage(tmp_path)
    reopened = Ledger.open(tmp_path, lambda: 1_000)
    try:
        with pytest.raises(Untrusted) as refusal:
            await Sequencer(reopened, LOG.verifier, sign).run()
        assert refusal.value.code == "LEDGER-CORRUPT"
        assert reopened.logs.get(LOG.origin).note is None
    finally:
        reopened.close()


async def test_a_stop_completes_the_running_commit_and_answers_its_writers(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequencer = Sequencer(ledger, LOG.verifier, sign, linger=0)
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(sequencer.run())
    append = LogStore.append

    def stopped_meanwhile(self: LogStore, origin: str, lines: Sequence[bytes]) -> list[int]:
        loop.call_soon_threadsafe(task.cancel)
        return append(self, origin, lines)

    monkeypatch.setattr(LogStore, "append", stopped_meanwhile)
    assert await sequencer.append(statement_line(0)) == 0
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_stop_fails_the_waiting_writers(ledger: Ledger) -> None:
    sequencer = Sequencer(ledger, LOG.verifier, sign, linger=3_600)
    task = asyncio.create_task(sequencer.run())
    writers = [asyncio.create_task(sequencer.append(statement_line(0)))]
    while not sequencer._batch:
        await asyncio.sleep(0.001)
    writers += [asyncio.create_task(sequencer.append(line)) for line in statement_lines(1, 3)]
    await asyncio.sleep(0)
    task.cancel()
    for answer in await asyncio.gather(*writers, return_exceptions=True):
        assert isinstance(answer, Unavailable)
    assert ledger.logs.get(LOG.origin).size == 0


async def test_lines_submitted_together_are_logged_in_a_row_or_not_at_all(ledger: Ledger) -> None:
    async with running(ledger) as sequencer:
        together = [sequencer.append_all(statement_lines(start, start + 64)) for start in range(0, 512, 64)]
        alone = [sequencer.append(statement_line(number)) for number in range(512, 520)]
        starts = [indexes[0] for indexes in await asyncio.gather(*together)]
        await asyncio.gather(*alone)
        lines = ledger.history.entries(LOG.origin, 0, 520)
        wanted = statement_lines(0, 512)
        for number, start in enumerate(starts):
            assert lines[start : start + 64] == wanted[64 * number : 64 * number + 64]
        with pytest.raises(Malformed):
            await sequencer.append_all([*statement_lines(0, 2), b"no statement"])
        with pytest.raises(Malformed):
            await sequencer.append_all([])
    assert ledger.logs.get(LOG.origin).size == 520


def damage(folder: Path) -> None:
    """Change the hashes of a log, so that no opener can see it, let alone repair it: no page has a sum."""
    (folder / (DATABASE_FILE + SUFFIX)).unlink()
    with sqlite3.connect(folder / DATABASE_FILE) as connection:
        connection.execute("UPDATE tiles SET hashes = zeroblob(96)")
    connection.close()


def _full(*_: object) -> int:
    raise OutOfSpace("the ledger's disk is full")


def _failed(*_: object) -> int:
    raise Unavailable("the ledger's database failed", code="LEDGER-FAILED")


async def test_lines_made_of_the_log_see_every_entry_before_them(ledger: Ledger) -> None:
    sizes: list[int] = []

    def make(standing: OwnLogTransaction) -> list[bytes]:
        sizes.append(standing.size)
        return [statement_line(100 + standing.size)]

    async with running(ledger) as sequencer:
        made = await asyncio.gather(sequencer.append(statement_line(0)), *(sequencer.compose(make) for _ in range(8)))
    assert sizes == list(range(1, 9))
    assert made[1:] == [(size, (statement_line(100 + size),)) for size in sizes]
    assert ledger.logs.get(LOG.origin).size == 9


async def test_an_entry_that_cannot_be_made_fails_its_writer_only(ledger: Ledger) -> None:
    def refuse(standing: OwnLogTransaction) -> list[bytes]:
        raise ZeroDivisionError

    async with running(ledger) as sequencer:
        refused, index = await asyncio.gather(
            sequencer.compose(refuse), sequencer.append(statement_line(0)), return_exceptions=True
        )
        assert isinstance(refused, ZeroDivisionError)
        assert index == 0
        assert await sequencer.append(statement_line(1)) == 1


async def test_an_empty_result_logs_nothing(ledger: Ledger) -> None:
    async with running(ledger) as sequencer:
        assert await sequencer.compose(lambda standing: []) == (0, ())
        with pytest.raises(Malformed):
            await sequencer.compose(lambda standing: [b"no statement"])
        assert await sequencer.append(statement_line(0)) == 0
