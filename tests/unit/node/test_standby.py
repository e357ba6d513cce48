"""When a standby begins to write: at once without a writer, and after two looks at one that gives no sign of life."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from comity.ledger.database import FROZEN_SECONDS, WriterSeen
from comity.node.standby import until_writer_ends
from comity.trust.errors import Unavailable

RUNS, FROZEN, NONE = WriterSeen(True, 1.0), WriterSeen(True, FROZEN_SECONDS + 1.0), WriterSeen(False, 1.0)
OLDER = WriterSeen(True, None)
"""A writer of a version that gives no signs."""


class Database:
    """Shows these looks in turn; None does not answer. `ended` counts the ended writers."""

    def __init__(self, *looks: WriterSeen | None) -> None:
        self._looks: Iterator[WriterSeen | None] = iter(looks)
        self.ended = 0

    def look(self) -> WriterSeen:
        seen = next(self._looks)
        if seen is None:
            raise Unavailable("cannot connect to PostgreSQL", why="refused")
        return seen

    def end_writer(self) -> int:
        self.ended += 1
        return 3


@pytest.mark.parametrize(
    ("looks", "ended"),
    [
        ((NONE,), 0),
        ((RUNS, RUNS, NONE), 0),
        ((OLDER, OLDER, NONE), 0),
        ((FROZEN, NONE), 0),
        ((FROZEN, RUNS, FROZEN, NONE), 0),
        ((FROZEN, FROZEN, NONE), 1),
        ((FROZEN, FROZEN, FROZEN, NONE), 2),
        ((RUNS, None, None, NONE), 0),
        ((FROZEN, None, FROZEN, NONE), 0),
    ],
)
async def test_a_standby_waits_for_the_end_of_the_writer(looks: tuple[WriterSeen | None, ...], ended: int) -> None:
    database = Database(*looks)
    await until_writer_ends(database, seconds=0)
    assert database.ended == ended


async def test_a_standby_that_is_stopped_ends() -> None:
    waiting = asyncio.create_task(until_writer_ends(Database(*[RUNS] * 1000), seconds=1000))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
