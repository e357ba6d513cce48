"""An answer about the ledger is read once, and again when something was written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.node.context import NodeContext, Pools
from comity.node.own_log import LedgerCache
from comity.trust.errors import NotFound


@pytest.fixture(name="core")
def _core() -> Any:
    core = SimpleNamespace(ledger=SimpleNamespace(version=0), pools=Pools())
    yield core
    core.pools.close()


async def test_an_answer_stands_until_something_is_written(core: Any) -> None:
    reads: list[int] = []

    def read() -> int:
        reads.append(core.ledger.version)
        return len(reads)

    standing = LedgerCache(cast(NodeContext, core), read)
    assert [await standing.get(), await standing.get()] == [1, 1]
    core.ledger.version = 1
    assert [await standing.get(), await standing.get()] == [2, 2]


async def test_what_is_written_while_it_is_read_makes_it_old(core: Any) -> None:
    answers = iter(("as it was", "as it is"))

    def read() -> str:
        answer = next(answers)
        core.ledger.version = 1
        return answer

    standing = LedgerCache(cast(NodeContext, core), read)
    assert [await standing.get(), await standing.get()] == ["as it was", "as it is"]


async def test_a_failure_is_no_answer(core: Any) -> None:
    answers = iter((NotFound("not yet"), "here"))

    def read() -> str:
        answer = next(answers)
        if isinstance(answer, NotFound):
            raise answer
        return answer

    standing = LedgerCache(cast(NodeContext, core), read)
    with pytest.raises(NotFound):
        await standing.get()
    assert await standing.get() == "here"
