"""Readers of a file that is on its way: `comity.node.replication.files`, and what is left of flights that ended."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from comity.content.blobs import BlobLock, FolderStore
from comity.node.context import Pools
from comity.node.replication.files import FileDownload, FileDownloads
from comity.node.replication.on_demand import trim
from comity.trust.artifact import FIXED, PieceLayout
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, Unavailable
from support.sources import PIECE, wanted, weights

DATA = weights(4)
KEY = sha256(DATA), PieceLayout(FIXED, 4, sha256(b""))


@pytest.fixture
def pools() -> Iterator[Pools]:
    made = Pools()
    yield made
    made.close()


def departed(into: Path, *here: int) -> FileDownload:
    """A flight of `DATA` of which these pieces have come in."""
    flight = FileDownload()
    with into.open("wb") as file:
        for piece in here:
            file.seek(piece * PIECE)
            file.write(DATA[piece * PIECE :][:PIECE])
    flight.depart(wanted(DATA), into)
    for piece in here:
        flight.arrived(piece)
    return flight


async def read(flight: FileDownload, pools: Pools, offset: int = 0, length: int = len(DATA)) -> bytes:
    async with aclosing(flight.read(offset, length, pools)) as parts:
        return b"".join([part async for part in parts])


async def test_the_last_piece_is_not_for_readers_of_the_partial_file(tmp_path: Path, pools: Pools) -> None:
    flight = departed(tmp_path / "partial", 0, 1, 2, 3)
    reading = asyncio.create_task(read(flight, pools))
    while not flight.awaited():
        await asyncio.sleep(0)
    assert flight.awaited() == [3]
    flight.end()
    assert await reading == DATA[: 3 * PIECE]
    assert flight.awaited() == []


async def test_a_range_inside_pieces_that_are_here_waits_for_nothing(tmp_path: Path, pools: Pools) -> None:
    flight = departed(tmp_path / "partial", 1, 2)
    assert await read(flight, pools, PIECE + 7, PIECE + 5) == DATA[PIECE + 7 : 2 * PIECE + 12]


async def test_what_is_no_longer_what_was_written_does_not_leave(tmp_path: Path, pools: Pools) -> None:
    for at in (10, PIECE - 1):
        flight = departed(tmp_path / "partial", 0)
        with (tmp_path / "partial").open("r+b") as file:
            file.seek(at)
            file.write(bytes([DATA[at] ^ 1]))
        with pytest.raises(Unavailable, match="is no longer what was written"):
            await read(flight, pools, 0, 10)


async def test_what_changes_after_its_piece_was_looked_at_does_not_leave(tmp_path: Path, pools: Pools) -> None:
    flight = departed(tmp_path / "partial", 0)
    assert await read(flight, pools, 0, 10) == DATA[:10]
    (tmp_path / "partial").write_bytes(bytes(PIECE))
    with pytest.raises(Unavailable) as refused:
        await read(flight, pools, 0, 10)
    assert refused.value.code == "BLOB-CHANGED"


async def test_a_reader_whose_file_is_moved_under_it_goes_on_in_the_store(tmp_path: Path, pools: Pools) -> None:
    flight = departed(tmp_path / "partial", 0)
    (tmp_path / "partial").rename(tmp_path / "blob")
    reading = asyncio.create_task(read(flight, pools))
    await asyncio.sleep(0.01)
    assert not reading.done()
    flight.end()
    assert await reading == b""


async def test_readers_learn_why_a_flight_failed_and_the_next_one_is_another(pools: Pools) -> None:
    flights = FileDownloads()
    waiting = flights.announce(KEY)
    assert flights.announce(KEY) is waiting
    reading = asyncio.create_task(read(waiting, pools))
    with pytest.raises(NotFound), flights.driven(KEY) as flight:
        assert flight is waiting
        raise NotFound("nobody has it")
    with pytest.raises(NotFound, match="nobody has it"):
        await reading
    assert flights.find(KEY) is None


async def test_only_a_flight_that_nobody_drives_is_given_up(pools: Pools) -> None:
    flights = FileDownloads()
    with flights.driven(KEY) as flight:
        flights.give_up(KEY, NotFound("left"))
        assert flights.find(KEY) is flight
    announced = flights.announce(KEY)
    flights.give_up(KEY, NotFound("left"))
    with pytest.raises(NotFound, match="left"):
        await read(announced, pools)


async def test_a_cancelled_fetch_is_told_to_its_readers(pools: Pools) -> None:
    flights = FileDownloads()
    with pytest.raises(asyncio.CancelledError), flights.driven(KEY) as flight:
        raise asyncio.CancelledError
    with pytest.raises(Unavailable) as told:
        await read(flight, pools)
    assert told.value.code == "GIVEN-UP"


def test_the_oldest_beginnings_go_first_and_those_under_way_stay(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    new, old, oldest = digests = [Digest(sha256(bytes([number]))) for number in range(3)]
    for digest in digests:
        store.scratch(digest).write_bytes(os.urandom(64 * 1024))
    with BlobLock(store.scratch(oldest).parent, oldest):
        assert trim(store, digests, most=100 * 1024) == [new, oldest]
    assert [store.scratch(digest).exists() for digest in digests] == [True, False, True]
    assert trim(store, [new, old], most=0) == []
