"""Piece records outlive a short absence of their blob, and not a long one."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from comity.content.blobs import BlobLock, FolderStore
from comity.ledger.ledger import Ledger
from comity.node import housekeeping as housekeeping_module
from comity.node.context import NodeContext
from comity.node.housekeeping import (
    PARTIAL_SECONDS,
    RECORD_RETENTION,
    STALE_SECONDS,
    Housekeeping,
    StoreCount,
    StoreListing,
)
from comity.node.members import Membership, OwnNode
from comity.node.metrics import Metrics
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import Uploads
from comity.rules.pieces import FIXED_LAYOUT, encode_records
from comity.trust.artifact import PieceRecord
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Unavailable
from support.world import node, seat

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

    def look(self, listing: StoreListing, after: float = 0.0) -> set[Digest]:
        """The blobs that still have records after one more pass."""
        self.now += after
        listing.step()
        return set(self.ledger.pieces.ordered_blobs())


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    ledger = Ledger.open(tmp_path / "ledger", lambda: 1_000)
    yield Parts(FolderStore(tmp_path / "blobs"), ledger)
    ledger.close()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def listing(parts: Parts) -> StoreListing:
    return StoreListing(parts.store, parts.ledger.pieces, parts.clock)


@pytest.fixture
def housekeeping(parts: Parts, metrics: Metrics, listing: StoreListing) -> Housekeeping:
    ledger, pools = AsyncLedger(parts.ledger), Pools()
    uploads = Uploads(ledger, parts.store, pools, metrics)
    own = seat("CH", ("ed25519",))
    membership = Membership(OwnNode.parse(own.entry.line, node(own).entry.line), None)
    context = NodeContext(ledger, parts.store, pools, membership, metrics, parts.clock)
    return Housekeeping(context, uploads, listing)


@pytest.mark.parametrize("how", ["removed", "put aside"])
def test_records_are_deleted_a_day_after_their_blob(parts: Parts, listing: StoreListing, how: str) -> None:
    here, there = parts.add(HERE), parts.add(THERE)
    assert parts.look(listing, RECORD_RETENTION) == {here, there}
    if how == "removed":
        parts.store.remove(there)
    else:
        parts.store.quarantine(there, "for a test")
    assert parts.look(listing) == {here, there}
    assert parts.look(listing, RECORD_RETENTION - 1) == {here, there}
    assert parts.look(listing, 1) == {here}
    assert parts.ledger.pieces.find_piece(bytes.fromhex(there)) == []


def test_a_restored_blob_keeps_its_records_for_another_day(parts: Parts, listing: StoreListing) -> None:
    there = parts.add(THERE)
    parts.store.remove(there)
    parts.look(listing)
    parts.store.put(there, THERE)
    parts.look(listing, RECORD_RETENTION - 1)
    parts.store.remove(there)
    assert parts.look(listing, 1) == {there}
    assert parts.look(listing, RECORD_RETENTION - 1) == {there}
    assert parts.look(listing, 1) == set()


def test_records_of_many_blobs_go_pass_by_pass(
    parts: Parts, listing: StoreListing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs a commit, and a caller that asks for the counts waits for the pass."""
    monkeypatch.setattr(housekeeping_module, "FORGOTTEN_AT_A_TIME", 2)
    for number in range(5):
        parts.store.remove(parts.add(b"%d" % number))
    parts.look(listing)
    assert [len(parts.look(listing, after)) for after in (RECORD_RETENTION, 0, 0)] == [3, 1, 0]


def test_records_of_an_arriving_blob_stay(parts: Parts, listing: StoreListing) -> None:
    there = parts.add(THERE)
    parts.store.remove(there)
    parts.look(listing)
    with BlobLock(parts.store.partial_path(there).parent, there):
        assert parts.look(listing, RECORD_RETENTION) == {there}
    parts.store.put(there, THERE)
    listing.forget_records([there])  # a listing from before it came
    assert set(parts.ledger.pieces.ordered_blobs()) == {there}


async def test_the_store_is_measured_without_waiting_for_housekeeping(
    parts: Parts, housekeeping: Housekeeping, metrics: Metrics
) -> None:
    def measured() -> float:
        value = metrics.registry.get_sample_value("comity_store_bytes")
        assert value is not None
        return value

    assert math.isnan(measured()), "not counted yet is not an empty store"
    parts.add(HERE)
    await housekeeping.measure_store()
    assert measured() == len(HERE)
    parts.add(THERE)
    await housekeeping.measure_store()
    assert measured() == len(HERE) + len(THERE)


def test_a_pass_over_many_blobs_is_made_in_steps_and_the_last_complete_one_counts(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping_module, "BLOBS_AT_A_TIME", 1)
    ticks = count()
    listing = StoreListing(parts.store, parts.ledger.pieces, parts.clock, lambda: next(ticks))
    parts.add(HERE)
    parts.add(THERE)
    listing.step(1)
    assert listing.counted is None
    while listing.counted is None:
        listing.step(1)
    both = StoreCount(2, len(HERE) + len(THERE))
    assert listing.counted == both
    parts.add(b"one more")
    assert listing.count() == both, "a pass takes seconds by this clock"
    for _ in range(4):
        listing.step(1)
    assert listing.count().blobs == 3


def test_a_small_store_is_counted_when_it_is_asked(parts: Parts, listing: StoreListing) -> None:
    assert listing.count().blobs == 0
    parts.add(HERE)
    assert listing.count() == StoreCount(1, len(HERE))


async def test_an_abandoned_copy_is_removed_from_the_disk(parts: Parts, housekeeping: Housekeeping) -> None:
    """A restart has forgotten it, and its artifact may no longer be wanted."""
    old, new, running = (parts.store.partial_path(sha256(name)) for name in (b"old", b"new", b"running"))
    before = time.time() - PARTIAL_SECONDS - 1
    for path in (old, new, running):
        path.write_bytes(b"some pieces")
    for path in (old, running):
        os.utime(path, (before, before))
    with BlobLock(running.parent, Digest(running.name)):
        await housekeeping._step()
    assert [path.exists() for path in (old, new, running)] == [False, True, True]


async def test_a_store_that_cannot_be_swept_keeps_nothing_else_on_the_disk(
    parts: Parts, housekeeping: Housekeeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(self: FolderStore) -> None:
        raise Unavailable("the blob store was not swept")

    upload = parts.store.partial_path(sha256(HERE)).with_suffix(".upload")
    upload.write_bytes(HERE)
    os.utime(upload, (time.time() - STALE_SECONDS - 1,) * 2)
    monkeypatch.setattr(FolderStore, "sweep", silent)
    with pytest.raises(Unavailable):
        await housekeeping._step()
    assert not upload.exists()


def test_the_size_of_a_log_is_shown_under_its_newest_title_and_is_never_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape runs in a thread of its own: it may read the gauge between any two steps."""
    metrics = Metrics()

    def shown() -> set[str]:
        family = next(family for family in metrics.registry.collect() if family.name == "comity_log_entries")
        return {sample.labels["origin"] for sample in family.samples}

    metrics.set_log_sizes({"a/log": 1, "b/log": 2})
    labels, seen = metrics.log_size.labels, list[set[str]]()

    def watched(title: str) -> object:
        seen.append(shown())
        return labels(title)

    monkeypatch.setattr(metrics.log_size, "labels", watched)
    metrics.set_log_sizes({"a/log": 3, "b/log+00c0ffee": 2})
    assert all("a/log" in titles for titles in seen) and len(seen) == 2
    assert shown() == {"a/log", "b/log+00c0ffee"}
