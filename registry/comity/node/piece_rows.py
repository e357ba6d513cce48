"""Which files have a piece: rows of the index of files (`comity.node.file_index`).

Pieces are those of the layout that is cut at tensors, so that a large tensor gives the same ones in any file. Indexed
are the lowest digests of those that are at least as long as a tensor that is cut alone, at most `MOST` of a file. They
come from the piece records of files that this node has hashed: it knows no pieces of a file of which it has no copy.

A piece of many files, such as one of zeros or of a layer that nobody trains, is indexed for the first `ALIKE` of them.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Sequence
from typing import Final

from comity.rules.file_records import REFERENCE_BYTES
from comity.rules.pieces import lowest_pieces
from comity.trust.artifact import PieceRecord
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen

MOST: Final = 1_024
"""Pieces of a file that are indexed."""
ALIKE: Final = 32
"""Files of members, and of others, for which one piece is indexed."""
SCHEMA: Final = """
CREATE TABLE weights (id INTEGER PRIMARY KEY, sha256 BLOB NOT NULL UNIQUE);
CREATE TABLE piece (
    whose INTEGER, reference BLOB, weights INTEGER, PRIMARY KEY (whose, reference, weights)) WITHOUT ROWID;
CREATE TABLE counted_pieces (pieces INTEGER NOT NULL, records_read INTEGER NOT NULL);
INSERT INTO counted_pieces VALUES (0, 0)
"""
WITH_PREFIX: Final = (
    "SELECT reference, sha256 FROM (SELECT reference, weights FROM piece WHERE whose = ? AND reference BETWEEN ? AND ?"
    " LIMIT ?) JOIN weights ON id = weights"
)
"""References of pieces, each with the digest of a file."""
_ADD: Final = (
    "INSERT OR IGNORE INTO piece SELECT ?1, ?2, ?3 WHERE"
    f" (SELECT count(*) FROM (SELECT 1 FROM piece WHERE whose = ?1 AND reference = ?2 LIMIT {ALIKE})) < {ALIKE}"
)


@frozen
class CountedPieces:
    """Pieces in the index, each in each file that has it; the number of the last piece records that were read."""

    pieces: int
    read: int


def counted(database: sqlite3.Connection) -> CountedPieces:
    return CountedPieces(*database.execute("SELECT pieces, records_read FROM counted_pieces").fetchone())


def records_were_read(database: sqlite3.Connection, number: int) -> None:
    database.execute("UPDATE counted_pieces SET records_read = ?", (number,))


def references_of(records: bytes) -> list[bytes]:
    """The references of the pieces of a file that are indexed, from its encoded piece records, which the ledger
    checked."""
    read = (PieceRecord(*record) for record in struct.iter_unpack(">I32s", records))
    return [digest[:REFERENCE_BYTES] for digest in lowest_pieces(read, MOST)]


def add(file: Digest, whose: int, database: sqlite3.Connection, references: Sequence[bytes]) -> None:
    """Add pieces of a file."""
    database.execute("INSERT OR IGNORE INTO weights VALUES (NULL, ?)", (bytes.fromhex(file),))
    (number,) = database.execute("SELECT id FROM weights WHERE sha256 = ?", (bytes.fromhex(file),)).fetchone()
    before = database.total_changes
    database.executemany(_ADD, ((whose, reference, number) for reference in references))
    database.execute("UPDATE counted_pieces SET pieces = pieces + ?", (database.total_changes - before,))
