"""Which pieces the files of this node consist of, so that a file never fetched before can start from those at hand.

Records come from whoever hashed a file or verified them against a piece index. They are a fact about the file's
SHA-256, whatever becomes of the file, as long as they are what was written: a seal over each row tells. A row that is
not counts as none, and gives way to the next one (docs/decisions/0017-records-outlive-a-restart.md). A piece that is
found is a hint: it is hashed again when it is read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sqlalchemy import Connection, LargeBinary, cast, delete, func, insert, select

from comity.ledger import schema
from comity.ledger.database import Database
from comity.trust.digest import Digest
from comity.trust.pieces import parse_records

_RECORDS, _PIECE = schema.piece_records.c, schema.pieces.c


@dataclass(frozen=True, slots=True)
class PiecePlace:
    """`length` bytes at `offset` of the blob `blob`."""

    blob: Digest
    offset: int
    length: int


class PieceIndex:
    """Piece records by file, and files by piece. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def remember_records(self, blob: Digest, size: int, layout: str, records: bytes) -> None:
        """Keep the piece records of a file of `size` bytes; the first for a blob and layout stay, unless they are
        damaged. Raises Malformed."""
        pieces = parse_records(records, size=size)
        with self._database.writing("pieces") as connection:
            if _sealed(connection, blob, layout) is not None:
                return
            connection.execute(delete(schema.piece_records).where(_RECORDS.blob == blob, _RECORDS.layout == layout))
            number = 1 + (connection.scalar(select(func.max(_RECORDS.id))) or 0)
            seal = _seal(blob, layout, records)
            row = {"id": number, "blob": blob, "layout": layout, "records": records, "seal": seal}
            connection.execute(insert(schema.piece_records).values(row))
            rows, offset = [], 0
            for piece in pieces:
                rows.append({"sha256": piece.sha256, "record_id": number, "offset": offset, "length": piece.length})
                offset += piece.length
            if rows:
                connection.execute(insert(schema.pieces), rows)

    def records(self, blob: Digest, layout: str) -> bytes | None:
        """The records as they were given; None where there are none, or they are damaged."""
        with self._database.reading() as connection:
            return _sealed(connection, blob, layout)

    def blobs(self) -> set[Digest]:
        """Every blob of which there are records."""
        with self._database.reading() as connection:
            return set(connection.scalars(select(_RECORDS.blob).distinct()))

    def find_piece(self, sha256: bytes, limit: int = 16) -> list[PiecePlace]:
        """Some places at which the piece with this hash stands, at most `limit`."""
        places = (
            select(_RECORDS.blob, _PIECE.offset, _PIECE.length)
            .join(schema.piece_records, _RECORDS.id == _PIECE.record_id)
            .where(_PIECE.sha256 == sha256)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [PiecePlace(*row) for row in connection.execute(places)]

    def forget(self, blob: Digest) -> None:
        """Drop what is known of a blob that is no longer here."""
        with self._database.writing("forget") as connection:
            connection.execute(delete(schema.piece_records).where(_RECORDS.blob == blob))


def _sealed(connection: Connection, blob: Digest, layout: str) -> bytes | None:
    columns = (cast(column, LargeBinary) for column in (_RECORDS.records, _RECORDS.seal))  # of whatever type it is now
    known = select(*columns).where(_RECORDS.blob == blob, _RECORDS.layout == layout)
    row = connection.execute(known).one_or_none()
    if row is None or row.records is None or row.seal != _seal(blob, layout, row.records):
        return None
    records: bytes = row.records
    return records


def _seal(blob: Digest, layout: str, records: bytes) -> bytes:
    hasher = hashlib.sha256(bytes.fromhex(blob) + layout.encode() + b"\0")
    hasher.update(records)
    return hasher.digest()
