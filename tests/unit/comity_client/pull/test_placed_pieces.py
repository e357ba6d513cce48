"""The record of files that earlier pulls placed, whose pieces later pulls reuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.trust.artifact import PieceRecord
from comity.trust.encoding import sha256
from comity.trust.errors import Unavailable
from comity_client.pull.placed_pieces import PlacedPieces

PARTS = (b"first" * 10, b"second" * 10)


def record(data: bytes) -> PieceRecord:
    return PieceRecord(len(data), bytes.fromhex(sha256(data)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(b"".join(PARTS))
    return path


@pytest.fixture
def placed(tmp_path: Path, file: Path) -> PlacedPieces:
    placed = PlacedPieces(tmp_path)
    placed.remember(file, map(record, PARTS))
    return placed


def test_a_piece_is_found_where_it_was_placed(placed: PlacedPieces, file: Path) -> None:
    assert placed.find(record(PARTS[1])) == [(file, len(PARTS[0]))]
    assert placed.find(record(b"unknown")) == []


def test_a_changed_file_is_dropped_from_the_record(placed: PlacedPieces, file: Path) -> None:
    file.write_bytes(b"something else")
    assert placed.find(record(PARTS[0])) == []


def test_a_missing_file_is_dropped_from_the_record(placed: PlacedPieces, file: Path) -> None:
    file.unlink()
    assert placed.find(record(PARTS[0])) == []
    file.write_bytes(b"".join(PARTS))
    assert placed.find(record(PARTS[0])) == []


def test_a_file_removed_after_it_was_placed_is_not_recorded(placed: PlacedPieces, file: Path) -> None:
    file.unlink()
    with pytest.raises(Unavailable):
        placed.remember(file, map(record, PARTS))


def test_placing_a_file_again_replaces_its_record(placed: PlacedPieces, file: Path) -> None:
    file.write_bytes(PARTS[1])
    placed.remember(file, [record(PARTS[1])])
    assert placed.find(record(PARTS[1])) == [(file, 0)]
    assert placed.find(record(PARTS[0])) == []


def test_a_broken_index_says_how_to_remove_it(tmp_path: Path) -> None:
    (tmp_path / "pieces.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(Unavailable) as caught:
        PlacedPieces(tmp_path).find(record(PARTS[0]))
    assert caught.value.hint.startswith("rm ")
