"""How far a node has read its ledger: what is told, the rate and the time left, and what is unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from comity.ledger.ledger import Ledger
from comity.node.metrics import Metrics
from comity.node.projection import Follower, Position, Projection, ProjectionTables
from comity.node.reading import LEAST_BEHIND, EventLoopLag, ReadingProgress, ReadState, UnfinishedReading
from comity.node.threads import AsyncLedger
from support.logs import LogKeys, statement_lines

LOG = LogKeys.generate("a.example/log")
TABLES = ProjectionTables("test", "a test", 1, "CREATE TABLE test_row (number INTEGER PRIMARY KEY);")


class Threads:
    """In place of the threads of a ledger."""

    async def run(self, work: Any, *given: Any) -> Any:
        return work(*given)


class Watched:
    def __init__(self) -> None:
        self.now = 0.0
        self.state = ReadState(0, 100_000)
        ledger: Any = Threads()
        self.metrics = Metrics()
        self.progress = ReadingProgress(ledger, self.metrics, lambda: self.now)
        self.progress.follow("log entries", lambda: self.state)

    async def at(self, now: float, done: int, total: int | None = 100_000) -> tuple[UnfinishedReading, ...]:
        self.now, self.state = now, ReadState(done, total)
        await self.progress.look()
        return self.progress.behind


async def test_a_time_is_told_only_where_a_rate_was_seen() -> None:
    watched = Watched()
    assert watched.progress.behind == ()
    assert await watched.at(0, 1_000) == (UnfinishedReading("log entries", 1_000, 100_000, None, None),)
    assert await watched.at(10, 1_000) == (UnfinishedReading("log entries", 1_000, 100_000, 0.0, None),)
    (reading,) = await watched.at(100, 21_000)
    assert (reading.per_second, reading.seconds_left) == (200.0, 395)
    assert str(reading) == "reads log entries: 21,000 of 100,000, 200 a second, 395 s left"
    assert watched.metrics.registry.get_sample_value("comity_read_items", {"what": "log entries"}) == 21_000


async def test_an_unknown_total_is_said_to_be_unknown() -> None:
    watched = Watched()
    await watched.at(0, 0, None)
    (reading,) = await watched.at(10, 500, None)
    assert str(reading) == "reads log entries: 500 of an unknown number, 50 a second, unknown time left"
    assert reading.document() == {
        "what": "log entries",
        "done": 500,
        "total": None,
        "per_second": 50.0,
        "seconds_left": None,
    }


async def test_a_reader_that_begins_again_has_no_rate_and_one_with_little_left_is_not_told() -> None:
    watched = Watched()
    await watched.at(0, 90_000)
    (reading,) = await watched.at(10, 5_000)
    assert (reading.per_second, reading.seconds_left) == (None, None)
    assert await watched.at(20, 100_001 - LEAST_BEHIND) == ()


@pytest.fixture(name="ledger")
def _ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger.open(tmp_path, lambda: 1_000)) as opened:
        opened.logs.create(LOG.origin, LOG.vkey, own=True)
        yield opened


async def test_readers_of_the_ledger_say_how_far_they_are(ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.intake.entries_processed() == (0, 0)
    ledger.logs.append(LOG.origin, statement_lines(0, 9))
    assert ledger.intake.entries_processed() == (9, 9)
    calls = AsyncLedger(ledger)
    with closing(Projection(tmp_path / "rows.sqlite", TABLES)) as rows:
        follower = Follower(calls, rows, ("vouched",))
        assert follower.progress() == ReadState(0, 9)
        lines = await follower.next(4)
        with rows._writing(Position.at(lines[-1])):
            pass
        assert follower.progress() == ReadState(4, 9)
        other = Follower(calls, rows, ("published",))
        with rows._writing(Position()):
            pass
        assert await other.next(4) == []
        assert other.progress() == ReadState(9, 9), "there is none of its statements"


async def test_the_longest_delay_of_the_event_loop_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, times = Metrics(), iter((0.0, 1.5, 10.0, 11.0))
    lag = EventLoopLag(metrics)

    async def sleep(_: float) -> None:
        pass

    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: next(times))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    await lag.step()
    await lag.step()
    monkeypatch.undo()
    assert metrics.registry.get_sample_value("comity_event_loop_lag_seconds") == 0.5
