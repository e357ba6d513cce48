"""Piece records by file, and files by piece.

They are from the hashing of the file or verified against a piece index, and true for the SHA-256 of the file even after
the file is deleted. A seal over each row detects damage; a damaged row is ignored and replaced (docs/decisions, 17). A
piece is hashed again when it is read. Callers verify records before they store them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from typing import Final

from sqlalchemy import Connection, LargeBinary, cast, delete, func, insert, select

from comity.ledger import schema
from comity.ledger.database import Database
from comity.rules.pieces import CHAINED_LAYOUT
from comity.trust.artifact import parse_records
from comity.trust.encoding import Digest
from comity.trust.frozen import frozen

_BLOBS: Final = 1_000
"""Blobs of records that are listed at a time."""
_ASKED: Final = 500
"""Blobs in one query: older versions of SQLite allow 999 values."""
_RECORDS, _PIECE = schema.piece_records.c, schema.pieces.c


@frozen
class PieceLocation:
    """A part of the blob `blob`: `length` bytes at `offset`."""

    blob: Digest
    offset: int
    length: int


@frozen
class FileRecords:
    """The encoded piece records of a file of `size` bytes in one layout."""

    blob: Digest
    size: int
    layout: str
    records: bytes

    @property
    def key(self) -> tuple[Digest, str]:
        return self.blob, self.layout


class PieceRecordTable:
    """Piece records by file, and files by piece. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def store_records(self, blob: Digest, size: int, layout: str, records: bytes) -> None:
        """Store the piece records of a file of `size` bytes. Undamaged records for the same blob and layout are not
        replaced. Raises Malformed."""
        self.store_all([FileRecords(blob, size, layout, records)])

    def store_all(self, files: Collection[FileRecords]) -> None:
        """As `store_records`, for many files in one transaction."""
        parsed = {file.key: (file, parse_records(file.records, size=file.size)) for file in files}
        with self._database.writing("pieces") as connection:
            known = _sealed(connection, {file.blob for file in files})
            new = {key: found for key, found in parsed.items() if known.get(key) is None}
            for blob, layout in new.keys() & known.keys():  # damaged
                connection.execute(delete(schema.piece_records).where(_RECORDS.blob == blob, _RECORDS.layout == layout))
            first = 1 + (connection.scalar(select(func.max(_RECORDS.id))) or 0)
            rows, places = [], []
            for number, (file, pieces) in enumerate(new.values(), first):
                row = {"id": number, "blob": file.blob, "layout": file.layout, "records": file.records}
                rows.append(row | {"seal": _seal(file.blob, file.layout, file.records)})
                if file.layout == CHAINED_LAYOUT:  # states do not say which other file contains a piece
                    continue
                offset = 0
                for piece in pieces:
                    place = {"sha256": piece.sha256, "record_id": number, "offset": offset, "length": piece.length}
                    places.append(place)
                    offset += piece.length
            if rows:
                connection.execute(insert(schema.piece_records), rows)
            if places:
                connection.execute(insert(schema.pieces), places)

    def records(self, blob: Digest, layout: str) -> bytes | None:
        """Returns the records of a blob; None if there are none or they are damaged."""
        return self.all_records((blob,)).get((blob, layout))

    def all_records(self, blobs: Collection[Digest]) -> dict[tuple[Digest, str], bytes]:
        """Returns the undamaged records of these blobs, by blob and layout."""
        with self._database.reading() as connection:
            found = _sealed(connection, blobs)
        return {key: records for key, records in found.items() if records is not None}

    def records_size(self, blob: Digest, layout: str) -> int:
        """Returns the bytes of the records of a blob; 0 if there are none."""
        size = select(func.length(_RECORDS.records)).where(_RECORDS.blob == blob, _RECORDS.layout == layout)
        with self._database.reading() as connection:
            return connection.scalar(size) or 0

    def ordered_blobs(self) -> Iterator[Digest]:
        """Yields all blobs that have records, in their order. Raises Untrusted (LEDGER-CORRUPT)."""
        last: Digest | None = None
        while True:
            wanted = select(_RECORDS.blob).distinct().order_by(_RECORDS.blob).limit(_BLOBS)
            if last is not None:
                wanted = wanted.where(_RECORDS.blob > last)
            with self._database.reading() as connection:
                page = list(connection.scalars(wanted))
            yield from page
            if len(page) < _BLOBS:
                return
            last = page[-1]

    def blobs_since(self, number: int, layout: str, limit: int) -> list[tuple[int, Digest]]:
        """Returns blobs whose records in a layout were stored after those with this number, each with the number of its
        records, in their order. Numbers of records that were deleted may be given again to later ones."""
        wanted = select(_RECORDS.id, _RECORDS.blob).where(_RECORDS.id > number, _RECORDS.layout == layout)
        with self._database.reading() as connection:
            rows = connection.execute(wanted.order_by(_RECORDS.id).limit(limit))
            return [(number, blob) for number, blob in rows]

    def last_number(self) -> int:
        """Returns the number of the newest records; 0 if there are none."""
        with self._database.reading() as connection:
            return connection.scalar(select(func.max(_RECORDS.id))) or 0

    def find_piece(self, sha256: bytes, limit: int = 16) -> list[PieceLocation]:
        """Returns at most `limit` locations of the piece with this hash."""
        locations = (
            select(_RECORDS.blob, _PIECE.offset, _PIECE.length)
            .join(schema.piece_records, _RECORDS.id == _PIECE.record_id)
            .where(_PIECE.sha256 == sha256)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [PieceLocation(*row) for row in connection.execute(locations)]

    def delete_records(self, blob: Digest) -> None:
        """Delete the records of a blob that is no longer stored."""
        with self._database.writing("forget") as connection:
            connection.execute(delete(schema.piece_records).where(_RECORDS.blob == blob))


def _sealed(connection: Connection, blobs: Collection[Digest]) -> dict[tuple[Digest, str], bytes | None]:
    """The records of each of these blobs in each layout; None where they are damaged."""
    # damage may have changed the type of a value
    columns = (cast(column, LargeBinary) for column in (_RECORDS.records, _RECORDS.seal))
    wanted = select(_RECORDS.blob, _RECORDS.layout, *columns)
    found: dict[tuple[Digest, str], bytes | None] = {}
    asked = list(blobs)
    for some in (asked[at : at + _ASKED] for at in range(0, len(asked), _ASKED)):
        for blob, layout, records, seal in connection.execute(wanted.where(_RECORDS.blob.in_(some))):
            whole = records is not None and seal == _seal(blob, layout, records)
            found[blob, layout] = records if whole else None
    return found


def _seal(blob: Digest, layout: str, records: bytes) -> bytes:
    hasher = hashlib.sha256(bytes.fromhex(blob) + layout.encode() + b"\0")
    hasher.update(records)
    return hasher.digest()
