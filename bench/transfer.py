"""What the transfer engine costs, beside the least that a puller could do with the same messages.

    python bench/transfer.py [--rounds 5] [--mib 512] [--folder /dev/shm]

    plain loop          1 MiB messages, one sha256 over all, one file written in order
    plain loop, pieces  the same with a sha256 for each 4 MiB piece besides: the hashing that the engine does
    one source          fetch_file from one source in memory
    three sources       fetch_file from three
    resumed             fetch_file onto a partial file that is complete already: reading and hashing, no source

All in one process, messages made before the clock starts, into a folder in memory by default, so that neither a network
nor a disk is measured. The plain loops use one core; the engine hashes in threads while messages come in.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from comity.rules.pieces import fixed_pieces
from comity.transfer.fetch import fetch_file
from comity.transfer.limits import MIB
from comity.transfer.pieces import WantedFile
from comity.transfer.sources import SourceKey
from comity.trust.artifact import PIECE_SIZE, PieceRecord
from comity.trust.encoding import Digest, sha256
from harness import show, speeds, take_turns, write


class Memory:
    """Answers in messages of 1 MiB, and lets the event loop turn after each, as a network would."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.key = self.host = SourceKey("memory", name)
        self._data = data

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        for at in range(offset, offset + length, MIB):
            yield self._data[at : min(at + MIB, offset + length)]
            await asyncio.sleep(0)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--mib", type=int, default=512)
    options.add_argument("--folder", default="/dev/shm")
    chosen = options.parse_args()
    data = os.urandom(chosen.mib * MIB)
    with tempfile.TemporaryDirectory(prefix="comity-bench-", dir=chosen.folder) as folder:
        load = os.getloadavg()[0]
        spent: dict[str, list[float]] = {}
        turns = {name: _counting(peer, spent.setdefault(name, [])) for name, peer in peers(data, Path(folder)).items()}
        taken = take_turns(turns, chosen.rounds)
    table = speeds(taken, len(data), "plain loop")
    for name, row in table.items():
        row["median_cpu_s_per_gb"] = round(statistics.median(spent[name][1:]) / len(data) * 1e9, 2)
    show(table)
    write("transfer", rounds=chosen.rounds, bytes=len(data), folder=chosen.folder, load_before=load, peers=table)


def peers(data: bytes, folder: Path) -> dict[str, Callable[[], None]]:
    pieces = [hashlib.sha256(data[at : at + PIECE_SIZE]).digest() for at in range(0, len(data), PIECE_SIZE)]
    records = [PieceRecord(length, found) for length, found in zip(fixed_pieces(len(data)), pieces, strict=True)]
    want = WantedFile(sha256(data), len(data), records)
    complete = folder / "complete"
    complete.write_bytes(data)

    async def loop(*, with_pieces: bool) -> None:
        whole, piece, into = hashlib.sha256(), hashlib.sha256(), folder / "into"
        with into.open("wb") as file:
            async for message in Memory("a", data).read(want.digest, 0, len(data)):
                whole.update(message)
                if with_pieces:
                    piece.update(message)
                file.write(message)
            os.fsync(file.fileno())
        into.unlink()

    async def fetch(names: str) -> None:
        into = folder / "into"
        await fetch_file(want, [Memory(name, data) for name in names], into)
        into.unlink()

    return {
        "plain loop": lambda: asyncio.run(loop(with_pieces=False)),
        "plain loop, pieces": lambda: asyncio.run(loop(with_pieces=True)),
        "one source": lambda: asyncio.run(fetch("a")),
        "three sources": lambda: asyncio.run(fetch("abc")),
        "resumed": lambda: asyncio.run(_resume(want, complete)),
    }


def _counting(peer: Callable[[], None], spent: list[float]) -> Callable[[], None]:
    """`peer`, with its processor time recorded: the figure that other load on the machine changes least."""

    def run() -> None:
        began = time.process_time()
        peer()
        spent.append(time.process_time() - began)

    return run


async def _resume(want: WantedFile, complete: Path) -> None:
    await fetch_file(want, [], complete)


if __name__ == "__main__":
    main()
