"""An answer about the ledger is read once, and again when something was written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.ledger.ledger import Ledger
from comity.node.threads import AsyncLedger, LedgerCache
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


async def test_an_answer_stands_until_something_is_written(ledger: AsyncLedger) -> None:
    reads: list[int] = []

    def read() -> int:
        reads.append(ledger.version)
        return len(reads)

    standing = LedgerCache(ledger, read)
    assert [await standing.get(), await standing.get()] == [1, 1]
    write(ledger)
    assert [await standing.get(), await standing.get()] == [2, 2]


async def test_what_is_written_while_it_is_read_makes_it_old(ledger: AsyncLedger) -> None:
    answers = iter(("as it was", "as it is"))

    def read() -> str:
        answer = next(answers)
        write(ledger)
        return answer

    standing = LedgerCache(ledger, read)
    assert [await standing.get(), await standing.get()] == ["as it was", "as it is"]


async def test_a_failure_is_no_answer(ledger: AsyncLedger) -> None:
    answers = iter((NotFound("not yet"), "here"))

    def read() -> str:
        answer = next(answers)
        if isinstance(answer, NotFound):
            raise answer
        return answer

    standing = LedgerCache(ledger, read)
    with pytest.raises(NotFound):
        await standing.get()
    assert await standing.get() == "here"
