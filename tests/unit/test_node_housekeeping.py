"""Piece records outlive a short absence of their blob, and not a long one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from comity.content.blobs import BlobLock, FolderStore
from comity.ledger.ledger import Ledger
from comity.node import app
from comity.node.app import RECORD_RETENTION, Housekeeping
from comity.node.metrics import Metrics
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import Uploads
from comity.trust.artifact import FIXED_LAYOUT, PieceRecord, encode_records
from comity.trust.encoding import Digest, sha256
from comity.trust.tlog.note import VerifierKey
from support.logs import LogKeys

LOG = VerifierKey.parse(LogKeys.generate("own.example/log").vkey)
HERE, THERE = b"a blob that is here", b"one that was"


@dataclass
class Parts:
    """The parts of a node that hold blobs and their records."""

    store: FolderStore
    ledger: Ledger
    now: float = 1000.0

    def clock(self) -> float:
        return self.now

    def add(self, data: bytes) -> Digest:
        digest = sha256(data)
        self.store.put(digest, data)
        record = PieceRecord(len(data), bytes.fromhex(digest))
        self.ledger.pieces.store_records(digest, len(data), FIXED_LAYOUT, encode_records([record]))
        return digest

    def look(self, housekeeping: Housekeeping, after: float = 0.0) -> set[Digest]:
        """The blobs of which there are still records after another look."""
        self.now += after
        housekeeping.forget_records(digest for digest, _ in self.store.sizes())
        return self.ledger.pieces.blobs()


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    ledger = Ledger.open(tmp_path / "ledger", lambda: 1_000)
    yield Parts(FolderStore(tmp_path / "blobs"), ledger)
    ledger.close()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def housekeeping(parts: Parts, metrics: Metrics) -> Housekeeping:
    ledger, pools = AsyncLedger(parts.ledger), Pools()
    uploads = Uploads(ledger, parts.store, pools, metrics)
    return Housekeeping(ledger, parts.store, pools, metrics, parts.clock, uploads, LOG)


@pytest.mark.parametrize("how", ["removed", "put aside"])
def test_records_go_a_day_after_their_blob(parts: Parts, housekeeping: Housekeeping, how: str) -> None:
    here, there = parts.add(HERE), parts.add(THERE)
    assert parts.look(housekeeping, RECORD_RETENTION) == {here, there}
    if how == "removed":
        parts.store.remove(there)
    else:
        parts.store.quarantine(there, "for a test")
    assert parts.look(housekeeping) == {here, there}
    assert parts.look(housekeeping, RECORD_RETENTION - 1) == {here, there}
    assert parts.look(housekeeping, 1) == {here}
    assert parts.ledger.pieces.find_piece(bytes.fromhex(there)) == []


def test_a_blob_that_came_back_is_given_another_day(parts: Parts, housekeeping: Housekeeping) -> None:
    there = parts.add(THERE)
    parts.store.remove(there)
    parts.look(housekeeping)
    parts.store.put(there, THERE)
    parts.look(housekeeping, RECORD_RETENTION - 1)
    parts.store.remove(there)
    assert parts.look(housekeeping, 1) == {there}
    assert parts.look(housekeeping, RECORD_RETENTION - 1) == {there}
    assert parts.look(housekeeping, 1) == set()


def test_records_of_a_blob_that_is_coming_in_stay(parts: Parts, housekeeping: Housekeeping) -> None:
    there = parts.add(THERE)
    parts.store.remove(there)
    parts.look(housekeeping)
    with BlobLock(parts.store.partial_path(there).parent, there):
        assert parts.look(housekeeping, RECORD_RETENTION) == {there}
    parts.store.put(there, THERE)
    housekeeping.forget_records([])  # a listing from before it came
    assert parts.ledger.pieces.blobs() == {there}


async def test_the_store_is_measured_without_waiting_for_housekeeping(
    parts: Parts, housekeeping: Housekeeping, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured() -> float:
        value = metrics.registry.get_sample_value("comity_store_bytes")
        assert value is not None
        return value

    monkeypatch.setattr(app, "MEASURING_SHARE", float("inf"))
    assert math.isnan(measured()), "not counted yet is not an empty store"
    parts.add(HERE)
    await housekeeping.measure_store()
    assert measured() == len(HERE)
    parts.add(THERE)
    await housekeeping.measure_store()
    assert measured() == len(HERE) + len(THERE)


async def test_a_store_that_takes_long_to_list_is_measured_less_often(
    parts: Parts, housekeeping: Housekeeping, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MEASURING_SHARE", 1e-9)
    parts.add(HERE)
    await housekeeping.measure_store()
    parts.add(THERE)
    await housekeeping.measure_store()
    assert metrics.registry.get_sample_value("comity_store_bytes") == len(HERE)
