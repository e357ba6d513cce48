"""Piece indexes that do not match stored files: what they cost a node that has the files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.node.metrics import Metrics
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import Uploads, Want, most_index, read_artifact
from comity.rules.pieces import FIXED_LAYOUT, TENSOR_LAYOUT, PieceIndex, PieceLayout, fixed_pieces, records_root
from comity.trust.artifact import MAX_PIECES, PIECE_SIZE, FileEntry, Manifest, PieceRecord
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.names import Name
from comity.trust.statement import SideObject
from comity.trust.statements import Licence, Published
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

DATA = bytes(4 * PIECE_SIZE)
FILE = FileEntry("w.bin", len(DATA), sha256(DATA))


class CountingStore(FolderStore):
    """Counts the bytes that are read of the file."""

    count = 0

    def read(self, digest: Digest, offset: int, length: int) -> bytes:
        data = super().read(digest, offset, length)
        self.count += len(data) if digest == FILE.sha256 else 0
        return data


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    made = CountingStore(tmp_path / "blobs")
    made.put(FILE.sha256, DATA)
    return made


@pytest.fixture
def uploads(tmp_path: Path, store: CountingStore) -> Iterator[Uploads]:
    pools = Pools()
    with closing(Ledger.open(tmp_path, lambda: 0)) as ledger:
        yield Uploads(AsyncLedger(ledger), store, pools, Metrics())
    pools.close()


def published(store: CountingStore, *layouts: PieceLayout) -> Published:
    """A publication of the stored file with a piece index of its own, under as many paths as there are layouts."""
    entries = [FILE, *(replace(FILE, path=f"w{number}.bin") for number in range(1, len(layouts)))]
    index = PieceIndex(tuple((entry.path, layout) for entry, layout in zip(entries, layouts, strict=True))).encode()
    manifest = Manifest.of(entries).encode()
    for data in (manifest, index):
        store.put(sha256(data), data)
    listed, cut = (SideObject(sha256(data), len(data)) for data in (manifest, index))
    return Published(Digest("ab" * 32), Name("a", "b", "v1"), sha256(manifest), listed, cut, Licence("MIT"))


def test_an_index_in_a_layout_that_a_file_cannot_have_costs_the_head_of_the_file_each_time(
    store: CountingStore, uploads: Uploads
) -> None:
    false = published(store, PieceLayout(TENSOR_LAYOUT, 4, sha256(b"root")))
    for _ in range(3):
        with pytest.raises(Untrusted) as refused:
            uploads.check_pieces(false)
        assert refused.value.code == "PIECE-INDEX"
    assert store.count <= 3 * PIECE_SIZE


def test_an_index_with_a_false_root_has_the_file_read_once(store: CountingStore, uploads: Uploads) -> None:
    count = len(fixed_pieces(len(DATA)))
    for root in (b"one", b"another", b"a third"):
        with pytest.raises(Untrusted) as refused:
            uploads.check_pieces(published(store, PieceLayout(FIXED_LAYOUT, count, sha256(root))))
        assert refused.value.code == "PIECE-RECORDS"
    assert len(DATA) <= store.count <= len(DATA) + PIECE_SIZE
    uploads.records(Want(FILE.sha256, FILE.size, FILE.path), FIXED_LAYOUT)


RECORDS = [PieceRecord(PIECE_SIZE, bytes.fromhex(sha256(bytes(PIECE_SIZE))))] * 4
RIGHT = PieceLayout(FIXED_LAYOUT, 4, records_root(RECORDS))


def test_a_file_that_is_listed_under_many_paths_is_read_once(store: CountingStore, uploads: Uploads) -> None:
    """A manifest has up to 100,000 paths: reading the file for each kept the threads of a node busy for weeks."""
    uploads.check_pieces(published(store, *[RIGHT] * 9))
    assert store.count <= len(DATA) + PIECE_SIZE
    uploads.check_pieces(published(store, *[RIGHT] * 9))
    assert store.count <= len(DATA) + PIECE_SIZE


def test_two_roots_for_one_file_are_refused_before_it_is_read(store: CountingStore, uploads: Uploads) -> None:
    with pytest.raises(Untrusted) as refused:
        uploads.check_pieces(published(store, RIGHT, replace(RIGHT, root=sha256(b"another"))))
    assert (refused.value.code, store.count) == ("PIECE-RECORDS", 0)


def test_an_index_that_is_larger_than_its_manifest_allows_is_not_read(store: CountingStore, uploads: Uploads) -> None:
    """A member could log one of 64 MiB once, and name it in the holds of small artifacts that others audit."""
    listed = Manifest.of([FILE]).encode()
    store.put(sha256(listed), listed)
    large = SideObject(sha256(b"not here"), 2_000)
    with pytest.raises(Untrusted) as refused:
        read_artifact(store, SideObject.of(listed), large)
    assert refused.value.code == "PIECE-INDEX"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), min_size=1, max_size=8))
@settings(max_examples=examples(100))
def test_no_index_of_the_same_files_is_larger_than_its_manifest_allows(names: list[str]) -> None:
    try:
        manifest = Manifest.of([replace(FILE, path=name) for name in names])
    except Malformed:
        return
    layout = PieceLayout(TENSOR_LAYOUT, MAX_PIECES, sha256(b"root"))
    index = PieceIndex(tuple((entry.path, layout) for entry in manifest.files)).encode()
    assert len(index) <= most_index(manifest)
