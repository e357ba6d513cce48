"""Counts of pulls by week: bounded, written immediately and again later, and without data about persons."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest
from click.testing import CliRunner
from comity.content.blobs import FolderStore
from comity.node import pull_counts
from comity.node.home import OpenedHome
from comity.node.metrics import LocationProviders, Metrics, ServedBytes
from comity.node.pull_counts import (
    DAY,
    KEPT_WEEKS,
    PULLS_FILE,
    PullCounts,
    WeekCount,
    counted_file,
    week_begins,
    week_of,
)
from comity.node.services.blob import BlobServicer
from comity.node.threads import Pools
from comity.node.webhook_deliveries import EventQueue
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import OutOfSpace, Unavailable
from comity.wire.access import CALLER, Caller
from comity_cli.main import command
from comity_cli.output import Output
from support.federation import make_home

MONDAY = 1_799_625_600  # 2027-01-11
FILE = sha256(b"weights")


class Clock:
    """A clock that a test sets."""

    now = float(MONDAY)

    def __call__(self) -> float:
        return self.now


@pytest.fixture(name="pools")
async def _pools() -> AsyncIterator[Pools]:
    pools = Pools()
    yield pools
    pools.close()


def test_weeks_begin_on_mondays() -> None:
    week = week_of(MONDAY)
    assert week_begins(week) == "2027-01-11"
    assert week_of(MONDAY - 1) == week - 1
    assert week_of(MONDAY + 7 * DAY - 1) == week


def test_the_pulls_of_an_artifact_are_those_of_its_largest_file() -> None:
    entries = [("a.json", b"{}"), ("b.safetensors", b"weights"), ("c.safetensors", b"WEIGHTS")]
    manifest = Manifest(tuple(FileEntry(path, len(data), sha256(data)) for path, data in entries))
    assert counted_file(manifest) == min(sha256(b"weights"), sha256(b"WEIGHTS"))


async def test_counts_are_added_by_week_and_survive_a_restart(tmp_path: Path, pools: Pools) -> None:
    clock = Clock()
    counts = PullCounts(tmp_path, pools, clock)
    counts.count(FILE)
    await counts._step()
    counts.count(FILE)
    counts.close()
    clock.now += 7 * DAY
    counts = PullCounts(tmp_path, pools, clock)
    counts.count(FILE)
    counts.count(sha256(b"other"))
    counts.close()
    assert counts.weeks(FILE) == [WeekCount("2027-01-18", 1), WeekCount("2027-01-11", 2)]
    assert counts.weeks(FILE, 1) == [WeekCount("2027-01-18", 1)]
    assert pull_counts.read_weeks(tmp_path / PULLS_FILE, None)[0] == WeekCount("2027-01-18", 2)


async def test_old_weeks_are_removed(tmp_path: Path, pools: Pools) -> None:
    clock = Clock()
    counts = PullCounts(tmp_path, pools, clock)
    for _ in range(3):
        counts.count(FILE)
        counts.close()
        clock.now += (KEPT_WEEKS - 1) * 7 * DAY
    assert len(counts.weeks(FILE)) == 2


async def test_a_flood_of_files_takes_a_bounded_number_of_rows_and_every_one_is_counted(
    tmp_path: Path, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_counts, "MAX_FILES", 20)
    monkeypatch.setattr(pull_counts, "MAX_UNWRITTEN", 30)
    counts = PullCounts(tmp_path, pools, Clock())
    for number in range(100):
        counts.count(sha256(b"%d" % number))
    assert len(counts._unwritten) <= 31
    counts.close()
    counts.count(sha256(b"0"))
    counts.close()
    with closing(sqlite3.connect(tmp_path / PULLS_FILE)) as database:
        rows = database.execute("SELECT file, count FROM pulls").fetchall()
    assert len(rows) <= 21
    assert sum(count for _, count in rows) == 101
    assert counts.weeks(sha256(b"0")) == [WeekCount("2027-01-11", 2)]


async def test_counts_that_cannot_be_written_now_are_written_later(
    tmp_path: Path, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = PullCounts(tmp_path, pools, Clock())

    def fails(taken: Counter[tuple[int, bytes]]) -> None:
        raise Unavailable("the disk did not answer")

    counts.count(FILE)
    with monkeypatch.context() as broken:
        broken.setattr(counts, "write", fails)
        with pytest.raises(Unavailable):
            await counts._step()
    counts.count(FILE)
    await counts._step()
    assert counts.weeks(FILE) == [WeekCount("2027-01-11", 2)]


async def test_counts_that_are_written_while_the_node_stops_are_written_once(
    tmp_path: Path, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, begun, go_on = PullCounts(tmp_path, pools, Clock()), Event(), Event()
    write = counts.write

    def slow(taken: Counter[tuple[int, bytes]]) -> None:
        begun.set()
        go_on.wait()
        write(taken)

    counts.count(FILE)
    with monkeypatch.context() as slowly:
        slowly.setattr(counts, "write", slow)
        step = asyncio.create_task(counts._step())
        await asyncio.to_thread(begun.wait)
        step.cancel()
        await asyncio.gather(step, return_exceptions=True)
    go_on.set()
    async with asyncio.timeout(30):
        while not counts.weeks(FILE):
            await asyncio.sleep(0.01)
    counts.close()
    assert counts.weeks(FILE) == [WeekCount("2027-01-11", 1)]


def test_a_node_stops_where_its_last_counts_cannot_be_written(tmp_path: Path, pools: Pools) -> None:
    counts = PullCounts(tmp_path, pools, Clock())
    counts.count(FILE)
    (tmp_path / PULLS_FILE).unlink()
    (tmp_path / PULLS_FILE).mkdir()
    with pytest.raises(Unavailable):
        counts.write(Counter({(1, b"file"): 1}))
    counts.close()


def blob_service(folder: Path, pools: Pools, ended: list[Digest]) -> tuple[BlobServicer, Digest]:
    store, data = FolderStore(folder / "blobs"), bytes(1000)
    store.put(sha256(data), data)
    served = ServedBytes(Metrics(), ended.append)
    members = type("Members", (), {"by_certificate": staticmethod(lambda certificate: None)})
    return BlobServicer(None, store, pools, members, served, LocationProviders()), sha256(data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("caller", "offset", "length", "counted"),
    [
        (Caller("192.0.2.1"), 0, 1000, True),
        (Caller("192.0.2.1"), 900, 5000, True),
        (Caller("192.0.2.1"), 0, 999, False),
        (Caller("f" * 64, b"certificate"), 0, 1000, False),
    ],
    ids=["a whole file", "its end", "not its end", "a member's node"],
)
async def test_a_file_is_counted_when_a_client_got_its_last_byte(
    tmp_path: Path, pools: Pools, caller: Caller, offset: int, length: int, counted: bool
) -> None:
    ended: list[Digest] = []
    service, digest = blob_service(tmp_path, pools, ended)
    CALLER.set(caller)
    assert [part async for part in service.read(digest, offset, length)]
    assert ended == [digest] * counted


def test_a_node_that_stops_writes_its_last_counts_and_releases_its_ledger(tmp_path: Path) -> None:
    home = make_home(tmp_path, 0)
    for number in (1, 2):
        node = OpenedHome.open(home.config(), Clock())
        node.served.ended(FILE)
        node.close()
        weeks = pull_counts.read_weeks(node.config.storage.ledger.with_name(PULLS_FILE), None)
        assert sum(week.count for week in weeks) == number


def test_the_command_reads_a_home_whose_node_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(
        '[node]\nname = "node-ch"\n[listen]\nmutual = "127.0.0.1:1"\nopen = "127.0.0.1:2"\n'
    )
    runner = CliRunner(env={"COLUMNS": "200"})
    none = runner.invoke(command, ["pulls", "--node", str(tmp_path), "--json"], obj=Output())
    assert json.loads(none.stdout)["weeks"] == []
    (tmp_path / "data").mkdir()
    counts = PullCounts(tmp_path / "data", None, Clock())  # type: ignore[arg-type]  # only its loop uses the pools
    counts.count(FILE)
    counts.close()
    shown = runner.invoke(command, ["pulls", "--node", str(tmp_path), "--json"], obj=Output())
    assert json.loads(shown.stdout)["weeks"] == [{"begins": "2027-01-11", "count": 1}]


def test_a_node_starts_with_new_counts_where_the_file_is_damaged(tmp_path: Path, pools: Pools) -> None:
    counts = PullCounts(tmp_path, pools, Clock())
    counts.count(FILE)
    counts.close()
    file = tmp_path / PULLS_FILE
    file.write_bytes(b"\0" * 100 + file.read_bytes()[100:])
    counts = PullCounts(tmp_path, pools, Clock())
    assert counts.weeks(FILE) == []
    counts.count(FILE)
    counts.close()
    assert [week.count for week in counts.weeks(FILE)] == [1]
    assert file.with_name(f"{PULLS_FILE}.damaged").exists()


def test_a_full_disk_is_told_as_one(tmp_path: Path, pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> sqlite3.Connection:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(sqlite3, "connect", full)
    with pytest.raises(OutOfSpace):
        PullCounts(tmp_path, pools, Clock())
    with pytest.raises(OutOfSpace):
        EventQueue(tmp_path)
