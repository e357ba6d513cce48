"""A disk that becomes full while a node copies, loads a bundle or audits by file: acknowledged data stays, nothing
unstored is reported as done, and the node continues when there is space.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Awaitable, Iterator
from functools import partial
from pathlib import Path

import pytest
from comity.rules.copy_counts import PASSED
from comity.trust.errors import OutOfSpace
from comity.wire.audit import ChallengeRequest
from comity_client.bundles.exporting import ExportOrder, export_bundle
from comity_client.bundles.loading import load_bundle
from comity_client.carried_audits import answer_challenges, ask_challenges, check_answers
from comity_client.events import ignore_event
from support.federation import NodeHome, found, holds, serving, until
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
        shares = [f"{full.record.member} 100"]
        small.set("replication", stop_free_bytes=0, resume_free_bytes=0, bandwidth=rate, shares=shares)
        begun = disk / "blobs" / "partial" / weights
        async with serving(full, small), full.client() as client:
            await send(client, first)
            await until(lambda: _holds(small, 1), what="the first copy")
            await send(client, second)
            await until(lambda: begun.exists() and begun.stat().st_blocks, what="the second to begin")
            _fill(disk / "filler")
            await until(lambda: _fails_for_space(small), what="the copy to fail")
            assert await _holds(small, 1)
            async with small.client() as reader:
                for digest, path in first.blobs.items():
                    data = path.read_bytes()
                    assert b"".join([chunk async for chunk in reader.read(digest, 0, len(data))]) == data
            (disk / "filler").unlink()
            await until(lambda: _holds(small, 2), what="the second copy")


@pytest.mark.slow
async def test_a_bundle_is_loaded_and_audits_by_file_continue_when_a_full_disk_has_space_again(tmp_path: Path) -> None:
    full, second, small = found(tmp_path, 3).homes
    publisher, earlier, later = Publisher.generate(), tmp_path / "earlier", tmp_path / "later"
    async with serving(full, second), full.client() as client, second.client() as exporting:
        for number, folder in enumerate((earlier, later), 1):
            weights = model(tmp_path / f"model {number}", weights=number * MIB, seed=number)
            made = release(publisher, weights, f"tests/model-{number}@v1")
            await send(client, made)
            for holder in (second, full):
                await until(partial(holds, second, made.artifact, holder), what="the copies")
            await export_bundle(exporting, ExportOrder(everything=True), folder, ignore_event)
    challenges = ChallengeRequest(full.record.name)
    with _small_disk(tmp_path / "disk") as disk:
        small.set("storage", blobs=str(disk / "blobs"), ledger=str(disk / "ledger.sqlite"), reserve_bytes=0)
        small.set("replication", stop_free_bytes=0, resume_free_bytes=0)
        async with serving(small):
            assert not (await load_bundle([earlier], small.socket)).refused
            assert await _holds(small, 1)
            _fill(disk / "filler")
            assert await _out_of_space(_loaded(later, small))
            assert await _out_of_space(asyncio.to_thread(ask_challenges, small.socket, challenges))
            assert await _holds(small, 1)
            (disk / "filler").unlink()
            assert not (await load_bundle([later], small.socket)).refused
            await until(lambda: _holds(small, 2), what="the second copy")
            drawn = await asyncio.to_thread(ask_challenges, small.socket, challenges)
            assert len(drawn) == 2
        async with serving(full):
            answers = await asyncio.to_thread(answer_challenges, full.socket, drawn)
        async with serving(small):
            _fill(disk / "filler")
            assert await _out_of_space(asyncio.to_thread(check_answers, small.socket, answers))
            (disk / "filler").unlink()
            checked, nothing = await asyncio.to_thread(check_answers, small.socket, answers)
            assert ([item.outcome for item in checked], nothing) == ([PASSED, PASSED], [])


async def _loaded(folder: Path, home: NodeHome) -> None:
    """Raises OutOfSpace also if the node reports that it did not take a part for that reason."""
    result = await load_bundle([folder], home.socket)
    if any(item.code == OutOfSpace.code for item in result.refused):
        raise OutOfSpace("a part was not taken", why=str(result.refused))


async def _out_of_space(work: Awaitable[object]) -> bool:
    with pytest.raises(OutOfSpace):
        await work
    return True


async def _holds(home: NodeHome, count: int) -> bool:
    async with home.operator() as operator:
        return (await operator.status()).holds == count


async def _fails_for_space(home: NodeHome) -> bool:
    """Whether a copy failed on the full disk, lost its promise of space, or waits for its share of what is left."""
    codes = {"OUT-OF-SPACE", "COPY-SPACE", "COPY-SHARE"}
    async with home.operator() as operator:
        replication = (await operator.status()).replication
    return replication is not None and any(item.code in codes for item in replication.lacking)


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
