"""A disk that becomes full while a node copies: what it has acknowledged stays, and it goes on when there is room."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.federation import NodeHome, found, serving, until
from support.publisher import Publisher, model, release, send
from support.tools import missing

MIB = 1024 * 1024
DISK = 48 * MIB


@pytest.mark.slow
async def test_a_disk_that_fills_in_the_middle_of_a_copy_loses_no_held_copy(tmp_path: Path) -> None:
    full, small = found(tmp_path, 2).homes
    first = release(Publisher.generate(), model(tmp_path / "first", weights=6 * MIB), "tests/first@v1")
    second = release(Publisher.generate(), model(tmp_path / "second", weights=24 * MIB, seed=2), "tests/second@v1")
    (weights,) = [digest for digest, path in second.blobs.items() if path.name == "weights.bin"]
    with _small_disk(tmp_path / "disk") as disk:
        small.set("storage", blobs=str(disk / "blobs"), reserve_bytes=0)
        rate = ("0-12 3000000", "12-0 3000000")
        small.set("replication", stop_free_bytes=0, resume_free_bytes=0, bandwidth=rate)
        partial = disk / "blobs" / "partial" / weights
        async with serving(full, small), full.client() as client:
            await send(client, first)
            await until(lambda: _holds(small, 1), what="the first copy")
            await send(client, second)
            await until(lambda: partial.exists() and partial.stat().st_blocks, what="the second to begin")
            _fill(disk / "filler")
            await until(lambda: _fails_for_space(small), what="the copy to fail")
            assert await _holds(small, 1)
            async with small.client() as reader:
                for digest, path in first.blobs.items():
                    data = path.read_bytes()
                    assert b"".join([chunk async for chunk in reader.read(digest, 0, len(data))]) == data
            (disk / "filler").unlink()
            await until(lambda: _holds(small, 2), what="the second copy")


async def _holds(home: NodeHome, count: int) -> bool:
    async with home.operator() as operator:
        return (await operator.status()).holds == count


async def _fails_for_space(home: NodeHome) -> bool:
    async with home.operator() as operator:
        replication = (await operator.status()).replication
    return replication is not None and any(item.code == "OUT-OF-SPACE" for item in replication.lacking)


def _fill(path: Path) -> None:
    """Write until the disk is full."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        with contextlib.suppress(OSError):
            while os.write(descriptor, bytes(64 * 1024)):
                pass
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    """A file system in memory. Skips where this process may not mount one."""
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder))
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        missing("this process may not mount a file system; unlock: root, with CAP_SYS_ADMIN")
    try:
        yield folder
    finally:
        subprocess.run(("umount", "--lazy", str(folder)), capture_output=True, check=False)
