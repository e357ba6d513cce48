"""An answer about the ledger is read once, and again after a write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.ledger.ledger import Ledger
from comity.node.threads import AsyncLedger
from comity.trust.errors import NotFound
from support.logs import LogKeys, statement_line

LOG = LogKeys.generate("one.example/log")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[AsyncLedger]:
    opened = AsyncLedger(Ledger.open(tmp_path, lambda: 1_000))
    opened.tables.logs.create(LOG.origin, LOG.vkey, own=True)
    yield opened
    opened.close()


def write(ledger: AsyncLedger) -> None:
    ledger.tables.logs.append(LOG.vkey, [statement_line(ledger.version)])


async def test_an_answer_is_kept_until_a_write(ledger: AsyncLedger) -> None:
    reads: list[int] = []

    def read() -> int:
        reads.append(ledger.version)
        return len(reads)

    assert [await ledger.read(read), await ledger.read(read)] == [1, 1]
    write(ledger)
    assert [await ledger.read(read), await ledger.read(read)] == [2, 2]


async def test_a_write_during_a_read_makes_the_answer_outdated(ledger: AsyncLedger) -> None:
    answers = iter(("as it was", "as it is"))

    def read() -> str:
        answer = next(answers)
        write(ledger)
        return answer

    assert [await ledger.read(read), await ledger.read(read)] == ["as it was", "as it is"]


async def test_a_failure_is_no_answer(ledger: AsyncLedger) -> None:
    answers = iter((NotFound("not yet"), "here"))

    def read() -> str:
        answer = next(answers)
        if isinstance(answer, NotFound):
            raise answer
        return answer

    with pytest.raises(NotFound):
        await ledger.read(read)
    assert await ledger.read(read) == "here"


async def test_each_call_with_its_arguments_has_an_answer_of_its_own(ledger: AsyncLedger) -> None:
    calls: list[str] = []

    def read(word: str) -> str:
        calls.append(word)
        return word.upper()

    for _ in range(2):
        assert [await ledger.read(read, "a"), await ledger.read(read, "b")] == ["A", "B"]
    assert calls == ["a", "b"]
