"""Readers of a file that is being downloaded: `comity.node.replication.files`, and the remains of downloads
that ended.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from comity.content.blobs import BlobLock, FolderStore
from comity.node.replication.files import FileDownload, FileDownloads
from comity.node.replication.on_demand import trim
from comity.node.threads import Pools
from comity.rules.pieces import FIXED_LAYOUT, PieceLayout
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, Unavailable
from support.sources import PIECE_SIZE, wanted, weights

DATA = weights(4)
KEY = sha256(DATA), PieceLayout(FIXED_LAYOUT, 4, sha256(b""))


@pytest.fixture
def pools() -> Iterator[Pools]:
    made = Pools()
    yield made
    made.close()


def departed(into: Path, *here: int) -> FileDownload:
    """A download of `DATA` of which these pieces have arrived."""
    download = FileDownload()
    with into.open("wb") as file:
        for piece in here:
            file.seek(piece * PIECE_SIZE)
            file.write(DATA[piece * PIECE_SIZE :][:PIECE_SIZE])
    download.start(wanted(DATA), into)
    for piece in here:
        download.arrived(piece)
    return download


async def read(download: FileDownload, pools: Pools, offset: int = 0, length: int = len(DATA)) -> bytes:
    async with aclosing(download.read(offset, length, pools)) as parts:
        return b"".join([part async for part in parts])


async def test_the_last_piece_is_not_for_readers_of_the_partial_file(tmp_path: Path, pools: Pools) -> None:
    download = departed(tmp_path / "partial", 0, 1, 2, 3)
    reading = asyncio.create_task(read(download, pools))
    while not download.awaited():
        await asyncio.sleep(0)
    assert download.awaited() == [3]
    download.finish()
    assert await reading == DATA[: 3 * PIECE_SIZE]
    assert download.awaited() == []


async def test_a_range_inside_pieces_that_are_here_waits_for_nothing(tmp_path: Path, pools: Pools) -> None:
    download = departed(tmp_path / "partial", 1, 2)
    assert await read(download, pools, PIECE_SIZE + 7, PIECE_SIZE + 5) == DATA[PIECE_SIZE + 7 : 2 * PIECE_SIZE + 12]


async def test_bytes_that_changed_since_they_were_written_are_not_sent(tmp_path: Path, pools: Pools) -> None:
    for at in (10, PIECE_SIZE - 1):
        download = departed(tmp_path / "partial", 0)
        with (tmp_path / "partial").open("r+b") as file:
            file.seek(at)
            file.write(bytes([DATA[at] ^ 1]))
        with pytest.raises(Unavailable, match="does not match its hash"):
            await read(download, pools, 0, 10)


async def test_bytes_that_change_after_their_piece_was_checked_are_not_sent(tmp_path: Path, pools: Pools) -> None:
    download = departed(tmp_path / "partial", 0)
    assert await read(download, pools, 0, 10) == DATA[:10]
    (tmp_path / "partial").write_bytes(bytes(PIECE_SIZE))
    with pytest.raises(Unavailable) as refused:
        await read(download, pools, 0, 10)
    assert refused.value.code == "BLOB-CHANGED"


async def test_a_reader_continues_in_the_store_when_its_file_is_moved_there(tmp_path: Path, pools: Pools) -> None:
    download = departed(tmp_path / "partial", 0)
    (tmp_path / "partial").rename(tmp_path / "blob")
    reading = asyncio.create_task(read(download, pools))
    await asyncio.sleep(0.01)
    assert not reading.done()
    download.finish()
    assert await reading == b""


async def test_readers_learn_why_a_download_failed_and_the_next_one_is_another(pools: Pools) -> None:
    downloads = FileDownloads()
    waiting = downloads.get_or_create(KEY)
    assert downloads.get_or_create(KEY) is waiting
    reading = asyncio.create_task(read(waiting, pools))
    with pytest.raises(NotFound), downloads.running(KEY) as download:
        assert download is waiting
        raise NotFound("nobody has it")
    with pytest.raises(NotFound, match="nobody has it"):
        await reading
    assert downloads.find(KEY) is None


async def test_only_a_download_without_a_driver_is_given_up(pools: Pools) -> None:
    downloads = FileDownloads()
    with downloads.running(KEY) as download:
        downloads.fail_if_idle(KEY, NotFound("left"))
        assert downloads.find(KEY) is download
    announced = downloads.get_or_create(KEY)
    downloads.fail_if_idle(KEY, NotFound("left"))
    with pytest.raises(NotFound, match="left"):
        await read(announced, pools)


async def test_readers_are_told_that_their_fetch_was_cancelled(pools: Pools) -> None:
    downloads = FileDownloads()
    with pytest.raises(asyncio.CancelledError), downloads.running(KEY) as download:
        raise asyncio.CancelledError
    with pytest.raises(Unavailable) as told:
        await read(download, pools)
    assert told.value.code == "GIVEN-UP"


def test_the_oldest_partial_files_are_removed_first_and_running_ones_stay(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    new, old, oldest = digests = [Digest(sha256(bytes([number]))) for number in range(3)]
    for digest in digests:
        store.partial_path(digest).write_bytes(os.urandom(64 * 1024))
    with BlobLock(store.partial_path(oldest).parent, oldest):
        assert trim(store, digests, limit=100 * 1024) == [new, oldest]
    assert [store.partial_path(digest).exists() for digest in digests] == [True, False, True]
    assert trim(store, [new, old], limit=0) == []
