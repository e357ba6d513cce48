"""Blobs copied from one store into another: each once, whole, and known again after an interruption."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from comity.content.blobs import BlobStore, FolderStore
from comity.content.store_copy import CopiedBlobs, CopiedList, compare_stores, copy_blobs, copy_withheld
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Unavailable

BLOBS = {sha256(data): data for data in (b"", b"one", b"two", b"x" * 3_000_000)}
LARGE = sha256(b"x" * 3_000_000)


class FarStore:
    """A store that is no folder for its callers, as a bucket is."""

    def __init__(self, root: Path) -> None:
        self._store = FolderStore(root)
        self.left = 1 << 40
        """Bytes until it interrupts an answer."""
        self.read: list[int] = []
        """Where answers began."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def iterate(self, digest: Digest, offset: int, length: int) -> Iterator[bytes]:
        self.read.append(offset)
        for chunk in self._store.iterate(digest, offset, length):
            self.left -= len(chunk)
            if self.left < 0:
                raise Unavailable("the service interrupted its answer", code="S3")
            yield chunk


@pytest.fixture(name="source")
def _source(tmp_path: Path) -> FolderStore:
    store = FolderStore(tmp_path / "source")
    store.put_all(BLOBS)
    return store


@pytest.fixture(name="target")
def _target(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "target")


def copied(source: BlobStore, target: FolderStore) -> CopiedBlobs:
    with closing(CopiedList(target.root / "list", "there")) as done:
        return copy_blobs(source, target, target.root / "moving", done, lambda count: None)


def contents(store: FolderStore) -> dict[Digest, bytes]:
    return {digest: b"".join(store.iterate(digest, 0, size)) for digest, size in store.sizes()}


@pytest.mark.parametrize("far", [False, True])
def test_each_blob_is_copied_once(source: FolderStore, target: FolderStore, far: bool) -> None:
    store: Any = FarStore(source.root) if far else source
    assert copied(store, target) == CopiedBlobs(4, sum(map(len, BLOBS.values())), ())
    assert contents(target) == BLOBS
    assert copied(store, target) == CopiedBlobs(0, 0, ())
    assert contents(source) == BLOBS


def test_a_file_on_its_way_goes_on_where_it_ended(source: FolderStore, target: FolderStore) -> None:
    far: Any = FarStore(source.root)
    far.left = 2_500_000
    with pytest.raises(Unavailable):
        copied(far, target)
    assert LARGE not in contents(target)
    far.left, far.read = 1 << 40, []
    copied(far, target)
    assert contents(target) == BLOBS
    assert max(far.read) == 2 << 20


def test_what_is_left_of_another_file_is_fetched_again(source: FolderStore, target: FolderStore) -> None:
    (target.root / "moving").mkdir()
    (target.root / "moving" / LARGE).write_bytes(b"y" * 1_000_000)
    assert not copied(FarStore(source.root), target).damaged  # type: ignore[arg-type]
    assert contents(target) == BLOBS


@pytest.mark.parametrize("far", [False, True])
def test_a_damaged_blob_is_named_and_the_others_are_copied(source: FolderStore, target: FolderStore, far: bool) -> None:
    path = source.path(LARGE)
    path.chmod(0o644)
    path.write_bytes(b"z" * 3_000_000)
    store: Any = FarStore(source.root) if far else source
    assert copied(store, target).damaged == (LARGE,)
    assert contents(target) == {digest: data for digest, data in BLOBS.items() if digest != LARGE}


def test_a_blob_that_was_there_before_is_read_again(source: FolderStore, target: FolderStore) -> None:
    target.put_all(BLOBS)
    path = target.path(LARGE)
    path.chmod(0o644)
    path.write_bytes(b"z" * 3_000_000)
    assert copied(source, target) == CopiedBlobs(1, 3_000_000, ())
    assert contents(target) == BLOBS


def test_stores_are_compared_by_their_lists(source: FolderStore, target: FolderStore) -> None:
    target.put(sha256(b"other"), b"other")
    target.put(sha256(b"one"), b"one")
    found = compare_stores(source, target)
    assert (found.blobs, found.missing, found.others) == (4, 3, (sha256(b"other"),))
    assert found.size - found.missing_size == 3
    assert compare_stores(source, None).missing == 4


def test_a_list_for_another_place_begins_again(tmp_path: Path) -> None:
    with closing(CopiedList(tmp_path / "list", "here")) as done:
        done.add(LARGE)
    with (tmp_path / "list").open("ab") as file:
        file.write(b"cut of")
    with closing(CopiedList(tmp_path / "list", "here")) as done:
        assert LARGE in done and sha256(b"one") not in done
    with closing(CopiedList(tmp_path / "list", "there")) as done:
        assert LARGE not in done


def test_what_the_operator_withholds_stays_withheld(source: FolderStore, target: FolderStore) -> None:
    artifact, one = Digest("ab" * 32), sha256(b"one")
    source.withheld().take(artifact, one)
    source.withheld().take(artifact, sha256(b""))
    assert copy_withheld(source, target, target.root / "moving") == 2
    assert copy_withheld(source, target, target.root / "moving") == 0
    assert not target.has(one)
    assert b"".join(target.withheld().read(artifact, one, 0, 10)) == b"one"
