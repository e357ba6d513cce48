"""A transfer that is killed, at any point and more than once, loses only the pieces that were in flight."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from comity.transfer.fetch import FetchOptions, fetch_file
from support.sources import PIECE_SIZE, QUICK, MemorySource, named, wanted, weights

PIECES = 60
TESTS = Path(__file__).resolve().parents[1]


def killed_after(verified: int, into: Path) -> int:
    """Run the transfer in a child process, kill it once it has reported that many bytes. Returns the bytes that it
    reported.
    """
    command = [sys.executable, str(TESTS / "support" / "transfer_child.py"), str(into), str(PIECES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(TESTS)}) as child:
        assert child.stdout is not None
        told = 0
        for line in child.stdout:
            told += int(line)
            if told >= verified:
                child.kill()
        assert child.wait() in (-9, 0), "killed, or faster than the kill"
    return told


async def test_no_verified_piece_is_fetched_again_after_a_kill(tmp_path: Path) -> None:
    into, data = tmp_path / "partial", weights(PIECES)
    for part in (1, 2, 3):
        told = killed_after(len(data) * part // 4, into)
    source = MemorySource("c", data)
    fetched = await fetch_file(wanted(data), [source], into, options=FetchOptions(limits=QUICK))
    assert into.read_bytes() == data
    assert fetched.resumed >= told
    assert source.served == len(data) - fetched.resumed


async def test_pieces_that_a_crash_damaged_are_fetched_again(tmp_path: Path) -> None:
    into, data = tmp_path / "partial", weights(PIECES)
    killed_after(len(data) // 2, into)
    with into.open("r+b") as file:  # a machine that lost power may keep the length and lose the bytes
        file.seek(PIECE_SIZE + 5)
        file.write(bytes(PIECE_SIZE))
    fetched = await fetch_file(wanted(data), [MemorySource("c", data)], into, options=FetchOptions(limits=QUICK))
    assert into.read_bytes() == data
    assert named(fetched.bytes_by_source)["c"] >= 2 * PIECE_SIZE
