"""Piece indexes that do not match stored files: what they cost a node that has the files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from comity.content.blobs import FolderStore
from comity.ledger.ledger import Ledger
from comity.node.metrics import Metrics
from comity.node.threads import AsyncLedger, Pools
from comity.node.uploads import Uploads, Want
from comity.rules.pieces import FIXED_LAYOUT, TENSOR_LAYOUT, PieceIndex, PieceLayout, fixed_pieces
from comity.trust.artifact import PIECE_SIZE, FileEntry, Manifest
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Untrusted
from comity.trust.names import Name
from comity.trust.statement import SideObject
from comity.trust.statements import Licence, Published

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


def published(store: CountingStore, layout: PieceLayout) -> Published:
    """A publication of the stored file with a piece index of its own."""
    manifest, index = Manifest.of([FILE]).encode(), PieceIndex((("w.bin", layout),)).encode()
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
