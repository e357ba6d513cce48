"""The promises of `content/blobs.py`, tested with every blob store."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from comity.content.blobs import MAX_READ, BlobStore, FolderStore
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, NotFound, Untrusted
from support.s3 import S3Account

MIB = 1024 * 1024
DATA = random.Random(1).randbytes(3 * MIB + 17)
DIGEST = sha256(DATA)


@pytest.fixture(
    params=[
        "folder",
        pytest.param("ceph_s3", marks=[pytest.mark.ceph, pytest.mark.slow]),
        pytest.param("seaweed_s3", marks=[pytest.mark.seaweed, pytest.mark.slow]),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    account: S3Account = request.getfixturevalue(request.param)
    return account.store(tmp_path / "store")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(DATA)
    return path


def test_a_stored_blob_is_read_back(store: BlobStore) -> None:
    assert not store.has(DIGEST)
    store.put(DIGEST, DATA)
    assert store.has(DIGEST)
    assert store.size(DIGEST) == len(DATA)
    assert store.read(DIGEST, 0, MAX_READ) == DATA
    assert store.verify(DIGEST)


def test_storing_twice_is_storing_once(store: BlobStore) -> None:
    store.put(DIGEST, DATA)
    store.put(DIGEST, DATA)
    assert list(store.sizes()) == [(DIGEST, len(DATA))]


def test_several_objects_are_stored_together_and_existing_ones_stay(store: BlobStore) -> None:
    objects = {sha256(data): data for data in (b"", b"one", b"two", DATA)}
    store.put(sha256(b"one"), b"one")
    for _ in range(2):
        store.put_all(objects)
        assert dict(store.sizes()) == {digest: len(data) for digest, data in objects.items()}
    assert all(store.verify(digest) for digest in objects)
    store.put_all({})


def test_objects_stored_together_are_all_checked_before_one_is_stored(store: BlobStore) -> None:
    with pytest.raises(Untrusted):
        store.put_all({sha256(b"one"): b"one", DIGEST: DATA + b"!"})
    assert list(store.sizes()) == []


def test_bytes_under_another_blobs_name_are_refused(store: BlobStore) -> None:
    with pytest.raises(Untrusted):
        store.put(DIGEST, DATA + b"!")
    assert not store.has(DIGEST)


def test_the_empty_blob_is_a_blob(store: BlobStore) -> None:
    empty = sha256(b"")
    store.put(empty, b"")
    assert store.has(empty)
    assert store.size(empty) == 0
    assert store.read(empty, 0, 10) == b""
    assert list(store.iterate(empty, 0, 10)) == []
    assert store.verify(empty)


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 0), (0, 1), (1, 2 * MIB), (3 * MIB, 17), (3 * MIB, 18), (len(DATA), 5), (1 << 40, 5)]
)
def test_a_range_is_that_part_and_short_only_at_the_end(store: BlobStore, offset: int, length: int) -> None:
    store.put(DIGEST, DATA)
    assert store.read(DIGEST, offset, length) == DATA[offset : offset + length]
    assert b"".join(store.iterate(DIGEST, offset, length)) == DATA[offset : offset + length]


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, -1), (0, MAX_READ + 1)])
def test_a_range_out_of_bounds_is_refused(store: BlobStore, offset: int, length: int) -> None:
    store.put(DIGEST, DATA)
    with pytest.raises(Malformed):
        store.read(DIGEST, offset, length)


def test_iteration_keeps_to_the_chunk_size(store: BlobStore) -> None:
    store.put(DIGEST, DATA)
    chunks = list(store.iterate(DIGEST, 5, 1000, chunk=300))
    assert [len(chunk) for chunk in chunks] == [300, 300, 300, 100]
    assert b"".join(chunks) == DATA[5:1005]


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.size(DIGEST),
        lambda store: store.read(DIGEST, 0, 1),
        lambda store: store.iterate(DIGEST, 0, 1),
        lambda store: store.verify(DIGEST),
    ],
    ids=["size", "read", "iterate", "verify"],
)
def test_a_blob_that_is_not_here_is_not_found(store: BlobStore, ask: Callable[[BlobStore], object]) -> None:
    with pytest.raises(NotFound):
        ask(store)


@pytest.mark.parametrize(
    "name", ["", "../../../etc/passwd", "ab/" + "0" * 61, DIGEST.upper(), DIGEST[:-1], DIGEST + "\n"]
)
@pytest.mark.parametrize(
    "ask",
    [
        lambda store, name: store.has(name),
        lambda store, name: store.size(name),
        lambda store, name: store.read(name, 0, 1),
        lambda store, name: store.iterate(name, 0, 1),
        lambda store, name: store.put(name, b""),
        lambda store, name: store.admit(Path("anything"), name, 0),
        lambda store, name: store.partial_path(name),
        lambda store, name: store.quarantine(name, "because"),
        lambda store, name: store.remove(name),
        lambda store, name: store.verify(name),
    ],
    ids=["has", "size", "read", "iterate", "put", "admit", "partial_path", "quarantine", "remove", "verify"],
)
def test_a_name_that_is_no_digest_never_becomes_a_path(
    store: BlobStore, name: str, ask: Callable[[BlobStore, str], object]
) -> None:
    with pytest.raises(Malformed):
        ask(store, name)


def test_an_admitted_file_is_consumed(store: BlobStore, local: Path) -> None:
    store.admit(local, DIGEST, len(DATA))
    assert store.verify(DIGEST)
    assert not local.exists()


def test_an_admitted_link_leaves_the_source(store: BlobStore, local: Path) -> None:
    store.admit(local, DIGEST, len(DATA), link=True)
    assert store.verify(DIGEST)
    assert local.read_bytes() == DATA


def test_a_file_admitted_again_is_consumed_all_the_same(store: BlobStore, local: Path) -> None:
    store.put(DIGEST, DATA)
    store.admit(local, DIGEST, len(DATA))
    assert not local.exists()
    assert store.verify(DIGEST)


def test_a_file_of_another_size_than_was_verified_is_refused(store: BlobStore, local: Path) -> None:
    with pytest.raises(Untrusted):
        store.admit(local, DIGEST, len(DATA) - 1)
    assert not store.has(DIGEST)
    assert local.exists()


def test_a_symbolic_link_is_not_admitted(store: BlobStore, local: Path) -> None:
    link = local.with_name("link")
    link.symlink_to(local)
    with pytest.raises(Untrusted):
        store.admit(link, DIGEST, len(DATA))
    assert not store.has(DIGEST)


def test_scratch_is_one_place_that_can_be_written_resumed_and_admitted(store: BlobStore) -> None:
    store.partial_path(DIGEST).write_bytes(DATA[:MIB])
    with store.partial_path(DIGEST).open("ab") as partial:
        partial.write(DATA[MIB:])
    assert not store.has(DIGEST)
    store.admit(store.partial_path(DIGEST), DIGEST, len(DATA))
    assert store.verify(DIGEST)
    assert not store.partial_path(DIGEST).exists()


def test_a_quarantined_blob_is_absent_until_it_is_stored_again(store: BlobStore) -> None:
    store.put(DIGEST, DATA)
    store.quarantine(DIGEST, "scrub: bytes differ")
    assert not store.has(DIGEST)
    assert list(store.sizes()) == []
    store.put(DIGEST, DATA)
    assert store.verify(DIGEST)
    assert store.quarantined() == 1
    store.quarantine(DIGEST, "scrub: again")
    assert not store.has(DIGEST)
    assert store.quarantined() == 2


def test_quarantine_of_a_missing_blob_does_nothing(store: BlobStore) -> None:
    store.quarantine(DIGEST, "somebody else was faster")
    assert not store.has(DIGEST)
    assert store.quarantined() == 0


def test_a_removed_blob_is_gone_and_removing_it_again_does_nothing(store: BlobStore) -> None:
    store.put(DIGEST, DATA)
    store.remove(DIGEST)
    store.remove(DIGEST)
    assert not store.has(DIGEST)
    assert list(store.sizes()) == []


def test_all_blobs_are_listed_with_their_sizes_and_scratch_is_not(store: BlobStore) -> None:
    blobs = {sha256(data): data for data in (b"one", b"two", b"three", b"")}
    for digest, data in blobs.items():
        store.put(digest, data)
    store.partial_path(DIGEST).write_bytes(b"partial")
    ordered = sorted((digest, len(data)) for digest, data in blobs.items())
    assert list(store.sizes()) == ordered
    for at, (digest, _) in enumerate(ordered, 1):
        assert list(store.sizes(digest)) == ordered[at:]


def test_sweeping_touches_neither_blobs_nor_scratch(store: BlobStore) -> None:
    store.put(DIGEST, DATA)
    store.partial_path(sha256(b"other")).write_bytes(b"oth")
    store.sweep()
    assert store.verify(DIGEST)
    assert store.partial_path(sha256(b"other")).read_bytes() == b"oth"


def test_writers_of_one_blob_do_not_disturb_each_other_or_a_reader(store: BlobStore) -> None:
    wrong: list[bytes | BaseException] = []

    def write() -> None:
        try:
            store.put(DIGEST, DATA)
        except BaseException as error:
            wrong.append(error)

    def read() -> None:
        for _ in range(20):
            try:
                if (data := store.read(DIGEST, MIB, 1000)) != DATA[MIB : MIB + 1000]:
                    wrong.append(data)
            except NotFound:
                continue

    threads = [threading.Thread(target=work) for work in (write, write, write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert store.verify(DIGEST)


def test_a_file_of_many_parts_survives_the_round_trip(store: BlobStore, tmp_path: Path) -> None:
    path, hasher = tmp_path / "big", hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(41):
            hasher.update(part := os.urandom(MIB + 1))
            file.write(part)
    digest, size = Digest(hasher.hexdigest()), path.stat().st_size
    store.admit(path, digest, size)
    assert store.size(digest) == size
    assert hashlib.sha256(b"".join(store.iterate(digest, 0, size))).hexdigest() == digest


def test_free_space_is_a_number_or_unknown(store: BlobStore) -> None:
    free = store.free_bytes()
    assert free is None or free > 0


def test_withheld_blobs_are_not_served_and_are_restored_whole(store: BlobStore) -> None:
    artifact, another = sha256(b"an artifact"), sha256(b"another artifact")
    store.put(DIGEST, DATA)
    store.put(sha256(b"kept"), b"kept")
    aside = store.withheld()
    assert aside.artifacts() == []
    assert aside.take(artifact, DIGEST) == len(DATA)
    assert aside.take(another, sha256(b"kept")) == 4
    assert aside.take(artifact, sha256(b"never stored")) == 0
    assert not store.has(DIGEST)
    assert list(store.sizes()) == []
    with pytest.raises(NotFound):
        store.read(DIGEST, 0, 10)
    assert aside.artifacts() == sorted([artifact, another])
    assert b"".join(aside.read(artifact, DIGEST, 5, 2 * MIB)) == DATA[5 : 5 + 2 * MIB]
    with pytest.raises(NotFound):
        aside.read(another, DIGEST, 0, 1)
    aside.give_back(artifact)
    assert store.verify(DIGEST)
    aside.erase(another)
    aside.erase(another)
    assert store.withheld().artifacts() == []
    assert not store.has(sha256(b"kept"))
