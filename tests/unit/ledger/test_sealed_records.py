"""Piece records that were damaged in the ledger, or belong to another blob, are not used."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from comity.content.blobs import FolderStore
from comity.gateway.fileserver.server import LedgerRecords
from comity.gateway.fileserver.verified import VerifiedBlobs
from comity.ledger.ledger import DATABASE_FILE, Ledger
from comity.ledger.piece_records import PieceRecordTable
from comity.rules.pieces import FIXED_LAYOUT, TENSOR_LAYOUT, encode_records
from comity.trust.artifact import PIECE_SIZE, PieceRecord
from comity.trust.encoding import sha256
from comity.trust.errors import OutOfSpace, Untrusted
from support.blob_site import records_of

BLOB, OTHER = sha256(b"a blob"), sha256(b"another blob")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(tmp_path, lambda: 1_000)
    yield opened
    opened.close()


def record(length: int, seed: int) -> PieceRecord:
    return PieceRecord(length, bytes([seed]) * 32)


@pytest.mark.parametrize(
    "damage",
    [
        "records = x''",
        "records = substr(records, 1, 71)",
        "records = substr(records, 1, 36)",
        "records = substr(records, 37, 36) || substr(records, 1, 36)",
        "records = x'01' || substr(records, 2)",
        "records = substr(records, 1, 71) || x'00'",
        "records = records || substr(records, 1, 36)",
        "records = (SELECT records FROM piece_records WHERE id = 2)",
        "(records, seal) = (SELECT records, seal FROM piece_records WHERE id = 2)",
        "layout = 'tensor-4MiB/1'",
        "seal = x'00'",
        "(records, seal) = (NULL, NULL)",
        "blob = x'00'",
    ],
    ids=[
        "nothing",
        "torn",
        "short",
        "turned",
        "length",
        "hash",
        "long",
        "foreign",
        "foreign and sealed",
        "other layout",
        "seal",
        "no values",
        "blob",
    ],
)
def test_damaged_records_are_ignored_and_replaced_by_valid_ones(ledger: Ledger, tmp_path: Path, damage: str) -> None:
    records = encode_records([record(PIECE_SIZE, 1), record(10, 2)])
    foreign = encode_records([record(PIECE_SIZE, 3), record(10, 4)])
    ledger.pieces.store_records(BLOB, PIECE_SIZE + 10, FIXED_LAYOUT, records)
    ledger.pieces.store_records(OTHER, PIECE_SIZE + 10, FIXED_LAYOUT, foreign)
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE)) as database, database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '') WHERE name = 'piece_records'")
        database.execute("PRAGMA writable_schema = RESET")
        database.execute(f"UPDATE piece_records SET {damage} WHERE id = 1")
    assert [ledger.pieces.records(BLOB, layout) for layout in (FIXED_LAYOUT, TENSOR_LAYOUT)] == [None, None]
    assert ledger.pieces.records(OTHER, FIXED_LAYOUT) == foreign
    if damage.startswith("blob"):
        with pytest.raises(Untrusted) as refused:
            list(ledger.pieces.ordered_blobs())
        assert refused.value.code == "LEDGER-CORRUPT"
    else:
        assert OTHER in ledger.pieces.ordered_blobs()
    ledger.pieces.store_records(BLOB, PIECE_SIZE + 10, FIXED_LAYOUT, records)
    assert ledger.pieces.records(BLOB, FIXED_LAYOUT) == records
    assert ledger.pieces.records(BLOB, TENSOR_LAYOUT) is None


def test_the_ledger_lists_the_blobs_with_records(ledger: Ledger) -> None:
    assert set(ledger.pieces.ordered_blobs()) == set()
    for layout in (FIXED_LAYOUT, TENSOR_LAYOUT):
        ledger.pieces.store_records(BLOB, 5, layout, encode_records([record(5, 1)]))
    ledger.pieces.store_records(OTHER, 5, FIXED_LAYOUT, encode_records([record(5, 1)]))
    assert set(ledger.pieces.ordered_blobs()) == {BLOB, OTHER}


def test_the_gateway_stores_computed_records_if_the_ledger_can(ledger: Ledger, tmp_path: Path) -> None:
    store, data = FolderStore(tmp_path / "store"), bytes(PIECE_SIZE + 10)
    store.put(sha256(data), data)
    verified = VerifiedBlobs(store, LedgerRecords(ledger.pieces))
    assert b"".join(verified.read(sha256(data), 0, len(data))) == data
    assert ledger.pieces.records(sha256(data), FIXED_LAYOUT) == records_of(data)


def test_a_ledger_that_takes_no_records_keeps_no_reader_from_its_bytes(tmp_path: Path) -> None:
    class Full:
        tried = 0

        def records(self, *_: object) -> None:
            return None

        def store_records(self, *_: object) -> None:
            self.tried += 1
            raise OutOfSpace("the ledger's disk is full", why="for a test")

    store, data, full = FolderStore(tmp_path / "store"), bytes(PIECE_SIZE + 10), Full()
    store.put(sha256(data), data)
    verified = VerifiedBlobs(store, LedgerRecords(cast(PieceRecordTable, cast(Any, full))))
    assert b"".join(verified.read(sha256(data), 0, len(data))) == data
    assert full.tried
