"""When copies pause: two thresholds of free space, hours of the day, and a rate that all copies share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import pytest
from comity.content.blobs import FolderStore
from comity.node.replication.copy_limits import CopyPauses, Pace, PacedSource, Watermarks, rate_at
from comity.node.settings import Replication
from comity.node.threads import Pools
from comity.transfer.sources import BlobSource
from comity.trust.encoding import Digest, sha256
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

NOON = 12 * 3_600.0


class Disk(FolderStore):
    """A store on a disk whose free space the test sets."""

    free: int | None = 10_000

    def free_bytes(self) -> int | None:
        return self.free


class Bench:
    def __init__(self, folder: Path, *bandwidth: str) -> None:
        self.disk = Disk(folder / "blobs")
        self.now = NOON
        settings = Replication(stop_free_bytes=1_000, resume_free_bytes=2_000, bandwidth=bandwidth)
        self.pauses = CopyPauses(settings, self.disk, Pools(), lambda: self.now)

    async def at(self, free: int | None) -> tuple[bool, bool]:
        """Whether copies continue now, and whether they are paused."""
        self.disk.free = free
        return await self.pauses.look(), bool(self.pauses.why)


@given(st.lists(st.integers(0, 40) | st.none()), st.integers(0, 20), st.integers(0, 20))
def test_copies_stop_and_continue_at_the_marks_only(free: list[int | None], stop: int, above: int) -> None:
    marks, stopped = Watermarks(stop, stop + above), False
    for now in free:
        before, stopped = stopped, marks.stopped(stopped, now)
        if now is not None and now < stop:
            assert stopped
        elif now is None or now >= stop + above:
            assert not stopped
        else:
            assert stopped == before


async def test_a_full_disk_pauses_copies_until_the_upper_mark(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert await bench.at(1_000) == (False, False)
    assert await bench.at(999) == (False, True)
    assert "999 bytes of the disk are free" in bench.pauses.why
    assert await bench.at(1_999) == (False, True)
    assert await bench.at(2_000) == (True, False)


async def test_a_pause_ends_running_turns(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.at(5_000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as turn:
            with bench.pauses.running(turn):
                await bench.at(0)
                await asyncio.Event().wait()
    assert turn.expired()


async def test_the_hours_decide_about_pace_and_pause(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "22-6 500000", "8-13 0")
    assert await bench.at(None) == (False, True)
    assert "bandwidth" in bench.pauses.why
    bench.now = 13 * 3_600.0
    assert await bench.at(None) == (True, False)
    assert bench.pauses.pace is None
    bench.now = 23 * 3_600.0
    await bench.at(None)
    assert bench.pauses.pace is not None
    assert (bench.pauses.pace.rate, rate_at(("0-12 7",), NOON)) == (500_000, None)


@given(st.lists(st.tuples(st.integers(1, 10**7), st.floats(0, 5)), min_size=1))
def test_all_readers_together_keep_the_pace(reads: list[tuple[int, float]]) -> None:
    pace, now, received = Pace(1_000_000), 0.0, 0
    for count, after in reads:
        now += after
        received += count
        assert received <= 1_000_000 * (now + pace.reserve(count, now)) + 1


async def test_a_paced_source_gives_the_same_bytes() -> None:
    class Source:
        key = name = host = "x"

        async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
            yield b"ab"
            yield b"c"

    paced = PacedSource(cast(BlobSource, Source()), Pace(10**12))
    assert b"".join([part async for part in paced.read(sha256(b"abc"), 0, 3)]) == b"abc"
    assert paced.name == "x"


@pytest.mark.parametrize("text", ["", "6-22", "6-22 -1", "6-22 99999", "6-6 100000", "x 100000", "6-22 " + "9" * 20])
def test_invalid_hours_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Replication(bandwidth=(text,))


def test_the_upper_mark_is_not_below_the_lower_one() -> None:
    with pytest.raises(ValidationError, match="resume_free_bytes"):
        Replication(stop_free_bytes=2, resume_free_bytes=1)
