"""When a node may sign after its start."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from comity.ledger.ledger import Ledger
from comity.node.ledger_mark import LEDGER_MARK, FileMark
from comity.node.members import PeerKey
from comity.node.replication.link import AnswerQuorum, StartBarrier
from comity.trust.encoding import Digest
from comity.wire.asking import FIRST_PATIENCE
from support.virtual_time import run

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


async def test_failures_alone_do_not_end_the_wait_until_a_peer_answers() -> None:
    start = StartBarrier((A, B), 3600)
    for peer in (A, B):
        start.attempted(peer, answered=False)
    assert not await settles(start)
    start.attempted(A, answered=True)
    assert await settles(start)


async def test_after_its_patience_a_node_continues_without_peers_and_says_so() -> None:
    start = StartBarrier((A,), 0)
    await start.wait()
    assert start.settled and start.no_peer_answered


async def test_a_copied_ledger_waits_without_a_time_limit() -> None:
    assert not await settles(StartBarrier((A,), None))


def member(digit: str) -> Digest:
    return Digest(digit * 64)


PEERS = {digit: PeerKey(member(digit), "node.example/log") for digit in "abcdef"}
CHARTER = AnswerQuorum(member("a"), frozenset(map(member, "abcd")), 3)
"""Four members, of which three must have answered: this node's own, `a`, and two others."""


@pytest.mark.parametrize(
    ("answers", "settled"), [("", False), ("b", False), ("bc", True), ("bcd", True), ("ef", False), ("bef", False)]
)
async def test_a_copy_needs_the_answers_of_a_quorum_of_members(answers: str, settled: bool) -> None:
    """Observers and former members (`e`, `f`) do not count."""
    start = StartBarrier([PEERS[digit] for digit in "bcdef"], None, CHARTER)
    for digit in "bcdef":
        start.attempted(PEERS[digit], answered=digit in answers)
    assert await settles(start) is settled


async def test_two_nodes_of_one_member_are_one_answer() -> None:
    nodes = [PeerKey(member("b"), f"node-{number}.example/log") for number in range(2)]
    start = StartBarrier([*nodes, PEERS["c"], PEERS["d"]], None, CHARTER)
    for peer in (*nodes, PEERS["c"], PEERS["d"]):
        start.attempted(peer, answered=peer in nodes)
    assert not await settles(start)
    start.attempted(PEERS["c"], answered=True)
    assert await settles(start)


async def test_members_without_a_known_node_are_not_waited_for() -> None:
    start = StartBarrier([PEERS["b"]], None, CHARTER)
    start.attempted(PEERS["b"], answered=True)
    assert await settles(start)


async def test_one_answer_is_needed_even_if_no_member_that_counts_is_known() -> None:
    start = StartBarrier([PEERS["e"]], None, AnswerQuorum(member("a"), frozenset([member("a")]), 1))
    start.attempted(PEERS["e"], answered=False)
    assert not await settles(start)
    start.attempted(PEERS["e"], answered=True)
    assert await settles(start)


def mark(folder: Path) -> FileMark:
    """The mark beside the ledger in `folder`, which is made if there is none."""
    with closing(Ledger.open(folder, lambda: 1_000)) as ledger:
        return FileMark(folder / LEDGER_MARK, ledger.identity)


def test_a_copied_ledger_is_recognised(tmp_path: Path) -> None:
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


def test_an_operator_can_confirm_a_copied_ledger(tmp_path: Path) -> None:
    copy = mark(tmp_path / "a folder")
    subprocess.run(["sh", "-c", copy.reset_command()], check=True)
    assert not copy.mismatches(begun=True)


def test_the_command_in_the_manual_confirms_a_copy_as_well(tmp_path: Path) -> None:
    copy = mark(tmp_path / "data")
    by_hand = "stat -c %i data/ledger.sqlite > data/ledger.inode"
    assert by_hand in (Path(__file__).parents[3] / "docs" / "operations" / "repair.md").read_text()
    subprocess.run(["sh", "-c", by_hand], check=True, cwd=tmp_path)
    assert not copy.mismatches(begun=True)


def test_a_member_that_does_not_answer_delays_a_copy_by_seconds_only() -> None:
    """Once a quorum has answered, nothing that the others hold can be missing."""

    async def start() -> None:
        start = StartBarrier([PEERS[digit] for digit in "bcd"], None, CHARTER)
        for digit in "bc":
            start.attempted(PEERS[digit], answered=True)
        await start.wait()
        assert start.settled and not start.no_peer_answered

    assert run(start())[1] == FIRST_PATIENCE


def test_one_answer_does_not_end_the_wait_for_the_others_where_no_quorum_is_needed() -> None:
    """It may be the answer of a member that hides what this node signed."""

    async def start() -> None:
        start = StartBarrier((A, B), 15.0)
        start.attempted(A, answered=True)
        await start.wait()

    assert run(start())[1] == 15.0
