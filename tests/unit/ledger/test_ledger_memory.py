"""Small tables of a ledger: piece records, and misbehaviour proofs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from comity.ledger.ledger import Backing, Ledger
from comity.ledger.piece_records import FileRecords, PieceLocation
from comity.ledger.records import KEPT_PER_LOG, MAX_PART, StoredMisbehaviour
from comity.rules.misbehaviour import HISTORY, LEAVES, ROOTS
from comity.rules.pieces import encode_records
from comity.trust.artifact import PIECE_SIZE, PieceRecord
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from support.logs import LogKeys

LOG = LogKeys.generate("far.example/log")
BLOB, OTHER = sha256(b"a blob"), sha256(b"another blob")


@pytest.fixture
def ledger(tmp_path: Path, backing: Backing | None) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1_000.9, backing=backing)
    yield opened
    opened.close()


def record(length: int, seed: int) -> PieceRecord:
    return PieceRecord(length, bytes([seed]) * 32)


def test_records_read_back(ledger: Ledger) -> None:
    records = encode_records([record(PIECE_SIZE, 1), record(10, 2)])
    ledger.pieces.store_records(BLOB, PIECE_SIZE + 10, "fixed-4MiB/1", records)
    assert ledger.pieces.records(BLOB, "fixed-4MiB/1") == records
    assert ledger.pieces.records(BLOB, "tensor-4MiB/1") is None
    assert ledger.pieces.records(OTHER, "fixed-4MiB/1") is None


def test_an_empty_file_has_records_too(ledger: Ledger) -> None:
    ledger.pieces.store_records(BLOB, 0, "fixed-4MiB/1", b"")
    assert ledger.pieces.records(BLOB, "fixed-4MiB/1") == b""


def test_a_piece_is_found_in_every_file_that_has_it(ledger: Ledger) -> None:
    shared = record(7, 9)
    ledger.pieces.store_records(BLOB, 12, "fixed-4MiB/1", encode_records([record(5, 1), shared]))
    ledger.pieces.store_records(OTHER, 14, "tensor-4MiB/1", encode_records([shared, shared]))
    found = ledger.pieces.find_piece(shared.sha256)
    assert set(found) == {PieceLocation(BLOB, 5, 7), PieceLocation(OTHER, 0, 7), PieceLocation(OTHER, 7, 7)}
    assert ledger.pieces.find_piece(bytes(32)) == []
    assert len(ledger.pieces.find_piece(shared.sha256, limit=2)) == 2


def test_the_first_records_of_a_blob_and_layout_stay(ledger: Ledger) -> None:
    first = encode_records([record(5, 1)])
    ledger.pieces.store_records(BLOB, 5, "fixed-4MiB/1", first)
    ledger.pieces.store_records(BLOB, 5, "fixed-4MiB/1", encode_records([record(5, 2)]))
    assert ledger.pieces.records(BLOB, "fixed-4MiB/1") == first
    assert ledger.pieces.find_piece(record(5, 2).sha256) == []


def test_records_that_do_not_tile_the_file_are_refused(ledger: Ledger) -> None:
    with pytest.raises(Malformed):
        ledger.pieces.store_records(BLOB, 6, "fixed-4MiB/1", encode_records([record(5, 1)]))


def test_a_deleted_blob_is_no_longer_found(ledger: Ledger) -> None:
    ledger.pieces.store_records(BLOB, 5, "fixed-4MiB/1", encode_records([record(5, 1)]))
    ledger.pieces.store_records(OTHER, 5, "fixed-4MiB/1", encode_records([record(5, 1)]))
    ledger.pieces.delete_records(BLOB)
    assert ledger.pieces.records(BLOB, "fixed-4MiB/1") is None
    assert ledger.pieces.find_piece(record(5, 1).sha256) == [PieceLocation(OTHER, 0, 5)]


def note(seed: int) -> bytes:
    return LOG.note(5, bytes([seed]) * 32).encode()


def test_misbehaviour_is_kept_with_the_time_it_was_seen(ledger: Ledger) -> None:
    parts = (note(1), note(2))
    assert ledger.misbehaviour.add(ROOTS, LOG.origin, LOG.vkey, parts)
    first, second = sorted(parts)
    assert ledger.misbehaviour.all() == [StoredMisbehaviour(ROOTS, LOG.origin, LOG.vkey, (first, second), 1_000)]


@pytest.mark.parametrize("kind", [ROOTS, LEAVES, HISTORY])
def test_every_kind_of_valid_proof_is_kept(ledger: Ledger, kind: str) -> None:
    assert ledger.misbehaviour.add(kind, LOG.origin, LOG.vkey, (note(1), note(2)))
    assert [proof.kind for proof in ledger.misbehaviour.all()] == [kind]


def test_the_same_proof_is_kept_once_with_its_parts_in_any_order(ledger: Ledger) -> None:
    assert ledger.misbehaviour.add(ROOTS, LOG.origin, LOG.vkey, (note(1), note(2)))
    assert not ledger.misbehaviour.add(ROOTS, LOG.origin, LOG.vkey, (note(2), note(1)))
    assert len(ledger.misbehaviour.all()) == 1


def test_proofs_are_listed_by_origin(ledger: Ledger) -> None:
    other = LogKeys.generate("other.example/log")
    ledger.misbehaviour.add(ROOTS, LOG.origin, LOG.vkey, (note(1), note(2)))
    ledger.misbehaviour.add(ROOTS, other.origin, other.vkey, (note(1), note(2)))
    assert [proof.origin for proof in ledger.misbehaviour.all(other.origin)] == [other.origin]


def test_a_log_that_equivocates_without_end_does_not_fill_the_disk(ledger: Ledger) -> None:
    kept = [
        ledger.misbehaviour.add(ROOTS, LOG.origin, LOG.vkey, (note(0), note(seed)))
        for seed in range(1, KEPT_PER_LOG + 5)
    ]
    assert kept == [True] * KEPT_PER_LOG + [False] * 4


@pytest.mark.parametrize("parts", [(), (b"one",), (b"a", b"b", b"c"), (b"a", bytes(MAX_PART + 1))])
def test_an_invalid_proof_is_refused(ledger: Ledger, parts: tuple[bytes, ...]) -> None:
    with pytest.raises(Malformed):
        ledger.misbehaviour.add(ROOTS, LOG.origin, LOG.vkey, parts)
    with pytest.raises(Malformed):
        ledger.misbehaviour.add("rumour", LOG.origin, LOG.vkey, (b"a", b"b"))


def test_the_records_of_many_files_are_stored_and_read_together(ledger: Ledger) -> None:
    first = encode_records([record(5, 1)])
    ledger.pieces.store_records(BLOB, 5, "fixed-4MiB/1", first)
    many = [FileRecords(sha256(b"%d" % number), 5, "fixed-4MiB/1", first) for number in range(1_200)]
    other = FileRecords(BLOB, 10, "tensor-4MiB/1", encode_records([record(5, 2), record(5, 2)]))
    ledger.pieces.store_all([FileRecords(BLOB, 5, "fixed-4MiB/1", encode_records([record(5, 3)])), other, *many])
    found = ledger.pieces.all_records([BLOB, OTHER, *(each.blob for each in many)])
    assert found == {(BLOB, "fixed-4MiB/1"): first, **{each.key: each.records for each in (other, *many)}}
    assert set(ledger.pieces.find_piece(record(5, 2).sha256)) == {PieceLocation(BLOB, 0, 5), PieceLocation(BLOB, 5, 5)}
    assert ledger.pieces.find_piece(record(5, 3).sha256) == []


def test_of_many_records_none_is_stored_where_one_does_not_tile_its_file(ledger: Ledger) -> None:
    records = encode_records([record(5, 1)])
    with pytest.raises(Malformed):
        ledger.pieces.store_all([FileRecords(BLOB, 5, "fixed-4MiB/1", records), FileRecords(OTHER, 6, "x", records)])
    assert ledger.pieces.all_records([BLOB, OTHER]) == {}
