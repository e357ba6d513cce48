"""Readers of a file that an import fetches: `comity.node.importing.read_through`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from comity.node.importing.read_through import ImportedFile
from comity.node.replication.files import SLICE
from comity.node.threads import Pools
from comity.trust.errors import Unavailable, Untrusted

DATA = random.Random(4).randbytes(3 * SLICE + 1000)


@pytest.fixture
def pools() -> Iterator[Pools]:
    made = Pools()
    yield made
    made.close()


class Coming:
    """A file that arrives in parts of odd sizes; `lost` counts how often parts were discarded."""

    def __init__(self, path: Path, size: int = len(DATA)) -> None:
        self.path = path
        self.lost = 0
        self.flow = ImportedFile(path, size, asyncio.get_running_loop(), self._lose)
        path.touch()

    def _lose(self) -> None:
        self.lost += 1

    def come(self, until: int, data: bytes = DATA) -> None:
        with self.path.open("ab") as file:
            while (at := file.tell()) < until:
                part = data[at : min(at + 70_001, until)]
                file.write(part)
                file.flush()
                self.flow.on_data(part)

    async def read(self, pools: Pools, offset: int = 0, length: int = len(DATA)) -> bytes:
        async with aclosing(self.flow.read(offset, length, pools)) as parts:
            return b"".join([part async for part in parts])


async def some(coming: Coming, pools: Pools, count: int) -> bytes:
    """The bytes of a reader that disconnects after so many."""
    got = b""
    async with aclosing(coming.flow.read(0, len(DATA), pools)) as parts:
        async for part in parts:
            got += part
            if len(got) >= count:
                break
    return got


async def test_slices_are_read_as_they_arrive_and_the_last_one_after_the_whole_is_verified(
    tmp_path: Path, pools: Pools
) -> None:
    coming = Coming(tmp_path / "file")
    coming.come(2 * SLICE + 5)
    assert await some(coming, pools, 2 * SLICE) == DATA[: 2 * SLICE]
    coming.come(len(DATA))
    assert await some(coming, pools, 3 * SLICE) == DATA[: 3 * SLICE]
    reading = asyncio.create_task(coming.read(pools))
    await asyncio.sleep(0)
    coming.flow.verified()
    assert await reading == DATA
    assert await coming.read(pools, SLICE - 3, 2 * SLICE) == DATA[SLICE - 3 : 3 * SLICE - 3]


@pytest.mark.parametrize("size", [1, SLICE, 2 * SLICE])
async def test_the_last_slice_is_held_back_at_any_size(tmp_path: Path, pools: Pools, size: int) -> None:
    coming = Coming(tmp_path / "file", size)
    coming.come(size)
    got: list[bytes] = []

    async def take() -> None:
        async with aclosing(coming.flow.read(0, size, pools)) as parts:
            async for part in parts:
                got.append(part)

    reading = asyncio.create_task(take())
    while len(got) < size // SLICE - 1:
        await asyncio.sleep(0)
    coming.flow.finish(Untrusted("it is another file"))
    with pytest.raises(Untrusted):
        await reading
    assert sum(map(len, got)) <= size - min(size, SLICE)


async def test_a_range_that_stops_before_the_end_waits_for_the_whole(tmp_path: Path, pools: Pools) -> None:
    coming = Coming(tmp_path / "file")
    coming.come(len(DATA))
    reading = asyncio.create_task(coming.read(pools, 0, 10))
    assert await some(coming, pools, SLICE) == DATA[:SLICE]
    assert not reading.done()
    coming.flow.verified()
    assert await reading == DATA[:10]


async def test_a_reader_of_discarded_bytes_gets_no_more(tmp_path: Path, pools: Pools) -> None:
    coming = Coming(tmp_path / "file")
    coming.come(2 * SLICE, bytes(len(DATA)))
    async with aclosing(coming.flow.read(0, len(DATA), pools)) as parts:
        assert await anext(parts) == bytes(SLICE)
        coming.path.unlink()
        coming.flow.on_discard()
        coming.come(len(DATA))
        coming.flow.verified()
        with pytest.raises(Unavailable):
            await anext(parts)
    await asyncio.sleep(0)
    assert coming.lost == 1
    assert await coming.read(pools) == DATA


async def test_a_reader_with_wrong_bytes_does_not_continue_in_the_store(tmp_path: Path, pools: Pools) -> None:
    coming = Coming(tmp_path / "file")
    coming.come(2 * SLICE, bytes(len(DATA)))
    async with aclosing(coming.flow.read(0, len(DATA), pools)) as parts:
        assert await anext(parts) == bytes(SLICE)
        coming.path.unlink()
        coming.flow.on_discard()
        coming.come(len(DATA))
        coming.flow.verified()
        coming.path.unlink()
        coming.flow.finish()
        with pytest.raises(Unavailable) as refused:
            await anext(parts)
    assert refused.value.code == "BLOB-CHANGED"


async def test_bytes_that_changed_on_the_disk_are_not_sent(tmp_path: Path, pools: Pools) -> None:
    coming = Coming(tmp_path / "file")
    coming.come(len(DATA))
    coming.flow.verified()
    with coming.path.open("r+b") as file:
        file.seek(SLICE + 7)
        file.write(bytes([DATA[SLICE + 7] ^ 1]))
    with pytest.raises(Unavailable) as refused:
        await coming.read(pools)
    assert refused.value.code == "BLOB-CHANGED"


async def test_a_reader_continues_in_the_store_once_the_import_has_ended(tmp_path: Path, pools: Pools) -> None:
    coming = Coming(tmp_path / "file")
    coming.come(2 * SLICE)
    reading = asyncio.create_task(coming.read(pools))
    coming.path.unlink()
    coming.flow.finish()
    assert DATA.startswith(await reading)
