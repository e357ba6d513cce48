"""A byte that changed on the disk is detected before it is sent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from comity.content.blobs import BlobStore, FolderStore
from comity.gateway.fileserver import verified as checked_module
from comity.gateway.fileserver.verified import (
    RECHECK,
    REMOTE_PIECES,
    TIMESTAMP_GRANULARITY,
    BlobReader,
    FilePart,
    VerifiedBlobs,
    chunks,
)
from comity.trust.artifact import PIECE_SIZE, RECORD_BYTES
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, Unavailable
from support.blob_site import BlobSite, blob_site, records_of

SIZE = 2 * PIECE_SIZE + 1000


@pytest.fixture
def site(tmp_path: Path) -> BlobSite:
    return blob_site(tmp_path)


def read(verified: VerifiedBlobs, digest: Digest, offset: int = 0, length: int = SIZE) -> bytes:
    return b"".join(verified.read(digest, offset, length))


def left(chunks: Iterator[bytes]) -> tuple[bytes, str]:
    """The bytes that were sent, and the code of the error that ended them."""
    got = bytearray()
    try:
        for chunk in chunks:
            got += chunk
    except Unavailable as error:
        return bytes(got), error.code
    return bytes(got), ""


def test_a_blob_is_served_unchanged(site: BlobSite) -> None:
    digest, data = site.add(SIZE)
    assert read(site.verified, digest) == data
    assert read(site.verified, digest, PIECE_SIZE - 5, 10) == data[PIECE_SIZE - 5 : PIECE_SIZE + 5]
    assert read(site.verified, digest, SIZE, 0) == b""


def test_no_byte_of_a_damaged_piece_is_sent(site: BlobSite) -> None:
    digest, data = site.add(SIZE)
    site.flip(digest, PIECE_SIZE + 77)
    assert left(site.verified.read(digest, 0, SIZE)) == (data[:PIECE_SIZE], "BLOB-DAMAGED")
    assert site.damaged == [digest]
    assert not site.store.has(digest)
    assert site.store.quarantined() == 1


def test_damage_is_caught_after_the_blob_was_proven(site: BlobSite) -> None:
    digest, _ = site.add(SIZE)
    read(site.verified, digest)
    site.flip(digest, 0)
    assert left(site.verified.read(digest, 0, SIZE)) == (b"", "BLOB-DAMAGED")


def test_damage_under_an_old_modification_time_is_caught(site: BlobSite) -> None:
    digest, _ = site.add(SIZE)
    read(site.verified, digest)
    site.flip_unseen(digest, 0)
    assert left(site.verified.read(digest, 0, 10)) == (b"", "BLOB-DAMAGED")


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize("size", [1, PIECE_SIZE, PIECE_SIZE + 1, SIZE])
def test_any_blob_is_verified_with_and_without_piece_records(site: BlobSite, size: int, cut: bool) -> None:
    digest, data = site.add(size, cut=cut)
    assert read(site.verified, digest, 0, size) == data
    site.flip(digest, size - 1)
    out, code = left(site.fresh().read(digest, 0, size))
    assert code == "BLOB-DAMAGED"
    assert data.startswith(out) and len(out) < size


def test_without_records_the_whole_blob_is_hashed_before_its_first_byte(site: BlobSite) -> None:
    digest, _ = site.add(SIZE, cut=False)
    site.flip(digest, SIZE - 1)
    assert left(site.verified.read(digest, 0, 1)) == (b"", "BLOB-DAMAGED")


def test_without_records_the_whole_blob_is_hashed_once_and_not_again_after_a_restart(site: BlobSite) -> None:
    digest, data = site.add(SIZE, cut=False)
    assert next(site.verified.read(digest, 0, SIZE))
    assert site.hashed == {"whole": SIZE}
    assert site.records.known[digest] == records_of(data)
    site.hashed.clear()
    restarted = site.fresh()
    first = next(restarted.read(digest, 0, SIZE))
    assert site.hashed == {"piece": PIECE_SIZE}
    assert data.startswith(first)
    assert read(restarted, digest) == data
    assert site.hashed == {"piece": SIZE}


def test_a_blob_that_has_not_its_hash_leaves_no_records(site: BlobSite) -> None:
    digest, _ = site.add(SIZE, cut=False)
    site.flip(digest, SIZE - 1)
    assert left(site.verified.read(digest, 0, 1)) == (b"", "BLOB-DAMAGED")
    assert site.records.known == {}


@pytest.mark.parametrize("at", [0, PIECE_SIZE + 77, SIZE - 1])
def test_records_from_before_a_restart_catch_a_byte_that_changed_since(site: BlobSite, at: int) -> None:
    digest, data = site.add(SIZE, cut=False)
    read(site.verified, digest)
    site.flip_unseen(digest, at)
    out, code = left(site.fresh().read(digest, 0, SIZE))
    assert (out, code) == (data[: at // PIECE_SIZE * PIECE_SIZE], "BLOB-DAMAGED")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda records: b"",
        lambda records: records[:-1],
        lambda records: records[:-RECORD_BYTES],
        lambda records: records + records[-RECORD_BYTES:],
        lambda records: records[RECORD_BYTES:] + records[:RECORD_BYTES],
        lambda records: bytes(len(records)),
        lambda records: b"\xff" * len(records),
        lambda records: bytes([records[0] ^ 1]) + records[1:],
        lambda records: records[:-1] + bytes([records[-1] ^ 1]),
        lambda records: records_of(bytes(SIZE)),
    ],
    ids=["nothing", "torn", "short", "long", "turned", "zeros", "ones", "length", "hash", "foreign"],
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_wrong_records_cause_an_error_and_never_a_wrong_byte(
    site: BlobSite, remote: Remote, wrong: Callable[[bytes], bytes], elsewhere: bool
) -> None:
    digest, data = site.add(SIZE)
    site.records.known[digest] = wrong(site.records.known[digest])
    verified = opened(site, remote) if elsewhere else site.verified
    out, code = left(verified.read(digest, 0, SIZE))
    assert code == "BLOB-DAMAGED"
    assert data.startswith(out)


@pytest.mark.parametrize("length", [0, 5, SIZE - 1, SIZE + 1])
def test_a_blob_of_another_length_is_damaged(site: BlobSite, length: int) -> None:
    digest, _ = site.add(SIZE)
    path = site.store.path(digest)
    path.chmod(0o644)
    os.truncate(path, length)
    assert left(site.verified.read(digest, 0, min(1, length)))[1] == "BLOB-DAMAGED"


def test_an_empty_blob_is_served(site: BlobSite) -> None:
    site.store.put(sha256(b""), b"")
    assert read(site.verified, sha256(b""), 0, 0) == b""


def test_a_proven_blob_is_not_hashed_again(site: BlobSite) -> None:
    digest, data = site.add(SIZE)
    read(site.verified, digest)
    assert read(site.verified, digest) == data
    assert site.records.asked == [digest]
    assert site.hashed == {"piece": SIZE}


def test_a_verified_blob_is_sent_in_long_parts(site: BlobSite) -> None:
    digest, _ = site.add(SIZE)
    read(site.verified, digest)
    with site.verified.blob(digest, BlobReader()) as blob:
        parts = list(blob.parts(0, SIZE))
    assert [(part.offset, part.length) for part in parts if isinstance(part, FilePart)] == [
        (0, 2 * PIECE_SIZE),
        (2 * PIECE_SIZE, 1000),
    ]


def test_a_file_that_may_have_changed_within_one_clock_tick_is_not_taken_as_verified(site: BlobSite) -> None:
    digest, _ = site.add(SIZE)
    now = site.store.path(digest).stat().st_ctime
    passed = 0.0
    verified = site.opened(site.store, now=lambda: passed, wall=lambda: now + passed)
    for _ in range(2):
        read(verified, digest)
    proof = verified.proofs.of(digest, _identity(site, digest))
    assert not proof.whole and not any(proof.proven)
    passed = TIMESTAMP_GRANULARITY
    read(verified, digest)
    assert proof.whole


def test_a_proof_is_forgotten_after_a_day(site: BlobSite) -> None:
    digest, _ = site.add(SIZE)
    passed = 0.0
    verified = site.opened(site.store, now=lambda: passed, wall=lambda: 1e11)
    read(verified, digest)
    passed = RECHECK + 1
    assert not verified.proofs.of(digest, _identity(site, digest)).whole


def test_a_blob_moved_aside_while_it_is_read_cuts_the_reader_off(site: BlobSite) -> None:
    digest, data = site.add(SIZE)
    with site.verified.blob(digest, BlobReader()) as blob:
        parts = blob.parts(0, SIZE)
        next(parts)
        site.store.quarantine(digest, "for a test")
        with pytest.raises(Unavailable) as refused:
            next(parts)
    assert refused.value.code == "BLOB-CHANGED"
    assert data


def another_name(site: BlobSite, digest: Digest) -> Path:
    """A second name of a blob, as the folder of an import has until its end."""
    name = site.store.path(digest).parent / "other"
    name.hardlink_to(site.store.path(digest))
    return name


@pytest.mark.parametrize("proven", [True, False])
def test_a_blob_that_loses_another_name_while_it_is_read_is_read_to_its_end(site: BlobSite, proven: bool) -> None:
    digest, data = site.add(SIZE)
    name = another_name(site, digest)
    if proven:
        read(site.verified, digest)
    with site.verified.blob(digest, BlobReader()) as blob:
        parts = blob.parts(0, SIZE)
        got = b"".join(chunks(next(parts)))
        site.hashed.clear()
        name.unlink()
        got += b"".join(chunk for part in parts for chunk in chunks(part))
    assert got == data
    assert site.hashed == {"piece": SIZE}, "pieces that were sent before are verified again"


@pytest.mark.parametrize("proven", [True, False])
def test_a_byte_changed_through_another_name_of_the_file_cuts_the_reader_off(site: BlobSite, proven: bool) -> None:
    digest, _ = site.add(SIZE)
    name = another_name(site, digest)
    if proven:
        read(site.verified, digest)
    with site.verified.blob(digest, BlobReader()) as blob:
        parts = blob.parts(0, SIZE)
        next(parts)
        site.flip_unseen(digest, 7)
        name.unlink()
        with pytest.raises(Unavailable) as refused:
            next(parts)
    assert refused.value.code == "BLOB-DAMAGED"
    assert site.damaged == [digest]


def test_a_byte_that_changes_while_it_is_read_cuts_the_reader_off(site: BlobSite) -> None:
    digest, _ = site.add(SIZE)
    with site.verified.blob(digest, BlobReader()) as blob:
        parts = blob.parts(0, SIZE)
        next(parts)
        site.flip(digest, SIZE - 1)
        os.utime(site.store.path(digest), ns=(0, 0))  # it may have been written within a tick of the clock before
        with pytest.raises(Unavailable) as refused:
            next(parts)
    assert refused.value.code == "BLOB-CHANGED"


def test_a_missing_blob_is_not_found(site: BlobSite) -> None:
    with pytest.raises(NotFound):
        read(site.verified, sha256(b"elsewhere"), 0, 1)


def test_a_link_in_place_of_a_blob_is_not_followed(site: BlobSite, tmp_path: Path) -> None:
    digest, data = site.add(100)
    path, other = site.store.path(digest), tmp_path / "other"
    path.rename(other)
    path.symlink_to(other)
    with pytest.raises(Unavailable):
        read(site.verified, digest, 0, len(data))


class Remote:
    """A store that gives only the bytes, not the files, as a service does. Its next `glitches` answers to a read are
    wrong.
    """

    def __init__(self, store: FolderStore) -> None:
        self.glitches = 0
        self.size, self.quarantine, self._store = store.size, store.quarantine, store

    def read(self, digest: Digest, offset: int, length: int) -> bytes:
        data = self._store.read(digest, offset, length)
        self.glitches -= 1
        return bytes(len(data)) if self.glitches >= 0 else data


@pytest.fixture
def remote(site: BlobSite) -> Remote:
    return Remote(site.store)


def opened(site: BlobSite, remote: Remote) -> VerifiedBlobs:
    return site.opened(cast(BlobStore, remote))


@pytest.mark.parametrize("cut", [True, False])
def test_the_blobs_of_a_service_are_verified_piece_by_piece(site: BlobSite, remote: Remote, cut: bool) -> None:
    digest, data = site.add(SIZE, cut=cut)
    verified = opened(site, remote)
    assert read(verified, digest) == data
    assert read(verified, digest, PIECE_SIZE - 5, 10) == data[PIECE_SIZE - 5 : PIECE_SIZE + 5]
    site.flip(digest, PIECE_SIZE + 1)
    assert left(verified.read(digest, 0, SIZE)) == (data[:PIECE_SIZE], "BLOB-DAMAGED")
    assert site.damaged == [digest] and site.store.quarantined() == 1


def test_a_service_that_errs_once_is_asked_again_before_its_blob_is_blamed(site: BlobSite, remote: Remote) -> None:
    digest, data = site.add(SIZE)
    remote.glitches = 1
    assert read(opened(site, remote), digest) == data
    assert site.damaged == []


def test_no_more_pieces_of_a_service_are_in_memory_than_are_allowed(
    site: BlobSite, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked_module, "PATIENCE", 0.01)
    digest, data = site.add(SIZE)
    verified = opened(site, remote)
    with contextlib.ExitStack() as opened_blobs:
        readers = [BlobReader("192.0.2.0/24") for _ in range(REMOTE_PIECES)]
        held = [opened_blobs.enter_context(verified.blob(digest, reader)).parts(0, SIZE) for reader in readers]
        for parts in held:
            next(parts)
        another = BlobReader("192.0.2.0/24")
        with verified.blob(digest, another) as blob, pytest.raises(Unavailable) as refused:
            next(blob.parts(0, 1))
        assert refused.value.code == "BUSY"
        assert left(verified.read(digest, 0, SIZE)) == (data, ""), "no thread of the gateway waits"
        held.pop().close()  # type: ignore[attr-defined]  # a generator
        with verified.blob(digest, another) as blob:
            assert b"".join(chunks(next(blob.parts(0, 1)))) == data[:1]
        for parts in held:
            parts.close()  # type: ignore[attr-defined]  # a generator


def test_readers_of_one_address_block_that_hold_all_memory_lose_some_to_another_block(
    site: BlobSite, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checked_module, "PATIENCE", 0.01)
    digest, data = site.add(SIZE)
    verified, ended = opened(site, remote), list[int]()
    readers = [BlobReader("192.0.2.0/24", partial(ended.append, number)) for number in range(REMOTE_PIECES)]
    with contextlib.ExitStack() as opened_blobs:
        held = [opened_blobs.enter_context(verified.blob(digest, reader)).parts(0, SIZE) for reader in readers]
        for parts in held:
            next(parts)
        verified.memory.progress(readers[0])
        for _ in range(3):
            with verified.blob(digest, BlobReader("198.51.100.0/24")) as blob:
                assert b"".join(chunks(next(blob.parts(0, 1)))) == data[:1]
        assert ended == [1], "the one that took nothing for longest, once: its place is free then"
        for parts in held:
            parts.close()  # type: ignore[attr-defined]  # a generator


def _identity(site: BlobSite, digest: Digest) -> tuple[int, int, int, int, int]:
    found = site.store.path(digest).stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def test_a_process_that_does_not_own_the_store_reports_damage_and_moves_nothing(site: BlobSite) -> None:
    digest, _ = site.add(SIZE)
    site.flip(digest, 77)
    told: list[Digest] = []
    verified = VerifiedBlobs(site.store, site.records, lambda blob, why: told.append(blob), quarantines=False)
    assert left(verified.read(digest, 0, SIZE)) == (b"", "BLOB-DAMAGED")
    assert told == [digest]
    assert site.store.has(digest) and site.store.quarantined() == 0
