"""The space that a node keeps free on its disk: how much it is, which setting decides it, and the error when there is
none.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.node.metrics import Metrics
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import Uploads, Want
from comity.trust.encoding import sha256
from comity.trust.errors import OutOfSpace
from comity.upstream.listed_files import UpstreamRequest
from comity.upstream.mirror import copy_folder, recognise_folder

MORE_THAN_A_DISK = 2**60
SETTING = "reserve_bytes in [storage]"


class Silent:
    def progress(self, path: str, count: int) -> None:
        pass

    def wait(self, seconds: float, why: str) -> None:
        raise AssertionError(why)


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_an_upload_that_would_use_the_reserve_is_refused_with_its_setting(tmp_path: Path) -> None:
    data = b"weights"
    want = Want(sha256(data), len(data), "")
    ledger, store = Ledger.open(tmp_path / "ledger", lambda: 1_000), FolderStore(tmp_path / "blobs")
    try:
        scarce = Uploads(AsyncLedger(ledger), store, Pools(), Metrics(), reserve_bytes=MORE_THAN_A_DISK)
        with pytest.raises(OutOfSpace) as full:
            await scarce.upload(want, 0, _chunks(data))
        assert str(MORE_THAN_A_DISK) in full.value.why
        assert SETTING in full.value.hint
        assert not store.has(want.digest)
        roomy = Uploads(AsyncLedger(ledger), store, Pools(), Metrics())
        assert await roomy.upload(want, 0, _chunks(data)) == len(data)
    finally:
        ledger.close()


async def test_a_short_write_loses_no_byte_of_an_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that becomes full, and has space again a moment later, writes only a part of the buffer."""
    data, pwrite = bytes(range(256)) * 64, os.pwrite
    want = Want(sha256(data), len(data), "")
    ledger, store = Ledger.open(tmp_path / "ledger", lambda: 1_000), FolderStore(tmp_path / "blobs")
    monkeypatch.setattr(os, "pwrite", lambda file, view, at: pwrite(file, bytes(view)[:4096], at))
    try:
        uploads = Uploads(AsyncLedger(ledger), store, Pools(), Metrics())
        assert await uploads.upload(want, 0, _chunks(data)) == len(data)
        assert store.verify(want.digest)
    finally:
        ledger.close()


def test_an_import_that_would_use_the_reserve_is_refused_with_its_setting(tmp_path: Path) -> None:
    folder, into = tmp_path / "model", tmp_path / "into"
    folder.mkdir()
    into.mkdir()
    (folder / "weights.bin").write_bytes(b"weights")
    found = recognise_folder(folder, UpstreamRequest("org/name", "1f" * 20))
    with pytest.raises(OutOfSpace) as full:
        copy_folder(found, into, Silent(), reserve_bytes=MORE_THAN_A_DISK)
    assert str(MORE_THAN_A_DISK) in full.value.why
    assert SETTING in full.value.hint
