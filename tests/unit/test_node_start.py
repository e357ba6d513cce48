"""When a starting node may sign."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

from comity.ledger.ledger import Ledger
from comity.node.members import PeerKey
from comity.node.own_log import LEDGER_MARK, LedgerMark
from comity.node.replication.link import StartBarrier
from comity.trust.encoding import Digest

A, B = (PeerKey(Digest(digit * 64), "node.example/log") for digit in "ab")


async def settles(start: StartBarrier) -> bool:
    """Whether the wait ends by itself, without an answer."""
    waiting = asyncio.create_task(start.wait())
    for _ in range(10):
        await asyncio.sleep(0)
    ended = waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])
    return ended


async def test_a_node_without_peers_need_not_wait() -> None:
    assert await settles(StartBarrier((), 3600))


async def test_every_peer_is_asked_and_one_has_to_answer() -> None:
    start = StartBarrier((A, B), 3600)
    assert not await settles(start)
    start.attempted(A, answered=True)
    assert not await settles(start)
    start.attempted(B, answered=False)
    assert await settles(start)
    assert not start.no_peer_answered


async def test_failures_alone_do_not_settle_it_until_somebody_answers_later() -> None:
    start = StartBarrier((A, B), 3600)
    for peer in (A, B):
        start.attempted(peer, answered=False)
    assert not await settles(start)
    start.attempted(A, answered=True)
    assert await settles(start)


async def test_after_its_patience_a_node_goes_on_alone_and_says_so() -> None:
    start = StartBarrier((A,), 0)
    await start.wait()
    assert start.settled and start.no_peer_answered


async def test_a_copy_waits_for_as_long_as_it_takes() -> None:
    assert not await settles(StartBarrier((A,), None))


def mark(folder: Path) -> LedgerMark:
    """The mark beside the ledger in `folder`, which is made if there is none."""
    with closing(Ledger.open(folder, lambda: 1_000)) as ledger:
        return LedgerMark(folder / LEDGER_MARK, ledger.identity)


def test_a_ledger_that_was_copied_is_known(tmp_path: Path) -> None:
    here = mark(tmp_path / "here")
    assert not here.mismatches(begun=False)
    here.write()
    assert not mark(tmp_path / "here").mismatches(begun=True)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    there = mark(tmp_path / "there")
    assert there.mismatches(begun=True)
    there.write()
    assert not mark(tmp_path / "there").mismatches(begun=True)


def test_a_log_that_was_begun_and_has_no_mark_is_a_copy(tmp_path: Path) -> None:
    assert mark(tmp_path / "restored").mismatches(begun=True)


def test_an_operator_can_vouch_for_a_copy(tmp_path: Path) -> None:
    copy = mark(tmp_path / "a folder")
    subprocess.run(["sh", "-c", copy.reset_command()], check=True)
    assert not copy.mismatches(begun=True)


def test_what_the_manual_says_vouches_for_a_copy_as_well(tmp_path: Path) -> None:
    copy = mark(tmp_path / "data")
    by_hand = "stat -c %i data/ledger.sqlite > data/ledger.inode"
    assert by_hand in (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    subprocess.run(["sh", "-c", by_hand], check=True, cwd=tmp_path)
    assert not copy.mismatches(begun=True)
