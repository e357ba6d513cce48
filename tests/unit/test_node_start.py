"""When a starting node may sign."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

from comity.node import continuity
from comity.node.replication.start import Start


async def settles(start: Start) -> bool:
    """Whether the wait ends by itself, without an answer."""
    waiting = asyncio.create_task(start.wait())
    for _ in range(10):
        await asyncio.sleep(0)
    ended = waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])
    return ended


async def test_a_node_without_peers_need_not_wait() -> None:
    assert await settles(Start((), 3600))


async def test_every_peer_is_asked_and_one_has_to_answer() -> None:
    start = Start(("a", "b"), 3600)
    assert not await settles(start)
    start.attempted("a", answered=True)
    assert not await settles(start)
    start.attempted("b", answered=False)
    assert await settles(start)
    assert not start.alone


async def test_failures_alone_do_not_settle_it_until_somebody_answers_later() -> None:
    start = Start(("a", "b"), 3600)
    for origin in ("a", "b"):
        start.attempted(origin, answered=False)
    assert not await settles(start)
    start.attempted("a", answered=True)
    assert await settles(start)


async def test_after_its_patience_a_node_goes_on_alone_and_says_so() -> None:
    start = Start(("a",), 0)
    await start.wait()
    assert start.settled and start.alone


async def test_a_copy_waits_for_as_long_as_it_takes() -> None:
    assert not await settles(Start(("a",), None))


def made(folder: Path) -> Path:
    folder.mkdir()
    database = folder / "ledger.sqlite"
    database.write_bytes(b"a database")
    return database


def test_a_ledger_that_was_copied_is_known(tmp_path: Path) -> None:
    database = made(tmp_path / "here")
    assert not continuity.is_copy(database, begun=False)
    continuity.remember(database)
    assert not continuity.is_copy(database, begun=True)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    copy = tmp_path / "there" / "ledger.sqlite"
    assert continuity.is_copy(copy, begun=True)
    continuity.remember(copy)
    assert not continuity.is_copy(copy, begun=True)


def test_a_log_that_was_begun_and_has_no_mark_is_a_copy(tmp_path: Path) -> None:
    assert continuity.is_copy(made(tmp_path / "restored"), begun=True)


def test_an_operator_can_vouch_for_a_copy(tmp_path: Path) -> None:
    database = made(tmp_path / "a folder")
    subprocess.run(["sh", "-c", continuity.adopt_command(database)], check=True)
    assert not continuity.is_copy(database, begun=True)
