"""Work that reads whole files does not delay short work of a node."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.node.metrics import Metrics
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import Uploads, Want
from comity.trust.encoding import sha256
from comity.wire.access import CALL

UPLOADS = 20


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_many_large_uploads_that_are_hashed_delay_no_verification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, pools, go_on, hashing = Ledger.open(tmp_path, lambda: 0), Pools(), threading.Event(), threading.Semaphore(0)
    uploads = Uploads(AsyncLedger(ledger), FolderStore(tmp_path / "blobs"), pools, Metrics())
    hash_file = Uploads._hash

    def slow(self: Uploads, file: object, want: Want) -> None:
        hashing.release()
        go_on.wait()
        hash_file(self, file, want)  # type: ignore[arg-type]

    monkeypatch.setattr(Uploads, "_hash", slow)
    every = [b"upload %d" % number for number in range(UPLOADS)]
    sent = [asyncio.create_task(uploads.upload(Want(sha256(data), len(data)), 0, _chunks(data))) for data in every]
    try:
        for _ in range(4):
            await asyncio.to_thread(hashing.acquire)
        async with asyncio.timeout(60):
            assert await pools.hashing(sum, [1, 2]) == 3
            assert await pools.files(sum, [1, 2]) == 3
    finally:
        go_on.set()
        assert await asyncio.gather(*sent) == [len(data) for data in every]
        pools.close()
        ledger.close()


async def test_what_runs_in_a_thread_knows_of_which_call_it_is_a_part() -> None:
    """So that the events which it logs name the call."""
    pools = Pools()
    try:
        assert await pools.files(CALL.get, "no call") == "no call"
        CALL.set("this call")
        assert await pools.files(CALL.get, "no call") == "this call"
        CALL.set("the next call")
        assert await pools.hashing(CALL.get, "no call") == "the next call"
    finally:
        pools.close()
