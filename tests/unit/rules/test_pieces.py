"""Piece layouts and piece indexes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from comity.rules.pieces import (
    FIXED_LAYOUT,
    SMALL_TENSOR,
    TENSOR_LAYOUT,
    PieceIndex,
    PieceLayout,
    chained_records,
    check_records,
    encode_records,
    fixed_pieces,
    records_root,
    tensor_pieces,
)
from comity.trust import artifact
from comity.trust.artifact import MAX_PIECES, PIECE_SIZE, PieceRecord, parse_records
from comity.trust.encoding import canonical, sha256
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.tlog.merkle import EMPTY_ROOT

HALF = SMALL_TENSOR // 2
RECORDS = [PieceRecord(length, bytes.fromhex(sha256(b"%d" % length))) for length in (PIECE_SIZE, PIECE_SIZE, 5)]
SIZE = 2 * PIECE_SIZE + 5
LAYOUT = PieceLayout(FIXED_LAYOUT, 3, records_root(RECORDS))
INDEX = PieceIndex((("a", LAYOUT), ("b/c", PieceLayout(TENSOR_LAYOUT, 0, sha256(b"")))))


def document(**change: Any) -> bytes:
    return canonical({**json.loads(INDEX.encode()), **change})


def file(**change: Any) -> bytes:
    return document(files=[{"path": "a", "layout": FIXED_LAYOUT, "count": 3, "root": LAYOUT.root, **change}])


@pytest.mark.parametrize(
    ("size", "lengths"),
    [
        (0, []),
        (1, [1]),
        (PIECE_SIZE, [PIECE_SIZE]),
        (PIECE_SIZE + 1, [PIECE_SIZE, 1]),
        (3 * PIECE_SIZE, [PIECE_SIZE] * 3),
    ],
)
def test_the_fixed_layout_cuts_every_four_mebibytes(size: int, lengths: list[int]) -> None:
    assert fixed_pieces(size) == lengths


def test_no_list_is_as_long_as_a_claimed_size() -> None:
    most = MAX_PIECES * PIECE_SIZE
    for claimed in (most + 1, 2**53 - 1, 2**200):
        with pytest.raises(Malformed) as refused:
            fixed_pieces(claimed)
        assert refused.value.code == "FILE-TOO-LARGE"
        with pytest.raises(Malformed):
            chained_records(claimed, [], sha256(b""))
        with pytest.raises(Malformed):
            tensor_pieces(claimed, claimed, [])


def test_the_tensor_layout_cuts_at_tensor_starts_and_joins_small_tensors() -> None:
    sizes = [SMALL_TENSOR - 1, 10, PIECE_SIZE + 7, SMALL_TENSOR, 100, 200]
    starts = [1000 + sum(sizes[:at]) for at in range(len(sizes))]
    assert tensor_pieces(1000 + sum(sizes), 1000, starts) == [
        1000,
        SMALL_TENSOR - 1 + 10,
        PIECE_SIZE,
        7,
        SMALL_TENSOR,
        300,
    ]


def test_joined_tensors_stay_within_a_piece() -> None:
    starts = [100 + at * (SMALL_TENSOR - 1) for at in range(40)]
    lengths = tensor_pieces(100 + 40 * (SMALL_TENSOR - 1), 100, starts)
    assert lengths == [100, 16 * (SMALL_TENSOR - 1), 16 * (SMALL_TENSOR - 1), 8 * (SMALL_TENSOR - 1)]
    assert 16 * (SMALL_TENSOR - 1) <= PIECE_SIZE < 17 * (SMALL_TENSOR - 1)


@pytest.mark.parametrize(
    ("size", "header_end", "starts", "lengths"),
    [
        pytest.param(0, 0, [], [], id="an empty file"),
        pytest.param(8, 8, [], [8], id="only a header"),
        pytest.param(PIECE_SIZE + 8, PIECE_SIZE + 4, [], [PIECE_SIZE, 4, 4], id="a large header, unnamed data"),
        pytest.param(50, 10, [20], [10, 40], id="a gap before the first tensor"),
        pytest.param(60, 10, [10, 20], [10, 50], id="no gap before the first tensor"),
        pytest.param(32 * HALF + 9, 9, [9 + at * HALF for at in range(32)], [9, PIECE_SIZE], id="one whole piece"),
        pytest.param(SMALL_TENSOR * 3, 0, [0, SMALL_TENSOR], [SMALL_TENSOR, SMALL_TENSOR * 2], id="no header"),
    ],
)
def test_the_edges_of_the_tensor_layout(size: int, header_end: int, starts: list[int], lengths: list[int]) -> None:
    assert tensor_pieces(size, header_end, starts) == lengths


@pytest.mark.parametrize(
    ("header_end", "starts"),
    [(-1, []), (101, []), (10, [5]), (10, [5, 20]), (10, [100]), (10, [20, 100]), (10, [50, 20]), (10, [20, 20])],
)
def test_offsets_that_do_not_fit_the_file_are_refused(header_end: int, starts: list[int]) -> None:
    with pytest.raises(Malformed):
        tensor_pieces(100, header_end, starts)


def test_a_record_is_its_length_and_its_hash() -> None:
    assert RECORDS[2].encode() == b"\x00\x00\x00\x05" + RECORDS[2].sha256
    assert parse_records(encode_records(RECORDS), size=SIZE) == RECORDS


@pytest.mark.parametrize(
    ("data", "size"),
    [
        pytest.param(encode_records(RECORDS)[:-1], SIZE, id="cut"),
        pytest.param(encode_records(RECORDS), SIZE - 1, id="too long for the file"),
        pytest.param(encode_records(RECORDS[:2]), SIZE, id="too short for the file"),
        pytest.param(bytes(36), 0, id="a piece of no bytes"),
        pytest.param((PIECE_SIZE + 1).to_bytes(4, "big") + bytes(32), PIECE_SIZE + 1, id="a piece that is too long"),
        pytest.param(b"", 1, id="none"),
    ],
)
def test_records_that_do_not_tile_the_file_are_refused(data: bytes, size: int) -> None:
    with pytest.raises(Malformed):
        parse_records(data, size=size)


def test_the_number_of_records_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "MAX_PIECES", 3)
    assert parse_records(encode_records(RECORDS), size=SIZE) == RECORDS
    with pytest.raises(Malformed, match="too many"):
        parse_records(encode_records([RECORDS[0], *RECORDS]), size=SIZE + PIECE_SIZE)


def test_records_of_strangers_count_by_their_root() -> None:
    assert check_records(encode_records(RECORDS), size=SIZE, expected=LAYOUT) == RECORDS
    swapped = [RECORDS[1], RECORDS[0], PieceRecord(5, bytes(32))]
    for data in (encode_records(swapped), encode_records(RECORDS[:2]), encode_records(RECORDS) + bytes(36), b""):
        with pytest.raises(Untrusted) as refusal:
            check_records(data, size=SIZE, expected=LAYOUT)
        assert refusal.value.code == "PIECE-RECORDS"
    with pytest.raises(ComityError):
        check_records(encode_records(RECORDS), size=SIZE + 1, expected=LAYOUT)


def test_an_empty_file_has_no_records() -> None:
    layout = PieceLayout(FIXED_LAYOUT, 0, records_root([]))
    assert layout.root == EMPTY_ROOT.hex()
    assert check_records(b"", size=0, expected=layout) == []


def test_a_piece_index_reads_back() -> None:
    assert PieceIndex.parse(INDEX.encode()) == INDEX
    assert PieceIndex.parse(INDEX.encode()).digest == sha256(INDEX.encode())


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(INDEX.encode() + b" ", id="white space"),
        pytest.param(document(schema="comity/pieces/v2"), id="another schema"),
        pytest.param(document(extra=1), id="an unknown member"),
        pytest.param(file(layout="fixed-1MiB/1"), id="an unknown layout"),
        pytest.param(file(count=-1), id="a negative count"),
        pytest.param(file(count=4_000_001), id="too many pieces"),
        pytest.param(file(root="sha256:" + LAYOUT.root), id="a second spelling of a root"),
        pytest.param(file(path="../a"), id="a path out of the folder"),
        pytest.param(file(extra=1), id="an unknown member of a file"),
        pytest.param(document(files=json.loads(INDEX.encode())["files"][::-1]), id="another order"),
        pytest.param(document(files=json.loads(INDEX.encode())["files"][:1] * 2), id="a file twice"),
    ],
)
def test_bytes_that_encode_would_not_write_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        PieceIndex.parse(data)


@pytest.mark.parametrize("paths", ["bac", "acb", "bab", "abb"])
def test_the_paths_of_an_index_are_in_order_each_once(paths: str) -> None:
    assert PieceIndex.parse(PieceIndex(tuple((path, LAYOUT) for path in "abc")).encode())
    with pytest.raises(Malformed, match="not in strict UTF-8 byte order"):
        PieceIndex.parse(PieceIndex(tuple((path, LAYOUT) for path in paths)).encode())
