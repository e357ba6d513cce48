"""Single steps of a pull during another event: another pull into the same folder, or an interruption."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.evidence import MODEL_SIG
from comity_client.events import Event
from comity_client.pull.destinations import FolderDestination
from comity_client.pull.model_sig import fetched_model_sig
from comity_client.pull.pull import _in_place

SIGNATURE = b"a signature"


def test_a_model_sig_that_another_pull_placed_first_is_read_there(tmp_path: Path) -> None:
    entry = FileEntry(MODEL_SIG, len(SIGNATURE), sha256(SIGNATURE))
    destination = FolderDestination(tmp_path / "model", Manifest.of([entry]))
    destination.prepare()
    (destination.incoming / entry.sha256).write_bytes(SIGNATURE)
    assert fetched_model_sig(destination, [entry], [entry]) == SIGNATURE
    (destination.incoming / entry.sha256).rename(destination.path_of(entry))
    assert fetched_model_sig(destination, [entry], [entry]) == SIGNATURE


async def test_an_interrupted_pull_stops_hashing_local_files(tmp_path: Path) -> None:
    """Otherwise its thread would delay the end of the program for minutes."""
    manifest = Manifest.of(FileEntry(name, 1, sha256(b"?")) for name in "abc")
    for name in "abc":
        (tmp_path / name).write_bytes(b"?")
    seen, begun, released = list[Event](), threading.Event(), threading.Event()

    def on_event(event: Event) -> None:
        seen.append(event)
        begun.set()
        assert released.wait(60)

    hashing = asyncio.create_task(_in_place(FolderDestination(tmp_path, manifest), manifest, on_event))
    await asyncio.to_thread(begun.wait)
    hashing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hashing
    released.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert len(seen) == 1
