"""The scrub reads the store again, slowly, in rounds; damaged blobs are moved aside."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from comity.content.blobs import FolderStore
from comity.hashing import ENGINE
from comity.node.metrics import Metrics
from comity.node.scrub import PASS_SECONDS, Scrub, ScrubProgress
from comity.node.settings import Storage
from comity.node.threads import Pools
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import OutOfSpace

MIB = 1 << 20


@dataclass
class Parts:
    """The parts of a node that the scrub uses."""

    settings: Storage
    store: FolderStore
    metrics: Metrics = field(default_factory=Metrics)
    now: float = 1000.0
    lost: int = 0

    def clock(self) -> float:
        return self.now

    def scrub(self) -> Scrub:
        def damaged() -> None:
            self.lost += 1

        return Scrub(self.settings, self.store, Pools(), self.clock, self.metrics, damaged)

    def failures(self, reason: str) -> float:
        return self.metrics.registry.get_sample_value("comity_verify_failures_total", {"reason": reason}) or 0.0


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    storage = Storage(blobs=tmp_path / "blobs", ledger=tmp_path / "ledger.sqlite")
    return Parts(storage, FolderStore(storage.blobs))


def add(parts: Parts, *sizes: int) -> list[Digest]:
    digests = []
    for size in sizes:
        data = random.Random(size).randbytes(size)
        parts.store.put(sha256(data), data)
        digests.append(sha256(data))
    return sorted(digests)


def rot(parts: Parts, digest: Digest) -> None:
    path = parts.store.path(digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def kept(parts: Parts) -> ScrubProgress:
    return ScrubProgress.load(parts.settings.ledger.with_name("scrub.json"), -1.0)


def test_a_damaged_blob_is_moved_aside_and_the_others_stay(parts: Parts) -> None:
    digests = add(parts, MIB, 2 * MIB, 3)
    rot(parts, digests[1])
    parts.scrub().read(100 * MIB)
    assert [parts.store.has(digest) for digest in digests] == [True, False, True]
    assert parts.store.quarantined() == 1
    assert parts.failures("blob") == 1


def test_a_step_reads_about_its_budget_and_the_next_one_continues(parts: Parts) -> None:
    digests = add(parts, *(MIB + n for n in range(6)))
    rot(parts, digests[-1])
    scrub = parts.scrub()
    for _ in range(3):
        scrub.read(MIB)
        assert parts.store.has(digests[-1])
    for _ in range(6):
        scrub.read(2 * MIB)
    assert not parts.store.has(digests[-1])


def test_a_restart_continues_after_the_last_blob_that_was_read(parts: Parts) -> None:
    digests = add(parts, *(MIB + n for n in range(4)))
    parts.scrub().read(2 * MIB + 10)
    after = kept(parts).after
    assert after in digests[:-1]
    rot(parts, digests[0])
    parts.scrub().read(100 * MIB)
    assert parts.store.has(digests[0]), "its turn was before the restart"
    assert kept(parts).over


def test_rounds_are_a_day_apart_at_least(parts: Parts) -> None:
    (digest,) = add(parts, MIB)
    scrub = parts.scrub()
    scrub.read(10 * MIB)
    assert kept(parts) == ScrubProgress(1000.0, over=True, whole=1000.0)
    rot(parts, digest)
    parts.now += PASS_SECONDS - 1
    scrub.read(10 * MIB)
    assert parts.store.has(digest)
    parts.now += 1
    scrub.read(10 * MIB)
    assert not parts.store.has(digest)
    assert kept(parts).whole == parts.now


def test_a_clock_that_was_ahead_stops_no_scrub_and_falsifies_no_age(parts: Parts) -> None:
    (digest,) = add(parts, MIB)
    right, parts.now = parts.now, parts.now + 1000 * PASS_SECONDS
    parts.scrub().read(10 * MIB)
    rot(parts, digest)
    parts.now = right
    scrub = parts.scrub()
    assert (scrub.age(), scrub.status().whole) == (0, None), "the start of that pass is unknown"
    scrub.read(10 * MIB)
    parts.now += PASS_SECONDS
    assert scrub.age() == PASS_SECONDS
    scrub.read(10 * MIB)
    assert not parts.store.has(digest)


def test_a_blob_that_is_removed_meanwhile_is_no_damage(parts: Parts) -> None:
    first, second = add(parts, MIB, MIB + 1)
    scrub = parts.scrub()
    scrub.read(1)
    parts.store.remove(second)
    parts.store.remove(first)
    scrub.read(10 * MIB)
    assert parts.failures("blob") == 0
    assert kept(parts).over


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"begun": "x"}', b'{"begun": 1}', b"\xff"])
def test_invalid_progress_starts_a_new_pass(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "scrub.json"
    file.write_bytes(content)
    assert ScrubProgress.load(file, 7.0) == ScrubProgress(7.0)


def test_progress_reads_back(tmp_path: Path) -> None:
    progress = ScrubProgress(1.5, over=True, after="ab", whole=0.5)
    progress.save(tmp_path / "scrub.json")
    assert ScrubProgress.load(tmp_path / "scrub.json", 0.0) == progress


async def test_nothing_is_read_outside_of_the_hours(parts: Parts) -> None:
    (blob,) = add(parts, MIB)
    rot(parts, blob)
    parts.settings = parts.settings.model_copy(update={"scrub_hours": "22-6"})
    scrub = parts.scrub()
    for hour, read in ((6, False), (21, False), (22, True)):
        parts.now = hour * 3600.0
        await scrub._step()
        assert (not parts.store.has(blob)) == read


@pytest.mark.parametrize("hours", ["22", "22-24", "6-6", "-1-3", "a-b", "1-2-3"])
def test_invalid_hours_are_refused(hours: str) -> None:
    with pytest.raises(ValueError, match="two hours"):
        Storage(scrub_hours=hours)


def test_the_status_shows_the_progress_and_the_time_of_the_last_complete_pass(parts: Parts) -> None:
    digests = add(parts, *range(1000, 1040))
    scrub = parts.scrub()
    assert (scrub.status().per_mille, scrub.status().whole) == (0, None)
    scrub.read(1)  # the first blob, which is read to its end
    scrub.read(1)
    assert scrub.status().per_mille == int(digests[0][:8], 16) * 1000 >> 32
    scrub.read(100 * MIB)
    assert (scrub.status().per_mille, scrub.status().whole) == (1000, 1000)


def test_the_states_of_undamaged_blobs_of_several_pieces_are_passed_on(parts: Parts) -> None:
    if ENGINE is None:
        pytest.skip("needs libcrypto.so.3 (OpenSSL 3)")
    small, large, bad = add(parts, MIB), add(parts, 9 * MIB + 1), add(parts, 10 * MIB)
    rot(parts, bad[0])
    kept: dict[Digest, tuple[int, int]] = {}

    def keep(digest: Digest, size: int, states: Sequence[bytes]) -> None:
        kept[digest] = (size, len(states))

    Scrub(parts.settings, parts.store, Pools(), parts.clock, parts.metrics, lambda: None, keep).read(100 * MIB)
    assert kept == {large[0]: (9 * MIB + 1, 2)}
    assert not parts.store.has(bad[0]) and parts.store.has(small[0])


def test_states_that_cannot_be_stored_stop_no_pass(parts: Parts) -> None:
    if ENGINE is None:
        pytest.skip("needs libcrypto.so.3 (OpenSSL 3)")
    digests = [*add(parts, 5 * MIB), *add(parts, 6 * MIB)]

    def full(digest: Digest, size: int, states: Sequence[bytes]) -> None:
        raise OutOfSpace("the ledger's disk is full")

    Scrub(parts.settings, parts.store, Pools(), parts.clock, parts.metrics, lambda: None, full).read(100 * MIB)
    assert all(parts.store.has(digest) for digest in digests)
